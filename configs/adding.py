"""Adding problem over T steps (default 750), where a plain LSTM stays at the memoryless loss.

    python -m experiments.train --config configs/adding.py:750

Measured (2 CPU cores, seed 0): test error 0.00084 after 2,400 steps in 3.7 minutes, other work
beside it; always answering 1 gives 0.167.
"""

from ml_collections import ConfigDict


def get_config(length: str = "750") -> ConfigDict:
    """What differs from the defaults; `length` is T."""
    config = ConfigDict()
    config.task = ConfigDict({"name": "adding", "length": int(length)})
    config.model = ConfigDict({"hidden": (64,), "init": {"gate_bias": "chrono"}})
    config.optimizer = ConfigDict({"lr": 2e-3})
    config.train = ConfigDict({"batch_size": 32, "steps": 4000, "target": 1e-3})
    return config
