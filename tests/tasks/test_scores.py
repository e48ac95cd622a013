"""Scores of whole sets against scikit-learn's, and against counts by hand."""

from __future__ import annotations

import json

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

import gru_jax
from experiments import ablate, evaluate, train
from gru_jax.config import load
from gru_jax.errors import UsageError
from gru_jax.runs.evaluation import answers_of_run
from gru_jax.runs.pictures import figures_of_run
from gru_jax.runs.stored import open_run
from gru_jax.studies.study import load_study
from gru_jax.tasks import TASKS, Arrays, Batch
from gru_jax.tasks.scores import (
    CLASS_SCORES,
    NUMBER_SCORES,
    SCORES,
    Answers,
    UndefinedError,
    balanced_accuracy,
    confusion_matrix,
    f1,
    mae,
    r2,
    roc_auc,
    scores_of,
)

WEIGHTED = pytest.mark.parametrize("weighted", [False, True])


def class_answers(classes, size=200, weighted=False, seed=0):
    """Answers that are right more often than not, with ties among their scores."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, classes, size)
    logits = np.round(rng.normal(size=(size, classes)) + 1.5 * np.eye(classes)[targets], 1)
    return Answers(logits, targets, rng.uniform(0.1, 2.0, size) if weighted else np.ones(size))


def number_answers(outputs, size=100, weighted=False):
    rng = np.random.default_rng(1)
    targets = rng.normal(size=(size, outputs)) * np.arange(1, outputs + 1)
    return Answers(
        targets + rng.normal(size=targets.shape), targets, rng.uniform(size=size) if weighted else np.ones(size)
    )


@WEIGHTED
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_scores_of_classes_are_those_of_scikit_learn(classes, weighted):
    sklearn = pytest.importorskip("sklearn.metrics")
    answers = class_answers(classes, weighted=weighted)
    right, weights, chosen = answers.targets, answers.weights, answers.outputs.argmax(axis=1)
    probabilities = softmax(answers.outputs, axis=1)
    given = probabilities[:, 1] if classes == 2 else probabilities
    wanted = {
        "balanced_accuracy": sklearn.balanced_accuracy_score(right, chosen, sample_weight=weights),
        "f1": sklearn.f1_score(right, chosen, average="macro", sample_weight=weights),
        "roc_auc": sklearn.roc_auc_score(right, given, multi_class="ovr", sample_weight=weights),
    }
    assert scores_of(CLASS_SCORES, answers) == pytest.approx(wanted, rel=1e-12)
    np.testing.assert_allclose(
        confusion_matrix(answers), sklearn.confusion_matrix(right, chosen, sample_weight=weights), rtol=1e-12
    )


@WEIGHTED
@pytest.mark.parametrize("outputs", [1, 3])
def test_scores_of_numbers_are_those_of_scikit_learn(outputs, weighted):
    sklearn = pytest.importorskip("sklearn.metrics")
    answers = number_answers(outputs, weighted=weighted)
    pair, weights = (answers.targets, answers.outputs), answers.weights
    wanted = {
        "mae": sklearn.mean_absolute_error(*pair, sample_weight=weights),
        "r2": sklearn.r2_score(*pair, sample_weight=weights),
    }
    assert scores_of(NUMBER_SCORES, answers) == pytest.approx(wanted, rel=1e-12)


def test_scores_by_hand():
    """Nine of ten are of class 0, which is always answered; 8 of 9 pairs are in order and one is a tie."""
    logits = np.zeros((10, 2))
    logits[:, 0] = 1.0
    logits[:8, 1], logits[8, 1], logits[9, 1] = -1.0, 0.5, 0.5
    answers = Answers(logits, np.array([0] * 9 + [1]), np.ones(10))
    assert balanced_accuracy(answers) == 0.5
    assert f1(answers) == pytest.approx((2 * 9 / 19 + 0) / 2)
    assert roc_auc(answers) == pytest.approx((8 + 0.5) / 9)
    numbers = Answers(np.array([[1.0], [2.0], [6.0]]), np.array([[1.0], [3.0], [5.0]]), np.ones(3))
    assert (mae(numbers), r2(numbers)) == (pytest.approx(2 / 3), pytest.approx(1 - 2 / 8))


def test_classes_that_do_not_occur_do_not_count():
    answers = class_answers(3)
    wider = answers._replace(outputs=np.concatenate([answers.outputs, np.full((200, 2), -50.0)], axis=1))
    assert scores_of(CLASS_SCORES, wider) == pytest.approx(scores_of(CLASS_SCORES, answers), rel=1e-9)


def test_what_is_not_defined_is_said():
    alone = Answers(np.zeros((4, 2)), np.ones(4, int), np.ones(4))
    with pytest.raises(UndefinedError, match="roc_auc: not defined where 1 class occurs; needed are two"):
        roc_auc(alone)
    with pytest.raises(UndefinedError, match="r2: not defined where all targets of an output are the same"):
        r2(Answers(np.zeros((4, 1)), np.ones((4, 1)), np.ones(4)))


def test_steps_count_as_the_metrics_of_a_task_count_them():
    """A sequence counts the same, however many of its steps do."""
    mask = jnp.array([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    batch = Batch(jnp.zeros((2, 3, 1)), jnp.array([[0, 1, 0], [1, 0, 0]]), mask=mask)
    outputs, targets, weights = TASKS["adding"](5).answers(jnp.zeros((2, 3, 4)), batch)
    assert (outputs.shape, targets.shape) == ((2, 3, 4), (2, 3))
    assert weights.tolist() == [[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]
    one = TASKS["adding"](5).answers(jnp.zeros((2, 1)), Batch(jnp.zeros((2, 3, 1)), jnp.zeros(2)))
    assert one[1].shape == (2, 1)
    with pytest.raises(UsageError, match=r"outputs of this task are \[2, 3, 1\] and targets \[2, 2\]"):
        TASKS["adding"](5).answers(jnp.zeros((2, 3, 1)), Batch(jnp.zeros((2, 3, 1)), jnp.zeros((2, 2), bool)))


# In training


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """Three classes, one of them rare, of sequences of unequal length; sizes that no batch divides."""
    rng, size = np.random.default_rng(0), 61
    xs = rng.normal(size=(size, 4, 1)).astype(np.float32)
    targets = (xs[:, 0, 0] > 0).astype(np.int32) + (xs[:, 0, 0] > 1.0)
    rows = {"train": slice(24), "valid": slice(24, 43), "test": slice(43, None)}
    lengths = rng.integers(1, 5, size)
    parts = {name: (xs[part], targets[part], lengths[part]) for name, part in rows.items()}
    return Arrays.write(tmp_path_factory.mktemp("classes") / "data", **parts)


def scored(task, **changes):
    how = {"batch_size": 8, "steps": 4, "eval_steps": 2, "metrics": CLASS_SCORES, **changes}
    return load({"task": task, "model": {"hidden": (4,)}, "optimizer": {"lr": 0.1}, "train": how, "flow": {"every": 0}})


@pytest.fixture(scope="module")
def run(task, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gru_jax.runs.pictures.draw_pictures", lambda rundir, config: [])
        config = scored(task, monitor="balanced_accuracy", eval_batch_size=7)
        return train.run(config, tmp_path_factory.mktemp("scored") / "run")


def test_a_run_has_them_in_validation_and_test(run):
    assert run.summary["goal"] == ["balanced_accuracy", "max"]
    valid = run.metrics.filter(split="valid")
    assert valid.height == 3
    best = max(zip(valid["balanced_accuracy"], [-x for x in valid["loss"]], valid["step"], strict=True))
    assert run.summary["best"]["step"] == best[2]
    answers = answers_of_run(*open_run(run.path))
    assert len(answers.targets) == 18
    tested = run.summary["best"]["test"]
    assert {name: tested[name] for name in CLASS_SCORES} == scores_of(CLASS_SCORES, answers)
    assert tested["accuracy"] == pytest.approx(np.diag(confusion_matrix(answers)).sum() / 18)


@pytest.mark.parametrize("split", ["test", "valid"])
def test_they_are_computed_anew_to_the_bit(run, split):
    assert evaluate.run(run, split).equals_stored


def test_the_confusion_is_a_picture(run):
    drawn = figures_of_run(*open_run(run.path))
    (ax, *_) = drawn["confusion"].axes
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("answered class", "class")
    shares = np.asarray(ax.images[0].get_array())
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)


def test_batches_of_other_sizes_give_the_same(run, task, tmp_path, undrawn):
    other = train.run(scored(task, monitor="balanced_accuracy", eval_batch_size=5), tmp_path / "run")
    for part in ("best", "final"):
        assert other.summary[part]["test"] == pytest.approx(run.summary[part]["test"], rel=1e-6)


@pytest.mark.slow
def test_members_have_their_own(run, task, tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.report.run", lambda path: None)
    base = scored(task, monitor="balanced_accuracy", eval_batch_size=7).to_dict()
    study = load_study({"base": base, "axes": {"seed": [0, 1]}})
    ablate.run(study, tmp_path / "study")
    member = gru_jax.open(tmp_path / "study" / "members" / study.members()[0].id)
    for part in ("best", "final"):
        for split in ("valid", "test"):
            assert member.summary[part][split] == pytest.approx(run.summary[part][split], rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"metrics": ("r2",)},
            "train.metrics='r2': this task is about classes; allowed are balanced_accuracy, f1, roc",
        ),
        ({"metrics": ("f2",)}, "train.metrics='f2': allowed are balanced_accuracy, f1, roc_auc, mae, r2"),
        ({"metrics": None, "monitor": "f1"}, "train.monitor='f1': computed where train.metrics has it too"),
    ],
)
def test_scores_of_another_kind_are_refused(changes, said, task, tmp_path):
    with pytest.raises(UsageError, match=said):
        train.run(scored(task, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_set_without_a_second_class_is_refused_before_the_run(tmp_path):
    xs, targets = np.zeros((12, 3, 1), np.float32), np.arange(12, dtype=np.int32) % 2
    parts = {"train": (xs, targets), "valid": (xs, targets), "test": (xs, np.zeros(12, np.int32))}
    alone = Arrays.write(tmp_path / "data", **parts)
    with pytest.raises(UsageError, match=r"train\.metrics=roc_auc: not defined where 1 class occurs.*in the test set"):
        train.run(scored(alone, metrics=("f1", "roc_auc")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_fold_without_a_second_class_is_refused_before_the_study(tmp_path):
    targets = np.array([0, 1, 0, 1, *[1] * 4], np.int32)
    xs, test = np.zeros((8, 3, 1), np.float32), np.arange(8, dtype=np.int32) % 2
    folds = Arrays.write(tmp_path / "data", train=(xs, targets), test=(xs, test), folds=2, divide_by="time")
    base = scored(folds, metrics=("roc_auc",), batch_size=2)
    with pytest.raises(UsageError, match=r"train\.metrics=roc_auc: not defined where 1 class occurs.*in the valid set"):
        ablate.run({"base": base, "axes": {"task.fold": [0, 1]}}, tmp_path / "study")
    assert not list(tmp_path.glob("study/members/*"))


def test_numbers_have_other_scores(tmp_path, undrawn):
    config = load(
        {
            "task": {"name": "adding", "length": 4, "valid_size": 11, "test_size": 13},
            "model": {"hidden": (4,)},
            "train": {"batch_size": 8, "steps": 2, "metrics": ("mae", "r2"), "monitor": "mae"},
            "flow": {"every": 0},
        }
    )
    run = train.run(config, tmp_path / "run")
    assert run.summary["goal"] == ["mae", "min"]
    answers = answers_of_run(*open_run(run.path))
    tested = run.summary["best"]["test"]
    assert tested["loss"] == pytest.approx(np.mean((answers.outputs - answers.targets) ** 2), rel=1e-5)
    assert tested["r2"] == pytest.approx(1 - tested["loss"] / answers.targets.var(), rel=1e-5)


def test_every_score_has_a_direction_and_a_kind():
    assert set(SCORES) == {*CLASS_SCORES, *NUMBER_SCORES}
    assert json.loads(json.dumps(scores_of(CLASS_SCORES, class_answers(2))))
