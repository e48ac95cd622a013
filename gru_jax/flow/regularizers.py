"""Penalties on how gradients flow, to be minimised beside or before the loss."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gru_jax.cells import Carry, Cell, Params
from gru_jax.flow.adjoint import adjoint_norms
from gru_jax.flow.lyapunov import lyapunov_spectrum
from gru_jax.flow.trajectory import TrajectoryLike, carries_before, prepare_trajectory, to_vector, transition


def vanishing_penalty(cell: Cell, params: Params, along: TrajectoryLike, adjoint: Carry) -> Float[Array, ""]:
    """Compute Pascanu's regulariser: the mean over steps of (||a_t^T J_t|| / ||a_t|| - 1)^2 with a_t = dL/ds_t.

    Small where the gradient neither shrinks nor grows in the direction in which it flows. As in the paper its own
    gradient goes through the parameters of J_t alone: states and adjoints are constants. Steps to which no gradient
    comes, and resets, do not count. Pascanu et al. 2013, arXiv:1211.5063, eq. 9 and 10, as a mean
    rather than a sum over steps.

    Args:
        cell: the cell.
        params: its parameters, what the penalty is differentiated in.
        along: the trajectory.
        adjoint: dL/ds_t, every part of the carry `[B, T, H]`, of any loss.

    Cost: a pass and one more step of backpropagation at every step, for all steps at once.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import gru_jax
        >>> from gru_jax import flow
        >>> cell = gru_jax.cells.Elman(activation="identity")
        >>> params = cell.init(jax.random.key(0), 2, 3)  # orthogonal: the gradient keeps its length
        >>> adjoint = jnp.ones((4, 5, 3))
        >>> bool(flow.vanishing_penalty(cell, params, jnp.zeros((4, 5, 2)), adjoint) < 1e-6)
        True
    """
    trajectory = prepare_trajectory(cell, params, along)
    arriving = jax.tree.map(lambda a: a.swapaxes(0, 1), adjoint)
    steps, before, arriving = jax.lax.stop_gradient(
        (trajectory.steps, carries_before(cell, params, trajectory), arriving)
    )
    # A step at a time under vmap: the padding of one is not that of another.
    send_back = jax.vmap(lambda step, before, ct: jax.vjp(transition(cell, params, step), before)[1](ct)[0])
    old, new = (to_vector(a) for a in (arriving, send_back(steps, before, arriving)))
    norm = adjoint_norms(old)
    counts = norm != 0  # of NaN too, which must show
    for mask in (steps.valid, None if steps.resets is None else ~steps.resets):
        counts = counts if mask is None else counts & mask
    # The square root has no derivative at 0, where a dead step sends nothing on.
    squared_ratio = jnp.square(new / jnp.where(counts, norm, 1.0)[..., None]).sum(axis=-1)
    ratio = jnp.where(squared_ratio == 0, 0.0, jnp.sqrt(jnp.where(squared_ratio == 0, 1.0, squared_ratio)))
    penalties = jnp.where(counts, jnp.square(ratio - 1.0), 0.0)
    return penalties.sum() / jnp.maximum(counts.sum(), 1).astype(penalties.dtype)


def flossing_penalty(cell: Cell, params: Params, along: TrajectoryLike, *, k: int, **kwargs: Any) -> Float[Array, ""]:
    """Compute the penalty of gradient flossing: the sum of the squares of the k largest Lyapunov exponents.

    A mean over the batch. Driven to zero, k directions neither shrink nor grow along the trajectories. Differentiated
    through the QR decompositions and the trajectory. Engelken 2023, arXiv:2312.17306.

    Args:
        cell: the cell.
        params: its parameters, what the penalty is differentiated in.
        along: the trajectories; a few hundred steps are usual.
        k: exponents that are driven to zero.
        kwargs: of `lyapunov_spectrum`.

    Cost: of `lyapunov_spectrum`, and the memory and time of differentiating through it.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import gru_jax
        >>> from gru_jax import flow
        >>> cell = gru_jax.cells.Elman(activation="identity")
        >>> params = cell.init(jax.random.key(0), 2, 3)  # orthogonal: nothing shrinks or grows
        >>> bool(flow.flossing_penalty(cell, params, jnp.zeros((4, 5, 2)), k=3) < 1e-6)
        True
    """
    spectrum = lyapunov_spectrum(cell, params, along, k=k, **kwargs)
    has_steps = spectrum.steps.sum(axis=1) > 0  # sequences of no steps have no exponents
    squares = jnp.square(jnp.where(has_steps[:, None], spectrum.exponents, 0.0)).sum(axis=-1)
    return squares.sum() / jnp.maximum(has_steps.sum(), 1).astype(squares.dtype)
