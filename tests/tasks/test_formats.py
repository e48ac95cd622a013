"""Files as people have them: tables, UCR, UEA; read rightly, or refused in one line that says where."""

from __future__ import annotations

import dataclasses
import re
import time

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

from experiments import evaluate, predict, train
from gru_jax.config import load_config
from gru_jax.data.columns import TableOptions, read_columns
from gru_jax.data.tables import open_table
from gru_jax.data.ts import read_ts
from gru_jax.data.ucr import read_ucr
from gru_jax.errors import UsageError
from gru_jax.tasks import Files
from gru_jax.tasks.loading import load_splits

SPLITS = ("train", "valid", "test")
HALVES = {"valid_fraction": 0.25, "test_fraction": 0.25}
STEPS, COUNT = 4, 12


def long_rows(count=COUNT, separator=",", header=True):
    """Sequences of unequal length, with a class, a group and a number for each step."""
    rng = np.random.default_rng(0)
    lines = ["id,who,a,b,kind,next"] if header else []
    for i in range(count):
        for _ in range(1 + (STEPS - i) % STEPS):
            a, b = rng.normal(size=2)
            lines.append(f"s{i},p{i // 3},{a:.6f},{b:.6f},{['ash', 'oak', 'elm'][i % 3]},{a + b:.6f}")
    return [line.replace(",", separator) for line in lines]


def put(folder, name, lines):
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder


LONG = {"train": "rows.csv", "sequence": "id", "inputs": ("a", "b"), "targets": ("kind",), **HALVES}


def test_rows_that_are_steps(tmp_path):
    task = Files(data_dir=str(put(tmp_path, "rows.csv", long_rows())), **LONG)
    assert (task.time, task.input_size, task.facts.classes) == (STEPS, 2, ("ash", "elm", "oak"))
    assert [task.size(split) for split in SPLITS] == [6, 3, 3]
    frame = pl.read_csv(tmp_path / "rows.csv")
    lengths = [len(part) for _, part in frame.group_by("id", maintain_order=True)]
    loaded = [task.load(split) for split in SPLITS]
    assert sorted(n for part in loaded for n in part["lengths"]) == sorted(lengths)
    groups = dataclasses.replace(task, group="who", divide_by="group")
    rows = {split: {where.split(":")[1] for where in places(groups, split)} for split in SPLITS}
    assert not rows["train"] & rows["test"]


def places(task, split):
    rows = task.rows(split)["xs"]
    return [rows.place(row) for row in range(len(rows))]


def test_steps_that_have_targets_and_forecasts(tmp_path):
    put(tmp_path, "rows.csv", long_rows())
    task = Files(data_dir=str(tmp_path), **{**LONG, "targets": ("next",), "per_step": True})
    data = task.load("train")
    assert (task.readout, task.goal, data["targets"].shape[1:]) == ("every", ("loss", "min"), (STEPS, 1))
    within = np.arange(STEPS) < data["lengths"][:, None]
    np.testing.assert_allclose(data["targets"][within][:, 0], data["xs"][within].sum(axis=-1), atol=1e-5)
    labels = dataclasses.replace(task, targets=("kind",))
    assert labels.load("train")["targets"].shape[1:] == (STEPS,)
    ahead = dataclasses.replace(task, targets=("a",), horizon=1)
    moved = ahead.load("train")
    assert ahead.time == STEPS - 1
    np.testing.assert_allclose(moved["targets"][0, 0, 0], next_a(tmp_path, ahead, "train", 0), rtol=1e-5)


def next_a(folder, task, split, row):
    line = int(places(task, split)[row].split("line ")[1])
    return float((folder / "rows.csv").read_text().split("\n")[line].split(",")[2])


def test_windows_of_a_recording_are_divided_in_time(tmp_path):
    lines = ["when,a,b", *(f"day{i},{i},{i % 7}" for i in range(100))]
    put(tmp_path, "rows.csv", lines)
    columns = {"train": "rows.csv", "inputs": ("a", "b"), "targets": ("a",), "window": 5, "horizon": 2}
    task = Files(data_dir=str(tmp_path), **columns, valid_fraction=0.2, test_fraction=0.3)
    data = {split: task.load(split) for split in SPLITS}
    assert [task.size(split) for split in SPLITS] == [50 - 6, 20 - 6, 30 - 6]
    for split, first in (("train", 0), ("valid", 50), ("test", 70)):
        np.testing.assert_array_equal(data[split]["xs"][:, 0, 0], first + np.arange(len(data[split]["xs"])))
        np.testing.assert_array_equal(data[split]["targets"][:, 0], data[split]["xs"][:, -1, 0] + 2)
    two = ["id,a", *(f"{i % 2},{i}" for i in range(100))]
    put(tmp_path, "rows.csv", two)
    several = dataclasses.replace(task, sequence="id", inputs=("a",))
    assert [several.size(split) for split in SPLITS] == [2 * (25 - 6), 2 * (10 - 6), 2 * (15 - 6)]
    assert several.load("valid")["xs"][:, 0, 0].tolist() == [50, 52, 54, 56, 51, 53, 55, 57]
    put(tmp_path, "rows.csv", lines)
    strided = dataclasses.replace(task, stride=5)
    assert [strided.size(split) for split in SPLITS] == [9, 3, 5]


def test_what_is_of_no_effect_is_said(tmp_path):
    put(tmp_path, "rows.csv", long_rows())
    (tmp_path / "a.ts").write_text(TS)
    with pytest.raises(UsageError, match=r"stride=2: without effect; task\.window says"):
        Files(data_dir=str(tmp_path), **LONG, stride=2)
    with pytest.raises(UsageError, match=r"window=5: is for tables, and without effect on .*a\.ts, a ts file"):
        _ = Files(data_dir=str(tmp_path), window=5, **dict.fromkeys(SPLITS, "a.ts")).time
    with pytest.raises(UsageError, match="layout=wide: a row is a sequence; window, sequence and per_step are"):
        _ = Files(data_dir=str(tmp_path), **LONG, layout="wide").time
    known = Files(data_dir=str(tmp_path), **{**LONG, "targets": ("who",)}, classes=5)
    with pytest.raises(UsageError, match=r"class 'p0' is none of the training's; allowed are 0, 1, 2, 3, 4"):
        _ = known.time


def test_one_file_for_each_sequence_and_parquet(tmp_path):
    for split in SPLITS:
        (tmp_path / split).mkdir()
        for i in range(3):
            frame = pl.DataFrame({"a": np.arange(i + 2.0), "kind": [["x", "y"][i % 2]] * (i + 2)})
            frame.write_parquet(tmp_path / split / f"{i}.parquet")
    task = Files(data_dir=str(tmp_path), targets=("kind",), **{split: f"{split}/*.parquet" for split in SPLITS})
    assert task.load("test")["lengths"].tolist() == [2, 3, 4]
    assert task.facts.classes == ("x", "y")
    pl.DataFrame({"b": [1.0], "kind": ["x"]}).write_parquet(tmp_path / "test" / "0.parquet")
    with pytest.raises(UsageError, match=r"test/1\.parquet: row 0: its features are a; those of .*0\.parquet.* are b"):
        task.load("test")


def test_wide_tables_and_ucr(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(6, 5))
    lines = ["label,t0,t1,t2,t3,t4", *(f"{1 + i % 2},{','.join(map(str, row))}" for i, row in enumerate(values))]
    put(tmp_path, "wide.csv", lines)
    wide = Files(data_dir=str(tmp_path), layout="wide", targets=("label",), **dict.fromkeys(SPLITS, "wide.csv"))
    for split in ("TRAIN", "TEST"):
        texts = [f"{1 + i % 2:.7e}\t" + "\t".join(map(str, row)) for i, row in enumerate(values)]
        put(tmp_path, f"Set_{split}.tsv", texts)
    ucr = Files(data_dir=str(tmp_path), train="Set_TRAIN.tsv", valid="Set_TEST.tsv", test="Set_TEST.tsv")
    for task in (wide, ucr):
        data = task.load("test")
        np.testing.assert_allclose(data["xs"][..., 0], values, rtol=1e-6)
        assert data["targets"].tolist() == [0, 1] * 3
        assert task.facts.classes == ("1", "2")
    texts[2] = "1\t0.5\t1.5\tNaN\tNaN\tNaN"
    put(tmp_path, "Set_TEST.tsv", texts)
    assert ucr.load("test")["lengths"].tolist() == [5, 5, 2, 5, 5, 5]


@pytest.mark.parametrize("unknown", ["?", "NaN", "", "N/A"])
def test_a_ucr_class_that_is_not_known_is_none(unknown, tmp_path):
    classes = ["1", "2", unknown, "1"]
    put(tmp_path, "a_TRAIN.tsv", [f"{name}\t0.5\t1.5" for name in classes])
    with pytest.raises(UsageError, match=rf"a_TRAIN\.tsv: line 3.*has no class, '{re.escape(unknown)}'; needed is one"):
        read_ucr(tmp_path / "a_TRAIN.tsv", TableOptions())
    assert read_ucr(tmp_path / "a_TRAIN.tsv", TableOptions(is_new=True)).targets is None
    put(tmp_path, "a_TEST.tsv", [f"{unknown}\t0.5\t1.5"] * 2)
    assert read_ucr(tmp_path / "a_TEST.tsv", TableOptions(may_lack_targets=True)).targets is None


def test_npz_files(tmp_path):
    xs, lengths = np.random.default_rng(0).normal(size=(6, 4, 2)), np.array([4, 2, 3, 4, 1, 4])
    np.savez(tmp_path / "a.npz", xs=xs, lengths=lengths, targets=np.array([1, 2, 5] * 2))
    task = Files(data_dir=str(tmp_path), **dict.fromkeys(SPLITS, "a.npz"))
    data = task.load("test")
    assert (task.facts.classes, data["targets"].tolist()) == (("1", "2", "5"), [0, 1, 2] * 2)
    np.testing.assert_array_equal(data["lengths"], lengths)
    assert task.read_input(tmp_path / "a.npz")["targets"].tolist() == [0, 1, 2] * 2
    np.savez(tmp_path / "a.npz", xs=xs, lengths=lengths, targets=np.ones((6, 4, 3)) * np.arange(3))
    assert (task.readout, task.output_size) == ("every", 3)
    for name, array, message in (
        ("targets", np.ones((5, 4, 3)), r"targets of shape \[5, 4, 3\] beside xs of \[6, 4, 2\]"),
        ("xs", np.ones((6, 4)), r"needed is xs of shape \[N, T, D\]"),
        ("mask", np.ones((6, 4)), "has a mask"),
        ("lengths", lengths - 1, "lengths hold 0; allowed are 1 to 4"),
        (
            "lenghts",
            lengths,
            "allowed are xs, targets, lengths, mask, weights; did you mean 'lengths'",
        ),
    ):
        np.savez(tmp_path / "a.npz", **{"xs": xs, "targets": np.ones((6, 1)), name: array})
        with pytest.raises(UsageError, match=message) as error:
            task.load("test")
        assert "a.npz" in str(error.value)
    (tmp_path / "a.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:300])
    with pytest.raises(UsageError, match=r"a\.npz: cannot be read"):
        task.load("test")
    np.savez_compressed(tmp_path / "a.npz", xs=xs)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[60:90] = bytes(30)
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(UsageError, match=r"a\.npz: cannot be read"):
        task.load("test")
    with (tmp_path / "a.npz").open("wb") as stream:
        np.save(stream, xs)
    with pytest.raises(UsageError, match=r"a\.npz: is one array; allowed is a name that ends in \.npy"):
        task.load("test")


def test_folds_of_files_need_no_validation(tmp_path):
    put(tmp_path, "rows.csv", long_rows())
    columns = {key: value for key, value in LONG.items() if key != "valid_fraction"}
    task = Files(data_dir=str(tmp_path), **columns, folds=3, fold=1)
    assert [task.size(split) for split in SPLITS] == [6, 3, 3]
    with pytest.raises(UsageError, match=r"valid_fraction=0\.25: without effect, with folds there is no such split"):
        _ = dataclasses.replace(task, valid_fraction=0.25).time


TS = """# a comment
@problemName Motions
@univariate false
@classLabel true walk run
@data
1,2,3:4,5,6:walk
7,8:9,?:run
"""


def test_ts_files(tmp_path):
    for name in ("Motions_TRAIN.ts", "Motions_TEST.ts"):
        (tmp_path / name).write_text(TS)
    task = Files(
        data_dir=str(tmp_path),
        train="Motions_TRAIN.ts",
        valid="Motions_TEST.ts",
        test="Motions_TEST.ts",
        missing="zero",
    )
    data = task.load("train")
    assert data["lengths"].tolist() == [3, 2]
    np.testing.assert_array_equal(data["xs"][0], [[1, 4], [2, 5], [3, 6]])
    assert task.facts.classes == ("run", "walk")
    with pytest.raises(UsageError, match=r"TRAIN\.ts: line 7, dimension 1, value 1: holds nan.*task\.missing=zero"):
        dataclasses.replace(task, missing="error").load("train")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("@data\n", "", "line 5: '1,2,3:4,5,6:walk' is no header; needed is @data"),
        ("8:9", "x:9", "line 7, dimension 0, value 1: 'x' is no number"),
        ("4,5,6", "4,5", "line 6: its dimensions have 3, 2 values"),
        (":run", ":swim", "line 7: class 'swim' is none of @classLabel, walk run"),
        (":run", ":?", "line 7: has no class, '?'; needed is one for each sequence"),
        ("7,8:9,?:", "7,8:", "line 7: has 1 dimensions; the first sequence has 2"),
        ("@univariate false", "@timeStamps true", "has time stamps"),
        ("1,2,3:4,5,6:walk\n7,8:9,?:run\n", "", "has no sequence after @data"),
        (TS, "", "is empty"),
    ],
)
def test_damaged_ts_files_are_one_line(old, new, message, tmp_path):
    (tmp_path / "a.ts").write_text(TS.replace(old, new))
    with pytest.raises(UsageError) as error:
        read_ts(tmp_path / "a.ts", TableOptions())
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def lines_with(number, text, rows=None):
    rows = long_rows() if rows is None else rows
    return [*rows[: number - 1], text, *rows[number:]]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (lines_with(4, "s1,p0,nan,1.0,oak,1"), r"line 4, column 'a': holds nan"),
        (lines_with(4, "s1,p0,1.0,,oak,1"), r"line 4, column 'b': holds nan"),
        (lines_with(4, "s1,p0,1.0,inf,oak,1"), r"line 4, column 'b': holds inf"),
        (lines_with(4, "s1,p0,1.0,1e39,oak,1"), r"line 4, column 'b': holds inf"),
        (lines_with(4, "s1,p0,1.0,hello,oak,1"), r"line 4, column 'b': 'hello' is no number"),
        (lines_with(4, "s1,p0,1.0,1.0,oak,1,2"), r"line 4: has 7 fields; there are 6 columns, separated by ','"),
        (lines_with(4, "s1,p0,1.0"), r"line 4: has 3 fields; there are 6 columns"),
        (lines_with(4, ""), r"line 4: has 1 fields; there are 6 columns"),
        (lines_with(4, 's1,p0,"1.0,1.0,oak,1'), r"line \d+: "),
        (lines_with(4, "s1;p0;1.0;1.0;oak;1"), r"line 4: has 1 fields"),
        (lines_with(4, "s1,p0,1.0,1.0,,1"), r"line 4, column 'kind': has no class"),
        (lines_with(1, "id,who,a,a,kind,next"), r"line 1: two columns are called 'a'"),
        (lines_with(1, "id,who,a,c,kind,next"), r"input 'b' is no column of it; there are id, who, a, c, kind, next"),
        (lines_with(1, "id,who,a,b,kin,next"), r"target 'kind' is no column of it.*did you mean 'kin'"),
        (long_rows()[:1], "has no rows"),
        ([], "is empty"),
        (["1,2,3", "4,5,6"], "line 1: holds numbers and no names of columns; task.header=false"),
        (lines_with(4, "s1,p0,1.0,1\x00,oak,1"), "line 4: holds a byte of 0"),
    ],
)
def test_a_damaged_table_is_one_line_that_says_where(lines, message, tmp_path):
    put(tmp_path, "rows.csv", lines)
    with pytest.raises(UsageError, match=message) as error:
        load_splits(Files(data_dir=str(tmp_path), **LONG), 100)
    assert "rows.csv" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["mark", "utf-16", "windows", "mac", "semicolons", "tabs", "quotes", "spaces"])
def test_other_ways_to_write_the_same_table_are_read(kind, tmp_path):
    text = "\n".join(long_rows()) + "\n"
    plain = load_splits(Files(data_dir=str(put(tmp_path, "rows.csv", long_rows())), **LONG), 100)
    ways = {
        "mark": text.encode("utf-8-sig"),
        "utf-16": text.encode("utf-16"),
        "windows": text.replace("\n", "\r\n").encode(),
        "mac": text.replace("\n", "\r").encode(),
        "semicolons": text.replace(",", ";").encode(),
        "tabs": text.replace(",", "\t").encode(),
        "quotes": text.replace("ash", '"ash"').replace("s1,", '"s1",').encode(),
        "spaces": text.replace(",", ", ").encode(),
    }
    if kind == "spaces":
        ways[kind] = ways[kind].replace(b", who, a, b, kind, next", b",who,a,b,kind,next")
    (tmp_path / "rows.csv").write_bytes(ways[kind])
    again = load_splits(Files(data_dir=str(tmp_path), **LONG), 100)
    jax.tree.map(np.testing.assert_array_equal, plain, again)


def test_a_byte_that_is_no_text_is_named_by_its_line(tmp_path):
    (tmp_path / "rows.csv").write_bytes("\n".join(lines_with(4, "s1,p0,1.0,1.0,ösk,1")).encode("latin-1"))
    with pytest.raises(UsageError, match=r"line 4: holds bytes that are no text in UTF-8"):
        open_table(tmp_path / "rows.csv")


def test_columns_that_hold_texts_are_told(tmp_path):
    put(tmp_path, "rows.csv", long_rows())
    with pytest.raises(UsageError, match=r"who hold texts; task\.inputs=a,b,next leaves them out"):
        _ = Files(data_dir=str(tmp_path), **{**LONG, "inputs": None}).time
    with pytest.raises(UsageError, match=r"is oak where the sequence began with ash; task\.per_step=true"):
        read_columns(tmp_path / "rows.csv", TableOptions(("a",), ("kind",)))


def test_a_million_rows(tmp_path):
    count = 10**6
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"a": rng.normal(size=count), "b": rng.normal(size=count), "y": rng.normal(size=count)})
    frame.write_csv(tmp_path / "rows.csv")
    started = time.monotonic()
    task = Files(
        data_dir=str(tmp_path), train="rows.csv", targets=("y",), inputs=("a", "b"), window=100, stride=100, **HALVES
    )
    assert [task.size(split) for split in SPLITS] == [5000, 2500, 2500]
    assert task.load("train")["xs"].shape == (5000, 100, 2)
    assert time.monotonic() - started < 60


def test_mutated_ts_files_are_one_line_or_read_rightly(tmp_path):
    rng = np.random.default_rng(6)
    refused = 0
    for trial in range(100):
        content = bytearray(TS.replace("?", "1").encode())
        for _ in range(rng.integers(1, 4)):
            place = int(rng.integers(len(content)))
            if rng.integers(2):
                content[place] = rng.integers(256)
            else:
                del content[place : place + int(rng.integers(1, 12))]
        (tmp_path / "a.ts").write_bytes(content)
        said, splits = read_or_say(Files(data_dir=str(tmp_path), **dict.fromkeys(SPLITS, "a.ts")))
        refused += splits is None
        assert "\n" not in said
        assert splits is not None or "a.ts" in said, (trial, said)
    assert 30 < refused < 100


def read_or_say(task):
    try:
        return "", load_splits(task, 100)
    except UsageError as error:
        return str(error), None


def test_two_hundred_mutations_are_one_line_or_read_rightly(tmp_path):
    rng = np.random.default_rng(5)
    text = ("\n".join(long_rows()) + "\n").encode()
    task = Files(data_dir=str(tmp_path), **LONG)
    refused = 0
    for trial in range(200):
        content = bytearray(text)
        for _ in range(rng.integers(1, 4)):
            place, what = int(rng.integers(len(content))), rng.integers(5)
            if what == 0:
                content[place] = rng.integers(256)
            elif what == 1:
                del content[place : place + int(rng.integers(1, 40))]
            elif what == 2:
                content[place:place] = bytes(rng.choice(list(b',;"\n\r\t\0 nanInf.-e9'), 3).astype(np.uint8))
            elif what == 3:
                content[place:place] = content[place : place + 30]
            else:
                del content[place:]
            content = content or bytearray(b"\n")
        (tmp_path / "rows.csv").write_bytes(content)
        said, splits = read_or_say(task)
        refused += splits is None
        assert "\n" not in said
        assert "rows.csv" in said or "fraction" in said or splits is not None, (trial, said)
        if splits is not None:
            assert all(np.isfinite(splits[split]["xs"]).all() for split in SPLITS)
    assert 60 < refused < 200


CONFIG = {"model": {"hidden": 4}, "train": {"steps": 2, "batch_size": 4}, "flow": {"every": 0}}


def test_from_a_table_to_predictions_for_rows_without_targets(tmp_path, undrawn, capsys):
    put(tmp_path, "rows.csv", long_rows())
    task = Files(data_dir=str(tmp_path), **LONG, scale=True)
    run = train.run({**CONFIG, "task": task}, tmp_path / "run")
    assert "classes, with their sequences in train, valid, test: ash" in capsys.readouterr().out
    expected = evaluate.run(run, predicts=True)
    assert expected.equals_stored
    new = [",".join(line.split(",")[i] for i in (0, 3, 2)) for line in long_rows()]  # other columns in another order
    put(tmp_path, "new.csv", new)
    (tmp_path / "rows.csv").unlink()
    predictions = predict.run(run, tmp_path / "new.csv")
    assert len(predictions) == COUNT
    assert set(predictions.columns["prediction"]) <= {"ash", "oak", "elm"}
    put(tmp_path, "new.csv", long_rows())
    labelled = predict.run(run, tmp_path / "new.csv")
    np.testing.assert_array_equal(labelled, predictions)
    assert labelled.columns["target"].tolist() == [["ash", "oak", "elm"][i % 3] for i in range(COUNT)]
    assert set(labelled.metrics) == {"accuracy", "loss"}
    put(tmp_path, "new.csv", [*long_rows(), "s99,p,1,1,fir,1"])
    with pytest.raises(UsageError, match=r"new\.csv: line \d+: class 'fir' is none of the training's; allowed are ash"):
        predict.run(run, tmp_path / "new.csv")
    put(tmp_path, "new.csv", lines_with(4, "s1,p0,inf,1.0,oak,1"))
    with pytest.raises(UsageError, match=r"new\.csv: line 4, column 'a': holds inf"):
        predict.run(run, tmp_path / "new.csv")


def test_a_forecast_of_what_comes_after_the_file(tmp_path):
    lines = ["a", *(f"{100 + 10 * np.sin(i / 3):.5f}" for i in range(80))]
    put(tmp_path, "rows.csv", lines)
    columns = {"train": "rows.csv", "inputs": ("a",), "targets": ("a",), "window": 6, "horizon": 2, "scale": True}
    task = Files(data_dir=str(tmp_path), **columns, **HALVES)
    new = task.read_input(tmp_path / "rows.csv")
    assert new["xs"].shape == (75, 6, 1)
    assert set(new) == {"xs"}, "the last windows have no target yet"
    np.testing.assert_allclose(new["xs"][-1, :, 0], [float(line) for line in lines[-6:]], rtol=1e-6)
    in_units = task.read_outputs(np.array([[0.0], [1.0]]))["a"]
    train_part = np.array([float(line) for line in lines[1:41]])
    np.testing.assert_allclose(in_units[0], train_part[7:].mean(), rtol=1e-5)  # of the rows that are targets
    np.testing.assert_allclose(in_units[1] - in_units[0], train_part[7:].std(), rtol=1e-5)


def test_targets_that_are_missing_are_refused_or_left_out(tmp_path, caplog):
    lines = ["a,y", *(f"{i},{'NA' if i % 10 == 3 else i}" for i in range(80))]
    put(tmp_path, "rows.csv", lines)
    columns = {"train": "rows.csv", "inputs": ("a",), "targets": ("y",), "window": 4, "horizon": 1, **HALVES}
    task = Files(data_dir=str(tmp_path), **columns)
    with pytest.raises(UsageError, match=r"rows\.csv: line \d+.*: holds nan; allowed are finite numbers of 32 bits"):
        task.load("train")
    skipping = dataclasses.replace(task, missing_targets="skip")
    with caplog.at_level("INFO", "gru_jax"):
        data = skipping.load("train")
    assert "3 of 36 sequences are left out, whose target is missing" in caplog.text
    np.testing.assert_array_equal(data["targets"][:, 0], data["xs"][:, -1, 0] + 1)
    steps = dataclasses.replace(skipping, per_step=True)
    data = steps.load("train")
    assert len(data["xs"]) == 36
    wanted = data["xs"][..., 0] + 1
    np.testing.assert_array_equal(data["mask"], wanted % 10 != 3)
    np.testing.assert_array_equal(data["targets"][..., 0], np.where(wanted % 10 != 3, wanted, 0))


def test_a_split_without_targets_is_named(tmp_path):
    (tmp_path / "a.ts").write_text(TS.replace("?", "1"))
    unlabelled = TS.replace("?", "1").replace("@classLabel true walk run", "@classLabel false")
    (tmp_path / "b.ts").write_text(unlabelled.replace(":walk", "").replace(":run", ""))
    task = Files(data_dir=str(tmp_path), train="a.ts", valid="a.ts", test="a.ts")
    with pytest.raises(UsageError, match=r"b\.ts: line 6: valid has no targets; leave it out, hold some out of"):
        _ = dataclasses.replace(task, valid="b.ts").time
    with pytest.raises(UsageError, match="test=None: needed is a file, or test_fraction of the training examples"):
        _ = dataclasses.replace(task, test=None).time
    with pytest.raises(UsageError, match=r"c\.ts: no such file; there are a\.ts, b\.ts; did you mean '[ab]\.ts'"):
        _ = dataclasses.replace(task, test="c.ts").time
    for outside in ("/etc/passwd", "../a.ts"):
        with pytest.raises(UsageError, match="allowed are files below the data directory"):
            _ = dataclasses.replace(task, test=outside).time
    batch = dataclasses.replace(task, test="a.ts").load("test")
    assert jnp.asarray(batch["targets"]).tolist() == [1, 0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sizes", "outputs"),
    [
        ("worms", [145, 36, 77], 5),
        ("basic_motions", [30, 10, 40], 4),
        ("etth1", [10333, 3365, 3365], 1),
        ("pollution", [12185, 4317, 4313], 1),
        ("jsb", [229, 76, 77], 88),
    ],
)
def test_configs_of_real_files(name, sizes, outputs, data_dir, tmp_path):
    assert data_dir.is_dir()
    task = load_config(f"configs/own_data/{name}.py" + (f":{tmp_path}/jsb" if name == "jsb" else "")).task
    splits = load_splits(task, 2048)
    assert [len(splits[split]["xs"]) for split in SPLITS] == sizes
    assert task.output_size == outputs
