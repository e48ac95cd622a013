"""Batches of sequences of similar length: the order of an epoch, and runs that train in it."""

from __future__ import annotations

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gru_jax
from experiments import train
from gru_jax.config import training_program
from gru_jax.data.batching import WINDOW, batch_indices
from gru_jax.errors import UsageError
from gru_jax.runs.single import SingleRun
from gru_jax.tasks import Arrays
from gru_jax.tasks.loading import load_splits
from gru_jax.training.population import CompiledPopulation, Population
from tests.training.killing import struck
from tests.training.small import assert_same_losses, small, timeless

pytestmark = pytest.mark.usefixtures("undrawn")

SOME_SIZES = (7, 8, 53, 400)  # JAX compiles the permutation of each
cases = st.tuples(st.sampled_from(SOME_SIZES), st.integers(1, 7), st.integers(0, 5))


def order_of(size, batch_size, seed, lengths=None):
    if lengths is None:
        lengths = np.random.default_rng(seed).integers(1, 50, size)
    return batch_indices(size, batch_size, jax.random.key(seed), lengths)


@given(case=cases)
def test_an_epoch_has_every_example_at_most_once(case):
    size, batch_size, _ = case
    per_epoch, indices = size // batch_size, order_of(*case)
    for epoch in range(2):
        batches = indices(epoch * per_epoch, per_epoch)
        assert batches.shape == (per_epoch, batch_size)
        assert batches.dtype == np.int32
        assert len(set(batches.ravel().tolist())) == per_epoch * batch_size
        assert 0 <= batches.min() <= batches.max() < size


@given(case=cases, cuts=st.lists(st.integers(1, 9), min_size=1, max_size=5), first=st.integers(0, 30))
def test_a_step_is_the_same_however_it_is_asked_for(case, cuts, first):
    wanted = order_of(*case)(first, sum(cuts))
    again, starts = order_of(*case), np.cumsum([0, *cuts])[:-1]
    pieces = {start: again(first + int(start), count) for start, count in sorted(zip(starts, cuts, strict=True))[::-1]}
    np.testing.assert_array_equal(np.concatenate([pieces[start] for start in starts]), wanted)


@pytest.mark.parametrize("batches", [WINDOW // 2, WINDOW + 1, 3 * WINDOW], ids=str)
def test_a_batch_is_of_similar_lengths_and_their_order_is_random(batches):
    size = 16 * batches + 5
    lengths = np.exp(np.random.default_rng(0).uniform(np.log(50), np.log(2000), size)).astype(np.int64)
    by_length, at_random = order_of(size, 16, 0, lengths), batch_indices(size, 16, jax.random.key(0))
    for epoch in range(2):
        ours, theirs = (lengths[indices(epoch * batches, batches)] for indices in (by_length, at_random))
        assert np.ptp(ours, axis=1).mean() < 0.1 * np.ptp(theirs, axis=1).mean()
        assert np.ptp(ours, axis=1).max() < np.ptp(theirs, axis=1).min(), "of the last window too"
        assert ours.max(axis=1).sum() < 1.1 * ours.mean(axis=1).sum(), "nearly all steps count"
        place = np.argsort(np.argsort(ours.mean(axis=1)))
        assert abs(np.corrcoef(place, np.arange(batches))[0, 1]) < 3.5 / np.sqrt(batches), "no order of length"


def test_epochs_and_seeds_put_other_examples_together():
    def together(seed, epoch):
        batches = order_of(40 * WINDOW, 10, seed, np.arange(40 * WINDOW))(epoch * 4 * WINDOW, 4 * WINDOW)
        return {frozenset(batch) for batch in batches.tolist()}

    first = together(0, 0)
    assert len(first & together(0, 1)) < 0.05 * len(first)
    assert len(first & together(1, 0)) < 0.05 * len(first)


def test_examples_of_one_length_come_at_random():
    batches = order_of(100, 10, 0, np.full(100, 7))(0, 10)
    assert not (np.diff(batches.ravel()) > 0).all(), "not in the order of the files"
    assert sorted(batches.ravel().tolist()) == list(range(100))


SIZES = {"train": 45, "valid": 12, "test": 13}
LONGEST = 7


def write(folder, time=LONGEST, *, lengths=True):
    """Sequences of up to 7 steps, filled up to `time`, whose class is their length's."""
    draw = np.random.default_rng(0)
    (folder / "arrays").mkdir(parents=True)
    for split, size in SIZES.items():
        of_each = draw.integers(1, LONGEST + 1, size)
        xs = np.full((size, time, 2), 9.0, np.float32)
        xs[:, :LONGEST] = draw.normal(size=(size, LONGEST, 2))
        arrays = {"xs": xs, "targets": of_each % 3} | ({"lengths": of_each} if lengths else {})
        for name, array in arrays.items():
            np.save(folder / "arrays" / f"{split}_{name}.npy", array)


def config(folder, *, task=None, **changes):
    task = {"name": "arrays", "data_dir": str(folder), **(task or {})}
    return small(task=task, **{"train": {"batch_by_length": True, "batch_size": 5}, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    write(path)
    return path


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    """A run by length, over one epoch and a part of the next."""
    workdir = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gru_jax.runs.pictures.draw_pictures", lambda rundir, config: [])
        train.run(config(folder), workdir / "run")
    return workdir / "run"


@pytest.mark.slow
def test_a_run_equals_itself_after_a_kill(folder, whole, tmp_path, monkeypatch):
    with struck(monkeypatch, SingleRun, "_save", 2):
        train.run(config(folder), tmp_path)
    train.run(config(folder), tmp_path)
    assert timeless(tmp_path) == timeless(whole)


@pytest.mark.slow
def test_streamed_from_disk_it_is_the_same_run(folder, whole, tmp_path):
    train.run(config(folder, resident_mb=0), tmp_path)
    assert_same_losses(tmp_path, whole)


def test_filled_up_to_any_length_it_is_the_same_run(whole, tmp_path):
    write(tmp_path, time=4 * LONGEST)
    train.run(config(tmp_path, model={"hidden": (4,), "chunk": 3}), tmp_path / "run")
    assert_same_losses(tmp_path / "run", whole)


def test_what_it_trained_needs_no_data(folder, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    (folder / "arrays").rename(folder / "elsewhere")
    try:
        assert gru_jax.open(tmp_path / "run").predict(np.ones((2, 3, 2))).outputs.shape == (2, 3)
    finally:
        (folder / "elsewhere").rename(folder / "arrays")


def test_lengths_are_those_of_the_examples_that_are_trained_on(folder):
    """Of a fold, and of what is left where some are held out."""
    for settings in ({"folds": 3, "fold": 1}, {"valid_fraction": 0.2, "divide_by": "stratified"}):
        if "valid_fraction" in settings:
            folder = shutil.copytree(folder, folder.parent / "held_out" / "data", dirs_exist_ok=True)
            for path in (folder / "arrays").glob("valid_*"):
                path.unlink()
        task = Arrays(data_dir=str(folder), **settings)
        everyone = jnp.arange(task.size("train"))
        batch = task.batch(jax.device_put(task.load("train")), jax.random.key(0), everyone)
        np.testing.assert_array_equal(task.train_lengths(), batch.lengths)


def test_members_of_a_population_each_have_their_own(folder):
    """They share a program, whether they go by length or not, and on which fold."""
    fold = {"folds": 3, "fold": 1}
    configs = [
        config(folder, task={"folds": 3}),
        config(folder, task=fold),
        config(folder, task=fold, seed=1),
        config(folder, task=fold, train={"batch_by_length": False, "batch_size": 5}),
    ]
    assert len({training_program(one) for one in configs}) == 1
    splits = load_splits(configs[0].task, configs[0].resident_mb)
    _, indices = Population(CompiledPopulation(configs[0], splits, jax.devices()), configs).feed().next(0, 3)
    for one, of_member in zip(configs, indices, strict=True):
        by_length = one.train.batch_by_length
        np.testing.assert_array_equal(of_member[:3], one.task.train_indices(5, one.seed, by_length=by_length)(0, 3))
    assert len({of_member.tobytes() for of_member in indices}) == len(configs)


@pytest.mark.parametrize("task", [{"name": "adding", "length": 8}, "arrays"], ids=["generated", "without lengths"])
def test_without_lengths_it_is_refused_in_one_line(task, tmp_path):
    if task == "arrays":
        write(tmp_path, lengths=False)
        task = {"name": "arrays", "data_dir": str(tmp_path)}
    with pytest.raises(UsageError) as raised:
        train.run(small(task=task, train={"batch_by_length": True}), tmp_path / "run")
    assert str(raised.value) == (
        "train.batch_by_length=True: the training examples of this task have no lengths of their own; allowed is False"
    )
    assert not (tmp_path / "run").exists()
