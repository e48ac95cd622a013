"""Directories of studies that were damaged, or made to do damage."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from experiments import ablate, cli, report
from gru_jax.errors import UsageError
from gru_jax.runs.population import PopulationRun
from gru_jax.studies.directory import MEMBERS, QUARANTINE, STUDY_FILE, WAVE_FILE, WAVES
from gru_jax.studies.study import load_study
from tests.programs import compiled_once
from tests.training.killing import struck

pytestmark = pytest.mark.usefixtures("compiled_once")

ROOT = Path(__file__).parent.parent.parent


def study_of(folder, **changes):
    return load_study(str(folder / "study.py"), changes, {}, {})


@pytest.fixture
def done(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "study")
    return tmp_path / "study"


@pytest.fixture(scope="module")
def stopped(folder, tmp_path_factory):
    """A study that was killed after the checkpoint of step 8."""
    path = tmp_path_factory.mktemp("studies") / "stopped"
    with compiled_once(), struck(pytest.MonkeyPatch(), PopulationRun, "_save", 3):
        ablate.run(study_of(folder), path)
    return path


@pytest.fixture
def begun(stopped, tmp_path):
    shutil.copytree(stopped, tmp_path / "study")
    return tmp_path / "study"


def same(path, whole):
    assert pl.read_parquet(path / "table.parquet").equals(pl.read_parquet(whole[0] / "table.parquet"))


@pytest.mark.parametrize("name", [WAVES, MEMBERS, f"{MEMBERS}/.x.tmp", f"{WAVES}/0-0000", "table.csv", "report.html"])
def test_links_lead_nowhere(name, done, folder, tmp_path):
    outside = tmp_path / "outside"
    (outside / "0-0000").mkdir(parents=True)
    (outside / "thesis.txt").write_text("precious")
    link = done / name
    if link.is_dir():
        shutil.rmtree(link)
    link.unlink(missing_ok=True)
    link.symlink_to(outside / "thesis.txt" if "." in name.removeprefix(f"{MEMBERS}/.") else outside)
    with pytest.raises(UsageError, match="a symbolic link"):
        ablate.run(study_of(folder), done)
    assert sorted(path.name for path in outside.iterdir()) == ["0-0000", "thesis.txt"]
    assert (outside / "thesis.txt").read_text() == "precious"


def test_a_label_leads_nowhere(done, tmp_path):
    described = json.loads((done / STUDY_FILE).read_text())
    for of in described["members"].values():
        of["labels"]["member"] = "../../outside"
    (done / STUDY_FILE).write_text(json.dumps(described))
    report.run([done])
    assert not (tmp_path / "outside").exists()
    assert set(pl.read_parquet(done / "table.parquet")["member"]) == described["members"].keys()


@pytest.mark.parametrize("labels", [{"seed": [1]}, {"seed": "\ud800"}, [], None])
def test_labels_that_are_no_text_are_named(labels, done):
    described = json.loads((done / STUDY_FILE).read_text())
    next(iter(described["members"].values()))["labels"] = labels
    (done / STUDY_FILE).write_text(json.dumps(described))
    with pytest.raises(UsageError, match=r"study.json: damaged, a member has no labels"):
        report.run([done])


@pytest.mark.slow
def test_a_wave_that_says_nothing_of_itself_is_kept(begun, folder, whole, capsys):
    (begun / WAVES / "0-0000" / WAVE_FILE).unlink()
    ablate.run(study_of(folder), begun)
    assert "damaged, it has no wave.json; kept as" in capsys.readouterr().out
    assert list((begun / QUARANTINE).rglob("_CHECKPOINT_METADATA"))
    same(begun, whole)


@pytest.mark.slow
def test_checkpoints_set_aside_outlive_their_wave(begun, folder, whole, capsys):
    newest = begun / WAVES / "0-0000" / "checkpoints" / "latest" / "8"
    shutil.rmtree(newest / "state")
    ablate.run(study_of(folder), begun)
    assert "latest/8: damaged" in capsys.readouterr().out
    assert list((begun / QUARANTINE).rglob("_CHECKPOINT_METADATA"))
    assert not list((begun / WAVES).iterdir())
    same(begun, whole)


def test_damaged_best_networks_cost_one_validation(begun, folder, whole, capsys):
    """Two are kept, so that the wave goes on from the validation before."""
    newest = begun / WAVES / "0-0000" / "checkpoints" / "best" / "8"
    shutil.rmtree(newest / "state")
    ablate.run(study_of(folder), begun)
    out = capsys.readouterr().out
    assert "best/8: damaged" in out
    assert "step 8: its best network is lost; kept as" in out
    assert "begins anew" not in out
    same(begun, whole)


@pytest.mark.slow
def test_strangers_among_the_waves_stay(begun, folder, whole):
    (begun / WAVES / ".DS_Store").write_text("")
    (begun / WAVES / "0-0000 copy").mkdir()
    ablate.run(study_of(folder), begun)
    same(begun, whole)
    assert len(list((begun / WAVES).iterdir())) == 2


@pytest.mark.parametrize("member", [99, -1, "x", None])
def test_a_line_of_nobody_is_named(member, begun, folder):
    path = begun / WAVES / "0-0000" / "metrics.jsonl"
    lines = path.read_text().split("\n")
    lines[0] = json.dumps({**json.loads(lines[0]), "member": member})
    path.write_text("\n".join(lines))
    with pytest.raises(UsageError, match=r"metrics.jsonl: damaged, a line is of member"):
        ablate.run(study_of(folder), begun)


@pytest.mark.slow
def test_members_in_another_order_are_not_mistaken(begun, folder, whole, capsys):
    path = begun / WAVES / "0-0000" / WAVE_FILE
    path.write_text(json.dumps(dict(reversed(json.loads(path.read_text()).items()))))
    ablate.run(study_of(folder), begun)
    assert capsys.readouterr().out.count("it belongs to another run") == 2
    same(begun, whole)


def test_a_member_that_is_not_whole_is_named(done, folder):
    (member, *_) = sorted((done / MEMBERS).iterdir())
    (member / "summary.json").unlink()
    with pytest.raises(UsageError, match=rf"{member.name}: damaged, it has no summary.json; move it away"):
        ablate.run(study_of(folder), done)


@pytest.mark.parametrize("wrong", [{"platform": "tpu"}, {"halving.first": "3"}])
def test_wrong_use_leaves_nothing(wrong, folder, tmp_path):
    halving = {key: value for key, value in wrong.items() if key.startswith("halving")}
    changes = {key: value for key, value in wrong.items() if key not in halving}
    with pytest.raises(UsageError):
        ablate.run(load_study(str(folder / "study.py"), changes, {}, halving), tmp_path / "study")
    assert not (tmp_path / "study").exists()


# SIGTERM


def command(folder, workdir, *arguments):
    return [sys.executable, "-m", "experiments.ablate", f"--config={folder / 'long.py'}", f"--workdir={workdir}",
            "--devices=1", *arguments]  # fmt: skip


def begin(*arguments):
    return subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def long(folder):
    """The folder, with a study that does not come to its end by itself."""
    text = (folder / "base.py").read_text().replace('"steps": 12', '"steps": 10_000_000')
    (folder / "endless.py").write_text(text.replace('"eval_steps": 4', '"eval_steps": 1000'))
    (folder / "long.py").write_text('def get_config():\n    return {"base": "endless.py", "axes": {"seed": "0..1"}}\n')
    return folder


def until(there):
    for _ in range(600):
        if there():
            return
        time.sleep(0.1)
    raise AssertionError("it did not come to this")


def test_sigterm_ends_a_study_with_how_to_go_on(long, tmp_path):
    process = begin(*command(long, tmp_path / "study"))
    until(lambda: list((tmp_path / "study").glob("waves/*/checkpoints/latest/1000")))
    os.kill(process.pid, signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == cli.EXIT_PREEMPTED, err
    assert "of 10000000 is saved; this goes on from there:" in out
    assert f"--workdir={tmp_path / 'study'}" in out


def test_one_of_two_processes_ends_both(long, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        joined = [f"--coordinator=127.0.0.1:{server.getsockname()[1]}", "--processes=2", "--memory=1"]
    running = [begin(*command(long, tmp_path / "study", *joined, f"--process={i}")) for i in range(2)]
    until(lambda: len(list((tmp_path / "study").glob("waves/*/checkpoints/latest/1000"))) == 2)
    os.kill(running[1].pid, signal.SIGTERM)
    for process in running:
        _, err = process.communicate(timeout=60)
        assert process.returncode == cli.EXIT_PREEMPTED, err
