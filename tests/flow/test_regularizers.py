"""Penalties on the gradient flow against their definitions."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from gru_jax import Scheme, flow
from gru_jax.cells import GRU, LSTM, Elman, LayerNormGRU, MinGRU
from gru_jax.errors import UsageError
from gru_jax.nn import LayerInputs
from gru_jax.training.gradient import floss
from gru_jax.training.network import build_model
from tests.golden.peers import random_problem
from tests.training.small import small


def of_arrays(function):
    """A function of what JAX takes for its arrays: finite differences, with jax_disable_jit, come as NumPy has them."""
    return lambda tree: function(jax.tree.map(jnp.asarray, tree))


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


def test_vanishing_penalty_has_the_gradient_of_the_paper(x64):
    """Pascanu et al. 2013, eq. 10, derived by hand: with m = (a * D) U^T, rho = ||m|| / ||a|| and D = 1 - h^2 constant,

    dOmega/dU_ij = mean_t 2 (rho - 1) m_i (a * D)_j / (||m|| ||a||), and 0 in W and b.
    """
    cell = Elman()
    params, xs, carry, weight = jax.tree.map(jnp.asarray, random_problem(cell, 3, 6, 2, 4, "float64", 0))
    slope = jax.jit(jax.grad(lambda p: flow.vanishing_penalty(cell, p, flow.Trajectory(xs, carry), weight)))(params)
    h, a = np.asarray(carry), np.asarray(weight)
    w, b, u = (np.asarray(params[group]["n"]) for group in ("W", "b", "U"))
    wanted = np.zeros_like(u)
    for t in range(6):
        h = np.tanh(np.asarray(xs)[:, t] @ w + b + h @ u)
        through = a[:, t] * (1 - h**2)
        m = through @ u.T
        size, length = np.linalg.norm(a[:, t], axis=-1), np.linalg.norm(m, axis=-1)
        factor = 2 * (length / size - 1) / (length * size)
        wanted += np.einsum("b,bi,bj->ij", factor, m, through) / 18
    np.testing.assert_allclose(slope["U"]["n"], wanted, rtol=1e-12)
    np.testing.assert_array_equal(slope["W"]["n"], 0)
    np.testing.assert_array_equal(slope["b"]["n"], 0)
    other = jax.jit(
        jax.grad(lambda p: flow.vanishing_penalty(cell, p, flow.Trajectory(xs, carry), weight, slopes="differentiated"))
    )(params)
    assert np.abs(other["W"]["n"]).max() > 1e-4
    assert np.abs(other["U"]["n"] - wanted).max() > 0.1 * np.abs(wanted).max()


@pytest.mark.parametrize("cell", [GRU(), GRU("before"), LSTM(), Elman("relu")], ids=str)
def test_constant_slopes_by_finite_differences(cell, x64):
    """Only the recurrent kernels that stand in the Jacobian move, at the states and slopes of the network itself."""
    params, xs, carry, weight = jax.tree.map(jnp.asarray, random_problem(cell, 2, 4, 2, 3, "float64", 1))
    adjoint = (weight, 2 * weight) if cell.carry_parts > 1 else weight
    along = flow.Trajectory(xs, carry)
    slope = jax.jit(jax.grad(lambda p: flow.vanishing_penalty(cell, p, along, adjoint)))(params)
    fixed, a = flow.jacobians(cell, params, along), np.asarray(flow.to_vector(adjoint))

    @jax.jit
    def matrices(kernels):
        return dataclasses.replace(fixed, kernels=kernels).dense()

    def penalty(kernels):
        sent = np.einsum("btij,bti->btj", np.asarray(matrices(kernels)), a)
        return np.mean((np.linalg.norm(sent, axis=-1) / np.linalg.norm(a, axis=-1) - 1) ** 2)

    for gate in cell.recurrent_gates:
        for i, j in ((0, 1), (2, 2)):
            up, down = ({**params["U"], gate: params["U"][gate].at[i, j].add(step)} for step in (1e-6, -1e-6))
            np.testing.assert_allclose(
                slope["U"][gate][i, j], (penalty(up) - penalty(down)) / 2e-6, rtol=1e-6, atol=1e-9
            )
    for group in slope.keys() - {"U"}:
        for leaf in slope[group].values():
            np.testing.assert_array_equal(leaf, 0)


def test_differentiated_slopes_by_finite_differences(x64):
    """Of the penalty as a function of all parameters, at constant states: h_{t-1} and a_t."""
    cell = Elman()
    params, xs, carry, weight = jax.tree.map(jnp.asarray, random_problem(cell, 1, 1, 2, 3, "float64", 0))
    along = flow.Trajectory(xs, carry)  # one step, whose state before is a constant

    @jax.jit
    def penalty(params):
        return flow.vanishing_penalty(cell, params, along, weight, slopes="differentiated")

    check_grads(of_arrays(penalty), (params,), 1, ["rev"], atol=1e-6, rtol=1e-6)


def test_slopes_that_cannot_be_constant_are_refused():
    xs, adjoint = jnp.ones((1, 4, 2)), jnp.ones((1, 4, 3))
    for cell, what in ((MinGRU(), "no recurrent kernels"), (LayerNormGRU(), "pointwise")):
        params = cell.init(jax.random.key(0), 2, 3)
        with pytest.raises(UsageError, match=rf"slopes='constant'.*{what}.*allowed is slopes='differentiated'"):
            flow.vanishing_penalty(cell, params, xs, adjoint)
        assert np.isfinite(flow.vanishing_penalty(cell, params, xs, adjoint, slopes="differentiated"))
        with pytest.raises(UsageError, match=r"gradient\.omega_slopes='constant'"):
            small(model={"cell": cell}, gradient={"omega": 0.1})
    with pytest.raises(UsageError, match=r"omega_slopes='frozen'.*allowed are constant, differentiated"):
        small(gradient={"omega": 0.1, "omega_slopes": "frozen"})


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
    check_grads(of_arrays(penalty), (params,), 1, ["rev"], atol=1e-5, rtol=1e-5)


def test_a_dead_network_has_a_finite_gradient():
    cell = Elman("relu")
    params = cell.init(jax.random.key(0), 1, 3)
    params["b"]["n"] = params["b"]["n"] - 100.0
    xs, adjoint = jnp.ones((1, 4, 1)), jnp.ones((1, 4, 3))
    gradient = jax.jit(jax.grad(lambda p: flow.vanishing_penalty(cell, p, xs, adjoint)))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_what_is_not_a_number_shows(without_alarms):
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


def test_flossing_is_a_sum_and_leaves_out_a_transient(x64):
    """diag(a) at every step but the first few, where it is diag(b): exponents ln a, whose squares add up."""
    cell, (a, b) = Elman("identity"), (0.8, 0.5)
    params = cell.init(jax.random.key(0), 1, 2, Scheme(recurrent="identity"), jnp.float64)
    params["U"]["n"] = jnp.diag(jnp.array([a, b]))
    xs = jnp.zeros((1, 8, 1))
    got = flow.flossing_penalty(cell, params, xs, k=2, warmup=3)
    spectrum = flow.lyapunov_spectrum(cell, params, xs, k=2)
    late = np.asarray(spectrum.local)[0, 3:].mean(axis=0)
    np.testing.assert_allclose(got, np.square(late).sum(), rtol=1e-12)
    assert abs(float(got) - np.square([np.log(a), np.log(b)]).sum()) < abs(
        float(flow.flossing_penalty(cell, params, xs, k=2)) - np.square([np.log(a), np.log(b)]).sum()
    )


@pytest.mark.usefixtures("single_precision")
def test_the_transient_is_a_key():
    config = small(gradient={"floss": 2, "floss_every": 1, "floss_transient": 3})
    model = build_model(config)
    params = model.init(jax.random.key(0))
    xs = jax.random.normal(jax.random.key(1), (4, 8, 2))
    weights = model.layers[0][0].parameters(params)
    wanted = flow.flossing_penalty(config.model.cell, weights, xs, k=2, warmup=3)
    np.testing.assert_allclose(floss(config, model, params, (LayerInputs(xs),)), wanted, rtol=1e-5)
    with pytest.raises(UsageError, match=r"gradient\.floss_transient=8: allowed are 0 to 7, below the 8 steps"):
        small(gradient={"floss": 2, "floss_every": 1, "floss_transient": 8})
    with pytest.raises(UsageError, match=r"gradient\.floss_transient=5: allowed are 0 to 4"):
        small(gradient={"floss": 2, "floss_every": 1, "floss_time": 5, "floss_transient": 5})


def test_flossing_without_steps_is_left_out(x64):
    params, xs, carry, _ = jax.tree.map(jnp.asarray, random_problem(GRU(), 2, 5, 2, 3, "float64", 0))

    @jax.jit
    @jax.value_and_grad
    def penalty(params, along):
        return flow.flossing_penalty(GRU(), params, along, k=2)

    got = penalty(params, flow.Trajectory(xs, carry, jnp.array([5, 0])))
    alone = penalty(params, flow.Trajectory(xs[:1], carry[:1]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-14), got, alone)
