"""Data that are streamed from files give the same run as data on the device, however large they are."""

from __future__ import annotations

import json
import os

import jax
import numpy as np
import pytest

from experiments import evaluate, train
from gru_jax.config import load
from gru_jax.data.npy import open_rows
from gru_jax.errors import UsageError
from gru_jax.runs.checkpoints import LATEST
from gru_jax.runs.single import SingleRun
from gru_jax.tasks import SPLITS, Arrays
from gru_jax.tasks.loading import load_splits
from tests.training.killing import struck
from tests.training.small import assert_same_losses, small, timeless

pytestmark = pytest.mark.usefixtures("compiled_once")

SIZES = {"train": 45, "valid": 12, "test": 13}


def write(folder, *, classes=3, lengths=True, time=7):
    """Sequences at random, of classes or, without, of two numbers."""
    draw = np.random.default_rng(0)
    (folder / "arrays").mkdir(parents=True)
    for split, size in SIZES.items():
        arrays = {"xs": draw.normal(size=(size, time, 2)).astype(np.float16)}
        arrays["targets"] = draw.integers(0, classes, size) if classes else draw.normal(size=(size, 2))
        if lengths:
            arrays["lengths"] = draw.integers(1, time + 1, size).astype(np.uint8)
        for name, array in arrays.items():
            np.save(folder / "arrays" / f"{split}_{name}.npy", array)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    write(path)
    return path


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr("gru_jax.runs.pictures.draw_pictures", lambda *_: [])


def config(folder, *, megabytes=0, **changes):
    task = {"name": "arrays", "data_dir": str(folder), **changes.pop("task", {})}
    return small(task=task, resident_mb=megabytes, **changes)


def test_the_same_run_as_on_the_device(folder, tmp_path, monkeypatch):
    """Over several epochs, in calls of other sizes; to the bit where it is killed and goes on."""
    train.run(config(folder, megabytes=1), tmp_path / "resident")
    monkeypatch.setattr("gru_jax.data.feed.READ_AHEAD_BYTES", 1500)  # bytes: a few steps
    train.run(config(folder), tmp_path / "streamed")
    assert_same_losses(tmp_path / "streamed", tmp_path / "resident")
    with struck(monkeypatch, SingleRun, "_save", 2):
        train.run(config(folder), tmp_path / "killed")
    host = json.loads(next((tmp_path / "killed" / "checkpoints" / LATEST / "4").rglob("host/metadata")).read_text())
    assert host["data_position"]["next_index"] == 4, "the position is in the checkpoint"
    train.run(config(folder), tmp_path / "killed")
    assert timeless(tmp_path / "killed") == timeless(tmp_path / "streamed")
    result = evaluate.run(tmp_path / "killed", "train", data_dir=str(folder))
    assert result.metrics["loss"] > 0


def test_a_run_goes_on_where_its_data_are_no_longer_resident(folder, tmp_path, monkeypatch):
    train.run(config(folder), tmp_path / "whole")
    with struck(monkeypatch, SingleRun, "_save", 2):
        train.run(config(folder, megabytes=1), tmp_path / "run")
    train.run(config(folder), tmp_path / "run")
    assert_same_losses(tmp_path / "run", tmp_path / "whole")


@pytest.mark.slow
def test_folds_are_streamed_too(folder, tmp_path):
    for name, megabytes in {"streamed": 0, "resident": 1}.items():
        train.run(config(folder, megabytes=megabytes, task={"folds": 3, "fold": 1}), tmp_path / name)
    assert_same_losses(tmp_path / "streamed", tmp_path / "resident")


@pytest.mark.slow
def test_numbers_are_learnt_too(tmp_path):
    write(tmp_path, classes=0, lengths=False)
    for name, megabytes in {"streamed": 0, "resident": 1}.items():
        summary = train.run(config(tmp_path, megabytes=megabytes), tmp_path / name).summary
        assert summary["goal"] == ["loss", "min"]
    known, targets = (np.load(tmp_path / "arrays" / f"{split}_targets.npy") for split in ("train", "test"))
    wanted = np.square(targets - known.mean(axis=0)).mean()
    assert summary["baseline"]["loss"] == pytest.approx(wanted)
    assert summary["baselines"]["training mean"]["loss"] == pytest.approx(wanted)
    assert_same_losses(tmp_path / "streamed", tmp_path / "resident")


@pytest.mark.slow
def test_more_than_the_memory_of_the_machine(tmp_path):
    """A file with holes, half as large again as the memory; what is read is zeros."""
    write(tmp_path, lengths=False, time=1000)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    size = int(1.5 * memory) // (1000 * 2 * 4)
    np.lib.format.open_memmap(tmp_path / "arrays" / "train_xs.npy", "w+", np.float32, (size, 1000, 2))
    np.save(tmp_path / "arrays" / "train_targets.npy", np.arange(size, dtype=np.int8) % 3)
    before = train.run(small(), tmp_path / "small").summary["host_peak_bytes"]
    summary = train.run(config(tmp_path, megabytes=2048), tmp_path / "run").summary
    assert summary["host_peak_bytes"] - before < 2**30
    assert summary["steps"] == 12


def test_a_config_comes_back_from_json(folder):
    made = config(folder)
    assert load(json.loads(json.dumps(made.to_dict()))) == made


def test_sizes_and_baselines(tmp_path):
    write(tmp_path)
    task = Arrays(data_dir=str(tmp_path))
    assert (task.input_size, task.output_size, task.time, task.goal) == (2, 3, 7, ("accuracy", "max"))
    assert [task.size(split) for split in SPLITS] == list(SIZES.values())
    labels = {split: np.load(tmp_path / "arrays" / f"{split}_targets.npy") for split in SPLITS}
    shares, in_test = (np.bincount(labels[split], minlength=3) / len(labels[split]) for split in ("train", "test"))
    assert task.baseline["accuracy"] == pytest.approx(in_test[shares.argmax()])
    assert task.baseline["loss"] == pytest.approx(-(in_test * np.log(shares)).sum())
    batch = task.batch(jax.device_put(task.load("valid")), jax.random.key(0), jax.numpy.arange(4))
    np.testing.assert_array_equal(batch.lengths, np.load(tmp_path / "arrays" / "valid_lengths.npy")[:4])


def test_rows_are_read_where_they_are(tmp_path):
    array = np.random.default_rng(0).normal(size=(5, 3, 2))
    np.save(tmp_path / "a.npy", array)
    rows = open_rows(tmp_path / "a.npy")
    np.testing.assert_array_equal(rows.all(), array)
    np.testing.assert_array_equal(rows.take(np.array([3, 1])), array[[3, 1]])
    some = rows.ordered(np.array([4, 0]))
    np.testing.assert_array_equal(some.all(), array[[4, 0]])
    assert (len(some), some.nbytes) == (2, 2 * 3 * 2 * 8)


def objects(path):
    np.save(path, np.array([{}, 1], dtype=object), allow_pickle=True)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("train_xs", lambda path: path.unlink(), "cannot be read (No such file"),
        ("train_xs", lambda path: path.write_bytes(path.read_bytes()[:-1]), "damaged, it has"),
        ("train_xs", lambda path: path.write_bytes(b"\x93NUMPY"), "not a .npy file"),
        ("valid_xs", objects, "holds object; allowed are numbers"),
        ("train_xs", lambda path: np.save(path, np.zeros((3, 4))), "needed is [N, T, D]"),
        ("test_xs", lambda path: np.save(path, np.zeros((13, 7, 3))), "needed is [N, 7, 2]"),
        ("train_xs", lambda path: np.save(path, np.zeros((45, 7, 2), order="F")), "numpy.ascontiguousarray"),
        ("train_targets", lambda path: np.save(path, np.zeros(44, int)), "needed is [45] of whole numbers"),
        ("train_targets", lambda path: np.save(path, np.zeros((45,))), "needed is [45, O] of floats"),
        (
            "valid_targets",
            lambda path: np.save(path, np.zeros((12, 2))),
            "needed is [12] of whole numbers, as in training",
        ),
        ("valid_targets", lambda path: np.save(path, np.full(12, -1)), "holds -1; allowed are whole numbers from 0"),
        ("valid_lengths", lambda path: np.save(path, np.full(12, 8)), "holds 8; allowed are 1 to 7"),
        ("valid_xs", lambda path: np.save(path, np.zeros((0, 7, 2))), "with one row or more"),
    ],
)
def test_damaged_files_are_one_line(tmp_path, name, damage, message):
    write(tmp_path)
    damage(tmp_path / "arrays" / f"{name}.npy")
    with pytest.raises(UsageError) as raised:
        train.run(config(tmp_path), tmp_path / "run")
    assert message in str(raised.value)
    assert name in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_a_folder_outside_is_refused(tmp_path):
    for name in ("../arrays", "/etc", "~/arrays"):
        with pytest.raises(UsageError, match="allowed is a folder below the data directory"):
            Arrays(data_dir=str(tmp_path), folder=name)


def test_populations_do_not_stream(folder):
    with pytest.raises(UsageError, match="members of a population each read in an order of their own"):
        load_splits(config(folder).task, 0, streams=False)
