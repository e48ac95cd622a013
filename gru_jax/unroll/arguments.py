"""The arguments of `unroll`, checked: one line says what came and what is allowed."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from gru_jax.cells import Carry, Cell, Params
from gru_jax.cells.base import carry_from_leaves, carry_leaves, check_carry, check_params, hidden_size
from gru_jax.dtypes import carry_dtype, in_machine_order
from gru_jax.errors import UsageError, at_least_one
from gru_jax.unroll.interventions import Intervention
from gru_jax.unroll.sharding import split_like


def check_inputs(cell: Cell, params: Params, xs: Array) -> None:
    """Raise `UsageError` unless `params` are of `cell` and `xs` is `[B, T, D]` of a fitting size and type."""
    if xs.ndim != 3:
        raise UsageError(f"xs has shape {xs.shape}: allowed is [B, T, D]")
    check_params(cell, params, xs, "xs")


def valid_steps(
    lengths: Int[Array, " B"] | None, batch: int, time: int, mask: Bool[Array, "B T"] | None = None
) -> Bool[Array, "B T"] | None:
    """Mark the steps that count, `[B, T]`: those before each sequence's end that a mask, if there is one, has too.

    None where all steps count.

    Raises:
        UsageError: lengths of the wrong shape or type or, where their values are known, outside 0..T; a mask of the
            wrong shape or type.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from gru_jax.unroll import valid_steps
        >>> valid_steps(jnp.array([3, 1]), batch=2, time=3).tolist()
        [[True, True, True], [True, False, False]]
    """
    mask = checked_mask("mask", mask, batch, time)
    if lengths is None:
        return mask
    lengths = in_machine_order(lengths)
    check_shape("lengths", lengths, (batch,))
    values = None if isinstance(lengths, Tracer) else np.asarray(lengths)  # None where they are not known yet
    dtype = jnp.result_type(lengths if values is None else values)
    if not jnp.issubdtype(dtype, jnp.integer):
        raise UsageError(f"lengths has dtype {dtype}: allowed are integer types")
    if batch and values is not None:
        low, high = values.min(), values.max()  # of NumPy: those of a jax array would be traced inside jit
        if low < 0 or high > time:
            raise UsageError(f"lengths range from {low} to {high}: allowed are 0 to T={time}")
    steps = jnp.arange(time)
    within = steps[None, :] < jnp.asarray(lengths).astype(steps.dtype)[:, None]
    return within if mask is None else within & mask


def checked_mask(name: str, mask: Array | None, batch: int, time: int) -> Bool[Array, "B T"] | None:
    """Check a mask of steps, and return it as an array.

    Raises:
        UsageError: a mask of the wrong shape or type.
    """
    if mask is None:
        return None
    check_shape(name, mask, (batch, time))
    mask = jnp.asarray(mask)
    if mask.dtype != jnp.bool_:
        raise UsageError(f"{name} has dtype {mask.dtype}: allowed is bool")
    return mask


def check_perturbation(cell: Cell, perturbation: Any, shape: tuple[int, ...]) -> None:
    """Raise `UsageError` unless a perturbation is an array of `shape`, or a tuple of one for each carry part."""
    if isinstance(perturbation, tuple) and len(perturbation) != cell.carry_parts:
        raise UsageError(f"perturbation has {len(perturbation)} parts: {cell} carries {cell.carry_parts}")
    for part in perturbation if isinstance(perturbation, tuple) else (perturbation,):
        check_shape("perturbation", part, shape)


def checked_recurrent_mask(cell: Cell, params: Params, mask: Any, xs: Array) -> Float[Array, "B T H"] | None:
    """Check what recurrent products read is multiplied by, and return it for every step in the type of a carry.

    Raises:
        UsageError: it is of the wrong shape or type.
    """
    if mask is None:
        return None
    shape = (*xs.shape[:2], hidden_size(cell, params))
    if np.shape(mask) != (shape[0], 1, shape[2]):
        check_shape("recurrent_mask", mask, shape)
    if not jnp.issubdtype(jnp.result_type(mask), jnp.floating):
        raise UsageError(f"recurrent_mask has dtype {jnp.result_type(mask)}: allowed are floating types")
    of_all_steps = jnp.broadcast_to(jax.lax.stop_gradient(jnp.asarray(mask).astype(carry_dtype(xs.dtype))), shape)
    return split_like(of_all_steps, xs)


def check_intervention(intervention: Intervention, xs: Array) -> None:
    """Raise `UsageError` where an intervention's settings are out of range or its mask does not fit."""
    clip, detach, truncate = intervention
    if clip is not None and np.shape(clip):
        check_shape("clip", clip, xs.shape[:1])
    if clip is not None and not isinstance(clip, Tracer) and not np.all(np.asarray(clip) > 0):
        raise UsageError(f"clip={clip}: allowed are numbers above 0")
    if truncate is not None and not isinstance(truncate, Tracer):
        at_least_one("truncate", truncate)
    if detach is not None:
        check_shape("detach", detach, xs.shape[:2])
        if jnp.asarray(detach).dtype != jnp.bool_:
            raise UsageError(f"detach has dtype {jnp.asarray(detach).dtype}: allowed is bool")


def check_shape(name: str, array: Any, shape: tuple[int, ...]) -> None:
    """Raise `UsageError` unless `array` has this shape."""
    if np.shape(array) != shape:
        raise UsageError(f"{name} has shape {np.shape(array)}: allowed is {shape}")


def start_carry(cell: Cell, params: Params, carry0: Carry | None, xs: Float[Array, "B T D"]) -> Carry:
    """The carry before the first step, checked, cast and split over devices as the inputs are: `carry0`, or zeros.

    Raises:
        UsageError: parts of the wrong number, shape or type.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import gru_jax
        >>> cell = gru_jax.cells.GRU()
        >>> params = cell.init(jax.random.key(0), 2, 3)
        >>> xs = jax.random.normal(jax.random.key(1), (4, 5, 2))
        >>> from gru_jax.unroll import start_carry
        >>> start_carry(cell, params, None, xs).shape
        (4, 3)
    """
    shape = (xs.shape[0], hidden_size(cell, params))
    if carry0 is None:
        zero = cell.initial_carry(shape[:1], shape[1], xs.dtype)
        return jax.tree.map(lambda part: split_like(part, xs), zero)
    return _checked_carry("carry0", cell, carry0, xs, shape)


def reset_state(
    cell: Cell, params: Params, reset_carry: Carry | None, resets: Array | None, xs: Float[Array, "B T D"]
) -> Carry | None:
    """The carry that a reset sets, checked, cast and of every sequence, `[B, H]` each part; None for zeros.

    Raises:
        UsageError: parts of the wrong number, shape or type, or no resets to use it at.
    """
    if reset_carry is None:
        return None
    if resets is None:
        raise UsageError("reset_carry: it is set where resets say; needed are resets")
    shape = (xs.shape[0], hidden_size(cell, params))
    return _checked_carry("reset_carry", cell, reset_carry, xs, shape, shape[1:])


def _checked_carry(name: str, cell: Cell, carry: Carry, xs: Array, *shapes: tuple[int, ...]) -> Carry:
    """A carry whose parts have one of these shapes, each as the first of them, in the type and split of a carry."""
    check_carry(name, cell, carry, *shapes)
    dtype = carry_dtype(xs.dtype)
    parts = [split_like(jnp.broadcast_to(part, shapes[0]).astype(dtype), xs) for part in carry_leaves(carry)]
    return carry_from_leaves(cell, parts)
