"""Six initialisations, seven learning rates, five seeds: which carries a GRU over 200 steps, and is it luck?

python -m experiments.ablate --config configs/ablations/init_lr.py --workdir runs/init_lr
"""

from typing import Any

STEPS = 1500
INITIALISATIONS: dict[str, dict[str, Any]] = {
    "orthogonal": {},
    "orthogonal, chrono": {"gate_bias": "chrono"},
    "orthogonal, uniform gates": {"gate_bias": "uniform_gate"},
    "Gaussian, gain 1": {"recurrent": "fan_in_normal"},
    "Gaussian, gain 2 (edge)": {"recurrent": "fan_in_normal", "recurrent_scale": 2.0},
    "PyTorch's": {"input": "uniform", "recurrent": "uniform", "bias": "uniform", "bias_scale": 2**0.5},
}
# PyTorch draws two biases for every gate, which add up.
DEFAULTS = {"input": "glorot_uniform", "recurrent": "orthogonal", "recurrent_scale": 1.0, "bias": "zeros",
            "bias_scale": 1.0, "gate_bias": "same"}  # fmt: skip


def get_config() -> dict[str, Any]:
    """The study."""
    return {
        "base": "../adding.py:200",
        "config": {
            "task": {"valid_size": 256, "test_size": 1024},
            "model": {"hidden": (32,)},
            "train": {"batch_size": 32, "steps": STEPS, "eval_steps": 100, "target": None},
            "flow": {"instruments": ("adjoint", "lyapunov", "gates"), "exponents": 1, "interval": 1, "batch_size": 16},
        },
        "axes": {
            "initialisation": {
                name: {f"model.init.{key}": value for key, value in {**DEFAULTS, **changes}.items()}
                for name, changes in INITIALISATIONS.items()
            },
            "optimizer.lr": "log(1e-4,1e-1,7)",
            "seed": "0..4",
        },
        "networks": False,
    }
