"""The files of sequences of one's own: written whole, and checked beside each other."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from gru_jax.data.npy import NUMBERS, Rows, open_rows
from gru_jax.errors import UsageError, check_choice, in_one_line, listing
from gru_jax.runtime.files import FileStamp, stamp_of
from gru_jax.tasks.base import SPLITS

XS, TARGETS, LENGTHS, MASK = NAMES = ("xs", "targets", "lengths", "mask")
FOLDED_SPLITS = ("train", "test")  # that are read where the training examples are divided into folds
MAX_CLASSES = 10**6
USED = np.finfo(np.float32)  # in which losses are weighed and numbers are learnt, whatever a file has
LEAST_WEIGHT = float(USED.smallest_normal)  # of a step that counts; devices may take smaller numbers for 0

Column = np.ndarray | list[np.ndarray]
"""An array of all examples, or one for each."""


@dataclasses.dataclass(frozen=True)
class ArrayFiles:
    """`<SPLIT>_<NAME>.npy` in a folder, of these splits; see `gru_jax.tasks.Arrays`."""

    folder: Path
    splits: tuple[str, ...] = SPLITS

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
        return 1 + int(max(self._greatest_target(split) for split in self.splits))

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
            return _without_long_integers(rows)
        count, time = self.rows(split, XS).shape[:2]
        if name == LENGTHS:
            _check(rows, rows.shape == (count,) and rows.dtype.kind in "iu", f"[{count}] of whole numbers")
            _check_range(rows, rows.all(), 1, time)
        elif name == MASK:
            _check(rows, rows.shape == (count, time) and rows.dtype.kind in "biuf", f"[{count}, {time}] of numbers")
            return _without_long_integers(rows)
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
            steps = self._step_weights(split)
            counts, weights = steps > 0, steps.astype(np.float64)
            values, weights = values[counts], (weights / weights.sum(axis=1, keepdims=True))[counts] / len(weights)
        elif self.path(split, MASK).exists():
            raise UsageError(
                f"{self.path(split, MASK)}: a mask needs a target for each step; there is one for a sequence"
            )
        else:
            weights = np.full(len(values), 1 / max(1, len(values)))
        if targets.dtype.kind == "f":
            wrong = ~np.isfinite(as_used(values))
            if wrong.any():
                raise UsageError(
                    f"{targets.path}: holds {values[wrong][0]}; allowed are finite numbers of 32 bits, where they count"
                )
            return values.astype(np.float64), weights
        _check_range(targets, values, 0, MAX_CLASSES - 1)
        return values, weights

    def _greatest_target(self, split: str) -> float:
        """The greatest target that counts, of targets that have been checked."""
        stamps = (stamp_of(path) if (path := self.path(split, name)).exists() else None for name in NAMES)
        return _greatest_target(self, split, tuple(stamps))

    def _step_weights(self, split: str) -> np.ndarray:
        """How much each step of each sequence counts, `[N, T]`, in the type that the loss uses."""
        count, time = self.rows(split, XS).shape[:2]
        path, weights = self.path(split, MASK), np.ones((count, time), USED.dtype)
        if path.exists():
            mask = self.rows(split, MASK).all()
            weights = as_used(mask)
            wrong = ~(np.isfinite(weights) & (weights >= 0))
            if wrong.any():
                raise UsageError(f"{path}: holds {mask[wrong][0]}; allowed are finite numbers from 0 up, of 32 bits")
        if self.path(split, LENGTHS).exists():
            weights = weights * (np.arange(time) < self.rows(split, LENGTHS).all()[:, None])
        weights[weights < LEAST_WEIGHT] = 0
        with np.errstate(over="ignore"):
            sums = weights.sum(axis=1)
        empty, full = np.flatnonzero(sums == 0), np.flatnonzero(np.isinf(sums))
        if empty.size:
            raise UsageError(f"{path}: in row {empty[0]} no step counts; numbers below {LEAST_WEIGHT:.2g} are 0")
        if full.size:
            raise UsageError(f"{path}: row {full[0]} adds up to more than {USED.max:.2g}, the most that 32 bits hold")
        return weights


def as_used(values: np.ndarray) -> np.ndarray:
    """Numbers in the type that a loss uses; those beyond its range are infinite."""
    with np.errstate(over="ignore"):  # what becomes infinite is refused
        return values.astype(USED.dtype)


def _without_long_integers(rows: Rows) -> Rows:
    """Rows whose integers of 64 bits, which JAX would cut to their lower half, are read as the floats they become."""
    is_long = rows.dtype.kind in "iu" and rows.dtype.itemsize == 8
    return dataclasses.replace(rows, as_type=USED.dtype) if is_long else rows


@functools.lru_cache(maxsize=64)
def _greatest_target(files: ArrayFiles, split: str, stamps: tuple[FileStamp | None, ...]) -> float:
    del stamps
    return float(files.weighted_targets(split)[0].max())


def write_arrays(
    folder: Path, splits: Mapping[str, Any], needed: Sequence[str], check: Callable[[Path], object]
) -> None:
    """Write the arrays of all splits into a folder; what is there stays until the new are known to be sound.

    Args:
        folder: where they go; it need not exist.
        splits: the arrays of each, as `gru_jax.tasks.Arrays.write` takes them.
        needed: splits that there must be.
        check: called with the folder where the files are first; raises `UsageError` where they are not sound.

    Raises:
        UsageError: a split is missing, arrays do not fit each other, or the folder cannot be written.
    """
    if not set(needed) <= set(splits) <= set(SPLITS):
        hint = "; folds do without valid" if set(splits) == set(FOLDED_SPLITS) else ""
        raise UsageError(f"splits={listing(splits)}: needed are {listing(needed)}{hint}")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: a file; needed is a folder, which need not exist")
    columns = {split: _columns(split, arrays) for split, arrays in splits.items()}
    longest = max(count for named in columns.values() for count in _steps(named[XS]))
    noted = [named[LENGTHS] for named in columns.values() if isinstance(named.get(LENGTHS), list)]
    if len(noted) == len(columns) and all(int(length) == longest for lengths in noted for length in lengths):
        columns = {split: {k: v for k, v in named.items() if k != LENGTHS} for split, named in columns.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as part:
            files = ArrayFiles(Path(part), tuple(columns))
            for split, named in columns.items():
                for name, column in named.items():
                    np.save(files.path(split, name), _stacked(name, column, longest), allow_pickle=False)
            try:
                for split in columns:
                    files.open(split)
                check(files.folder)
            except UsageError as error:
                raise UsageError(str(error).replace(part, str(folder))) from error
            _replace_files(files.folder, ArrayFiles(folder))
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written ({error.strerror or error})") from error


def _replace_files(part: Path, files: ArrayFiles) -> None:
    """Put the files of a folder in place of all that another has, none of which may stay beside the new."""
    old = [path for split in SPLITS for name in NAMES if (path := files.path(split, name)).exists()]
    for path in old:
        if path.is_dir():
            raise UsageError(f"{path}: a directory; needed is a file, or nothing")
    for path in old:
        path.unlink()
    for file in part.iterdir():
        file.rename(files.folder / file.name)


def _columns(split: str, arrays: Any) -> dict[str, Column]:
    """A split's arrays by name, each whole or one for each example; the lengths of examples are noted."""
    named = _by_name(split, arrays)
    for name in named:
        check_choice(f"{split}: array", name, NAMES)
    for name in (XS, TARGETS):
        if name not in named:
            raise UsageError(f"{split}: has {listing(named) or 'nothing'}; needed are {XS} and {TARGETS}")
    columns = {name: _column(f"{split}: {name}", value) for name, value in named.items()}
    if any(isinstance(column, list) for column in columns.values()):
        _check_examples(split, columns)
    if isinstance(columns[XS], list):
        columns.setdefault(LENGTHS, [np.asarray(count) for count in _steps(columns[XS])])
    return columns


def _by_name(split: str, arrays: Any) -> dict[str, Any]:
    """A split's arrays by name, or, of examples, lists with one of each."""
    if isinstance(arrays, Mapping):
        return _without_none(arrays)
    if isinstance(arrays, tuple | list) and arrays and not isinstance(arrays[0], tuple | Mapping):
        return _named(split, arrays)
    if not isinstance(arrays, Iterable):
        raise UsageError(f"{split}={type(arrays).__name__}: allowed are arrays, by name or in a tuple, and examples")
    examples = [_without_none(e) if isinstance(e, Mapping) else _named(split, e) for e in arrays]
    if not examples or any(example.keys() != examples[0].keys() for example in examples):
        raise UsageError(f"{split}: examples are needed that all have the same of {listing(NAMES)}")
    return {name: [example[name] for example in examples] for name in examples[0]}


def _named(split: str, arrays: Any) -> dict[str, Any]:
    if not isinstance(arrays, tuple | list) or len(arrays) > len(NAMES):
        raise UsageError(f"{split}: a tuple of up to {len(NAMES)} arrays is needed, {listing(NAMES)}")
    return _without_none(dict(zip(NAMES, arrays, strict=False)))


def _without_none(named: Mapping[str, Any]) -> dict[str, Any]:
    """Without the lengths or the mask where they are None, as one before another in a tuple may be."""
    return {name: array for name, array in named.items() if array is not None or name not in (LENGTHS, MASK)}


def _column(what: str, value: Any) -> Column:
    if isinstance(value, np.ndarray) and value.dtype == object and value.ndim:
        value = list(value)
    if not isinstance(value, list | tuple):
        return _numbers(what, value)
    parts = [_numbers(f"{what} of example {i}", part) for i, part in enumerate(value)]
    if not parts:
        raise UsageError(f"{what}: of no example; needed is one or more")
    return parts


def _numbers(what: str, value: Any) -> np.ndarray:
    """An array of numbers that a file can hold."""
    try:
        array = np.asarray(value, order="C")
    except Exception as error:  # of arrays of other libraries, and of lists of lists of unequal length
        raise UsageError(f"{what}: not an array ({in_one_line(error)[:100]})") from error
    if array.dtype.kind == "V" and jnp.issubdtype(array.dtype, jnp.floating):
        return array.astype(np.float32)  # bfloat16 and narrower ones, which .npy files do not know
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        came = type(value).__name__ if array.dtype == object else array.dtype
        raise UsageError(f"{what}: holds {came}; allowed are {NUMBERS}")
    return array


def _steps(xs: Column) -> list[int]:
    """Of each example."""
    if isinstance(xs, list):
        return [len(part) for part in xs]
    return [xs.shape[1]] * len(xs) if xs.ndim > 1 else [0]


def _has_steps(name: str, parts: list[np.ndarray]) -> bool:
    """Whether the first axis of each is that of steps."""
    is_float = parts[0].dtype.kind == "f"
    return name in (XS, MASK) or (name == TARGETS and parts[0].ndim == (2 if is_float else 1))


def _check_examples(split: str, columns: Mapping[str, Column]) -> None:
    """Refuse examples that do not fit each other, or whose arrays do not, which padding would hide."""
    counts = {name: len(column) if isinstance(column, list) or column.ndim else 0 for name, column in columns.items()}
    if len(set(counts.values())) > 1:
        numbers = listing(f"{count} {name}" for name, count in counts.items())
        raise UsageError(f"{split}: {numbers}; needed are as many of each")
    _check_alike(split, XS, list(columns[XS]))
    steps = _steps(columns[XS])
    for name, column in columns.items():
        if not isinstance(column, list):
            continue
        _check_alike(split, name, column)
        for i, part in enumerate(column):
            if _has_steps(name, column) and len(part) != steps[i]:
                raise UsageError(
                    f"{split}: example {i} has {XS} of {steps[i]} steps and {name} of {len(part)}; needed are as many"
                )
    for i, length in enumerate(columns.get(LENGTHS, ())):
        if np.ndim(length) or not 1 <= length <= steps[i]:
            raise UsageError(f"{split}: {LENGTHS} of example {i} is {length}; allowed are 1 to {steps[i]}, its steps")


def _check_alike(split: str, name: str, parts: list[np.ndarray]) -> None:
    """Refuse parts that cannot stand beside each other: of other axes or width, or floats beside whole numbers."""
    first, common = parts[0], parts[0].dtype
    has_steps, is_float = int(_has_steps(name, parts)), first.dtype.kind == "f"
    shape = {XS: ["T", "D"], MASK: ["T"], LENGTHS: []}.get(name, ["T"] * has_steps + [*first.shape[has_steps:]])
    if name == XS and first.ndim == len(shape):
        shape[1] = first.shape[1]
    kind = "" if name in (XS, MASK) else " of floats" if is_float else " of whole numbers"
    needed = f"[{listing(shape)}]{kind}" if shape else "one float" if is_float else "one whole number"
    for i, part in enumerate(parts):
        common = np.promote_types(common, part.dtype)
        fits = part.ndim == len(shape) and part.shape[has_steps:] == first.shape[has_steps:] and part.size
        if not fits or (name == TARGETS and {part.dtype.kind == "f", common.kind == "f"} != {is_float}):
            came = f"{split}: {name} of example {i} is of shape {list(part.shape)} and type {part.dtype}"
            raise UsageError(f"{came}; needed is {needed}" + (", as of example 0" if i else ""))


def _stacked(name: str, column: Column, longest: int) -> np.ndarray:
    """An array as it is; of a list of one for each example those with an axis of steps filled up with zeros."""
    if not isinstance(column, list):
        return column
    if _has_steps(name, column):
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
