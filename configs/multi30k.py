"""Captions of pictures translated (Multi30k), from English to German, or `de-en` the other way.

GRU_JAX_DATA=DIR python -m experiments.train --config configs/multi30k.py --workdir runs/multi30k
python -m experiments.evaluate --workdir runs/multi30k --beam_size 5
"""

from ml_collections import ConfigDict


def get_config(languages: str = "en-de") -> ConfigDict:
    """What differs from the defaults; `languages` is what is read and what is written."""
    source, target = languages.split("-")
    return ConfigDict(
        {
            "task": {
                "name": "multi30k", "source": source, "target": target, "vocabulary": 6000, "length": 40,
                "label_smoothing": 0.1,
            },
            "model": {
                "hidden": (256,), "embedding": 256, "bidirectional": True, "input_dropout": 0.3, "output_dropout": 0.3,
            },
            "optimizer": {"name": "adamw", "lr": 2e-3, "schedule": "cosine", "clip_norm": 1.0},
            "train": {"batch_size": 64, "epochs": 10.0, "eval_epochs": 1.0},
            "flow": {"every": 0},
        }
    )  # fmt: skip
