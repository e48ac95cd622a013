"""Sizes of states, gradients and updates; time scales of gates."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax import Scheme, flow
from gru_jax.cells import GRU, LSTM, Elman, MinGRU
from gru_jax.flow import theory
from tests.broken import broken


def test_states_over_time():
    rng = np.random.default_rng(0)
    hs, lengths = rng.standard_normal((5, 4, 3)).astype(np.float32), np.array([4, 3, 3, 2, 1])
    valid = np.arange(4)[None] < lengths[:, None]
    profile = flow.state_profile(broken(hs, ~valid), jnp.asarray(valid))
    for t in range(4):
        seen = hs[valid[:, t], t]
        np.testing.assert_allclose(profile.norm[t], np.linalg.norm(seen, axis=-1).mean(), rtol=1e-5)
        np.testing.assert_allclose(profile.variance[t], seen.var(), rtol=1e-4)
    everywhere = flow.state_profile(jnp.asarray(hs))
    np.testing.assert_allclose(everywhere.variance, hs.var(axis=(0, 2)), rtol=1e-4)
    nobody = flow.state_profile(jnp.asarray(hs), jnp.zeros((5, 4), bool))
    assert np.isnan(nobody.norm).all()
    assert np.isnan(nobody.variance).all()


def test_signal_to_noise():
    rng = np.random.default_rng(0)
    gradients = {"a": 2.0 + 0.5 * rng.standard_normal((20_000, 4)), "b": rng.standard_normal((20_000, 3, 2))}
    ratios = flow.signal_to_noise(jax.tree.map(lambda g: jnp.asarray(g, jnp.float32), gradients))
    np.testing.assert_allclose(ratios["a"], 2.0 / 0.5, rtol=0.02)
    assert ratios["b"] < 0.03
    assert np.isnan(flow.signal_to_noise(jnp.ones((4, 2))))
    assert np.isnan(flow.signal_to_noise(jnp.ones((1, 2))))


def test_signal_to_noise_has_no_bias_in_small_batches():
    """||G||^2 over draws of batches of 4, where the plain mean's square would be off by a quarter of the noise."""
    g = 0.5 + np.random.default_rng(0).standard_normal((5000, 4, 9))
    mean, noise = g.mean(axis=1), g.var(axis=1, ddof=1).sum(axis=-1)
    signal = np.square(mean).sum(axis=-1) - noise / 4
    np.testing.assert_allclose(signal.mean(), 9 * 0.25, rtol=0.02)
    ratios = jax.vmap(flow.signal_to_noise)(jnp.asarray(g, jnp.float32))
    np.testing.assert_allclose(ratios, np.sqrt(np.maximum(signal, 0) / noise), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("size", [1e-30, 1e25])
def test_ratios_of_any_size(size):
    rng = np.random.default_rng(0)
    g = jnp.asarray(1.0 + rng.standard_normal((8, 5)), jnp.float32)
    np.testing.assert_allclose(flow.signal_to_noise(g * size), flow.signal_to_noise(g), rtol=1e-5)
    np.testing.assert_allclose(flow.update_ratios(g[0] * size, g[1] * size), flow.update_ratios(g[0], g[1]), rtol=1e-5)


def test_update_ratios():
    before, after = {"a": jnp.full(4, 2.0), "b": jnp.zeros(2)}, {"a": jnp.full(4, 2.1), "b": jnp.ones(2)}
    ratios = flow.update_ratios(before, after)
    np.testing.assert_allclose(ratios["a"], 0.05, rtol=1e-5)
    assert np.isinf(ratios["b"])
    assert np.isnan(flow.update_ratios(jnp.zeros(2), jnp.zeros(2)))


@pytest.mark.parametrize(
    ("cell", "gate", "sign"),
    [(GRU(), "z", 1), (GRU(update="write"), "z", -1), (LSTM(), "f", 1), (MinGRU(), "z", -1)],
    ids=str,
)
def test_time_scales(cell, gate, sign):
    times = jnp.array([1.0, 10.0, 1000.0])
    kept = jnp.exp(-1.0 / times)
    values = kept if sign > 0 else 1.0 - kept
    gates = {gate: jnp.broadcast_to(values, (2, 5, 3))}
    np.testing.assert_allclose(flow.time_scales(cell, gates), times, rtol=1e-3)
    valid = jnp.ones((2, 5), bool).at[0, 2:].set(False)
    padded = {gate: broken(gates[gate], ~valid)}
    np.testing.assert_allclose(flow.time_scales(cell, padded, valid), times, rtol=1e-3)
    always = {gate: jnp.full((1, 2, 3), 1.0 if sign > 0 else 0.0)}
    np.testing.assert_array_equal(flow.time_scales(cell, always), np.inf)


def test_a_cell_without_memory_gate_has_no_time_scales():
    assert flow.time_scales(Elman(), {"n": jnp.zeros((1, 1, 1))}) is None


def test_retention_time_is_that_of_the_gate():
    logits = jnp.array([-2.0, 0.0, 3.0, 12.0])
    gates = {"f": jnp.broadcast_to(jax.nn.sigmoid(logits), (1, 1, 4))}
    np.testing.assert_allclose(theory.retention_time(logits), flow.time_scales(LSTM(), gates), rtol=2e-2)
    np.testing.assert_allclose(theory.retention_time(12.0), np.exp(12.0) + 0.5, rtol=1e-5)


def test_chrono_time_scales_are_those_of_the_draw():
    scheme = Scheme(recurrent="zeros", gate_bias="chrono", t_min=3.0, t_max=200.0)
    biases = GRU().init(jax.random.key(0), 1, 4000, scheme)["b"]["z"]
    scales = np.sort(theory.retention_time(biases))
    wanted = theory.chrono_time_scales(jnp.asarray(scales), 3.0, 200.0)
    np.testing.assert_allclose(np.arange(4000) / 4000, wanted, atol=0.03)
    assert float(theory.chrono_time_scales(1.0, 3.0, 200.0)) == 0.0
    assert float(theory.chrono_time_scales(500.0, 3.0, 200.0)) == 1.0


def test_saturation():
    gates = {"z": jnp.array([[[0.01, 0.5], [0.99, 0.5]]]), "n": jnp.array([[[-1.0, 0.0], [1.0, 0.99]]])}
    fractions = flow.saturation(gates)
    np.testing.assert_allclose(fractions["z"], [0.25, 0.25])
    np.testing.assert_allclose(fractions["n"], [0.25, 0.5])
    first = flow.saturation(gates, jnp.array([[True, False]]))
    np.testing.assert_allclose(first["z"], [0.5, 0.0])


def test_slope_and_explosion(without_alarms):
    lags = jnp.arange(50.0)
    decaying, growing = jnp.exp(-0.1 * lags), jnp.exp(0.2 * lags)
    np.testing.assert_allclose(flow.log_slope(decaying), -0.1, rtol=1e-5)
    np.testing.assert_allclose(flow.log_slope(growing.at[7].set(0.0).at[9].set(jnp.nan)), 0.2, rtol=1e-5)
    assert np.isnan(flow.log_slope(jnp.array([1.0, 0.0, jnp.nan])))
    assert int(flow.explosion(decaying)) == 50
    assert int(flow.explosion(growing)) == int(np.floor(np.log(100) / 0.2)) + 1
    assert int(flow.explosion(jnp.array([jnp.nan, 1.0, 5.0, jnp.inf]))) == 3
