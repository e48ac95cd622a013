"""A study in which every member diverged says so, and a member that diverged can be looked at."""

from __future__ import annotations

import json
import shutil

import polars as pl
import pytest

import gru_jax
from experiments import ablate, cli, replay, report, train
from gru_jax.config import load
from gru_jax.errors import UsageError
from gru_jax.runs.diagnosis import NonFiniteError
from gru_jax.studies.directory import MEMBERS
from gru_jax.studies.result import StudyResult
from gru_jax.studies.unusable import find_unusable
from tests.training.small import small

pytestmark = pytest.mark.usefixtures("compiled_once")


def summary_of(path):
    return json.loads((path / "summary.json").read_text())


@pytest.fixture(scope="module")
def diverged(whole, tmp_path_factory):
    """A study whose members have all diverged: the others are gone."""
    path = tmp_path_factory.mktemp("diverged") / "study"
    shutil.copytree(whole[0], path)
    for member in (path / MEMBERS).iterdir():
        if summary_of(member)["end_reason"] != "diverged":
            shutil.rmtree(member)
    return path


@pytest.fixture(scope="module")
def alone(diverged, tmp_path_factory):
    """A member's directory, and what is said where the same is trained alone."""
    member = sorted((diverged / MEMBERS).iterdir())[0]
    with pytest.raises(NonFiniteError) as raised:
        train.run(load(json.loads((member / "config.json").read_text())), tmp_path_factory.mktemp("alone") / "run")
    return member, str(raised.value)


def test_a_study_without_a_usable_member_says_so(diverged, folder, monkeypatch, capsys):
    monkeypatch.setattr(ablate, "run_members", lambda *_: None)
    monkeypatch.setattr(ablate, "prepare", lambda flags: None)  # devices are there already
    argv = ["--config", str(folder / "study.py"), "--workdir", str(diverged)]
    assert ablate.command(argv) == cli.EXIT_NON_FINITE
    printed = capsys.readouterr()
    assert "error: no member is usable: all 4 diverged, first after " in printed.err
    assert "python -m experiments.replay --workdir " in printed.err
    assert "inf" not in printed.out
    page = (diverged / "report.html").read_text()
    assert "no member is usable: all 4 diverged" in page
    assert "Where it diverged" in page
    assert "The best member alone" not in page
    with pytest.raises(UsageError, match="no member is usable: all 4 diverged, first after"):
        _ = gru_jax.open(diverged).best


def test_one_usable_member_is_enough(whole, capsys):
    written = report.run(whole[0])
    assert report.show(written) == 0
    assert "usable" not in capsys.readouterr().out
    assert (
        find_unusable({"one": min((whole[0] / MEMBERS).iterdir(), key=lambda p: summary_of(p)["end_reason"] or "")})
        is None
    )


def test_the_batch_of_a_member_is_run_again(alone, capsys):
    member, said_alone = alone
    where, lines = replay.run(member)
    assert where is not None
    assert where in said_alone
    assert lines[0].endswith(summary_of(member)["stopped"])
    assert replay.command(["--workdir", str(member)]) == 3
    assert f"here: {where}\n" in capsys.readouterr().out


@pytest.mark.slow
def test_a_member_without_networks_is_trained_again(alone, tmp_path, capsys):
    shutil.copytree(alone[0], tmp_path / "member", ignore=shutil.ignore_patterns("checkpoints"))
    where, _ = replay.run(tmp_path / "member")
    assert where is not None
    assert where in alone[1]
    assert f"{tmp_path / 'member'} keeps no networks: it is trained again" in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "member").iterdir()) == sorted(
        p.name for p in alone[0].iterdir() if p.name != "checkpoints"
    )


def test_a_study_is_replayed_by_member(whole, diverged):
    name = sorted(p.name for p in (diverged / MEMBERS).iterdir())[0]
    with pytest.raises(UsageError, match=rf"a study; allowed are its members that diverged, .*{MEMBERS}/….*{name}"):
        replay.command(["--workdir", str(whole[0])])


def test_a_member_that_diverged_has_no_scores_and_the_study_a_table(tmp_path):
    """A score of the whole set decides, which there is none of where a loss is not finite."""
    base = small(optimizer={"name": "sgd", "clip_norm": None}, train={"metrics": ("r2",), "monitor": "r2"})
    ablate.run({"base": base.to_dict(), "axes": {"optimizer.lr": [0.01, 1e30]}}, tmp_path / "study")
    table = StudyResult(tmp_path / "study").table
    assert sorted(table["status"]) == ["diverged", "done"]
    assert table.filter(pl.col("status") == "done")["best_valid_r2"].is_finite().all()
