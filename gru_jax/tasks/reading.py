"""From what a network says to what a person reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

CLASS = "prediction"


def read_classes(logits: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The likeliest class by name, and the probability of each.

    Args:
        logits: `[..., O]`.
        names: of the O classes.

    Examples:
        >>> import numpy as np
        >>> from gru_jax.tasks.reading import read_classes
        >>> read_classes(np.log([[1.0, 3.0]]), ["no", "yes"])
        {'prediction': array(['yes'], dtype='<U3'), 'p(no)': array([0.25]), 'p(yes)': array([0.75])}
    """
    shifted = np.exp(np.asarray(logits, np.float64) - np.max(logits, axis=-1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=-1, keepdims=True)
    likeliest = np.array(names)[np.argmax(logits, axis=-1)]  # of equal ones the first, as accuracies count it
    return {CLASS: likeliest, **{f"p({name})": probabilities[..., i] for i, name in enumerate(names)}}


def read_numbers(outputs: np.ndarray, names: Sequence[str], prefix: str = "") -> dict[str, np.ndarray]:
    """The numbers of outputs by name."""
    return {f"{prefix}{name}": np.asarray(outputs[..., i]) for i, name in enumerate(names)}


def read_target_classes(targets: np.ndarray, names: Sequence[str]) -> Mapping[str, np.ndarray]:
    """Classes by name."""
    return {"target": np.array(names)[targets]}
