"""TensorBoard and Weights & Biases themselves: what they have written is read back by their own readers."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys

import pytest

from experiments import train
from gru_jax.errors import UsageError
from gru_jax.runs.directory import RunDir
from gru_jax.runs.single import SingleRun
from gru_jax.runs.writers import WandB, scalars
from tests.training.killing import struck
from tests.training.small import small

pytestmark = pytest.mark.usefixtures("undrawn")


def written_lines(path):
    """What `metrics.jsonl` has, as writers get it: by name and step."""
    lines = RunDir(path).read_metrics()
    return {(name, line["step"]): value for line in lines for name, value in scalars(line).items()}


def killed_and_resumed(writer, path):
    """A run of which a kill lost what came after step 4."""
    config = small(writers=(writer,))
    with struck(pytest.MonkeyPatch(), SingleRun, "_save", 3, "before"):  # of steps 0, 4 and 8
        train.run(config, path)
    return train.run(config, path)


def test_tensorboard_reads_every_line_once(tmp_path):
    pytest.importorskip("tensorboardX")
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    killed_and_resumed("tensorboard", tmp_path / "run")
    reader = reading.EventAccumulator(str(tmp_path / "run" / "tensorboard"), size_guidance={reading.SCALARS: 0})
    reader.Reload()
    events = [(name, event.step, event.value) for name in reader.Tags()["scalars"] for event in reader.Scalars(name)]
    wanted = written_lines(tmp_path / "run")
    timeless = {key for key in wanted if "steps_per_second" not in key[0]}
    assert {(name, step) for name, step, _ in events} == wanted.keys()
    assert len(events) == len(wanted)
    for name, step, value in events:
        if (name, step) in timeless:
            assert value == pytest.approx(wanted[name, step], rel=1e-6)  # it keeps 32 bits


def records_of_wandb(path):
    """The records in the files of offline runs: LevelDB's log of protocol buffers, after a header of seven bytes."""
    messages = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    for file in sorted(path.glob("wandb/offline-run-*/run-*.wandb")):
        content, offset, parts = file.read_bytes(), 7, b""
        while offset + 7 <= len(content):
            left = 2**15 - offset % 2**15
            if left < 7:
                offset += left
                continue
            _, length, kind = struct.unpack("<IHB", content[offset : offset + 7])
            parts += content[offset + 7 : offset + 7 + length]
            offset += 7 + length
            if kind in (1, 4):  # whole, or last of several
                record = messages.Record()
                record.ParseFromString(parts)
                parts = b""
                yield record


def items_of(items):
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


@pytest.fixture
def offline(monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("WANDB_RUN_ID", raising=False)


def test_wandb_has_every_line_and_the_best_scores(offline, tmp_path):
    """With a rate that makes the network worse: the best is the first, whose test comes after the last step."""
    run = train.run(small(writers=("wandb",), optimizer={"lr": 3.0}), tmp_path / "run")
    records = list(records_of_wandb(tmp_path / "run"))
    rows = [items_of(record.history.item) for record in records if record.HasField("history")]
    history = {(name, row["step"]): v for row in rows for name, v in row.items() if name[:1] != "_" and name != "step"}
    assert history == written_lines(tmp_path / "run")
    assert run.summary["best"]["step"] < run.summary["final"]["step"]
    assert ("test/loss", run.summary["best"]["step"]) in history
    summary = {}
    for record in records:
        if record.HasField("summary"):
            summary |= items_of(record.summary.update)
    assert summary["test/loss"] == run.summary["best"]["test"]["loss"]
    assert summary["valid/loss"] == run.summary["best"]["valid"]["loss"]
    assert summary["final_test/loss"] == run.summary["final"]["test"]["loss"]
    assert (summary["best_step"], summary["step"]) == (run.summary["best"]["step"], 12)
    drawn_against = {r.metric.glob_name: r.metric.step_metric for r in records if r.HasField("metric")}
    assert drawn_against["*"] == "step"
    described = next(r.run for r in records if r.HasField("run"))
    assert described.display_name == "run"
    assert items_of(described.config.update)["optimizer"]["lr"] == 3.0


def test_a_resumed_run_is_the_same_of_wandb(offline, tmp_path):
    killed_and_resumed("wandb", tmp_path / "run")
    records = list(records_of_wandb(tmp_path / "run"))
    names = {record.run.run_id for record in records if record.HasField("run")}
    assert names == {(tmp_path / "run" / "wandb" / "id").read_text()}
    rows = [items_of(record.history.item) for record in records if record.HasField("history")]
    values = {(name, row["step"]): v for row in rows for name, v in row.items() if name[:1] != "_" and name != "step"}
    wanted = written_lines(tmp_path / "run")
    timeless = {key for key in wanted if "steps_per_second" not in key[0]}
    assert {key: values[key] for key in timeless} == {key: wanted[key] for key in timeless}


def test_a_sweep_gives_the_identity(offline, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "ofasweep")
    WandB(tmp_path, {}, 0).close()
    assert (tmp_path / "wandb" / "id").read_text() == "ofasweep"


def test_without_a_key_one_line_says_what_to_do(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    code = f"from pathlib import Path; from gru_jax.runs.writers import WandB; WandB(Path({str(tmp_path)!r}), {{}}, 0)"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    environment |= {"HOME": str(tmp_path), "NETRC": str(tmp_path / "none"), "WANDB_SILENT": "true"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    last = done.stderr.strip().splitlines()[-1]
    assert re.match(r"gru_jax\.errors\.UsageError: writers=wandb: .*; with WANDB_MODE=offline", last), done.stderr
    assert UsageError.__name__ in last
