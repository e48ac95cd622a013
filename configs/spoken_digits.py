"""Spoken digits from log-mel frames, by the official split, or with one speaker held out: `:george`, `:theo`, ….

GRU_JAX_DATA=DIR python -m experiments.train --config configs/spoken_digits.py
"""

from ml_collections import ConfigDict


def get_config(speaker: str = "") -> ConfigDict:
    """What differs from the defaults; `speaker` is whose voice is for the test alone, nobody's without a name."""
    return ConfigDict(
        {
            "task": {"name": "spoken_digits", "speaker": speaker or None},
            "model": {"hidden": (128, 128), "readout": "mean", "dropout": 0.3},
            "optimizer": {"lr": 2e-3, "schedule": "cosine"},
            "train": {"batch_size": 50, "epochs": 30, "eval_epochs": 3},
        }
    )
