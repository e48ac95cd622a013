"""x"""
from ml_collections import ConfigDict

def get_config(horizon: str = "24") -> ConfigDict:
    return ConfigDict(
        {
            "task": {"name": "etth1", "horizon": int(horizon), "context": 336, "segment": 24, "separate": True, "subtract_last": True},
            "model": {"hidden": (64,)},
            "optimizer": {"lr": 1e-3, "schedule": "cosine"},
            "train": {"batch_size": 256, "eval_batch_size": 1024, "epochs": 2, "eval_epochs": 0.5},
        }
    )
