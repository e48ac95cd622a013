"""Adding over 2,000 steps, where the default biases lose the gradient: biases as an argument, zeros or chrono.

    python -m experiments.train --config configs/studies/vanishing.py:chrono --config.seed=0

Measured: see docs/studies/vanishing.md.
"""

from ml_collections import ConfigDict


def get_config(gate_bias: str = "zeros", length: str = "2000") -> ConfigDict:
    """What differs from the defaults; `gate_bias` is the rule for the update gate."""
    config = ConfigDict()
    config.task = ConfigDict({"name": "adding", "length": int(length), "valid_size": 500, "test_size": 2000})
    config.model = ConfigDict({"hidden": (64,), "init": {"gate_bias": gate_bias}})
    config.optimizer = ConfigDict({"lr": 2e-3})
    config.train = ConfigDict({"batch_size": 32, "steps": 2000, "eval_steps": 100})
    config.flow = ConfigDict({"every": 100, "instruments": ("adjoint", "gates", "lyapunov")})
    return config
