"""The files of sequences of one's own: written whole, and checked beside each other."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gru_jax.data.npy import Rows, open_rows
from gru_jax.errors import UsageError, check_choice, listing
from gru_jax.runtime.files import FileStamp, stamp_of
from gru_jax.tasks.base import SPLITS

XS, TARGETS, LENGTHS, MASK = NAMES = ("xs", "targets", "lengths", "mask")
MAX_CLASSES = 10**6


@dataclasses.dataclass(frozen=True)
class ArrayFiles:
    """`<SPLIT>_<NAME>.npy` in a folder; see `gru_jax.tasks.Arrays`."""

    folder: Path

    @property
    def per_step(self) -> bool:
        """Whether there is a target for each step."""
        targets = self.rows("train", TARGETS)
        return len(targets.shape) == (3 if targets.dtype.kind == "f" else 2)

    @property
    def classes(self) -> int:
        """How many there are, 0 where targets are numbers."""
        if self.rows("train", TARGETS).dtype.kind == "f":
            return 0
        return 1 + int(max(self._greatest_target(split) for split in SPLITS))

    def path(self, split: str, name: str) -> Path:
        """Of a file."""
        return self.folder / f"{split}_{name}.npy"

    def open(self, split: str) -> dict[str, Rows]:
        """The files of a split, each once it is right beside the others."""
        names = [name for name in NAMES if name in (XS, TARGETS) or self.path(split, name).exists()]
        opened = {name: self.rows(split, name) for name in names}
        self._greatest_target(split)  # which checks them
        return opened

    def rows(self, split: str, name: str) -> Rows:
        """A file, once its shape is right beside the others.

        Raises:
            UsageError: it is not.
        """
        rows = open_rows(self.path(split, name))
        first = rows if split == "train" else open_rows(self.path("train", name))
        if name == XS:
            _check(rows, len(rows.shape) == 3, "[N, T, D]")
            _check(rows, rows.shape[1:] == first.shape[1:], f"[N, {listing(first.shape[1:])}]")
            return rows
        count, time = self.rows(split, XS).shape[:2]
        if name == LENGTHS:
            _check(rows, rows.shape == (count,) and rows.dtype.kind in "iu", f"[{count}] of whole numbers")
            _check_range(rows, rows.all(), 1, time)
        elif name == MASK:
            _check(rows, rows.shape == (count, time) and rows.dtype.kind in "biuf", f"[{count}, {time}] of numbers")
        else:
            self._check_targets(rows, first, count, time)
        return rows

    def _check_targets(self, rows: Rows, first: Rows, count: int, time: int) -> None:
        is_float = first.dtype.kind == "f"
        kinds, kind, last = ("f", "floats", ["O"]) if is_float else ("iu", "whole numbers", [])
        one, each = ([count, *last], [count, time, *last])
        needed = f"[{listing(one)}] of {kind}, or [{listing(each)}] for each step"
        if rows is not first:
            needed = f"[{listing([count, *first.shape[1:]])}] of {kind}, as in training"
        width = len(rows.shape) - len(last)
        fits = rows.shape[:width] == (count, time)[:width] and width in (1, 2) and rows.shape[1:] == first.shape[1:]
        _check(rows, fits and rows.dtype.kind in kinds, needed)

    def weighted_targets(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """The targets that count, one after the other, and how much each does; sequences count the same, 1 in all.

        Raises:
            UsageError: a class is out of range, or a sequence has no step that counts.
        """
        targets = self.rows(split, TARGETS)
        values = targets.all()
        if self.per_step:
            weights = self._step_weights(split)
            counts = weights > 0
            values, weights = values[counts], (weights / weights.sum(axis=1, keepdims=True))[counts] / len(weights)
        elif self.path(split, MASK).exists():
            raise UsageError(
                f"{self.path(split, MASK)}: a mask needs a target for each step; there is one for a sequence"
            )
        else:
            weights = np.full(len(values), 1 / max(1, len(values)))
        if targets.dtype.kind == "f":
            return values.astype(np.float64), weights
        _check_range(targets, values, 0, MAX_CLASSES - 1)
        return values, weights

    def _greatest_target(self, split: str) -> float:
        """The greatest target that counts, of targets that have been checked."""
        stamps = (stamp_of(path) if (path := self.path(split, name)).exists() else None for name in NAMES)
        return _greatest_target(self, split, tuple(stamps))

    def _step_weights(self, split: str) -> np.ndarray:
        """How much each step of each sequence counts, `[N, T]`."""
        count, time = self.rows(split, XS).shape[:2]
        weights = np.ones((count, time))
        if self.path(split, MASK).exists():
            mask = self.rows(split, MASK)
            weights = mask.all().astype(np.float64)
            if not (np.isfinite(weights).all() and (weights >= 0).all()):
                raise UsageError(f"{mask.path}: allowed are finite numbers from 0 up")
        if self.path(split, LENGTHS).exists():
            weights = weights * (np.arange(time) < self.rows(split, LENGTHS).all()[:, None])
        empty = np.flatnonzero(weights.sum(axis=1) == 0)
        if empty.size:
            raise UsageError(f"{self.path(split, MASK)}: in row {empty[0]} no step counts")
        return weights


@functools.lru_cache(maxsize=64)
def _greatest_target(files: ArrayFiles, split: str, stamps: tuple[FileStamp | None, ...]) -> float:
    del stamps
    return float(files.weighted_targets(split)[0].max())


def write_arrays(folder: Path, splits: Mapping[str, Any]) -> None:
    """Write the arrays of all splits into a folder; what is there stays until the new are known to be sound.

    Raises:
        UsageError: a split is missing, or arrays do not fit each other.
    """
    if set(splits) != set(SPLITS):
        raise UsageError(f"splits={listing(splits)}: needed are {listing(SPLITS)}")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as part:
        files = ArrayFiles(Path(part))
        columns = {split: _by_name(split, arrays) for split, arrays in splits.items()}
        longest = max((len(xs) for named in columns.values() for xs in named.get(XS, ())), default=0)
        noted = [named[LENGTHS] for named in columns.values() if _is_list_of_arrays(named.get(LENGTHS))]
        if len(noted) == len(SPLITS) and all(int(length) == longest for lengths in noted for length in lengths):
            columns = {split: {k: v for k, v in named.items() if k != LENGTHS} for split, named in columns.items()}
        for split, named in columns.items():
            for name, column in named.items():
                check_choice(f"{split}: array", name, NAMES)
                np.save(files.path(split, name), _stacked(name, column, longest), allow_pickle=False)
        try:
            for split in SPLITS:
                files.open(split)
        except UsageError as error:
            raise UsageError(str(error).replace(part, str(folder))) from error
        for split in SPLITS:
            for name in NAMES:
                ArrayFiles(folder).path(split, name).unlink(missing_ok=True)
        for file in Path(part).iterdir():
            file.rename(folder / file.name)


def _by_name(split: str, arrays: Any) -> dict[str, Any]:
    """A split's arrays by name, or, of examples, lists with one of each; their lengths are noted."""
    if isinstance(arrays, Mapping):
        columns = dict(arrays)
    elif isinstance(arrays, tuple | list) and arrays and not isinstance(arrays[0], tuple | Mapping):
        columns = _named(split, arrays)
    elif isinstance(arrays, Iterable):
        examples = [dict(e) if isinstance(e, Mapping) else _named(split, e) for e in arrays]
        if not examples or any(example.keys() != examples[0].keys() for example in examples):
            raise UsageError(f"{split}: examples are needed that all have the same of {listing(NAMES)}")
        columns = {name: [np.asarray(example[name]) for example in examples] for name in examples[0]}
    else:
        raise UsageError(f"{split}={type(arrays).__name__}: allowed are arrays, by name or in a tuple, and examples")
    if _is_list_of_arrays(columns.get(XS)):
        columns.setdefault(LENGTHS, [np.asarray(len(xs)) for xs in columns[XS]])
    return columns


def _named(split: str, arrays: Any) -> dict[str, Any]:
    if not isinstance(arrays, tuple | list) or len(arrays) > len(NAMES):
        raise UsageError(f"{split}: a tuple of up to {len(NAMES)} arrays is needed, {listing(NAMES)}")
    return dict(zip(NAMES, arrays, strict=False))


def _is_list_of_arrays(column: Any) -> bool:
    return isinstance(column, list) and bool(column) and all(isinstance(part, np.ndarray) for part in column)


def _stacked(name: str, column: Any, longest: int) -> np.ndarray:
    """An array as it is; of a list of one for each example those with an axis of steps filled up with zeros."""
    if not _is_list_of_arrays(column):
        return np.ascontiguousarray(column)
    first = column[0]
    has_steps = name in (XS, MASK) or (name == TARGETS and first.ndim == (2 if first.dtype.kind == "f" else 1))
    if has_steps:
        column = [np.pad(a, [(0, longest - len(a)), *[(0, 0)] * (a.ndim - 1)]) for a in column]
    return np.stack(column)


def _check(rows: Rows, fits: bool, needed: str) -> None:
    if not fits:
        raise UsageError(f"{rows.path}: of shape {list(rows.shape)} and type {rows.dtype}; needed is {needed}")


def _check_range(rows: Rows, values: np.ndarray, least: int, most: int) -> None:
    low, high = int(values.min(initial=least)), int(values.max(initial=least))
    if low < least or high > most:
        hint = (
            "; steps that do not count go by a mask" if values.ndim == 1 and low < 0 and most == MAX_CLASSES - 1 else ""
        )
        raise UsageError(f"{rows.path}: holds {low if low < least else high}; allowed are {least} to {most}{hint}")
