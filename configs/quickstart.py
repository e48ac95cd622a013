"""Adding problem over 200 steps with a GRU of 64 units.

python -m experiments.train --config configs/quickstart.py
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """What differs from the defaults."""
    config = ConfigDict()
    config.task = ConfigDict({"name": "adding", "length": 200})
    config.model = ConfigDict({"hidden": (64,), "init": {"gate_bias": "chrono"}})
    config.optimizer = ConfigDict({"lr": 3e-3})
    config.train = ConfigDict({"batch_size": 64, "steps": 1500})
    return config
