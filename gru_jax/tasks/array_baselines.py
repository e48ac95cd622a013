"""What answers without a network score on sequences of one's own; see `gru_jax.tasks.naive`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gru_jax.tasks.array_files import LENGTHS, MASK, TARGETS, XS, ArrayFiles, as_used
from gru_jax.tasks.naive import (
    Points,
    WeightedTargets,
    constant_classes,
    constant_numbers,
    few_rows,
    forecasts,
)


class _Targets(NamedTuple):
    """The targets of some sequences that count, and where they stand: in which of these, and at which step."""

    row: np.ndarray
    step: np.ndarray
    weighted: WeightedTargets


def baselines_of_arrays(
    files: ArrayFiles, order: np.ndarray | None, class_weights: tuple[float, ...] | None
) -> dict[str, dict[str, float]]:
    """The test metrics of answers made from the training data alone, by what they answer; the first knows no inputs.

    Args:
        files: the data.
        order: which of the training examples are trained on; all of them if None.
        class_weights: factor of the loss for each class.
    """
    order = np.arange(files.rows("train", XS).shape[0]) if order is None else order
    every_test = np.arange(files.rows("test", XS).shape[0])
    train, test = _targets(files, "train", order), _targets(files, "test", every_test)
    if files.classes:
        weights = np.ones(files.classes) if class_weights is None else np.array(class_weights)
        return {"training shares": constant_classes(train.weighted, test.weighted, files.classes, weights)}
    scores = {"training mean": constant_numbers(train.weighted, test.weighted)}
    _, time, features = files.rows("train", XS).shape
    few = order[few_rows(len(order), time, features * train.weighted.values.shape[1])]
    return scores | forecasts(_points(files, "train", few), _points(files, "test", every_test))


def _points(files: ArrayFiles, split: str, rows: np.ndarray) -> Points:
    row, step, weighted = _targets(files, split, rows)
    return Points(files.rows(split, XS).take(rows), row, step, weighted)


def _targets(files: ArrayFiles, split: str, rows: np.ndarray) -> _Targets:
    """The targets of these sequences; each counts the same, and its steps as the mask says."""
    time, targets = files.rows(split, XS).shape[1], files.rows(split, TARGETS).all()[rows]
    has = {name: files.path(split, name).exists() for name in (LENGTHS, MASK)}
    lengths = files.rows(split, LENGTHS).all()[rows].astype(np.int64) if has[LENGTHS] else np.full(len(rows), time)
    if not files.per_step:
        weights = np.full(len(rows), 1 / len(rows))
        return _Targets(np.arange(len(rows)), lengths - 1, WeightedTargets(targets, weights))
    mask = as_used(files.rows(split, MASK).all()[rows]) if has[MASK] else np.ones((len(rows), time))
    steps = np.where(np.arange(time) < lengths[:, None], mask, 0.0).astype(np.float64)
    row, step = np.nonzero(steps)
    weights = (steps / steps.sum(axis=1, keepdims=True))[row, step] / len(rows)
    return _Targets(row, step, WeightedTargets(targets[row, step], weights))
