"""Spoken digits from the sound itself, up to 18,262 samples: `chrono` (default) or another rule for the update gate.

GRU_JAX_DATA=DIR python -m experiments.train --config configs/spoken_digits_raw.py:chrono
"""

from ml_collections import ConfigDict


def get_config(gate_bias: str = "chrono") -> ConfigDict:
    """What differs from the defaults; `gate_bias` is the rule for the biases of the update gate."""
    return ConfigDict(
        {
            "task": {"name": "spoken_digits", "features": "waveform"},
            "model": {"hidden": (64,), "readout": "mean", "init": {"gate_bias": gate_bias}},
            "optimizer": {"lr": 2e-3, "schedule": "cosine"},
            "train": {"batch_size": 32, "epochs": 8, "eval_epochs": 1, "batch_by_length": True},
            "flow": {"batch_size": 4},
        }
    )
