"""Norms against float64, far beyond what squares in float32 allow."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gru_jax import flow
from gru_jax.cells import GRU, LSTM
from gru_jax.norms import euclidean_norm, global_norm, power_of_two, scaled_global_norm
from tests.golden.peers import random_problem

SIZES = [1e-37, 1e-30, 1e-22, 1e-3, 1.0, 1e10, 1e19, 1e30, 1e37]


def draw(*shape, seed=0):
    rng = np.random.default_rng(seed)  # nothing near 0, which would be denormal beside the smallest sizes
    return (rng.choice([-1, 1], shape) * rng.uniform(0.2, 2.0, shape)).astype(np.float32)


@pytest.mark.parametrize("size", SIZES)
def test_norms_of_any_size(size):
    x = draw(5, 7) * np.float32(size)
    wanted = np.linalg.norm(x.astype(np.float64), axis=-1)
    np.testing.assert_allclose(jax.jit(euclidean_norm)(x), wanted, rtol=3e-7)
    np.testing.assert_allclose(flow.adjoint_norms(jnp.asarray(x)), wanted, rtol=3e-7)
    whole = np.linalg.norm(x.astype(np.float64))
    np.testing.assert_allclose(jax.jit(global_norm)({"a": x[:2], "b": {"c": x[2:]}}), whole, rtol=3e-7)


@pytest.mark.parametrize("size", SIZES)
def test_derivatives_of_any_size(size):
    x = draw(6) * np.float32(size)
    wanted = x.astype(np.float64) / np.linalg.norm(x.astype(np.float64))
    np.testing.assert_allclose(jax.jit(jax.grad(euclidean_norm))(x), wanted, rtol=1e-6)
    v = draw(6, seed=1)
    _, pushed = jax.jvp(euclidean_norm, (jnp.asarray(x),), (jnp.asarray(v),))
    np.testing.assert_allclose(pushed, v.astype(np.float64) @ wanted, rtol=1e-5)


def test_the_derivative_at_zero_is_zero():
    rows = jnp.asarray(draw(3, 4)).at[1].set(0.0)
    slopes = jax.jit(jax.vmap(jax.grad(euclidean_norm)))(rows)
    np.testing.assert_array_equal(slopes[1], 0)
    assert np.isfinite(slopes).all()
    np.testing.assert_array_equal(jax.grad(global_norm)({"a": jnp.zeros(3)})["a"], 0)
    assert np.isfinite(jax.hessian(euclidean_norm)(jnp.zeros(3))).all()


def test_what_is_not_finite_shows():
    for bad in (np.inf, -np.inf, np.nan):
        x = jnp.asarray(draw(5)).at[2].set(bad)
        wanted = np.nan if np.isnan(bad) else np.inf
        np.testing.assert_array_equal(euclidean_norm(x), wanted)
        np.testing.assert_array_equal(global_norm({"a": x, "b": jnp.ones(2)}), wanted)
    assert euclidean_norm(jnp.zeros((2, 0))).tolist() == [0.0, 0.0]


def test_norms_beyond_the_range():
    """Of finite numbers the recorded norm is finite, and the scaled one exact."""
    x = {"a": jnp.full((4, 4), 3e38)}
    assert float(global_norm(x)) == np.finfo(np.float32).max
    scale, norm = scaled_global_norm(x)
    np.testing.assert_allclose(float(scale) * float(norm), 4 * 3e38, rtol=1e-6)
    assert float(euclidean_norm(x["a"].ravel())) == np.inf


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    x = jnp.asarray(draw(3000) * 1e-4, dtype)
    got = euclidean_norm(x)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, np.linalg.norm(np.asarray(x, np.float64)), rtol=1e-6)
    assert float(euclidean_norm(jnp.full(4, 6e4, jnp.float16))) == 120_000
    pair = {"w": x[None].repeat(4, 0) * jnp.asarray([1, 2, 3, 4], dtype)[:, None]}
    wanted = flow.signal_to_noise(jax.tree.map(lambda a: a.astype(jnp.float32), pair))["w"]
    np.testing.assert_allclose(flow.signal_to_noise(pair)["w"], wanted, rtol=1e-6)


def test_complex_parameters():
    x = draw(4) + 1j * draw(4, seed=1)
    np.testing.assert_allclose(global_norm({"a": jnp.asarray(x)}), np.linalg.norm(x), rtol=1e-6)


def test_powers_of_two_are_exact():
    values = jnp.asarray([0.0, 1.0, 0.7, 1e-40, 3e38, np.inf, np.nan])
    powers = np.asarray(power_of_two(values))
    np.testing.assert_array_equal(np.frexp(powers)[0], 0.5)
    assert (powers[[0, 5, 6]] == 1).all()
    assert np.isfinite(1 / powers).all()


def test_the_bits_are_those_of_the_plain_formula():
    tree = {str(i): jnp.asarray(draw(*shape, seed=i)) for i, shape in enumerate([(64, 64), (2, 64), (64,), (64, 1)])}
    np.testing.assert_array_equal(jax.jit(global_norm)(tree), jax.jit(optax.tree.norm)(tree))


@pytest.mark.parametrize("size", [1e-30, 1e25])
def test_states_of_any_size(size):
    hs = jnp.asarray(draw(4, 3, 5) * np.float32(size))
    profile, exact = flow.state_profile(hs), np.asarray(hs, np.float64)
    np.testing.assert_allclose(profile.norm, np.linalg.norm(exact, axis=-1).mean(axis=0), rtol=1e-6)
    wanted = exact.var(axis=(0, 2))
    np.testing.assert_array_equal(profile.variance, 0 if size < 1 else np.inf)  # itself out of the range
    near = flow.state_profile(hs * np.float32(1e-12 if size > 1 else 1e15)).variance
    np.testing.assert_allclose(near, wanted * (1e-24 if size > 1 else 1e30), rtol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "states"),
    [pytest.param(1e25, 1.0, marks=pytest.mark.slow), (1e-30, 1.0), pytest.param(1e-30, 1e-30, marks=pytest.mark.slow)],
)
def test_parameter_profiles_of_inputs_and_states_of_any_size(inputs, states, x64):
    """What a step adds to a gradient is a product with its input and its state, whatever their size."""
    cell = GRU()
    params, xs, carry, weight = jax.tree.map(jnp.asarray, random_problem(cell, 3, 4, 2, 3, "float64", 0))
    params = {**params, "W": {k: v / max(inputs, 1.0) for k, v in params["W"].items()}}
    if states < 1:
        params = {**params, "W": {k: v * 0 for k, v in params["W"].items()}, "c": {"n": params["c"]["n"] * 0}}
        params["b"] = {**params["b"], "n": params["b"]["n"] * 0}
    xs, carry = xs * inputs, carry * states

    @jax.jit
    def profile(params, xs, carry, weight):
        return flow.parameter_profile(cell, params, flow.Trajectory(xs, carry), weight)

    wanted = profile(params, xs, carry, weight)
    got = profile(*jax.tree.map(lambda a: a.astype(jnp.float32), (params, xs, carry, weight)))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert np.asarray(b).any()
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-6 * float(np.abs(b).max()))


@pytest.mark.parametrize(
    "size", [pytest.param(1e-35, marks=pytest.mark.slow), pytest.param(1e-25, marks=pytest.mark.slow), 1e25]
)
def test_penalties_do_not_depend_on_the_size_of_adjoints(size):
    cell = LSTM()
    params, xs, carry, weight = jax.tree.map(jnp.asarray, random_problem(cell, 3, 4, 2, 3, "float32", 0))

    @jax.jit
    @jax.value_and_grad
    def penalty(params, adjoint):
        return flow.vanishing_penalty(cell, params, flow.Trajectory(xs, carry), adjoint)

    one, other = penalty(params, (weight, 2 * weight)), penalty(params, (weight * size, 2 * weight * size))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8), one, other)


def test_spectral_radius_of_a_power_that_nearly_vanishes():
    """exp(ln(scale) + ln ||P|| / 2^20), where the last power's squares would be zero."""
    matrix = jnp.array([[0.0, 1.0], [1e-22, 0.0]])
    np.testing.assert_allclose(flow.spectral_radius(matrix), 1e-11, rtol=1e-4)
