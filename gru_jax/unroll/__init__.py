"""How a cell runs over time."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from gru_jax.cells import Carry, Cell, Gates, Params
from gru_jax.dtypes import carry_dtype
from gru_jax.errors import UsageError, check_choice, listing
from gru_jax.unroll.reference import Steps, is_finite, scan_steps, where

METHODS = ("auto", "reference")
"""`"reference"` scans the cell's own step. `"auto"` picks the fastest method that supports every transformation."""


class Unrolled(NamedTuple):
    """The result of `unroll`.

    Attributes:
        hs: hidden states after each step, `[B, T, H]`, in the type of `xs`; zero in the padding.
        carry: the carry after the last valid step of each sequence (the first one with `reverse`).
        finite: whether the carry was finite after each step, `[B, T]`.
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
    resets: Bool[Array, "B T"] | None = None,
    reverse: bool = False,
    method: str = "auto",
    chunk: int | None = None,
    unroll: int = 1,
    perturbation: Float[Array, "B T H"] | None = None,
) -> Unrolled:
    """Run a cell over sequences.

    Args:
        cell: the cell.
        params: its parameters.
        xs: inputs, `[B, T, D]`; T may be 0. Their type is the type products run in.
        carry0: the state before the first step, each part `[B, H]`; zeros if None. Cast once to the carry type:
            float64 if `xs` is, else float32.
        lengths: true length of each sequence, between 0 and T. Outputs past the end are zero, the last carry is the
            one at the true length, and what stands in the padding has no influence, even if it is NaN. Inside `jit`
            the values cannot be checked: lengths beyond T act as T, negative ones as 0.
        resets: where True, the carry is set to zeros before that step, in the order of processing: with `reverse`,
            mark the last step of each packed sequence rather than the first.
        reverse: process from the last step to the first; outputs stay at their own time step.
        method: one of `METHODS`.
        chunk: steps that a chunked method handles at a time; no present method takes one.
        unroll: steps per iteration of the compiled loop, at least 1: longer compilation, fewer iterations.
        perturbation: added to the hidden state after every step. The gradient of a loss with respect to a zero
            perturbation is the adjoint dL/dh_t of every step, in one backward pass.

    Raises:
        UsageError: (a `ValueError`) an argument with the wrong rank, size, type or value.
    """
    xs = jnp.asarray(xs)
    batch, time = _check(cell, params, xs, method, chunk, unroll)
    hidden_size = params["b"][cell.input_gates[0]].shape[-1]
    dtype = carry_dtype(xs.dtype)
    carry = start_carry(cell, params, carry0, batch, xs.dtype)
    if perturbation is not None:
        _check_shape("perturbation", perturbation, (batch, time, hidden_size))
        perturbation = jnp.asarray(perturbation).astype(dtype).swapaxes(0, 1)
    steps = Steps(
        xs.swapaxes(0, 1),
        valid_steps(lengths, batch, time),
        _time_major_resets(resets, batch, time),
        perturbation,
    )

    def observe(carry: Carry, gates: Gates, valid: Array | None) -> tuple[Array, Array]:
        del gates
        h = cell.hidden(carry)
        h = h if valid is None else where(valid, h, jnp.zeros_like(h))
        return h.astype(xs.dtype), is_finite(carry)

    carry, (hs, finite) = scan_steps(cell, params, steps, carry, observe, reverse=reverse, unroll=unroll)
    return Unrolled(hs.swapaxes(0, 1), carry, finite.swapaxes(0, 1))


def valid_steps(lengths: Int[Array, " B"] | None, batch: int, time: int) -> Bool[Array, "T B"] | None:
    """Time-major mask of the steps before each sequence's end, or None where all are.

    Raises:
        UsageError: lengths of the wrong shape or type or, where their values are known, outside 0..T.
    """
    if lengths is None:
        return None
    _check_shape("lengths", lengths, (batch,))
    known = None if isinstance(lengths, Tracer) else np.asarray(lengths)
    dtype = jnp.result_type(lengths if known is None else known)
    if not jnp.issubdtype(dtype, jnp.integer):
        raise UsageError(f"lengths has dtype {dtype}: allowed are integer types")
    if batch and known is not None:
        low, high = known.min(), known.max()  # of NumPy: those of a jax array would be traced inside jit
        if low < 0 or high > time:
            raise UsageError(f"lengths range from {low} to {high}: allowed are 0 to T={time}")
    steps = jnp.arange(time)
    return steps[:, None] < jnp.asarray(lengths).astype(steps.dtype)[None, :]


def _time_major_resets(resets: Array | None, batch: int, time: int) -> Array | None:
    if resets is None:
        return None
    _check_shape("resets", resets, (batch, time))
    resets = jnp.asarray(resets)
    if resets.dtype != jnp.bool_:
        raise UsageError(f"resets has dtype {resets.dtype}: allowed is bool")
    return resets.swapaxes(0, 1)


def _check(cell: Cell, params: Params, xs: Array, method: str, chunk: int | None, unroll: int) -> tuple[int, int]:
    check_choice("method", method, METHODS)
    if chunk is not None:
        raise UsageError(f"chunk={chunk!r}: the reference method goes step by step; allowed is None")
    try:
        steps_per_iteration = operator.index(unroll)
    except TypeError:
        steps_per_iteration = 0
    if steps_per_iteration < 1:
        raise UsageError(f"unroll={unroll!r}: allowed are whole numbers from 1")
    gates = {"W": cell.input_gates, "b": cell.input_gates, "U": cell.recurrent_gates, "c": cell.recurrent_biases}
    wanted = {f"{group}/{gate}" for group, names in gates.items() for gate in names}
    present = {f"{group}/{gate}" for group, names in params.items() for gate in names}
    if wanted != present:
        came = f"lack {listing(sorted(wanted - present))}" if wanted - present else "are of another cell"
        raise UsageError(f"params {came}: {cell} has {listing(sorted(wanted))}")
    if xs.ndim != 3:
        raise UsageError(f"xs has shape {xs.shape}: allowed is [B, T, D]")
    kernel = next(iter(params["W"].values()))
    if xs.shape[-1] != kernel.shape[0]:
        raise UsageError(f"xs has {xs.shape[-1]} features: params were made for D={kernel.shape[0]}")
    return xs.shape[0], xs.shape[1]


def _check_shape(name: str, array: Any, shape: tuple[int, ...]) -> None:
    if np.shape(array) != shape:
        raise UsageError(f"{name} has shape {np.shape(array)}: allowed is {shape}")


def start_carry(cell: Cell, params: Params, carry0: Carry | None, batch: int, dtype: Any) -> Carry:
    """The carry before the first step, checked and cast: `carry0`, or zeros if None.

    Raises:
        UsageError: parts of the wrong number, shape or type.
    """
    hidden_size = params["b"][cell.input_gates[0]].shape[-1]
    zero = cell.initial_carry((batch,), hidden_size, dtype)
    if carry0 is None:
        return zero
    if jax.tree.structure(carry0) != jax.tree.structure(zero):
        raise UsageError(
            f"carry0 is a {jax.tree.structure(carry0)}: {type(cell).__name__} carries a {jax.tree.structure(zero)}"
        )
    carry0 = jax.tree.map(jnp.asarray, carry0)
    for part in jax.tree.leaves(carry0):
        _check_shape("carry0", part, (batch, hidden_size))
        if not jnp.issubdtype(part.dtype, jnp.floating):
            raise UsageError(f"carry0 has dtype {part.dtype}: allowed are floating types")
    return jax.tree.map(lambda part: part.astype(carry_dtype(dtype)), carry0)
