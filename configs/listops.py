"""What nested operations on lists of digits come to (ListOps), to 500 tokens or as many as the argument says.

GRU_JAX_DATA=DIR python -m experiments.train --config configs/listops.py
GRU_JAX_DATA=DIR python -m experiments.train --config configs/listops.py:2000 --config.task.min_length=500

Measured (one CPU core), to 500 tokens, three seeds: 60.2 +- 0.6 % in test after 4 passes (`--config.train.epochs=4`),
with chrono biases 59.3 +- 0.4 %, the six in 13 minutes; the most frequent digit gives 11.3 %, the first operator alone
23.9 %. Of 500 to 2,000 tokens (20,000 to train on, 8 passes, one seed): 20.1 and 21.5 %; 13.6 and 27.1 % without a
network.
"""

from ml_collections import ConfigDict


def get_config(max_length: str = "500") -> ConfigDict:
    """What differs from the defaults; beyond 500 tokens the round brackets are read too."""
    return ConfigDict(
        {
            "task": {"name": "listops", "max_length": int(max_length), "brackets": int(max_length) > 500},
            "model": {"hidden": (128,), "embedding": 32},
            "optimizer": {"lr": 3e-3, "schedule": "cosine"},
            "train": {"batch_size": 64, "epochs": 10, "eval_epochs": 0.5, "batch_by_length": True},
        }
    )
