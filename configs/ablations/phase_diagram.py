"""Recurrent gain against update-gate bias: where the largest Lyapunov exponent changes sign, and where training works.

python -m experiments.ablate --config configs/ablations/phase_diagram.py --workdir runs/phase_diagram
"""

from typing import Any

STEPS = 600


def get_config() -> dict[str, Any]:
    """The study."""
    return {
        "base": "../adding.py:100",
        "config": {
            "task": {"valid_size": 256, "test_size": 512},
            "model": {"hidden": (32,), "init": {"recurrent": "fan_in_normal", "gate_bias": "constant"}},
            "optimizer": {"lr": 3e-3},
            "train": {"batch_size": 32, "steps": STEPS, "eval_steps": 100, "target": None},
            "flow": {"instruments": ("adjoint", "lyapunov"), "exponents": 1, "batch_size": 16},
        },
        "axes": {
            "model.init.recurrent_scale": "lin(0.5,5,10)",
            "model.init.gate_value": "lin(-2,6,9)",
            "seed": "0..2",
        },
        "networks": False,
    }
