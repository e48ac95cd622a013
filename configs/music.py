"""The next frame of a piece of music: `jsb` (default), `nottingham`, `musedata` or `piano_midi`.

    GRU_JAX_DATA=DIR python -m experiments.train --config configs/music.py:jsb
    GRU_JAX_DATA=DIR python -m experiments.ablate --config configs/music.py:jsb --axis.seed=0..2

Measured (one CPU core, seeds 0 to 2), frame negative log-likelihood in test, first frame included, mean and deviation,
and minutes of one run: `jsb` 8.29 ± 0.02 nats, 1.1; `nottingham` 3.21 ± 0.01, 5.0; `musedata` 7.03 ± 0.01, 5.1;
`piano_midi` 7.22 ± 0.01, 2.0. Each note's last frame alone gives 10.48, 5.17, 8.56 and 8.26. How settings were chosen:
docs/signals.md.
"""

from ml_collections import ConfigDict

SETTINGS = {
    "jsb": {"window": None, "batch_size": 16, "epochs": 120, "output_dropout": 0.3, "eval_batch_size": 38},
    "nottingham": {"window": 100, "batch_size": 8, "epochs": 80, "output_dropout": 0.1, "eval_batch_size": 32},
    "musedata": {"window": 100, "batch_size": 8, "epochs": 8, "output_dropout": 0.3, "eval_batch_size": 27},
    "piano_midi": {"window": 100, "batch_size": 8, "epochs": 12, "output_dropout": 0.5, "eval_batch_size": 12},
}
KEYS_AROUND = {"musedata": 3, "piano_midi": 3}  # semitones up and down by which pieces are moved too


def get_config(collection: str = "jsb") -> ConfigDict:
    """What differs from the defaults; `collection` is which pieces."""
    chosen = SETTINGS.get(collection, SETTINGS["jsb"])  # the task refuses what is no collection
    return ConfigDict(
        {
            "task": {
                "name": "music",
                "collection": collection,
                "window": chosen["window"],
                "transpose": KEYS_AROUND.get(collection, 0),
            },
            "model": {"hidden": (200,), "input_dropout": 0.1, "output_dropout": chosen["output_dropout"]},
            "optimizer": {"lr": 5e-3, "schedule": "cosine"},
            "regularization": {"activation": 2.0, "temporal_activation": 1.0, "dropconnect": 0.3},
            "train": {
                "batch_size": chosen["batch_size"],
                "eval_batch_size": chosen["eval_batch_size"],
                "epochs": chosen["epochs"],
                "eval_epochs": chosen["epochs"] / 20,
            },
        }
    )
