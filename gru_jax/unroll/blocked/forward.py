"""The unroll in blocks of time.

A block's input products are one product, used while they are in cache; a short scan adds the recurrent ones. Of the
states, all are kept for the backward pass, or only those between blocks.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from gru_jax.cells import Carry, Cell, Params
from gru_jax.unroll.blocked.chunks import Chunks, StepNumber, cut
from gru_jax.unroll.blocked.kernels import (
    Kernels,
    ProductLayout,
    add_input_biases,
    arrange_kernels,
    input_products,
    product_layout,
    recurrent_multiplier,
)
from gru_jax.unroll.blocked.padding import skip_padding
from gru_jax.unroll.blocked.structure import ValueName, kept_arguments, recording, run_equations
from gru_jax.unroll.masking import Perturbation, StepInputs, advance, is_finite, masked
from gru_jax.unroll.sharding import zeros_beside


@dataclasses.dataclass(frozen=True)
class BlockedSettings:
    """All that is fixed when an unroll in blocks is compiled.

    Attributes:
        cell: the cell.
        units: how many are computed: the cell's own and, where there are more, twins of some (`blocked.twins`).
        reverse: whether to begin at the last step.
        chunk: steps of a block.
        fused: whether products that can be one are one.
        unroll: steps in one iteration of the compiled inner loops.
        keep: for the backward pass: `"states"`, `"boundaries"` for only those between blocks, or `"gates"` for what
            enters the gates too.
        precision: `jax.default_matmul_precision` at the call, for what is traced later.
    """

    cell: Cell
    units: int
    reverse: bool
    chunk: int
    fused: bool
    unroll: int
    keep: Literal["states", "boundaries", "gates"]
    precision: str | None

    @property
    def layout(self) -> ProductLayout:
        """Which products are computed as one."""
        return product_layout(self.cell, self.fused)

    def chunks(self, time: int) -> Chunks:
        """The blocks of `time` steps."""
        return Chunks(time, self.chunk, self.reverse)


class Operands(NamedTuple):
    """What an unroll can be differentiated in."""

    params: Params
    xs: Float[Array, "B T D"]
    carry0: Carry
    perturbation: Perturbation
    reset_carry: Carry | None


class Masks(NamedTuple):
    """What an unroll reads beside its operands and cannot be differentiated in."""

    valid: Bool[Array, "B T"] | None
    resets: Bool[Array, "B T"] | None
    recurrent_mask: Float[Array, "B T H"] | None = None


class BlockedResult(NamedTuple):
    """States after each step (they stand still where steps do not count), last carry, and which states were finite."""

    hs: Float[Array, "B T H"]
    carry: Carry
    finite: Bool[Array, "B T"]


class Residuals(NamedTuple):
    """What the backward pass starts from.

    Attributes:
        states: the carry after every step, `[B, T, H]` each part, or None if it is to be computed again.
        starts: the carry before every block, as `Chunks.scan` returns it.
        arguments: those of F at every step, `[B, T, H]`, see `kept_arguments`; None if they are to be computed again.
    """

    states: Carry | None
    starts: PyTree
    arguments: dict[ValueName, Array] | None


@jax.named_scope("unroll")
def forward_pass(settings: BlockedSettings, operands: Operands, masks: Masks) -> tuple[BlockedResult, Residuals]:
    """Run a cell over sequences block by block; also what a backward pass needs."""
    cell, time = settings.cell, operands.xs.shape[1]
    weights = arrange_kernels(cell, operands.params, settings.layout)

    def block(carry: Carry, start: StepNumber, length: int, saved: None) -> tuple[Carry, Any, Carry]:
        del saved
        steps = cut(StepInputs(operands.xs, *masks, operands.perturbation), start, length)
        after, states, arguments = block_states(settings, weights, steps, carry, operands.reset_carry)
        kept = cell.hidden(states) if settings.keep == "boundaries" else states
        return after, (kept, is_finite(states), arguments), carry

    def padding(carry: Carry, start: StepNumber, length: int, saved: None) -> tuple[Carry, Any, Carry]:
        """A block in which the carry stands still."""
        states = jax.tree.map(lambda part: jnp.broadcast_to(part, (length, *part.shape)), carry)
        arguments = None
        if settings.keep == "gates":  # zeros, that nobody will read
            like = jax.eval_shape(lambda: block(carry, start, length, saved)[1][2])
            arguments = jax.tree.map(lambda a: zeros_beside(cell.hidden(carry), a.shape, a.dtype), like)
        kept = cell.hidden(states) if settings.keep == "boundaries" else states
        return carry, (kept, is_finite(states), arguments), carry

    chunks = settings.chunks(time)
    carry, (states, finite, arguments), starts = chunks.scan(
        skip_padding(chunks, masks.valid, block, padding), operands.carry0
    )
    if settings.keep == "boundaries":
        return BlockedResult(states, carry, finite), Residuals(None, starts, None)
    return BlockedResult(cell.hidden(states), carry, finite), Residuals(states, starts, arguments)


def block_states(
    settings: BlockedSettings, weights: Kernels, steps: StepInputs, carry: Carry, reset_carry: Carry | None
) -> tuple[Carry, Carry, dict[ValueName, Array] | None]:
    """Run a block of steps: the carry after it and after each of its steps; with keep gates, each step's arguments."""
    cell, layout, compute_dtype = settings.cell, settings.layout, steps.xs.dtype
    products = input_products(layout, weights, masked(steps.xs, steps.valid))

    def body(before: Carry, item: tuple[StepInputs, list[Array]]) -> tuple[Carry, Any]:
        step, products = item
        u = add_input_biases(layout, weights, products)
        multiply, v = recording(recurrent_multiplier(layout, weights, compute_dtype, step.recurrent_mask))
        after, _ = advance(cell, step, before, lambda carry: run_equations(cell, multiply, carry, u), reset_carry)
        return after, (after, kept_arguments(cell, u, v) if settings.keep == "gates" else None)

    items = (steps._replace(xs=None), products)
    after, (states, arguments) = jax.lax.scan(body, carry, items, reverse=settings.reverse, unroll=settings.unroll)
    return after, states, arguments
