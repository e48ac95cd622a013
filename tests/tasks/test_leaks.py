"""What must not be told to a network of what it is tested on, and what must not be lost of a file without a word."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from experiments import evaluate, train
from gru_jax.config import load
from gru_jax.data.checks import measure_features
from gru_jax.data.columns import TableOptions, read_columns
from gru_jax.data.npz import read_npz
from gru_jax.data.tables import open_table
from gru_jax.data.times import read_times
from gru_jax.data.ts import read_ts
from gru_jax.data.ucr import read_ucr
from gru_jax.errors import UsageError
from gru_jax.tasks import Arrays, Files, Forecast, TextFiles, TextTable
from gru_jax.tasks.nearest_neighbour import standardised_each

HELD_OUT = {"valid_fraction": 0.2, "test_fraction": 0.2}


def table_of(path, header, rows):
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def test_targets_of_the_same_row_are_no_inputs(tmp_path):
    table_of(tmp_path / "t.csv", "a,b,k", [(i, -i, i % 2) for i in range(100)])
    columns = {"data_dir": str(tmp_path), "train": "t.csv", "targets": ("k",), "kind": "classes", **HELD_OUT}
    assert Files(**columns, window=10).facts.features == ("a", "b")
    assert Files(**columns, window=10, horizon=1).facts.features == ("a", "b", "k")
    for others in ({"window": 10}, {"per_step": True}):
        with pytest.raises(UsageError, match="inputs=a,k: k is a target too, of the same row; allowed with a horizon"):
            _ = Files(**columns, inputs=("a", "k"), **others).facts
    assert Files(**columns, inputs=("a", "k"), window=10, horizon=1).facts.features == ("a", "k")
    with pytest.raises(UsageError, match="inputs=a,a: names a column twice"):
        _ = Files(**columns, inputs=("a", "a"), window=10).facts


def test_folds_of_windows_that_share_rows_are_refused(tmp_path):
    table_of(tmp_path / "t.csv", "a,k,g", [(i, i % 2, i // 20) for i in range(200)])
    made = {"data_dir": str(tmp_path), "train": "t.csv", "test": "t.csv", "targets": ("k",), "kind": "classes"}
    made |= {"window": 10, "folds": 2}
    with pytest.raises(UsageError, match=r"folds=2: windows share rows, .* a stride of 10 or more, divide_by=group"):
        _ = Files(**made, stride=9).facts
    assert Files(**made, stride=10).size("valid") == 10
    assert Files(**made, sequence="g", group="g", divide_by="group").facts.fold_sizes
    with pytest.raises(
        UsageError, match=r"line 22, column 'g': a window goes on from one group into this; task.sequence=g"
    ):
        _ = Files(**made, group="g", divide_by="group").facts


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda at: Files(data_dir=at, train="*.csv", valid="valid.csv", test="test.csv", targets=("k",)), ".csv"),
        (lambda at: TextFiles(data_dir=at, train="*.txt", valid="valid.txt", test="test.txt"), ".txt"),
        (lambda at: TextTable(data_dir=at, train="*.tsv", valid="valid.tsv", test="test.tsv"), ".tsv"),
    ],
)
def test_a_pattern_that_takes_in_what_is_tested_on(tmp_path, make, names):
    for split in ("train", "valid", "test"):
        rows = "a,k\n1,0\n2,0\n" if names == ".csv" else "text\tlabel\ngood\t1\nbad\t0\n"
        (tmp_path / f"{split}{names}").write_text(rows)
    with pytest.raises(UsageError, match=rf"train=\*{names}: takes .*valid{names} in, a file of valid"):
        _ = make(str(tmp_path)).facts


def test_new_arrays_are_prepared_as_files_are(tmp_path):
    """Sequences that rise or fall, on any level: without their own mean nothing tells the level from the slope."""
    draw = np.random.default_rng(0)
    rows, xs = [], []
    for i in range(30):
        values = 100 * draw.normal() + (-1) ** i * np.arange(6)
        rows += [(i, value, i % 2) for value in values]
        xs.append(values)
    table_of(tmp_path / "t.csv", "id,value,k", rows)
    made = {"data_dir": str(tmp_path), "train": "t.csv", "sequence": "id", "targets": ("k",), **HELD_OUT}
    for options in ({"scale_each": True}, {"stack": 4}, {"scale_each": True, "stack": 4}):
        task = Files(**made, **options)
        of_file = task.read_input(tmp_path / "t.csv")
        np.save(tmp_path / "new.npy", np.array(xs)[..., None])
        of_arrays = task.check_new({"xs": np.array(xs)[..., None]}, tmp_path)
        np.testing.assert_allclose(of_arrays["xs"], of_file["xs"], rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(task.read_input(tmp_path / "new.npy")["xs"], of_arrays["xs"])
    shorter = np.array(xs)[..., None].copy()
    shorter[:, 4:] = 7.0
    prepared = task.check_new({"xs": shorter, "lengths": np.full(30, 4)}, tmp_path)
    assert prepared["lengths"].tolist() == [1] * 30
    np.testing.assert_allclose(prepared["xs"][:, 0].mean(axis=1), 0, atol=1e-5)


def test_numbers_that_differ_by_rounding_alone_are_not_scaled_up(tmp_path):
    assert measure_features([(0, np.full((1000, 10, 1), 0.1))], None, 1).deviation.tolist() == [1.0]
    assert np.abs(standardised_each(np.full((2, 10, 1), np.float32(0.1)))).max() < 1e-9
    xs = np.stack([np.full((20, 5), 0.1), np.arange(100.0).reshape(20, 5)], axis=2)
    task = Arrays.write(tmp_path, train=(xs, np.arange(20) % 2), scale=True, **HELD_OUT)
    assert task.facts.inputs_scale.deviation[0] == 1.0


def test_kinds_of_targets_are_one_for_all_files(tmp_path):
    table_of(tmp_path / "a.csv", "x,y", [(i, 1.0) for i in range(10)])
    table_of(tmp_path / "b.csv", "x,y", [(i, 0.5) for i in range(10)])
    made = {"data_dir": str(tmp_path), "targets": ("y",)}
    for fitted, valid in (("[ab].csv", "c.csv"), ("b.csv", "a.csv")):
        table_of(tmp_path / "c.csv", "x,y", [(i, 3.0) for i in range(10)])
        task = Files(**made, train=fitted, valid=valid, test="c.csv")
        assert not task.facts.codes
        assert task.read_input(tmp_path / "c.csv")["targets"].tolist() == [[3.0]]
    with pytest.raises(UsageError, match=r"b\.csv: line 2: valid has numbers for targets where others are cl"):
        _ = Files(**made, train="a.csv", valid="b.csv", test="a.csv").facts


def test_kinds_that_a_file_does_not_have_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", xs=np.ones((4, 3, 1)), targets=np.arange(4))
    with pytest.raises(UsageError, match=r"targets hold whole numbers, which are classes; task\.kind=numbers needs"):
        read_npz(tmp_path / "a.npz", TableOptions(kind="numbers"))
    assert read_npz(tmp_path / "a.npz", TableOptions(kind="classes")).targets is not None
    (tmp_path / "a.ts").write_text("@classLabel true True False\n@data\n1,2:True\n2,3:False\n")
    with pytest.raises(UsageError, match=r"targets are classes; task\.kind=numbers needs others"):
        read_ts(tmp_path / "a.ts", TableOptions(kind="numbers"))
    assert [str(target) for target in read_ts(tmp_path / "a.ts", TableOptions()).targets or ()] == ["True", "False"]


def test_classes_and_sequences_that_are_missing_are_named(tmp_path):
    path = table_of(tmp_path / "t.csv", "id,x,k", [(1, 0, "cat"), (2, 1, "NA"), ("", 2, "dog")])
    with pytest.raises(UsageError, match=r"line 3, column 'k': has no class, 'NA'; task\.kind=classes takes that for"):
        read_columns(path, TableOptions(targets=("k",), inputs=("x",)))
    read = read_columns(path, TableOptions(targets=("k",), inputs=("x",), kind="classes", window=1))
    assert [str(target) for target in read.targets or ()] == ["cat", "NA", "dog"]
    path = table_of(tmp_path / "u.csv", "id,x,k", [(1, 0, "cat"), ("", 2, "dog")])
    with pytest.raises(UsageError, match="line 3, column 'id': is empty; needed is its sequence"):
        read_columns(path, TableOptions(targets=("k",), inputs=("x",), sequence="id"))
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.tsv").write_text("text\tlabel\ngood\t pos\nbad\t\n")
    with pytest.raises(UsageError, match=r"train\.tsv: row 2: has no 'label', which is its class"):
        _ = TextTable(data_dir=str(tmp_path)).facts
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.tsv").write_text("text\tlabel\ngood\t pos\nfine\tpos \nbad\tneg\n")
    assert TextTable(data_dir=str(tmp_path)).class_names == ("neg", "pos")


def test_classes_that_are_large_numbers(tmp_path):
    path = table_of(tmp_path / "t.csv", "x,k", [(0, 2**53 + 1)])
    with pytest.raises(UsageError, match=r"line 2, column 'k': holds the class 9.0072e\+15; allowed are whole numbers"):
        read_columns(path, TableOptions(targets=("k",)))
    read = read_columns(path, TableOptions(targets=("k",), kind="classes"))
    assert [str(target) for target in read.targets or ()] == [str(2**53 + 1)]
    with pytest.raises(UsageError, match="holds 5000000000; allowed are whole numbers from 0, a class each, of 32"):
        Arrays.write(tmp_path / "arrays", train=(np.ones((4, 3, 1)), np.array([0, 5 * 10**9, 0, 1])), **HELD_OUT)


@pytest.mark.parametrize("text", ["1467331200", "20160701", "now", "today", "201607"])
def test_numbers_and_words_are_no_times(tmp_path, text):
    path = table_of(tmp_path / "t.csv", "t,x", [("2016", 1), (text, 2)])
    with pytest.raises(UsageError, match=f"line 3, column 't': '{text}' is no time; allowed are dates as"):
        read_times(open_table(path), ["t"])


def test_ucr_files_that_are_separated_by_blanks(tmp_path):
    (tmp_path / "A_TRAIN.txt").write_text("  1.0000000e+00   1.5  2.5\n  2.0000000e+00  -1.0 \t 3.0\n")
    read = read_ucr(tmp_path / "A_TRAIN.txt", TableOptions())
    assert [xs[:, 0].tolist() for xs in read.xs] == [[1.5, 2.5], [-1.0, 3.0]]
    assert [str(target) for target in read.targets or ()] == ["1", "2"]
    (tmp_path / "A_TRAIN.txt").write_text("1\n2\n")
    with pytest.raises(UsageError, match="has one column; needed are a class and the values"):
        read_ucr(tmp_path / "A_TRAIN.txt", TableOptions())


def test_categories_of_parquet_files_are_texts(tmp_path):
    frame = pl.DataFrame({"x": [0.0, 1.0], "k": pl.Series(["a", "b"], dtype=pl.Categorical)})
    frame.write_parquet(tmp_path / "t.parquet")
    for kind in ("auto", "classes"):
        read = read_columns(tmp_path / "t.parquet", TableOptions(targets=("k",), kind=kind, window=1))
        assert [str(target) for target in read.targets or ()] == ["a", "b"]
    frame.clear().write_parquet(tmp_path / "t.parquet")
    with pytest.raises(UsageError, match=r"t\.parquet: has no rows"):
        open_table(tmp_path / "t.parquet")


def test_what_new_files_may_lack(tmp_path):
    """Targets, and the groups by which training examples are divided."""
    table_of(tmp_path / "t.csv", "x,k,p", [(i, i // 5 % 2, i // 5) for i in range(100)])
    made = {"sequence": "p", "group": "p", "divide_by": "group", "inputs": ("x",), "targets": ("k",), **HELD_OUT}
    task = Files(data_dir=str(tmp_path), train="t.csv", **made)
    table_of(tmp_path / "new.csv", "x,k,p", [(i, "", 0) for i in range(5)])
    assert "targets" not in task.read_input(tmp_path / "new.csv")
    assert task.read_input(tmp_path / "new.csv")["xs"].shape == (1, 5, 1)
    task = Files(data_dir=str(tmp_path), train="t.csv", **made | {"sequence": None, "window": 5, "group": None,
                                                                   "divide_by": "time"})  # fmt: skip
    table_of(tmp_path / "new.csv", "x", [(i,) for i in range(5)])
    assert task.read_input(tmp_path / "new.csv")["xs"].shape == (1, 5, 1)


def test_folders_may_be_called_like_patterns(tmp_path):
    folder = tmp_path / "run[1]"
    folder.mkdir()
    for split in ("train", "valid", "test"):
        table_of(folder / f"{split}_a.csv", "x,k", [(i, i % 2) for i in range(5)])
    task = Files(data_dir=str(folder), train="train_*.csv", valid="valid_*.csv", test="test_*.csv", targets=("k",),
                 per_step=True)  # fmt: skip
    assert task.size("train") == 1


def test_long_fields_of_csv_files(tmp_path):
    long_text = "word " * 40_000
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.csv").write_text(f'text,label\n"{long_text}",1\nshort,0\n')
    files = {split: f"{split}.csv" for split in ("train", "valid", "test")}
    assert TextTable(data_dir=str(tmp_path), **files).class_names == ("0", "1")


def test_forecasts_of_numbers_that_are_not_standardised(tmp_path):
    table_of(tmp_path / "t.csv", "y", [(100 + (i % 7),) for i in range(200)])
    made = {"data_dir": str(tmp_path), "targets": ("y",), "context": 5, "horizon": 2}
    scores = Forecast("t.csv", **made, scale=False).baselines["training mean"]
    scaled = Forecast("t.csv", **made).baselines["training mean"]
    assert scores["loss"] == pytest.approx(scaled["loss"] * 4, rel=0.1)  # the variance of 0 to 6
    with pytest.raises(UsageError, match="missing=mean: with scale=false no means are measured; allowed are error"):
        Forecast("t.csv", **made, scale=False, missing="mean")


def test_groups_are_no_steps_of_wide_tables(tmp_path):
    table_of(tmp_path / "t.csv", "a,b,c,k,p", [(i, i, i, i % 2, i // 6) for i in range(60)])
    made = {"layout": "wide", "targets": ("k",), "group": "p", "divide_by": "group", **HELD_OUT}
    task = Files(data_dir=str(tmp_path), train="t.csv", **made)
    table_of(tmp_path / "new.csv", "a,b,c", [(1, 2, 3)])
    for name, count in (("t.csv", 60), ("new.csv", 1)):
        assert task.read_input(tmp_path / name)["xs"].shape == (count, 3, 1)


def test_columns_that_a_network_does_not_read_are_said(tmp_path, undrawn):
    """As of a run of an earlier version, in which a target was an input."""
    table_of(tmp_path / "t.csv", "a,b,k", [(i, -i, i % 2) for i in range(100)])
    task = {"name": "files", "data_dir": str(tmp_path), "train": "t.csv", "targets": ("k",), "kind": "classes",
            "window": 10, **HELD_OUT}  # fmt: skip
    config = load(
        {"task": task, "model": {"hidden": (4,)}, "train": {"steps": 2, "batch_size": 4}, "flow": {"every": 0}}
    )
    run = train.run(config, tmp_path / "run")
    known = json.loads((run.path / "data.json").read_text())
    (run.path / "data.json").write_text(json.dumps({**known, "features": ["a", "b", "k"]}))
    message = "its network reads a, b, k, and the inputs are a, b now; needed are the same, of which none is a target"
    with pytest.raises(UsageError, match=message):
        evaluate.run(run.path)
    (run.path / "summary.json").unlink()
    with pytest.raises(UsageError, match=message):
        train.run(config, run.path)
    assert (run.path / "checkpoints" / "latest" / "2").is_dir()
