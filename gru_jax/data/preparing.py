"""What may be made of sequences while they are read: each standardised by itself, or several steps read as one."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float

from gru_jax.data.checks import usable_deviation
from gru_jax.data.loaded import LoadedSequences

FIRST = "[0]"
"""What is put behind the name of a feature, of the first of several steps that are read as one."""


def prepare_sequences(sequences: LoadedSequences, *, scale_each: bool, stack: int) -> LoadedSequences:
    """Sequences as a task asks for them.

    Args:
        sequences: as a reader gives them.
        scale_each: whether every feature of each sequence is brought to mean 0 and standard deviation 1 over its steps.
        stack: how many steps are read as one.

    Examples:
        >>> import numpy as np
        >>> from gru_jax.data.loaded import LoadedSequences
        >>> from gru_jax.data.preparing import prepare_sequences
        >>> xs = [np.ones((4, 1)), np.ones((3, 1))]
        >>> two = LoadedSequences(xs, None, False, ("a",), ("class",), lambda *_: "here")
        >>> made = prepare_sequences(two, scale_each=False, stack=2)
        >>> [xs.shape for xs in made.xs], made.features
        ([(2, 2), (2, 2)], ('a[0]', 'a[1]'))
    """
    if scale_each:
        sequences = dataclasses.replace(sequences, xs=[_standardised(xs) for xs in sequences.xs])
    return sequences if stack == 1 else _stacked(sequences, stack)


def names_in_files(features: tuple[str, ...], stack: int) -> tuple[str, ...]:
    """What features are called in files, of those that several steps have when they are read as one.

    Examples:
        >>> from gru_jax.data.preparing import names_in_files
        >>> names_in_files(("a[0]", "b[0]", "a[1]", "b[1]"), 2)
        ('a', 'b')
    """
    if stack == 1:
        return features
    return tuple(name.removesuffix(FIRST) for name in features[: len(features) // stack])


def _standardised(xs: Float[np.ndarray, "T D"]) -> Float[np.ndarray, "T D"]:
    """Features of mean 0 and standard deviation 1; those that do not change are 0, and missing values stay so."""
    if np.isinf(xs).any():  # which is refused, as it stands in the file
        return xs
    values, counted = xs.astype(np.float64), ~np.isnan(xs)
    counts = np.maximum(counted.sum(axis=0), 1)
    mean = np.where(counted, values, 0).sum(axis=0) / counts
    values = values - mean
    deviation = np.sqrt(np.where(counted, np.square(values), 0).sum(axis=0) / counts)
    return (values / usable_deviation(deviation, mean)).astype(xs.dtype)


def _stacked(sequences: LoadedSequences, stack: int) -> LoadedSequences:
    """Several steps side by side; the last of a sequence is filled up with the values of its last step."""
    count = len(sequences.features)

    def place(sequence: int, step: int | None = None, feature: int | None = None) -> str:
        if step is None or feature is None:
            return sequences.place(sequence)
        return sequences.place(sequence, step * stack + feature // count, feature % count)

    return dataclasses.replace(
        sequences,
        xs=[np.pad(xs, [(0, -len(xs) % stack), (0, 0)], "edge").reshape(-1, stack * count) for xs in sequences.xs],
        features=tuple(f"{name}[{i}]" for i in range(stack) for name in sequences.features),
        place=place,
    )
