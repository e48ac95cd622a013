"""The fine dust of Beijing an hour ahead: a CSV with missing values in inputs and targets, and a column of texts."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """What differs from the defaults."""
    return ConfigDict(
        {
            "task": {
                "name": "files",
                "train": "small_forecasting/pollution.csv",
                "inputs": ("pm2.5", "DEWP", "TEMP", "PRES", "Iws", "Is", "Ir"),
                "targets": ("pm2.5",),
                "window": 48,
                "stride": 2,
                "horizon": 1,
                "missing": "mask",
                "missing_targets": "skip",
                "valid_fraction": 0.2,
                "test_fraction": 0.2,
                "scale": True,
            },
            "model": {"hidden": (32,)},
            "train": {"batch_size": 64, "epochs": 3, "eval_epochs": 0.5, "eval_batch_size": 512},
        }
    )
