"""The next frame of a piece of music: `jsb` (default), `nottingham`, `musedata` or `piano_midi`.

    GRU_JAX_DATA=DIR python -m experiments.train --config configs/music.py:jsb

Measured (one of 2 CPU cores that many others used, seed 0), frame negative log-likelihood in test,
first frame included: `jsb` 8.49 nats in 10.7 minutes (answers without a network: 11.06 from the shares of
the notes, 10.48 from each note's last frame). `nottingham` 3.85 in 30 minutes, where its
best network came after two thirds of the training (10.25 and 5.17 without a network).
"""

from ml_collections import ConfigDict

SETTINGS = {
    "jsb": {"window": None, "batch_size": 16, "epochs": 120, "output_dropout": 0.5, "eval_batch_size": 38},
    "nottingham": {"window": 100, "batch_size": 8, "epochs": 100, "output_dropout": 0.1, "eval_batch_size": 32},
    "musedata": {"window": 100, "batch_size": 8, "epochs": 40, "output_dropout": 0.3, "eval_batch_size": 27},
    "piano_midi": {"window": 100, "batch_size": 8, "epochs": 80, "output_dropout": 0.5, "eval_batch_size": 12},
}


def get_config(collection: str = "jsb") -> ConfigDict:
    """What differs from the defaults; `collection` is which pieces."""
    chosen = SETTINGS.get(collection, SETTINGS["jsb"])  # the task refuses what is no collection
    return ConfigDict(
        {
            "task": {"name": "music", "collection": collection, "window": chosen["window"]},
            "model": {"hidden": (200,), "input_dropout": 0.1, "output_dropout": chosen["output_dropout"]},
            "optimizer": {"lr": 5e-3, "schedule": "cosine"},
            "train": {
                "batch_size": chosen["batch_size"],
                "eval_batch_size": chosen["eval_batch_size"],
                "epochs": chosen["epochs"],
                "eval_epochs": chosen["epochs"] // 20,
            },
        }
    )
