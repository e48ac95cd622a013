"""What answers without a network score on sequences of one's own; see `gru_jax.tasks.naive`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gru_jax.data.arrays import LENGTHS, MASK, TARGETS, WEIGHTS, XS
from gru_jax.data.checks import as_float32
from gru_jax.tasks.array_files import ArrayFiles
from gru_jax.tasks.labels import best_constant
from gru_jax.tasks.naive import (
    Points,
    WeightedTargets,
    constant_classes,
    constant_numbers,
    few_rows,
    forecasts,
)
from gru_jax.tasks.nearest_neighbour import MOST_PRODUCTS, nearest_classes, standardised_each


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
        shares = {"training shares": constant_classes(train.weighted, test.weighted, files.classes, weights)}
        return shares | _nearest(files, train, test, order)
    if files.facts().are_labels:
        values, weights = train.weighted.values, train.weighted.weights
        shares = (values * weights[:, None]).sum(axis=0)
        return {"training shares": best_constant(shares, len(values), test.weighted.values, test.weighted.weights)}
    scores = {"training mean": constant_numbers(train.weighted, test.weighted)}
    _, time, features = files.rows("train", XS).shape
    few = order[few_rows(len(order), time, features * train.weighted.values.shape[1])]
    return scores | forecasts(_points(files, "train", few), _points(files, "test", every_test))


def _nearest(files: ArrayFiles, train: _Targets, test: _Targets, order: np.ndarray) -> dict[str, dict[str, float]]:
    """What the nearest training sequence says; nothing where there are many, or sequences of unequal lengths."""
    counts = files.rows("train", XS).shape, files.rows("test", XS).shape
    if (
        files.per_step
        or files.has("train", LENGTHS)
        or len(order) * counts[1][0] * np.prod(counts[0][1:]) > MOST_PRODUCTS
    ):
        return {}
    xs = files.rows("train", XS).all()[order], files.rows("test", XS).all()
    if files.missing != "error":
        xs = tuple(np.where(np.isnan(part), np.array(files.input_scale().mean), part) for part in xs)
    scores = {}
    for name, change in {"": np.float64, ", each sequence standardised": standardised_each}.items():
        classes = nearest_classes(change(xs[0]), train.weighted.values, change(xs[1]))
        right = classes == test.weighted.values
        scores[f"1-NN, Euclidean{name}"] = {"accuracy": float((right * test.weighted.weights).sum())}
    return scores


def _points(files: ArrayFiles, split: str, rows: np.ndarray) -> Points:
    row, step, weighted = _targets(files, split, rows)
    xs = files.rows(split, XS).take(rows)
    if files.missing != "error":
        xs = np.where(np.isnan(xs), np.array(files.input_scale().mean), xs)
    return Points(xs, row, step, weighted)


def _targets(files: ArrayFiles, split: str, rows: np.ndarray) -> _Targets:
    """The targets of these sequences; each counts the same, or as its weight says, and its steps as the mask says."""
    time, targets = files.rows(split, XS).shape[1], files.rows(split, TARGETS).all()[rows]
    lengths = np.full(len(rows), time)
    if files.has(split, LENGTHS):
        lengths = files.rows(split, LENGTHS).all()[rows].astype(np.int64)
    scale = files.facts().targets_scale
    unit = np.ones(1) if scale is None else np.array(scale.deviation)

    def weighted(values: np.ndarray, weights: np.ndarray) -> WeightedTargets:
        return WeightedTargets(np.searchsorted(files.codes, values) if files.codes else values, weights, unit)

    shares = np.full(len(rows), 1 / len(rows))
    if files.has(split, WEIGHTS):
        of_each = as_float32(files.rows(split, WEIGHTS).all()[rows]).astype(np.float64)
        shares = of_each / (of_each.sum() or 1)
    if not files.per_step:
        return _Targets(np.arange(len(rows)), lengths - 1, weighted(targets, shares))
    mask = as_float32(files.rows(split, MASK).all()[rows]) if files.has(split, MASK) else np.ones((len(rows), time))
    steps = np.where(np.arange(time) < lengths[:, None], mask, 0.0).astype(np.float64)
    row, step = np.nonzero(steps)
    weights = (steps / steps.sum(axis=1, keepdims=True))[row, step] * shares[row]
    return _Targets(row, step, weighted(targets[row, step], weights))
