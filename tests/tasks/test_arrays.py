"""Sequences of one's own: targets for each step, masks, weights of classes, and examples one by one."""

from __future__ import annotations

import json

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
def test_the_baseline_is_the_best_constant_answer(kind, tmp_path):
    weights = (1.0, 2.0, 0.5) if kind == "weighted labels" else None
    changes = {}
    if kind == "numbers":
        changes["targets"] = np.random.default_rng(5).normal(size=(COUNT, TIME, 2)).astype(np.float32)
    task = written(tmp_path, class_weights=weights, **changes)
    batch = batch_of(task, "test")

    def loss(answer):
        return task.metrics(jnp.broadcast_to(answer, (COUNT, TIME, task.output_size)), batch)["loss"].mean()

    answer, step = jnp.zeros(task.output_size), jax.jit(jax.grad(loss))
    for _ in range(3000):
        answer = answer - 0.3 * step(answer)
    np.testing.assert_allclose(loss(answer), task.baseline["loss"], rtol=1e-4)
    if kind == "labels":
        outputs = jnp.broadcast_to(answer, (COUNT, TIME, 3))
        np.testing.assert_allclose(
            task.metrics(outputs, batch)["accuracy"].mean(), task.baseline["accuracy"], rtol=1e-5
        )


def test_weights_of_classes_of_sequences(tmp_path):
    targets = np.arange(COUNT) % 2
    weighted, plain = (
        written(tmp_path / name, ("xs", "targets"), class_weights=weights, targets=targets)
        for name, weights in {"weighted": [1.0, 3.0], "plain": None}.items()
    )
    outputs = jax.random.normal(jax.random.key(1), (COUNT, 2))
    ours, theirs = (task.metrics(outputs, batch_of(task))["loss"] for task in (weighted, plain))
    np.testing.assert_allclose(ours, theirs * np.where(targets == 1, 3.0, 1.0), rtol=1e-6)


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
        ({"targets": np.where(COUNTS, -1, 0)}, "holds -1; allowed are 0 to 999999"),
        ({"targets": np.arange(COUNT) % 2}, "a mask needs a target for each step; there is one for a sequence"),
        ({"wrong": np.zeros(3)}, "train: array='wrong': allowed are xs, targets, lengths, mask"),
    ],
)
def test_what_does_not_fit_is_one_line(changes, message, tmp_path):
    with pytest.raises(UsageError, match=message) as error:
        written(tmp_path, ("xs", "targets", "lengths", "mask", "wrong"), **changes)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("mine/*.npy"))


def test_weights_are_one_for_each_class(tmp_path):
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
