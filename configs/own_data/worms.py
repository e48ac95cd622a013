"""Worms by the way they move: a UCR file of 181 sequences of 900 steps, five classes of 17 to 76 examples."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """What differs from the defaults."""
    return ConfigDict(
        {
            "task": {
                "name": "files",
                "train": "ucr/Worms/Worms_TRAIN.tsv",
                "test": "ucr/Worms/Worms_TEST.tsv",
                "valid_fraction": 0.2,
                "divide_by": "stratified",
            },
            "model": {"hidden": (64,), "readout": "mean"},
            "optimizer": {"lr": 0.003},
            "train": {"batch_size": 36, "steps": 400},
        }
    )
