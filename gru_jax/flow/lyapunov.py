"""Lyapunov exponents: the rates at which a trajectory's Jacobians stretch and shrink.

With J_t = ds_t/ds_{t-1} the Jacobian of step t and Q_0 a random orthonormal basis of k directions,

    J_t Q_{t-1} = Q_t R_t    (QR decomposition),    lambda_i = lim_T 1/T sum_t ln |R_t[i, i]|,

in nats per step. Benettin et al. 1980, Meccanica 15; for recurrent networks Engelken et al. 2023, Physical Review
Research 5, 043044, and Vogt et al. 2022, arXiv:2006.14123. The gradient of a loss travels back through the transposes
of the same Jacobians: over a lag of n steps its part in direction i is scaled by about exp(n lambda_i).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from gru_jax.cells import Carry, Cell, Params
from gru_jax.errors import UsageError, at_least_one
from gru_jax.flow.adjoint import to_unit_vectors
from gru_jax.flow.trajectory import TrajectoryLike, linearise_step, prepare_trajectory, to_vector
from gru_jax.unroll.masking import StepInputs
from gru_jax.unroll.reference import scan_time
from gru_jax.unroll.sharding import vary_alike

VectorMap = Callable[[Array], Array]
StepWithJacobian = Callable[[Any, Any], tuple[Any, VectorMap]]
"""`advance(state, item) -> next state, Jacobian`, the Jacobian as a map `[K, B, S] -> [K, B, S]`."""


class Spectrum(NamedTuple):
    """Lyapunov exponents in nats per step, largest first.

    Attributes:
        exponents: means over the trajectory after the warm-up, `[B, k]`.
        local: means over each interval between two decompositions, `[B, N, k]`, warm-up included, in the order of
            processing, each below its exponent; NaN where a sequence has no step in an interval.
        steps: steps of each interval that count, `[B, N]`: neither padding nor warm-up.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from gru_jax import flow
        >>> spectrum = flow.product_spectrum(jnp.tile(2.0 * jnp.eye(3), (1, 10, 1, 1)))
        >>> [round(value, 3) for value in spectrum.exponents[0].tolist()], spectrum.local.shape
        ([0.693, 0.693, 0.693], (1, 10, 3))
    """

    exponents: Float[Array, "B k"]
    local: Float[Array, "B N k"]
    steps: Int[Array, "B N"]


def lyapunov_spectrum(
    cell: Cell,
    params: Params,
    along: TrajectoryLike,
    *,
    k: int | None = None,
    every: int = 1,
    warmup: int = 0,
    key: PRNGKeyArray | None = None,
) -> Spectrum:
    """Measure the k largest Lyapunov exponents along each trajectory.

    Args:
        cell: the cell.
        params: its parameters.
        along: the trajectories, without resets; inputs of zeros for the autonomous cell.
        k: how many, 1 to S; all S if None. With k = 1 the decomposition is a division by the norm.
        every: steps between decompositions. More is faster; but exponents that lie more than `16 / every` nats (in
            float64, `36 / every`) below the largest are lost in its rounding errors.
        warmup: steps that do not count, while the directions turn to where they belong; rounded up to intervals. The
            padding has no steps.
        key: draws the initial directions; a fixed key if None.

    Cost: a pass, k tangents of it, and `T / every` QR decompositions of `[S, k]` per sequence. Memory does not grow
    with T but for `local`.

    Raises:
        UsageError: an argument with the wrong size or value, or a trajectory with resets, where an exponent is -inf.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import gru_jax
        >>> from gru_jax import flow
        >>> cell = gru_jax.cells.Elman(activation="identity")
        >>> scheme = gru_jax.Scheme(recurrent_scale=0.5)  # times an orthogonal matrix
        >>> params = cell.init(jax.random.key(0), 2, 3, scheme)
        >>> spectrum = flow.lyapunov_spectrum(cell, params, jnp.zeros((1, 20, 2)))
        >>> [round(exponent, 3) for exponent in spectrum.exponents[0].tolist()]  # all ln 0.5
        [-0.693, -0.693, -0.693]
    """
    steps, carry, _, reverse = prepare_trajectory(cell, params, along)
    if steps.resets is not None:
        raise UsageError("resets: a trajectory has no Lyapunov exponents across them; allowed is None")
    (time, batch), size = steps.xs.shape[:2], to_vector(carry).shape[-1]

    def advance(carry: Carry, step: StepInputs) -> tuple[Carry, VectorMap]:
        return linearise_step(cell, params, step, carry)

    if reverse:
        steps = jax.tree.map(lambda a: jnp.flip(a, axis=0), steps)
    basis = vary_alike(_basis(key, size if k is None else k, size, batch, to_vector(carry).dtype), carry)
    valid = jnp.ones((time, batch), bool) if steps.valid is None else steps.valid
    return _spectrum(advance, carry, steps, basis, valid, every, warmup)


def product_spectrum(
    matrices: Float[Array, "B T S S"],
    *,
    k: int | None = None,
    every: int = 1,
    warmup: int = 0,
    key: PRNGKeyArray | None = None,
) -> Spectrum:
    """Measure the k largest Lyapunov exponents of products M_T ... M_2 M_1; arguments as in `lyapunov_spectrum`.

    Cost: k products of a matrix and a vector at every step, and `T / every` QR decompositions of `[S, k]`.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from gru_jax import flow
        >>> spectrum = flow.product_spectrum(jnp.tile(0.5 * jnp.eye(2), (1, 20, 1, 1)))
        >>> [round(exponent, 3) for exponent in spectrum.exponents[0].tolist()]  # both ln 0.5
        [-0.693, -0.693]
    """
    batch, time, size, _ = matrices.shape

    def advance(state: None, matrix: Array) -> tuple[None, VectorMap]:
        return state, lambda vectors: jnp.einsum("bij,kbj->kbi", matrix, vectors)

    basis = _basis(key, size if k is None else k, size, batch, matrices.dtype)
    return _spectrum(advance, None, matrices.swapaxes(0, 1), basis, jnp.ones((time, batch), bool), every, warmup)


def largest_exponent(cell: Cell, params: Params, along: TrajectoryLike, **kwargs: Any) -> Float[Array, " B"]:
    """Measure the largest Lyapunov exponent of each trajectory, from one vector; arguments as in `lyapunov_spectrum`.

    The vector turns into its direction at the rate by which the second largest exponent is smaller: in a sequence that
    is short against that, use a warm-up, or a few directions (`k`) of the whole spectrum.

    Cost: about one forward-mode derivative of a pass.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import gru_jax
        >>> from gru_jax import flow
        >>> cell = gru_jax.cells.Elman(activation="identity")
        >>> scheme = gru_jax.Scheme(recurrent="identity", recurrent_scale=0.5)
        >>> params = cell.init(jax.random.key(0), 2, 3, scheme)
        >>> round(float(flow.largest_exponent(cell, params, jnp.zeros((1, 20, 2)))[0]), 3)  # ln 0.5
        -0.693
    """
    return lyapunov_spectrum(cell, params, along, k=1, **kwargs).exponents[:, 0]


def finite_time_spread(spectrum: Spectrum) -> Float[Array, "B k"]:
    """Standard deviation over intervals of each exponent's local value, weighted by the intervals' steps.

    sqrt(sum_n m_n (local_n - lambda)^2 / sum_n m_n), without the warm-up; infinite values are left out. With
    independent intervals it falls as 1 / sqrt(every): Engelken et al. 2023, Physical Review Research 5, 043044. Cost:
    none beside the spectrum's.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from gru_jax import flow
        >>> spectrum = flow.product_spectrum(jnp.tile(2.0 * jnp.eye(3), (1, 10, 1, 1)))
        >>> bool((flow.finite_time_spread(spectrum) < 1e-4).all())  # every step stretches alike
        True
    """
    used = jnp.isfinite(spectrum.local) & (spectrum.steps > 0)[..., None]
    weight = jnp.where(used, spectrum.steps[..., None], 0).astype(spectrum.local.dtype)
    total = weight.sum(axis=1)

    def mean(values: Array) -> Array:
        safe = jnp.where(total > 0, total, jnp.nan)
        return (weight * jnp.where(used, values, 0.0)).sum(axis=1) / safe

    return jnp.sqrt(mean(jnp.square(spectrum.local - mean(spectrum.local)[:, None])))


def log_condition(spectrum: Spectrum, lag: int) -> Float[Array, " B"]:
    """Natural logarithm of the condition number that the Jacobian over `lag` steps has in the long run.

    ln kappa = (lambda_max - lambda_min) lag, over the exponents that the spectrum has. Engelken 2023, arXiv:2312.17306.
    Cost: none beside the spectrum's.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from gru_jax import flow
        >>> matrices = jnp.tile(jnp.diag(jnp.array([2.0, 1.0])), (1, 40, 1, 1))
        >>> spectrum = flow.product_spectrum(matrices, warmup=20)
        >>> round(float(flow.log_condition(spectrum, lag=10)[0]), 2)  # 10 ln 2
        6.93
    """
    return (spectrum.exponents[:, 0] - spectrum.exponents[:, -1]) * lag


def _basis(key: PRNGKeyArray | None, k: int, size: int, batch: int, dtype: DTypeLike) -> Float[Array, "K B S"]:
    """Random orthonormal directions, the first `k` of the same basis for any `k`."""
    if not 1 <= at_least_one("k", k) <= size:
        raise UsageError(f"k={k}: allowed are 1 to {size}, the numbers in a state")
    key = jax.random.key(0) if key is None else key
    q, _ = jnp.linalg.qr(jax.random.normal(key, (size, size), dtype)[:, :k])
    return jnp.broadcast_to(q.T[:, None], (k, batch, size))


def _spectrum(
    advance: StepWithJacobian,
    state: PyTree,
    items: PyTree,
    basis: Array,
    valid: Bool[Array, "T B"],
    every: int,
    warmup: int,
) -> Spectrum:
    """Run `advance` over time-major items, decomposing every so many steps."""
    time = valid.shape[0]
    every = min(at_least_one("every", every), max(time, 1))
    if not 0 <= warmup < max(time, 1):
        raise UsageError(f"warmup={warmup}: allowed are 0 to {max(time, 1) - 1}, below the number of steps")

    def interval(carry: tuple[Any, Array], items: PyTree) -> tuple[tuple[Any, Array], Array]:
        def body(carry: tuple[Any, Array], item: PyTree) -> tuple[tuple[Any, Array], None]:
            state, vectors = carry
            state, jacobian = advance(state, item)
            return (state, jacobian(vectors)), None

        (state, vectors), _ = scan_time(body, carry, items)
        vectors, logs = _orthonormal(vectors)
        return (state, vectors), logs

    count, rest = divmod(time, every)
    carry, logs = scan_time(interval, (state, basis), jax.tree.map(lambda a: _grouped(a, count, every), items))
    if rest:
        _, last = interval(carry, jax.tree.map(lambda a: a[count * every :], items))
        logs = jnp.concatenate([logs, last[None]])
    padded = jnp.pad(valid, ((0, -time % every), (0, 0)))
    steps = _grouped(padded, logs.shape[0], every).sum(axis=1, dtype=jnp.int32)  # [N, B]
    count_of_steps = steps[..., None].astype(logs.dtype)
    local = jnp.where(count_of_steps > 0, logs / jnp.maximum(count_of_steps, 1.0), jnp.nan)
    steps = jnp.where(jnp.cumsum(steps, axis=0) - steps >= warmup, steps, 0)
    total = steps.sum(axis=0).astype(logs.dtype)[:, None]
    used = jnp.where(steps[..., None] > 0, logs, 0.0)
    mean = jnp.where(total > 0, _sum(used) / jnp.maximum(total, 1.0), jnp.nan)
    order = jnp.argsort(mean, axis=-1, descending=True)
    local = jnp.take_along_axis(local, order[None], axis=-1).swapaxes(0, 1)
    return Spectrum(jnp.take_along_axis(mean, order, axis=-1), local, steps.swapaxes(0, 1))


def _sum(values: Float[Array, "N B k"]) -> Float[Array, "B k"]:
    """The sum over N, as a tree: one by one, many equal terms would drift by their rounding errors."""
    return jax.lax.cumsum(values, axis=0)[-1] if len(values) else jnp.zeros(values.shape[1:], values.dtype)


def _grouped(a: Array, count: int, every: int) -> Array:
    """The first steps in `count` groups of `every`."""
    return a[: count * every].reshape(count, every, *a.shape[1:])


def _orthonormal(vectors: Float[Array, "K B S"]) -> tuple[Float[Array, "K B S"], Float[Array, "B K"]]:
    """An orthonormal basis of what the vectors span, in their order, and ln |R[i, i]|."""
    if vectors.shape[0] == 1:
        unit, log = to_unit_vectors(vectors)
        return unit, log.swapaxes(0, 1)
    q, r = jnp.linalg.qr(vectors.transpose(1, 2, 0))
    return q.transpose(2, 0, 1), jnp.log(jnp.abs(jnp.diagonal(r, axis1=-2, axis2=-1)))
