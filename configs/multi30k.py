"""Captions of Multi30k from English to German, or the other way (`de-en`): encoder and decoder of GRUs with attention.

    GRU_JAX_DATA=DIR python -m experiments.train --config configs/multi30k.py

Measured (one of 2 CPU cores that other work shared, seed 0), en-de, test of 2016: BLEU 30.0 greedily and 32.3 by a beam
of 5 (experiments.evaluate), perplexity 7.53, in 72 minutes; de-en, 39.3 and 40.6, perplexity 6.05, in 45.
"""

from ml_collections import ConfigDict


def get_config(languages: str = "en-de") -> ConfigDict:
    """What differs from the defaults; `languages` are those of source and target."""
    source, _, target = languages.partition("-")
    config = ConfigDict()
    config.task = ConfigDict({
        "name": "multi30k", "source": source, "target": target, "vocabulary": 5000, "length": 40,
    })  # fmt: skip
    config.model = ConfigDict({
        "hidden": (256,), "embedding": 256, "bidirectional": True, "attention": "luong",
        "input_dropout": 0.3, "output_dropout": 0.4,
    })  # fmt: skip
    config.optimizer = ConfigDict({"name": "adamw", "lr": 2e-3, "schedule": "cosine"})
    config.train = ConfigDict({"batch_size": 64, "epochs": 16, "eval_epochs": 1, "batch_by_length": True})
    config.flow = ConfigDict({"every": 0})
    return config
