"""Sequences of symbols written backwards, of 1 to L symbols (default 10), by an encoder and a decoder with attention.

python -m experiments.train --config configs/reverse.py
"""

from ml_collections import ConfigDict


def get_config(length: str = "10") -> ConfigDict:
    """What differs from the defaults; `length` is L."""
    return ConfigDict(
        {
            "task": {"name": "reverse", "length": int(length)},
            "model": {"hidden": (64,), "embedding": 32, "bidirectional": True},
            "optimizer": {"lr": 3e-3, "schedule": "cosine"},
            "train": {"batch_size": 64, "steps": 2000},
        }
    )
