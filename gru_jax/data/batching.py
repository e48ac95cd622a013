"""Which examples each training step sees."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

StepIndices = Callable[[int, int], np.ndarray]
"""`indices(first, count) -> [count, B]`: the examples of `count` steps from step `first` on."""


def batch_indices(size: int | None, batch_size: int, key: PRNGKeyArray) -> StepIndices:
    """The example indices of any training steps, a function of the key and the step.

    Generated examples are numbered on and on. Files are read in a new random order each epoch, a last incomplete
    batch left out.

    Args:
        size: examples in the files; None where they are generated without end.
        batch_size: examples of a step.
        key: draws the orders.

    Examples:
        >>> import jax
        >>> from gru_jax.data.batching import batch_indices
        >>> batch_indices(None, 4, jax.random.key(0))(2, 1).tolist()
        [[8, 9, 10, 11]]
    """
    orders: dict[int, np.ndarray] = {}

    def order(epoch: int) -> np.ndarray:
        if epoch not in orders:
            while len(orders) > 1:
                orders.pop(min(orders))
            permutation = jax.random.permutation(jax.random.fold_in(key, epoch), size)  # type: ignore[arg-type]
            orders[epoch] = np.asarray(permutation, np.int32)
        return orders[epoch]

    def indices(first: int, count: int) -> np.ndarray:
        steps = np.arange(first, first + count)
        if size is None:
            return (steps[:, None] * batch_size + np.arange(batch_size)[None, :]).astype(np.int32)
        per_epoch = size // batch_size
        rows = []
        for step in steps:
            epoch, within = divmod(int(step), per_epoch)
            rows.append(order(epoch)[within * batch_size : (within + 1) * batch_size])
        return np.stack(rows)

    return indices


def stream_indices(pieces: int, batch_size: int) -> StepIndices:
    """Which pieces of one long sequence each training step sees, its rows side by side in the sequence.

    Each row of the batch reads a part of its own, piece after piece, and begins it anew when it is through; what is
    left over at the end of the sequence is not read.

    Args:
        pieces: of the sequence.
        batch_size: rows of a step.

    Examples:
        >>> from gru_jax.data.batching import stream_indices
        >>> stream_indices(7, batch_size=2)(1, 3).tolist()
        [[1, 4], [2, 5], [0, 3]]
    """
    of_row = pieces // batch_size

    def indices(first: int, count: int) -> np.ndarray:
        steps = np.arange(first, first + count) % of_row
        return (steps[:, None] + of_row * np.arange(batch_size)[None, :]).astype(np.int32)

    return indices
