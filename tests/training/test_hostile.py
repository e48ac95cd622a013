"""Run directories that were damaged, or made to do damage: one line says so, and nothing outside is touched."""

from __future__ import annotations

import contextlib
import json
import shutil

import jax
import numpy as np
import pytest

from experiments import cli, replay, train
from gru_jax.errors import UsageError
from gru_jax.runs.checkpoints import BEST, CHECKSUMS, LATEST, QUARANTINE, Checkpoints
from gru_jax.runs.diagnosis import NonFiniteError
from gru_jax.runs.directory import RunDir
from gru_jax.runs.single import SingleRun
from gru_jax.runtime.locks import LOCK, lock_directory
from tests.training.killing import struck
from tests.training.small import small, timeless

pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.fixture(autouse=True)
def no_pictures(undrawn):
    pass


# Links

LINKS = [
    LOCK, "config.json.tmp", "env.json.tmp", "metrics.jsonl", "flow.npz.tmp", "summary.json.tmp", "checkpoints",
    f"checkpoints/{LATEST}", f"checkpoints/{CHECKSUMS}", f"checkpoints/{QUARANTINE}", f"checkpoints/{LATEST}/8",
]  # fmt: skip


@pytest.mark.parametrize("name", LINKS)
def test_links_lead_nowhere(name, started, tmp_path):
    outside = tmp_path / "outside"
    (outside / "100").mkdir(parents=True)
    (outside / "best-notes.txt").write_text("precious")
    link = started / name
    if link.is_dir():
        shutil.rmtree(link)
    link.unlink(missing_ok=True)
    folder = name.startswith("checkpoints")
    link.symlink_to(outside if folder else outside / "best-notes.txt")
    with pytest.raises(UsageError, match=r"symbolic link|Too many levels of symbolic links"):
        train.run(small(), started)
    assert (outside / "best-notes.txt").read_text() == "precious"
    assert sorted(path.name for path in outside.iterdir()) == ["100", "best-notes.txt"]


# Records


def line_of(path, index, text):
    lines = path.read_bytes().split(b"\n")
    lines[index] = text
    path.write_bytes(b"\n".join(lines))


@pytest.mark.parametrize("text", [b"\x00", b"\xff", b"{", b'{"step": "x", "split": "train"}', b"[" * 100_000, b"null"])
def test_a_damaged_line_of_metrics_is_named_and_nothing_is_dropped(text, started):
    path = started / "metrics.jsonl"
    line_of(path, 2, text)
    before = path.read_bytes()
    with pytest.raises(UsageError, match=r"metrics.jsonl: damaged, line 3 is no record .* train anew"):
        train.run(small(), started)
    assert path.read_bytes() == before


def test_lines_that_are_gone_are_missed(started):
    path = started / "metrics.jsonl"
    path.write_bytes(b"\n".join(path.read_bytes().split(b"\n")[:3]) + b"\n")
    with pytest.raises(UsageError, match=r"metrics.jsonl: damaged, it has 3 of 7 lines up to step 8"):
        train.run(small(), started)


def test_a_line_that_a_kill_cut_short_is_none(started, uninterrupted):
    with (started / "metrics.jsonl").open("ab") as stream:
        stream.write(b'{"step": 10, "spl')
    train.run(small(), started)
    assert timeless(started) == timeless(uninterrupted)


def flips(path):
    content = path.read_bytes()
    for at in np.linspace(0, len(content) - 1, 12).astype(int):
        yield content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :]


def test_any_flipped_byte_of_flow_is_harmless_or_named(started):
    """A byte in the names' own padding or dates may be harmless."""
    path, named = started / "flow.npz", 0
    for content in list(flips(path)):
        path.write_bytes(content)
        with contextlib.suppress(UsageError):
            RunDir(started).read_flow()
            continue
        named += 1
    assert named >= 6


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"adjoint/layer_0": np.zeros((2, 8))}, "it has no whole numbers step"),
        ({"step": np.array(["a"])}, "step holds <U1"),
        ({"step": np.arange(3), "adjoint/layer_0": np.zeros((2, 8))}, "has not a row for each of 3 steps"),
        ({"live/x": np.zeros((2, 8))}, "it has no whole numbers live/step"),
    ],
)
def test_odd_records_are_named(arrays, message, started):
    np.savez(started / "flow.npz", **arrays)
    with pytest.raises(UsageError, match=message):
        train.run(small(), started)


def test_lost_recordings_are_told(started, capsys):
    (started / "flow.npz").unlink()
    train.run(small(), started)
    assert "0 of 2 recordings are there, the others are lost" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["config.json", "env.json"])
def test_deep_json_is_named(name, started):
    (started / name).write_text("[" * 200_000)
    with pytest.raises(UsageError, match=rf"{name}: damaged, not JSON"):
        train.run(small(), started)


SUMMARIES = [
    {"end_reason": 3}, {"best": {}}, {"best": {"step": 4, "valid": {}, "test": None}}, {"stopped": 3},
    {"seconds": "long"}, {"baseline": []}, {"goal": []}, {"goal": ["loss", "up"]},
    {"final": {"step": 12, "valid": {"loss": "x"}}},
]  # fmt: skip


@pytest.mark.parametrize("changes", SUMMARIES, ids=str)
def test_a_summary_that_cannot_be_used_is_named(changes, uninterrupted, tmp_path):
    shutil.copytree(uninterrupted, tmp_path / "run")
    path = tmp_path / "run" / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(UsageError, match=r"summary.json: damaged, "):
        train.run(small(), tmp_path / "run")


# Checkpoints


def change_host(folder, change):
    """Change the small dict of a checkpoint, as if it had been saved so."""
    (path,) = (p for p in (folder / "host").rglob("metadata"))
    host = json.loads(path.read_text())
    change(host)
    path.write_text(json.dumps(host))
    (folder.parent.parent / CHECKSUMS / f"{folder.parent.name}-{folder.name}").unlink()


@pytest.mark.parametrize(
    "change",
    [
        lambda host: host.pop("members"),
        lambda host: host.update(members=None),
        lambda host: host["members"][0].pop("best_step"),
        lambda host: host["members"][0].update(more=1),
        lambda host: host["members"][0].update(best_step="x"),
        lambda host: host.update(pending_metrics=[1]),
        lambda host: host.update(metric_lines="x"),
        lambda host: host.update(fingerprint="another"),
    ],
)
def test_what_stands_beside_the_state_may_be_damaged_too(change, started, uninterrupted, capsys):
    change_host(started / "checkpoints" / LATEST / "8", change)
    train.run(small(), started)
    assert f"{LATEST}/8: damaged" in capsys.readouterr().out
    assert timeless(started) == timeless(uninterrupted)


def test_checkpoints_of_another_seed_are_not_taken(started, uninterrupted, tmp_path, capsys):
    with struck(pytest.MonkeyPatch(), SingleRun, "_save", 3):
        train.run(small(seed=1), tmp_path / "other")
    shutil.rmtree(started / "checkpoints")
    shutil.copytree(tmp_path / "other" / "checkpoints", started / "checkpoints")
    train.run(small(), started)
    assert capsys.readouterr().out.count("it belongs to another run") == 2
    assert timeless(started) == timeless(uninterrupted)


@pytest.mark.parametrize("content", ["[]", "[" * 100_000, ""])
def test_metadata_that_orbax_would_stumble_over(content, started, uninterrupted, capsys):
    (started / "checkpoints" / LATEST / "8" / "_CHECKPOINT_METADATA").write_text(content)
    train.run(small(), started)
    assert "_CHECKPOINT_METADATA is not JSON" in capsys.readouterr().out
    assert timeless(started) == timeless(uninterrupted)


def test_sums_that_cannot_be_read(started, capsys):
    sums = started / "checkpoints" / CHECKSUMS / f"{LATEST}-8"
    sums.unlink()
    sums.mkdir()
    train.run(small(), started)
    assert f"{LATEST}/8: damaged (its sums cannot be read" in capsys.readouterr().out


def test_what_is_lost_with_its_last_checkpoint_is_kept(started, capsys):
    """Where all of the latest are damaged, the best goes aside too, though nothing follows from it."""
    for folder in (started / "checkpoints" / LATEST).iterdir():
        shutil.rmtree(folder / "state")
    (best,) = (started / "checkpoints" / BEST).iterdir()
    train.run(small(), started)
    assert "every checkpoint is lost" in capsys.readouterr().out
    assert (started / "checkpoints" / QUARANTINE / f"{BEST}-{best.name}").is_dir()


def test_room_is_looked_at_before_anything_is_deleted(started, monkeypatch):
    checkpoints = Checkpoints(started / "checkpoints", jax.devices()[0])
    (best,) = checkpoints.steps(BEST)
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 0))
    with pytest.raises(UsageError, match="no space left on device"):
        checkpoints.save(BEST, best, {"a": np.zeros(3)}, {})
    assert checkpoints.steps(BEST) == [best]
    checkpoints.close()


def test_a_full_disk_does_not_hide_what_was_found(tmp_path, monkeypatch):
    def full(*args):
        raise UsageError("no space")

    monkeypatch.setattr("gru_jax.runs.single.keep_failure", full)
    with pytest.raises(NonFiniteError, match=r"step 2 is not finite.*its batch is not kept, no space"):
        train.run(small(optimizer={"lr": 1e38, "name": "sgd"}), tmp_path / "run")


# The directory itself


def test_a_directory_that_is_moved_away_ends_the_run(tmp_path, monkeypatch):
    """And what was saved goes on where it is now."""
    path, original = tmp_path / "run", SingleRun._advance

    def moving(self, stop):
        original(self, stop)
        if stop == 8:
            path.rename(tmp_path / "moved")

    with monkeypatch.context() as patch:
        patch.setattr(SingleRun, "_advance", moving)
        with pytest.raises(UsageError, match="no longer the directory that this process was working in"):
            train.run(small(), path)
    assert not path.exists()
    train.run(small(), tmp_path / "moved")


def test_a_lock_of_somebody_else_stays(tmp_path):
    with lock_directory(tmp_path) as check:
        (tmp_path / LOCK).unlink()
        (tmp_path / LOCK).write_text("another")
        with pytest.raises(UsageError, match="no longer the directory"):
            check()
    assert (tmp_path / LOCK).read_text() == "another"


def test_what_a_lock_says_is_fit_for_a_terminal(tmp_path, capsys):
    (tmp_path / LOCK).write_bytes(b"\x1b]0;owned\x07one\ntwo\x1b[2J \xff")
    with cli.printed_messages(), lock_directory(tmp_path):
        pass
    assert "\x1b" not in (out := capsys.readouterr().out)
    assert out.count("\n") == 1


def test_a_member_that_is_finite_here_is_said_to_be(uninterrupted, tmp_path):
    shutil.copytree(uninterrupted, tmp_path / "run")
    path = tmp_path / "run" / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "end_reason": "diverged"}))
    where, lines = replay.run(tmp_path / "run")
    assert where is None
    assert lines[:2] == ["then, after 12 steps: diverged", "here: all is finite"]
