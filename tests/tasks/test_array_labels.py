"""Sequences of one's own with labels of which several may hold."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import evaluate, train
from gru_jax.errors import UsageError
from gru_jax.tasks import Arrays, Files
from gru_jax.tasks.facts import DataFacts
from gru_jax.tasks.labels import label_metrics

COUNT, TIME, LABELS = 12, 5, 3
SPLITS = ("train", "valid", "test")


def examples(seed, per_step=True, count=COUNT):
    """Sequences of unequal lengths, the k-th label of which holds where the k-th input is positive."""
    rng = np.random.default_rng(seed)
    made = []
    for length in rng.integers(1, TIME + 1, count):
        xs = rng.normal(size=(length, LABELS)).astype(np.float32)
        made.append((xs, xs > 0 if per_step else xs[-1] > 0))
    return made


def written(folder, per_step=True, **settings):
    return Arrays.write(folder / "mine", **{s: examples(i, per_step) for i, s in enumerate(SPLITS)}, **settings)


def batch_of(task, split="valid"):
    return task.batch(jax.device_put(task.load(split)), jax.random.key(0), jnp.arange(COUNT))


@pytest.mark.parametrize("per_step", [True, False])
def test_booleans_are_labels(per_step, tmp_path):
    task, outputs = written(tmp_path, per_step), jax.random.normal(jax.random.key(1), (COUNT, TIME, LABELS))
    assert (task.output_size, task.goal, task.readout) == (LABELS, ("loss", "min"), "every" if per_step else "last")
    outputs = outputs if per_step else outputs[:, 0]
    metrics = task.metrics(outputs, batch_of(task))
    for row, (xs, held) in enumerate(examples(1, per_step)):
        logits = outputs[row, : len(xs)] if per_step else outputs[row]
        for name, values in label_metrics(logits, jnp.asarray(held)).items():
            np.testing.assert_allclose(metrics[name][row], values.mean(), rtol=1e-5)


@pytest.mark.parametrize("per_step", [True, False])
def test_the_baseline_is_the_share_of_each_label(per_step, tmp_path):
    task = written(tmp_path, per_step)
    shares = np.mean([np.mean(np.atleast_2d(held), axis=0) for _, held in examples(0, per_step)], axis=0)
    logits = np.log(shares) - np.log1p(-shares)
    outputs = jnp.broadcast_to(jnp.asarray(logits, jnp.float32), (COUNT, *([TIME] if per_step else []), LABELS))
    means = {name: float(values.mean()) for name, values in task.metrics(outputs, batch_of(task, "test")).items()}
    assert dict(task.baseline) == pytest.approx(means, rel=1e-5)


def test_a_run_says_what_holds_and_goes_on(tmp_path, undrawn):
    task = written(tmp_path, scale=True)
    config = {
        "task": task,
        "model": {"hidden": 8},
        "optimizer": {"lr": 0.02},
        "train": {"steps": 60, "batch_size": 12, "eval_steps": 60, "metrics": ("f1",)},
        "flow": {"every": 0},
    }
    run = train.run(config, tmp_path / "run")
    evaluated = evaluate.run(run)
    assert evaluated.equals_stored
    assert evaluated.metrics["accuracy"] > 0.75
    xs = np.array([[[3.0, -3.0, 3.0]] * 2])
    table = run.predict(xs).table
    assert table.columns == [
        "sequence",
        "step",
        "target0",
        "target1",
        "target2",
        "p(target0)",
        "p(target1)",
        "p(target2)",
    ]
    assert table.row(0)[2:5] == (True, False, True)
    assert "labels, with how often they hold in training: target0 (" in "\n".join(task.describe_data())


def test_columns_of_zeros_and_ones(tmp_path):
    rng = np.random.default_rng(0)
    rows = [f"{i // 4},{rng.normal():.3f},{i % 2},{int(i % 3 == 0)}" for i in range(80)]
    (tmp_path / "rows.csv").write_text("\n".join(["id,value,rain,wind", *rows]))
    settings = {"sequence": "id", "targets": ("rain", "wind"), "valid_fraction": 0.2, "test_fraction": 0.2}
    task = Files(data_dir=str(tmp_path), train="rows.csv", kind="labels", per_step=True, **settings)
    assert task.facts.are_labels
    batch = task.batch(jax.device_put(task.load("train")), jax.random.key(0), jnp.arange(12))
    np.testing.assert_array_equal(batch.targets[:, :, 0], [[0, 1, 0, 1]] * 12)
    assert sorted(task.read_outputs(np.zeros((1, 4, 2)))) == ["p(rain)", "p(wind)", "rain", "wind"]
    for wrong, message in (("2", "holds 2; allowed are 0 and 1"), ("", "is missing; allowed are 0 and 1")):
        (tmp_path / "rows.csv").write_text("\n".join(["id,value,rain,wind", *rows[:-1], f"19,1,{wrong},0"]))
        with pytest.raises(UsageError, match=f"line 81, column 'rain': {message}") as raised:
            Files(data_dir=str(tmp_path), train="rows.csv", kind="labels", per_step=True, **settings).facts  # noqa: B018
        assert "\n" not in str(raised.value)


def test_labels_in_an_archive(tmp_path):
    rng = np.random.default_rng(0)
    held = rng.random((20, LABELS)) < 0.5
    np.savez(tmp_path / "a.npz", xs=rng.normal(size=(20, 4, 2)), targets=held)
    task = Files(data_dir=str(tmp_path), train="a.npz", valid_fraction=0.2, test_fraction=0.2)
    assert task.facts.are_labels
    stored = np.concatenate([task.load(split)["targets"] for split in SPLITS])
    np.testing.assert_array_equal(np.sort(stored, axis=0), np.sort(held, axis=0))


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ([(np.zeros((2, 3)), np.zeros((2, 3)))], r"test_targets.npy: .*float64; needed is \[1, 5, 3\] of booleans"),
        ([(np.zeros((2, 3)), np.zeros((2, 2), bool))], r"needed is \[1, 5, 3\] of booleans, as in training"),
        ([(np.ones((2, 3)), np.ones((2, 3), bool)), (np.ones((2, 3)), np.ones((2, 3)))], "needed is .* of booleans"),
    ],
    ids=["numbers", "fewer", "both"],
)  # fmt: skip
def test_targets_of_another_kind(test, message, tmp_path):
    with pytest.raises(UsageError, match=message) as raised:
        Arrays.write(tmp_path / "mine", train=examples(0), valid=examples(1), test=test)
    assert "\n" not in str(raised.value)


def test_archives_of_classes_have_no_labels(tmp_path):
    (tmp_path / "a_TRAIN.tsv").write_text("1\t0.5\n0\t0.2\n" * 5)
    with pytest.raises(UsageError, match="kind=labels: is for tables"):
        Files(data_dir=str(tmp_path), train="a_TRAIN.tsv", kind="labels", valid_fraction=0.2, test_fraction=0.2).facts  # noqa: B018


def test_what_older_runs_keep_of_their_data_is_read(tmp_path):
    facts = Arrays.write(
        tmp_path / "mine", **{split: (np.zeros((4, 2, 1)), np.array([0, 1, 0, 1])) for split in SPLITS}
    ).facts
    content = facts.to_json()
    del content["are_labels"]
    assert DataFacts.from_json(content) == facts
