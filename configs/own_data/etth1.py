"""The oil temperature of a transformer a day ahead: a CSV of one long recording, in windows of four days."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """What differs from the defaults."""
    return ConfigDict(
        {
            "task": {
                "name": "files",
                "train": "ett/ETTh1.csv",
                "inputs": ("OT",),
                "targets": ("OT",),
                "window": 96,
                "horizon": 24,
                "valid_fraction": 0.2,
                "test_fraction": 0.2,
                "scale": True,
            },
            "model": {"hidden": (16,)},
            "optimizer": {"lr": 0.003},
            "train": {"batch_size": 64, "epochs": 3, "eval_epochs": 0.5, "eval_batch_size": 512},
        }
    )
