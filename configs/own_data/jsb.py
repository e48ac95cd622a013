"""The next notes of Bach's chorales: a .mat file by way of arrays, with targets at every step."""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from scipy.io import loadmat

from gru_jax.data.files import data_root
from gru_jax.tasks import Arrays


def get_config(folder: str = "runs/jsb_arrays") -> ConfigDict:
    """What differs from the defaults; the arrays are written into a folder."""
    rolls = loadmat(data_root(None) / "polymusic" / "JSB_Chorales.mat")

    def chorales(split: str) -> list[tuple[np.ndarray, np.ndarray]]:  # notes, and those of the next step
        return [(roll[:-1].astype(float), roll[1:].astype(float)) for roll in rolls[f"{split}data"][0]]

    return ConfigDict(
        {
            "task": Arrays.write(Path(folder), train=chorales("train"), valid=chorales("valid"), test=chorales("test")),
            "model": {"hidden": (64,)},
            "optimizer": {"lr": 0.003},
            "train": {"batch_size": 16, "epochs": 30, "eval_epochs": 2},
        }
    )
