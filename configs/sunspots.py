"""Sunspots of the next 12 months, as quantiles, from the 11 years before.

GRU_JAX_DATA=DIR python -m experiments.train --config configs/sunspots.py --workdir runs/sunspots
python -m experiments.backtest --workdir runs/sunspots
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """What differs from the defaults."""
    return ConfigDict(
        {
            "task": {
                "name": "small_series",
                "collection": "sunspots",
                "horizon": 12,
                "context": 132,
                "segment": 12,
                "subtract_last": True,
                "highway": True,
                "quantiles": (0.1, 0.25, 0.5, 0.75, 0.9),
            },
            "model": {"hidden": (32,), "output_dropout": 0.3},
            "optimizer": {"lr": 2e-3, "schedule": "cosine"},
            "train": {"batch_size": 64, "epochs": 20, "eval_epochs": 2},
            "flow": {"every": 0},
        }
    )
