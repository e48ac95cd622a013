"""Weights of sequences: how much each counts in the loss and in all metrics."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import evaluate, train
from gru_jax.config import load, traced_hyperparameters
from gru_jax.errors import UsageError
from gru_jax.tasks import Arrays, Files
from gru_jax.tasks.loading import load_splits
from gru_jax.tasks.scores import scores_of
from gru_jax.training.answers import evaluate_answers
from gru_jax.training.evaluation import build_evaluator
from gru_jax.training.network import build_model, run_network
from gru_jax.training.step import Trainer

COUNT, TIME = 10, 4
RNG = np.random.default_rng(0)
XS = RNG.normal(size=(COUNT, TIME, 2)).astype(np.float32)
CLASSES, WEIGHTS = np.arange(COUNT) % 2, np.array([0.5, 2, 0, 1, 1, 3, 0.25, 0, 1, 0.5])
CONFIG = {"model": {"hidden": 4}, "train": {"steps": 3, "batch_size": 5, "eval_batch_size": 4}, "flow": {"every": 0}}


def written(folder, weights=WEIGHTS, splits=("train", "valid", "test"), targets=CLASSES, **settings):
    named = {"xs": XS, "targets": targets}
    arrays = {s: {**named, "weights": weights} if s in splits else named for s in ("train", "valid", "test")}
    return Arrays.write(folder / "mine", **arrays, **settings)


def batch_of(task, split="valid"):
    return task.batch(jax.device_put(task.load(split)), jax.random.key(0), jnp.arange(COUNT))


def test_metrics_are_weighted_means_over_batches_of_any_size(tmp_path):
    """In evaluations, and in scores of a whole set."""
    config = load(
        {**CONFIG, "task": written(tmp_path), "train": {**CONFIG["train"], "metrics": ("balanced_accuracy",)}}
    )
    model = build_model(config)
    params, data = model.init(jax.random.key(0)), jax.device_put(config.task.load("valid"))
    trace, each = run_network(config, model, params, batch_of(config.task))
    metrics = build_evaluator(config, model)(params, "valid", data)
    for name, values in each.items():
        np.testing.assert_allclose(metrics[name], np.average(np.asarray(values), weights=WEIGHTS), rtol=1e-5)
    right = np.asarray(trace.outputs.argmax(axis=-1)) == CLASSES
    recalls = [np.average(right[label == CLASSES], weights=WEIGHTS[label == CLASSES]) for label in (0, 1)]
    score = scores_of(config.train.metrics, evaluate_answers(config, params, "valid", data))["balanced_accuracy"]
    np.testing.assert_allclose(score, np.mean(recalls), rtol=1e-5)


def test_a_weight_of_two_is_an_example_twice(tmp_path):
    """To the gradient, whatever the scale of the weights."""
    counts = np.array([1, 2, 1, 3, 1, 1, 0, 1, 0, 0])
    tasks = [written(tmp_path / name, 0.1 * counts * scale) for name, scale in (("one", 1), ("ten", 10))]
    updates = []
    for task in tasks:
        trainer = Trainer(load({**CONFIG, "task": task}))
        values = traced_hyperparameters(trainer.config)
        state = trainer.init(0, values)
        updates.append(trainer.update(state, 0, values, batch_of(task)))
    repeated = batch_of(tasks[0])._replace(weights=None)
    repeated = jax.tree.map(lambda a: a[np.repeat(np.arange(COUNT), counts)], repeated)
    wanted = trainer.update(state, 0, values, repeated)
    for update in updates:
        np.testing.assert_allclose(update.loss, wanted.loss, rtol=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), update.grads, wanted.grads)


@pytest.mark.parametrize("targets", [CLASSES, XS[:, 0], XS], ids=["classes", "numbers", "each step"])
def test_answers_without_a_network_are_weighted_too(targets, tmp_path):
    baseline = written(tmp_path, targets=targets).baseline
    if targets is CLASSES:
        share = np.average(CLASSES, weights=WEIGHTS)
        wanted = -np.average(np.where(CLASSES, np.log(share), np.log(1 - share)), weights=WEIGHTS)
    else:
        of_each = targets if targets.ndim == 2 else targets.reshape(COUNT * TIME, -1)
        weights = WEIGHTS if targets.ndim == 2 else np.repeat(WEIGHTS, TIME)
        wanted = np.average(
            (of_each - np.average(of_each, axis=0, weights=weights)) ** 2, axis=0, weights=weights
        ).mean()
    np.testing.assert_allclose(baseline["loss"], wanted, rtol=1e-5)


def test_weights_of_the_training_alone(tmp_path):
    task = written(tmp_path, splits=("train",))
    assert batch_of(task, "train").weights is not None
    assert batch_of(task, "valid").weights is None
    assert task.describe_data()[0].endswith("2 features, of weights 0 to 3")
    assert task.describe_data()[1].endswith("2 features")
    held = Arrays.write(tmp_path / "held", train={"xs": XS, "targets": CLASSES, "weights": WEIGHTS}, folds=2,
                        test={"xs": XS, "targets": CLASSES})  # fmt: skip
    data = jax.device_put(held.load("valid"))
    batch = held.batch(data, jax.random.key(0), jnp.arange(5))
    np.testing.assert_array_equal(batch.weights, WEIGHTS[held.order("valid")].astype(np.float32))


def test_a_run_with_weights_is_what_its_evaluation_says(tmp_path, undrawn):
    """Streamed too, and in predictions of a file that has them."""
    config = {**CONFIG, "task": written(tmp_path)}
    run = train.run(config, tmp_path / "run")
    assert evaluate.run(run).equals_stored
    streamed = train.run({**config, "resident_mb": 0}, tmp_path / "streamed")
    columns = ["split", "step", "loss"]
    assert run.metrics.select(columns).rows() == streamed.metrics.select(columns).rows()
    np.savez(tmp_path / "new.npz", xs=XS, targets=CLASSES, weights=WEIGHTS)
    arrays = run.config.task.read_input(tmp_path / "new.npz")
    assert arrays["weights"].shape == (COUNT,)
    np.savez(tmp_path / "new.npz", xs=XS, targets=CLASSES, weights=-WEIGHTS)
    with pytest.raises(UsageError, match=r"new\.npz: row 0: holds -0\.5, of weights"):
        run.config.task.read_input(tmp_path / "new.npz")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            np.where(np.arange(COUNT) == 3, -1.0, 1.0),
            r"train_weights\.npy: row 3: holds -1\.0, of weights; allowed are",
        ),
        (np.where(np.arange(COUNT) == 3, np.nan, 1.0), r"train_weights\.npy: row 3: holds nan"),
        (np.full(COUNT, 1e39), r"row 0: holds 1e\+39, of weights; allowed are finite numbers from 0 up, of 32 bits"),
        (np.zeros(COUNT), r"train_weights\.npy: all weights of train are 0; needed is one above it"),
        (np.ones((COUNT, TIME)), r"of shape \[10, 4\] and type float64; needed is \[10\] of numbers"),
    ],
)
def test_weights_that_are_none_are_one_line(weights, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        written(tmp_path, weights)


def rows_of(names, count=8):
    lines = [",".join(["id", *names])]
    for i in range(count):
        values = {"a": i / 8, "w": f"{i / 2}", "kind": ["ash", "oak"][i % 2]}
        lines += [",".join([f"s{i}", *(str(values[name]) for name in names)]) for _ in range(2)]
    return "\n".join(lines) + "\n"


def test_a_column_of_a_table(tmp_path):
    (tmp_path / "train.csv").write_text(rows_of(["a", "w", "kind"]))
    (tmp_path / "test.csv").write_text(rows_of(["a", "kind"], 3))
    task = Files(data_dir=str(tmp_path), train="train.csv", test="test.csv", sequence="id", targets=("kind",),
                 weights="w", valid_fraction=0.25, divide_by="time")  # fmt: skip
    loaded = load_splits(task, 1)
    assert task.input_size == 1
    assert loaded["train"]["weights"].tolist() == [0, 0.5, 1, 1.5, 2, 2.5]
    assert loaded["valid"]["weights"].tolist() == [3, 3.5]
    assert "weights" not in loaded["test"]
    with pytest.raises(UsageError, match=r"train\.csv: line 2: weights 'v' is no column of the training's files"):
        _ = dataclasses.replace(task, weights="v", inputs=("a",)).time
    (tmp_path / "train.csv").write_text(rows_of(["a", "w", "kind"]).replace("1.5,", ","))
    with pytest.raises(UsageError, match=r"train\.csv: line 9, column 'w': has no weight"):
        _ = dataclasses.replace(task).time
