"""Labels of which several may hold at once."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from gru_jax.tasks.labels import answers_of_labels, best_constant, label_metrics, read_labels
from gru_jax.tasks.scores import scores_of
from gru_jax.training.answers import on_host

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 4, 3)).astype(np.float32)
HELD = RNG.random((6, 4, 3)) < 0.3


def test_loss_and_accuracy_are_those_of_a_sigmoid():
    p = expit(LOGITS.astype(np.float64))
    expected = -np.where(HELD, np.log(p), np.log1p(-p)).mean(axis=-1)
    for targets in (jnp.asarray(HELD), jnp.asarray(HELD, jnp.float32), jnp.asarray(HELD, jnp.uint8)):
        metrics = label_metrics(jnp.asarray(LOGITS), targets)
        np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)
        np.testing.assert_allclose(metrics["accuracy"], ((LOGITS > 0) == HELD).mean(axis=-1), rtol=1e-6)


def test_logits_however_large_have_finite_losses():
    metrics = label_metrics(jnp.array([[1e4, -1e4]]), jnp.array([[False, True]]))
    np.testing.assert_allclose(metrics["loss"], 1e4)


def test_every_label_is_an_example_of_its_own_to_scores():
    weights = np.array([[1, 1, 0, 0]] * 6, np.float32)
    answers = on_host(answers_of_labels(jnp.asarray(LOGITS), jnp.asarray(HELD), jnp.asarray(weights)))
    counted = weights > 0
    held, said = HELD[counted].ravel(), (LOGITS > 0)[counted].ravel()
    assert len(answers.targets) == counted.sum() * 3
    scores = scores_of(["balanced_accuracy", "f1"], answers)
    recall = [(said == held)[held == value].mean() for value in (False, True)]
    assert scores["balanced_accuracy"] == pytest.approx(np.mean(recall))
    f1 = [2 * ((said == v) & (held == v)).sum() / ((said == v).sum() + (held == v).sum()) for v in (False, True)]
    assert scores["f1"] == pytest.approx(np.mean(f1))


def test_what_a_person_reads():
    read = read_labels(LOGITS, ["a", "b", "c"])
    assert list(read) == ["a", "b", "c", "p(a)", "p(b)", "p(c)"]
    np.testing.assert_array_equal(read["b"], LOGITS[..., 1] > 0)
    np.testing.assert_allclose(read["p(c)"], expit(LOGITS[..., 2].astype(np.float64)))


def test_the_best_constant_knows_training_alone():
    shares, test, weights = np.array([0.25, 0.75, 0.0]), HELD.reshape(-1, 3).astype(float), np.full(24, 1 / 24)
    known = best_constant(shares, 10, test, weights)
    p = np.array([0.25, 0.75, 0.05])
    expected = -np.where(test > 0, np.log(p), np.log1p(-p)).mean()
    assert known["loss"] == pytest.approx(expected)
    assert known["accuracy"] == pytest.approx(((p > 0.5) == test).mean())
