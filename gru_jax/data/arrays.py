"""Arrays of new inputs in a `.npy` or `.npz` file."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from gru_jax.data.checks import Missing, check_finite
from gru_jax.data.npy import NUMBERS, MemoryRows, open_rows
from gru_jax.errors import UsageError, check_choice, listing

XS, TARGETS, LENGTHS, MASK, WEIGHTS = NAMES = ("xs", "targets", "lengths", "mask", "weights")
SUFFIXES = (".npy", ".npz")


def kind_of_targets(dtype: np.dtype) -> str:
    """What targets of a type are made of, for messages."""
    return {"f": "floats", "b": "booleans"}.get(dtype.kind, "whole numbers")


def are_classes(dtype: np.dtype) -> bool:
    """Whether targets of a type are classes, one for a sequence or a step.

    Others have an axis of their own: floats are numbers, booleans are labels of which several may hold.
    """
    return dtype.kind in "iu"


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file by name: of an `.npz` file all, of an `.npy` file its one as `xs`.

    Raises:
        UsageError: it cannot be read, or holds what are no numbers.
    """
    if path.suffix == ".npy":
        return {XS: open_rows(path).all()}
    if path.suffix != ".npz":
        raise UsageError(f"{path}: of a kind that this task does not read; allowed are {listing(SUFFIXES)}")
    try:
        with path.open("rb") as stream:
            archive = np.load(stream, allow_pickle=False)
            arrays = None if isinstance(archive, np.ndarray) else dict(archive)
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
        raise UsageError(f"{path}: cannot be read ({' '.join(str(error).split())[:100]})") from error
    if arrays is None:
        raise UsageError(f"{path}: is one array; allowed is a name that ends in .npy")
    for name, array in arrays.items():
        check_choice(f"{path}: array", name, NAMES)
        if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
            raise UsageError(f"{path}: {name} holds {array.dtype}; allowed are {NUMBERS}")
    return {name: array.astype(array.dtype.newbyteorder("="), copy=False) for name, array in arrays.items()}


def check_input(
    arrays: Mapping[str, np.ndarray],
    path: Path,
    features: int,
    missing: Missing = "error",
    place: Callable[..., str] | None = None,
) -> dict[str, np.ndarray]:
    """New inputs, once they are known to be usable.

    Args:
        arrays: `xs` `[N, T, D]`, and `lengths` `[N]` if they have them; others are left alone.
        path: of their file, or what they are called.
        features: D.
        missing: whether NaN is refused.
        place: says where a row, a step and a feature are; None for their numbers.

    Raises:
        UsageError: they have another shape, a length is out of range, or a number is not finite.

    Examples:
        >>> import numpy as np
        >>> from pathlib import Path
        >>> from gru_jax.data.arrays import check_input
        >>> check_input({"xs": np.ones((4, 5, 2))}, Path("new.npy"), 3)
        Traceback (most recent call last):
        gru_jax.errors.UsageError: new.npy: xs of shape [4, 5, 2]; needed is [N, T, 3]
    """
    if XS not in arrays:
        raise UsageError(f"{path}: has {listing(arrays) or 'no arrays'}; needed is xs")
    xs, lengths = arrays[XS], arrays.get(LENGTHS)
    if xs.ndim != 3 or xs.shape[2] != features or not xs.shape[0] or not xs.shape[1]:
        raise UsageError(f"{path}: xs of shape {list(xs.shape)}; needed is [N, T, {features}]")
    if lengths is not None:
        if lengths.shape != xs.shape[:1] or lengths.dtype.kind not in "iu":
            raise UsageError(f"{path}: lengths of shape {list(lengths.shape)}; needed is [{len(xs)}] of whole numbers")
        if lengths.min() < 0 or lengths.max() > xs.shape[1]:
            raise UsageError(
                f"{path}: lengths range from {lengths.min()} to {lengths.max()}: allowed are 0 to T={xs.shape[1]}"
            )
        lengths = lengths.astype(np.int32)
    rows = MemoryRows.of_array(path, xs, place)
    check_finite([(0, xs)], lengths, rows.place, missing)
    arrays = dict(arrays) if lengths is None else {**arrays, LENGTHS: lengths}
    return {**arrays, XS: xs.astype(np.float32)}
