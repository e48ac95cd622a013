"""The shapes and types of arrays that stand beside each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from gru_jax.data.arrays import LENGTHS, MASK, TARGETS, WEIGHTS, XS, are_classes, kind_of_targets
from gru_jax.data.checks import as_float32
from gru_jax.data.npy import Rows
from gru_jax.errors import UsageError, listing

GROUPS = "groups"  # which sequences must stay together where some are held out

ShapeCheck = Callable[[Rows, Rows, tuple[int, ...]], Rows]
"""Gives an array as it is to be read, or raises `UsageError`; of it, its like in training, and the inputs' shape."""


def _check_inputs(rows: Rows, first: Rows, shape: tuple[int, ...]) -> Rows:
    del shape
    _check(rows, len(rows.shape) == 3, "[N, T, D]")
    _check(rows, rows.shape[1:] == first.shape[1:], f"[N, {listing(first.shape[1:])}]")
    return _without_long_integers(rows)


def _check_lengths(rows: Rows, first: Rows, shape: tuple[int, ...]) -> Rows:
    del first
    count, time = shape[:2]
    _check(rows, rows.shape == (count,) and rows.dtype.kind in "iu", f"[{count}] of whole numbers")
    lengths = rows.all()
    wrong = np.flatnonzero((lengths < 1) | (lengths > time))
    if wrong.size:
        raise UsageError(f"{rows.place(int(wrong[0]))}: holds {lengths[wrong[0]]}; allowed are 1 to {time}")
    return rows


def _check_groups(rows: Rows, first: Rows, shape: tuple[int, ...]) -> Rows:
    del first
    _check(rows, rows.shape == shape[:1] and rows.dtype.kind in "iu", f"[{shape[0]}] of whole numbers")
    return rows


def _check_mask(rows: Rows, first: Rows, shape: tuple[int, ...]) -> Rows:
    del first
    _check(rows, rows.shape == shape[:2] and rows.dtype.kind in "biuf", f"[{listing(shape[:2])}] of numbers")
    return _without_long_integers(rows)


def _check_targets(rows: Rows, first: Rows, shape: tuple[int, ...]) -> Rows:
    count, time = shape[:2]
    kind, last = kind_of_targets(first.dtype), [] if are_classes(first.dtype) else ["O"]
    one, each = ([count, *last], [count, time, *last])
    needed = f"[{listing(one)}] of {kind}, or [{listing(each)}] for each step"
    if rows is not first:
        needed = f"[{listing([count, *first.shape[1:]])}] of {kind}, as in training"
    width = len(rows.shape) - len(last)
    fits = rows.shape[:width] == (count, time)[:width] and width in (1, 2) and rows.shape[1:] == first.shape[1:]
    _check(rows, fits and kind_of_targets(rows.dtype) == kind, needed)
    return rows


def _check_weights(rows: Rows, first: Rows, shape: tuple[int, ...]) -> Rows:
    del first
    _check(rows, rows.shape == shape[:1] and rows.dtype.kind in "biuf", f"[{shape[0]}] of numbers")
    values = rows.all()
    wrong = np.flatnonzero(~(np.isfinite(as_float32(values)) & (values >= 0)))
    if wrong.size:
        allowed = "allowed are finite numbers from 0 up, of 32 bits"
        raise UsageError(f"{rows.place(int(wrong[0]))}: holds {values[wrong[0]]}, of {WEIGHTS}; {allowed}")
    return _without_long_integers(rows)


SHAPE_CHECKS: Mapping[str, ShapeCheck] = {
    XS: _check_inputs,
    TARGETS: _check_targets,
    LENGTHS: _check_lengths,
    MASK: _check_mask,
    WEIGHTS: _check_weights,
    GROUPS: _check_groups,
}
"""By the name of an array."""


def _without_long_integers(rows: Rows) -> Rows:
    """Rows whose integers of 64 bits, which JAX would cut to their lower half, are read as the floats they become."""
    is_long = rows.dtype.kind in "iu" and rows.dtype.itemsize == 8
    return dataclasses.replace(rows, as_type=np.dtype(np.float32)) if is_long else rows


def _check(rows: Rows, fits: bool, needed: str) -> None:
    if not fits:
        raise UsageError(f"{rows.path}: of shape {list(rows.shape)} and type {rows.dtype}; needed is {needed}")
