"""Which network is best, and what counts as an improvement."""

from __future__ import annotations

import re

import numpy as np
import pytest

from experiments import ablate, train
from gru_jax.config import load, training_program
from gru_jax.errors import UsageError
from gru_jax.runs.early_stopping import EarlyStopping
from gru_jax.studies.study import load_study
from gru_jax.tasks import Arrays
from tests.training.small import small, timeless

pytestmark = pytest.mark.usefixtures("compiled_once")


def classes(root, size=24):
    """A task whose accuracy has few values: of a validation set of eight sequences."""
    rng = np.random.default_rng(0)
    xs = rng.normal(size=(size + 16, 3, 1)).astype(np.float32)
    targets = (xs[:, -1, 0] > 0).astype(np.int32)
    rows = {"train": slice(size), "valid": slice(size, size + 8), "test": slice(size + 8, None)}
    return Arrays.write(f"{root}/data", **{name: (xs[part], targets[part]) for name, part in rows.items()})


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return classes(tmp_path_factory.mktemp("classes"))


def of_classes(task, **train):
    train = {"batch_size": 8, "steps": 12, "eval_steps": 1, **train}
    return load(
        {"task": task, "model": {"hidden": (4,)}, "optimizer": {"lr": 0.1}, "train": train, "flow": {"every": 0}}
    )


def followed(config, validations):
    """What a member knows after some validations, the n-th after n steps."""
    member = EarlyStopping()
    for step, metrics in enumerate(validations):
        member.steps = step
        member.update(config, metrics)
    return member


def test_of_equal_accuracies_that_of_the_lower_loss_is_kept(task):
    accuracies, losses = (0.5, 0.875, 0.875, 0.875, 0.75), (0.7, 0.6, 0.4, 0.5, 0.1)
    lines = [{"accuracy": a, "loss": x} for a, x in zip(accuracies, losses, strict=True)]
    member = followed(of_classes(task), lines)
    assert (member.best_step, member.best_score, member.best_loss) == (2, 0.875, 0.4)
    assert member.num_bad_evals == 3  # patience is a matter of the score
    swapped = followed(of_classes(task), [lines[2], lines[1]])
    assert swapped.best_step == 0


def test_a_run_keeps_the_last_of_equals_whose_loss_fell(task, tmp_path, undrawn):
    train.run(of_classes(task), tmp_path / "run")
    valid = [line for line in timeless(tmp_path / "run") if line["split"] == "valid"]
    best = train.run(of_classes(task), tmp_path / "run").summary["best"]
    wanted = min(valid, key=lambda line: (-line["accuracy"], line["loss"]))
    assert best["step"] == wanted["step"]
    first = next(line["step"] for line in valid if line["accuracy"] == wanted["accuracy"])
    assert first < wanted["step"], "the first that reached it would do as well"


@pytest.mark.parametrize(
    ("train", "goal"),
    [
        ({}, ("accuracy", "max")),
        ({"monitor": "accuracy"}, ("accuracy", "max")),
        ({"monitor": "loss"}, ("loss", "min")),
        ({"monitor": "accuracy", "direction": "min"}, ("accuracy", "min")),
        ({"direction": "min"}, ("accuracy", "min")),
        ({"monitor": "f1", "metrics": ("f1",)}, ("f1", "max")),
    ],
)
def test_what_decides(train, goal, task):
    config = of_classes(task, **train)
    assert config.goal == goal
    alike = of_classes(task, metrics=config.train.metrics)
    assert training_program(config) == training_program(alike)  # members may differ in what decides


def test_min_delta_is_of_patience_and_not_of_the_best(task):
    """Small steps add up: an improvement is over the last improvement."""
    config = of_classes(task, monitor="loss", min_delta=0.1, patience=2)
    member = followed(config, [{"loss": x} for x in (1.0, 0.95, 0.89, 0.85, 0.8)])
    assert (member.best_step, member.num_bad_evals, member.end_reason) == (4, 2, "patience")
    assert member.improved_score == 0.89
    upward = of_classes(task, min_delta=0.1)
    member = followed(upward, [{"accuracy": a, "loss": 1.0} for a in (0.5, 0.6, 0.55, 0.7)])
    assert (member.best_step, member.num_bad_evals, member.improved_score) == (3, 0, 0.7)


def test_a_run_is_watched_by_another_metric(task, tmp_path, undrawn):
    config = of_classes(task, monitor="loss", target=0.4, steps=30)
    run = train.run(config, tmp_path / "run")
    valid = [line for line in timeless(tmp_path / "run") if line["split"] == "valid"]
    assert run.summary["goal"] == ["loss", "min"]
    assert run.summary["best"]["step"] == min(valid, key=lambda line: line["loss"])["step"]
    assert (run.summary["end_reason"], valid[-1]["loss"] <= 0.4) == ("target", True)
    assert all(line["loss"] > 0.4 for line in valid[:-1])


def test_a_metric_that_there_is_not(task, tmp_path):
    """Before anything is written."""
    config = of_classes(task, monitor="acuracy", direction="max")
    with pytest.raises(
        UsageError, match=r"train.monitor='acuracy': allowed are loss, accuracy; did you mean 'acc"
    ) as error:
        train.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    study = load_study({"base": config.to_dict(), "axes": {"seed": [0, 1]}})
    with pytest.raises(UsageError, match=re.escape(str(error.value))):
        ablate.run(study, tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_a_direction_is_needed_where_none_is_known():
    with pytest.raises(
        UsageError, match=r"train\.direction=None: needed with train.monitor='recall'; allowed are min, max"
    ):
        small(train={"monitor": "recall"})
    with pytest.raises(UsageError, match=r"train\.direction='up': allowed are min, max"):
        small(train={"monitor": "recall", "direction": "up"})
