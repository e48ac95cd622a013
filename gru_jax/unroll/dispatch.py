"""The public function `unroll`: it checks the arguments, chooses the method and runs it."""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gru_jax.cells import Carry, Cell, Gates, Params
from gru_jax.dtypes import carry_dtype, in_machine_order
from gru_jax.errors import UsageError, check_choice
from gru_jax.unroll.arguments import (
    check_inputs,
    check_intervention,
    check_perturbation,
    checked_mask,
    checked_recurrent_mask,
    hidden_size,
    reset_state,
    start_carry,
    valid_steps,
)
from gru_jax.unroll.blocked.fast import current_precision, fast_unroll
from gru_jax.unroll.blocked.forward import BlockedSettings, Masks, Operands
from gru_jax.unroll.interventions import NONE, Intervention
from gru_jax.unroll.masking import Perturbation, is_finite, masked, steps_of
from gru_jax.unroll.options import (
    KEEPS,
    Keep,
    Layout,
    Method,
    choose_chunk,
    choose_keep,
    choose_layout,
    choose_method,
    choose_units,
    choose_unroll,
)
from gru_jax.unroll.reference import scan_steps
from gru_jax.unroll.sharding import batch_split, over_split, vary_alike, zeros_beside


class How(NamedTuple):
    """How to unroll: the method chosen, the direction, and the options as given; steps of an iteration chosen too."""

    method: Literal["fast", "reference"]
    reverse: bool
    chunk: int | None
    keep: Keep
    layout: Layout
    unroll: int


class PerSequence(NamedTuple):
    """What an unroll reads for each sequence: operands but for the parameters, masks, its part of an intervention."""

    operands: Operands
    masks: Masks
    detach: Bool[Array, "B T"] | None
    clips: Float[Array, " B"] | None


class Unrolled(NamedTuple):
    """The result of `unroll`.

    Attributes:
        hs: hidden states after each step, `[B, T, H]`, in the type of `xs`; zero at steps that do not count.
        carry: the carry after the last valid step of each sequence (the first one with `reverse`).
        finite: whether the carry was finite after each step, `[B, T]`.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import gru_jax
        >>> cell = gru_jax.cells.GRU()
        >>> params = cell.init(jax.random.key(0), 2, 3)
        >>> xs = jax.random.normal(jax.random.key(1), (4, 5, 2))
        >>> out = gru_jax.unroll(cell, params, xs)
        >>> out.hs.shape, out.carry.shape, bool(out.finite.all())
        ((4, 5, 3), (4, 3), True)
    """

    hs: Float[Array, "B T H"]
    carry: Carry
    finite: Bool[Array, "B T"]


def unroll(
    cell: Cell,
    params: Params,
    xs: Float[Array, "B T D"],
    carry0: Carry | None = None,
    *,
    lengths: Int[Array, " B"] | None = None,
    mask: Bool[Array, "B T"] | None = None,
    resets: Bool[Array, "B T"] | None = None,
    reset_carry: Carry | None = None,
    recurrent_mask: Float[Array, "B T H"] | Float[Array, "B 1 H"] | None = None,
    reverse: bool = False,
    method: Method = "auto",
    chunk: int | None = None,
    keep: Keep = "auto",
    layout: Layout = "auto",
    unroll: int | None = None,
    perturbation: Float[Array, "B T H"] | tuple[Float[Array, "B T H"], ...] | None = None,
    intervention: Intervention = NONE,
) -> Unrolled:
    """Run a cell over sequences.

    Args:
        cell, params, xs: the cell, its parameters, and inputs `[B, T, D]`, in whose type products run; T may be 0.
        carry0: the state before the first step, each part `[B, H]`; zeros if None. It is float32, or float64 as `xs`.
        lengths: true length of each sequence, 0 to T; inside `jit`, where it cannot be checked, what is outside is cut.
        mask: the steps that count, where they are not only the first: left padding, gaps. With `lengths`, both have to
            allow a step. One that does not count changes no state and no gradient, even if it is NaN; its output is 0.
        resets: where True, the carry is set anew before that step, in the order of processing: with `reverse`, mark the
            last step of each packed sequence rather than the first. At a step that does not count nothing is reset.
        reset_carry: the carry that a reset sets, each part `[H]` or `[B, H]`, such as a learned one; zeros if None.
        recurrent_mask: times what recurrent products read, as 0 or 1 / (1 - p); a constant in all derivatives.
        reverse: process from the last step to the first; outputs stay at their own time step.
        method, chunk, keep, layout, unroll: see `gru_jax.unroll.options`; chosen by measured rules where None or auto.
        perturbation: added to h (as a tuple, to every part of the carry) after every step: the gradient of a loss in
            a zero perturbation is the adjoint dL/dh_t of every step.
        intervention: what is done to the gradient on its way back, by the reference method.

    Raises:
        UsageError: (a `ValueError`) an argument with the wrong rank, size, type or value.

    Examples:
        >>> import jax, gru_jax
        >>> params = gru_jax.cells.GRU().init(jax.random.key(0), 2, 3)
        >>> gru_jax.unroll(gru_jax.cells.GRU(), params, jax.numpy.ones((4, 5, 2))).hs.shape
        (4, 5, 3)
    """
    xs = jnp.asarray(in_machine_order(xs))
    check_inputs(cell, params, xs)
    chosen = choose_method(cell, method, time=xs.shape[1], intervenes=not intervention.idle)
    how = How(chosen, reverse, chunk, keep, layout, choose_unroll(unroll, chosen))
    _check_options(cell, method, how, intervention, xs)
    masks = _checked_masks(xs, lengths, mask, resets)
    masks = masks._replace(recurrent_mask=checked_recurrent_mask(cell, params, recurrent_mask, xs))
    operands = _checked_operands(cell, params, xs, carry0, reset_carry, masks, perturbation)
    if xs.shape[1] == 0:
        return _no_steps(cell, operands)
    rows = PerSequence(operands._replace(params={}), masks, *_of_each_sequence(intervention))
    return over_split(functools.partial(_run, cell, how, intervention), batch_split(xs), operands.params, rows)


def _run(cell: Cell, how: How, intervention: Intervention, params: Params, rows: PerSequence) -> Unrolled:
    """Unroll some sequences by the method chosen."""
    operands = rows.operands._replace(params=params)
    if how.method == "fast":
        return _in_blocks(cell, operands, rows.masks, how)
    clip = intervention.clip if rows.clips is None else rows.clips
    return _step_by_step(cell, operands, rows.masks, how, intervention._replace(detach=rows.detach, clip=clip))


def _of_each_sequence(intervention: Intervention) -> tuple[Bool[Array, "B T"] | None, Float[Array, " B"] | None]:
    """The mask of an intervention, and its limits where each sequence has one of its own; None without."""
    detach, clip = intervention.detach, intervention.clip
    clips = None if clip is None or not jnp.ndim(clip) else jnp.asarray(clip)
    return None if detach is None else jnp.asarray(detach), clips


def _checked_masks(xs: Array, lengths: Array | None, mask: Array | None, resets: Array | None) -> Masks:
    """The steps that count and those that reset, checked."""
    batch, time, _ = xs.shape
    return Masks(valid_steps(lengths, batch, time, mask), checked_mask("resets", resets, batch, time))


def _checked_operands(
    cell: Cell,
    params: Params,
    xs: Array,
    carry0: Carry | None,
    reset_carry: Carry | None,
    masks: Masks,
    perturbation: Perturbation,
) -> Operands:
    """What an unroll can be differentiated in, checked and in the types that it computes in."""
    batch, time, _ = xs.shape
    carry = start_carry(cell, params, carry0, xs)
    if perturbation is not None:
        check_perturbation(cell, perturbation, (batch, time, hidden_size(cell, params)))
        perturbation = jax.tree.map(lambda a: jnp.asarray(a).astype(carry_dtype(xs.dtype)), perturbation)
    fresh = reset_state(cell, params, reset_carry, masks.resets, xs)
    return vary_alike(Operands(params, xs, carry, perturbation, fresh), masks)


def _no_steps(cell: Cell, operands: Operands) -> Unrolled:
    """The result of no steps."""
    batch, _, _ = operands.xs.shape
    hs = zeros_beside(operands.xs, (batch, 0, hidden_size(cell, operands.params)), operands.xs.dtype)
    return Unrolled(hs, operands.carry0, zeros_beside(operands.xs, (batch, 0), jnp.bool_))


def _in_blocks(cell: Cell, operands: Operands, masks: Masks, how: How) -> Unrolled:
    """Unroll by the fast method."""
    batch, time, _ = operands.xs.shape
    units = choose_units(hidden_size(cell, operands.params), time)
    block_length, fused = choose_chunk(how.chunk, time, batch, units), choose_layout(how.layout, batch, units, time)
    kept = choose_keep(how.keep, time, batch, units, recurrent=bool(cell.recurrent_gates))
    settings = BlockedSettings(cell, units, how.reverse, block_length, fused, how.unroll, kept, current_precision())
    hs, carry, finite = fast_unroll(settings, operands, masks)
    return Unrolled(masked(hs, masks.valid).astype(operands.xs.dtype), carry, finite)


def _step_by_step(cell: Cell, operands: Operands, masks: Masks, how: How, intervention: Intervention) -> Unrolled:
    """Unroll by the reference method."""

    def observe(carry: Carry, gates: Gates, valid: Array | None) -> tuple[Array, Array]:
        del gates
        return masked(cell.hidden(carry), valid).astype(operands.xs.dtype), is_finite(carry)

    params, xs, carry, perturbation, reset_carry = operands
    steps = steps_of(xs, *masks, perturbation)
    carry, (hs, finite) = scan_steps(
        cell, params, steps, carry, observe,
        reset_carry=reset_carry, reverse=how.reverse, unroll=how.unroll, intervention=intervention,
    )  # fmt: skip
    return Unrolled(hs.swapaxes(0, 1), carry, finite.swapaxes(0, 1))


def _check_options(cell: Cell, method: Method, how: How, intervention: Intervention, xs: Array) -> None:
    """Raise `UsageError` where an option is out of range, or the method chosen does not know it."""
    check_choice("keep", how.keep, KEEPS)
    if how.method == "reference":
        check_intervention(intervention, xs)
        _refuse_blocks(cell, method, how)


def _refuse_blocks(cell: Cell, method: Method, how: How) -> None:
    """Raise `UsageError` where an option of the fast method alone is set."""
    reason = "the reference method" if method == "reference" else f"{cell} is not pointwise, or intervened in, and"
    kept = "auto" if how.keep == "states" else how.keep  # which it keeps
    for name, value, default in (("chunk", how.chunk, None), ("keep", kept, "auto"), ("layout", how.layout, "auto")):
        if value != default:
            raise UsageError(f"{name}={value!r}: {reason} goes step by step; allowed is {default!r}")
