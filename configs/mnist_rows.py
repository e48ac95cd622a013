"""MNIST read row by row (28 x 28): GRU 128, GRU 128, softmax; Adam, batch 128, 10 epochs.

    GRU_JAX_DATA=DIR python -m experiments.train --config configs/mnist_rows.py

Measured (one CPU core, seed 0): 99.25 % in test, in 2.7 minutes; chance is 10 %.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """What differs from the defaults."""
    config = ConfigDict()
    config.task = ConfigDict({"name": "mnist", "layout": "rows"})
    config.model = ConfigDict({"hidden": (128, 128)})
    config.optimizer = ConfigDict({"name": "adam", "lr": 2e-3, "schedule": "cosine"})
    config.train = ConfigDict({"batch_size": 128, "epochs": 10, "eval_epochs": 0.5})
    return config
