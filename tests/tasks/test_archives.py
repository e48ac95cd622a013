"""Archives of sequences: what is made of them while they are read, and the nearest neighbour they are compared with."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from experiments import predict, train
from gru_jax.config import load
from gru_jax.errors import UsageError
from gru_jax.tasks import Arrays, Files
from gru_jax.tasks.nearest_neighbour import nearest_classes, standardised_each

PLAIN, EACH = "1-NN, Euclidean", "1-NN, Euclidean, each sequence standardised"
DATA = Path(os.environ.get("GRU_JAX_DATA", "nowhere"))
needs_archives = pytest.mark.skipif(not (DATA / "ucr").is_dir(), reason="GRU_JAX_DATA has no archives")


def by_loops(train, classes, test):
    """The class of the nearest, distance by distance."""
    return [classes[min(range(len(train)), key=lambda i: float(np.linalg.norm(train[i] - one)))] for one in test]


def test_the_nearest_is_that_of_all_distances():
    rng = np.random.default_rng(0)
    for offset in (0.0, 1e6):
        near, far = (offset + rng.normal(size=(n, 5, 3)) for n in (12, 30))
        classes = rng.integers(0, 4, 12)
        assert nearest_classes(near, classes, far).tolist() == by_loops(near, classes, far)


def sequences(count, steps=6, seed=0):
    rng = np.random.default_rng(seed)
    xs = rng.normal(size=(count, steps, 2)) * rng.uniform(1, 9, (count, 1, 1)) + rng.normal(size=(count, 1, 2)) * 5
    return xs.astype(np.float32), np.arange(count) % 3


def test_a_run_stands_beside_its_nearest_neighbours(tmp_path):
    (xs, classes), tested = sequences(12), sequences(20, seed=1)
    task = Arrays.write(
        tmp_path / "mine", train=(xs, classes), test={"xs": tested[0], "targets": tested[1]}, folds=3, fold=1
    )
    order = task.order("train")
    wanted = {PLAIN: (xs, tested[0]), EACH: (standardised_each(xs), standardised_each(tested[0]))}
    for name, (train_xs, test_xs) in wanted.items():
        right = np.array(by_loops(train_xs[order], classes[order], test_xs)) == tested[1]
        assert task.baselines[name] == {"accuracy": pytest.approx(right.mean())}
    parts = {"train": (xs, classes), "valid": (xs, classes), "test": tested}
    parts = {s: {"xs": x, "targets": t, "weights": np.arange(len(x)) / 7} for s, (x, t) in parts.items()}
    weighted = Arrays.write(tmp_path / "weighted", **parts)
    right = np.array(by_loops(xs, classes, tested[0])) == tested[1]
    assert weighted.baselines[PLAIN]["accuracy"] == pytest.approx(np.average(right, weights=np.arange(20)))


def test_no_neighbours_of_unequal_or_too_many_sequences(tmp_path, monkeypatch):
    xs, classes = sequences(12)
    lengths = np.r_[3, np.full(11, 6)]
    parts = dict.fromkeys(("train", "valid", "test"), (xs, classes, lengths))
    assert list(Arrays.write(tmp_path / "unequal", **parts).baselines) == ["training shares"]
    monkeypatch.setattr("gru_jax.tasks.array_baselines.MOST_PRODUCTS", 12 * 12 * 6 * 2 - 1)
    parts = dict.fromkeys(("train", "valid", "test"), (xs, classes))
    assert list(Arrays.write(tmp_path / "many", **parts).baselines) == ["training shares"]


def written(folder, xs, classes, name="a"):
    """A `.ts` file of sequences `[T, D]`, which may be of unequal lengths."""
    lines = [
        ":".join(",".join(f"{v:.6f}" for v in column) for column in x.T) + f":{c}"
        for x, c in zip(xs, classes, strict=True)
    ]
    header = ["@problemName a", "@classLabel true 0 1 2", "@data"]
    (folder / f"{name}.ts").write_text("\n".join([*header, *lines]).replace("nan", "?") + "\n")


HELD_OUT = {"valid_fraction": 0.25, "test_fraction": 0.25}


def task_of(folder, **changes):
    return Files(**{"data_dir": str(folder), "train": "a.ts", **HELD_OUT, **changes})


def test_sequences_are_standardised_by_themselves_and_read_in_stacks(tmp_path):
    (xs, classes), rng = sequences(12, steps=7), np.random.default_rng(3)
    unequal = [x[: rng.integers(3, 8)] for x in xs]
    unequal[0] = np.full_like(xs[0], 4.0)
    written(tmp_path, unequal, classes)
    task = task_of(tmp_path, scale_each=True, stack=3)
    assert (task.time, task.input_size) == (3, 6)
    names = [f"dimension{i}[{step}]" for step in range(3) for i in range(2)]
    assert list(task.facts.features) == names
    seen = 0
    for split in ("train", "valid", "test"):
        arrays, rows = task.load(split), task.rows(split)["xs"]
        for row in range(task.size(split)):
            x = unequal[int(rows.place(row).split("line ")[1]) - 4].astype(np.float64)
            scaled = (x - x.mean(axis=0)) / (x.std(axis=0) if x.std() else 1)
            scaled = np.concatenate([scaled, np.repeat(scaled[-1:], -len(x) % 3, axis=0)])
            assert arrays["lengths"][row] == len(scaled) / 3
            np.testing.assert_allclose(arrays["xs"][row, : len(scaled) // 3].reshape(-1, 2), scaled, atol=1e-5)
            seen += 1
    assert seen == 12


def test_missing_values_stay_missing_and_wrong_ones_are_where_they_were(tmp_path):
    xs, classes = sequences(12)
    xs[0, 2, 1] = np.nan
    written(tmp_path, xs, classes)
    arrays = {s: task_of(tmp_path, scale_each=True, missing="mean").load(s)["xs"] for s in ("train", "valid", "test")}
    assert sum(np.isnan(part).sum() for part in arrays.values()) == 1
    assert max(abs(np.nanmean(part, axis=1)).max() for part in arrays.values()) < 1e-5
    for missing, wrong, message in (("error", np.nan, "holds nan"), ("mean", np.inf, "holds inf")):
        xs[0, 2, 1] = wrong
        written(tmp_path, xs, classes)
        task = task_of(tmp_path, scale_each=True, stack=2, missing=missing)
        with pytest.raises(UsageError, match=rf"a\.ts: line 4, dimension 1, value 2: {message}"):
            [task.load(split) for split in ("train", "valid", "test")]


def test_what_cannot_be_stacked(tmp_path):
    written(tmp_path, *sequences(12))
    with pytest.raises(UsageError, match="stack=2: a target for each step needs these; allowed with per_step is 1"):
        task_of(tmp_path, per_step=True, stack=2)


def test_new_files_are_read_as_those_of_training(tmp_path, compiled_once):
    xs, classes = sequences(24, steps=7)
    rows = [f"{i},{a:.5f},{b:.5f},k{classes[i]}" for i, x in enumerate(xs) for a, b in x]
    (tmp_path / "rows.csv").write_text("\n".join(["id,a,b,kind", *rows]) + "\n")
    config = load(
        {
            "task": {
                "name": "files", "data_dir": str(tmp_path), "train": "rows.csv", "sequence": "id", "targets": ("kind",),
                "scale_each": True, "stack": 4, **HELD_OUT,
            },
            "model": {"hidden": (3,)},
            "train": {"batch_size": 4, "steps": 3, "eval_steps": 3},
            "flow": {"every": 0},
            "devices": 1,
        }
    )  # fmt: skip
    run = train.run(config, tmp_path / "run")
    assert list(run.summary["baselines"]) == ["training shares", PLAIN, EACH]
    (tmp_path / "new.csv").write_text(
        "\n".join(["id,b,a", *(f"{i},{b * 3:.5f},{a + 9:.5f}" for i, x in enumerate(xs[:2]) for a, b in x)])
    )
    (tmp_path / "same.csv").write_text(
        "\n".join(["id,a,b", *(f"{i},{a:.5f},{b:.5f}" for i, x in enumerate(xs[:2]) for a, b in x)])
    )
    outputs = [predict.run(run, tmp_path / name).outputs for name in ("new.csv", "same.csv")]
    np.testing.assert_allclose(*outputs, atol=1e-3)  # whatever the units and the order of the columns
    with pytest.raises(UsageError, match=r"each by itself while their files are read \(task\.scale_each\)"):
        run.export(tmp_path / "run.zip")


@needs_archives
@pytest.mark.parametrize(
    ("name", "plain", "each"),
    [("ucr/Worms/Worms_{}.tsv", 1 - 0.5455, 1 - 0.5455), ("ucr/Rock/Rock_{}.tsv", 0.64, 1 - 0.16),
     ("uea/BasicMotions/BasicMotions_{}.ts", 0.6, 0.725)],
)  # fmt: skip
def test_neighbours_of_the_archives_are_the_published_ones(name, plain, each):
    """The archive of 2018 publishes errors of 0.5455 for Worms and 0.16 for Rock, each sequence standardised."""
    task = Files(train=name.format("TRAIN"), test=name.format("TEST"), folds=5, divide_by="stratified")
    baselines = Files(train=name.format("TRAIN"), valid=name.format("TEST"), test=name.format("TEST")).baselines
    assert baselines[PLAIN]["accuracy"] == pytest.approx(plain, abs=1e-4)
    assert baselines[EACH]["accuracy"] == pytest.approx(each, abs=1e-4)
    assert sum(task.fold_sizes()) == task.count("train")
