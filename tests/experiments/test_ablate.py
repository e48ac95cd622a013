"""Studies end to end: run, stopped, gone on with, enlarged, halved, on several devices and processes."""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import polars as pl
import pytest

from experiments import ablate, cli, report, train
from experiments.progress import ProgressBar
from gru_jax.errors import UsageError
from gru_jax.runs import directory as rundir
from gru_jax.runs.checkpoints import Checkpoints
from gru_jax.runs.directory import RunDir
from gru_jax.runs.population import PopulationRun
from gru_jax.runtime import files
from gru_jax.studies import directory, runner
from gru_jax.studies.directory import MEMBERS, WAVES
from gru_jax.studies.report import table
from gru_jax.studies.runner import RunnerOptions
from gru_jax.studies.study import load_study
from tests.training.killing import struck

pytestmark = pytest.mark.usefixtures("compiled_once")

ROOT = Path(__file__).parent.parent.parent


def study_of(folder, axes=None, extra=None, **changes):
    return load_study(str(folder / "study.py"), changes, axes or {}, extra or {})


def write_the_table(path):
    return table.write_table(table.read_table(path)[0], path)[0]


@pytest.fixture
def unreported(monkeypatch):
    """Studies without a report, for tests of anything else."""
    monkeypatch.setattr("experiments.report.run", write_the_table)


def test_one_compilation_for_all_members(whole):
    assert len(whole[1]) == 1


def test_the_table_tells_of_every_member(whole):
    frame = pl.read_parquet(whole[0] / "table.parquet")
    assert frame.height == 8
    assert frame.equals(pl.read_csv(whole[0] / "table.csv", infer_schema_length=None).cast(frame.schema))
    assert set(frame.filter(pl.col("optimizer.lr") == 1e30)["status"]) == {"diverged"}
    assert set(frame.filter(pl.col("optimizer.lr") < 1)["status"]) == {"done"}
    for column in ("best_valid_loss", "best_test_loss", "init_lambda_1/layer_0", "init_horizon/layer_0"):
        assert frame.filter(pl.col("status") == "done")[column].is_finite().all()
    assert len(list((whole[0] / MEMBERS).iterdir())) == 8
    assert not list((whole[0] / WAVES).iterdir())


def test_nothing_is_run_again(whole, folder, monkeypatch):
    def written():
        return {path: path.stat().st_mtime_ns for path in (whole[0] / MEMBERS).rglob("*") if path.is_file()}

    before = written()
    monkeypatch.setattr(runner, "PopulationRun", None)
    ablate.run(study_of(folder), whole[0])
    assert written() == before


MOMENTS = {  # function, and the calls of it that are struck
    "study": (directory, "write_json", (1, 2)),
    "metrics": (RunDir, "append_metrics", (2, 5)),
    "checkpoint": (Checkpoints, "save", (1, 3)),
    "members": (PopulationRun, "finish", (1,)),
    "files": (rundir, "replace_file", (2, 5)),
    "json": (files, "replace_file", (3, 9)),
    "removal": (directory.shutil, "rmtree", (1,)),
}


@pytest.mark.parametrize(
    "moment", [name if name == "checkpoint" else pytest.param(name, marks=pytest.mark.slow) for name in MOMENTS]
)
def test_struck_at_any_moment(moment, folder, tmp_path, monkeypatch, whole, unreported):
    owner, name, calls = MOMENTS[moment]
    few = {"seed": "0"}
    for call in calls:
        with struck(monkeypatch, owner, name, call) as seen:
            ablate.run(study_of(folder, few), tmp_path / "study")
        assert len(seen) >= call
    ablate.run(study_of(folder, few), tmp_path / "study")
    wanted = pl.read_parquet(whole[0] / "table.parquet").filter(pl.col("seed") == 0)
    assert table.read_table(tmp_path / "study")[0].equals(wanted)


def test_values_added_to_an_axis_are_all_that_is_run(folder, tmp_path, whole, unreported, monkeypatch):
    few = study_of(folder, {"optimizer.lr": "0.01", "seed": "0"})
    ablate.run(few, tmp_path / "study")
    before = {path.name: (path / "summary.json").read_bytes() for path in (tmp_path / "study" / MEMBERS).iterdir()}
    assert len(before) == 2
    shown = []
    monkeypatch.setattr(ProgressBar, "update", lambda self, step, counts: shown.append((self.total, counts)))
    ablate.run(study_of(folder), tmp_path / "study")
    counts = [tuple(of[name] for name in ("members", "done", "alive", "diverged")) for _, of in shown]
    assert (counts[0], counts[-1]) == ((8, 2, 6, 0), (8, 4, 0, 4))
    assert {total for total, _ in shown} == {6 * 12}
    assert shown[-1][1]["best_loss"] == pl.read_parquet(whole[0] / "table.parquet")["best_valid_loss"].min()
    for name, content in before.items():
        assert (tmp_path / "study" / MEMBERS / name / "summary.json").read_bytes() == content
    assert (tmp_path / "study" / "table.csv").read_bytes() == (whole[0] / "table.csv").read_bytes()


@pytest.mark.slow
def test_a_member_is_a_run_that_may_be_trained_for_longer(whole, folder, tmp_path, capsys, undrawn):
    """In a copy, as a run of its own."""
    member = next(m for m in study_of(folder).members() if m.config.optimizer.lr < 1)
    shutil.copytree(whole[0] / MEMBERS / member.id, tmp_path / "copy")
    longer = dataclasses.replace(member.config, train=dataclasses.replace(member.config.train, steps=16))
    grown = train.run(longer, tmp_path / "copy")
    said = capsys.readouterr().out
    assert "resuming at step 12 of 16" in said
    assert "lost" not in said
    wanted = train.run(longer, tmp_path / "whole")
    assert grown.summary["final"]["test"] == pytest.approx(wanted.summary["final"]["test"], rel=1e-5)
    assert grown.summary["best"]["step"] == wanted.summary["best"]["step"]
    steps = grown.metrics["step"].to_list()
    assert steps == wanted.metrics["step"].to_list()


def test_another_base_is_refused(folder, whole, tmp_path):
    changed = study_of(folder, **{"task.length": "9"})
    with pytest.raises(UsageError, match=r"belongs to a study of another base: task.length was 8, is 9"):
        ablate.run(changed, whole[0])
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UsageError, match=r"not a study's directory, it holds thesis.tex"):
        ablate.run(study_of(folder), tmp_path)


@pytest.mark.slow
def test_shapes_are_groups_and_memory_makes_waves(folder, tmp_path, capsys, whole):
    axes = {"optimizer.lr": "0.01", "seed": "0..3", "model.hidden": "4|3,2"}
    study = study_of(folder, axes, {"networks": "false"})
    ablate.run(study, tmp_path / "study", RunnerOptions(memory=20_000))
    out = capsys.readouterr().out
    assert "members do not fit the memory together" in out
    frame = table.read_table(tmp_path / "study")[0]
    assert frame.height == 16
    assert not (tmp_path / "study" / MEMBERS / frame["member"][0] / "checkpoints").exists()
    wanted = pl.read_parquet(whole[0] / "table.parquet")
    both = frame.join(wanted, on="member")  # members that the studies share are the same to the bit
    assert both.height == 4
    assert (both["best_valid_loss"] == both["best_valid_loss_right"]).all()


@pytest.mark.slow
def test_successive_halving(folder, tmp_path, unreported):
    axes = {"optimizer.lr": "log(1e-3,1e-1,3)", "seed": "0..1"}
    study = study_of(folder, axes, {"halving.first": "4", "halving.eta": "2"})
    ablate.run(study, tmp_path / "study")
    frame = table.read_table(tmp_path / "study")[0]
    assert sorted(frame["steps"]) == [4] * 6 + [8] * 3 + [12] * 3
    at_first = {
        name: next(line["loss"] for line in RunDir(tmp_path / "study" / MEMBERS / name).read_metrics()
                   if line["split"] == "valid" and line["step"] == 4)
        for name in frame["member"]
    }  # fmt: skip
    ended = dict(frame.select("member", "steps").iter_rows())
    assert max(v for m, v in at_first.items() if ended[m] > 4) <= min(v for m, v in at_first.items() if ended[m] == 4)
    with pytest.raises(UsageError, match=r"halving.first=3: there is no validation at the rung of step 3"):
        ablate.run(study_of(folder, axes, {"halving.first": "3"}), tmp_path / "other")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=study.py", "--axis.optimizer.lrs=1,2"], "did you mean"),
        (["--config=study.py", "--axis.seed=9..1"], "axes.seed=9..1: allowed are a,b,c"),
        (["--config=study.py", "--axis.optimizer.lr=-1"], "optimizer.lr=-1.0: allowed are numbers from 0"),
        (["--config=base.py"], "a study needs axes; --axis.KEY=VALUES adds one"),
        (["--config=study.py", "--sampling.method=sobl"], "sampling.method='sobl': allowed are"),
        (["--config=study.py", "--mapping=vmp"], "--mapping='vmp': allowed are auto, map, vmap"),
        (["--config=study.py", "--devices=0"], "--devices=0: allowed"),
        (["--config=study.py", "--memory=much"], "--memory=much: a whole number"),
        (["--config=study.py", "--process=0"], "allowed together with --coordinator"),
        (["--axis.seed=0..1"], "--config: missing"),
    ],
)
def test_wrong_use_is_one_line(arguments, message, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(jax.config, "update", lambda *args: None)
    with pytest.raises(UsageError) as raised:
        ablate.command([*arguments, f"--workdir={tmp_path / 'study'}"])
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "study").exists()


def test_every_shipped_study_is_sound():
    for path in sorted((ROOT / "configs" / "ablations").glob("*.py")):
        assert len(load_study(str(path), {}, {}, {}).members()) > 1
        assert path.name in cli.describe_configs(path.parent)


def command(folder, workdir, *arguments):
    return [sys.executable, "-m", "experiments.ablate", f"--config={folder / 'study.py'}", f"--workdir={workdir}",
            *arguments]  # fmt: skip


@pytest.mark.slow
def test_eight_devices_give_the_same_table(folder, tmp_path, whole):
    subprocess.run(command(folder, tmp_path / "study", "--devices=8"), check=True, cwd=ROOT, capture_output=True)
    same(tmp_path / "study", whole[0])


@pytest.mark.slow
def test_two_processes_give_the_same_table(folder, tmp_path, whole):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    joined = ["--devices=1", f"--coordinator=127.0.0.1:{port}", "--processes=2"]
    running = [
        subprocess.Popen(command(folder, tmp_path / "study", *joined, f"--process={i}"), cwd=ROOT,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for i in range(2)
    ]  # fmt: skip
    for process in running:
        out, _ = process.communicate(timeout=300)
        assert process.returncode == 0, out
    same(tmp_path / "study", whole[0])


def same(one, two):
    """The same table: to 1e-6, and here to the bit."""
    frames = [pl.read_parquet(path / "table.parquet") for path in (one, two)]
    assert frames[0].equals(frames[1])


@pytest.mark.slow
def test_ten_kills(folder, tmp_path, whole):
    draw, kills, lasts = random.Random(0), 0, 10.0  # seconds that it takes when nobody kills it
    for _ in range(60):
        began = time.monotonic()
        process = subprocess.Popen(
            command(folder, tmp_path / "study", "--devices=1"), cwd=ROOT, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONUNBUFFERED": "1"}, start_new_session=True,
        )  # fmt: skip
        try:
            process.wait(draw.uniform(0.4, 1.0) * lasts if kills < 10 else 300)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            continue
        assert process.returncode == 0
        if kills >= 10:
            break
        lasts = time.monotonic() - began
        for member in list((tmp_path / "study" / MEMBERS).iterdir())[::2]:  # done too soon: undo half of it
            directory.shutil.rmtree(member)
    assert kills == 10
    assert (tmp_path / "study" / "table.csv").read_bytes() == (whole[0] / "table.csv").read_bytes()


@pytest.mark.slow
def test_several_directories_are_compared(whole, folder, tmp_path):
    ablate.run(study_of(folder, {"optimizer.lr": "0.03"}), tmp_path / "more")
    path = report.run([whole[0], tmp_path / "more"], tmp_path / "compared").path
    frame = pl.read_csv(tmp_path / "compared" / "table.csv")
    assert frame.group_by("study").len().sort("len")["len"].to_list() == [4, 8]
    assert "more" in path.read_text()
