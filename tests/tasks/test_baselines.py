"""What answers without a network score: made from training data alone, and said where a network is worse."""

from __future__ import annotations

import json

import numpy as np
import pytest

from experiments.train import report
from gru_jax.runs.directory import RunDir
from gru_jax.runs.summary import find_damage
from gru_jax.studies.report.sentences import describe_baselines
from gru_jax.tasks import MNIST, TASKS, Arrays, Generated
from gru_jax.tasks.naive import Points, WeightedTargets, constant_classes, forecasts

COUNT, TIME, PERIOD = 40, 50, 12
SPLITS = ("train", "valid", "test")
SEASON = "seasonal naive, 11 steps before the last"  # the same time of the day before


def series(seed=0, level=0.0):
    """A daily wave and a slow drift, `[N, T + 1]`: the last is to be told."""
    rng = np.random.default_rng(seed)
    drift = rng.normal(size=(COUNT, TIME + 1)).cumsum(axis=1) * 0.05
    start = rng.integers(0, PERIOD, COUNT)[:, None]
    return np.sin(2 * np.pi * (np.arange(TIME + 1) + start) / PERIOD) + drift + level


def written(folder, test_level=0.0, folds=None, per_step=False):
    splits = {}
    for i, split in enumerate(SPLITS):
        values = series(i, test_level if split == "test" else 0.0).astype(np.float32)
        noise = np.random.default_rng(i).normal(size=(COUNT, TIME)).astype(np.float32)
        targets = values[:, 1:, None] if per_step else values[:, -1:]
        splits[split] = (np.stack([noise, values[:, :-1]], axis=-1), targets)
    return Arrays.write(folder / "mine", folds=folds, **splits)


def test_a_forecast_has_its_naive_answers(tmp_path):
    """The test series lie higher than those of training: the mean of their own targets would have flattered."""
    task, known, values = written(tmp_path, test_level=1.5), series(0), series(2, 1.5)
    wanted = {
        "training mean": np.square(values[:, -1] - known[:, -1].mean()).mean(),
        "persistence": np.square(values[:, -1] - values[:, -2]).mean(),
        SEASON: np.square(values[:, -1] - values[:, -1 - PERIOD]).mean(),
    }
    assert list(task.baselines) == list(wanted)
    for name, loss in wanted.items():
        assert task.baselines[name]["loss"] == pytest.approx(loss, rel=1e-4)
    assert task.baseline == task.baselines["training mean"]
    assert task.baseline["loss"] > 3 * values[:, -1].var()


def test_forecasts_at_each_step(tmp_path):
    task, values = written(tmp_path, per_step=True), series(2)
    errors = np.square(values[:, 1:] - values[:, :-1])  # where there was no season before, too
    assert task.baselines["persistence"]["loss"] == pytest.approx(errors.mean(), rel=1e-4)
    errors[:, PERIOD - 1 :] = np.square(values[:, PERIOD:] - values[:, :-PERIOD])
    assert task.baselines[SEASON]["loss"] == pytest.approx(errors.mean(), rel=1e-4)


def test_test_data_decide_nothing(tmp_path):
    """Neither which channel, nor which season, nor whether it is a forecast at all."""
    task, rng = written(tmp_path), np.random.default_rng(7)
    names, path = list(task.baselines), tmp_path / "mine" / "test_xs.npy"
    np.save(path, rng.normal(size=np.load(path).shape).astype(np.float32))
    assert list(task.baselines) == names
    assert task.baselines["persistence"]["loss"] > 0.5


def test_numbers_that_go_on_with_no_input_are_no_forecast(tmp_path):
    rng = np.random.default_rng(0)
    splits = {split: (rng.normal(size=(COUNT, 5, 2)), rng.normal(size=(COUNT, 1))) for split in SPLITS}
    assert list(Arrays.write(tmp_path / "mine", **splits).baselines) == ["training mean"]


def test_a_fold_knows_what_it_is_trained_on(tmp_path):
    task = written(tmp_path, folds=4)
    known, values = series(0)[task.order("train"), -1], series(2)[:, -1]
    assert task.baseline["loss"] == pytest.approx(np.square(values - known.mean()).mean(), rel=1e-4)


def test_files_that_change_are_read_again(tmp_path):
    before = written(tmp_path).baseline["loss"]
    assert written(tmp_path, test_level=5.0).baseline["loss"] > before + 10


def test_lengths_count():
    """What is known last is each sequence's own last value."""
    xs = np.array([[[1.0], [5.0], [2.0]], [[7.0], [np.nan], [np.nan]]])
    targets = WeightedTargets(np.array([[1.0], [7.0]]), np.array([0.5, 0.5]))
    points = Points(xs, np.array([0, 1]), np.array([2, 0]), targets)
    assert forecasts(points, points) == {"persistence": {"loss": 0.5}}


def test_a_class_that_training_does_not_show_costs_no_infinity():
    train, test = (WeightedTargets(np.array(of), np.full(4, 0.25)) for of in ([0, 0, 0, 1], [0, 1, 2, 2]))
    scores = constant_classes(train, test, 4, np.ones(4))
    assert scores["accuracy"] == 0.25
    shares = np.array([0.75, 0.25, 0.2, 0.2]) / 1.4
    assert scores["loss"] == pytest.approx(-np.log(shares[[0, 1, 2, 2]]).mean())
    weighted = constant_classes(train, test, 4, np.array([1.0, 1.0, 0.0, 0.0]))
    assert weighted["loss"] == pytest.approx(-np.log([0.75, 0.25]).sum() / 4)


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if issubclass(task, Generated | MNIST)])
def test_other_tasks_state_what_needs_no_data(name):
    task = TASKS[name]()
    assert task.baselines == {"memoryless or chance": task.baseline}


SUMMARY = {
    "goal": ["loss", "min"], "baseline": {"loss": 1.88}, "steps": 10, "stopped": None, "seconds": 1.0,
    "baselines": {"training mean": {"loss": 1.88}, "persistence": {"loss": 0.034}}, "steps_per_second": 10.0,
    "best": {"step": 5, "test": {"loss": 0.148}, "valid": {"loss": 0.1}}, "parameters": 7, "end_reason": None,
    "final": {"step": 10, "test": {"loss": 0.148}, "valid": {"loss": 0.1}},
}  # fmt: skip


def test_a_result_that_is_worse_says_so(tmp_path):
    said = report(SUMMARY, RunDir(tmp_path)).splitlines()[0]
    assert "test loss 0.148   (training mean: 1.88, persistence: 0.034)   worse than persistence" in said
    good = {**SUMMARY, "best": {"step": 5, "test": {"loss": 0.01}}}
    assert "worse than" not in report(good, RunDir(tmp_path))
    accuracy = {
        "goal": ["accuracy", "max"],
        "baseline": {"accuracy": 0.5},
        "best": {"step": 5, "test": {"accuracy": 0.4}},
    }
    older = {key: value for key, value in {**SUMMARY, **accuracy}.items() if key != "baselines"}
    assert "test accuracy 0.4   (memoryless or chance: 0.5)   worse than memoryless" in report(older, RunDir(tmp_path))
    assert describe_baselines(SUMMARY, 0.148)[-1] == "The best is worse than persistence."
    assert len(describe_baselines(SUMMARY, 0.02)) == 1


@pytest.mark.parametrize("baselines", [[], {"persistence": 3}, {"persistence": {"loss": "low"}}])
def test_damaged_baselines_are_named(baselines):
    assert find_damage(SUMMARY) is None
    assert find_damage(json.loads(json.dumps({**SUMMARY, "baselines": baselines}))) is not None
