"""The next 24 (default) or 96 hours of an electricity transformer, all seven columns of ETTh1.

GRU_JAX_DATA=DIR python -m experiments.train --config configs/etth1.py:24 --workdir runs/etth1
python -m experiments.backtest --workdir runs/etth1
"""

from ml_collections import ConfigDict


def get_config(horizon: str = "24") -> ConfigDict:
    """What differs from the defaults; `horizon` is hours."""
    return ConfigDict(
        {
            "task": {
                "name": "etth1",
                "horizon": int(horizon),
                "context": 336,
                "segment": 24,
                "separate": True,
                "subtract_last": True,
                "highway": True,
                "calendar": ("hour", "weekday"),
            },
            "model": {"hidden": (128,), "output_dropout": 0.3},
            "optimizer": {"lr": 2e-3, "schedule": "cosine"},
            "train": {"batch_size": 256, "eval_batch_size": 1024, "epochs": 4, "eval_epochs": 1},
            "flow": {"every": 0},
        }
    )
