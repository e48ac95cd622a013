"""The commands as a user meets them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments import ablate, evaluate, train
from gru_jax.config import load_config
from gru_jax.errors import UsageError
from gru_jax.runs.diagnosis import NonFiniteError, explain
from gru_jax.runs.directory import RunDir
from gru_jax.runtime.preemption import PreemptedError
from gru_jax.studies.runner import RunnerOptions
from gru_jax.tasks import split_key
from gru_jax.training.step import Trainer
from tests import lenient
from tests.training.small import small

pytestmark = pytest.mark.usefixtures("compiled_once")

ROOT = Path(__file__).parent.parent.parent
CONFIGS = sorted((ROOT / "configs").glob("*.py"))


@pytest.mark.parametrize("module", ["train", "evaluate"])
def test_help(module):
    command = [sys.executable, "-m", f"experiments.{module}", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr == ""
    for word in ("usage:", "exit codes", "example", "--workdir"):
        assert word in done.stdout
    if module == "train":
        assert "--config.optimizer.lr=0.001" in done.stdout
        assert all(f"configs/{path.name}" in done.stdout for path in CONFIGS)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_configs_are_valid_and_say_what_to_expect(path):
    with lenient.skipped_without_files():
        config = load_config(str(path))
        assert config.train.steps or config.train.epochs
    text = path.read_text().split('"""')[1]
    assert f"python -m experiments.train --config configs/{path.name}" in text
    assert "Measured" in text


def test_overrides_and_arguments():
    config = load_config("configs/adding.py:64", {"model.hidden": "8,4", "optimizer.clip_norm": "none"})
    assert config.task.length == 64
    assert config.model.hidden == (8, 4)
    assert config.optimizer.clip_norm is None
    # a duration of the other unit on the command line replaces the file's
    config = load_config("configs/mnist_rows.py", {"train.steps": "7"})
    assert (config.train.steps, config.train.epochs) == (7, None)


@pytest.mark.parametrize(("flag", "code"), [((), 75), (("--sigterm-exit=0",), 0), (("--sigterm-exit", "99"), 99)])
@pytest.mark.parametrize(("command", "training"), [(train, "train_run"), (ablate, "runner_of")])
def test_asked_to_end_a_command_has_a_code_of_its_own(command, training, flag, code, tmp_path, monkeypatch, capsys):
    def preempted(*_):
        raise PreemptedError("asked to end: step 3 of 9 is saved")

    monkeypatch.setattr(command, training, preempted)
    monkeypatch.setattr(ablate, "prepare", lambda flags: RunnerOptions())  # devices are there already
    axis = [] if command is train else ["--axis.seed=0..1"]
    argv = ["--config", str(ROOT / "configs" / "quickstart.py"), "--workdir", str(tmp_path / "run"), *axis, *flag]
    assert command.command(argv) == code
    out = capsys.readouterr().out
    assert "step 3 of 9 is saved; this goes on from there:\n  python -m experiments." in out
    assert " ".join(flag) in out


@pytest.mark.parametrize("command", [train, ablate])
@pytest.mark.parametrize("code", ["256", "-1", "ok"])
def test_no_other_code_is_one(command, code):
    with pytest.raises(UsageError, match=f"--sigterm-exit={code}: "):
        command.command(["--config", str(ROOT / "configs" / "quickstart.py"), f"--sigterm-exit={code}"])


def test_train_and_evaluate(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    arguments = ["--config", "configs/temporal_order.py:20", "--workdir", str(tmp_path / "run")]
    for key, value in (("train.steps", 6), ("task.test_size", 50), ("task.valid_size", 50), ("model.hidden", 6),
                       ("model.bidirectional", "true"), ("train.target", "none")):  # fmt: skip
        arguments.append(f"--config.{key}={value}")
    assert train.command(arguments) == 0
    printed = capsys.readouterr().out
    assert "memoryless or chance: 0.25" in printed
    assert f"picture: {tmp_path}/run/plots/gradient_flow.png" in printed
    run = RunDir(tmp_path / "run")
    flow = run.read_flow()
    assert {"adjoint/layer_0.forward", "gates/layer_0.forward/z", "gates/layer_0.backward/r"} <= set(flow)
    assert flow["adjoint/layer_0.backward"].shape[1] == 22
    assert np.isfinite(flow["adjoint/layer_0.forward"][:, 0]).all()
    summary = json.loads(run.summary.read_text())
    for split, which, key in (("valid", "latest", "final"),):
        result = evaluate.run(run.path, split, which)
        assert result.metrics == summary[key][split]
        assert result.step == summary[key]["step"]
    assert evaluate.command(["--workdir", str(run.path)]) == 0
    assert "equal to the stored one" in capsys.readouterr().out


def test_evaluate_in_a_process_of_its_own(tmp_path, undrawn):
    summary = train.run(small(), tmp_path / "run").summary
    command = [sys.executable, "-m", "experiments.evaluate", "--workdir", str(tmp_path / "run"), "--split", "test"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"test loss {summary['best']['test']['loss']!r}  (equal to the stored one)" in done.stdout


def test_run_takes_a_config_dict(tmp_path, undrawn):
    config = ConfigDict({"task": {"name": "adding", "length": 6, "valid_size": 8, "test_size": 8},
                         "model": {"hidden": (3,)}, "train": {"steps": 2, "batch_size": 4}})  # fmt: skip
    assert train.run(config, tmp_path / "run").summary["steps"] == 2


@pytest.mark.parametrize("dtype", ["float64", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_precisions_train_and_resume(dtype, tmp_path, undrawn):
    summary = train.run(small(dtype=dtype), tmp_path / "run").summary
    RunDir(tmp_path / "run").summary.unlink()
    again = train.run(small(dtype=dtype), tmp_path / "run").summary
    assert again["final"] == summary["final"]
    assert evaluate.run(tmp_path / "run").metrics == summary["best"]["test"]


def test_a_run_that_is_not_finite_says_where(tmp_path, capsys, monkeypatch):
    config = small(optimizer={"lr": 1e30, "name": "sgd", "clip_norm": None})
    with pytest.raises(NonFiniteError) as raised:
        train.run(config, tmp_path / "run")
    assert "step 2 is not finite" in str(raised.value)
    assert "the last good checkpoint is of step 0" in str(raised.value)
    run = RunDir(tmp_path / "run")
    assert not run.summary.exists()
    assert (run.checkpoints / "latest" / "0").is_dir()
    monkeypatch.setattr(train, "load_config", lambda *_: config)
    assert train.command(["--config", "x.py", "--workdir", str(tmp_path / "run")]) == 3
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert errors[0].startswith("error: step 2 is not finite")


def test_the_time_step_is_named(tmp_path):
    """With recurrence 1e10 * I the state overflows some four steps after the first that is not zero."""
    init = {"recurrent": "identity", "recurrent_scale": 1e10}
    config = small(model={"cell": {"name": "elman", "activation": "relu"}, "init": init}, task={"length": 40})
    where = r"validation at step 0 is not finite: the state of layer_0 first at time step [3-6] \(sequence \d"
    with pytest.raises(NonFiniteError, match=where):
        train.run(config, tmp_path / "run")


def test_a_gradient_that_is_not_finite_is_traced_back():
    """All states are zero without input and bias, and tanh' is 1 there: six steps back the gradient is 1e42."""
    init = {"recurrent": "identity", "recurrent_scale": 1e7, "input": "zeros"}
    config = small(model={"cell": {"name": "mingru"}, "init": {"input": "zeros"}})
    trainer = Trainer(config)
    batch = config.task.batch({}, split_key("train", 0), jnp.arange(4, dtype=jnp.int32))
    assert explain(trainer, trainer.model.init(jax.random.key(0)), batch) is None
    config = small(model={"cell": {"name": "elman"}, "init": init})
    trainer = Trainer(config)
    params = trainer.model.init(jax.random.key(0))
    where = explain(trainer, params, batch)
    assert where.startswith("the gradient at the state of layer_0, going back, from time step 1 ")


def test_another_environment_is_told(tmp_path, capsys, undrawn):
    train.run(small(), tmp_path / "run")
    run = RunDir(tmp_path / "run")
    run.summary.unlink()
    env = json.loads(run.env.read_text())
    env["packages"]["jax"] = "0.0.1"
    run.env.write_text(json.dumps(env))
    train.run(small(), tmp_path / "run")
    assert "another environment" in capsys.readouterr().out
    assert json.loads(run.env.read_text())["packages"]["jax"] != "0.0.1"
