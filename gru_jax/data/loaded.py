"""Sequences as a reader gives them, whatever the format of their file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from gru_jax.errors import UsageError

TargetKind = Literal["auto", "classes", "numbers", "labels"]
"""What targets are; auto takes texts and whole numbers for classes. Labels are 0 or 1, and several may hold."""

Place = Callable[..., str]
"""Where a sequence, a step of it and a feature stand, as `place(sequence, step, feature)`; the latter two if asked."""


@dataclasses.dataclass(frozen=True)
class LoadedSequences:
    """Sequences of one or more files.

    Attributes:
        xs: of each, `[T, D]`, NaN where a value is missing.
        targets: of each, a text, or numbers or booleans `[O]`; or for each step, texts `[T]`, or `[T, O]`; None where
            the file has none.
        per_step: whether there is a target for each step.
        features: names of the D inputs.
        target_names: names of the O numbers, or of the class.
        place: where a value is, for people.
        groups: of each, what must stay together; None without.
        weights: how much each counts; None where all count the same.
    """

    xs: Sequence[np.ndarray]
    targets: Sequence[np.ndarray] | None
    per_step: bool
    features: tuple[str, ...]
    target_names: tuple[str, ...]
    place: Place
    groups: Sequence[str] | None = None
    weights: Sequence[float] | None = None


def join_sequences(parts: Sequence[LoadedSequences]) -> LoadedSequences:
    """The sequences of several files, one after the other.

    Raises:
        UsageError: the files have other columns.
    """
    first = parts[0]
    for part in parts:
        for what in ("features", "target_names"):
            if getattr(part, what) != getattr(first, what):
                raise UsageError(
                    f"{part.place(0)}: its {what.replace('_', ' ')} are {', '.join(getattr(part, what))}; those of "
                    f"{first.place(0)} are {', '.join(getattr(first, what))}"
                )
    starts = np.cumsum([0, *(len(part.xs) for part in parts)])

    def place(sequence: int, *where: int) -> str:
        number = int(np.searchsorted(starts, sequence, side="right")) - 1
        return parts[number].place(sequence - int(starts[number]), *where)

    def joined(name: str) -> list | None:
        columns = [getattr(part, name) for part in parts]
        return None if any(column is None for column in columns) else [item for column in columns for item in column]

    others = {name: joined(name) for name in ("targets", "groups", "weights")}
    return dataclasses.replace(first, xs=joined("xs") or [], place=place, **others)


def are_whole_numbers(values: np.ndarray) -> bool:
    """Whether all numbers that are not missing are whole.

    Examples:
        >>> import numpy as np
        >>> from gru_jax.data.loaded import are_whole_numbers
        >>> are_whole_numbers(np.array([1.0, np.nan])), are_whole_numbers(np.array([0.5]))
        (True, False)
    """
    finite = values[np.isfinite(values)]
    return bool((finite == np.round(finite)).all())
