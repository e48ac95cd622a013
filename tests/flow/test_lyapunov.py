"""Lyapunov exponents against closed forms."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax
from gru_jax import flow
from gru_jax.cells import GRU, LSTM, Elman, MinGRU
from gru_jax.errors import UsageError
from gru_jax.flow import theory
from tests.golden.peers import random_problem


def gaussian_gru(units, scale, update_bias=0.0, reset_bias=0.0, seed=0, dtype=jnp.float32):
    """A GRU with a Gaussian recurrent candidate kernel and biases on the gates alone."""
    scheme = gru_jax.Scheme(
        recurrent="fan_in_normal",
        recurrent_scale=scale,
        gates={
            "z": {"bias": "constant", "bias_scale": update_bias},
            "r": {"bias": "constant", "bias_scale": reset_bias},
        },
    )
    return GRU().init(jax.random.key(seed), 1, units, scheme, dtype)


@pytest.mark.parametrize("update_bias", [0.0, float(np.log(99))])
@pytest.mark.usefixtures("with_jit")  # of 20,000 steps
def test_autonomous_gru(update_bias, x64):
    """All H exponents at rest, to 1e-3 nats."""
    units, time = 32, 20_000
    params = gaussian_gru(units, 1.5, update_bias, 0.3, dtype=jnp.float64)
    spectrum = jax.jit(lambda p, x: flow.lyapunov_spectrum(GRU(), p, x, every=4, warmup=2000))(
        params, jnp.zeros((1, time, 1))
    )
    eigenvalues = jnp.asarray(np.linalg.eigvals(np.asarray(params["U"]["n"])))
    wanted = theory.autonomous_exponents(eigenvalues, update_bias, 0.3)
    np.testing.assert_allclose(spectrum.exponents[0], wanted, rtol=0, atol=1e-3)


@pytest.mark.usefixtures("with_jit")  # of 400 units
def test_edge_of_stability_is_where_theory_says(x64):
    """The scale of U_n at which the largest exponent of the resting cell crosses 0, over draws of H = 400."""
    reset_bias, units = 0.5, 400
    scales = jnp.linspace(1.4, 2.0, 5)
    kernel = np.asarray(gaussian_gru(units, 1.0, 0.0, reset_bias, dtype=jnp.float64)["U"]["n"])
    largest = []
    for scale in scales:
        params = gaussian_gru(units, float(scale), 1.0, reset_bias, dtype=jnp.float64)
        spectrum = flow.lyapunov_spectrum(GRU(), params, jnp.zeros((1, 1500, 1)), k=4, every=10, warmup=500)
        largest.append(float(spectrum.exponents[0, 0]))
    crossing = np.interp(0.0, largest, np.asarray(scales))
    assert np.all(np.diff(largest) > 0)
    # Of a finite matrix the edge of the disc is where its outermost eigenvalue is.
    radius = np.linalg.eigvals(kernel).real.max()
    np.testing.assert_allclose(crossing, float(theory.edge_of_stability(reset_bias)) / radius, rtol=5e-3)
    np.testing.assert_allclose(crossing, float(theory.edge_of_stability(reset_bias)), rtol=2e-2)


@pytest.mark.parametrize(("scale", "reverse"), [(0.9, False), (1.0, True), (1.1, False)])
def test_orthogonal_recurrence(scale, reverse):
    cell = Elman("identity")
    params = cell.init(jax.random.key(0), 1, 16, gru_jax.Scheme(recurrent_scale=scale))
    xs = flow.Trajectory(jax.random.normal(jax.random.key(1), (2, 300, 1)), reverse=reverse)
    spectrum, largest = jax.jit(
        lambda p: (flow.lyapunov_spectrum(cell, p, xs, every=7), flow.largest_exponent(cell, p, xs))
    )(params)
    np.testing.assert_allclose(spectrum.exponents, np.log(scale), rtol=0, atol=2e-6)
    np.testing.assert_allclose(flow.finite_time_spread(spectrum), 0.0, atol=1e-5)
    np.testing.assert_allclose(flow.log_condition(spectrum, 1000), 0.0, atol=5e-3)
    np.testing.assert_allclose(largest, np.log(scale), atol=2e-6)


def test_products_of_gaussian_matrices():
    size, time = 16, 4000
    matrices = jax.random.normal(jax.random.key(0), (4, time, size, size)) / size**0.5
    got = jax.jit(flow.product_spectrum)(matrices).exponents.mean(axis=0)
    np.testing.assert_allclose(got, theory.gaussian_product_exponents(size), rtol=0, atol=0.02)
    np.testing.assert_allclose(
        theory.gaussian_product_exponents(size, 3.0), theory.gaussian_product_exponents(size) + np.log(3.0), rtol=1e-5
    )


@pytest.mark.parametrize("cell", [GRU("before", "write"), LSTM(), MinGRU()], ids=str)
def test_the_sum_of_all_exponents_is_the_volume(cell, x64, without_alarms):
    """sum_i lambda_i = <ln |det J_t|>, and the largest is that of one vector."""
    params, xs, carry, _ = jax.tree.map(jnp.asarray, random_problem(cell, 2, 23, 2, 3, "float64", 0))
    lengths = jnp.array([23, 11])

    @jax.jit
    def measure(params):
        whole, short = flow.Trajectory(xs, carry), flow.Trajectory(xs, carry, lengths)
        spectra = [flow.lyapunov_spectrum(cell, params, short, every=every) for every in (1, 2)]
        first = flow.lyapunov_spectrum(cell, params, whole, k=2).local
        largest = flow.largest_exponent(cell, params, whole, every=4)
        return flow.dense_jacobians(cell, params, whole), spectra, first, largest

    dense, spectra, first, largest = measure(params)
    for every, spectrum in zip((1, 2), spectra, strict=True):
        assert spectrum.local.shape[1] == -(-23 // every)
        np.testing.assert_array_equal(spectrum.steps.sum(axis=1), lengths)
        for b, length in enumerate((23, 11)):
            volume = np.log(np.abs(np.linalg.det(dense[b, :length]))).mean()
            np.testing.assert_allclose(spectrum.exponents[b].sum(), volume, rtol=1e-8)
    # The first direction of two, wherever its exponent was sorted to.
    off = np.abs(np.asarray(first).mean(axis=1) - np.asarray(largest)[:, None]).min(axis=1)
    np.testing.assert_allclose(off, 0.0, atol=1e-10)


def test_warmup_does_not_count(x64):
    cell = GRU()
    params, xs, carry, _ = jax.tree.map(jnp.asarray, random_problem(cell, 2, 20, 2, 3, "float64", 0))
    spectrum = flow.lyapunov_spectrum(cell, params, flow.Trajectory(xs, carry), every=3, warmup=7)
    weights = np.asarray(spectrum.steps, float)[:, 3:, None]
    wanted = (np.asarray(spectrum.local)[:, 3:] * weights).sum(axis=1) / weights.sum(axis=1)
    np.testing.assert_allclose(spectrum.exponents, np.sort(wanted)[:, ::-1], rtol=1e-12)
    other = flow.lyapunov_spectrum(cell, params, flow.Trajectory(xs, carry), every=3)
    np.testing.assert_allclose(spectrum.local, other.local, rtol=1e-12)


def test_the_exponents_do_not_hang_on_the_interval_or_the_basis(x64):
    params, xs = gaussian_gru(8, 3.0, dtype=jnp.float64), jax.random.normal(jax.random.key(1), (1, 3000, 1))
    runs = [
        flow.lyapunov_spectrum(GRU(), params, xs, every=every, warmup=300, key=jax.random.key(seed)).exponents
        for every, seed in ((1, 0), (10, 0), (10, 1))
    ]
    np.testing.assert_allclose(runs[0], runs[1], rtol=0, atol=1e-6)
    np.testing.assert_allclose(runs[0], runs[2], rtol=0, atol=3e-3)


def test_gradient_variance_of_a_linear_unit():
    """E[(dh/d lambda)^2] of h' = lambda h + x with white x, by forward mode through the unroll."""
    cell, decay = Elman("identity"), 0.9
    params = cell.init(jax.random.key(0), 1, 1, gru_jax.Scheme(input="identity", recurrent="identity"))
    xs = jax.random.normal(jax.random.key(1), (4000, 400, 1))

    def last(kernel):
        return gru_jax.unroll(cell, {**params, "U": {"n": kernel}}, xs).carry

    h, slope = jax.jvp(last, (jnp.full((1, 1), decay),), (jnp.ones((1, 1)),))
    state, gradient = theory.linear_unit(decay)
    np.testing.assert_allclose(jnp.square(h).mean(), state, rtol=0.05)
    np.testing.assert_allclose(jnp.square(slope).mean(), gradient, rtol=0.03)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": 0}, "k=0: allowed are whole numbers from 1"),
        ({"k": 4}, "k=4: allowed are 1 to 3, the numbers in a state"),
        ({"every": 0}, "every=0: allowed are whole numbers from 1"),
        ({"warmup": 5}, "warmup=5: allowed are 0 to 4, below the number of steps"),
    ],
)
def test_bad_arguments_are_named(changes, message):
    params, xs, _, _ = jax.tree.map(jnp.asarray, random_problem(GRU(), 2, 5, 2, 3, "float32", 0))
    with pytest.raises(UsageError, match=message):
        flow.lyapunov_spectrum(GRU(), params, xs, **changes)


@pytest.mark.parametrize(("every", "reverse"), [(1, True), (4, False), (4, True)])
def test_the_padding_has_no_steps(every, reverse, x64, without_alarms):
    params, xs, carry, _ = jax.tree.map(jnp.asarray, random_problem(GRU(), 2, 40, 2, 3, "float64", 0))

    @jax.jit
    def measure(params):
        along = flow.Trajectory(xs, carry, jnp.array([24, 40]), reverse=reverse)
        alone = flow.Trajectory(xs[:1, :24], carry[:1], reverse=reverse)
        return [flow.lyapunov_spectrum(GRU(), params, of, every=every, warmup=8) for of in (along, alone)]

    padded, alone = measure(params)
    np.testing.assert_allclose(padded.exponents[:1], alone.exponents, rtol=1e-10)
    assert padded.steps.sum(axis=1).tolist() == [24 - 8, 40 - 8]


def test_spread_belongs_to_its_exponent(x64):
    """Directions may end in another order than they began in; an exponent keeps its local values and its spread."""
    matrices = jax.random.normal(jax.random.key(24), (64, 11, 2, 2))
    spectrum = jax.jit(lambda m: flow.product_spectrum(m, every=2, warmup=3))(matrices)
    assert np.all(np.diff(spectrum.exponents, axis=1) <= 0)
    weight = np.asarray(spectrum.steps)[..., None]
    assert weight[0, :, 0].tolist() == [0, 0, 2, 2, 2, 1]
    local = np.asarray(spectrum.local)
    mean = (weight * local).sum(axis=1) / weight.sum(axis=1)
    np.testing.assert_allclose(mean, spectrum.exponents, rtol=1e-10, atol=1e-12)
    spread = np.sqrt((weight * np.square(local - mean[:, None])).sum(axis=1) / weight.sum(axis=1))
    np.testing.assert_allclose(flow.finite_time_spread(spectrum), spread, rtol=1e-10)
