"""What the gates of a cell do along a trajectory."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gru_jax.cells import Carry, Cell, Gates, Params
from gru_jax.unroll import start_carry, valid_steps
from gru_jax.unroll.reference import Steps, scan_steps

CANDIDATE = "n"  # the one gate name that is no gate: the candidate state


def gate_values(
    cell: Cell,
    params: Params,
    xs: Float[Array, "B T D"],
    carry0: Carry | None = None,
    *,
    lengths: Int[Array, " B"] | None = None,
    reverse: bool = False,
) -> Gates:
    """Every gate's value at every step, by name, `[B, T, H]`; meaningless in the padding."""
    batch, time = xs.shape[:2]
    carry0 = start_carry(cell, params, carry0, batch, xs.dtype)
    steps = jax.tree.map(lambda a: a.swapaxes(0, 1), Steps(xs, valid_steps(lengths, batch, time)))
    _, gates = scan_steps(cell, params, steps, carry0, lambda carry, gates, valid: gates, reverse=reverse)
    return {name: value.swapaxes(0, 1) for name, value in gates.items()}


def gate_histograms(
    gates: Gates, valid: Bool[Array, "B T"] | None = None, bins: int = 50
) -> dict[str, Float[Array, " bins"]]:
    """Fraction of (sequence, step, unit) in each of `bins` equal bins of [0, 1], for every sigmoid gate."""
    histograms = {}
    for name, value in gates.items():
        if name == CANDIDATE:
            continue
        index = jnp.clip((value * bins).astype(jnp.int32), 0, bins - 1)
        if valid is not None:
            index = jnp.where(valid[..., None], index, bins)  # behind the last bin
        counts = jnp.bincount(index.ravel(), length=bins + 1)[:bins]
        histograms[name] = counts.astype(value.dtype) / jnp.maximum(counts.sum(), 1).astype(value.dtype)
    return histograms
