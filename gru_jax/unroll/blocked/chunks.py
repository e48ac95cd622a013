"""A scan over blocks of time."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Block = Callable[[Any, Any, int, Any], tuple[Any, Any, Any]]
"""`block(carry, start, length, given) -> carry, per step [length, B, ...], per block`, for steps from `start` on."""


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

    def scan(self, block: Block, carry: Any, given: Any = None, *, back: bool = False) -> tuple[Any, Any, Any]:
        """Run `block` over all blocks in the order of processing or, with `back`, against it.

        Args:
            block: what to do. It works time-major; whatever lives outside is batch-major.
            carry: where to begin.
            given: None, or what an earlier scan of the same blocks returned per block.
            back: whether to go against the order of processing.

        Returns:
            The last carry; what the blocks returned per step, `[B, T, ...]`; and what they returned per block.
        """
        count, rest = divmod(self.time, self.size)
        first, rest_first = (rest, 0) if self.reverse else (0, count * self.size)
        of_blocks, of_rest = (None, None) if given is None else given

        def advance(state: tuple[Any, Any], start: Any, length: int, given: Any) -> tuple[tuple[Any, Any], Any]:
            carry, steps, own = block(state[0], start, length, given)
            return (carry, jax.tree.map(functools.partial(_written, start), state[1], steps)), own

        def blocks(state: tuple[Any, Any]) -> tuple[tuple[Any, Any], Any]:
            def body(state: tuple[Any, Any], item: tuple[Any, Any]) -> tuple[tuple[Any, Any], Any]:
                return advance(state, first + item[0] * self.size, self.size, item[1])

            return jax.lax.scan(body, state, (jnp.arange(count), of_blocks), reverse=self.reverse != back)

        def remainder(state: tuple[Any, Any]) -> tuple[tuple[Any, Any], Any]:
            return advance(state, rest_first, rest, of_rest) if rest else (state, None)

        one = (
            None if of_blocks is None else jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), of_blocks)
        )
        like = jax.eval_shape(lambda carry, given: block(carry, 0, self.size, given)[1], carry, one)
        state = (carry, jax.tree.map(lambda a: jnp.zeros((a.shape[1], self.time, *a.shape[2:]), a.dtype), like))
        if back:
            state, own_rest = remainder(state)
            state, own = blocks(state)
        else:
            state, own = blocks(state)
            state, own_rest = remainder(state)
        return (*state, (own, own_rest))


def _written(start: Any, buffer: Any, some: Any) -> Any:
    return jax.lax.dynamic_update_slice_in_dim(buffer, some.swapaxes(0, 1), start, axis=1)


def cut(tree: Any, start: Any, length: int) -> Any:
    """Steps from `start` on of every batch-major array, time-major."""
    return jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, start, length, axis=1).swapaxes(0, 1), tree)
