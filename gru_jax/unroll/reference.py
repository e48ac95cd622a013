"""The unroll that a reader trusts: one scan of the cell's own step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Bool, PyTree

from gru_jax.cells import Carry, Cell, Gates, Params
from gru_jax.unroll.interventions import NONE, Intervention, Stops, find_stops, intervene
from gru_jax.unroll.masking import StepInputs, advance


def scan_steps(
    cell: Cell,
    params: Params,
    steps: StepInputs,
    carry: Carry,
    observe: Callable[[Carry, Gates, Bool[Array, " B"] | None], Any],
    *,
    reset_carry: Carry | None = None,
    reverse: bool = False,
    unroll: int = 1,
    intervention: Intervention = NONE,
) -> tuple[Carry, Any]:
    """Scan the cell over time; what `observe(carry, gates, valid)` returns at each step comes back stacked.

    At a step that does not count the carry stays; with the zeros that `steps_of` puts there, nothing that stood there,
    not even NaN, reaches a value or a gradient.
    """

    def body(before: Carry, item: tuple[StepInputs, Stops]) -> tuple[Carry, Any]:
        step, stops = item

        def equations(carry: Carry) -> tuple[Carry, Gates]:
            entered = intervene(cell, carry, stops, intervention.clip)
            return cell.step_with_gates(params, entered, step.xs, step.recurrent_mask)

        carry, gates = advance(cell, step, before, equations, reset_carry)
        return carry, observe(carry, gates, step.valid)

    items = (steps, find_stops(intervention, steps.xs.shape[0], steps.valid, reverse))
    return scan_time(body, carry, items, reverse=reverse, unroll=unroll)


def scan_time(body: Callable[..., Any], carry: PyTree, items: PyTree, **kwargs: Any) -> tuple[PyTree, PyTree]:
    """`jax.lax.scan` over time, of no steps too where `jax_disable_jit` is set, which has a scan refuse them."""
    has_none = jax.tree.leaves(items)[0].shape[0] == 0
    with jax.disable_jit(False) if has_none else contextlib.nullcontext():
        return jax.lax.scan(body, carry, items, **kwargs)
