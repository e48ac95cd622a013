"""Runs that start from the network of another run."""

from __future__ import annotations

import shutil

import jax
import numpy as np
import pytest

import gru_jax
from experiments import ablate, train
from gru_jax.config import changed_sources, load
from gru_jax.config.checkpoint_names import CheckpointName
from gru_jax.errors import UsageError
from gru_jax.runs.directory import RunDir
from gru_jax.runs.flow import params_of_run
from gru_jax.studies.study import load_study
from tests.training.small import small, timeless

pytestmark = pytest.mark.usefixtures("undrawn", "compiled_once")
SHORT = {"steps": 2, "eval_steps": 1, "log_steps": 1}


def from_run(source, rate=0.0, **changes):
    """A config that starts from there, by default without learning."""
    return small(
        train={**SHORT, "init_from": str(source), **changes.pop("train", {})}, optimizer={"lr": rate}, **changes
    )


def assert_equal(params, wanted):
    jax.tree.map(np.testing.assert_array_equal, params, wanted)


@pytest.fixture(scope="module")
def source(uninterrupted):
    return gru_jax.open(uninterrupted)


SLOW = pytest.mark.slow


@pytest.mark.parametrize("which", ["", ":8", *(pytest.param(w, marks=SLOW) for w in (":best", ":latest"))])
def test_a_run_starts_from_the_network_of_another(which, source, tmp_path):
    """With another rate and length, on its own examples."""
    wanted = source.params_at({"": "best", ":best": "best", ":latest": "latest"}.get(which, 8))
    task = {"name": "adding", "length": 11, "valid_size": 20, "test_size": 30}
    run = train.run(from_run(f"{source.path}{which}", task=task, seed=5), tmp_path / "run")
    assert_equal(run.params, wanted)
    _, start = params_of_run(RunDir(run.path), run.config, "init")
    assert_equal(start, wanted)
    assert (
        run.config.to_dict()["sources"][f"{source.path}{which}"]
        == CheckpointName.parse(f"{source.path}{which}").digest()
    )


@SLOW
def test_it_trains_on_as_the_first_run_would_but_for_the_optimiser(source, tmp_path):
    """With plain gradient descent nothing else is left of the past than the network and the step's examples."""
    descent = {"optimizer": {"name": "sgd", "lr": 0.1}}
    first = train.run(small(**descent, train=SHORT), tmp_path / "first")
    second = train.run(small(**descent, train={**SHORT, "init_from": f"{first.path}:latest"}), tmp_path / "second")
    start = next(line for line in timeless(second.path) if line["split"] == "valid")
    assert start["loss"] == first.summary["final"]["valid"]["loss"]
    assert not np.array_equal(*(jax.tree.leaves(run.params_at("latest"))[0] for run in (first, second)))


@SLOW
def test_members_of_a_study_start_where_they_say(source, tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.report.run", lambda path: None)
    base = from_run(source.path).to_dict()
    axes = {"train.init_from": [f"{source.path}:best", f"{source.path}:8", None], "seed": [0]}
    study = load_study({"base": base, "axes": axes})
    ablate.run(study, tmp_path / "study")
    for member, wanted in zip(study.members(), (source.params, source.params_at(8), None), strict=True):
        run = gru_jax.open(tmp_path / "study" / "members" / member.id)
        if wanted is None:
            assert run.params.keys() == source.params.keys()
        else:
            assert_equal(run.params, wanted)


def test_another_checkpoint_is_another_source(source, tmp_path):
    """Told by what is in it, not by when it was written or where it is called from."""
    shutil.copytree(source.path, tmp_path / "copy")
    before, moved = (
        CheckpointName.parse(str(source.path)).digest(),
        CheckpointName.parse(str(tmp_path / "copy")).digest(),
    )
    assert before == moved
    assert len(before) == 64
    config = from_run(f"{tmp_path / 'copy'}:latest")
    old = config.to_dict()
    shutil.rmtree(tmp_path / "copy" / "checkpoints")
    assert changed_sources(old, config.to_dict()) == [f"{tmp_path / 'copy'}:latest"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": {"hidden": (5,)}}, r"does not fit this network: .* is \[.*\], needed is \["),
        ({"model": {"hidden": (4, 4)}}, r"does not fit this network: .* is missing"),
        ({"model": {"cell": {"name": "lstm"}}}, r"the layers: model\.cell\.name is gru there and lstm here"),
    ],
)
def test_another_network_is_refused_before_anything_is_written(changes, said, source, tmp_path):
    config = from_run(source.path, **changes)
    with pytest.raises(UsageError, match=rf"^train\.init_from={source.path}: {said}"):
        train.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{tmp}/nowhere", "not a run directory"),
        ("{run}:7", "has checkpoints of steps 8, 12"),
        ("{run}:beast", "not a run"),
    ],
)
def test_what_is_not_there_is_said(text, said, source, tmp_path):
    text = text.format(tmp=tmp_path, run=source.path)
    with pytest.raises(UsageError, match=rf"^train\.init_from={text}: .*{said}"):
        train.run(from_run(text), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@SLOW
def test_digits_are_not_lost(source, tmp_path):
    config = small(dtype="float64", train=SHORT)
    train.run(config, tmp_path / "double")
    with pytest.raises(UsageError, match="float64, which float32 would round"):
        train.run(from_run(tmp_path / "double"), tmp_path / "run")
    wider = train.run(from_run(source.path, dtype="float64"), tmp_path / "wider")
    assert_equal(jax.tree.map(np.float32, wider.params), source.params)


def test_one_start_is_enough():
    with pytest.raises(
        UsageError, match=r"train\.init_from=runs/a: together with model\.weights; allowed is one of them"
    ):
        load({"train": {"steps": 1, "init_from": "runs/a"}, "model": {"weights": "w.safetensors"}})
