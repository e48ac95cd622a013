"""Jacobians against forward-mode differentiation of the step, and products of them against that of the unroll."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax
from gru_jax import flow
from gru_jax.cells import GRU, LSTM, Elman, MinGRU
from gru_jax.errors import UsageError
from tests.golden.peers import random_problem
from tests.unroll.toys import Normalized, Toy

CELLS = [GRU(), GRU("before", "write"), GRU("before", output_gate=True), LSTM(), Elman(), MinGRU(), Toy()]
DIRECTED = [(cell, bool(i % 2)) for i, cell in enumerate(CELLS)]
BATCH, TIME, UNITS = 2, 7, 3


def problem(cell, dtype="float64"):
    params, xs, carry, _ = jax.tree.map(jnp.asarray, random_problem(cell, BATCH, TIME, 2, UNITS, dtype, 0))
    lengths = jnp.array([4, TIME])
    resets = jnp.zeros((BATCH, TIME), bool).at[1, 3].set(True)
    return params, xs, carry, {"lengths": lengths, "resets": resets}


def explicit(cell, params, xs, carry, lengths, resets, reverse):
    """J_t by `jacfwd` of the step, one by one."""
    wanted = np.zeros((BATCH, TIME, UNITS * cell.carry_parts, UNITS * cell.carry_parts))

    def step(vector, x):
        return flow.to_vector(cell.step(params, flow.to_carry(cell, vector), x))

    stepped = jax.jit(lambda vector, x: (step(vector, x), jax.jacfwd(step)(vector, x)))
    for b in range(BATCH):
        state = jax.tree.map(lambda a, b=b: a[b], carry)
        for t in sorted(range(TIME), reverse=reverse):
            if t >= int(lengths[b]):
                wanted[b, t] = np.eye(wanted.shape[-1])
                continue
            reset = bool(resets[b, t])
            state = cell.initial_carry((), UNITS, xs.dtype) if reset else state
            after, jacobian = stepped(flow.to_vector(state), xs[b, t])
            wanted[b, t] = 0.0 if reset else jacobian
            state = flow.to_carry(cell, after)
    return wanted


@pytest.mark.parametrize(("cell", "reverse"), DIRECTED, ids=str)
def test_jacobians_are_those_of_the_steps(cell, reverse, x64):
    params, xs, carry, masks = problem(cell)
    wanted = explicit(cell, params, xs, carry, masks["lengths"], masks["resets"], reverse)
    vectors = jax.random.normal(jax.random.key(0), (5, *wanted.shape[:3]))

    @jax.jit
    def measure(params):
        along = flow.Trajectory(xs, carry, **masks, reverse=reverse)
        of = flow.jacobians(cell, params, along)
        dense = flow.dense_jacobians(cell, params, along)
        return of.dense(), dense, of.apply(vectors), of.transpose(vectors)

    structured, dense, through, back = measure(params)
    np.testing.assert_allclose(structured, wanted, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(dense, wanted, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(through, np.einsum("btij,kbtj->kbti", wanted, vectors), rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(back, np.einsum("btji,kbtj->kbti", wanted, vectors), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("cell", [GRU(), LSTM(), Toy()], ids=str)
def test_jacobians_in_single_precision(cell):
    params, xs, carry, masks = problem(cell, "float32")
    wanted = explicit(cell, params, xs, carry, masks["lengths"], masks["resets"], False)
    got = jax.jit(lambda params: flow.jacobians(cell, params, flow.Trajectory(xs, carry, **masks)).dense())(params)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


def test_a_cell_that_mixes_entries_has_dense_jacobians_alone(x64):
    params, xs, carry, _ = problem(Normalized())
    with pytest.raises(UsageError, match="not pointwise"):
        flow.jacobians(Normalized(), params, flow.Trajectory(xs, carry))
    none = jnp.zeros((BATCH, TIME), bool)
    wanted = explicit(Normalized(), params, xs, carry, [TIME] * BATCH, none, False)
    np.testing.assert_allclose(
        flow.dense_jacobians(Normalized(), params, flow.Trajectory(xs, carry)), wanted, rtol=1e-12, atol=1e-14
    )


@pytest.mark.parametrize(("cell", "reverse"), DIRECTED, ids=str)
def test_products_are_derivatives_of_the_unroll(cell, reverse, x64, without_alarms):
    params, xs, carry, masks = problem(cell)
    start = flow.to_vector(carry)
    vectors = jax.random.normal(jax.random.key(0), (4, start.shape[-1]))

    @jax.jit
    def measure(params):
        def last(vector):
            out = gru_jax.unroll(cell, params, xs, flow.to_carry(cell, vector), **masks, reverse=reverse)
            return flow.to_vector(out.carry)

        along = flow.Trajectory(xs, carry, **masks, reverse=reverse)
        everywhere = jnp.broadcast_to(vectors[:, None], (4, *start.shape))
        forward = jax.vmap(lambda v: jax.jvp(last, (start,), (v,))[1])(everywhere)
        backward = jax.vmap(jax.vjp(last, start)[1])(everywhere)[0]
        pushed, pulled = (product(cell, params, along, vectors) for product in (flow.push, flow.pull))
        return (pushed, forward), (pulled, backward)

    for got, wanted in measure(params):
        result = np.asarray(got.vectors) * np.exp(got.log_norm)[..., None]
        np.testing.assert_allclose(result.swapaxes(0, 1), wanted, rtol=1e-11, atol=1e-13)


def test_the_pulled_norms_are_the_adjoint_profile(x64, without_alarms):
    cell = LSTM()
    params, xs, carry, masks = problem(cell)
    vectors = jax.random.normal(jax.random.key(0), (1, 2 * UNITS))

    def loss(perturbation):
        out = gru_jax.unroll(cell, params, xs, carry, **masks, perturbation=perturbation)
        return (flow.to_vector(out.carry) * vectors).sum()

    zeros = jnp.zeros((BATCH, TIME, UNITS))
    adjoint = flow.to_vector(jax.grad(loss)((zeros, zeros)))
    got = flow.pull(cell, params, flow.Trajectory(xs, carry, **masks), vectors).log_norms[:, 0]
    wanted = flow.adjoint_norms(adjoint)
    np.testing.assert_allclose(jnp.exp(got[1, 1:]), wanted[1, :-1], rtol=1e-11)
    np.testing.assert_allclose(jnp.exp(got[0, 1:4]), wanted[0, :3], rtol=1e-11)


@pytest.mark.usefixtures("with_jit")  # so many steps take an hour without
def test_products_over_many_steps_leave_no_range():
    """(0.5 Q)^n and (2 Q)^n at n = 20,000 have norms of 10^-6020 and 10^6020."""
    cell, time = Elman("identity"), 20_000
    xs = jnp.zeros((1, time, 1))
    for scale in (0.5, 2.0):
        scheme = gru_jax.Scheme(recurrent_scale=scale)
        params = cell.init(jax.random.key(0), 1, 4, scheme)
        for product in (flow.push, flow.pull):
            got = product(cell, params, xs, jnp.eye(4))
            np.testing.assert_allclose(got.log_norm, time * np.log(scale), rtol=1e-5)
            np.testing.assert_allclose(jnp.linalg.norm(got.vectors, axis=-1), 1.0, rtol=1e-5)


def test_singular_values_and_radius(x64, without_alarms):
    rng = np.random.default_rng(0)
    q, _ = np.linalg.qr(rng.standard_normal((5, 5)))
    nilpotent = np.diag([3.0, 2.0, 1.0, 5.0], 1)
    graded = np.diag([1e-3, 2.0, -3.0, 0.5, 0.0]) + np.triu(rng.standard_normal((5, 5)), 1)
    matrices = jnp.asarray(np.stack([2 * q, nilpotent, graded, rng.standard_normal((5, 5)), np.zeros((5, 5))]))
    np.testing.assert_allclose(flow.singular_values(matrices[0]), 2.0, rtol=1e-12)
    wanted = [np.abs(np.linalg.eigvals(m)).max() for m in matrices]
    wanted[1] = 0.0  # where eigenvalues of a nilpotent matrix come out as rounding errors
    np.testing.assert_allclose(flow.spectral_radius(matrices), wanted, rtol=1e-4, atol=1e-300)


def test_bad_vectors_are_named():
    cell = LSTM()
    params, xs, carry, _ = problem(cell, "float32")
    with pytest.raises(UsageError, match=r"vectors has shape \(2, 3\): allowed are \[K, 6\] and \[2, K, 6\]"):
        flow.push(cell, params, flow.Trajectory(xs, carry), jnp.ones((2, 3)))


@pytest.mark.parametrize(("cell", "reverse"), [(GRU(), False), (LSTM(), True)], ids=str)
def test_no_steps(cell, reverse):
    params, xs, carry, _ = jax.tree.map(jnp.asarray, random_problem(cell, 2, 0, 2, 3, "float32", 0))
    along, size = flow.Trajectory(xs, carry, reverse=reverse), 3 * cell.carry_parts
    assert flow.jacobians(cell, params, along).dense().shape == (2, 0, size, size)
    assert flow.dense_jacobians(cell, params, along).shape == (2, 0, size, size)
    vectors = 2.0 * jnp.eye(size)
    for product in (flow.push, flow.pull):
        got = product(cell, params, along, vectors)
        np.testing.assert_array_equal(got.vectors, jnp.broadcast_to(vectors / 2, (2, size, size)))
        np.testing.assert_allclose(got.log_norm, np.log(2.0), rtol=1e-6)
        assert got.log_norms.shape == (2, size, 0)
