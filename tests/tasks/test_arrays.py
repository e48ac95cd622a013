"""Sequences of one's own: targets for each step, masks, weights of classes, and examples one by one."""

from __future__ import annotations

import dataclasses
import json
import os
import time

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import evaluate, train
from gru_jax.config import load
from gru_jax.errors import UsageError
from gru_jax.tasks import Arrays

pytestmark = pytest.mark.usefixtures("compiled_once")

COUNT, TIME, SIZE = 8, 5, 3
SPLITS = ("train", "valid", "test")
LENGTHS = np.array([5, 1, 3, 4, 2, 5, 5, 3])
COUNTS = np.arange(TIME) < LENGTHS[:, None]


def draw(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "xs": rng.normal(size=(COUNT, TIME, SIZE)).astype(np.float32),
        "targets": np.where(COUNTS, rng.integers(0, 3, (COUNT, TIME)), -100),
        "lengths": LENGTHS,
        "mask": rng.choice([0.5, 1.0, 2.0], (COUNT, TIME)),
    }


def written(folder, names=("xs", "targets", "lengths", "mask"), class_weights=None, **changes):
    splits = {split: {n: a for n, a in {**draw(i), **changes}.items() if n in names} for i, split in enumerate(SPLITS)}
    return Arrays.write(folder / "mine", class_weights=class_weights, **splits)


def batch_of(task, split="valid"):
    return task.batch(jax.device_put(task.load(split)), jax.random.key(0), jnp.arange(COUNT))


def test_labels_of_each_step(tmp_path):
    task = written(tmp_path, class_weights=(1.0, 2.0, 0.5))
    assert (task.readout, task.output_size, task.goal) == ("every", 3, ("accuracy", "max"))
    batch, arrays = batch_of(task), draw(1)
    outputs = jax.random.normal(jax.random.key(1), (COUNT, TIME, 3))
    metrics = task.metrics(outputs, batch)
    for row in range(COUNT):
        steps = slice(0, LENGTHS[row])
        labels, mask = arrays["targets"][row, steps], arrays["mask"][row, steps]
        losses = optax.softmax_cross_entropy_with_integer_labels(outputs[row, steps], jnp.asarray(labels))
        losses = np.asarray(losses) * np.array([1.0, 2.0, 0.5])[labels]
        np.testing.assert_allclose(metrics["loss"][row], (losses * mask).sum() / mask.sum(), rtol=1e-5)
        right = np.asarray(outputs[row, steps].argmax(axis=-1)) == labels
        np.testing.assert_allclose(metrics["accuracy"][row], (right * mask).sum() / mask.sum(), rtol=1e-5)


def test_numbers_at_each_step(tmp_path):
    targets = np.random.default_rng(5).normal(size=(COUNT, TIME, 2)).astype(np.float32)
    targets[~COUNTS] = np.nan
    task = written(tmp_path, ("xs", "targets", "lengths"), targets=targets)
    assert (task.readout, task.output_size, task.goal) == ("every", 2, ("loss", "min"))
    outputs = jax.random.normal(jax.random.key(1), (COUNT, TIME, 2))
    loss, grads = jax.value_and_grad(lambda o: task.metrics(o, batch_of(task))["loss"].sum())(outputs)
    assert np.isfinite(loss)
    assert np.isfinite(grads).all()
    squares = np.where(COUNTS[..., None], (np.asarray(outputs) - targets) ** 2, 0).mean(axis=-1)
    np.testing.assert_allclose(task.metrics(outputs, batch_of(task))["loss"], squares.sum(axis=1) / LENGTHS, rtol=1e-5)


@pytest.mark.parametrize("kind", ["labels", "weighted labels", "numbers"])
def test_the_baseline_is_the_constant_answer_that_is_best_in_training(kind, tmp_path):
    weights = (1.0, 2.0, 0.5) if kind == "weighted labels" else None
    changes = {}
    if kind == "numbers":
        changes["targets"] = np.random.default_rng(5).normal(size=(COUNT, TIME, 2)).astype(np.float32)
    task = written(tmp_path, class_weights=weights, **changes)
    train, test = batch_of(task, "train"), batch_of(task, "test")

    def scores(answer, batch):
        outputs = jnp.broadcast_to(answer, (COUNT, TIME, task.output_size))
        return {name: value.mean() for name, value in task.metrics(outputs, batch).items()}

    answer, step = jnp.zeros(task.output_size), jax.jit(jax.grad(lambda answer: scores(answer, train)["loss"]))
    for _ in range(3000):
        answer = answer - 0.3 * step(answer)
    assert not np.allclose(scores(answer, test)["loss"], scores(answer, train)["loss"], rtol=1e-2)
    np.testing.assert_allclose(scores(answer, test)["loss"], task.baseline["loss"], rtol=1e-4)
    if kind == "labels":
        np.testing.assert_allclose(scores(answer, test)["accuracy"], task.baseline["accuracy"], rtol=1e-5)


def test_weights_of_classes_of_sequences(tmp_path):
    targets = np.arange(COUNT) % 2
    weighted, plain = (
        written(tmp_path / name, ("xs", "targets"), class_weights=weights, targets=targets)
        for name, weights in {"weighted": [1.0, 3.0], "plain": None}.items()
    )
    outputs = jax.random.normal(jax.random.key(1), (COUNT, 2))
    ours, theirs = (task.metrics(outputs, batch_of(task))["loss"] for task in (weighted, plain))
    np.testing.assert_allclose(ours, theirs * np.where(targets == 1, 3.0, 1.0), rtol=1e-6)


@pytest.mark.slow
def test_it_trains_goes_on_and_streams(tmp_path):
    task = written(tmp_path, class_weights=(1.0, 2.0, 0.5))
    config = {"task": task, "model": {"hidden": 4}, "train": {"steps": 6, "batch_size": 4, "eval_steps": 3}}
    run = train.run(config, tmp_path / "resident")
    assert evaluate.run(run).equals_stored
    streamed = train.run({**config, "resident_mb": 0}, tmp_path / "streamed")
    columns = ["split", "step", "loss"]
    assert run.metrics.select(columns).rows() == streamed.metrics.select(columns).rows()
    assert load(json.loads((tmp_path / "resident" / "config.json").read_text())).task == task


def test_a_grain_data_set_of_sequences_of_any_length(tmp_path):
    arrays = draw()
    examples = [
        {"xs": arrays["xs"][i, :length], "targets": arrays["targets"][i, :length]} for i, length in enumerate(LENGTHS)
    ]
    data = grain.MapDataset.source(examples)
    task = Arrays.write(tmp_path / "mine", train=data, valid=data.to_iter_dataset(), test=examples)
    for split in SPLITS:
        read = task.read(split)
        np.testing.assert_array_equal(read["lengths"], LENGTHS)
        np.testing.assert_array_equal(read["xs"], np.where(COUNTS[..., None], arrays["xs"], 0))
        np.testing.assert_array_equal(read["targets"], np.where(COUNTS, arrays["targets"], 0))
    pairs = Arrays.write(
        tmp_path / "pairs", **{split: [(np.ones((4, 2)), label) for label in (1, 0)] for split in SPLITS}
    )
    assert (pairs.time, pairs.output_size, pairs.readout) == (4, 2, "last")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": np.zeros((COUNT, 4), int)}, r"needed is \[8\] of whole numbers, or \[8, 5\] for each step"),
        ({"targets": np.zeros((COUNT, 4, 2))}, r"needed is \[8, O\] of floats, or \[8, 5, O\] for each step"),
        ({"mask": np.ones((COUNT, 4))}, r"needed is \[8, 5\] of numbers"),
        ({"mask": np.full((COUNT, TIME), -1.0)}, "allowed are finite numbers from 0 up"),
        ({"mask": np.zeros((COUNT, TIME))}, "in row 0 no step counts"),
        ({"mask": np.full((COUNT, TIME), 1e-50)}, "in row 0 no step counts; numbers below 1.2e-38 are 0"),
        ({"mask": np.full((COUNT, TIME), 1e-38)}, "in row 0 no step counts; numbers below 1.2e-38 are 0"),
        (
            {"mask": np.full((COUNT, TIME), 1e39)},
            r"train_mask.npy: row 0, step 0: holds 1e\+39; allowed are finite numbers from 0 up, of 32",
        ),
        (
            {"mask": np.full((COUNT, TIME), np.nan)},
            "train_mask.npy: row 0, step 0: holds nan; allowed are finite numbers from 0 up",
        ),
        ({"mask": np.full((COUNT, TIME), 3e38, np.float32)}, r"row 0 adds up to more than 3\.4e\+38"),
        (
            {"targets": np.full((COUNT, TIME, 1), np.nan)},
            "holds nan; allowed are finite numbers of 32 bits, where they",
        ),
        (
            {"targets": np.full((COUNT, TIME, 1), 1e39)},
            r"holds 1e\+39; allowed are finite numbers of 32 bits, where they",
        ),
        (
            {"xs": np.ones((COUNT, TIME, 2), np.longdouble)},
            "train: xs: holds float128; allowed are numbers, real ones of",
        ),
        ({"xs": np.ones((COUNT, TIME, 2), complex)}, "train: xs: holds complex128; allowed are numbers, real ones of"),
        ({"xs": None}, "train: xs: holds NoneType; allowed are numbers, real ones of up to 64 bits"),
        ({"lengths": [5, None, *[5] * 6]}, "train: lengths of example 1: holds NoneType; allowed are numbers"),
        ({"lengths": [5, 6, *[5] * 6]}, "train: lengths of example 1 is 6; allowed are 1 to 5, its steps"),
        (
            {"targets": np.where(COUNTS, -1, 0)},
            "holds -1; allowed are whole numbers from 0, a class each, .*; steps that do not count go by a mask",
        ),
        ({"targets": np.arange(COUNT) % 2}, "a mask needs a target for each step; there is one for a sequence"),
        ({"wrong": np.zeros(3)}, "train: array='wrong': allowed are xs, targets, lengths, mask, weights, groups"),
    ],
)
def test_what_does_not_fit_is_one_line(changes, message, tmp_path):
    with pytest.raises(UsageError, match=message) as error:
        written(tmp_path, ("xs", "targets", "lengths", "mask", "wrong"), **changes)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("mine/*.npy"))


def test_a_mask_of_new_targets_fits_and_leaves_a_step(tmp_path):
    task = written(tmp_path)
    new = {**draw(1), "mask": np.ones((COUNT, TIME))}
    assert task.check_new(new, tmp_path / "new.npz").keys() == new.keys()
    for mask, message in (
        (np.ones(COUNT), rf"new\.npz: mask of shape \[{COUNT}\]; needed is \[{COUNT}, {TIME}\]"),
        (np.ones((COUNT, TIME + 1)), rf"needed is \[{COUNT}, {TIME}\]"),
        (np.arange(COUNT)[:, None] * np.ones(TIME), "row 0: none of its steps counts"),
    ):
        with pytest.raises(UsageError, match=message):
            task.check_new({**new, "mask": mask}, tmp_path / "new.npz")


def test_integers_of_64_bits_keep_their_upper_half(tmp_path):
    """JAX cuts them to their lower half, of which a mask of 2**32 had 0."""
    changes = {"mask": np.full((COUNT, TIME), 2**32), "xs": np.full((COUNT, TIME, SIZE), 3 * 2**40)}
    batch = batch_of(written(tmp_path, **changes))
    np.testing.assert_array_equal(batch.mask, np.where(COUNTS, np.float32(2**32), 0))
    np.testing.assert_array_equal(batch.xs, np.float32(3 * 2**40))


def test_steps_that_a_device_may_not_count_do_not(tmp_path):
    changes = {"mask": np.where(np.arange(TIME) < 1, 1.0, 1e-40) + np.zeros((COUNT, 1))}
    targets = np.where(np.arange(TIME) < 1, np.arange(COUNT)[:, None] % 3, -100)
    task = written(tmp_path, targets=targets, **changes)
    batch = batch_of(task)
    np.testing.assert_array_equal(batch.targets, np.where(targets > 0, targets, 0))
    outputs = jax.random.normal(jax.random.key(1), (COUNT, TIME, 3))
    losses = optax.softmax_cross_entropy_with_integer_labels(outputs[:, 0], batch.targets[:, 0])
    np.testing.assert_allclose(task.metrics(outputs, batch)["loss"], losses, rtol=1e-6)


def test_other_orders_of_bytes_and_types_that_files_do_not_know(tmp_path):
    arrays = {name: draw(1)[name] for name in ("xs", "targets", "lengths", "mask")}
    swapped = {name: array.astype(array.dtype.newbyteorder(">")) for name, array in arrays.items()}
    ours, theirs = (batch_of(written(tmp_path / name, **a)) for name, a in {"ours": swapped, "their": arrays}.items())
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    task = written(tmp_path / "rows", **swapped)
    assert {rows.take(np.array([1])).dtype.isnative for rows in task.rows("train").values()} == {True}
    narrow = jnp.asarray(arrays["xs"], jnp.bfloat16)
    np.testing.assert_array_equal(batch_of(written(tmp_path / "narrow", xs=narrow)).xs, narrow.astype(jnp.float32))


def steps(count, width=SIZE):
    return np.ones((count, width), np.float32)


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        (
            [(steps(5), np.ones(5, int)), (steps(4), np.ones(3, int))],
            "example 1 has xs of 4 steps and targets of 3; needed",
        ),
        (
            [(steps(5), np.ones(5, int)), (steps(3), np.ones(5, int))],
            "example 1 has xs of 3 steps and targets of 5; needed",
        ),
        ([(steps(5), np.ones(7, int))], "example 0 has xs of 5 steps and targets of 7; needed are as many"),
        (
            [(steps(5), np.ones((5, 2))), (steps(4), np.ones((5, 2)))],
            "example 1 has xs of 4 steps and targets of 5; needed",
        ),
        (
            [{"xs": steps(5), "targets": np.ones(5, int), "mask": np.ones(4)}],
            "example 0 has xs of 5 steps and mask of 4",
        ),
        (([steps(5), steps(4)], [np.ones(5, int), np.ones(5, int)]), "example 1 has xs of 4 steps and targets of 5"),
        ({"xs": steps(5)[None], "targets": [np.ones(4, int)]}, "example 0 has xs of 5 steps and targets of 4"),
        ([(steps(5), 1), (steps(4), 0, 5)], "examples are needed that all have the same of xs, targets"),
        ([(steps(5), 1, 5), (steps(4), 0, 5)], "lengths of example 1 is 5; allowed are 1 to 4, its steps"),
        (
            {"xs": [steps(5), steps(4)], "targets": [0, 1], "lengths": np.array([5, 5])},
            "lengths of example 1 is 5; allowed",
        ),
        (
            [(steps(5), 1), (steps(5, 2), 0)],
            r"xs of example 1 is of shape \[5, 2\] .*; needed is \[T, 3\], as of example 0",
        ),
        ([(steps(5)[:, 0], 1)], r"xs of example 0 is of shape \[5\] and type float32; needed is \[T, D\]$"),
        ([(1.0, 1), (2.0, 0)], r"xs of example 0 is of shape \[\] and type float64; needed is \[T, D\]$"),
        ([(steps(5), 1), (steps(0), 0)], r"xs of example 1 is of shape \[0, 3\] .*; needed is \[T, 3\]"),
        (
            [(steps(5), 1), (steps(5), np.ones(5, int))],
            r"targets of example 1 is of shape \[5\] .*; needed is one whole number",
        ),
        (
            [(steps(5), 1), (steps(5), 1.7)],
            r"targets of example 1 is of shape \[\] and type float64; needed is one whole number",
        ),
        (
            [(steps(5), np.ones(5, int)), (steps(4), np.ones(4) * 1.7)],
            r"type float64; needed is \[T\] of whole numbers, as of",
        ),
        (
            [(steps(5), np.ones(2)), (steps(4), np.ones(3))],
            r"targets of example 1 .*; needed is \[2\] of floats, as of",
        ),
        (
            [(steps(5), np.int64(1)), (steps(4), np.uint64(1))],
            "type uint64; needed is one whole number, as of example 0",
        ),
        ({"xs": [steps(5), steps(4)], "targets": [1]}, "train: 2 xs, 1 targets; needed are as many of each"),
        ({"xs": [steps(5)]}, "train: has xs; needed are xs and targets"),
        ({"xs": [], "targets": []}, "train: xs: of no example; needed is one or more"),
        ({"xs": [[[1.0], [2.0, 3.0]]], "targets": [1]}, "train: xs of example 0: not an array"),
        ([[steps(5), 1], [steps(4), 0]], r"train: xs of example 1 is of shape \[\] and type int64; needed is \[T, 3\]"),
    ],
)
def test_examples_that_padding_would_make_fit_are_one_line(examples, message, tmp_path, unchecked_types):
    with pytest.raises(UsageError, match=message) as error:
        Arrays.write(tmp_path / "mine", **dict.fromkeys(SPLITS, examples))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "mine").exists()


def test_lengths_and_masks_that_are_none_are_none(tmp_path):
    xs, targets, mask = np.ones((4, 5, 2)), np.arange(20).reshape(4, 5) % 3, np.arange(20).reshape(4, 5) + 1.0
    columns = (xs, targets, None, mask)
    for name, arrays in {
        "columns": columns,
        "examples": [(x, t, None, m) for x, t, m in zip(xs, targets, mask, strict=True)],
    }.items():
        task = Arrays.write(tmp_path / name, **dict.fromkeys(SPLITS, arrays))
        read = task.read("train")
        assert set(read) == {"xs", "targets", "mask"}
        np.testing.assert_array_equal(read["mask"], mask)


def test_lists_of_lists_are_examples_too(tmp_path):
    xs, targets = [[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0]]], [[1, 0], [1]]
    as_objects = np.empty(2, object)
    as_objects[:] = [np.array(x) for x in xs]
    for name, column in {"lists": xs, "objects": as_objects}.items():
        read = Arrays.write(tmp_path / name, **dict.fromkeys(SPLITS, (column, targets))).read("test")
        np.testing.assert_array_equal(read["xs"], [xs[0], [[5.0, 6.0], [0.0, 0.0]]])
        np.testing.assert_array_equal(read["targets"], [[1, 0], [1, 0]])
        np.testing.assert_array_equal(read["lengths"], [2, 1])


def test_folds_need_no_validation_files(tmp_path):
    arrays = draw()
    with pytest.raises(UsageError, match="needed are train, valid, test; folds or a valid_fraction do without valid"):
        Arrays.write(tmp_path / "mine", train=arrays, test=arrays)
    task = Arrays.write(tmp_path / "mine", train=arrays, test=arrays, folds=4, class_weights=(1.0, 2.0, 0.5))
    assert {path.name.split("_")[0] for path in (tmp_path / "mine").iterdir()} == {"train", "test"}
    assert (task.output_size, [task.size(split) for split in SPLITS]) == (3, [6, 2, 8])
    config = {"task": dataclasses.replace(task, fold=3), "model": {"hidden": 4}, "train": {"steps": 2, "batch_size": 3}}
    run = train.run(config, tmp_path / "run")
    assert evaluate.run(run, "valid").metrics["loss"] > 0
    with pytest.raises(UsageError, match=r"valid_targets\.npy: cannot be read \(No such file"):
        dataclasses.replace(task, folds=None)
    with pytest.raises(UsageError, match="fold=0: allowed are 0 to 8, and up to 8 folds"):
        Arrays.write(tmp_path / "mine", train=arrays, test=arrays, folds=9)
    assert task.size("test") == 8, "what was there stays"


def test_classes_of_validation_files_have_no_part_in_folds(tmp_path):
    arrays = draw()
    other = {**arrays, "targets": np.where(COUNTS, 9, 0)}
    task = Arrays.write(tmp_path / "mine", train=arrays, valid=other, test=arrays)
    assert (task.output_size, dataclasses.replace(task, folds=4).output_size) == (4, 3)


def test_a_file_of_the_same_size_and_time_is_another(tmp_path):
    task = written(tmp_path, ("xs", "targets"), targets=np.arange(COUNT) % 2)
    assert task.output_size == 2
    for split in SPLITS:
        path, new = (tmp_path / "mine" / f"{split}_{name}.npy" for name in ("targets", "new"))
        np.save(new, np.arange(COUNT) % 5)
        os.utime(new, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
        new.replace(path)
    assert task.output_size == 5
    time.sleep(0.05)  # the clock of files ticks more slowly than that of processes
    for split in SPLITS:  # in its place
        path = tmp_path / "mine" / f"{split}_targets.npy"
        before = path.stat()
        np.save(path, np.arange(COUNT) % 7)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert task.output_size == 7


def test_files_and_folders_in_each_others_place(tmp_path):
    (tmp_path / "file").write_text("")
    splits = dict.fromkeys(SPLITS, (np.ones((4, 5, 2)), np.arange(4)))
    with pytest.raises(UsageError, match="file: a file; needed is a folder, which need not exist"):
        Arrays.write(tmp_path / "file", **splits)
    with pytest.raises(UsageError, match=r"file/mine: cannot be written \(Not a directory\)"):
        Arrays.write(tmp_path / "file" / "mine", **splits)
    with pytest.raises(UsageError, match=r"file/train_xs\.npy: cannot be read \(Not a directory\)"):
        _ = Arrays(data_dir=str(tmp_path), folder="file").time
    task = Arrays.write(tmp_path / "mine", **splits)
    (tmp_path / "mine" / "valid_mask.npy").mkdir()
    with pytest.raises(UsageError, match=r"mine/valid_mask\.npy: a directory; needed is a file, or nothing"):
        Arrays.write(tmp_path / "mine", **splits)
    assert (tmp_path / "mine" / "train_xs.npy").exists(), "what was there stays"
    with pytest.raises(UsageError, match=r"mine/valid_mask\.npy: not a \.npy file \(.*Is a directory"):
        task.read("valid")


def test_a_path_with_dots_is_that_of_its_folder(tmp_path):
    task = Arrays.write(tmp_path / "mine" / "inner" / "..", **dict.fromkeys(SPLITS, (np.ones((4, 5, 2)), np.arange(4))))
    assert (task.data_dir, task.folder) == (str(tmp_path), "mine")


@pytest.mark.parametrize(
    "weights",
    [
        (1, float("nan"), 2),
        (1, float("inf"), 2),
        (1, 1e39, 2),
        (1, -1, 2),
        (0, 0, 0),
        (),
        "abc",
        2.0,
        [[1, 2, 3]],
        (1, None, 2),
    ],
)
def test_weights_that_no_loss_has_are_one_line(weights, tmp_path, unchecked_types):
    task = written(tmp_path)
    message = "class_weights=.*: allowed is a finite number from 0 up for each class, not all 0"
    with pytest.raises(UsageError, match=message):
        written(tmp_path, class_weights=weights)
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(task, class_weights=weights)


def test_weights_in_a_list_are_those_in_a_tuple(tmp_path, unchecked_types):
    task = written(tmp_path)
    of_list, of_array, of_tuple = (
        dataclasses.replace(task, class_weights=weights)
        for weights in ([1, 2, 0.5], np.array([1, 2, 0.5]), (1.0, 2.0, 0.5))
    )
    assert of_list == of_array == of_tuple
    assert hash(of_list) == hash(of_tuple)


def test_numbers_have_no_weights_of_classes(tmp_path):
    with pytest.raises(UsageError, match="targets that are numbers have no classes"):
        written(tmp_path, ("xs", "targets"), targets=np.ones((COUNT, 2)), class_weights=(1.0, 2.0))


def test_weights_are_one_for_each_class(tmp_path):
    before = written(tmp_path / "before", ("xs", "targets"), targets=np.arange(COUNT) % 2)
    with pytest.raises(UsageError, match=r"class_weights=\(1.0, 2.0\): needed is one for each of 3 classes"):
        written(tmp_path / "before", class_weights=(1.0, 2.0))
    assert before.output_size == 2, "what was there stays"
    with pytest.raises(UsageError, match=r"class_weights=\(1.0, 2.0\): needed is one for each of 3 classes"):
        written(tmp_path, class_weights=(1.0, 2.0))


def test_examples_that_differ_in_what_they_have(tmp_path, unchecked_types):
    examples = [{"xs": np.ones((3, 2)), "targets": 0}, {"xs": np.ones((3, 2))}]
    with pytest.raises(UsageError, match="train: examples are needed that all have the same of xs, targets"):
        Arrays.write(tmp_path / "mine", **dict.fromkeys(SPLITS, examples))
    with pytest.raises(UsageError, match="train=int: allowed are arrays, by name or in a tuple, and examples"):
        Arrays.write(tmp_path / "mine", **dict.fromkeys(SPLITS, 3))


def test_splits_whose_longest_sequences_differ(tmp_path):
    rng = np.random.default_rng(0)
    splits = {
        split: [(rng.normal(size=(n, SIZE)).astype(np.float32), rng.integers(0, 2, n)) for n in lengths]
        for split, lengths in {"train": (5, 9), "valid": (8, 4), "test": (3, 10)}.items()
    }
    task = Arrays.write(tmp_path / "mine", **splits)
    assert task.time == 10
    assert task.read("valid")["lengths"].tolist() == [8, 4]
    np.testing.assert_array_equal(task.read("valid")["xs"][1, :4], splits["valid"][1][0])
    by_name = {s: {"xs": [x for x, _ in pairs], "targets": [t for _, t in pairs]} for s, pairs in splits.items()}
    assert Arrays.write(tmp_path / "lists", **by_name).read("test")["lengths"].tolist() == [3, 10]
