"""A batch split over devices: no device waits for another before the end of a step, and the step is the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gru_jax.runtime import devices
from gru_jax.runtime.devices import choose_devices
from tests.training.split import CASES

ROOT = Path(__file__).parent.parent.parent
QUICK = ("plain",)


@pytest.fixture(scope="module", params=["quick", pytest.param("all", marks=pytest.mark.slow)])
def outcomes(request):
    names = QUICK if request.param == "quick" else [name for name in CASES if name not in QUICK]
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.split", *names],
        cwd=ROOT, env={**os.environ, "JAX_NUM_CPU_DEVICES": "8"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_eight_devices_do_what_one_does(outcomes):
    """Metrics, live readings, validation, all instruments; dropout and detaching are those of the whole batch."""
    for name, (one, eight) in outcomes.items():
        assert one["numbers"].keys() == eight["numbers"].keys()
        for key, value in one["numbers"].items():
            np.testing.assert_allclose(eight["numbers"][key], value, rtol=1e-4, atol=1e-6, err_msg=f"{name} {key}")
        assert eight["repeats"], "as many devices give the same bits"


def test_no_collective_stands_in_a_loop_over_time(outcomes):
    """The loops over steps and over the batches of a validation are all that may be around one."""
    for name, (one, eight) in outcomes.items():
        assert not any(one["collectives"].values())
        in_step = eight["collectives"]["train"]
        assert max(in_step) == 1, f"{name}: deeper than the loop over steps"
        assert set(eight["collectives"]["valid"]) <= {0}
        assert set(eight["collectives"]["measure"]) <= {0}, f"{name}: in a loop of an instrument"
        if name in ("plain", "reference", "every step", "in parts", "skipping"):
            assert in_step == [1], "all gradients and metrics meet at once"


@pytest.mark.parametrize(
    ("cores", "batch_size", "used"), [(2, 64, 2), (4, 64, 4), (4, 12, 3), (4, 8, 2), (8, 4, 1), (4, 7, 1), (1, 64, 1)]
)
def test_as_many_devices_as_pay(cores, batch_size, used, monkeypatch):
    """Each has four rows at least, and all have as many."""

    class Core:
        platform, process_index = "cpu", 0

    monkeypatch.setattr(devices.jax, "devices", lambda platform=None: [Core()] * cores)
    assert len(choose_devices("cpu", "auto", batch_size)) == used
    assert len(choose_devices("cpu", "auto", batch_size, tokens=2000)) == used


@pytest.mark.parametrize(
    ("batch_size", "tokens", "used"), [(50, 53, 1), (32, 35, 1), (64, 40, 1), (64, 128, 2), (32, 600, 2), (8, 9000, 2)]
)
def test_devices_have_enough_tokens_each(batch_size, tokens, used, monkeypatch):
    """Sentences, words and translation take one, characters and whole documents two."""

    class Core:
        platform, process_index = "cpu", 0

    monkeypatch.setattr(devices.jax, "devices", lambda platform=None: [Core()] * 2)
    assert len(choose_devices("cpu", "auto", batch_size, tokens=tokens)) == used
    assert len(choose_devices("cpu", 2, batch_size, tokens=tokens)) == 2
