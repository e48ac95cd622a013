"""Targets of new inputs, and weights of classes, looked at."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gru_jax.data.arrays import LENGTHS, MASK, TARGETS, XS, kind_of_targets
from gru_jax.data.checks import as_float32
from gru_jax.errors import UsageError, in_one_line
from gru_jax.tasks.facts import DataFacts


def check_new_targets(facts: DataFacts, arrays: Mapping[str, np.ndarray], path: Path) -> None:
    """Refuse targets of new inputs that are other than those of the training.

    Args:
        facts: of the training data.
        arrays: `xs` and `targets`, and `lengths` and `mask` if they have them.
        path: of their file.

    Raises:
        UsageError: they or their mask have another shape or type, or they hold a class that is none of the training's.
    """
    targets = arrays[TARGETS]
    shape = arrays[XS].shape[: 1 + facts.per_step] + (() if facts.codes else (len(facts.targets),))
    if targets.shape != shape or kind_of_targets(targets.dtype) != facts.kind_of_targets:
        needed = f"{list(shape)} of {facts.kind_of_targets}"
        raise UsageError(f"{path}: targets of shape {list(targets.shape)} and type {targets.dtype}; needed is {needed}")
    mask = arrays.get(MASK, np.ones(arrays[XS].shape[:2]))
    if mask.shape != arrays[XS].shape[:2]:
        raise UsageError(f"{path}: mask of shape {list(mask.shape)}; needed is {list(arrays[XS].shape[:2])}")
    within = np.arange(mask.shape[1]) < arrays.get(LENGTHS, np.full(len(mask), mask.shape[1]))[:, None]
    if facts.per_step and not (counts := ((mask > 0) & within).any(axis=1)).all():
        raise UsageError(f"{path}: row {int(counts.argmin())}: none of its steps counts; needed is one with a target")
    counted = targets[(mask > 0) & within] if facts.per_step else targets
    if facts.codes and not np.isin(counted, facts.codes).all():
        unknown = counted[~np.isin(counted, facts.codes)][0]
        raise UsageError(f"{path}: targets hold {unknown}; allowed are {', '.join(map(str, facts.codes))}")


def checked_class_weights(weights: Any) -> tuple[float, ...]:
    """Weights of classes as the loss can use them.

    Raises:
        UsageError: they are no finite numbers from 0 up, or all 0.

    Examples:
        >>> from gru_jax.tasks.array_targets import checked_class_weights
        >>> checked_class_weights([1, 0.5])
        (1.0, 0.5)
    """
    try:
        factors = np.asarray(weights, np.float64)
    except (TypeError, ValueError, OverflowError):
        factors = np.array(np.nan)
    used = as_float32(factors)
    if factors.ndim != 1 or not (np.isfinite(used) & (used >= 0)).all() or not used.any():
        shown = in_one_line(repr(weights))[:100]
        raise UsageError(f"class_weights={shown}: allowed is a finite number from 0 up for each class, not all 0")
    return tuple(factors.tolist())
