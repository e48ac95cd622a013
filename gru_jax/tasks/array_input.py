"""New sequences with what may stand beside them, once they are known to fit those of a training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from gru_jax.data.arrays import LENGTHS, MASK, TARGETS, WEIGHTS, XS, check_input, kind_of_targets
from gru_jax.data.checks import Missing
from gru_jax.data.npy import MemoryRows
from gru_jax.errors import UsageError
from gru_jax.tasks.array_shapes import SHAPE_CHECKS
from gru_jax.tasks.facts import DataFacts


def check_new_arrays(
    arrays: Mapping[str, np.ndarray],
    facts: DataFacts,
    missing: Missing,
    path: Path,
    place: Callable[..., str] | None,
) -> Mapping[str, np.ndarray]:
    """New arrays by name, checked.

    Args:
        arrays: `xs` and what they have beside them.
        facts: what is known of the data that a network was trained on.
        missing: what inputs that are NaN are taken for.
        path: the file that they are of, for messages.
        place: says where a value is.

    Raises:
        UsageError: they do not fit.
    """
    arrays = check_input(arrays, path, len(facts.features), missing, place)
    if WEIGHTS in arrays:
        rows = MemoryRows.of_array(path, arrays[WEIGHTS], place)
        SHAPE_CHECKS[WEIGHTS](rows, rows, arrays[XS].shape)
    if TARGETS in arrays:
        _check_targets(arrays, facts, path)
    return arrays


def _check_targets(arrays: Mapping[str, np.ndarray], facts: DataFacts, path: Path) -> None:
    targets = arrays[TARGETS]
    shape = arrays[XS].shape[: 1 + facts.per_step] + (() if facts.codes else (len(facts.targets),))
    if targets.shape != shape or kind_of_targets(targets.dtype) != facts.kind_of_targets:
        needed = f"{list(shape)} of {facts.kind_of_targets}"
        raise UsageError(f"{path}: targets of shape {list(targets.shape)} and type {targets.dtype}; needed is {needed}")
    mask = arrays.get(MASK, np.ones(arrays[XS].shape[:2]))
    within = np.arange(mask.shape[1]) < arrays.get(LENGTHS, np.full(len(mask), mask.shape[1]))[:, None]
    counted = targets[(mask > 0) & within] if facts.per_step else targets
    if facts.codes and not np.isin(counted, facts.codes).all():
        unknown = counted[~np.isin(counted, facts.codes)][0]
        raise UsageError(f"{path}: targets hold {unknown}; allowed are {', '.join(map(str, facts.codes))}")
