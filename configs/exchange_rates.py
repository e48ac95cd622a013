"""The next 24 days of eight exchange rates, which nothing tells better than those of today.

GRU_JAX_DATA=DIR python -m experiments.train --config configs/exchange_rates.py --workdir runs/exchange
python -m experiments.backtest --workdir runs/exchange
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """What differs from the defaults."""
    return ConfigDict(
        {
            "task": {
                "name": "exchange_rates",
                "horizon": 24,
                "context": 96,
                "segment": 12,
                "separate": True,
                "subtract_last": True,
            },
            "model": {"hidden": (32,), "output_dropout": 0.3},
            "optimizer": {"lr": 1e-3, "schedule": "cosine"},
            "train": {"batch_size": 256, "eval_batch_size": 1024, "epochs": 2, "eval_epochs": 0.25},
            "flow": {"every": 0},
        }
    )
