"""How slow a cell's state can be under constant input: minimising the speed |F(s) - s| from many states at once."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gru_jax.cells import Cell, Params
from gru_jax.cells.base import check_params, hidden_size
from gru_jax.dtypes import carry_dtype
from gru_jax.errors import UsageError, at_least_one
from gru_jax.flow.trajectory import to_carry, to_vector

SLOW = 1e-3
FIRST_DAMPING, LEAST_DAMPING, MOST_DAMPING = 1.0, 1e-12, 1e12
LESS, MORE = 0.1, 4.0  # factors of the damping after a step that was taken, and one that was not
NUMBERS_AT_ONCE = 2**22  # in the Jacobians of the starts that are minimised side by side


class Minimised(NamedTuple):
    """Where the minimisation of q ended, from each start.

    Attributes:
        states: `[N, S]`.
        speeds: |F(s) - s| there, `[N]`.
        slow_states: the first state on each way that was slow, `[N, S]`; the last one where none was.
        slow_speeds: |F(s) - s| there, `[N]`.
        iterations: steps that were tried, `[N]`.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import gru_jax
        >>> from gru_jax import flow
        >>> cell = gru_jax.cells.Elman()
        >>> params = cell.init(jax.random.key(0), 1, 2, gru_jax.Scheme(recurrent_scale=0.5))
        >>> ends = flow.minimise_speed(cell, params, jnp.zeros(1), jnp.ones((3, 2)))
        >>> ends.states.shape, bool((ends.speeds < 1e-6).all())
        ((3, 2), True)
    """

    states: Float[Array, "N S"]
    speeds: Float[Array, " N"]
    slow_states: Float[Array, "N S"]
    slow_speeds: Float[Array, " N"]
    iterations: Int[Array, " N"]


def minimise_speed(
    cell: Cell,
    params: Params,
    x: Float[Array, " D"],
    starts: Float[Array, "N S"],
    *,
    iterations: int = 200,
    slow: float = SLOW,
) -> Minimised:
    """Minimise q(s) = |F(s, x) - s|^2 / 2 from every start, by the method of Levenberg and Marquardt.

    With r = F(s) - s and J its Jacobian a step is -(J^T J + mu I)^-1 J^T r, taken where it lowers q. The damping mu is
    a multiple of |r|, with which convergence is quadratic, also where fixed points are no isolated ones: Fan and Yuan
    2005, Computing 74. A start ends where r is rounding error, where q has a minimum, or after so many iterations.

    Cost: as of `find_fixed_points`. Pure; compiled for each cell and number of starts.

    Raises:
        UsageError: arguments of the wrong size or type.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import gru_jax
        >>> from gru_jax import flow
        >>> cell = gru_jax.cells.Elman("identity")  # linear: one step, undamped
        >>> params = cell.init(jax.random.key(0), 1, 2, gru_jax.Scheme(recurrent_scale=0.5))
        >>> bool(flow.minimise_speed(cell, params, jnp.zeros(1), jnp.ones((3, 2))).iterations.max() < 20)
        True
    """
    at_least_one("iterations", iterations)
    check_params(cell, params, x, "x")
    size = cell.carry_parts * hidden_size(cell, params)
    if x.ndim != 1:
        raise UsageError(f"x has shape {x.shape}: allowed is one input, [D]")
    if starts.ndim != 2 or starts.shape[1] != size:
        raise UsageError(f"starts has shape {starts.shape}: allowed are state vectors, [N, {size}]")
    starts = jnp.asarray(starts, carry_dtype(x.dtype))
    return _minimise(cell, params, x, starts, slow, iterations=iterations)


@functools.partial(jax.jit, static_argnames=("cell", "iterations"))
def _minimise(
    cell: Cell, params: Params, x: Array, starts: Array, slow: float | Array, *, iterations: int
) -> Minimised:
    size = starts.shape[1]
    rounding = jnp.finfo(starts.dtype).eps
    eye = jnp.eye(size, dtype=starts.dtype)

    def residual(state: Array) -> Array:
        return next_state(cell, params, x, state) - state

    def norm(vector: Array) -> Array:
        return jnp.sqrt(jnp.square(vector).sum())

    def step(current: tuple[Array, ...]) -> tuple[Array, ...]:
        state, speed, slow_state, slow_speed, damping, tried, _ = current
        r, jacobian = residual(state), jax.jacfwd(residual)(state)
        gradient = jacobian.T @ r
        normal = jacobian.T @ jacobian + damping * speed * eye
        proposed = state - jax.scipy.linalg.solve(normal, gradient, assume_a="pos")
        proposed_speed = norm(residual(proposed))
        is_better = proposed_speed < speed  # not where it is NaN
        state = jnp.where(is_better, proposed, state)
        speed = jnp.where(is_better, proposed_speed, speed)
        damping = jnp.where(is_better, jnp.maximum(damping * LESS, LEAST_DAMPING), damping * MORE)
        # Of what is slow for the first time here the state is kept.
        follows = slow_speed > slow
        slow_state, slow_speed = jnp.where(follows, state, slow_state), jnp.where(follows, speed, slow_speed)
        is_minimum = norm(gradient) <= jnp.sqrt(rounding) * norm(r) * 1e-2
        is_done = (speed <= rounding * (1.0 + norm(state))) | (damping > MOST_DAMPING) | is_minimum
        return state, speed, slow_state, slow_speed, damping, tried + 1, is_done

    def of_one(start: Array) -> Minimised:
        speed = norm(residual(start))
        damping = jnp.asarray(FIRST_DAMPING, start.dtype)
        first = (start, speed, start, speed, damping, jnp.zeros((), jnp.int32), ~jnp.isfinite(speed))
        last = jax.lax.while_loop(lambda current: ~current[-1] & (current[-2] < iterations), step, first)
        state, speed, slow_state, slow_speed, _, tried, _ = last
        return Minimised(state, speed, slow_state, slow_speed, tried)

    at_once = max(1, min(len(starts), NUMBERS_AT_ONCE // size**2))
    return jax.lax.map(of_one, starts, batch_size=at_once)


def next_state(cell: Cell, params: Params, x: Array, state: Array) -> Array:
    """F: the state vector after one step."""
    return to_vector(cell.step_with_gates(params, to_carry(cell, state), x)[0])
