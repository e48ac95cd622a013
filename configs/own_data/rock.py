"""Four kinds of rock by their spectra: a UCR file of 20 sequences of 2,844 steps, 128 of which are read as one."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """What differs from the defaults."""
    return ConfigDict(
        {
            "task": {
                "name": "files",
                "train": "ucr/Rock/Rock_TRAIN.tsv",
                "test": "ucr/Rock/Rock_TEST.tsv",
                "valid_fraction": 0.2,
                "divide_by": "stratified",
                "scale_each": True,
                "stack": 128,
            },
            "model": {"hidden": (32,), "bidirectional": True},
            "optimizer": {"lr": 2e-3, "schedule": "cosine"},
            "train": {"batch_size": 16, "steps": 300, "eval_steps": 50},
        }
    )
