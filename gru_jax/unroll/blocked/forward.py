"""The unroll in blocks of time.

A block's input products are one product, used while they are in cache; a short scan adds the recurrent ones. Of the
states, all are kept for the backward pass, or only those between blocks.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Bool, Float

from gru_jax.cells import Carry, Cell, Params
from gru_jax.unroll.blocked.chunks import Chunks, cut
from gru_jax.unroll.blocked.kernels import Kernels, Layout, input_products, kernels, layout, multiplier, with_biases
from gru_jax.unroll.blocked.structure import run
from gru_jax.unroll.masking import StepInputs, advance, is_finite, masked


@dataclasses.dataclass(frozen=True)
class Program:
    """All that is fixed when an unroll is compiled.

    Attributes:
        cell: the cell.
        reverse: whether to begin at the last step.
        chunk: steps of a block.
        fused: whether products that can be one are one.
        unroll: steps in one iteration of the compiled inner loops.
        keep: `"states"`, or `"boundaries"` to keep only those between blocks for the backward pass.
        precision: `jax.default_matmul_precision` at the call, for what is traced later.
    """

    cell: Cell
    reverse: bool
    chunk: int
    fused: bool
    unroll: int
    keep: str
    precision: str | None

    @property
    def layout(self) -> Layout:
        """Which products are computed as one."""
        return layout(self.cell, self.fused)

    def chunks(self, time: int) -> Chunks:
        """The blocks of `time` steps."""
        return Chunks(time, self.chunk, self.reverse)


class Operands(NamedTuple):
    """What an unroll can be differentiated in."""

    params: Params
    xs: Float[Array, "B T D"]
    carry0: Carry
    perturbation: Float[Array, "B T H"] | tuple[Float[Array, "B T H"], ...] | None


class Masks(NamedTuple):
    """What it cannot be differentiated in."""

    valid: Bool[Array, "B T"] | None
    resets: Bool[Array, "B T"] | None


class Result(NamedTuple):
    """States after each step (in the padding they stand still), the last carry, and which states were finite."""

    hs: Float[Array, "B T H"]
    carry: Carry
    finite: Bool[Array, "B T"]


class Kept(NamedTuple):
    """What the backward pass starts from.

    Attributes:
        states: the carry after every step, `[B, T, H]` each part, or None if it is to be computed again.
        starts: the carry before every block, as `Chunks.scan` returns it.
    """

    states: Carry | None
    starts: Any


@jax.named_scope("unroll")
def forward(program: Program, operands: Operands, masks: Masks) -> tuple[Result, Kept]:
    """Unroll, and what a backward pass needs."""
    cell, time = program.cell, operands.xs.shape[1]
    weights = kernels(cell, operands.params, program.layout)

    def block(carry: Carry, start: Any, length: int, given: None) -> tuple[Carry, Any, Carry]:
        del given
        steps = cut(StepInputs(operands.xs, *masks, operands.perturbation), start, length)
        after, states = block_states(program, weights, steps, carry)
        out = states if program.keep == "states" else cell.hidden(states)
        return after, (out, is_finite(states)), carry

    carry, (states, finite), starts = program.chunks(time).scan(block, operands.carry0)
    if program.keep == "states":
        return Result(cell.hidden(states), carry, finite), Kept(states, starts)
    return Result(states, carry, finite), Kept(None, starts)


def block_states(program: Program, weights: Kernels, steps: StepInputs, carry: Carry) -> tuple[Carry, Carry]:
    """Run a block of steps: the carry after it, and after each of its steps."""
    cell, where, compute_dtype = program.cell, program.layout, steps.xs.dtype
    products = input_products(where, weights, masked(steps.xs, steps.valid))

    def body(before: Carry, item: tuple[StepInputs, list[Array]]) -> tuple[Carry, Carry]:
        step, products = item
        u, multiply = with_biases(where, weights, products), multiplier(where, weights, compute_dtype)
        after, _ = advance(cell, step, before, lambda carry: run(cell, multiply, carry, u))
        return after, after

    items = (steps._replace(xs=None), products)
    return jax.lax.scan(body, carry, items, reverse=program.reverse, unroll=program.unroll)
