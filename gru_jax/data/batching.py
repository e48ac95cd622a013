"""Which examples each training step sees."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Integer, PRNGKeyArray

StepIndices = Callable[[int, int], np.ndarray]
"""`indices(first, count) -> [count, B]`: the examples of `count` steps from step `first` on."""

WINDOW = 50
"""Batches whose examples are sorted by length together. Those of a batch then differ by about a fiftieth of what all
differ by, and with which others an example stands still is another matter each epoch."""
BATCH_ORDER = 1  # what the order of batches is folded from, in the key of an epoch


def batch_indices(
    size: int | None, batch_size: int, key: PRNGKeyArray, lengths: Integer[np.ndarray, " N"] | None = None
) -> StepIndices:
    """The example indices of any training steps, a function of the key and the step.

    Generated examples are numbered on and on. Files are read in a new random order each epoch, a last incomplete
    batch left out. With lengths, examples of similar length stand in a batch: those of `WINDOW` batches at a time are
    sorted, and all batches then come in a random order.

    Args:
        size: examples in the files; None where they are generated without end.
        batch_size: examples of a step.
        key: draws the orders.
        lengths: of each example, by which batches are put together; None for at random.

    Examples:
        >>> import jax
        >>> import numpy as np
        >>> from gru_jax.data.batching import batch_indices
        >>> batch_indices(None, 4, jax.random.key(0))(2, 1).tolist()
        [[8, 9, 10, 11]]
        >>> lengths = np.array([3, 8, 2, 9])
        >>> sorted(sorted(batch) for batch in batch_indices(4, 2, jax.random.key(0), lengths)(0, 2).tolist())
        [[0, 2], [1, 3]]
    """
    orders: dict[int, np.ndarray] = {}

    def order(epoch: int) -> np.ndarray:
        if epoch not in orders:
            while len(orders) > 1:
                orders.pop(min(orders))
            key_of_epoch = jax.random.fold_in(key, epoch)
            permutation = np.asarray(jax.random.permutation(key_of_epoch, size), np.int32)  # type: ignore[arg-type]
            if lengths is not None:
                permutation = _by_length(
                    permutation, batch_size, lengths, jax.random.fold_in(key_of_epoch, BATCH_ORDER)
                )
            orders[epoch] = permutation
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


def _by_length(order: np.ndarray, batch_size: int, lengths: np.ndarray, key: PRNGKeyArray) -> np.ndarray:
    """A random order's whole batches, put together anew by length within windows of it, in a random order."""
    batches = len(order) // batch_size
    windows = np.array_split(order[: batches * batch_size].reshape(batches, batch_size), -(-batches // WINDOW))
    by_length = [window.ravel()[np.argsort(lengths[window.ravel()], kind="stable")] for window in windows]
    shuffled = np.asarray(jax.random.permutation(key, batches))
    return np.concatenate(by_length).reshape(batches, batch_size)[shuffled].ravel()
