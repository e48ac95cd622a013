"""What the gates of a cell do along a trajectory."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gru_jax.cells import Carry, Cell, Gates, Params
from gru_jax.flow.trajectory import TrajectoryLike, prepare_trajectory
from gru_jax.unroll.reference import scan_steps

CANDIDATE = "n"  # the one gate name that is no gate: the candidate state


def gate_values(cell: Cell, params: Params, along: TrajectoryLike) -> Gates:
    """Every gate's value at every step of a trajectory, by name, `[B, T, H]`; meaningless in the padding.

    Cost: a pass by the reference unroll.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import gru_jax
        >>> cell = gru_jax.cells.GRU()
        >>> params = cell.init(jax.random.key(0), 2, 3)
        >>> xs = jax.random.normal(jax.random.key(1), (4, 5, 2))
        >>> from gru_jax import flow
        >>> {name: value.shape for name, value in flow.gate_values(cell, params, xs).items()}
        {'n': (4, 5, 3), 'r': (4, 5, 3), 'z': (4, 5, 3)}
    """
    steps, carry0, reset_carry, reverse = prepare_trajectory(cell, params, along)

    def observe(carry: Carry, gates: Gates, valid: Bool[Array, " B"] | None) -> Gates:
        del carry, valid
        return gates

    _, gates = scan_steps(cell, params, steps, carry0, observe, reset_carry=reset_carry, reverse=reverse)
    return {name: value.swapaxes(0, 1) for name, value in gates.items()}


def gate_histograms(
    gates: Gates, valid: Bool[Array, "B T"] | None = None, bins: int = 50
) -> dict[str, Float[Array, " bins"]]:
    """Fraction of (sequence, step, unit) in each of `bins` equal bins of [0, 1], for every sigmoid gate.

    As in Gu et al. 2020, arXiv:1910.09890. Cost: one count over `B T H` values a gate.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from gru_jax import flow
        >>> histogram = flow.gate_histograms({"z": jnp.full((4, 5, 3), 0.99)}, bins=10)
        >>> [round(fraction) for fraction in histogram["z"].tolist()]
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    """
    histograms = {}
    for name, value in gates.items():
        if name == CANDIDATE:
            continue
        counted = ~jnp.isnan(value) if valid is None else valid[..., None] & ~jnp.isnan(value)
        index = jnp.clip((value * bins).astype(jnp.int32), 0, bins - 1)
        index = jnp.where(counted, index, bins)  # behind the last bin
        counts = jnp.bincount(index.ravel(), length=bins + 1)[:bins]
        histograms[name] = counts.astype(value.dtype) / jnp.maximum(counts.sum(), 1).astype(value.dtype)
    return histograms


def saturation(
    gates: Gates, valid: Bool[Array, "B T"] | None = None, edge: float = 0.05
) -> dict[str, Float[Array, "2"]]:
    """Fractions of (sequence, step, unit) at which a gate is below `edge` and above `1 - edge`.

    The candidate, which lies between -1 and 1, is brought to [0, 1] first: below is near -1. A saturated gate passes
    no gradient to what drives it. As the diagrams of Karpathy et al. 2015, arXiv:1506.02078, section 4.2. Cost: two
    means over `B T H` values a gate.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from gru_jax import flow
        >>> fractions = flow.saturation({"z": jnp.full((4, 5, 3), 0.99)})
        >>> [round(fraction, 3) for fraction in fractions["z"].tolist()]
        [0.0, 1.0]
    """
    fractions = {}
    for name, value in gates.items():
        from_0_to_1 = 0.5 * (value + 1.0) if name == CANDIDATE else value
        ends = jnp.stack([from_0_to_1 < edge, from_0_to_1 > 1.0 - edge]).astype(value.dtype)
        fractions[name] = _mean(ends, valid, axis=(1, 2, 3))
    return fractions


def time_scales(cell: Cell, gates: Gates, valid: Bool[Array, "B T"] | None = None) -> Float[Array, " H"] | None:
    """Each unit's time scale in steps, -1 / <ln z>: in this time its gate alone lets its content decay to 1/e.

    z is the fraction that the cell's memory gate keeps, whatever its convention: z of a GRU with `update="keep"`, 1 - z
    with `update="write"`, f of an LSTM, the refined gate of a `RefineGRU`; <> is the mean over batch and time, since
    what is left after n steps is the product of n values. inf for a gate that never moves from 1. None for a cell
    without such a gate. Tallec and Ollivier 2018, arXiv:1804.11188. Cost: a logarithm of `B T H` values.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import gru_jax
        >>> from gru_jax import flow
        >>> gates = {"z": jnp.full((4, 5, 3), jnp.exp(-0.1))}
        >>> [round(steps, 3) for steps in flow.time_scales(gru_jax.cells.GRU(), gates).tolist()]
        [10.0, 10.0, 10.0]
    """
    if cell.memory is None:
        return None
    memory = cell.memory
    gate = gates[memory.kept or memory.gate]
    kept = gate if memory.kept or memory.sign > 0 else 1.0 - gate
    return 1.0 / jnp.abs(_mean(jnp.log(kept), valid, axis=(0, 1)))


def _mean(values: Array, valid: Bool[Array, "B T"] | None, axis: tuple[int, ...]) -> Array:
    """The mean over `axis` of the valid entries of `[..., B, T, H]`."""
    if valid is None:
        return values.mean(axis=axis)
    where = jnp.broadcast_to(valid[..., None], values.shape)
    return jnp.where(where, values, 0.0).sum(axis=axis) / where.sum(axis=axis).astype(values.dtype)
