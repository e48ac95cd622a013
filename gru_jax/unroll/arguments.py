"""The arguments of `unroll`, checked: one line says what came and what is allowed."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Int

from gru_jax.cells import Carry, Cell, Params
from gru_jax.cells.base import check_dtypes
from gru_jax.dtypes import carry_dtype
from gru_jax.errors import UsageError, listing
from gru_jax.unroll.interventions import Intervention
from gru_jax.unroll.options import at_least_one


def check_inputs(cell: Cell, params: Params, xs: Array) -> None:
    """Raise `UsageError` unless `params` are of `cell` and `xs` is `[B, T, D]` of a fitting size and type."""
    expected = {f"{group}/{gate}" for group, names in cell.groups.items() for gate in names}
    present = {f"{group}/{gate}" for group, names in params.items() for gate in names}
    if expected != present:
        mismatch = f"lack {listing(sorted(expected - present))}" if expected - present else "are of another cell"
        raise UsageError(f"params {mismatch}: {cell} has {listing(sorted(expected))}")
    if xs.ndim != 3:
        raise UsageError(f"xs has shape {xs.shape}: allowed is [B, T, D]")
    kernel = next(iter(params["W"].values()))
    if xs.shape[-1] != kernel.shape[0]:
        raise UsageError(f"xs has {xs.shape[-1]} features: params were made for D={kernel.shape[0]}")
    check_dtypes(params, xs)


def hidden_size(cell: Cell, params: Params) -> int:
    """The number of hidden units that a cell's parameters are made for."""
    return params["b"][cell.input_gates[0]].shape[-1]


def valid_steps(lengths: Int[Array, " B"] | None, batch: int, time: int) -> Bool[Array, "B T"] | None:
    """Mark the steps before each sequence's end in a mask `[B, T]`, or None where all steps are.

    Raises:
        UsageError: lengths of the wrong shape or type or, where their values are known, outside 0..T.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from gru_jax.unroll import valid_steps
        >>> valid_steps(jnp.array([3, 1]), batch=2, time=3).tolist()
        [[True, True, True], [True, False, False]]
    """
    if lengths is None:
        return None
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
    return steps[None, :] < jnp.asarray(lengths).astype(steps.dtype)[:, None]


def checked_resets(resets: Array | None, batch: int, time: int) -> Array | None:
    """Check a mask of resets, `[B, T]`, and return it as an array.

    Raises:
        UsageError: resets of the wrong shape or type.
    """
    if resets is None:
        return None
    check_shape("resets", resets, (batch, time))
    resets = jnp.asarray(resets)
    if resets.dtype != jnp.bool_:
        raise UsageError(f"resets has dtype {resets.dtype}: allowed is bool")
    return resets


def check_perturbation(cell: Cell, perturbation: Any, shape: tuple[int, ...]) -> None:
    """Raise `UsageError` unless a perturbation is an array of `shape`, or a tuple of one for each carry part."""
    if isinstance(perturbation, tuple) and len(perturbation) != cell.carry_parts:
        raise UsageError(f"perturbation has {len(perturbation)} parts: {cell} carries {cell.carry_parts}")
    for part in perturbation if isinstance(perturbation, tuple) else (perturbation,):
        check_shape("perturbation", part, shape)


def check_intervention(intervention: Intervention, xs: Array) -> None:
    """Raise `UsageError` where an intervention's settings are out of range or its mask does not fit."""
    clip, detach, truncate = intervention
    if clip is not None and not isinstance(clip, Tracer) and not float(clip) > 0:
        raise UsageError(f"clip={clip}: allowed are numbers above 0")
    if truncate is not None and not isinstance(truncate, Tracer):
        at_least_one("truncate", truncate)
    if detach is not None:
        check_shape("detach", detach, xs.shape[:2])
        if detach.dtype != jnp.bool_:
            raise UsageError(f"detach has dtype {detach.dtype}: allowed is bool")


def check_shape(name: str, array: Any, shape: tuple[int, ...]) -> None:
    """Raise `UsageError` unless `array` has this shape."""
    if np.shape(array) != shape:
        raise UsageError(f"{name} has shape {np.shape(array)}: allowed is {shape}")


def start_carry(cell: Cell, params: Params, carry0: Carry | None, batch: int, dtype: DTypeLike) -> Carry:
    """The carry before the first step, checked and cast: `carry0`, or zeros if None.

    Raises:
        UsageError: parts of the wrong number, shape or type.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import gru_jax
        >>> cell = gru_jax.cells.GRU()
        >>> params = cell.init(jax.random.key(0), 2, 3)
        >>> xs = jax.random.normal(jax.random.key(1), (4, 5, 2))
        >>> from gru_jax.unroll import start_carry
        >>> start_carry(cell, params, None, 4, jnp.float32).shape
        (4, 3)
    """
    zero = cell.initial_carry((batch,), hidden_size(cell, params), dtype)
    if carry0 is None:
        return zero
    if jax.tree.structure(carry0) != jax.tree.structure(zero):
        raise UsageError(
            f"carry0 is a {jax.tree.structure(carry0)}: {type(cell).__name__} carries a {jax.tree.structure(zero)}"
        )
    carry0 = jax.tree.map(jnp.asarray, carry0)
    for part in jax.tree.leaves(carry0):
        check_shape("carry0", part, (batch, hidden_size(cell, params)))
        if not jnp.issubdtype(part.dtype, jnp.floating):
            raise UsageError(f"carry0 has dtype {part.dtype}: allowed are floating types")
    return jax.tree.map(lambda part: part.astype(carry_dtype(dtype)), carry0)
