"""Whether a bit differs from that of K steps before (default 5), said at every step of 50 to 100.

    python -m experiments.train --config configs/delayed_xor.py:5

Measured (2 CPU cores that others used too, seed 0): every label of the test set is right, at a loss of
0.00089, after 400 steps in 36 s; without memory 50 % are, at ln 2.
"""

from ml_collections import ConfigDict


def get_config(delay: str = "5") -> ConfigDict:
    """What differs from the defaults; `delay` is K."""
    return ConfigDict(
        {
            "task": {"name": "delayed_xor", "length": 100, "shortest": 50, "delay": int(delay)},
            "model": {"hidden": (64,)},
            "optimizer": {"lr": 3e-3},
            "train": {"batch_size": 32, "steps": 4000, "target": 1e-3},
        }
    )
