"""The unroll that a reader trusts: one scan of the cell's own step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gru_jax.cells import Carry, Cell, Gates, Params
from gru_jax.unroll.blocked.structure import parts, whole
from gru_jax.unroll.interventions import NONE, Intervention, Stops, intervened, stops_of


class Steps(NamedTuple):
    """What a scan reads at each step, time-major; None where a caller has no use for it.

    Attributes:
        xs: inputs, `[T, B, D]`, or None where their products are at hand.
        valid: False in the padding.
        resets: True where the carry is set to zeros before the step.
        perturbation: added to the hidden state or, as a tuple of `[T, B, H]`, to every part of the carry.
    """

    xs: Any
    valid: Bool[Array, "T B"] | None = None
    resets: Bool[Array, "T B"] | None = None
    perturbation: Any = None


def scan_steps(
    cell: Cell,
    params: Params,
    steps: Steps,
    carry: Carry,
    observe: Callable[[Carry, Gates, Bool[Array, " B"] | None], Any],
    *,
    reverse: bool = False,
    unroll: int = 1,
    intervention: Intervention = NONE,
) -> tuple[Carry, Any]:
    """Scan the cell over time; what `observe(carry, gates, valid)` returns at each step comes back stacked.

    At a padded step the input is replaced by zeros and the carry stays, so that nothing in the padding, not even NaN,
    reaches a value or a gradient.
    """

    def body(before: Carry, item: tuple[Steps, Stops]) -> tuple[Carry, Any]:
        step, stops = item
        x = masked(step.xs, step.valid)

        def equations(carry: Carry) -> tuple[Carry, Gates]:
            return cell.step_with_gates(params, intervened(cell, carry, stops, intervention.clip), x)

        carry, gates = advance(cell, step, before, equations)
        return carry, observe(carry, gates, step.valid)

    items = (steps, stops_of(intervention, steps.xs.shape[0], steps.valid, reverse))
    return jax.lax.scan(body, carry, items, reverse=reverse, unroll=unroll)


def advance(
    cell: Cell, step: Steps, before: Carry, equations: Callable[[Carry], tuple[Carry, Any]]
) -> tuple[Carry, Any]:
    """One step of `equations`, with its reset, its perturbation, and no change where it is padding."""
    carry, gates = equations(entering(cell, before, step.resets))
    if step.perturbation is not None:
        deltas = parts(step.perturbation)
        moved = [part + delta for part, delta in zip(parts(carry), deltas, strict=False)]
        carry = whole(cell, [*moved, *parts(carry)[len(deltas) :]])
    return (carry if step.valid is None else select(step.valid, carry, before)), gates


def entering(cell: Cell, before: Carry, resets: Bool[Array, "*T B"] | None) -> Carry:
    """The carry that a step starts from: `before`, or the initial one where it is reset."""
    if resets is None:
        return before
    h = cell.hidden(before)
    return select(resets, cell.initial_carry(h.shape[:-1], h.shape[-1], h.dtype), before)


def masked(x: Float[Array, "*T B D"], valid: Bool[Array, "*T B"] | None) -> Float[Array, "*T B D"]:
    """Zeros in place of what stands in the padding, which must not reach a product: it may be NaN."""
    return x if valid is None else where(valid, x, jnp.zeros_like(x))


def where(mask: Bool[Array, "*T B"], a: Array, b: Array) -> Array:
    """`a` where `mask [..., B]` holds, else `b`, both `[..., B, ...]`."""
    return jnp.where(jnp.expand_dims(mask, tuple(range(mask.ndim, a.ndim))), a, b)


def select(mask: Bool[Array, "*T B"], a: Carry, b: Carry) -> Carry:
    """`where` over every part of a carry."""
    return jax.tree.map(lambda x, y: where(mask, x, y), a, b)


def is_finite(carry: Carry) -> Bool[Array, "*T B"]:
    """Whether all of a carry is finite, for each sequence."""
    parts = [jnp.isfinite(part).all(axis=-1) for part in jax.tree.leaves(carry)]
    return jnp.stack(parts).all(axis=0)
