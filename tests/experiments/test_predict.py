"""Predictions: for every task to the bit of the stored scores, also from a moved directory without its data."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

import gru_jax
from experiments import evaluate, predict, train
from gru_jax.errors import UsageError
from gru_jax.runs.predictions import Predictions
from gru_jax.tasks import (
    MNIST,
    TASKS,
    Adding,
    Arrays,
    CopyMemory,
    DelayedMemory,
    DelayedXOR,
    Files,
    FlipFlop,
    Generated,
    Integrator,
    Parity,
    TemporalOrder,
    split_key,
)

pytestmark = pytest.mark.usefixtures("compiled_once")

SPLITS = ("train", "valid", "test")
TRAINED = {"model": {"hidden": 6}, "train": {"steps": 2, "batch_size": 8}, "flow": {"every": 0}}
COUNT, TIME = 21, 6  # no whole number of batches
SIZES = {"valid_size": 10, "test_size": COUNT}


def arrays(seed, targets):
    rng = np.random.default_rng(seed)
    made = {"xs": rng.normal(5, 3, (COUNT, TIME, 2)), "targets": targets(rng)}
    return {**made, "lengths": rng.integers(1, TIME + 1, COUNT)}


def labels_of_steps(rng):
    return rng.choice([3, 7, 20], (COUNT, TIME))


def numbers(rng):
    return rng.normal(100, 20, (COUNT, 2))


def written(folder, targets, **settings):
    return Arrays.write(folder / "mine", **{s: arrays(i, targets) for i, s in enumerate(SPLITS)}, **settings)


def stored(folder, **settings):
    (folder / "mine").mkdir()
    for seed, split in enumerate(SPLITS):
        np.savez(folder / "mine" / f"{split}.npz", **arrays(seed, labels_of_steps))
    np.savez(folder / "new.npz", **arrays(2, labels_of_steps))
    return Files(data_dir=str(folder), **{split: f"mine/{split}.npz" for split in SPLITS}, **settings)


MAKE = {
    "adding": lambda folder: Adding(12, **SIZES),
    "copy_memory": lambda folder: CopyMemory(3, **SIZES),
    "delayed_memory": lambda folder: DelayedMemory(2, 9, **SIZES),
    "temporal_order": lambda folder: TemporalOrder(20, **SIZES),
    "flip_flop": lambda folder: FlipFlop(2, 9, **SIZES),
    "integrator": lambda folder: Integrator(9, **SIZES),
    "parity": lambda folder: Parity(9, shortest=4, **SIZES),
    "delayed_xor": lambda folder: DelayedXOR(9, delay=2, **SIZES),
    "arrays of labels": lambda folder: written(folder, labels_of_steps),
    "files": lambda folder: stored(folder, scale=True),
    "arrays of numbers": lambda folder: written(folder, numbers, scale=True, missing="mask"),
}


def moved_run(task, folder, **changes):
    train.run({**TRAINED, "task": task, **changes}, folder / "run")
    (folder / "run").rename(folder / "moved")
    return folder / "moved"


QUICK = ("copy_memory", "arrays of labels", "arrays of numbers")


@pytest.mark.parametrize("kind", [pytest.param(k, marks=() if k in QUICK else pytest.mark.slow) for k in MAKE])
def test_predictions_equal_the_stored_test_scores_to_the_bit(kind, tmp_path, undrawn):
    generated = {name for name, task in TASKS.items() if issubclass(task, Generated) and not task.reads_tokens}
    assert {name.split(" ")[0] for name in MAKE} == {*generated, "arrays", "files"}
    task = MAKE[kind](tmp_path)
    workdir = moved_run(task, tmp_path)
    stored = json.loads((workdir / "summary.json").read_text())["best"]["test"]
    result = evaluate.run(workdir, predicts=True)
    assert result.metrics == stored
    assert result.predictions.metrics == stored
    data = task.load("test")
    batch = task.batch(jax.device_put(data), split_key("test", 0), jnp.arange(COUNT))
    inputs = (data["xs"], data["lengths"]) if data else (batch.xs, batch.lengths)
    if data:
        for path in (tmp_path / "mine").iterdir():
            path.unlink()
    predictions = gru_jax.open(workdir).predict(*inputs)
    np.testing.assert_array_equal(predictions, result.predictions)
    if data:  # with targets, from a file: metrics come out too
        if not (tmp_path / "new.npz").exists():
            np.savez(tmp_path / "new.npz", **data)
        assert predict.run(workdir, tmp_path / "new.npz").metrics == stored


@pytest.mark.slow
def test_predictions_of_images_equal_the_stored_scores_to_the_bit(data_dir, tmp_path, undrawn):
    task, batch_size = MNIST(data_dir=str(data_dir)), {"steps": 1, "batch_size": 1000}
    workdir = moved_run(task, tmp_path, train=batch_size)
    stored = json.loads((workdir / "summary.json").read_text())["best"]["test"]
    result = evaluate.run(workdir, predicts=True)
    assert result.metrics == result.predictions.metrics == stored
    data = task.load("test")
    xs = np.asarray(task.batch(jax.device_put(data), split_key("test", 0), jnp.arange(10_000)).xs)
    predictions = gru_jax.open(workdir).predict(xs)
    np.testing.assert_array_equal(predictions, result.predictions)
    right = predictions.columns["prediction"] == data["labels"].astype(str)
    np.testing.assert_allclose(right.mean(), stored["accuracy"])


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A run on sequences of unequal length of three classes with names, without its data."""
    folder = tmp_path_factory.mktemp("labelled")
    rng = np.random.default_rng(0)
    examples = [(rng.normal(size=(1 + i % 5, 2)), ["ash", "oak", "elm"][i % 3]) for i in range(24)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gru_jax.runs.pictures.draw_pictures", lambda rundir, config: [])
        train.run({**TRAINED, "task": Arrays.write(folder / "mine", **dict.fromkeys(SPLITS, examples))}, folder / "run")
    for path in (folder / "mine").iterdir():
        path.unlink()
    return folder / "run"


def test_what_a_person_reads(labelled, tmp_path):
    xs = np.random.default_rng(1).normal(size=(4, 3, 2))
    predictions = gru_jax.open(labelled).predict(xs, [3, 1, 2, 3])
    table = predictions.table
    assert table.columns == ["sequence", "prediction", "p(ash)", "p(elm)", "p(oak)"]
    names = ["ash", "elm", "oak"]
    assert table["prediction"].to_list() == [names[i] for i in predictions.outputs.argmax(axis=1)]
    np.testing.assert_allclose(table.select(pl.sum_horizontal(pl.col("^p\\(.*$"))).to_series(), 1)
    probabilities = jax.nn.softmax(predictions.outputs, axis=1)
    np.testing.assert_allclose(table.select("^p\\(.*$").to_numpy(), probabilities, rtol=1e-5)
    alone = gru_jax.open(labelled).predict(xs[1:2, :1])
    np.testing.assert_array_equal(alone, np.asarray(predictions)[1:2])
    with pytest.raises(UsageError, match=r"xs: xs of shape \[4, 3, 3\]; needed is \[N, T, 2\]"):
        gru_jax.open(labelled).predict(np.ones((4, 3, 3)))
    with pytest.raises(UsageError, match="xs: row 2, step 0, feature 1: holds nan"):
        gru_jax.open(labelled).predict(np.where(np.arange(8).reshape(4, 1, 2) == 5, np.nan, np.ones((4, 3, 2))))


def test_any_order_of_bytes_and_long_doubles(labelled):
    xs, lengths = np.random.default_rng(1).normal(size=(4, 5, 2)).astype(np.float32), np.array([3, 1, 5, 2])
    plain = np.asarray(gru_jax.open(labelled).predict(xs, lengths))
    for kind in (">f4", ">f8", np.longdouble):
        np.testing.assert_array_equal(gru_jax.open(labelled).predict(xs.astype(kind), lengths.astype(">i4")), plain)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet", "jsonl", "npz"])
def test_the_command_writes_tables_and_arrays(suffix, labelled, tmp_path, capsys):
    xs = np.random.default_rng(1).normal(size=(4, 7, 2))  # longer than any in training
    np.savez(tmp_path / "new.npz", xs=xs, lengths=[3, 1, 7, 2], targets=[0, 1, 2, 1])
    output = tmp_path / f"out.{suffix}"
    flags = ["--workdir", str(labelled), "--input", str(tmp_path / "new.npz"), "--output", str(output)]
    assert predict.command(flags) == 0
    out = capsys.readouterr().out
    assert "loss " in out
    assert f"predictions of 4 sequences: {output}" in out
    predictions = predict.run(labelled, tmp_path / "new.npz")
    if suffix == "npz":
        with np.load(output) as stored:
            np.testing.assert_array_equal(stored["outputs"], predictions.outputs)
            assert stored["target"].tolist() == ["ash", "elm", "oak", "elm"]
        return
    read = {"csv": pl.read_csv, "parquet": pl.read_parquet, "jsonl": pl.read_ndjson}
    table = read.get(suffix, lambda path: pl.read_csv(path, separator="\t"))(output)
    assert table["target"].to_list() == ["ash", "elm", "oak", "elm"]
    np.testing.assert_allclose(table["p(elm)"], predictions.columns["p(elm)"], rtol=1e-12)


def test_wrong_use_is_one_line(labelled, tmp_path, capsys):
    np.save(tmp_path / "new.npy", np.ones((2, 3, 2)))
    new = str(tmp_path / "new.npy")
    for flags, message in (
        (["--input", new], "--workdir: missing; allowed is the directory of a run"),
        (["--workdir", str(labelled)], "--input: missing; allowed is a file of sequences"),
        (["--workdir", str(labelled), "--input", "nowhere.npy"], "--input=nowhere.npy: no such file"),
        (
            ["--workdir", str(labelled), "--input", new, "--output", "a.cvs"],
            "--output=a.cvs: allowed are files that",
        ),
        (["--workdir", str(labelled), "--input", __file__], "of a kind that this task does not read; allowed are .npy"),
    ):
        with pytest.raises(UsageError) as error:
            predict.command(flags)
        assert message in str(error.value)
        assert "\n" not in str(error.value)
    assert predict.command(["--workdir", str(labelled), "--input", new]) == 0
    assert capsys.readouterr().out.startswith("sequence,prediction,p(ash),p(elm),p(oak)\n0,")


def test_steps_have_rows_up_to_their_length():
    columns = {"label": np.array([["a", "b", "c"], ["d", "e", "f"]])}
    table = Predictions(np.zeros((2, 3, 4)), columns, np.array([1, 3]), {}).table
    assert table.rows() == [(0, 0, "a"), (1, 0, "d"), (1, 1, "e"), (1, 2, "f")]
    assert len(Predictions(np.zeros((2, 3, 4)), columns, None, {}).table) == 6


def test_damaged_facts_are_one_line(labelled, unchecked_types):
    path = labelled / "data.json"
    before = path.read_text()
    try:
        for content in ('{"time": 3}', "[]", before.replace('"time": 5', '"time": "5"')):
            path.write_text(content)
            with pytest.raises(UsageError, match=r"data\.json: damaged, ") as error:
                gru_jax.open(labelled)
            assert "\n" not in str(error.value)
    finally:
        path.write_text(before)


def test_evaluations_write_the_predictions_of_a_split(tmp_path, undrawn, capsys):
    train.run({**TRAINED, "task": TemporalOrder(20, **SIZES)}, tmp_path / "run")
    for split, count in (("valid", 10), ("test", COUNT)):
        path = tmp_path / f"{split}.csv"
        flags = ["--workdir", str(tmp_path / "run"), "--split", split, "--predictions", str(path)]
        assert evaluate.command(flags) == 0
        out = capsys.readouterr().out
        assert out.count("(equal to the stored one)") == 2
        assert f"predictions: {path}" in out
        table = pl.read_csv(path)
        assert table.columns[:3] == ["sequence", "target", "prediction"]
        right = (table["target"] == table["prediction"]).mean()
        stored = json.loads((tmp_path / "run" / "summary.json").read_text())["best"][split]["accuracy"]
        assert table.height == count
        np.testing.assert_allclose(right, stored)
    with pytest.raises(UsageError, match=r"--predictions=a\.txt: allowed are files that end in \.csv"):
        evaluate.command([*flags[:-1], "a.txt"])
