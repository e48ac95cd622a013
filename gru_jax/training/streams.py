"""One long sequence read piece by piece: what each row of a batch carries from its last piece to the next."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Int

from gru_jax.dtypes import carry_dtype
from gru_jax.nn import Functional

NO_PIECE = -2
"""In place of a piece's number, before any was read: no piece comes after it."""


class Streams(NamedTuple):
    """Where each row of a batch stands in the long sequence.

    Attributes:
        pieces: the number of the piece that it read last, `[B]`.
        carries: each layer's carry after it, `[B, H]` each part.
    """

    pieces: Int[Array, " B"]
    carries: tuple[Any, ...]


def start_streams(model: Functional, rows: int, dtype: DTypeLike) -> Streams:
    """So many rows before their first piece; their inputs have this type."""
    carries = [place.cell.initial_carry((rows,), place.units, carry_dtype(dtype)) for (place,) in model.layers]
    return Streams(jnp.full(rows, NO_PIECE, jnp.int32), tuple(carries))


def carries_into(model: Functional, streams: Streams, index: Int[Array, " B"]) -> tuple[Any, ...]:
    """The carries from which pieces with these numbers are read: on from the piece before, or from the start."""
    goes_on = index == streams.pieces + 1
    start = start_streams(model, len(index), jax.tree.leaves(streams.carries)[0].dtype)

    def chosen(carry: Array, first: Array) -> Array:
        return jnp.where(goes_on.reshape(-1, *[1] * (carry.ndim - 1)), carry, first)

    return jax.tree.map(chosen, streams.carries, start.carries)
