"""Jacobians of a cell's step along a trajectory, J_t = ds_t/ds_{t-1}, and products of them.

Between its products a cell is pointwise, so that a Jacobian consists of diagonals and of the recurrent kernels: with
phi the cell's step as a function of the state s and of the products v_i = U_i^T q_i,

    J = diag(dphi/ds) + sum_i diag(dphi/dv_i) U_i^T dq_i/ds,

where dq_i/ds is the identity for a product of the state itself, and again of this form for one of a function of it,
as r * h with the reset gate before the product. See `gru_jax.unroll.blocked.structure`, from which the fast unroll
comes too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gru_jax.cells import Carry, Cell, Params
from gru_jax.cells.base import carry_from_leaves, carry_leaves
from gru_jax.cells.products import product
from gru_jax.flow.adjoint import to_unit_vectors
from gru_jax.flow.trajectory import (
    TrajectoryLike,
    carries_before,
    carries_entering,
    linearise_step,
    prepare_trajectory,
    to_carry,
    to_vector,
    transition,
    vectors_per_sequence,
)
from gru_jax.norms import euclidean_norm
from gru_jax.unroll.blocked.structure import Partials, ValueName, pointwise_partials, run_equations, trace_structure
from gru_jax.unroll.masking import StepInputs
from gru_jax.unroll.reference import scan_time

SQUARINGS = 20


@dataclasses.dataclass(frozen=True)
class Jacobians:
    """The Jacobian J_t of every step in structured form: `O(S)` numbers a step beside the kernels.

    Attributes:
        cell: the cell.
        partials: derivatives of the step's pointwise function, `[B, T, H]` each; see the module
            `gru_jax.unroll.blocked.structure`.
        kernels: `U [H, H]` by gate.
        valid: False in the padding, where J is the identity; None where there is none.
        resets: True where the state is reset before the step, so that J is zero; None where it never is.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import gru_jax
        >>> cell = gru_jax.cells.GRU()
        >>> params = cell.init(jax.random.key(0), 2, 3)
        >>> xs = jax.random.normal(jax.random.key(1), (4, 5, 2))
        >>> from gru_jax import flow
        >>> along = flow.jacobians(cell, params, xs)
        >>> along.apply(jnp.ones((4, 5, 3))).shape, along.dense().shape
        ((4, 5, 3), (4, 5, 3, 3))
    """

    cell: Cell
    partials: Partials
    kernels: Mapping[str, Array]
    valid: Bool[Array, "B T"] | None
    resets: Bool[Array, "B T"] | None

    def apply(self, vectors: Float[Array, "*K B T S"]) -> Float[Array, "*K B T S"]:
        """Multiply a vector at every step by that step's Jacobian, J_t v. Cost: one product per kernel."""
        after = self._push_tangent(to_carry(self.cell, vectors))
        result = to_vector(after)
        if self.resets is not None:
            result = _blend(self.resets, jnp.zeros_like(result), result)
        return result if self.valid is None else _blend(self.valid, result, vectors)

    def transpose(self, vectors: Float[Array, "*K B T S"]) -> Float[Array, "*K B T S"]:
        """Multiply a vector at every step by the transposed Jacobian, J_t^T v, as a backward pass does.

        Cost as of `apply`.
        """
        return jax.linear_transpose(self.apply, vectors)(vectors)[0]

    def dense(self) -> Float[Array, "B T S S"]:
        """The Jacobians as matrices. Cost: S times that of `apply`, and `S^2` numbers a step."""
        batch, time, units = jax.tree.leaves(self.partials)[0].shape
        size = self.cell.carry_parts * units
        eye = jnp.eye(size, dtype=jax.tree.leaves(self.partials)[0].dtype)
        columns = self.apply(jnp.broadcast_to(eye[:, None, None], (size, batch, time, size)))
        return columns.transpose(1, 2, 3, 0)

    def _push_tangent(self, tangent: Carry) -> Carry:
        """The tangent of the carry after each step, resets and padding apart."""
        structure = trace_structure(self.cell)
        tangents: dict[ValueName, Array] = {("carry", part): t for part, t in enumerate(carry_leaves(tangent))}

        def result(name: ValueName) -> Array:
            by_argument = self.partials[name]
            terms = [
                jnp.broadcast_to(partial, tangents[argument].shape) * tangents[argument]
                for argument, partial in by_argument.items()
                if argument in tangents
            ]
            return sum(terms[1:], terms[0]) if terms else jnp.zeros_like(tangents["carry", 0])

        for call, gate in enumerate(structure.calls):
            query = structure.query[call]
            source = structure.source[query]
            q = result(("q", query)) if source is None else tangents["carry", source]
            tangents["v", call] = product(q, self.kernels[gate], None, q.dtype)
        return carry_from_leaves(self.cell, [result(("carry", part)) for part in range(self.cell.carry_parts)])


jax.tree_util.register_dataclass(
    Jacobians, data_fields=["partials", "kernels", "valid", "resets"], meta_fields=["cell"]
)


def jacobians(cell: Cell, params: Params, along: TrajectoryLike) -> Jacobians:
    """The Jacobian J_t = ds_t/ds_{t-1} of every step of a trajectory, in structured form.

    Pascanu et al. 2013, arXiv:1211.5063, eq. 5, for the simple network; for gated ones Can et al. 2020,
    arXiv:2002.00025.

    Cost: a pass, and one product per kernel for all steps at once.

    Raises:
        UsageError: an argument with the wrong size or type, or a cell that is not pointwise between its products
            (`dense_jacobians` takes any cell).

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import gru_jax
        >>> cell = gru_jax.cells.GRU()
        >>> params = cell.init(jax.random.key(0), 2, 3)
        >>> xs = jax.random.normal(jax.random.key(1), (4, 5, 2))
        >>> from gru_jax import flow
        >>> dense = flow.jacobians(cell, params, xs).dense()
        >>> bool(jnp.allclose(dense, flow.dense_jacobians(cell, params, xs), atol=1e-5))
        True
    """
    trace_structure(cell)  # refuses what is not pointwise
    trajectory = prepare_trajectory(cell, params, along)
    steps = trajectory.steps
    before = carries_entering(cell, params, trajectory)
    multiply, v = cell.dense(params, steps.xs.dtype), []

    def record(call: int, gate: str, q: Array) -> Array:
        del call
        v.append(multiply(gate, q))
        return v[-1]

    u = cell.input_products(params, steps.xs)
    run_equations(cell, record, before, u)
    partials = {
        result: {argument: partial for argument, partial in by_argument.items() if argument[0] != "u"}
        for result, by_argument in pointwise_partials(cell, before, u, v).items()
    }
    partials, valid, resets = jax.tree.map(lambda a: a.swapaxes(0, 1), (partials, steps.valid, steps.resets))
    return Jacobians(cell, partials, params.get("U", {}), valid, resets)


def dense_jacobians(
    cell: Cell, params: Params, along: TrajectoryLike, *, at: Int[Array, " N"] | None = None
) -> Float[Array, "B N S S"]:
    """Form the Jacobians J_t as matrices, by forward-mode differentiation of the step; of any cell.

    Args:
        cell: the cell.
        params: its parameters.
        along: the trajectory.
        at: the time steps whose Jacobians are wanted, each from 0 to T - 1; all T if None.

    Cost: a pass and S tangents of each step that is wanted; `S^2` numbers for each.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import gru_jax
        >>> cell = gru_jax.cells.GRU()
        >>> params = cell.init(jax.random.key(0), 2, 3)
        >>> xs = jax.random.normal(jax.random.key(1), (4, 5, 2))
        >>> from gru_jax import flow
        >>> flow.dense_jacobians(cell, params, xs).shape
        (4, 5, 3, 3)
    """
    trajectory = prepare_trajectory(cell, params, along)
    steps, before = trajectory.steps, carries_before(cell, params, trajectory)
    if at is not None:
        steps, before = jax.tree.map(lambda a: a[at], (steps, before))

    def jacobian_of_step(step: StepInputs, before: Carry) -> Array:
        _, jacobian = linearise_step(cell, params, step, before)
        size = to_vector(before).shape[-1]
        return jacobian(vectors_per_sequence(jnp.eye(size), before)).transpose(1, 2, 0)

    return jax.vmap(jacobian_of_step)(steps, before).swapaxes(0, 1)


def singular_values(matrices: Float[Array, "*B S S"]) -> Float[Array, "*B S"]:
    """Singular values, largest first: by how much a step stretches and shrinks the gradient at most.

    sqrt(eig(M^T M)), all 1 in dynamical isometry: Saxe et al. 2014, arXiv:1312.6120; for gated networks Chen et al.
    2018, arXiv:1806.05394. Cost: `O(S^3)` a matrix.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from gru_jax import flow
        >>> [round(value, 3) for value in flow.singular_values(jnp.diag(jnp.array([1.0, 3.0]))).tolist()]
        [3.0, 1.0]
    """
    return jnp.linalg.svd(matrices, compute_uv=False)


def spectral_radius(matrices: Float[Array, "*B S S"]) -> Float[Array, "*B"]:
    """The largest absolute eigenvalue, as the limit ||M^n||^(1/n) (Gelfand 1941) at n = 2^20.

    Repeated squaring needs products alone, which every device has; eigenvalues of general matrices JAX has for CPUs.
    Cost: 20 products. The relative error is that of the products' rounding plus ln(c) / 2^20, c the condition number
    of the eigenvectors.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from gru_jax import flow
        >>> round(float(flow.spectral_radius(jnp.diag(jnp.array([1.0, -3.0])))), 3)
        3.0
    """

    def square(i: int | Int[Array, ""], state: tuple[Array, Array]) -> tuple[Array, Array]:
        power, log = state
        largest = jnp.abs(power).max(axis=(-2, -1))
        scale = jnp.where(largest > 0, largest, 1.0)
        power = power / scale[..., None, None]
        log = log + jnp.log(jnp.where(largest > 0, largest, 0.0)) / 2.0**i
        return power @ power, log

    start = (matrices, jnp.zeros(matrices.shape[:-2], matrices.dtype))
    power, log = jax.lax.fori_loop(0, SQUARINGS, square, start)
    frobenius = euclidean_norm(power.reshape(*power.shape[:-2], -1))
    return jnp.exp(log + jnp.log(frobenius) / 2.0**SQUARINGS)


class Stretched(NamedTuple):
    """Vectors after many Jacobians, as unit vectors and the logarithms of their norms.

    The norms may leave the range of floating numbers by any factor.

    Attributes:
        vectors: `[B, K, S]`, of norm 1 (0 where a reset or a dead unit took everything).
        log_norm: `[B, K]`, natural logarithms.
        log_norms: the same after each step, `[B, K, T]`, at the place of the step in time.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import gru_jax
        >>> cell = gru_jax.cells.GRU()
        >>> params = cell.init(jax.random.key(0), 2, 3)
        >>> xs = jax.random.normal(jax.random.key(1), (4, 5, 2))
        >>> from gru_jax import flow
        >>> stretched = flow.push(cell, params, xs, jnp.eye(3))
        >>> stretched.vectors.shape, stretched.log_norms.shape
        ((4, 3, 3), (4, 3, 5))
    """

    vectors: Float[Array, "B K S"]
    log_norm: Float[Array, "B K"]
    log_norms: Float[Array, "B K T"]


def push(
    cell: Cell, params: Params, along: TrajectoryLike, vectors: Float[Array, "K S"] | Float[Array, "B K S"]
) -> Stretched:
    """Push vectors forward through all steps: where a change of the state before the first step leads.

    J_T ... J_2 J_1 v. Vectors are scaled to norm 1 at every step, so that 10^5 steps and more are safe (Benettin et al.
    1980, Meccanica 15). Cost: a pass and K tangents of it; the product of the Jacobians is never formed.

    Args:
        cell: the cell.
        params: its parameters.
        along: the trajectory.
        vectors: the same K vectors for all sequences, `[K, S]`, or `[B, K, S]`.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import gru_jax
        >>> cell = gru_jax.cells.GRU()
        >>> params = cell.init(jax.random.key(0), 2, 3)
        >>> xs = jax.random.normal(jax.random.key(1), (4, 5, 2))
        >>> from gru_jax import flow
        >>> pushed = flow.push(cell, params, xs, jnp.eye(3))
        >>> pushed.vectors.shape
        (4, 3, 3)
    """
    trajectory = prepare_trajectory(cell, params, along)

    def body(state: tuple[Carry, Array], step: StepInputs) -> tuple[Any, Array]:
        carry, unit = state
        carry, jacobian = linearise_step(cell, params, step, carry, trajectory.reset_carry)
        unit, grown = to_unit_vectors(jacobian(unit))
        return (carry, unit), grown

    unit, log = to_unit_vectors(vectors_per_sequence(vectors, trajectory.carry0))
    (_, unit), grown = scan_time(body, (trajectory.carry0, unit), trajectory.steps, reverse=trajectory.reverse)
    return _accumulated(unit, log, grown, trajectory.reverse)


def pull(
    cell: Cell, params: Params, along: TrajectoryLike, vectors: Float[Array, "K S"] | Float[Array, "B K S"]
) -> Stretched:
    """Pull vectors back through all steps: what the gradient of a loss of the last state has become at the first.

    J_1^T J_2^T ... J_T^T v. `log_norms` at step t is ln ||dL/ds_{t-1}|| for dL/ds_T = v, whatever its size: the adjoint
    profile where plain backpropagation underflows. Pascanu et al. 2013, arXiv:1211.5063, eq. 5. Arguments and cost as
    of `push`, plus memory for the states.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import gru_jax
        >>> cell = gru_jax.cells.GRU()
        >>> params = cell.init(jax.random.key(0), 2, 3)
        >>> xs = jax.random.normal(jax.random.key(1), (4, 5, 2))
        >>> from gru_jax import flow
        >>> pulled = flow.pull(cell, params, xs, jnp.eye(3))
        >>> pulled.log_norm.shape
        (4, 3)
    """
    trajectory = prepare_trajectory(cell, params, along)

    def body(unit: Array, item: tuple[StepInputs, Carry]) -> tuple[Array, Array]:
        step, before = item
        _, jacobian = jax.vjp(transition(cell, params, step), before)
        return to_unit_vectors(to_vector(jax.vmap(jacobian)(to_carry(cell, unit))[0]))

    unit, log = to_unit_vectors(vectors_per_sequence(vectors, trajectory.carry0))
    items = (trajectory.steps, carries_before(cell, params, trajectory))
    unit, grown = scan_time(body, unit, items, reverse=not trajectory.reverse)
    return _accumulated(unit, log, grown, not trajectory.reverse)


def _accumulated(unit: Float[Array, "K B S"], log: Array, grown: Float[Array, "T K B"], reverse: bool) -> Stretched:
    """The result of a scan that scaled vectors to norm 1 at each step, from the logarithms of those norms."""
    # Summed as a tree: one by one, many equal terms would drift by their rounding errors.
    logs = log[None] + jax.lax.cumsum(grown, axis=0, reverse=reverse)
    last = log if not len(logs) else logs[0 if reverse else -1]
    return Stretched(unit.swapaxes(0, 1), last.T, logs.transpose(2, 1, 0))


def _blend(mask: Bool[Array, "B T"], a: Array, b: Array) -> Array:
    return jnp.where(mask[..., None], a, b)
