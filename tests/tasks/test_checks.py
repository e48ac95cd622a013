"""Data are looked at before anything is trained on them: by file, row, step and feature."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import ablate, train
from gru_jax.data.checks import check_finite, measure_features
from gru_jax.data.division import held_out
from gru_jax.data.npy import MemoryRows, open_rows
from gru_jax.errors import UsageError
from gru_jax.runs.diagnosis import NonFiniteError
from gru_jax.tasks import Arrays
from gru_jax.tasks.facts import DataFacts
from gru_jax.tasks.loading import load_splits

SPLITS = ("train", "valid", "test")
COUNT, TIME, SIZE = 12, 5, 3
CONFIG = {"model": {"hidden": 4}, "train": {"steps": 2, "batch_size": 4}, "flow": {"every": 0}}


def splits(seed=0, **changes):
    """Sound arrays of all splits, but for `changes` by split and name."""
    rng = np.random.default_rng(seed)
    arrays = {
        split: {"xs": rng.normal(size=(COUNT, TIME, SIZE)).astype(np.float32), "targets": np.arange(COUNT) % 3}
        for split in SPLITS
    }
    for key, change in changes.items():
        split, name = key.split("_")
        array = arrays[split].get(name)
        arrays[split][name] = change(array.copy()) if callable(change) else change
    return arrays


def put(folder, **changes):
    """Files as other tools leave them, unchecked, and the task that reads them."""
    (folder / "mine").mkdir()
    for split, named in splits(**changes).items():
        for name, array in named.items():
            np.save(folder / "mine" / f"{split}_{name}.npy", array)
    return Arrays(data_dir=str(folder), folder="mine")


def with_value(value, row=7, step=2, feature=1):
    def change(array):
        array[row, step, feature] = value
        return array

    return change


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("split", SPLITS)
def test_a_number_that_is_not_finite_is_refused_by_file_row_step_and_feature(split, value, tmp_path):
    task = put(tmp_path, **{f"{split}_xs": with_value(value)})
    with pytest.raises(UsageError, match=rf"{split}_xs\.npy: row 7, step 2, feature 1: holds {value}; allowed are fin"):
        load_splits(task, 100)
    with pytest.raises(UsageError, match=rf"{split}_xs\.npy: row 7, step 2, feature 1"):
        task.check_rows(split)  # as where it is streamed


def test_what_32_bits_do_not_hold_is_refused(tmp_path):
    wide = dict.fromkeys([f"{split}_xs" for split in SPLITS], lambda xs: xs.astype(np.float64))
    task = put(tmp_path, **{**wide, "test_xs": lambda xs: with_value(1e39)(xs.astype(np.float64))})
    with pytest.raises(UsageError, match=r"test_xs\.npy: row 7, step 2, feature 1: holds 1e\+39"):
        task.load("test")


def test_large_numbers_whose_sum_is_infinite_are_fine(tmp_path):
    task = put(tmp_path, train_xs=lambda xs: np.full_like(xs, 3e38))
    assert np.isfinite(task.load("train")["xs"]).all()


def test_padding_may_hold_anything_and_is_cut_off(tmp_path):
    lengths = np.full(COUNT, 2)
    task = put(tmp_path, train_xs=with_value(np.nan), **{f"{split}_lengths": lengths for split in SPLITS})
    assert task.load("train")["lengths"].tolist() == [2] * COUNT
    np.save(tmp_path / "mine" / "train_lengths.npy", lengths + 1)
    with pytest.raises(UsageError, match="step 2, feature 1: holds nan"):
        task.load("train")


@pytest.mark.parametrize("name", ["lengths", "mask"])
def test_lengths_of_one_split_and_not_of_another_are_refused(name, tmp_path):
    array = np.full(COUNT, 3) if name == "lengths" else np.ones((COUNT, TIME))
    per_step = dict.fromkeys([f"{s}_targets" for s in SPLITS], np.zeros((COUNT, TIME), int))
    task = put(tmp_path, **per_step, **{f"train_{name}": array, f"test_{name}": array})
    with pytest.raises(UsageError, match=f"{name} of train, test and not of valid, where padding would be read"):
        task.load("train")


@pytest.mark.parametrize(("labels", "names"), [((1, 2, 3), "1 2 3"), ((0, 50, 100), "0 50 100"), ((0, 1, 2), "0 1 2")])
def test_classes_are_the_labels_that_occur(labels, names, tmp_path):
    targets = np.array(labels)[np.arange(COUNT) % 3]
    task = put(tmp_path, **{f"{split}_targets": targets for split in SPLITS})
    assert task.output_size == 3
    assert " ".join(task.facts.classes) == names
    batch = task.batch(jax.device_put(task.load("train")), jax.random.key(0), jnp.arange(COUNT))
    np.testing.assert_array_equal(batch.targets, np.arange(COUNT) % 3)
    np.testing.assert_allclose(task.baseline["accuracy"], 1 / 3)
    known = dataclasses.replace(task, classes=101)
    assert known.output_size == 101
    with pytest.raises(UsageError, match=rf"_targets\.npy: holds {labels[2]}; allowed are 0 to 1, 2 classes"):
        _ = dataclasses.replace(task, classes=2).output_size


def test_labels_that_occur_are_told_and_those_never_trained_on(tmp_path):
    task = put(
        tmp_path, train_targets=np.array([1, 5] * 6), test_targets=np.array([1, 9] * 6), valid_targets=np.ones(12, int)
    )
    out = task.describe_data()
    assert "train: 12 sequences of 5 steps, 3 features" in out
    assert "classes, with their sequences in train, valid, test: 1 (6, 12, 6), 5 (6, 0, 0), 9 (0, 0, 6)" in out
    assert "never in training, so that no network can learn them: 9" in out


def test_one_hot_targets_are_not_numbers_to_predict(tmp_path):
    one_hot = np.eye(3)[np.arange(COUNT) % 3]
    task = put(tmp_path, **{f"{split}_targets": one_hot for split in SPLITS})
    with pytest.raises(UsageError, match=r"train_targets\.npy: its numbers are one-hot.*argmax.*allow_one_hot=true"):
        _ = task.output_size
    assert dataclasses.replace(task, allow_one_hot=True).goal == ("loss", "min")
    two_hot = np.ones((COUNT, 2))
    assert put_again(tmp_path, two_hot).output_size == 2


def put_again(folder, targets):
    for split in SPLITS:
        np.save(folder / "mine" / f"{split}_targets.npy", targets)
    return Arrays(data_dir=str(folder), folder="mine")


@pytest.mark.parametrize("missing", ["zero", "mean", "mask"])
def test_missing_inputs_are_what_the_task_says(missing, tmp_path, capsys):
    task = dataclasses.replace(
        put(tmp_path, train_xs=with_value(np.nan), test_xs=with_value(np.nan, 0, 0, 2)), missing=missing
    )
    data = {split: task.load(split) for split in SPLITS}
    stored = np.load(tmp_path / "mine" / "train_xs.npy")
    mean = np.nanmean(stored, axis=(0, 1))
    for split, where in (("train", (7, 2, 1)), ("test", (0, 0, 2))):
        xs = task.batch(jax.device_put(data[split]), jax.random.key(0), jnp.arange(COUNT)).xs
        assert bool(jnp.isfinite(xs).all())
        assert xs.shape == (COUNT, TIME, task.input_size)
        np.testing.assert_allclose(xs[where], mean[where[2]] if missing == "mean" else 0, rtol=1e-5)
        if missing == "mask":
            flags = np.isnan(np.load(tmp_path / "mine" / f"{split}_xs.npy"))
            np.testing.assert_array_equal(xs[..., SIZE:], flags)
    assert f"1 inputs missing (task.missing={missing})" in " ".join(task.describe_data())
    for value in (np.inf, -np.inf):
        np.save(tmp_path / "mine" / "valid_xs.npy", with_value(value)(stored))
        with pytest.raises(UsageError, match=rf"feature 1: holds {value}; allowed are finite numbers of 32 bits$"):
            task.load("valid")


def test_scaled_inputs_and_targets_have_mean_0_and_deviation_1(tmp_path):
    rng = np.random.default_rng(3)
    changes = {f"{s}_targets": 50 + 7 * rng.normal(size=(COUNT, 2)) for s in SPLITS}
    changes["train_xs"] = lambda xs: with_value(np.nan)(1e6 + 3 * xs)
    task = dataclasses.replace(put(tmp_path, **changes), scale=True, missing="mean")
    batch = task.batch(jax.device_put(task.load("train")), jax.random.key(0), jnp.arange(COUNT))
    np.testing.assert_allclose(batch.xs.mean(axis=(0, 1)), 0, atol=1e-2)
    np.testing.assert_allclose(batch.xs.std(axis=(0, 1)), 1, rtol=2e-2)
    np.testing.assert_allclose(batch.targets.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(batch.targets.std(axis=0), 1, rtol=1e-5)


def test_statistics_of_blocks_are_those_of_the_whole():
    xs = 1e6 + np.random.default_rng(0).normal(size=(50, 4, 2))
    lengths = np.random.default_rng(1).integers(1, 5, 50)
    parts = [(first, xs[first : first + 7]) for first in range(0, 50, 7)]
    within = np.arange(4) < lengths[:, None]
    mean, deviation = measure_features(parts, lengths, 2)
    np.testing.assert_allclose(mean, xs[within].mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(deviation, xs[within].std(axis=0), rtol=1e-6)


def test_what_is_missing_is_counted():
    xs = np.full((4, 3, 2), np.nan)
    assert check_finite([(0, xs[:2]), (2, xs[2:])], np.array([1, 2, 3, 1]), lambda *where: "", "zero") == 14


@pytest.mark.parametrize("by", ["random", "stratified", "group", "time"])
def test_a_fraction_is_held_out_where_there_is_no_file(by, tmp_path):
    count = 100
    xs = np.arange(count, dtype=np.float32)[:, None, None] + np.zeros((1, TIME, 1), np.float32)
    targets, groups = (np.arange(count) % 10 == 0).astype(int), np.arange(count) // 10
    arrays = {"xs": xs, "targets": targets, "groups": groups}
    task = Arrays.write(tmp_path / "mine", train=arrays, valid_fraction=0.2, test_fraction=0.3, divide_by=by)
    assert [task.size(split) for split in SPLITS] == [50, 20, 30]
    rows = {split: task.load(split)["xs"][:, 0, 0].astype(int) for split in SPLITS}
    assert sorted(np.concatenate(list(rows.values()))) == list(range(count))
    streamed = {split: task.rows(split)["xs"].take(np.arange(task.size(split)))[:, 0, 0] for split in SPLITS}
    jax.tree.map(np.testing.assert_array_equal, rows, jax.tree.map(lambda a: a.astype(int), streamed))
    if by == "time":
        assert rows["train"].tolist() == list(range(50))
        assert rows["valid"].tolist() == list(range(50, 70))
    if by == "group":
        assert not set(rows["train"] // 10) & set(rows["valid"] // 10)
    if by == "stratified":
        assert [int(targets[rows[split]].sum()) for split in SPLITS] == [5, 2, 3]
    bad = Arrays.write(tmp_path / "bad", train=arrays, valid=arrays, test_fraction=0.3)
    with pytest.raises(UsageError, match=r"valid_fraction=0\.2: without effect, it has files of its own"):
        _ = dataclasses.replace(bad, valid_fraction=0.2).time


def test_a_number_is_named_by_its_row_in_the_file_where_rows_are_held_out(tmp_path):
    xs = np.zeros((10, 2, 1), np.float32)
    xs[9, 1, 0] = np.nan
    (tmp_path / "mine").mkdir()
    np.save(tmp_path / "mine" / "train_xs.npy", xs)
    np.save(tmp_path / "mine" / "train_targets.npy", np.arange(10) % 2)
    task = Arrays(data_dir=str(tmp_path), folder="mine", valid_fraction=0.2, test_fraction=0.2, divide_by="time")
    task.load("train")
    with pytest.raises(UsageError, match=r"train_xs\.npy: row 9, step 1, feature 0: holds nan"):
        task.load("test")


def test_nothing_left_and_no_groups_are_one_line(tmp_path):
    with pytest.raises(UsageError, match="of 3 examples none is left"):
        held_out(3, 0.9, "random", 0)
    with pytest.raises(UsageError, match="divide_by=group: there is one group"):
        held_out(3, 0.5, "group", 0, groups=np.zeros(3))
    arrays = splits()["train"]
    with pytest.raises(UsageError, match="divide_by=group: needed is groups of sequences, and there is none"):
        Arrays.write(tmp_path / "mine", train=arrays, valid_fraction=0.2, test_fraction=0.2, divide_by="group")


def test_data_sets_in_memory_with_names_and_labels_of_their_own(tmp_path):
    examples = [{"signal": [[0.5]] * (1 + i % 3), "label": ["cat", "dog"][i % 2], "id": f"{i}"} for i in range(6)]
    columns = {"xs": "signal", "targets": "label"}
    task = Arrays.write(tmp_path / "mine", columns=columns, **dict.fromkeys(SPLITS, examples))
    assert task.facts.classes == ("cat", "dog")
    assert task.load("test")["lengths"].tolist() == [1, 2, 3] * 2
    numbered = {"signal": np.ones((4, 2, 1)), "label": np.array([0, 1, 0, 1])}
    task = Arrays.write(
        tmp_path / "two", columns=columns, class_names=["a", "b", "c"], **dict.fromkeys(SPLITS, numbered)
    )
    assert (task.facts.classes, task.output_size) == (("a", "b", "c"), 3)
    with pytest.raises(UsageError, match="columns: xs: train has no='signl': allowed are signal, label, id; did you"):
        Arrays.write(tmp_path / "mine", columns={**columns, "xs": "signl"}, **dict.fromkeys(SPLITS, examples))
    assert DataFacts.from_json(json.loads(json.dumps(task.facts.to_json()))) == task.facts


def test_a_test_score_that_is_not_finite_ends_with_its_own_error(tmp_path, undrawn):
    task = put(tmp_path, test_xs=lambda xs: np.full_like(xs, 3e38))
    model = {"hidden": 4, "cell": {"name": "elman", "activation": "relu"}, "init": {"recurrent": "identity"}}
    with pytest.raises(NonFiniteError, match="test of the network of step 2 is not finite: the state of layer_0"):
        train.run({**CONFIG, "task": task, "model": model}, tmp_path / "run")
    assert not (tmp_path / "run" / "summary.json").exists()
    assert "NaN" not in (tmp_path / "run" / "metrics.jsonl").read_text()


def test_a_member_whose_test_score_is_not_finite_has_diverged(tmp_path, undrawn):
    task = put(tmp_path, test_xs=lambda xs: np.full_like(xs, 3e38))
    model = {"hidden": 4, "cell": {"name": "elman", "activation": "relu"}, "init": {"recurrent": "identity"}}
    ablate.run({"base": {**CONFIG, "task": task, "model": model}, "axes": {"seed": [0, 1]}}, tmp_path / "study")
    summaries = [json.loads(path.read_text()) for path in (tmp_path / "study" / "members").glob("*/summary.json")]
    assert [summary["end_reason"] for summary in summaries] == ["diverged"] * 2
    assert all("is not finite" in summary["stopped"] for summary in summaries)


def test_rows_are_read_in_any_order_in_memory_and_from_files(tmp_path):
    array = np.arange(60.0).reshape(20, 3)
    np.save(tmp_path / "a.npy", array)
    for rows in (open_rows(tmp_path / "a.npy"), MemoryRows.of_array(tmp_path / "a.npy", array)):
        for order in ([3, 2, 7, 5], [19, 0], [4]):
            np.testing.assert_array_equal(rows.take(np.array(order)), array[order])
            np.testing.assert_array_equal(rows.ordered(np.array(order)).all(), array[order])
        again = rows.ordered(np.array([5, 9, 1])).ordered(np.array([2, 0]))
        np.testing.assert_array_equal(again.all(), array[[1, 5]])
        assert again.place(0, 2) == f"{tmp_path / 'a.npy'}: row 1, step 2"
