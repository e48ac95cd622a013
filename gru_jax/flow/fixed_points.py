"""Where a cell's state stands still under constant input, or nearly: its fixed and slow points, and what is around.

With F the step of a cell under a constant input x, q(s) = |F(s, x) - s|^2 / 2 is zero at fixed points, and small at
slow points, by which a network may hold what it knows just as well. Both are found by minimising q from many states
that the network visits, and the eigenvalues of F's Jacobian there say what a small change does. Sussillo and Barak
2013, Neural Computation 25(3).
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Int, PRNGKeyArray

from gru_jax.cells import Cell, Params
from gru_jax.dtypes import carry_dtype
from gru_jax.errors import at_least_one
from gru_jax.flow.speed import SLOW, minimise_speed, next_state
from gru_jax.flow.trajectory import TrajectoryLike, carries_before, prepare_trajectory, to_vector

TOLERANCES = {jnp.dtype("float64"): 1e-12, jnp.dtype("float32"): 1e-5}
"""Speeds up to which a state stands still, by the type that it is computed in."""
KICK = 1e-3  # how far from a saddle its two ways out begin
GROWTH, DECAY, MOST_STEPS = 30.0, 10.0, 100_000  # of a change beside saddles and stable points, in nats
STABLE, SADDLE, SLOW_POINT = "stable", "saddle", "slow"


class FixedPoints(NamedTuple):
    """Distinct fixed and slow points of a cell under constant input, each kind by speed, fixed points first.

    Attributes:
        states: the points as state vectors, `[N, S]`; see `to_carry`.
        speeds: |F(s) - s|, `[N]`.
        is_fixed: whether the state stands still there, `[N]`; the others are slow points.
        counts: how many starts ended there, `[N]`.
        jacobians: dF/ds there, `[N, S, S]`.
        eigenvalues: of these, the largest modulus first, `[N, S]`.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import gru_jax
        >>> from gru_jax import flow
        >>> cell = gru_jax.cells.Elman()
        >>> params = cell.init(jax.random.key(0), 1, 2, gru_jax.Scheme(recurrent_scale=0.5))  # times an orthogonal one
        >>> points = flow.find_fixed_points(cell, params, jnp.zeros(1), jnp.ones((3, 2)))
        >>> points.kinds, points.counts.tolist(), abs(points.eigenvalues).round(3).tolist()
        (('stable',), [3], [[0.5, 0.5]])
    """

    states: Float[np.ndarray, "N S"]
    speeds: Float[np.ndarray, " N"]
    is_fixed: Bool[np.ndarray, " N"]
    counts: Int[np.ndarray, " N"]
    jacobians: Float[np.ndarray, "N S S"]
    eigenvalues: Complex[np.ndarray, "N S"]

    @property
    def unstable(self) -> Int[np.ndarray, " N"]:
        """In how many directions a small change grows."""
        return (np.abs(self.eigenvalues) > 1.0).sum(axis=1)

    @property
    def kinds(self) -> tuple[str, ...]:
        """What each point is: stable or saddle, of fixed points, where a saddle has a direction of growth; or slow."""
        return tuple(
            (SADDLE if grows else STABLE) if fixed else SLOW_POINT
            for fixed, grows in zip(self.is_fixed, self.unstable > 0, strict=True)
        )

    @property
    def time_constants(self) -> Float[np.ndarray, "N S"]:
        """Steps in which a small change grows or decays by a factor of e, 1 / |ln |lambda||; inf where it stays."""
        with np.errstate(divide="ignore"):
            return 1.0 / np.abs(np.log(np.abs(self.eigenvalues)))

    def of_kind(self, kind: str) -> FixedPoints:
        """The points of one kind alone."""
        kept = np.array([k == kind for k in self.kinds], bool)
        return FixedPoints(*(array[kept] for array in self))


def find_fixed_points(
    cell: Cell,
    params: Params,
    x: Float[Array, " D"],
    starts: Float[Array, "N S"],
    *,
    iterations: int = 200,
    tolerance: float | None = None,
    slow: float = SLOW,
    distance: float = 1e-3,
    resolution: float = 0.2,
    farthest: float | None = None,
) -> FixedPoints:
    """Find the fixed and slow points of a cell under a constant input, from many states at once.

    A slow point is a state with |F(s) - s| up to `slow` that has no fixed point within `resolution`. They are taken
    from the ways of the minimisation, where it first was so slow, so that a line of slow points stays one even where
    the minimisation would go on along it.

    Args:
        cell: the cell, any.
        params: its parameters; in float64 (under x64) points are exact to 1e-12.
        x: the constant input.
        starts: state vectors to begin from, as `sample_states` gives them.
        iterations: steps of the minimisation at most; see `minimise_speed`.
        tolerance: speed up to which a state stands still; None for 1e-12 in float64, 1e-5 in float32.
        slow: speed up to which a state is slow; 0 for fixed points alone.
        distance: fixed points nearer than this are one.
        resolution: slow points nearer than this are one.
        farthest: points farther than this from every start are left out; None for none. Of gates that are closed a
            minimum may lie at states that no input leads to.

    Cost: for each iteration and start S tangents of a step and the solution of S linear equations; eigenvalues of the
    points that are found, on the host.

    Raises:
        UsageError: arguments of the wrong size or type.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import gru_jax
        >>> from gru_jax import flow
        >>> cell = gru_jax.cells.GRU()
        >>> params = cell.init(jax.random.key(0), 2, 8)  # without biases zero is a fixed point under zero input
        >>> starts = flow.sample_states(cell, params, jnp.ones((4, 20, 2)), 16)
        >>> points = flow.find_fixed_points(cell, params, jnp.zeros(2), starts)
        >>> points.kinds, bool(abs(points.states).max() < 1e-4)
        (('stable',), True)
    """
    if tolerance is None:
        tolerance = TOLERANCES[jnp.dtype(carry_dtype(x.dtype))]
    ends = jax.device_get(minimise_speed(cell, params, x, starts, iterations=iterations, slow=slow))
    arrived = (ends.speeds <= tolerance) & _are_near(ends.states, starts, farthest)
    fixed = distinct_points(ends.states[arrived], ends.speeds[arrived], distance)
    nearest = distances(ends.slow_states, fixed[0]).min(axis=1, initial=np.inf)
    is_slow = (ends.slow_speeds <= slow) & (nearest > resolution) & _are_near(ends.slow_states, starts, farthest)
    slow_points = distinct_points(ends.slow_states[is_slow], ends.slow_speeds[is_slow], resolution)
    return _described(cell, params, x, fixed, slow_points)


def sample_states(
    cell: Cell,
    params: Params,
    along: TrajectoryLike,
    count: int,
    *,
    noise: float = 0.0,
    key: PRNGKeyArray | None = None,
) -> Float[Array, "N S"]:
    """Draw states that trajectories pass through, as starts for `find_fixed_points`.

    Args:
        cell: the cell.
        params: its parameters.
        along: the trajectories; steps that do not count are not drawn.
        count: how many.
        noise: Gaussian noise to add, in standard deviations of each unit, whose range it does not leave. Saddles lie
            where trajectories do not stay, and are found from states beside them.
        key: draws; a fixed key if None.

    Cost: a pass by the reference unroll.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import gru_jax
        >>> from gru_jax import flow
        >>> cell = gru_jax.cells.LSTM()
        >>> params = cell.init(jax.random.key(0), 2, 3)
        >>> flow.sample_states(cell, params, jnp.ones((4, 5, 2)), 10).shape  # h and c side by side
        (10, 6)
    """
    at_least_one("count", count)
    trajectory = prepare_trajectory(cell, params, along)
    visited = to_vector(carries_before(cell, params, trajectory))
    valid = trajectory.steps.valid
    states = visited.reshape(-1, visited.shape[-1])
    counts = jnp.ones(len(states), bool) if valid is None else valid.reshape(-1)
    which_key, noise_key = jax.random.split(jax.random.key(0) if key is None else key)
    weights = counts.astype(states.dtype)
    index = jax.random.choice(which_key, len(states), (count,), p=weights / weights.sum())
    counted = jnp.where(counts[:, None], states, states[index[:1]])
    drawn = jax.random.normal(noise_key, (count, states.shape[1]), states.dtype)
    deviation = states.std(axis=0, keepdims=True, where=counts[:, None])
    moved = states[index] + noise * deviation * drawn
    return jnp.clip(moved, counted.min(axis=0, keepdims=True), counted.max(axis=0, keepdims=True))


def saddle_ends(
    cell: Cell, params: Params, x: Float[Array, " D"], points: FixedPoints, *, steps: int | None = None
) -> dict[int, tuple[int, int]]:
    """Say between which stable points each saddle of one direction of growth lies.

    A state is set a little beside the saddle, to either side of that direction, and followed under the constant input.

    Args:
        cell, params, x: as of `find_fixed_points`.
        points: what that found.
        steps: how long states are followed; None for as long as the slowest change beside a saddle takes to grow e^30
            times, and that beside a stable point to decay e^10 times, at most 100,000.

    Returns:
        By the number of each such saddle in `points`, the numbers of the stable points that both ways end in, -1 where
        that is none of them.

    Cost: `steps` steps of two states for each saddle.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import gru_jax
        >>> from gru_jax import flow
        >>> cell = gru_jax.cells.Elman()
        >>> params = cell.init(jax.random.key(0), 1, 1)
        >>> params["U"]["n"] = jnp.full((1, 1), 2.0)  # h' = tanh(2 h) has three
        >>> points = flow.find_fixed_points(cell, params, jnp.zeros(1), jnp.linspace(-1.0, 1.0, 9)[:, None])
        >>> {points.kinds[a]: (points.kinds[b], points.kinds[c])
        ...  for a, (b, c) in flow.saddle_ends(cell, params, jnp.zeros(1), points).items()}
        {'saddle': ('stable', 'stable')}
    """
    saddles = np.flatnonzero(points.is_fixed & (points.unstable == 1))
    if not len(saddles):
        return {}
    values, vectors = np.linalg.eig(points.jacobians[saddles].astype(np.float64))
    grows = np.abs(values).argmax(axis=1)
    ways = np.real(np.take_along_axis(vectors, grows[:, None, None], axis=2)[..., 0])  # alone outside the circle: real
    beside = points.states[saddles][:, None] + KICK * ways[:, None] * np.array([1.0, -1.0])[:, None]
    if steps is None:
        slowest = points.of_kind(STABLE).time_constants.max(initial=0.0)
        steps = int(min(GROWTH / np.log(np.abs(values).max(axis=1).min()) + DECAY * slowest, MOST_STEPS))
    ends = _followed(cell, params, x, jnp.asarray(beside.reshape(-1, beside.shape[-1]), points.states.dtype), steps)
    apart = distances(np.asarray(ends), points.states)
    apart[:, [kind != STABLE for kind in points.kinds]] = np.inf
    reached = np.where(apart.min(axis=1) < apart_at_most(points), apart.argmin(axis=1), -1).reshape(-1, 2)
    return {int(saddle): (int(one), int(other)) for saddle, (one, other) in zip(saddles, reached, strict=True)}


def apart_at_most(points: FixedPoints) -> float:
    """How near to a fixed point a state counts as there: a tenth of the least distance between two of them."""
    fixed = points.states[points.is_fixed]
    apart = distances(fixed, fixed)
    np.fill_diagonal(apart, np.inf)
    return float(min(0.1 * apart.min(initial=np.inf), 1.0))


def distinct_points(
    states: Float[np.ndarray, "N S"], speeds: Float[np.ndarray, " N"], distance: float
) -> tuple[Float[np.ndarray, "M S"], Int[np.ndarray, " M"]]:
    """The points that are farther from each other than a distance, slowest first, and how many each stands for."""
    left = states[np.argsort(speeds, kind="stable")]
    kept, counts = [], []
    while len(left):
        is_near = np.linalg.norm(left - left[0], axis=1) <= distance
        kept.append(left[0])
        counts.append(int(is_near.sum()))
        left = left[~is_near]
    return np.array(kept, states.dtype).reshape(-1, states.shape[1]), np.array(counts, np.int64)


def _described(
    cell: Cell,
    params: Params,
    x: Array,
    fixed: tuple[np.ndarray, np.ndarray],
    slow_points: tuple[np.ndarray, np.ndarray],
) -> FixedPoints:
    """What is known of fixed and slow points, each with how many starts they stand for."""
    states, counts = (np.concatenate(both) for both in zip(fixed, slow_points, strict=True))
    after, jacobians = jax.device_get(_linearised(cell, params, x, jnp.asarray(states)))
    eigenvalues = np.linalg.eigvals(jacobians.astype(np.float64)).astype(np.complex128)
    order = np.argsort(-np.abs(eigenvalues), axis=1, kind="stable")
    return FixedPoints(
        states=states,
        speeds=np.linalg.norm(after - states, axis=1),
        is_fixed=np.arange(len(states)) < len(fixed[0]),
        counts=counts,
        jacobians=jacobians,
        eigenvalues=np.take_along_axis(eigenvalues, order, axis=1),
    )


def _are_near(states: np.ndarray, starts: Array, farthest: float | None) -> np.ndarray:
    """Which states are no farther than that from the nearest start."""
    if farthest is None:
        return np.ones(len(states), bool)
    return distances(states, np.asarray(starts)).min(axis=1, initial=np.inf) <= farthest


def distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Between all points of two sets, `[N, M]`."""
    return np.array([np.linalg.norm(one - point, axis=1) for point in other]).reshape(len(other), len(one)).T


@functools.partial(jax.jit, static_argnames="cell")
def _linearised(cell: Cell, params: Params, x: Array, states: Array) -> tuple[Array, Array]:
    """F and its Jacobian at each state."""

    def of_one(state: Array) -> tuple[Array, Array]:
        step = functools.partial(next_state, cell, params, x)
        return step(state), jax.jacfwd(step)(state)

    return jax.vmap(of_one)(states)


@functools.partial(jax.jit, static_argnames="cell")
def _followed(cell: Cell, params: Params, x: Array, states: Array, steps: int | Array) -> Array:
    """The states after so many steps under a constant input."""
    step = jax.vmap(functools.partial(next_state, cell, params, x))
    return jax.lax.fori_loop(0, steps, lambda _, state: step(state), states)
