"""Heads over many classes at many steps, as those over words, whose outputs are never in memory all at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array

from gru_jax.nn import Functional, Trace
from gru_jax.nn.families import FAMILIES

MOST_AT_ONCE = 2**22
"""Outputs of a batch up to which a head's are computed at once."""
MOST_IN_BLOCK = 2**21
"""Outputs of a block of sequences, where there are more."""


def blocks_of(sequences: int, of_each: int) -> int:
    """Into how many blocks of as many sequences a batch is cut, of so many outputs of each sequence.

    Examples:
        >>> from gru_jax.training.large_heads import blocks_of
        >>> blocks_of(20, 35 * 10_000), blocks_of(64, 30 * 8_000), blocks_of(32, 128 * 65)
        (4, 8, 1)
    """
    if sequences * of_each <= MOST_AT_ONCE:
        return 1
    divisors = (n for n in range(1, sequences) if sequences % n == 0)
    return next((n for n in divisors if sequences // n * of_each <= MOST_IN_BLOCK), sequences)


def over_outputs(
    function: Callable[[Array, Any], Any], model: Functional, params: Any, trace: Trace, rows: Any = ()
) -> Any:
    """What a function of outputs and rows gives for each sequence. Where outputs are many, of a block at a time.

    They are then computed of what the head reads, again in the backward pass, so that no more than one block's are ever
    there; in the trace they stand nevertheless, and what no one reads of it is not computed. Outputs of a family of a
    user's own are taken as they are.

    Args:
        function: gives batch-major arrays, each sequence's of itself alone.
        model: the network.
        params: its parameters.
        trace: of the batch.
        rows: a pytree of batch-major arrays.
    """
    features, outputs = trace.features, trace.outputs
    count = blocks_of(len(outputs), math.prod(outputs.shape[1:]))
    network = model.module(params) if count > 1 and features is not None else None
    if network is None or type(network) not in FAMILIES.values():
        return function(outputs, rows)

    @jax.checkpoint
    def of_block(features: Array, rows: Any) -> Any:
        return function(network.read_out(features), rows)

    blocks = jax.tree.map(lambda a: a.reshape(count, -1, *a.shape[1:]), (features, rows))
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), jax.lax.map(lambda block: of_block(*block), blocks))
