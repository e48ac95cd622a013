"""A run that is killed anywhere and started again ends with the same bits."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from experiments import train
from gru_jax.errors import UsageError
from gru_jax.runs import directory, pictures, single
from gru_jax.runs.checkpoints import Checkpoints
from gru_jax.runs.directory import RunDir
from tests.training.killing import struck
from tests.training.small import small, timeless

pytestmark = pytest.mark.usefixtures("compiled_once")


def same_run(one, two):
    assert timeless(one) == timeless(two)
    flows = [RunDir(path).read_flow() for path in (one, two)]
    assert flows[0].keys() == flows[1].keys()
    for name in flows[0]:
        np.testing.assert_array_equal(flows[0][name], flows[1][name])
    summaries = [RunDir(path).read_summary() for path in (one, two)]
    for key in ("final", "best", "steps", "stopped", "parameters"):
        assert summaries[0][key] == summaries[1][key]


MOMENTS = {  # function, and the calls of it that are struck
    "start": (RunDir, "start", (1,)),
    "rewind": (RunDir, "rewind", (1,)),
    "metrics": (RunDir, "append_metrics", (1, 3, 10, 11)),
    "flow": (RunDir, "write_flow", (1, 3)),
    "checkpoint": (Checkpoints, "save", (1, 2, 3, 4, 7)),
    "summary": (single, "write_json", (1,)),
    "plots": (pictures, "draw_pictures", (1,)),
    "rename": (directory, "replace_file", (2, 3)),
}


@pytest.mark.parametrize("when", [pytest.param("before", marks=pytest.mark.slow), "after"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_struck_at_any_moment(moment, when, tmp_path, monkeypatch, uninterrupted, undrawn):
    owner, name, calls = MOMENTS[moment]
    workdir = tmp_path / "run"
    for call in calls:
        with struck(monkeypatch, owner, name, call, when):
            train.run(small(), workdir)
    train.run(small(), workdir)
    same_run(uninterrupted, workdir)


def test_done_is_done(uninterrupted, capsys):
    before = RunDir(uninterrupted).metrics.read_bytes()
    summary = train.run(small(), uninterrupted).summary
    assert "already done" in capsys.readouterr().out
    assert summary == RunDir(uninterrupted).read_summary()
    assert RunDir(uninterrupted).metrics.read_bytes() == before


def test_another_config_is_refused_with_the_difference(uninterrupted):
    with pytest.raises(UsageError, match=r"optimizer\.lr was 0\.01, is 0\.02") as raised:
        train.run(small(optimizer={"lr": 0.02}), uninterrupted)
    assert "train" not in str(raised.value).split("config:")[1]


def test_early_stopping_and_target(tmp_path, undrawn):
    # lr 0: no validation after the first is better
    config = small(optimizer={"lr": 0.0}, train={"patience": 2, "steps": 100})
    summary = train.run(config, tmp_path / "patience").summary
    assert (summary["steps"], summary["stopped"]) == (8, "no improvement in 2 validations")
    assert summary["best"]["step"] == 0
    summary = train.run(small(train={"target": 100.0}), tmp_path / "target").summary
    assert (summary["steps"], summary["stopped"]) == (0, "reached the target 100")


def test_best_and_latest_checkpoints(uninterrupted):
    checkpoints = RunDir(uninterrupted).checkpoints
    summary = RunDir(uninterrupted).read_summary()
    assert sorted(p.name for p in (checkpoints / "latest").iterdir()) == ["12", "8"]
    assert [p.name for p in (checkpoints / "best").iterdir()] == [str(summary["best"]["step"])]
    valid = {line["step"]: line["loss"] for line in timeless(uninterrupted) if line["split"] == "valid"}
    assert summary["best"]["valid"]["loss"] == min(valid.values())
    assert summary["best"]["step"] == min(valid, key=valid.__getitem__)


def test_files_of_a_run(uninterrupted):
    run = RunDir(uninterrupted)
    assert json.loads(run.config.read_text()) == small().to_dict()
    env = json.loads(run.env.read_text())
    assert env["packages"]["jax"]
    assert env["device"]["platform"] == "cpu"
    lines = timeless(run.path)
    assert [line["step"] for line in lines if line["split"] == "train"] == [2, 4, 6, 8, 10, 12]
    assert [line["step"] for line in lines if line["split"] == "valid"] == [0, 4, 8, 12]
    flow = run.read_flow()
    assert flow["step"].tolist() == [0, 6, 12]
    assert flow["adjoint/layer_0"].shape == (3, 8)
    assert flow["lag"].tolist() == list(range(8))
    assert {p.name for p in run.plots.iterdir()} == {
        "learning_curve.png", "gradient_flow.png", "gates.png", "time_scales.png",
    }  # fmt: skip


COMMAND = [sys.executable, "-m", "experiments.train", "--config"]


def kill_until_done(command, workdir, kills, seed, first=1.0):
    """Start a run, SIGKILL it at random moments after its first line of metrics, start it again."""
    rng = random.Random(seed)
    struck = 0
    for attempt in range(kills + 1):
        process = subprocess.Popen(
            [*command, "--workdir", str(workdir)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        metrics = workdir / "metrics.jsonl"
        if attempt < kills:
            before = metrics.stat().st_mtime_ns if metrics.exists() else 0
            while process.poll() is None and not (metrics.exists() and metrics.stat().st_mtime_ns != before):
                time.sleep(0.01)
            time.sleep(rng.uniform(0, first))
            process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
        struck += process.returncode == -signal.SIGKILL
    assert process.returncode == 0, errors
    return struck


TASKS = {
    "generated": ["configs/quickstart.py", "--config.task.length=30", "--config.train.steps=200",
                  "--config.train.eval_steps=20", "--config.task.test_size=64", "--config.task.valid_size=64"],
    "files": ["configs/mnist_rows.py", "--config.train.steps=40", "--config.train.eval_steps=8",
              "--config.model.hidden=8,8", "--config.train.batch_size=32", "--config.train.eval_batch_size=1000"],
}  # fmt: skip


def sigkill(task, tmp_path, kills):
    assert train.command(["--config", *TASKS[task], "--workdir", str(tmp_path / "whole")]) == 0
    struck = kill_until_done([*COMMAND, *TASKS[task]], tmp_path / "killed", kills, seed=kills)
    same_run(tmp_path / "whole", tmp_path / "killed")
    return struck


def test_sigkill(tmp_path, undrawn):
    assert sigkill("generated", tmp_path, kills=1) >= 1


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_sigkill_many_times(task, tmp_path, request):
    if task == "files":
        request.getfixturevalue("data_dir")
    struck = sigkill(task, tmp_path, kills=20)
    print(f"{task}: {struck} kills")
    assert struck >= 5
