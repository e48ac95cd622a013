"""Scores that are no means over examples: they are of all answers to a set at once, whatever the batches were."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float
from scipy.special import softmax

from gru_jax.errors import UsageError

ClassScore = Literal["balanced_accuracy", "f1", "roc_auc"]
NumberScore = Literal["mae", "r2"]
Score = Literal[ClassScore, NumberScore]
CLASS_SCORES, NUMBER_SCORES = get_args(ClassScore), get_args(NumberScore)
DIRECTIONS: dict[str, Literal["min", "max"]] = {
    "balanced_accuracy": "max", "f1": "max", "roc_auc": "max", "mae": "min", "r2": "max",
}  # fmt: skip


class UndefinedError(UsageError):
    """A score is not defined on a set of examples."""


class Answers(NamedTuple):
    """What a network answers to a set of examples, or at each of their steps, and what is right.

    Attributes:
        outputs: `[N, K]`: logits of classes, or numbers.
        targets: the classes `[N]`, or numbers `[N, K]`.
        weights: how much each counts, `[N]`.
    """

    outputs: np.ndarray
    targets: np.ndarray
    weights: np.ndarray

    @property
    def are_classes(self) -> bool:
        """Whether the targets are classes."""
        return self.targets.ndim == 1


def confusion_matrix(answers: Answers) -> Float[np.ndarray, "K K"]:
    """The weight of examples of each class (rows) for which each class is answered (columns).

    Examples:
        >>> import numpy as np
        >>> from gru_jax.tasks.scores import Answers, confusion_matrix
        >>> logits = np.array([[2.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
        >>> confusion_matrix(Answers(logits, np.array([0, 1, 1]), np.ones(3))).tolist()
        [[1.0, 0.0], [1.0, 1.0]]
    """
    classes = answers.outputs.shape[1]
    places = answers.targets.astype(np.int64) * classes + answers.outputs.argmax(axis=1)
    return np.bincount(places, answers.weights, classes**2).reshape(classes, classes)


def balanced_accuracy(answers: Answers) -> float:
    """The mean over the classes that occur of the share of their examples that is answered rightly."""
    counts = confusion_matrix(answers)
    occurs = counts.sum(axis=1) > 0
    return float((np.diag(counts)[occurs] / counts.sum(axis=1)[occurs]).mean())


def f1(answers: Answers) -> float:
    """The mean over the classes that occur or are answered of the harmonic mean of precision and recall ("macro")."""
    counts = confusion_matrix(answers)
    either = counts.sum(axis=0) + counts.sum(axis=1)
    return float((2 * np.diag(counts)[either > 0] / either[either > 0]).mean())


def roc_auc(answers: Answers) -> float:
    """The area under the ROC curve: the probability that an example of a class has a higher score for it than another.

    Ties count half. Of more than two classes the mean over those that occur, each against all others (Hanley and McNeil
    1982; Fawcett 2006).

    Raises:
        UndefinedError: a single class occurs.
    """
    occurring = np.unique(answers.targets[answers.weights > 0])
    if len(occurring) < 2:
        raise UndefinedError(f"roc_auc: not defined where {len(occurring)} class occurs; needed are two")
    probabilities = softmax(answers.outputs.astype(np.float64), axis=1)
    chosen = occurring[1:] if answers.outputs.shape[1] == 2 else occurring
    return float(np.mean([_area(probabilities[:, k], answers.targets == k, answers.weights) for k in chosen]))


def _area(scores: np.ndarray, is_positive: np.ndarray, weights: np.ndarray) -> float:
    """The weighted share of pairs of a positive and a negative example in which the positive has the higher score."""
    _, place = np.unique(scores, return_inverse=True)
    positive, negative = (
        np.bincount(place, weights * chosen, place.max() + 1) for chosen in (is_positive, ~is_positive)
    )
    below = np.cumsum(negative) - negative / 2
    return float((positive * below).sum() / (positive.sum() * negative.sum()))


def mae(answers: Answers) -> float:
    """The mean absolute error, over all outputs."""
    errors = np.abs(answers.outputs.astype(np.float64) - answers.targets)
    return float(np.average(errors.mean(axis=1), weights=answers.weights))


def r2(answers: Answers) -> float:
    """The coefficient of determination: 1 less the squared error over that of always answering the mean; of several
    outputs the mean.

    Raises:
        UndefinedError: the targets of an output are all the same.
    """
    targets, weights = answers.targets.astype(np.float64), answers.weights[:, None]
    left = (weights * (answers.outputs.astype(np.float64) - targets) ** 2).sum(axis=0)
    mean = np.average(targets, axis=0, weights=answers.weights)
    spread = (weights * (targets - mean) ** 2).sum(axis=0)
    if not (spread > 0).all():
        raise UndefinedError("r2: not defined where all targets of an output are the same")
    return float((1 - left / spread).mean())


SCORES: dict[str, Callable[[Answers], float]] = {
    "balanced_accuracy": balanced_accuracy, "f1": f1, "roc_auc": roc_auc, "mae": mae, "r2": r2,
}  # fmt: skip


def scores_of(names: Iterable[str], answers: Answers) -> dict[str, float]:
    """The scores of these names.

    Raises:
        UndefinedError: one of them is not defined.
    """
    return {name: SCORES[name](answers) for name in names}
