"""Arrays of sequences in an `.npz` file, by name: `xs`, `targets`, `lengths`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gru_jax.data.arrays import are_classes, check_input, kind_of_targets, read_arrays
from gru_jax.data.columns import TableOptions
from gru_jax.data.loaded import LoadedSequences, TargetKind
from gru_jax.data.npy import MemoryRows
from gru_jax.errors import UsageError

KINDS: Mapping[str, TargetKind] = {"floats": "numbers", "booleans": "labels", "whole numbers": "classes"}


def read_npz(path: Path, options: TableOptions) -> LoadedSequences:
    """The sequences of `xs` `[N, T, D]`, with `targets` as of `gru_jax.tasks.Arrays` and, if they differ, `lengths`.

    Whole numbers are classes, booleans are labels.

    Args:
        path: of the file.
        options: whether there may be no targets, and what they must be.

    Raises:
        UsageError: arrays do not fit each other, targets are of another kind, or there is a mask.
    """
    arrays = read_arrays(path)
    if "mask" in arrays:
        raise UsageError(f"{path}: has a mask, which the task arrays reads, from .npy files")
    if "xs" in arrays and arrays["xs"].ndim == 3:
        arrays = check_input(arrays, path, arrays["xs"].shape[2], "zero")
    else:
        raise UsageError(f"{path}: needed is xs of shape [N, T, D]")
    xs, targets = arrays["xs"], arrays.get("targets")
    count, time = arrays["xs"].shape[:2]
    lengths = arrays.get("lengths", np.full(count, time))
    if lengths.min() < 1:
        raise UsageError(f"{path}: lengths hold {lengths.min()}; allowed are 1 to {time}")
    if targets is None and not (options.is_new or options.may_lack_targets):
        raise UsageError(f"{path}: has no targets")
    if targets is not None and options.kind not in ("auto", KINDS[kind_of_targets(targets.dtype)]):
        held = kind_of_targets(targets.dtype)
        raise UsageError(f"{path}: targets hold {held}, which are {KINDS[held]}; task.kind={options.kind} needs others")
    per_step = targets is not None and targets.ndim == (2 if are_classes(targets.dtype) else 3)
    width = 1 if targets is None or are_classes(targets.dtype) else targets.shape[-1]
    if targets is not None:
        if targets.shape[: 1 + per_step] != (count, time)[: 1 + per_step]:
            raise UsageError(
                f"{path}: targets of shape {list(targets.shape)} beside xs of {list(arrays['xs'].shape)}; needed are "
                f"[{count}] or [{count}, {time}] of whole numbers, or [{count}, O] or [{count}, {time}, O] of floats "
                "or booleans"
            )
        targets = targets.astype(np.str_) if are_classes(targets.dtype) else targets
    names = ("target",) if width == 1 else tuple(f"target{i}" for i in range(width))
    return LoadedSequences(
        xs=[row[:length] for row, length in zip(xs, lengths, strict=True)],
        targets=None
        if targets is None
        else [np.asarray(row[:length] if per_step else row) for row, length in zip(targets, lengths, strict=True)],
        per_step=per_step,
        features=tuple(f"x{i}" for i in range(xs.shape[2])),
        target_names=names,
        place=MemoryRows.of_array(path, xs).place,
        weights=_weights(path, arrays, count),
    )


def _weights(path: Path, arrays: Mapping[str, np.ndarray], count: int) -> list[float] | None:
    weights = arrays.get("weights")
    if weights is not None and weights.shape != (count,):
        raise UsageError(f"{path}: weights of shape {list(weights.shape)}; needed is [{count}]")
    return None if weights is None else weights.tolist()
