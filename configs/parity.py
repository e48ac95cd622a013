"""Whether the number of ones among the last K bits is odd (default 3), said at every step of 50 to 100.

    python -m experiments.train --config configs/parity.py:3

Measured (2 CPU cores that others used too, seed 0): every label of the test set is right, at a loss of
0.00082, after 400 steps in 34 s; without memory 50 % are, at ln 2.
"""

from ml_collections import ConfigDict


def get_config(bits: str = "3") -> ConfigDict:
    """What differs from the defaults; `bits` is K."""
    return ConfigDict(
        {
            "task": {"name": "parity", "length": 100, "shortest": 50, "bits": int(bits)},
            "model": {"hidden": (64,)},
            "optimizer": {"lr": 3e-3},
            "train": {"batch_size": 32, "steps": 4000, "target": 1e-3},
        }
    )
