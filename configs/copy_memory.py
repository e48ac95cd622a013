"""Copy memory over T blank steps (default 100) with an LSTM and chrono initialisation.

    python -m experiments.train --config configs/copy_memory.py:100

Measured (2 CPU cores, seed 0): test loss 0.082 (0.173 without memory) and 58 % of the symbols recalled after
4,000 steps in 4.4 minutes, other work beside it.
"""

from ml_collections import ConfigDict


def get_config(length: str = "100") -> ConfigDict:
    """What differs from the defaults; `length` is T."""
    config = ConfigDict()
    config.task = ConfigDict({"name": "copy_memory", "length": int(length)})
    init = {"gate_bias": "chrono", "t_max": 1.5 * int(length)}  # Tallec and Ollivier 2018, section 4
    config.model = ConfigDict({"cell": {"name": "lstm"}, "hidden": (128,), "init": init})
    config.optimizer = ConfigDict({"lr": 3e-3})
    config.train = ConfigDict({"batch_size": 64, "steps": 4000})
    return config
