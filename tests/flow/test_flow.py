"""The gradient-flow instruments against explicit differentiation and closed forms."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax
from gru_jax import flow
from gru_jax.cells import GRU, LSTM, Elman, LayerNormGRU, MinGRU, RefineGRU
from gru_jax.cells.base import Memory
from tests.golden.peers import random_problem

CELLS = [GRU(), GRU("before", output_gate=True), RefineGRU(), LayerNormGRU(), LSTM(), Elman(), MinGRU()]


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_adjoint_is_the_derivative_step_by_step(cell, x64):
    params, xs, carry0, weight = jax.tree.map(jnp.asarray, random_problem(cell, 2, 6, 2, 3, "float64", 0))
    lengths = jnp.array([4, 6])
    resets = jnp.zeros((2, 6), bool).at[1, 3].set(True)

    def loss(perturbation):
        out = gru_jax.unroll(cell, params, xs, carry0, lengths=lengths, resets=resets, perturbation=perturbation)
        return (jnp.sin(out.hs) * weight).sum()

    adjoint = jax.jit(jax.grad(loss))(jnp.zeros((2, 6, 3)))

    def rest(h, carry, b, t):
        """The loss of all steps from t on, of one sequence, given the state after step t."""
        carry, total = cell.with_hidden(carry, h), (jnp.sin(h) * weight[b, t]).sum()
        for s in range(t + 1, int(lengths[b])):
            if resets[b, s]:
                carry = cell.initial_carry((), 3, jnp.float64)
            carry = cell.step(params, carry, xs[b, s])
            total += (jnp.sin(cell.hidden(carry)) * weight[b, s]).sum()
        return total

    for b in range(2):
        carry = jax.tree.map(lambda a, b=b: a[b], carry0)
        for t in range(6):
            if t >= int(lengths[b]):
                np.testing.assert_array_equal(adjoint[b, t], 0)
                continue
            if resets[b, t]:
                carry = cell.initial_carry((), 3, jnp.float64)
            carry = cell.step(params, carry, xs[b, t])
            wanted = jax.grad(rest)(cell.hidden(carry), carry, b, t)
            np.testing.assert_allclose(adjoint[b, t], wanted, rtol=1e-12, atol=1e-14)


def test_orthogonal_recurrence_keeps_and_scales_the_norm(x64):
    """h' = g Q h: the adjoint of lag l has norm g^l; the slope and the horizon follow."""
    cell, g, time = Elman("relu"), 0.9, 50
    params = cell.init(jax.random.key(0), 1, 8, gru_jax.Scheme(recurrent="identity", recurrent_scale=g), jnp.float64)
    params["b"]["n"] = params["b"]["n"] + 1.0  # keeps relu in its linear part

    def loss(perturbation):
        return gru_jax.unroll(cell, params, jnp.zeros((2, time, 1)), perturbation=perturbation).hs[:, -1, 0].sum()

    norms = flow.adjoint_norms(jax.grad(loss)(jnp.zeros((2, time, 8))))
    profile = flow.lag_profile(norms)
    np.testing.assert_allclose(profile.mean, g ** np.arange(time), rtol=1e-12)
    np.testing.assert_allclose(profile.quantiles, np.tile(profile.mean, (3, 1)), rtol=1e-12)
    for fraction in (np.exp(-1), 0.01):
        wanted = int(np.ceil(np.log(fraction) / np.log(g)))
        assert int(flow.horizon(profile.mean, fraction)) == wanted
    assert int(flow.horizon(profile.mean, 1e-9)) == time


def test_norms_neither_overflow_nor_vanish(without_alarms):
    tiny, huge = (jnp.full((1, 1, 4), scale, jnp.float32) for scale in (1e-30, 1e30))
    np.testing.assert_allclose(flow.adjoint_norms(tiny), 2e-30, rtol=1e-6)
    np.testing.assert_allclose(flow.adjoint_norms(huge), 2e30, rtol=1e-6)
    np.testing.assert_array_equal(flow.adjoint_norms(jnp.zeros((2, 3, 4))), 0)
    for value in (9e37, 1.5e38, np.inf, np.nan):
        norm = flow.adjoint_norms(jnp.array([[[value, 0.0]]], jnp.float32))[0, 0]
        np.testing.assert_allclose(norm, np.float32(value), rtol=1e-6)


def test_lag_counts_from_the_last_valid_step(without_alarms):
    values = jnp.arange(8.0).reshape(2, 4)
    by_lag = flow.by_lag(values, jnp.array([4, 2]))
    np.testing.assert_array_equal(by_lag, [[3, 2, 1, 0], [5, 4, np.nan, np.nan]])
    np.testing.assert_array_equal(flow.by_lag(values), values[:, ::-1])
    profile = flow.lag_profile(values, jnp.array([4, 2]))
    np.testing.assert_array_equal(profile.mean, [4, 3, 1, 0])
    backwards = flow.lag_profile(values, jnp.array([4, 2]), reverse=True)
    np.testing.assert_array_equal(backwards.mean, [2, 3, 2, 3])
    shorter = flow.lag_profile(values, jnp.array([2, 1]))
    np.testing.assert_array_equal(shorter.mean, [2.5, 0, np.nan, np.nan])


def test_an_exploding_sequence_shows(without_alarms):
    values = jnp.ones((4, 3)).at[1, 0].set(jnp.inf).at[2, 1].set(jnp.nan)
    profile = flow.lag_profile(values)
    np.testing.assert_array_equal(profile.mean, [1, np.inf, np.inf])
    np.testing.assert_array_equal(profile.quantiles[1], 1)
    most = flow.lag_profile(jnp.full((4, 3), jnp.nan).at[0].set(1.0))
    np.testing.assert_array_equal(most.quantiles, [[1] * 3, [np.inf] * 3, [np.inf] * 3])


def test_horizon_starts_behind_the_peak():
    profile = jnp.array([0.001, 0.5, 1.0, 0.2, 0.005, 0.001])
    assert int(flow.horizon(profile, 0.01)) == 4


def test_horizons_of_profiles_that_are_not_finite(without_alarms):
    exploding = jnp.array([1.0, 2.0, jnp.inf, jnp.inf])
    assert int(flow.horizon(exploding, 0.01)) == 4
    assert int(flow.explosion(exploding)) == 2
    fading = jnp.array([1.0, 1e-3, jnp.inf])
    assert int(flow.horizon(fading, 0.01)) == 1
    late = jnp.array([jnp.nan, 0.0, 1.0, 1.0, 101.0])  # a loss that does not read the last states
    assert int(flow.explosion(late)) == 4
    unknown = jnp.full(3, jnp.nan)
    assert int(flow.horizon(unknown, 0.01)) == int(flow.explosion(unknown)) == 3
    assert int(flow.horizon(jnp.zeros(0), 0.01)) == int(flow.explosion(jnp.zeros(0))) == 0


@pytest.mark.usefixtures("with_jit")  # of numbers that are known, beyond the end is an error
def test_lengths_beyond_the_end_mean_the_end():
    norms = jnp.arange(1.0, 7.0).reshape(2, 3)
    profile = jax.jit(flow.lag_profile)(norms, jnp.array([9, 3]))
    np.testing.assert_array_equal(profile.mean, [4.5, 3.5, 2.5])


@pytest.mark.parametrize("cell", CELLS, ids=str)
@pytest.mark.parametrize("reverse", [False, True])
def test_gates_are_those_of_the_steps(cell, reverse, x64):
    params, xs, carry, _ = jax.tree.map(jnp.asarray, random_problem(cell, 2, 5, 2, 3, "float64", 0))
    lengths = jnp.array([3, 5])
    gates = flow.gate_values(cell, params, flow.Trajectory(xs, carry, lengths, reverse=reverse))
    assert set(gates) >= {*cell.input_gates}
    for b in range(2):
        state = jax.tree.map(lambda a, b=b: a[b], carry)
        for t in sorted(range(int(lengths[b])), reverse=reverse):
            state, wanted = cell.step_with_gates(params, state, xs[b, t])
            for name, value in wanted.items():
                np.testing.assert_allclose(gates[name][b, t], value, rtol=1e-12, atol=1e-13)


def test_histograms_count_valid_steps_only():
    values = {"z": jnp.array([[[0.05, 0.95], [0.5, 0.5]]]), "n": jnp.zeros((1, 2, 2))}
    all_steps = flow.gate_histograms(values, bins=10)
    first = flow.gate_histograms(values, jnp.array([[True, False]]), bins=10)
    assert set(all_steps) == {"z"}
    np.testing.assert_allclose(all_steps["z"], [0.25, 0, 0, 0, 0, 0.5, 0, 0, 0, 0.25])
    np.testing.assert_allclose(first["z"], [0.5, 0, 0, 0, 0, 0, 0, 0, 0, 0.5])


@pytest.mark.usefixtures("single_precision")
def test_trajectories_are_taken_as_unroll_takes_them(unchecked_types, jax_as_users_have_it):
    """NumPy's double precision is the precision of the parameters."""
    cell = GRU()
    params, xs = cell.init(jax.random.key(0), 2, 3), np.random.default_rng(0).normal(size=(4, 5, 2))
    wanted = flow.gate_values(cell, params, jnp.asarray(xs, jnp.float32))["z"]
    for along in (xs, flow.Trajectory(xs)):
        np.testing.assert_array_equal(flow.gate_values(cell, params, along)["z"], wanted)


def test_the_time_scale_is_of_what_is_kept_where_a_cell_names_it():
    """Whatever the sign of its gate."""

    @dataclasses.dataclass(frozen=True)
    class Leaky(Elman):
        @property
        def memory(self):
            return Memory("n", -1, kept="k")

    gates = {"n": jnp.full((2, 3, 4), 0.1), "k": jnp.full((2, 3, 4), jnp.exp(-0.1))}
    np.testing.assert_allclose(flow.time_scales(Leaky(), gates), 10.0, rtol=1e-5)
