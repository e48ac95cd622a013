"""Penalties on how gradients flow, to be minimised beside or before the loss."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gru_jax.cells import Carry, Cell, Params
from gru_jax.errors import UsageError, check_choice
from gru_jax.flow.jacobian import jacobians
from gru_jax.flow.lyapunov import lyapunov_spectrum
from gru_jax.flow.trajectory import (
    PreparedTrajectory,
    TrajectoryLike,
    carries_before,
    prepare_trajectory,
    to_vector,
    transition,
)
from gru_jax.norms import euclidean_norm, power_of_two
from gru_jax.unroll.blocked.structure import trace_structure

Slopes = Literal["constant", "differentiated"]
"""What the gradient of Pascanu's regulariser takes for the slopes in the Jacobians."""


def vanishing_penalty(
    cell: Cell, params: Params, along: TrajectoryLike, adjoint: Carry, *, slopes: Slopes = "constant"
) -> Float[Array, ""]:
    """Compute Pascanu's regulariser: the mean over steps of (||a_t^T J_t|| / ||a_t|| - 1)^2 with a_t = dL/ds_t.

    Small where the gradient neither shrinks nor grows in the direction in which it flows. As in the paper, states and
    adjoints are constants to its gradient. So are, as in the paper, the slopes of the activations, which are functions
    of the states: with J_t = diag(D_t) U^T its gradient is that of the kernel U as it stands there, and 0 in W and b,

        dOmega/dU = mean_t d/dU (||a_t^T diag(D_t) U^T|| / ||a_t|| - 1)^2    at constant a_t and D_t.

    With `slopes="differentiated"` they are functions of the parameters, D_t(W x_t + U h_{t-1} + b), at constant states
    h_{t-1}: a gradient in W and b too, and a cell of any kind. Steps to which no gradient comes, and resets, do not
    count. Pascanu et al. 2013, arXiv:1211.5063, eq. 9 and 10, as a mean rather than a sum over steps; of several gates
    the recurrent kernels take the place of U.

    Args:
        cell: the cell; for constant slopes, one that is pointwise between its products.
        params: its parameters, what the penalty is differentiated in.
        along: the trajectory.
        adjoint: dL/ds_t, every part of the carry `[B, T, H]`, of any loss.
        slopes: constant, as in the paper, or differentiated. The value is the same.

    Cost: a pass and one more step of backpropagation at every step, for all steps at once.

    Raises:
        UsageError: another choice, an argument of the wrong size or type, or constant slopes of a cell whose Jacobian
            has no recurrent kernel to tell apart from them.

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
    check_choice("slopes", slopes, get_args(Slopes))
    if slopes == "constant":
        check_constant_slopes(cell)
    trajectory = prepare_trajectory(cell, params, along)
    # A power of two at each step, so that neither what arrives nor what is sent back leaves the range of the type.
    scale = power_of_two(jnp.abs(to_vector(adjoint)).max(axis=-1, initial=0.0, keepdims=True))
    arriving = jax.lax.stop_gradient(jax.tree.map(lambda a: a / scale, adjoint))
    send_back = _constant_slopes if slopes == "constant" else _differentiated_slopes
    new, old = send_back(cell, params, along, trajectory, arriving), to_vector(arriving)
    norm = euclidean_norm(old)
    counts = norm != 0  # of NaN too, which must show
    for mask in (trajectory.steps.valid, None if trajectory.steps.resets is None else ~trajectory.steps.resets):
        counts = counts if mask is None else counts & mask.swapaxes(0, 1)
    ratio = euclidean_norm(new / jnp.where(counts, norm, 1.0)[..., None])
    penalties = jnp.where(counts, jnp.square(ratio - 1.0), 0.0)
    return penalties.sum() / jnp.maximum(counts.sum(), 1).astype(penalties.dtype)


def check_constant_slopes(cell: Cell) -> None:
    """Refuse cells to whose Jacobians eq. 10 of Pascanu et al. 2013 does not apply.

    Raises:
        UsageError: the cell is not pointwise between its products, or has no recurrent kernels.
    """
    allowed = "allowed is slopes='differentiated'"
    try:
        structure = trace_structure(cell)
    except UsageError as error:
        raise UsageError(
            f"slopes='constant': {cell} is not pointwise between its products, so that its slopes are not apart from "
            f"its kernels; {allowed}"
        ) from error
    if not structure.calls:
        raise UsageError(
            f"slopes='constant': {cell} has no recurrent kernels, so that the penalty's gradient is 0; {allowed}"
        )


def _constant_slopes(
    cell: Cell, params: Params, along: TrajectoryLike, trajectory: PreparedTrajectory, arriving: Carry
) -> Float[Array, "B T S"]:
    """a_t^T J_t at every step, as a function of the recurrent kernels alone."""
    del trajectory
    fixed = jacobians(cell, *jax.lax.stop_gradient((params, along)))
    return dataclasses.replace(fixed, kernels=params["U"]).transpose(to_vector(arriving))


def _differentiated_slopes(
    cell: Cell, params: Params, along: TrajectoryLike, trajectory: PreparedTrajectory, arriving: Carry
) -> Float[Array, "B T S"]:
    """a_t^T J_t at every step, as a function of all parameters at constant states."""
    del along
    steps, before = jax.lax.stop_gradient((trajectory.steps, carries_before(cell, params, trajectory)))
    # A step at a time under vmap: the padding of one is not that of another.
    send_back = jax.vmap(lambda step, before, ct: jax.vjp(transition(cell, params, step), before)[1](ct)[0])
    time_major = jax.tree.map(lambda a: a.swapaxes(0, 1), arriving)
    return to_vector(send_back(steps, before, time_major)).swapaxes(0, 1)


def flossing_penalty(cell: Cell, params: Params, along: TrajectoryLike, *, k: int, **kwargs: Any) -> Float[Array, ""]:
    """Compute the penalty of gradient flossing: the sum of the squares of the k largest Lyapunov exponents.

    A mean over the batch. Driven to zero, k directions neither shrink nor grow along the trajectories. Differentiated
    through the QR decompositions and the trajectory. Engelken 2023, arXiv:2312.17306. The author's code
    (RainerEngelken/GradientFlossing) takes the mean over the k exponents where this is their sum, k times as much, and
    leaves 10 steps and a tenth of all steps out at the beginning; here none are left out unless `warmup` says so.

    Args:
        cell: the cell.
        params: its parameters, what the penalty is differentiated in.
        along: the trajectories; a few hundred steps are usual.
        k: exponents that are driven to zero.
        kwargs: of `lyapunov_spectrum`, such as `warmup`, steps that are left out at the beginning.

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
