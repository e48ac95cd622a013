"""One run over several devices is the run on one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import train
from gru_jax.errors import UsageError
from gru_jax.runtime.devices import choose_devices
from tests.training.small import assert_same_losses, small

ROOT = Path(__file__).parent.parent.parent
SCRIPT = """
import contextlib, json, sys
import jax
stages, *joined = json.loads(sys.argv[1])
if joined:
    jax.distributed.initialize(*joined)
import gru_jax.runs.train
from experiments import train
from gru_jax.runtime.preemption import PreemptedError
from tests.training.small import small
from tests.training.test_faults import asked_after
for workdir, devices, calls in stages:
    gru_jax.runs.train.watch_for_sigterm = asked_after(calls)
    with contextlib.suppress(PreemptedError):
        train.run(small(devices=devices, flow={"live": 1}), workdir)
"""


def stage(workdir, devices, *more, processes=1, calls=99):
    """Train, over so many devices of so many processes, the last of which is asked to end after so many calls.

    `more` are further trainings by the same processes, each as (workdir, devices, calls).
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    started = []
    for process in range(processes):
        joined = [address, processes, process] if processes > 1 else []
        mine = calls if process == processes - 1 else 99
        stages = [(str(path), count, last) for path, count, last in [(workdir, devices, mine), *more]]
        command = [sys.executable, "-c", SCRIPT, json.dumps([stages, *joined])]
        env = {**os.environ, "JAX_NUM_CPU_DEVICES": "8"}
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, env=env))
    ends = [process.communicate(timeout=300) for process in started]
    for process, (_, err) in zip(started, ends, strict=True):
        assert process.returncode == 0, err
    return [out for out, _ in ends]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run on one device of one process."""
    path = tmp_path_factory.mktemp("runs") / "alone"
    train.run(small(devices=1, flow={"live": 1}), path)
    return path


@pytest.mark.slow
def test_eight_devices_and_one_give_the_same_run(tmp_path, alone):
    """Also where a run is saved on eight, gone on with on one, and on eight again."""
    both = tmp_path / "both"
    (out,) = stage(tmp_path / "eight", 8, (both, 8, 1), (both, 1, 0))
    assert_same_losses(alone, tmp_path / "eight")
    assert "going on in another environment, results may differ in their last bits: device.used was 8, is 1" in out
    assert not (both / "summary.json").exists()
    stage(both, 8)
    assert_same_losses(alone, both)


@pytest.mark.slow
def test_two_processes_and_one_give_the_same_run(tmp_path, alone):
    """Saved by two, where it was the second that was asked to end, gone on with by one, and by two to the end."""
    first, second = stage(tmp_path / "run", 1, processes=2, calls=1)
    assert "parameters" in first
    assert "parameters" not in second, "the first alone speaks"
    (out,) = stage(tmp_path / "run", 1, calls=0)
    assert "resuming at step" in out
    assert "device.processes was 2, is 1" in out
    assert not (tmp_path / "run" / "summary.json").exists()
    stage(tmp_path / "run", 2, processes=2)
    assert_same_losses(alone, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "env.json").read_text())["device"]["used"] == 4


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["experiments.train", "--config=configs/quickstart.py"], "not a run directory, it holds other and no config"),
        (["experiments.ablate", "--config=configs/quickstart.py", "--axis.seed=0..1"], "not a study's directory"),
    ],
    ids=["train", "ablate"],
)
def test_a_refusal_reaches_every_process(command, message, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "other").write_text("not a run")
    with socket.create_server(("127.0.0.1", 0)) as server:
        flags = [f"--coordinator=127.0.0.1:{server.getsockname()[1]}", "--processes=2", f"--workdir={tmp_path / 'run'}"]
    command = [sys.executable, "-m", *command, *flags]
    started = [
        subprocess.Popen([*command, f"--process={i}"], cwd=ROOT, stderr=subprocess.PIPE, text=True) for i in range(2)
    ]
    for process in started:
        _, err = process.communicate(timeout=300)
        assert process.returncode == 2
        assert err.count("error: ") == 1
        assert message in err


def test_devices_that_are_not_there_are_refused():
    with pytest.raises(UsageError, match=r"devices=4: allowed are up to \d, the cpu devices here; JAX_NUM_CPU_DEVICES"):
        choose_devices("cpu", 4, 8)
    with pytest.raises(UsageError, match=r"devices=3: they cannot share train.batch_size=8 evenly"):
        small(devices=3)
