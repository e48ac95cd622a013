"""Which time steps the gradient of the parameters comes from.

The gradient of a loss L in the parameters theta of a gate is a sum over steps, g = sum_t g_t, where g_t is what the
use of theta in step t adds: with a_t = dL/ds_t the adjoint, and dv_t, du_t what the step makes of it at the gate's
recurrent and input product,

    g_t = (q_t dv_t^T, x_t du_t^T, dv_t, du_t)    in (U, W, c, b).

Werbos 1990, Proceedings of the IEEE 78(10); as a profile over time Pascanu et al. 2013, arXiv:1211.5063, eq. 4.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gru_jax.cells import Carry, Cell, Params
from gru_jax.errors import UsageError
from gru_jax.flow.trajectory import TrajectoryLike, carries_entering, prepare_trajectory, to_vector
from gru_jax.norms import power_of_two


class ParameterProfile(NamedTuple):
    """The norm of each step's part in a gate's gradient, and its share of the whole, for every gate.

    Attributes:
        norms: ||g_t|| for each sequence's own loss, `[B, T]`.
        shares: <g_t, g> / ||g|| of the batch's summed loss, `[T]`: how much of ||g|| step t contributes. The shares of
            all steps sum to ||g||; a negative one works against the others.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import gru_jax
        >>> cell = gru_jax.cells.GRU()
        >>> params = cell.init(jax.random.key(0), 2, 3)
        >>> xs = jax.random.normal(jax.random.key(1), (4, 5, 2))
        >>> from gru_jax import flow
        >>> adjoint = jnp.ones((4, 5, 3))  # dL/dh_t of some loss
        >>> profile = flow.parameter_profile(cell, params, xs, adjoint)
        >>> sorted(profile.shares), profile.norms["z"].shape
        (['n', 'r', 'z'], (4, 5))
    """

    norms: dict[str, Float[Array, "B T"]]
    shares: dict[str, Float[Array, " T"]]


def parameter_profile(cell: Cell, params: Params, along: TrajectoryLike, adjoint: Carry) -> ParameterProfile:
    """Measure how much of each gate's gradient comes from each step.

    Args:
        cell: the cell.
        params: its parameters.
        along: the trajectory.
        adjoint: dL/ds_t of each sequence's own loss, every part of the carry `[B, T, H]`: the gradient with respect to
            the argument `perturbation` of `gru_jax.unroll`.

    Cost: a pass, and about the products of a backward pass, for all steps at once.

    Raises:
        UsageError: an argument with the wrong size or type, or a cell whose products are not affine.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import gru_jax
        >>> cell = gru_jax.cells.GRU()
        >>> params = cell.init(jax.random.key(0), 2, 3)
        >>> xs = jax.random.normal(jax.random.key(1), (4, 5, 2))
        >>> from gru_jax import flow
        >>> adjoint = jnp.ones((4, 5, 3))  # dL/dh_t of some loss
        >>> flow.parameter_profile(cell, params, xs, adjoint).shares["n"].shape
        (5,)
    """
    if not cell.affine:
        raise UsageError(f"{cell}: the products of its parameters are not affine, so that there is no profile of them")
    trajectory = prepare_trajectory(cell, params, along)
    steps = trajectory.steps
    before = carries_entering(cell, params, trajectory)
    u, multiply = cell.input_products(params, steps.xs), cell.dense(params, steps.xs.dtype)

    def equations(dv: Sequence[Array], du: dict[str, Array]) -> tuple[Carry, list[tuple[str, Array]]]:
        queries: list[tuple[str, Array]] = []

        def dense(gate: str, q: Array) -> Array:
            queries.append((gate, q))
            return multiply(gate, q) + dv[len(queries) - 1]

        return cell.equations(dense, before, {gate: u[gate] + du[gate] for gate in u})[0], queries

    zero = jnp.zeros_like(cell.hidden(before))
    zeros = [zero] * _count_calls(cell, before, u), dict.fromkeys(u, zero)
    _, pull, queries = jax.vjp(equations, *zeros, has_aux=True)
    arriving = jax.tree.map(lambda a: a.swapaxes(0, 1), adjoint)
    scale = power_of_two(jnp.abs(to_vector(arriving)).max(axis=-1, initial=0.0))  # squares of small numbers are zero
    dv, du = pull(jax.tree.map(lambda a: a / scale[..., None], arriving))
    ones = jnp.ones((*zero.shape[:2], 1), zero.dtype)
    norms, shares = {}, {}
    for gate in sorted({*du, *cell.recurrent_gates}):
        reading = [(q, ct) for (name, q), ct in zip(queries, dv, strict=True) if name == gate]
        pairs = [
            reading,
            [(ones, ct) for _, ct in reading] if gate in cell.recurrent_biases else [],
            [(steps.xs.astype(zero.dtype), du[gate])] if gate in cell.input_gates else [],
            [(ones, du[gate])] if gate in du else [],
        ]
        norms[gate], shares[gate] = _profile([terms for terms in pairs if terms], scale)
    return ParameterProfile({gate: norm.swapaxes(0, 1) for gate, norm in norms.items()}, shares)


def _count_calls(cell: Cell, carry: Carry, u: Mapping[str, Array]) -> int:
    """How many recurrent products the equations of a cell ask for."""
    calls: list[str] = []

    def dense(gate: str, q: Array) -> Array:
        calls.append(gate)
        return q

    jax.eval_shape(lambda carry, u: cell.equations(dense, carry, u)[0], carry, u)
    return len(calls)


def _profile(
    groups: list[list[tuple[Array, Array]]], scale: Float[Array, "T B"]
) -> tuple[Float[Array, "T B"], Float[Array, " T"]]:
    """Norms and shares of sums of outer products scale a b^T, each group one parameter, factors `[T, B, ...]`."""
    return _norms(groups, scale), _shares(groups, scale)


def _norms(groups: list[list[tuple[Array, Array]]], scale: Float[Array, "T B"]) -> Float[Array, "T B"]:
    """The norms, by ||sum_i a_i b_i^T||^2 = sum_ij <a_i, a_j> <b_i, b_j> of factors near 1 in size."""
    scaled = [_near_one(terms, axes=(2,)) for terms in groups]
    largest = _largest([size for _, size in scaled])
    total = jnp.zeros_like(scale)
    for terms, size in scaled:
        weight = jnp.square(size / largest)[..., 0]
        for a, b in terms:
            for c, d in terms:
                total += weight * ((a * c).sum(axis=-1) * (b * d).sum(axis=-1))
    return scale * (largest[..., 0] * jnp.sqrt(jnp.maximum(total, 0.0)))


def _shares(groups: list[list[tuple[Array, Array]]], scale: Float[Array, "T B"]) -> Float[Array, " T"]:
    """The shares <g_t, g> / ||g||, where g_t and g are summed over the batch."""
    greatest = scale.max(initial=0.0)
    weight = (scale / jnp.where(greatest > 0, greatest, 1.0))[..., None]
    scaled = [_near_one([(a, b * weight) for a, b in terms], axes=(0, 1, 2)) for terms in groups]
    largest = _largest([size for _, size in scaled])
    share, total = jnp.zeros_like(scale[:, 0]), jnp.zeros((), scale.dtype)
    for terms, size in scaled:
        part = (size / largest)[0]
        outer = [jnp.einsum("tbi,tbj->ij", a, b) for a, b in terms]
        gradient = part * sum(outer[1:], outer[0])
        products = [jnp.einsum("tbj,tbj->t", a @ gradient, b) for a, b in terms]
        share += part[0] * sum(products[1:], products[0])
        total += jnp.square(gradient).sum()
    norm = jnp.sqrt(total)
    return greatest * (largest[0, 0, 0] * (share / jnp.where(norm > 0, norm, 1.0)))


def _near_one(
    terms: list[tuple[Array, Array]], axes: tuple[int, ...]
) -> tuple[list[tuple[Array, Array]], Float[Array, "T B 1"]]:
    """Pairs of factors divided by powers of two, one for all left ones and one for all right ones.

    Also the product of the two, or 0 where the pairs are.
    """
    left, right = (
        functools.reduce(
            jnp.maximum, [jnp.abs(pair[side]).max(axis=axes, initial=0.0, keepdims=True) for pair in terms]
        )
        for side in (0, 1)
    )
    size = jnp.where((left == 0) | (right == 0), 0.0, power_of_two(left) * power_of_two(right))
    return [(a / power_of_two(left), b / power_of_two(right)) for a, b in terms], size


def _largest(sizes: list[Float[Array, "T B 1"]]) -> Float[Array, "T B 1"]:
    """The greatest of the sizes; 1 where all are 0."""
    largest = functools.reduce(jnp.maximum, sizes)
    return jnp.where(largest == 0, 1.0, largest)
