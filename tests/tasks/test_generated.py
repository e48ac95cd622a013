"""Generated tasks: what the papers say they are, and that their memoryless losses are right."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax.errors import UsageError
from gru_jax.tasks import (
    MNIST,
    TASKS,
    Adding,
    CopyMemory,
    DelayedMemory,
    FlipFlop,
    Generated,
    Integrator,
    TemporalOrder,
    split_key,
)

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


def test_flip_flop():
    task = FlipFlop(bits=3, length=40, rate=0.2)
    batch = batch_of(task)
    pulses, targets = np.asarray(batch.xs), np.asarray(batch.targets)
    assert set(np.unique(pulses)) == {-1.0, 0.0, 1.0}
    assert np.abs(pulses[:, 0]).min() == 1.0
    assert (pulses[:, 1:] != 0).mean() == pytest.approx(0.2, abs=0.01)
    assert abs(pulses.mean()) < 0.01
    held = np.zeros_like(targets[:, 0])
    for t in range(40):
        held = np.where(pulses[:, t] == 0, held, pulses[:, t])
        np.testing.assert_array_equal(targets[:, t], held)
    right = task.metrics(jnp.asarray(targets), batch)
    assert (right["loss"].max(), right["accuracy"].min()) == (0.0, 1.0)
    blind = task.metrics(jnp.asarray(pulses), batch)  # a pulse where it is seen, else 0, of which half are right
    assert float(blind["loss"].mean()) == pytest.approx(task.baseline["loss"], abs=0.01)
    assert float(blind["accuracy"].mean()) == pytest.approx(task.baseline["accuracy"], abs=0.01)
    assert list(task.read_outputs(targets)) == ["predicted bit0", "predicted bit1", "predicted bit2"]
    np.testing.assert_array_equal(task.read_targets(targets)["bit1"], targets[..., 1])


def test_integrator():
    task = Integrator(length=50)
    batch = batch_of(task)
    np.testing.assert_allclose(batch.targets, np.cumsum(np.asarray(batch.xs)[..., 0], axis=1), atol=1e-5)
    assert float(batch.targets[:, -1].var()) == pytest.approx(1.0, abs=0.1)
    blind = task.metrics(batch.xs, batch)["loss"].mean()
    assert float(blind) == pytest.approx(task.baseline["loss"], rel=0.1)
    np.testing.assert_array_equal(task.metrics(batch.targets[..., None], batch)["loss"], 0.0)


@pytest.mark.parametrize(
    ("task", "names"),
    [
        (Adding(20), ["first number", "second number", "sum so far"]),
        (FlipFlop(2, 20), ["target 0", "target 1"]),
        (Integrator(20), ["target"]),
        (DelayedMemory(3, 20), ["sign 1 steps before", "sign 3 steps before", "sign 6 steps before"]),
        (TemporalOrder(20), ["XX", "XY", "YX", "YY"]),
        (CopyMemory(20), [*map(str, range(8)), "blank"]),
    ],
    ids=str,
)
def test_variables_that_states_may_hold(task, names):
    batch = batch_of(task, index=INDEX[:6])
    variables = task.variables(batch)
    assert list(variables) == names
    assert {value.shape for value in variables.values()} == {(6, task.time)}
    if isinstance(task, Adding):
        np.testing.assert_allclose(variables["sum so far"][:, -1], batch.targets, rtol=1e-6)
        both = variables["first number"] + variables["second number"]
        np.testing.assert_allclose(both, np.tile(batch.targets[:, None], (1, 20)), rtol=1e-6)
    if isinstance(task, DelayedMemory):
        signs = np.asarray(variables["sign 3 steps before"])
        np.testing.assert_array_equal(signs[:, 3:] > 0, batch.targets)
        assert (signs[:, :3] == 0).all()


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
