"""Generated tasks: what the papers say they are, and that their memoryless losses are right."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax.errors import UsageError
from gru_jax.tasks import MNIST, TASKS, Adding, CopyMemory, DelayedMemory, Generated, TemporalOrder, split_key

INDEX = jnp.arange(2000, dtype=jnp.int32)


def batch_of(task, split="train", seed=0, index=INDEX):
    return jax.jit(lambda i: task.batch({}, split_key(split, seed), i))(index)


def test_adding():
    task = Adding(length=51)
    batch = batch_of(task)
    assert batch.xs.shape == (2000, 51, 2)
    numbers, marks = batch.xs[..., 0], batch.xs[..., 1]
    assert (numbers >= 0).all()
    assert (numbers < 1).all()
    assert set(np.unique(marks)) == {0.0, 1.0}
    assert (marks[:, :25].sum(axis=1) == 1).all()
    assert (marks[:, 25:].sum(axis=1) == 1).all()
    np.testing.assert_allclose(batch.targets, (numbers * marks).sum(axis=1), rtol=1e-6)
    assert set(np.nonzero(np.asarray(marks))[1]) == set(range(51))  # every step may be marked
    constant = task.metrics(jnp.ones((2000, 1)), batch)["loss"].mean()
    assert float(constant) == pytest.approx(task.baseline["loss"], rel=0.1)
    assert task.baseline["loss"] == pytest.approx(1 / 6)


@pytest.mark.parametrize(("length", "wanted"), [(100, 0.17329), (200, 0.09452), (500, 0.03999), (1000, 0.02039)])
def test_copy_memory(length, wanted):
    task = CopyMemory(length=length)
    batch = batch_of(task, index=INDEX[:50])
    symbols = np.asarray(batch.xs).argmax(axis=-1)
    np.testing.assert_array_equal(np.asarray(batch.xs).sum(axis=-1), 1)
    assert symbols.shape == (50, length + 20)
    assert symbols[:, :10].max() < 8
    assert (symbols[:, 10 : length + 9] == 8).all()
    assert (symbols[:, length + 9] == 9).all()
    assert (symbols[:, length + 10 :] == 8).all()
    np.testing.assert_array_equal(batch.targets[:, -10:], symbols[:, :10])
    assert (np.asarray(batch.targets)[:, :-10] == 8).all()
    # Without memory: sure of every blank, uniform over the eight symbols at the end.
    logits = np.full((50, length + 20, 9), -1e3, np.float32)
    logits[:, :-10, 8] = 1e3
    logits[:, -10:, :8] = 0
    metrics = task.metrics(jnp.asarray(logits), batch)
    np.testing.assert_allclose(metrics["loss"], wanted, atol=6e-6)
    assert task.baseline["loss"] == pytest.approx(wanted, abs=6e-6)


def test_delayed_memory():
    task = DelayedMemory(delay=7, length=20)
    batch = batch_of(task, index=INDEX[:300])
    signs = np.asarray(batch.xs)[..., 0]
    assert set(np.unique(signs)) == {-1.0, 1.0}
    assert abs(signs.mean()) < 0.05
    np.testing.assert_array_equal(batch.targets, signs[:, :13] > 0)
    blind = task.metrics(jnp.zeros((300, 20, 1)), batch)
    np.testing.assert_allclose(blind["loss"], task.baseline["loss"], rtol=1e-5)
    remembered = jnp.concatenate([jnp.zeros((300, 7)), 50.0 * signs[:, :13]], axis=1)[..., None]
    metrics = task.metrics(remembered, batch)
    np.testing.assert_allclose(metrics["loss"], 0.0, atol=1e-6)
    np.testing.assert_array_equal(metrics["accuracy"], 1.0)
    with pytest.raises(UsageError, match="length=7: allowed are numbers above delay=7"):
        DelayedMemory(delay=7, length=7)


def test_temporal_order():
    task = TemporalOrder(length=100)
    batch = batch_of(task)
    symbols, lengths = np.asarray(batch.xs).argmax(axis=-1), np.asarray(batch.lengths)
    assert symbols.shape == (2000, 110)
    assert set(lengths) == set(range(100, 111))
    for row, length, label in zip(symbols, lengths, np.asarray(batch.targets), strict=True):
        assert row[0] == 6
        assert row[length - 1] == 7
        marked = np.flatnonzero((row == 4) | (row == 5))
        first, second = marked[marked < length]
        assert 10 <= first <= 20
        assert 50 <= second <= 60
        assert label == 2 * (row[first] == 5) + (row[second] == 5)
    assert np.bincount(batch.targets).min() > 400


@pytest.mark.parametrize("task", [Adding(), CopyMemory(), TemporalOrder()], ids=str)
def test_batches_are_a_function_of_seed_and_index(task):
    some = jnp.array([7, 3, 2**30], jnp.int32)
    first, again, other = batch_of(task, index=some), batch_of(task, index=some), batch_of(task, seed=1, index=some)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert not np.array_equal(first.xs, other.xs)
    alone = batch_of(task, index=some[1:2])
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[1:2], b), first, alone)
    held_out = [batch_of(task, split, seed, some).xs for split in ("valid", "test") for seed in (0, 1)]
    np.testing.assert_array_equal(held_out[0], held_out[1])
    np.testing.assert_array_equal(held_out[2], held_out[3])
    assert not np.array_equal(held_out[0], held_out[2])
    assert not np.array_equal(held_out[0], first.xs)


def test_every_task_states_its_baseline():
    for task in [cls() for cls in TASKS.values() if issubclass(cls, Generated | MNIST)]:  # others need files
        assert task.goal[0] in {"loss", *task.baseline}
        assert task.goal[1] in ("min", "max")
        assert "loss" in task.baseline


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Adding(-5), "length=-5: allowed are numbers"),
        (lambda: DelayedMemory(delay=0), "delay=0: allowed are numbers"),
        (lambda: CopyMemory(valid_size=0), "valid_size=0: allowed are numbers"),
    ],
)
def test_sizes_are_checked_where_a_task_is_made(make, message, unchecked_types):
    with pytest.raises(UsageError, match=message):
        make()
