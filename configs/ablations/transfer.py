"""A network that has learnt something else before against one that has not, at five sizes of the data, five seeds.

    python -m experiments.ablate --config configs/ablations/transfer.py:sentiment --workdir runs/transfer/sentiment

`sentiment` starts from a language model of the same reviews, `music` from MuseData for the chorales, `digits` from five
speakers for the sixth. Each begins with a run that docs/carrying_over.md has the command of: runs/transfer/words,
runs/transfer/musedata, runs/transfer/speakers.

Measured (one CPU core, 6 to 8 minutes each): with all data, carried over against scratch, 76.7 against 78.7 % of the
sentiments, 8.93 against 9.56 nats a frame of music, 98.8 against 99.6 % of the digits, and with the least 55.0 against
53.1 %, 9.65 against 10.03 nats, 92 against 72 %.
"""

from typing import Any

WAYS: dict[str, dict[str, Any]] = {
    "sentiment": {
        "source": "runs/transfer/words",
        "parts": ("embedding", "layers"),
        "shares": (0.01, 0.03, 0.1, 0.3, 1.0),
        "config": {
            "task": {"name": "sst2"},
            "model": {"hidden": (64,), "embedding": 64, "readout": "max", "input_dropout": 0.3, "output_dropout": 0.3},
            "train": {"batch_size": 32, "steps": 600, "eval_steps": 60},
        },
    },
    "music": {
        "source": "runs/transfer/musedata",
        "parts": ("all",),
        "shares": (0.05, 0.1, 0.25, 0.5, 1.0),
        "config": {
            "task": {"name": "music", "collection": "jsb"},
            "model": {"hidden": (100,), "input_dropout": 0.1, "output_dropout": 0.3},
            "train": {"batch_size": 8, "eval_batch_size": 38, "steps": 600, "eval_steps": 60},
        },
    },
    "digits": {
        "source": "runs/transfer/speakers",
        "parts": ("all",),
        "shares": (0.05, 0.1, 0.25, 0.5, 1.0),
        "config": {
            "task": {"name": "spoken_digits", "only": "theo"},
            "model": {"hidden": (64,), "readout": "mean", "output_dropout": 0.3},
            "train": {"batch_size": 16, "steps": 300, "eval_steps": 30},
        },
    },
}


def get_config(way: str = "sentiment") -> dict[str, Any]:
    """The study; `way` is from what to what."""
    chosen = WAYS.get(way, WAYS["sentiment"])
    return {
        "base": {**chosen["config"], "optimizer": {"lr": 2e-3, "schedule": "cosine"}, "flow": {"every": 0}},
        "axes": {
            "start": {
                "scratch": {"train.init_from": None, "transfer.parts": None},
                "carried over": {"train.init_from": chosen["source"], "transfer.parts": chosen["parts"]},
            },
            "task.train_share": list(chosen["shares"]),
            "seed": "0..4",
        },
        "networks": False,
    }
