"""Attribution: against closed forms, finite differences, and what it promises of itself."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax
from gru_jax import inspect
from gru_jax.cells import CELLS, GRU, Elman
from gru_jax.errors import UsageError
from gru_jax.plotting.inspection import plot_attributions
from tests.golden.peers import random_problem


def recurrent_score(name, units=6, gain=3.0):
    """The sum of a cell's last state by its inputs, steep enough for the way to bend."""
    cell = CELLS[name]()
    params, xs, _, _ = jax.tree.map(jnp.asarray, random_problem(cell, 3, 12, 2, units, "float32", 0))
    params["W"] = jax.tree.map(lambda a: gain * a, params["W"])
    return lambda inputs: gru_jax.unroll(cell, params, inputs).hs[:, -1].sum(axis=-1), xs


@pytest.mark.parametrize("name", ["gru", "lstm", pytest.param("layer_norm_gru", marks=pytest.mark.slow)])
def test_shares_add_up_to_the_difference(name):
    score, xs = recurrent_score(name)
    for baseline in (None, xs.mean(axis=(0, 1), keepdims=True)):
        shares = jax.jit(lambda xs, b=baseline: inspect.integrated_gradients(score, xs, b))(xs)
        start = jnp.zeros_like(xs) if baseline is None else jnp.broadcast_to(baseline, xs.shape)
        np.testing.assert_allclose(shares.difference, score(xs) - score(start), rtol=1e-5)
        np.testing.assert_allclose(shares.values.sum(axis=(1, 2)), shares.difference, atol=1e-3)
        np.testing.assert_array_less(shares.error, 1e-3)


def test_a_bent_way_is_cut_finer_until_it_is_enough(x64):
    def score(xs):
        return jnp.tanh(40.0 * (xs.sum(axis=(1, 2)) - 1.3))

    xs = jnp.array([[[1.0], [2.0]]])
    shares = inspect.integrated_gradients(score, xs, tolerance=1e-6)
    assert int(shares.intervals) > 10
    np.testing.assert_allclose(shares.values.ravel(), shares.difference[0] * np.array([1 / 3, 2 / 3]), rtol=1e-5)
    stopped = inspect.integrated_gradients(score, xs, tolerance=1e-6, most_intervals=1)
    assert stopped.error[0] > 1e-6  # and says so
    assert int(stopped.intervals) == 8


def test_a_network_that_decides_jumps_and_its_shares_still_add_up(x64):
    """h' = tanh(2 h + x + 0.05) holds a sign for 80 steps: a little input decides for the other one, some more back."""
    cell = Elman()
    params = cell.init(jax.random.key(0), 1, 1, dtype=jnp.float64)
    params["U"]["n"], params["W"]["n"] = jnp.full((1, 1), 2.0), jnp.ones((1, 1))
    params["b"]["n"] = jnp.full(1, 0.05)
    xs = jnp.zeros((3, 80, 1)).at[:, 0, 0].set(-0.5).at[:, 20, 0].set(jnp.array([0.0, 4.0, -1.0]))

    def score(inputs):
        return gru_jax.unroll(cell, params, inputs).hs[:, -1, 0]

    shares = jax.jit(lambda xs: inspect.integrated_gradients(score, xs))(xs)
    height = float(shares.difference[0])
    assert height < -1.9
    np.testing.assert_array_less(shares.error, 1e-3)
    values = np.asarray(shares.values)[..., 0]
    np.testing.assert_array_equal(np.delete(values, [0, 20], axis=1), 0.0)
    np.testing.assert_allclose(values[:, 0], height, atol=1e-2)  # the first pulse decides, in all of them
    np.testing.assert_allclose(values[:, 20], [0.0, -height, 0.0], atol=1e-2)  # the second one against it
    np.testing.assert_allclose(shares.jumped, [-height, -2 * height, -height], atol=1e-2)


def test_a_step_is_shared_by_the_direction_in_which_it_is_climbed():
    def score(xs):
        return jnp.tanh(3e5 * (xs[:, 0, 0] + 2.0 * xs[:, 1, 0] - 1.7))

    shares = inspect.integrated_gradients(score, jnp.ones((1, 2, 1)))
    np.testing.assert_allclose(shares.values.ravel(), [2 / 3, 4 / 3], rtol=1e-3)
    np.testing.assert_array_less(shares.error, 1e-3)
    assert shares.values.dtype == jnp.float32


def test_what_does_not_matter_gets_nothing_and_what_is_alike_the_same():
    def score(xs):
        return (xs[:, 0, 0] * xs[:, 1, 0]) ** 2 + jnp.sin(xs[:, 2, 0])

    xs = jnp.array([[[1.5, 7.0], [1.5, 7.0], [0.3, 7.0]]])
    values = np.asarray(inspect.integrated_gradients(score, xs).values)
    np.testing.assert_array_equal(values[..., 1], 0.0)
    np.testing.assert_allclose(values[0, :, 0], [1.5**4 / 2, 1.5**4 / 2, np.sin(0.3)], rtol=1e-4)


def test_saliency_is_the_slope(x64):
    cell = GRU()
    params, xs, _, _ = jax.tree.map(jnp.asarray, random_problem(cell, 2, 5, 2, 3, "float64", 0))

    def score(inputs):
        return gru_jax.unroll(cell, params, inputs).hs[:, -1, 0]

    slopes = np.asarray(jax.jit(lambda xs: inspect.saliency(score, xs))(xs))
    for b, t, d in ((0, 0, 0), (1, 4, 1), (1, 2, 0)):
        nudge = jnp.zeros_like(xs).at[b, t, d].set(1e-6)
        difference = (score(xs + nudge) - score(xs - nudge)) / 2e-6
        np.testing.assert_allclose(difference[b], slopes[b, t, d], atol=1e-8)
        np.testing.assert_allclose(np.delete(difference, b), 0.0, atol=1e-12)  # sequences do not mix


@pytest.mark.parametrize("width", [1, 3, 100])
def test_occlusion_hides_one_stretch_at_a_time(width):
    weights = jnp.arange(1.0, 8.0)

    def score(xs):
        return (xs[..., 0] * weights[None]).sum(axis=1)

    falls = np.asarray(inspect.occlusion(score, jnp.full((2, 7, 1), 2.0), jnp.full((1, 1, 1), 0.5), width=width))
    stretches = [np.asarray(weights)[n : n + width].sum() for n in range(0, 7, width)]
    np.testing.assert_allclose(falls, 1.5 * np.tile(stretches, (2, 1)), rtol=1e-5)


def test_bad_inputs_are_named(unchecked_types):
    def score(xs):
        return xs.sum(axis=(1, 2))

    with pytest.raises(UsageError, match=r"xs is int32\[1, 2, 3\]: attributed is to floats of the first layer"):
        inspect.integrated_gradients(score, jnp.ones((1, 2, 3), jnp.int32))
    with pytest.raises(UsageError, match="xs is bfloat16: gradients are added up in float32, float64"):
        inspect.integrated_gradients(score, jnp.ones((1, 2, 3), jnp.bfloat16))
    with pytest.raises(UsageError, match=r"baseline has shape \[1, 3, 1\]: allowed are sizes that spread over"):
        inspect.occlusion(score, jnp.ones((1, 2, 3)), jnp.ones((1, 3, 1)))
    with pytest.raises(UsageError, match="width=0: allowed are whole numbers from 1"):
        inspect.occlusion(score, jnp.ones((1, 2, 3)), width=0)


def test_what_was_hidden_is_drawn_over_its_steps():
    xs = np.random.default_rng(0).normal(size=(1, 6, 2)).astype(np.float32)
    picture = plot_attributions(xs, 0.1 * xs, np.ones((1, 3), np.float32), 2, np.ones((1, 6), bool), ["a sequence"])
    (lower,) = (ax for ax in picture.axes if ax.get_ylabel() == "hidden")
    assert [bar.get_x() for bar in lower.patches] == [-0.5, 1.5, 3.5]
    assert lower.get_xlim() == (-0.5, 5.5)
