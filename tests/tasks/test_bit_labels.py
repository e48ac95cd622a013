"""Labels for every step of random bits, whose rules are known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax.errors import UsageError
from gru_jax.tasks import DelayedXOR, Parity, split_key
from gru_jax.tasks.scores import scores_of
from gru_jax.training.answers import on_host

COUNT = 200


def batch_of(task):
    return jax.jit(lambda i: task.batch({}, split_key("valid", 0), i))(jnp.arange(COUNT))


def parity(bits, row, step):
    return sum(bits[row, max(0, step - 3) : step + 1]) % 2 == 1


def delayed_xor(bits, row, step):
    return bits[row, step] != (bits[row, step - 4] if step >= 4 else False)


@pytest.mark.parametrize(
    ("task", "rule", "first"),
    [(Parity(20, shortest=9, bits=4), parity, 3), (DelayedXOR(20, shortest=9, delay=4), delayed_xor, 4)],
    ids=["parity", "delayed xor"],
)
def test_the_rule_holds_at_every_step(task, rule, first):
    batch = batch_of(task)
    assert batch.xs.shape == (COUNT, 20, 1)
    bits, lengths = np.asarray(batch.xs)[..., 0] > 0, np.asarray(batch.lengths)
    assert set(np.unique(batch.xs)) == {-1.0, 1.0}
    assert set(lengths) == set(range(9, 21))
    expected = np.array([[rule(bits, row, step) for step in range(20)] for row in range(COUNT)])
    np.testing.assert_array_equal(batch.targets, expected)
    steps = np.arange(20)
    np.testing.assert_array_equal(batch.mask, (steps >= first) & (steps < lengths[:, None]))
    assert abs(expected[:, first:].mean() - 0.5) < 0.03
    blind = task.metrics(jnp.zeros((COUNT, 20, 1)), batch)
    np.testing.assert_allclose(blind["loss"], task.baseline["loss"], rtol=1e-5)
    logits = jnp.where(batch.targets, 50.0, -50.0)
    known = task.metrics(jnp.where(batch.mask > 0, logits, -logits)[..., None], batch)  # wrong where none counts
    np.testing.assert_allclose(known["loss"], 0.0, atol=1e-6)
    np.testing.assert_allclose(known["accuracy"], 1.0, rtol=1e-6)


def test_a_mistake_costs_its_share_of_the_steps_that_count():
    task = Parity(10, bits=3)
    batch = batch_of(task)
    logits = jnp.where(batch.targets, 2.0, -2.0)
    logits = logits.at[:, 5].multiply(-1.0)
    metrics = task.metrics(logits[..., None], batch)
    np.testing.assert_allclose(metrics["accuracy"], 7 / 8, rtol=1e-6)
    right, wrong = np.log1p(np.exp(-2.0)), np.log1p(np.exp(2.0))
    np.testing.assert_allclose(metrics["loss"], (7 * right + wrong) / 8, rtol=1e-5)


def test_scores_of_whole_sets_take_labels_for_two_classes():
    task = DelayedXOR(10, delay=3)
    batch = batch_of(task)
    logits = jnp.where(batch.targets, 2.0, -2.0).at[:, 4].multiply(-1.0)
    answers = on_host(task.answers(logits[..., None], batch))
    assert answers.are_classes
    assert len(answers.targets) == COUNT * 7
    assert scores_of(["balanced_accuracy"], answers)["balanced_accuracy"] == pytest.approx(6 / 7, abs=0.01)


def test_outputs_are_read_as_yes_and_no():
    read = Parity(5).read_outputs(np.array([[[2.0], [-2.0]]]))
    assert read["prediction"].tolist() == [[True, False]]
    np.testing.assert_allclose(read["p(prediction)"], [[0.880797, 0.119203]], rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Parity(bits=1), "bits=1: allowed are numbers"),
        (lambda: Parity(4, bits=5), "length=4: allowed are numbers above 4"),
        (lambda: DelayedXOR(5, delay=5), "length=5: allowed are numbers above 5"),
        (lambda: DelayedXOR(9, delay=5, shortest=5), "shortest=5: allowed are 6 to length=9"),
        (lambda: Parity(9, shortest=10), "shortest=10: allowed are 3 to length=9"),
    ],
)
def test_lengths_that_leave_nothing_to_say(make, message, unchecked_types):
    with pytest.raises(UsageError, match=message) as raised:
        make()
    assert "\n" not in str(raised.value)
