"""Rocks by their spectra: a UCR file of 20 sequences of 2,844 steps, four classes."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """What differs from the defaults."""
    return ConfigDict(
        {
            "task": {
                "name": "files",
                "train": "ucr/Rock/Rock_TRAIN.tsv",
                "test": "ucr/Rock/Rock_TEST.tsv",
                "valid_fraction": 0.3,
                "divide_by": "stratified",
                "scale": True,
            },
            "model": {"hidden": (32,), "readout": "mean"},
            "optimizer": {"lr": 0.01},
            "train": {"batch_size": 14, "steps": 300},
        }
    )
