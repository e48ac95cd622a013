"""Penalties on the gradient flow against their definitions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from gru_jax import Scheme, flow
from gru_jax.cells import GRU, LSTM, Elman
from tests.golden.peers import random_problem


@pytest.mark.parametrize("cell", [GRU(), GRU("before"), LSTM(), Elman()], ids=str)
def test_vanishing_penalty_is_its_definition(cell, x64):
    params, xs, carry, weight = jax.tree.map(jnp.asarray, random_problem(cell, 2, 5, 2, 3, "float64", 0))
    lengths = jnp.array([3, 5])
    adjoint = tuple(weight * (i + 1) for i in range(cell.carry_parts))
    adjoint = adjoint if cell.carry_parts > 1 else adjoint[0]
    along = flow.Trajectory(xs, carry, lengths)
    got, dense = jax.jit(
        lambda p: (flow.vanishing_penalty(cell, p, along, adjoint), flow.dense_jacobians(cell, p, along))
    )(params)
    vectors = flow.to_vector(adjoint)
    terms = []
    for b in range(2):
        for t in range(int(lengths[b])):
            a = np.asarray(vectors[b, t])
            terms.append((np.linalg.norm(a @ np.asarray(dense[b, t])) / np.linalg.norm(a) - 1) ** 2)
    np.testing.assert_allclose(got, np.mean(terms), rtol=1e-12)


def test_vanishing_penalty_moves_the_jacobian_alone(x64):
    """h' = g h with input: the penalty is (g - 1)^2 and its slope 2 (g - 1), states and adjoints being constants."""
    cell, scale = Elman("identity"), 0.8
    params = cell.init(jax.random.key(0), 1, 1, Scheme(recurrent="identity", recurrent_scale=scale), jnp.float64)
    xs = jax.random.normal(jax.random.key(1), (2, 6, 1))
    adjoint = jnp.ones((2, 6, 1)).at[0, 2].set(0.0)  # where no gradient comes nothing counts

    def penalty(params):
        return flow.vanishing_penalty(cell, params, xs, adjoint)

    value, slope = jax.value_and_grad(penalty)(params)
    np.testing.assert_allclose(value, (scale - 1) ** 2, rtol=1e-12)
    np.testing.assert_allclose(slope["U"]["n"], 2 * (scale - 1), rtol=1e-12)
    np.testing.assert_array_equal(slope["W"]["n"], 0)


@pytest.mark.parametrize(("cell", "k"), [(GRU(), 1), (LSTM(), 3)], ids=str)
def test_flossing_penalty_and_its_gradient(cell, k, x64):
    params, xs, carry, _ = jax.tree.map(jnp.asarray, random_problem(cell, 2, 6, 2, 3, "float64", 0))
    exponents = jax.jit(lambda p: flow.lyapunov_spectrum(cell, p, flow.Trajectory(xs, carry), k=k).exponents)(params)
    penalty = jax.jit(lambda p: flow.flossing_penalty(cell, p, flow.Trajectory(xs, carry), k=k))
    np.testing.assert_allclose(penalty(params), np.square(exponents).sum(axis=1).mean(), rtol=1e-12)
    check_grads(penalty, (params,), 1, ["rev"], atol=1e-5, rtol=1e-5)


def test_a_dead_network_has_a_finite_gradient():
    cell = Elman("relu")
    params = cell.init(jax.random.key(0), 1, 3)
    params["b"]["n"] = params["b"]["n"] - 100.0
    xs, adjoint = jnp.ones((1, 4, 1)), jnp.ones((1, 4, 3))
    gradient = jax.jit(jax.grad(lambda p: flow.vanishing_penalty(cell, p, xs, adjoint)))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_what_is_not_a_number_shows():
    params, xs, carry, weight = jax.tree.map(jnp.asarray, random_problem(GRU(), 2, 5, 2, 3, "float32", 0))
    along = flow.Trajectory(xs, carry)
    penalty = jax.jit(lambda params, weight: flow.vanishing_penalty(GRU(), params, along, weight))
    assert np.isnan(penalty(params, weight.at[0, 2].set(jnp.nan)))
    assert np.isnan(penalty(jax.tree.map(lambda a: a * jnp.nan, params), weight))


def test_resets_are_no_vanishing(x64):
    params, xs, carry, weight = jax.tree.map(jnp.asarray, random_problem(GRU(), 1, 5, 2, 3, "float64", 0))
    resets = jnp.zeros((1, 5), bool).at[0, 3].set(True)

    @jax.jit
    def measure(params):
        after = GRU().step(params, jnp.zeros((1, 3)), xs[:, 3])
        return (
            flow.vanishing_penalty(GRU(), params, flow.Trajectory(xs, carry, resets=resets), weight),
            flow.vanishing_penalty(GRU(), params, flow.Trajectory(xs[:, :3], carry), weight[:, :3]),
            flow.vanishing_penalty(GRU(), params, flow.Trajectory(xs[:, 4:], after), weight[:, 4:]),
        )

    whole, *halves = measure(params)
    np.testing.assert_allclose(whole, (3 * halves[0] + halves[1]) / 4, rtol=1e-12)


def test_flossing_without_steps_is_left_out(x64):
    params, xs, carry, _ = jax.tree.map(jnp.asarray, random_problem(GRU(), 2, 5, 2, 3, "float64", 0))

    @jax.jit
    @jax.value_and_grad
    def penalty(params, along):
        return flow.flossing_penalty(GRU(), params, along, k=2)

    got = penalty(params, flow.Trajectory(xs, carry, jnp.array([5, 0])))
    alone = penalty(params, flow.Trajectory(xs[:1], carry[:1]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-14), got, alone)
