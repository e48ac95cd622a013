"""Delayed memory over 60 steps with a simple recurrent network, with or without gradient flossing before training.

    python -m experiments.train --config configs/studies/flossing.py:55 --config.seed=0

The argument is the number of Lyapunov exponents that flossing drives to zero; 0 for plain training.
Measured: see docs/studies/flossing.md.
"""

from ml_collections import ConfigDict


def get_config(floss: str = "0") -> ConfigDict:
    """What differs from the defaults."""
    config = ConfigDict()
    config.task = ConfigDict(
        {"name": "delayed_memory", "delay": 60, "length": 180, "valid_size": 256, "test_size": 1024}
    )
    config.model = ConfigDict({"hidden": (64,), "cell": {"name": "elman"}, "init": {"recurrent": "fan_in_normal"}})
    config.train = ConfigDict({"batch_size": 32, "steps": 3000, "eval_steps": 250})
    config.flow = ConfigDict({"instruments": ("adjoint", "lyapunov"), "exponents": 64, "every": 1500})
    if int(floss):
        config.gradient = ConfigDict({"floss": int(floss), "floss_before": 300})
    return config
