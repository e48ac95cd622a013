"""What both ways of unrolling share: what a step reads, and what resets and padding do to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gru_jax.cells import Carry, Cell
from gru_jax.cells.base import carry_from_leaves, carry_leaves

Perturbation = Float[Array, "..."] | tuple[Float[Array, "..."], ...] | None
"""Added to the hidden state or, as a tuple, to every part of the carry; None for nothing."""


class StepInputs(NamedTuple):
    """What a scan reads at each step, time-major; None where a caller has no use for it.

    Attributes:
        xs: inputs, `[T, B, D]`, or None where their products are at hand.
        valid: False at steps that do not count: padding, and holes in a mask.
        resets: True where the carry is set anew before the step.
        recurrent_mask: multiplied with what every recurrent product reads.
        perturbation: added to the hidden state or, as a tuple of `[T, B, H]`, to every part of the carry.
    """

    xs: Any
    valid: Bool[Array, "T B"] | None = None
    resets: Bool[Array, "T B"] | None = None
    recurrent_mask: Float[Array, "T B H"] | None = None
    perturbation: Perturbation = None


def steps_of(
    xs: Float[Array, "B T D"],
    valid: Bool[Array, "B T"] | None,
    resets: Bool[Array, "B T"] | None,
    recurrent_mask: Float[Array, "B T H"] | None = None,
    perturbation: Perturbation = None,
) -> StepInputs:
    """What a scan of the cell's own step reads, with zeros in place of the inputs of steps that do not count."""
    # Masked before anything else: with `jax_debug_nans` even a copy of NaN in the padding would be an error.
    steps = StepInputs(masked(xs, valid), valid, resets, recurrent_mask, perturbation)
    return jax.tree.map(lambda a: a.swapaxes(0, 1), steps)


def advance(
    cell: Cell,
    step: StepInputs,
    before: Carry,
    equations: Callable[[Carry], tuple[Carry, Any]],
    reset_carry: Carry | None = None,
) -> tuple[Carry, Any]:
    """Take one step by `equations`, with its reset, its perturbation, and no change where it does not count."""
    carry, gates = equations(entering(cell, before, step.resets, reset_carry))
    if step.perturbation is not None:
        deltas = carry_leaves(step.perturbation)
        perturbed = [leaf + delta for leaf, delta in zip(carry_leaves(carry), deltas, strict=False)]
        carry = carry_from_leaves(cell, [*perturbed, *carry_leaves(carry)[len(deltas) :]])
    return (carry if step.valid is None else select(step.valid, carry, before)), gates


def entering(cell: Cell, before: Carry, resets: Bool[Array, "*T B"] | None, reset_carry: Carry | None = None) -> Carry:
    """The carry that a step starts from: `before` or, where it is reset, `reset_carry` `[B, H]`, zeros if None."""
    if resets is None:
        return before
    h = cell.hidden(before)
    if reset_carry is None:
        fresh = cell.initial_carry(h.shape[:-1], h.shape[-1], h.dtype)
    else:
        fresh = jax.tree.map(lambda part: jnp.broadcast_to(part, h.shape), reset_carry)
    return select(resets, fresh, before)


def masked(x: Float[Array, "*T B D"], valid: Bool[Array, "*T B"] | None) -> Float[Array, "*T B D"]:
    """Zeros in place of what stands in the padding, which must not reach a product: it may be NaN."""
    return x if valid is None else where(valid, x, jnp.zeros_like(x))


def where(mask: Bool[Array, "*T B"], a: Array, b: Array) -> Array:
    """Take `a` where `mask [..., B]` holds, else `b`, both `[..., B, ...]`."""
    return jnp.where(jnp.expand_dims(mask, tuple(range(mask.ndim, a.ndim))), a, b)


def select(mask: Bool[Array, "*T B"], a: Carry, b: Carry) -> Carry:
    """Take carry `a` where the mask holds, else carry `b`, in every part."""
    return jax.tree.map(lambda x, y: where(mask, x, y), a, b)


def is_finite(carry: Carry) -> Bool[Array, "*T B"]:
    """Whether all of a carry is finite, for each sequence."""
    finite = [jnp.isfinite(leaf).all(axis=-1) for leaf in jax.tree.leaves(carry)]
    return jnp.stack(finite).all(axis=0)
