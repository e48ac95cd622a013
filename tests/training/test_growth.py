"""What may change when a run goes on: what changes no result, and when it ends."""

from __future__ import annotations

import json
import shutil

import jax
import numpy as np
import optax
import pytest

import gru_jax
from experiments import train
from gru_jax.config import differences, fingerprint, load
from gru_jax.errors import UsageError
from gru_jax.runs import growth
from gru_jax.runs.directory import RunDir
from gru_jax.runs.early_stopping import EarlyStopping, EndReason
from gru_jax.runs.growth import grown_keys, prolong
from gru_jax.runtime.files import write_json
from gru_jax.studies.study import load_study
from gru_jax.tasks import Arrays
from tests.training.killing import struck
from tests.training.small import small, timeless
from tests.training.test_resume import same_run

pytestmark = pytest.mark.usefixtures("undrawn", "compiled_once")
TO = 16


def linear(updates):
    """A schedule of a user's own."""
    return optax.linear_schedule(1.0, 0.1, updates)


def lasting(steps, **changes):
    """Recordings every five steps, so that none of the ends is due for one."""
    values = {"flow": {"every": 5}, "task": {"valid_size": 8, "test_size": 8, "name": "adding", "length": 8}}
    train = {"batch_size": 8, "eval_steps": 4, "log_steps": 3, "call_steps": 3, **changes.pop("train", {})}
    return small(**{**values, "train": {**train, "steps": steps}, **changes})


@pytest.fixture(scope="module")
def from_the_start(tmp_path_factory):
    path = tmp_path_factory.mktemp("growth") / "whole"
    train.run(lasting(TO), path)
    return path


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """A finished run that ended between two validations."""
    path = tmp_path_factory.mktemp("growth") / "short"
    train.run(lasting(10), path)
    return path


@pytest.mark.parametrize("steps", [pytest.param(8, marks=pytest.mark.slow), 10])
def test_longer_is_as_if_it_had_been_asked_for_at_first(steps, from_the_start, tmp_path, capsys):
    train.run(lasting(steps), tmp_path / "run")
    train.run(lasting(TO), tmp_path / "run")
    said = capsys.readouterr().out
    assert f"going on, as train.steps was {steps}, is 16: to the bits of a run that began so" in said
    assert f"resuming at step 8 of {TO}" in said
    same_run(tmp_path / "run", from_the_start)
    jax.tree.map(
        np.testing.assert_array_equal, gru_jax.open(tmp_path / "run").params, gru_jax.open(from_the_start).params
    )
    assert json.loads((tmp_path / "run" / "config.json").read_text())["train"]["steps"] == TO
    with pytest.raises(UsageError, match=f"train.steps was {TO}, is {steps}; allowed are later ends alone"):
        train.run(lasting(steps), tmp_path / "run")


def test_one_checkpoint_is_not_too_few(from_the_start, tmp_path, capsys):
    train.run(lasting(10, train={"keep": 1}), tmp_path / "run")
    train.run(lasting(TO, train={"keep": 1}), tmp_path / "run")
    assert f"resuming at step 8 of {TO}" in capsys.readouterr().out
    same_run(tmp_path / "run", from_the_start)


def test_where_none_is_left_to_go_on_from_it_is_said(short, from_the_start, tmp_path, capsys):
    shutil.copytree(short, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "latest" / "8")
    train.run(lasting(TO), tmp_path / "run")
    assert "its only network is of step 10, behind which no validation was due: the training begins anew" in (
        capsys.readouterr().out
    )
    same_run(tmp_path / "run", from_the_start)


@pytest.mark.slow
def test_data_that_are_streamed_go_on_beyond_their_first_end(tmp_path):
    pytest.importorskip("grain")
    xs = np.random.default_rng(0).normal(size=(40, 5, 2)).astype(np.float32)
    task = Arrays.write(tmp_path / "data", **dict.fromkeys(("train", "valid", "test"), (xs, xs[:, 0])))

    def streamed(steps):
        train = {"batch_size": 8, "eval_steps": 4, "steps": steps}
        return load({"task": task, "model": {"hidden": (4,)}, "train": train, "flow": {"every": 0}, "resident_mb": 0})

    train.run(streamed(6), tmp_path / "run")
    train.run(streamed(12), tmp_path / "run")
    train.run(streamed(12), tmp_path / "whole")
    same_run(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("remove_checkpoint", 2),
        *(pytest.param(*moment, marks=pytest.mark.slow) for moment in (("remove_checkpoint", 1), ("write_json", 1))),
    ],
)
def test_killed_while_it_grows(name, call, short, from_the_start, tmp_path, monkeypatch):
    shutil.copytree(short, tmp_path / "run")
    with struck(monkeypatch, growth, name, call, "before"):
        train.run(lasting(TO), tmp_path / "run")
    train.run(lasting(TO), tmp_path / "run")
    same_run(tmp_path / "run", from_the_start)


@pytest.mark.slow
def test_a_short_run_is_what_it_was_until_it_grows(short, tmp_path, monkeypatch):
    """After a kill in between, the old command too."""
    shutil.copytree(short, tmp_path / "run")
    with struck(monkeypatch, growth, "write_json", 1, "before"):
        train.run(lasting(TO), tmp_path / "run")
    train.run(lasting(10), tmp_path / "run")
    same_run(tmp_path / "run", short)


@pytest.mark.parametrize(
    ("name", "sooner", "later", "steps"),
    [("patience", 1, 3, 4), pytest.param("target", 100.0, 1e-9, 0, marks=pytest.mark.slow)],
)
def test_patience_and_target_grow(name, sooner, later, steps, tmp_path, capsys):
    """With a rate of 0 no validation is better than the first."""
    first, then = (lasting(TO, train={name: value}, optimizer={"lr": 0.0}) for value in (sooner, later))
    summary = train.run(first, tmp_path / "run").summary
    assert (summary["end_reason"], summary["steps"]) == (name, steps)
    train.run(then, tmp_path / "run")
    assert f"going on, as train.{name} was {sooner}, is {later}: to the bits of a run" in capsys.readouterr().out
    train.run(then, tmp_path / "whole")
    same_run(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "train.steps was 10, is 16: to the bits of a run that began so"),
        ({"optimizer": {"schedule": "step", "drop_steps": (3, 12)}}, "16: to the bits of a run that began so"),
        (
            {"optimizer": {"schedule": "cosine"}},
            "16: to other bits than those of a run that began so, since the learning rates of",
        ),
        (
            {"optimizer": {"schedule": linear}},
            "16: to other bits than those of a run that began so, since the learning rates of",
        ),
        ({"train": {"eval_steps": None, "batch_size": 8}}, "16: to the bits of"),  # 1 step apart, in both
    ],
)
def test_what_depends_on_the_end_is_said(changes, said, tmp_path):
    write_json(tmp_path / "config.json", lasting(10, **changes).to_dict())
    (line,) = prolong(RunDir(tmp_path), lasting(TO, **changes))
    assert said in line
    assert json.loads((tmp_path / "config.json").read_text())["train"]["steps"] == TO


def test_other_validations_are_said(tmp_path):
    every = {"train": {"eval_steps": None}}
    write_json(tmp_path / "config.json", lasting(10, **every).to_dict())
    (line,) = prolong(RunDir(tmp_path), lasting(100, **every))
    assert "to other bits than those of a run that began so, since validations were 1 steps apart and are 5 now" in line


def test_what_changes_no_result_may_change(started, uninterrupted):
    changes = {"keep": 1, "log_steps": 1, "call_steps": 5, "eval_batch_size": 7}
    config = small(train=changes)
    assert fingerprint(config) == fingerprint(small())
    assert not differences(config.to_dict(), small().to_dict())
    run = train.run(config, started)
    for part in ("final", "best"):
        for split, metrics in run.summary[part].items():
            wanted = RunDir(uninterrupted).read_summary()[part][split]
            assert metrics == pytest.approx(wanted, rel=1e-6)
    jax.tree.map(
        np.testing.assert_array_equal, run.params_at("latest"), gru_jax.open(uninterrupted).params_at("latest")
    )
    assert [line["step"] for line in timeless(started) if line["split"] == "train"] == [2, 4, 6, 8, 9, 10, 11, 12]
    stored = json.loads((started / "config.json").read_text())["train"]
    assert {name: stored[name] for name in changes} == changes  # with which its scores were computed


def test_an_axis_of_what_changes_no_result_is_refused():
    study = load_study({"base": small().to_dict(), "axes": {"train.keep": [1, 2]}})
    with pytest.raises(UsageError, match=r"axes: train\.keep changes no result"):
        study.members()
    beside = {"base": small().to_dict(), "axes": {"size": {n: {"train.keep": n, "model.hidden": n} for n in "12"}}}
    assert len(load_study(beside).members()) == 2


@pytest.mark.parametrize(
    ("before", "after", "keys"),
    [
        ({"steps": 10}, {"steps": 11, "keep": 5}, ["train.steps"]),
        ({"steps": 10}, {"steps": 9}, []),
        ({"patience": 3}, {"patience": None}, ["train.patience"]),
        ({"patience": 3}, {"patience": 2}, []),
        ({"patience": None}, {"patience": 2}, []),
        ({"target": 0.5}, {"target": 0.4}, ["train.target"]),
        ({"target": 0.5}, {"target": 0.6}, []),
        ({"target": None}, {"target": 0.6}, []),
        ({"target": 0.5}, {"target": None, "steps": 100}, ["train.steps", "train.target"]),
    ],
)
def test_what_is_a_later_end(before, after, keys, tmp_path):
    write_json(tmp_path / "config.json", small(train=before).to_dict())
    assert grown_keys(RunDir(tmp_path), small(train=after)) == keys


def test_epochs_are_steps_of_another_unit(tmp_path):
    mnist = {"name": "mnist"}
    write_json(tmp_path / "config.json", small(task=mnist, train={"steps": 1000}).to_dict())
    for epochs, keys in ((1.0, ["train.steps", "train.epochs"]), (0.1, [])):
        longer = small(task=mnist, train={"steps": None, "epochs": epochs})
        assert grown_keys(RunDir(tmp_path), longer) == keys


def test_what_ended_a_run_is_looked_at_again():
    member = EarlyStopping(best_score=0.2, last_score=0.3, num_bad_evals=3)
    for reason in (EndReason.PATIENCE, EndReason.HALVED, EndReason.TARGET):
        member.end(reason, "for some reason")
        member.reconsider(small(train={"patience": 4, "target": 0.1}))
        assert member.end_reason is None
    member.end(EndReason.PATIENCE, "no improvement in 2 validations")
    member.reconsider(small(train={"patience": 3}))
    assert member.end_message == "no improvement in 3 validations"
    member.reconsider(small(train={"target": 0.3}))
    assert member.end_reason == EndReason.TARGET
    member.end(EndReason.DIVERGED, "diverged")
    member.reconsider(small())
    assert member.end_reason == EndReason.DIVERGED


def test_other_recordings_are_said(tmp_path, capsys):
    """Every so many steps of all steps, if nothing is asked for."""
    for steps in (20, 40):
        train.run(lasting(steps, flow={"every": None}), tmp_path / "run")
    said = capsys.readouterr().out
    assert "to other bits" in said
    assert "recordings of the instruments were 10 steps apart and are 20 now, which flow.every sets" in said


def test_a_run_whose_data_were_moved_grows(tmp_path, capsys):
    xs = np.random.default_rng(0).normal(size=(20, 5, 2)).astype(np.float32)
    Arrays.write(tmp_path / "data", **dict.fromkeys(("train", "valid", "test"), (xs, xs[:, 0])))

    def trained(folder, steps):
        moved = {"name": "arrays", "data_dir": str(folder.parent), "folder": folder.name}
        values = {"batch_size": 8, "steps": steps, "eval_steps": 2}
        config = load({"task": moved, "model": {"hidden": (4,)}, "train": values, "flow": {"every": 0}})
        return train.run(config, tmp_path / "run")

    trained(tmp_path / "data", 4)
    (tmp_path / "elsewhere").mkdir()
    shutil.move(tmp_path / "data", tmp_path / "elsewhere" / "data")
    assert trained(tmp_path / "elsewhere" / "data", 6).summary["steps"] == 6
    assert "going on, as train.steps was 4, is 6" in capsys.readouterr().out
