"""The files of sequences of one's own, written whole."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from gru_jax.data.arrays import LENGTHS, MASK, NAMES, TARGETS, WEIGHTS, XS, are_classes, kind_of_targets
from gru_jax.data.npy import NUMBERS
from gru_jax.errors import UsageError, check_choice, in_one_line, listing
from gru_jax.tasks.array_files import FOLDED_SPLITS, TEST, ArrayFiles
from gru_jax.tasks.array_shapes import GROUPS
from gru_jax.tasks.base import SPLITS

Column = np.ndarray | list[np.ndarray]
"""An array of all examples, or one for each."""


def write_arrays(
    folder: Path,
    splits: Mapping[str, object],
    needed: Sequence[str],
    check: Callable[[Path], object],
    columns: Mapping[str, str] | None = None,
    class_names: Sequence[str] | None = None,
) -> None:
    """Write the arrays of all splits into a folder; what is there stays until the new are known to be sound.

    Args:
        folder: where they go; it need not exist.
        splits: the arrays of each, as `gru_jax.tasks.Arrays.write` takes them.
        needed: splits that there must be.
        check: called with the folder where the files are first; raises `UsageError` where they are not sound.
        columns: what arrays are called in the splits, by their names here; None where they have these names.
        class_names: of classes; None for those of targets that are texts.

    Raises:
        UsageError: a split is missing, arrays do not fit each other, or the folder cannot be written.
    """
    if not set(needed) <= set(splits) <= set(SPLITS):
        hint = "; folds or a valid_fraction do without valid" if set(splits) == set(FOLDED_SPLITS) else ""
        raise UsageError(f"splits={listing(splits)}: needed are {listing(needed)}{hint}")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: a file; needed is a folder, which need not exist")
    by_name = {split: _by_name(split, arrays, columns) for split, arrays in splits.items()}
    if by_name.get(TEST, {TARGETS: ()}).get(TARGETS) is None:
        by_name[TEST].pop(TARGETS, None)
    names = _class_names([named[TARGETS] for named in by_name.values() if TARGETS in named], class_names)
    arrays = {split: _columns(split, named, names) for split, named in by_name.items()}
    longest = max(count for named in arrays.values() for count in _steps(named[XS]))
    noted = [named[LENGTHS] for named in arrays.values() if isinstance(named.get(LENGTHS), list)]
    if len(noted) == len(arrays) and all(int(length) == longest for lengths in noted for length in lengths):
        arrays = {split: {k: v for k, v in named.items() if k != LENGTHS} for split, named in arrays.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as part:
            files = ArrayFiles(Path(part))
            for split, named in arrays.items():
                for name, column in named.items():
                    np.save(files.path(split, name), _stacked(name, column, longest), allow_pickle=False)
            if names is not None:
                files.names_path.write_text(json.dumps({"classes": names}))
            try:
                check(files.folder)
            except UsageError as error:
                raise UsageError(str(error).replace(part, str(folder))) from error
            _replace_files(files.folder, ArrayFiles(folder))
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written ({error.strerror or error})") from error


def _replace_files(part: Path, files: ArrayFiles) -> None:
    """Put the files of a folder in place of all that another has, none of which may stay beside the new."""
    old = [path for split in SPLITS for name in (*NAMES, GROUPS) if (path := files.path(split, name)).exists()]
    old += [files.names_path] * files.names_path.exists()
    for path in old:
        if path.is_dir():
            raise UsageError(f"{path}: a directory; needed is a file, or nothing")
    for path in old:
        path.unlink()
    for file in part.iterdir():
        file.rename(files.folder / file.name)


def _class_names(targets: Sequence[Any], names: Sequence[str] | None) -> list[str] | None:
    """The names of classes: given, or of targets that are texts; None where they have none."""
    if names is not None:
        return [str(name) for name in names]
    texts: set[str] = set()
    for column in targets:
        values = np.asarray(column) if isinstance(column, np.ndarray) or _is_flat(column) else np.zeros(0)
        if values.dtype.kind in "UT" or (values.dtype == object and all(isinstance(v, str) for v in values.ravel())):
            texts |= {str(value) for value in values.ravel()}
    return sorted(texts) or None


def _is_flat(column: Any) -> bool:
    return isinstance(column, list | tuple) and bool(column) and isinstance(column[0], str)


def _columns(split: str, named: dict[str, Any], names: Sequence[str] | None) -> dict[str, Column]:
    """A split's arrays by name, each whole or one for each example; the lengths of examples are noted."""
    for name in named:
        check_choice(f"{split}: array", name, (*NAMES, GROUPS))
    if names is not None and TARGETS in named:
        named = {**named, TARGETS: _as_codes(split, named[TARGETS], names)}
    needed = (XS,) if split == TEST else (XS, TARGETS)
    for name in needed:
        if name not in named:
            raise UsageError(f"{split}: has {listing(named) or 'nothing'}; needed are {' and '.join(needed)}")
    columns = {name: _column(f"{split}: {name}", value) for name, value in named.items()}
    if any(isinstance(column, list) for column in columns.values()):
        _check_examples(split, columns)
    if isinstance(columns[XS], list):
        columns.setdefault(LENGTHS, [np.asarray(count) for count in _steps(columns[XS])])
    return columns


def _as_codes(split: str, targets: Any, names: Sequence[str]) -> Any:
    """Classes that are texts as their places among the names."""
    values = np.asarray(targets) if isinstance(targets, np.ndarray) or _is_flat(targets) else np.zeros(0)
    if values.dtype.kind not in "UTO":
        return targets
    code = {name: i for i, name in enumerate(names)}
    for value in values.ravel():
        check_choice(f"{split}: {TARGETS}", str(value), names)
    return np.array([code[str(value)] for value in values.ravel()], np.int32).reshape(values.shape)


def _by_name(split: str, arrays: Any, columns: Mapping[str, str] | None) -> dict[str, Any]:
    """A split's arrays by name, or, of examples, lists with one of each."""
    if columns is not None:
        return _renamed(split, arrays, columns)
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


def _renamed(split: str, arrays: Any, columns: Mapping[str, str]) -> dict[str, Any]:
    """Arrays, or lists with one of each example, that have other names in what was given."""
    examples = arrays if isinstance(arrays, Mapping) else list(arrays)
    renamed = {}
    for name, column in columns.items():
        check_choice("columns: array", name, (*NAMES, GROUPS))
        parts = [examples] if isinstance(examples, Mapping) else examples
        is_absent = not any(isinstance(part, Mapping) and column in part for part in parts)
        if is_absent and split == TEST and name == TARGETS:
            continue
        for part in parts:
            if not isinstance(part, Mapping):
                raise UsageError(f"columns: {split} has examples of {type(part).__name__}; needed are dicts")
            check_choice(f"columns: {name}: {split} has no", column, part)
        renamed[name] = parts[0][column] if isinstance(examples, Mapping) else [part[column] for part in parts]
    return renamed


def _named(split: str, arrays: Any) -> dict[str, Any]:
    if not isinstance(arrays, tuple | list) or len(arrays) > len(NAMES):
        raise UsageError(f"{split}: a tuple of up to {len(NAMES)} arrays is needed, {listing(NAMES)}")
    return _without_none(dict(zip(NAMES, arrays, strict=False)))


def _without_none(named: Mapping[str, Any]) -> dict[str, Any]:
    """Without the lengths, the mask or the weights where they are None, as one before another in a tuple may be."""
    return {name: array for name, array in named.items() if array is not None or name not in (LENGTHS, MASK, WEIGHTS)}


def _column(what: str, value: object) -> Column:
    if isinstance(value, np.ndarray) and value.dtype == object and value.ndim:
        value = list(value)
    if not isinstance(value, list | tuple):
        return _numbers(what, value)
    parts = [_numbers(f"{what} of example {i}", part) for i, part in enumerate(value)]
    if not parts:
        raise UsageError(f"{what}: of no example; needed is one or more")
    return parts


def _numbers(what: str, value: object) -> np.ndarray:
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
    return name in (XS, MASK) or (name == TARGETS and parts[0].ndim == (1 if are_classes(parts[0].dtype) else 2))


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
    """Refuse parts that cannot stand beside each other: of other axes or width, or targets of two kinds."""
    first, common = parts[0], parts[0].dtype
    has_steps, kind = int(_has_steps(name, parts)), kind_of_targets(first.dtype)
    shape = {XS: ["T", "D"], MASK: ["T"], LENGTHS: []}.get(name, ["T"] * has_steps + [*first.shape[has_steps:]])
    if name == XS and first.ndim == len(shape):
        shape[1] = first.shape[1]
    of_kind = "" if name in (XS, MASK) else f" of {kind}"
    needed = f"[{listing(shape)}]{of_kind}" if shape else f"one {kind.removesuffix('s')}"
    for i, part in enumerate(parts):
        common = np.promote_types(common, part.dtype)
        fits = part.ndim == len(shape) and part.shape[has_steps:] == first.shape[has_steps:] and part.size
        if not fits or (name == TARGETS and {kind_of_targets(t) for t in (part.dtype, common)} != {kind}):
            came = f"{split}: {name} of example {i} is of shape {list(part.shape)} and type {part.dtype}"
            raise UsageError(f"{came}; needed is {needed}" + (", as of example 0" if i else ""))


def _stacked(name: str, column: Column, longest: int) -> np.ndarray:
    """An array as it is; of a list of one for each example those with an axis of steps filled up with zeros."""
    if not isinstance(column, list):
        return column
    if _has_steps(name, column):
        column = [np.pad(a, [(0, longest - len(a)), *[(0, 0)] * (a.ndim - 1)]) for a in column]
    return np.stack(column)
