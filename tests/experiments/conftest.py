"""A small study that several tests look at."""

from __future__ import annotations

import pytest

from experiments import ablate
from gru_jax.studies.study import load_study
from gru_jax.training.population import TRAIN, CompiledPopulation
from tests.programs import compiled_once

BASE = '''"""A tiny run."""
def get_config():
    return {
        "task": {"name": "adding", "length": 8, "valid_size": 20, "test_size": 30},
        "model": {"hidden": (4,)},
        "train": {"batch_size": 8, "steps": 12, "eval_steps": 4, "log_steps": 2, "call_steps": 3},
        "flow": {"batch_size": 4, "instruments": ("adjoint", "lyapunov", "gates")},
    }
'''
STUDY = '''"""A tiny study."""
def get_config():
    return {
        "base": "base.py",
        "axes": {
            "optimizer.lr": "0.01,1e30",
            "initialisation": {name: {"model.init.gate_bias": name} for name in ("zeros", "chrono")},
            "seed": "0..1",
        },
    }
'''


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("study")
    (path / "base.py").write_text(BASE)
    (path / "study.py").write_text(STUDY)
    return path


@pytest.fixture(scope="session")
def whole(folder):
    """The study in one go, and for how many rows of members its training was compiled, in this order."""
    compiled = []

    def counting(self, name, rows, *arguments):
        if name == TRAIN and rows not in self.compiled_rows():
            compiled.append(rows)
        return original(self, name, rows, *arguments)

    with compiled_once(), pytest.MonkeyPatch.context() as patch:
        original = CompiledPopulation.compile
        patch.setattr(CompiledPopulation, "compile", counting)
        ablate.run(load_study(str(folder / "study.py"), {}, {}, {}), folder / "whole")
    return folder / "whole", compiled
