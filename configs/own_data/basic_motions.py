"""What somebody does with a watch on the wrist: a .ts file of UEA, six dimensions, four classes by name."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """What differs from the defaults."""
    return ConfigDict(
        {
            "task": {
                "name": "files",
                "train": "uea/BasicMotions/BasicMotions_TRAIN.ts",
                "test": "uea/BasicMotions/BasicMotions_TEST.ts",
                "valid_fraction": 0.25,
                "divide_by": "stratified",
                "scale": True,
            },
            "model": {"hidden": (32,), "readout": "mean"},
            "optimizer": {"lr": 0.01},
            "train": {"batch_size": 30, "steps": 200},
        }
    )
