"""Probes and similarities: closed forms, invariances, and controls that find nothing."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gru_jax import inspect
from gru_jax.errors import UsageError


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def test_a_probe_is_the_closed_form_of_ridge_regression(x64):
    x, y = normal(0, 50, 4), normal(1, 50, 2)
    probe = inspect.fit_probe(x, y, ridge=0.3)
    centred = np.asarray(x) - np.asarray(x).mean(axis=0)
    penalty = 0.3 * np.linalg.eigvalsh(centred.T @ centred).mean()
    augmented = np.concatenate([centred, np.sqrt(penalty) * np.eye(4)])
    target = np.concatenate([np.asarray(y) - np.asarray(y).mean(axis=0), np.zeros((4, 2))])
    np.testing.assert_allclose(probe.weights, np.linalg.lstsq(augmented, target)[0], rtol=1e-9)
    np.testing.assert_allclose(probe.read(x).mean(axis=0), y.mean(axis=0), rtol=1e-9)


def test_scale_and_number_of_states_do_not_change_what_is_read(x64):
    x, y = normal(0, 40, 3), normal(1, 40, 1)
    read = inspect.fit_probe(x, y).read(x)
    np.testing.assert_allclose(inspect.fit_probe(1e3 * x + 7.0, y).read(1e3 * x + 7.0), read, rtol=1e-6)
    twice = inspect.fit_probe(jnp.tile(x, (2, 1)), jnp.tile(y, (2, 1)))
    np.testing.assert_allclose(twice.read(x), read, rtol=1e-9)


def test_rows_that_do_not_count_reach_nothing():
    x, y = normal(0, 20, 3), normal(1, 20, 1)
    counts = jnp.arange(20) < 12
    spoilt = jnp.where(counts[:, None], y, jnp.nan), jnp.where(counts[:, None], x, jnp.inf)
    alone = inspect.fit_probe(x[:12], y[:12])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        inspect.fit_probe(spoilt[1], spoilt[0], counts=counts),
        alone,
    )


def test_over_time_a_probe_finds_when_a_variable_is_held():
    """Units hold a number from step 3 on, until step 6; a unit that never moves does no harm."""
    number, states = normal(0, 200), 0.5 * normal(1, 200, 8, 5)
    held = states.at[:, 3:6, 2].add(number[:, None]).at[..., 4].set(1.0)
    targets = jnp.broadcast_to(number[:, None, None], (200, 8, 1))
    profile = jax.jit(inspect.probe_over_time)(held, targets)
    scores = np.asarray(profile.scores[:, 0])
    assert scores[3:6].min() > 0.7  # 1 / (1 + 1/4) in the limit
    assert scores[3:6].max() < 0.9
    assert scores[[0, 1, 2, 6, 7]].max() < 0.15
    assert np.asarray(profile.control).max() < 0.15


def test_a_probe_is_tested_on_other_sequences():
    """With as many units as sequences to fit to, everything is fitted, and nothing is read elsewhere."""
    profile = inspect.probe_over_time(normal(0, 40, 2, 20), normal(1, 40, 2, 1), ridge=1e-6)
    assert np.asarray(profile.scores).max() < 0.3


def test_padding_does_not_count():
    states, number = normal(0, 60, 4, 3), normal(1, 60, 4, 1)
    states = states.at[..., :1].set(number)
    valid = jnp.arange(4)[None] < jnp.where(jnp.arange(60) < 40, 4, 2)[:, None]
    spoilt = jnp.where(valid[..., None], states, 1e6)
    np.testing.assert_allclose(inspect.probe_over_time(spoilt, number, valid=valid).scores, 1.0, atol=1e-3)


def test_a_constant_has_no_score():
    assert np.isnan(inspect.probe_over_time(normal(0, 8, 2, 3), jnp.ones((8, 2, 1))).scores).all()


def test_cka_of_rotated_scaled_and_shifted_representations(x64):
    x, y = normal(0, 80, 5), normal(1, 80, 7)
    turn = jnp.linalg.qr(normal(2, 5, 5))[0]
    value = float(inspect.linear_cka(x, y))
    np.testing.assert_allclose(inspect.linear_cka(3.0 * x @ turn + 2.0, y), value, rtol=1e-10)
    np.testing.assert_allclose(inspect.linear_cka(y, x), value, rtol=1e-12)
    centred = [np.asarray(a) - np.asarray(a).mean(axis=0) for a in (x, y)]
    grams = [a @ a.T for a in centred]
    by_kernels = (grams[0] * grams[1]).sum() / np.sqrt((grams[0] ** 2).sum() * (grams[1] ** 2).sum())
    np.testing.assert_allclose(value, by_kernels, rtol=1e-10)
    np.testing.assert_allclose(inspect.linear_cka(x, x @ turn), 1.0, rtol=1e-10)
    stretched = float(inspect.linear_cka(x, x * jnp.array([[10.0, 1.0, 1.0, 1.0, 1.0]])))
    assert stretched < 0.9  # no invariance to every linear map


def test_representational_similarity_is_a_rank_correlation(x64):
    x, y = normal(0, 25, 6), normal(1, 25, 4)
    rows, columns = np.triu_indices(25, 1)
    apart = [1 - np.corrcoef(np.asarray(a))[rows, columns] for a in (x, y)]
    np.testing.assert_allclose(inspect.dissimilarities(x), apart[0], atol=1e-12)
    wanted = stats.spearmanr(*apart).statistic
    np.testing.assert_allclose(inspect.representational_similarity(x, y), wanted, rtol=1e-10)
    np.testing.assert_allclose(inspect.representational_similarity(x, 5.0 * x), 1.0, rtol=1e-10)


def test_a_matrix_of_similarities():
    x, y = normal(0, 30, 3), normal(1, 30, 5)
    matrix = inspect.similarity_matrix([x, y, x + y[:, :3]], inspect.representational_similarity)
    np.testing.assert_allclose(np.diag(matrix), 1.0, rtol=1e-5)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-6)
    assert matrix[0, 2] > matrix[0, 1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: inspect.linear_cka(jnp.ones((3, 2)), jnp.ones((4, 2))), r"shapes \[3, 2\] and \[4, 2\]"),
        (
            lambda: inspect.fit_probe(jnp.ones((3, 2)), jnp.ones((4, 1))),
            r"targets have shape \[4, 1\]: needed is",
        ),
        (lambda: inspect.probe_over_time(jnp.ones((2, 3, 1)), jnp.ones((2, 3, 1))), "2 sequences: needed are 4"),
    ],
)
def test_bad_shapes_are_named(make, message, unchecked_types):
    with pytest.raises(UsageError, match=message):
        make()


@pytest.mark.parametrize("scale", [1.0, 1e-5, 1e5])
def test_states_of_any_size_are_read_alike(scale):
    states = normal(0, 200, 3)
    probe = inspect.fit_probe(scale * states, states[:, :1])
    assert inspect.r_squared(probe.read(scale * states), states[:, :1])[0] == pytest.approx(1.0, abs=1e-4)


def test_what_does_not_vary_is_nan_though_its_mean_is_rounded():
    same, states = jnp.full((1000, 1), 0.1), normal(0, 1000, 3)
    assert np.isnan(inspect.r_squared(same + 1e-3, same)).all()
    assert np.isnan(inspect.linear_cka(jnp.full((1000, 3), 0.1), states))
    for bad in (jnp.nan, jnp.inf):
        assert np.isnan(inspect.linear_cka(states.at[3, 1].set(bad), states))
    steps = states[:120].reshape(40, 3, 3)
    assert np.isnan(inspect.probe_over_time(steps, jnp.full((40, 3, 1), 0.1)).scores).all()
    units = inspect.probe_units(steps, jnp.full((40, 3, 1), 0.1))
    assert np.isnan(units.scores).all()
    assert np.isnan(units.together).all()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_states_of_half_precision(dtype):
    """Sums of squares go beyond what they hold."""
    states = (30.0 * normal(0, 400, 4, 3)).astype(dtype)
    np.testing.assert_allclose(inspect.probe_over_time(states, states[..., :1]).scores, 1.0, atol=1e-2)
    assert inspect.probe_units(states, states[..., 1:2]).scores.argmax() == 1
    rows, wide = states.reshape(-1, 3), states.reshape(-1, 3).astype(jnp.float32)
    for measure in (inspect.linear_cka, inspect.representational_similarity):
        np.testing.assert_allclose(measure(rows[:300], rows[300:600]), measure(wide[:300], wide[300:600]), atol=1e-4)
