"""A test set without targets: a training without a test score, and predictions of it."""

from __future__ import annotations

import shutil

import numpy as np
import polars as pl
import pytest

from experiments import ablate, evaluate, predict, train
from gru_jax.errors import UsageError
from gru_jax.runs.directory import RunDir
from gru_jax.tasks import Arrays, Files

COUNT, TIME = 12, 4
RNG = np.random.default_rng(0)
XS = RNG.normal(size=(COUNT, TIME, 2)).astype(np.float32)
LENGTHS, CLASSES = np.array([4, 3, 2, 1] * 3), np.arange(COUNT) % 2
LABELLED = {"xs": XS, "targets": CLASSES, "lengths": LENGTHS}
CONFIG = {"model": {"hidden": 4}, "train": {"steps": 3, "batch_size": 4, "metrics": ("f1",)}, "flow": {"every": 0}}


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "mine"
    return Arrays.write(folder, train=LABELLED, valid=LABELLED, test={"xs": XS + 1, "lengths": LENGTHS})


@pytest.fixture(scope="module")
def run(task, tmp_path_factory):
    return train.run({**CONFIG, "task": task}, tmp_path_factory.mktemp("runs") / "run")


def test_a_training_without_a_test_score(run, task):
    summary = RunDir(run.path).read_summary()
    for part in ("best", "final"):
        assert summary[part]["test"] == {}
        assert {"loss", "accuracy", "f1"} <= summary[part]["valid"].keys()
    assert (summary["baseline"], summary["baselines"]) == ({}, {})
    assert set(run.metrics["split"]) == {"train", "valid"}
    assert {"learning_curve.png", "confusion.png"} <= {path.name for path in RunDir(run.path).plots.glob("*.png")}
    said = train.report(summary, RunDir(run.path))
    assert said.startswith("valid ")
    assert "no test score: the test set has no targets" in said
    assert "test: 12 sequences of 1 to 4 steps, 2 features, without targets: there will be no test score" in (
        task.describe_data()
    )
    assert any(
        line.startswith("classes, with their sequences in train, valid: 0 (6, 6)") for line in task.describe_data()
    )


def test_predictions_of_the_test_set_are_those_of_its_inputs(run, task, tmp_path, capsys):
    moved = tmp_path / "moved"
    shutil.copytree(run.path, moved)
    assert evaluate.command(["--workdir", str(moved), "--predictions", str(tmp_path / "test.csv")]) == 0
    printed = capsys.readouterr().out
    assert "test has no targets" in printed
    assert "test loss" not in printed
    table = pl.read_csv(tmp_path / "test.csv")
    assert table.columns == ["sequence", "prediction", "p(0)", "p(1)"]
    computed = evaluate.run(moved, predicts=True)
    assert (computed.metrics, computed.stored) == ({}, {})
    np.testing.assert_array_equal(computed.predictions.outputs, run.predict(XS + 1, LENGTHS).outputs)
    np.savez(tmp_path / "test.npz", xs=XS + 1, lengths=LENGTHS)
    np.testing.assert_array_equal(predict.run(moved, tmp_path / "test.npz").outputs, computed.predictions.outputs)
    assert evaluate.run(moved, "valid").equals_stored
    with pytest.raises(
        UsageError, match="--split=test: has no targets, and no metrics; allowed are train, valid, or pr"
    ):
        evaluate.command(["--workdir", str(moved)])


def test_a_study_says_that_there_is_no_test_score(task, tmp_path, undrawn, capsys):
    config = {**CONFIG, "task": task, "train": {"steps": 2, "batch_size": 4}}
    study = ablate.run({"base": config, "axes": {"seed": [0, 1]}}, tmp_path)
    assert not any("test" in column for column in study.table.columns)
    assert study.findings.score == "best_valid_accuracy"
    assert np.isnan(study.findings.tested)
    assert "there is no test score." in study.report.read_text()


@pytest.mark.parametrize("test", [(XS,), (XS, None), (XS, None, LENGTHS), {"xs": XS, "lengths": LENGTHS}])
def test_what_stands_for_no_targets(test, tmp_path):
    has_lengths = isinstance(test, dict) or len(test) == 3
    labelled = {k: v for k, v in LABELLED.items() if k != "lengths" or has_lengths}
    task = Arrays.write(tmp_path / "mine", train=labelled, valid=labelled, test=test)
    assert (task.facts.unlabelled, task.scored_splits) == (("test",), ("valid",))
    assert "targets" not in task.load("test")


def test_columns_of_a_data_set_may_lack_those_of_the_test(tmp_path):
    rows = [{"signal": XS[i], "label": f"kind{i % 2}"} for i in range(COUNT)]
    test = [{"signal": XS[i]} for i in range(3)]
    columns = {"xs": "signal", "targets": "label"}
    task = Arrays.write(tmp_path / "mine", train=rows, valid_fraction=0.25, test=test, columns=columns)
    assert (task.facts.unlabelled, task.facts.classes) == (("test",), ("kind0", "kind1"))


@pytest.mark.parametrize("split", ["train", "valid"])
def test_other_splits_need_theirs(split, tmp_path):
    splits = dict.fromkeys(("train", "valid", "test"), LABELLED)
    splits[split] = {"xs": XS, "lengths": LENGTHS}
    with pytest.raises(UsageError, match=f"{split}: has xs, lengths; needed are xs and targets"):
        Arrays.write(tmp_path / "mine", **splits)
    Arrays.write(tmp_path / "mine", **dict.fromkeys(splits, LABELLED))
    (tmp_path / "mine" / f"{split}_targets.npy").unlink()
    with pytest.raises(UsageError, match=f"{split}_targets.npy: cannot be read"):
        _ = Arrays(data_dir=str(tmp_path), folder="mine").time


def rows_of(names, count=COUNT):
    values = {"a": 0.5, "b": 1.5, "kind": "ash", "next": 2.0}
    lines = [",".join(["id", *names])]
    for i in range(count):
        kinds = {**values, "kind": ["ash", "oak"][i % 2]}
        lines += [",".join([f"s{i}", *(str(kinds[name]) if name else "" for name in names)]) for _ in range(2)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("targets", [("kind",), ("next",)])
@pytest.mark.parametrize("is_there", [False, True])
def test_a_table_without_targets_or_with_a_column_of_nothing(is_there, targets, tmp_path):
    (tmp_path / "train.csv").write_text(rows_of(["a", "b", *targets]))
    content = rows_of(["a", "b"], 3)
    if is_there:
        first, *others = content.splitlines()
        content = "\n".join([f"{first},{targets[0]}", *(f"{line}," for line in others)]) + "\n"
    (tmp_path / "test.csv").write_text(content)
    columns = {"sequence": "id", "targets": targets, "kind": "classes" if targets == ("kind",) else "numbers"}
    task = Files(data_dir=str(tmp_path), train="train.csv", test="test.csv", valid_fraction=0.25, **columns)
    assert (task.facts.unlabelled, task.size("test"), task.input_size) == (("test",), 3, 2)
    assert "targets" not in task.load("test")


def test_windows_of_a_test_recording_without_targets(tmp_path):
    series = [f"{i},{i % 7}" for i in range(40)]
    (tmp_path / "train.csv").write_text("\n".join(["a,level", *series]) + "\n")
    (tmp_path / "test.csv").write_text("\n".join(["a", *(str(i) for i in range(9))]) + "\n")
    task = Files(data_dir=str(tmp_path), test="test.csv", inputs=("a",), targets=("level",), window=4, horizon=2,
                 valid_fraction=0.25, kind="numbers")  # fmt: skip
    assert (task.facts.unlabelled, task.size("test")) == (("test",), 6), "up to the last row"


TS = "@problemName Motions\n@classLabel true walk run\n@data\n1,2:walk\n3,4:run\n"


@pytest.mark.parametrize("kind", ["ts", "npz", "ucr"])
def test_other_formats(kind, tmp_path):
    if kind == "ts":
        names = ("a.ts", "b.ts")
        (tmp_path / names[0]).write_text(TS)
        (tmp_path / names[1]).write_text(TS.replace(":walk", ":?").replace(":run", ":?"))
    elif kind == "ucr":
        names = ("A_TRAIN.tsv", "A_TEST.tsv")
        (tmp_path / names[0]).write_text("1\t0.5\t1\n2\t0.25\t3\n")
        (tmp_path / names[1]).write_text("?\t0.5\t1\n?\t0.25\t3\n")
    else:
        names = ("a.npz", "b.npz")
        np.savez(tmp_path / names[0], xs=XS, targets=CLASSES)
        np.savez(tmp_path / names[1], xs=XS)
    train_file, test_file = names
    task = Files(data_dir=str(tmp_path), train=train_file, valid=train_file, test=test_file)
    assert (task.facts.unlabelled, task.output_size) == (("test",), 2)
    if kind == "ts":
        (tmp_path / test_file).write_text(TS.replace(":walk", ":?"))
        some = Files(data_dir=str(tmp_path), train=train_file, valid=train_file, test=test_file)
        with pytest.raises(UsageError, match=r"b\.ts: line 4: has no class, '\?'; needed is one for each sequence"):
            _ = some.facts
