"""Blocks in which no step counts, such as those behind the longest sequence of a batch: nothing is computed in them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir
from jaxtyping import Array, Bool, PyTree

from gru_jax.unroll.blocked.chunks import Block, Chunks, StepNumber


def skip_padding(chunks: Chunks, valid: Bool[Array, "B T"] | None, block: Block, padding: Block) -> Block:
    """`block` where any sequence has a step that counts, and elsewhere `padding`, which must give the same for less.

    A single block is not asked: it is all there is.
    """
    if valid is None or chunks.block_count == 1:
        return block
    counting = _of_all_rows(_blocks_that_count(chunks, valid))

    def either(carry: PyTree, start: StepNumber, length: int, saved: PyTree) -> tuple[PyTree, PyTree, PyTree]:
        return jax.lax.cond(
            counting[chunks.number(start)],
            lambda: block(carry, start, length, saved),
            lambda: padding(carry, start, length, saved),
        )

    return either


def _blocks_that_count(chunks: Chunks, valid: Bool[Array, "B T"]) -> Bool[Array, " N"]:
    """Whether a step of each block counts for any sequence, in the order of time."""
    missing = chunks.block_count * chunks.size - chunks.time  # steps of the shorter block
    steps = jnp.pad(valid.any(axis=0), (missing, 0) if chunks.reverse else (0, missing))
    return steps.reshape(chunks.block_count, chunks.size).any(axis=1)


def _of_all_rows(flags: Bool[Array, " N"]) -> Bool[Array, " N"]:
    """The same flags; under `vmap` one set of them, that hold where any row's does.

    A condition that differs between the rows of a `vmap` would have both branches computed, and chosen from, for all.
    """
    return _of_all_rows_p.bind(flags)


_of_all_rows_p = Primitive("of_all_rows")
_of_all_rows_p.def_impl(lambda flags: flags)
_of_all_rows_p.def_abstract_eval(lambda flags: flags)
batching.primitive_batchers[_of_all_rows_p] = lambda args, dims: (args[0].any(axis=dims[0]), None)
mlir.register_lowering(_of_all_rows_p, lambda _, flags: [flags])
