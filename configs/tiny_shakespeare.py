"""A character language model of Tiny Shakespeare.

python -m experiments.train --config configs/tiny_shakespeare.py --workdir runs/shakespeare
python -m experiments.sample --workdir runs/shakespeare --prompt "ROMEO:"
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """What differs from the defaults."""
    return ConfigDict(
        {
            "task": {"name": "tiny_shakespeare", "length": 128},
            "model": {"hidden": (512,), "embedding": 128, "input_dropout": 0.1, "output_dropout": 0.3},
            "optimizer": {"name": "adamw", "lr": 2e-3, "schedule": "cosine", "clip_norm": 1.0},
            "train": {"batch_size": 64, "epochs": 16, "eval_epochs": 1},
        }
    )
