"""Adding problem over 200 steps with a GRU of 64 units and chrono initialisation, until the error is below 0.001.

    python -m experiments.train --config configs/quickstart.py

Measured (2 CPU cores, others at work too, seed 0): test error 0.00067 after 1,150 steps in 36 s; always answering 1
gives 0.167.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """What differs from the defaults."""
    config = ConfigDict()
    config.task = ConfigDict({"name": "adding", "length": 200})
    config.model = ConfigDict({"hidden": (64,), "init": {"gate_bias": "chrono"}})
    config.optimizer = ConfigDict({"lr": 4e-3})
    config.train = ConfigDict({"batch_size": 32, "steps": 2000, "eval_steps": 50, "target": 1e-3})
    config.flow = ConfigDict({"every": 50})
    return config
