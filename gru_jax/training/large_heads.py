"""Heads over many classes at many steps, as those over words, whose outputs are never in memory all at once."""

from __future__ import annotations

import math
from typing import Any

import jax
from jaxtyping import Array, Float

from gru_jax.nn import Functional, Trace
from gru_jax.nn.families import FAMILIES
from gru_jax.tasks import Batch, Task

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


def metrics_of(task: Task, model: Functional, params: Any, trace: Trace, batch: Batch) -> dict[str, Float[Array, " B"]]:
    """Each example's metrics. Where outputs are many, those of a block of sequences at a time.

    They are then computed of what the head reads, again in the backward pass, so that no more than one block's are ever
    there; in the trace they stand nevertheless, and what no one reads of it is not computed. Outputs of a family of a
    user's own are taken as they are.

    Args:
        task: whose metrics.
        model: the network.
        params: its parameters.
        trace: of the batch.
        batch: the examples.
    """
    features, outputs = trace.features, trace.outputs
    count = blocks_of(len(outputs), math.prod(outputs.shape[1:]))
    if count == 1 or features is None:
        return task.metrics(outputs, batch)
    network = model.module(params)
    if type(network) not in FAMILIES.values():
        return task.metrics(outputs, batch)

    @jax.checkpoint
    def of_block(features: Array, batch: Batch) -> dict[str, Float[Array, " N"]]:
        return task.metrics(network.read_out(features), batch)

    blocks = jax.tree.map(lambda a: a.reshape(count, -1, *a.shape[1:]), (features, batch))
    values = jax.lax.map(lambda block: of_block(*block), blocks)
    return {name: value.reshape(-1) for name, value in values.items()}
