"""The next frame of a piece of music: `jsb` (default), `nottingham`, `musedata` or `piano_midi`.

GRU_JAX_DATA=DIR python -m experiments.train --config configs/music.py:jsb
"""

from ml_collections import ConfigDict

SETTINGS = {
    "jsb": {},
    "nottingham": {},
    "musedata": {},
    "piano_midi": {},
}


def get_config(collection: str = "jsb") -> ConfigDict:
    """What differs from the defaults; `collection` is which pieces."""
    return ConfigDict(
        {
            "task": {"name": "music", "collection": collection},
            "model": {"hidden": (200,)},
            "optimizer": {"lr": 2e-3},
            "train": {"batch_size": 16, "epochs": 60, "eval_epochs": 2, "patience": 6},
            "flow": {"every": 0},
        }
    )
