"""A scan over blocks of time."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from gru_jax.unroll.sharding import zeros_beside

StepNumber = int | Int[Array, ""]
Block = Callable[[PyTree, StepNumber, int, PyTree], tuple[PyTree, PyTree, PyTree]]
"""`block(carry, start, length, saved) -> carry, per step [length, B, ...], per block`, for steps from `start` on."""


class Chunks(NamedTuple):
    """`time` steps in blocks of `size` and, where that does not divide, a shorter one that is processed last.

    Attributes:
        time: T.
        size: steps of a block, at least 1.
        reverse: whether processing begins at the last step.
    """

    time: int
    size: int
    reverse: bool

    @property
    def block_count(self) -> int:
        """How many blocks there are, the shorter one included."""
        return -(-self.time // self.size)

    def number(self, start: StepNumber) -> StepNumber:
        """Which block begins at a step, counted in the order of time."""
        return (start + self.size - 1) // self.size if self.reverse else start // self.size

    def scan(
        self, block: Block, carry: PyTree, saved: PyTree = None, *, back: bool = False
    ) -> tuple[PyTree, PyTree, PyTree]:
        """Run `block` over all blocks in the order of processing or, with `back`, against it.

        Args:
            block: what to do. It works time-major; whatever lives outside is batch-major.
            carry: where to begin.
            saved: None, or what an earlier scan of the same blocks returned per block.
            back: whether to go against the order of processing.

        Returns:
            The last carry; what the blocks returned per step, `[B, T, ...]`; and what they returned per block.
        """
        count, rest = divmod(self.time, self.size)
        first, rest_first = (rest, 0) if self.reverse else (0, count * self.size)
        saved_blocks, saved_rest = (None, None) if saved is None else saved

        def advance(
            state: tuple[PyTree, PyTree], start: StepNumber, length: int, saved: PyTree
        ) -> tuple[tuple[PyTree, PyTree], Any]:
            carry, per_step, per_block = block(state[0], start, length, saved)
            return (carry, jax.tree.map(functools.partial(_written, start), state[1], per_step)), per_block

        def full_blocks(state: tuple[PyTree, PyTree]) -> tuple[tuple[PyTree, PyTree], Any]:
            def body(state: tuple[PyTree, PyTree], item: tuple[PyTree, PyTree]) -> tuple[tuple[PyTree, PyTree], Any]:
                return advance(state, first + item[0] * self.size, self.size, item[1])

            return jax.lax.scan(body, state, (jnp.arange(count), saved_blocks), reverse=self.reverse != back)

        def remainder(state: tuple[PyTree, PyTree]) -> tuple[tuple[PyTree, PyTree], Any]:
            return advance(state, rest_first, rest, saved_rest) if rest else (state, None)

        saved_block = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), saved_blocks)
        like = jax.eval_shape(lambda carry, saved: block(carry, 0, self.size, saved)[1], carry, saved_block)
        beside = jax.tree.leaves(carry)[0]
        buffers = jax.tree.map(lambda a: zeros_beside(beside, (a.shape[1], self.time, *a.shape[2:]), a.dtype), like)
        state = (carry, buffers)
        if back:
            state, of_remainder = remainder(state)
            state, of_blocks = full_blocks(state)
        else:
            state, of_blocks = full_blocks(state)
            state, of_remainder = remainder(state)
        return (*state, (of_blocks, of_remainder))


def _written(start: StepNumber, buffer: Array, steps: Array) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(buffer, steps.swapaxes(0, 1), start, axis=1)


def cut(tree: PyTree, start: StepNumber, length: int) -> PyTree:
    """Steps from `start` on of every batch-major array, time-major."""
    return jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, start, length, axis=1).swapaxes(0, 1), tree)
