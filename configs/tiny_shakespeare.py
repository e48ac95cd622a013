"""A character language model of Tiny Shakespeare: GRU 512, one million parameters, 16 epochs.

    GRU_JAX_DATA=DIR python -m experiments.train --config configs/tiny_shakespeare.py --workdir runs/shakespeare
    python -m experiments.sample --workdir runs/shakespeare --prompt "ROMEO:" --temperature 0.7

Measured (2 CPU cores that others used too, seed 0): 1.435 nats a character in validation, 1.550 in test, 1.492 over
both, the last tenth of the text; in 25 minutes. How often each character occurs gives 3.362.
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
