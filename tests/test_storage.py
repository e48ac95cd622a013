"""Copies of run directories in a place that stays: whole, of one moment, and found again."""

from __future__ import annotations

import shutil
import time
import zipfile
from pathlib import Path

import pytest

from gru_jax.runtime.storage import Storage


@pytest.fixture
def storage(tmp_path):
    return Storage(tmp_path / "runs", tmp_path / "runs" / "storage", on_message=print)


def write(folder, text):
    folder.mkdir(exist_ok=True)
    for name in ("config.json", "lock"):
        (folder / name).write_text(text)


def test_what_was_saved_comes_back(storage, capsys):
    with storage.kept("a") as run:
        assert not run.exists()
        write(run, "1")
    shutil.rmtree(run)
    with storage.kept("a") as run:
        assert [path.name for path in run.iterdir()] == ["config.json"]
        write(run, "2")
    storage.fetch("a")
    assert (run / "config.json").read_text() == "2", "what is here is newer"
    assert capsys.readouterr().out.count("fetched a") == 1


DAMAGES = (lambda data: b"", lambda data: data[:-9], lambda data: data.replace(b"two", b"tow"))


@pytest.mark.parametrize("damage", DAMAGES, ids=("empty", "cut", "changed"))
def test_of_damaged_archives_the_one_before_is_used(storage, damage, capsys):
    run = storage.local / "a"
    for text in ("one", "two"):
        write(run, text)
        storage.save("a")
    newest = storage.remote / "a.zip"
    newest.write_bytes(damage(newest.read_bytes()))
    shutil.rmtree(run)
    storage.fetch("a")
    assert (run / "config.json").read_text() == "one"
    assert {path.name for path in storage.local.iterdir()} == {"a", "storage"}
    assert "is damaged" in capsys.readouterr().out


def test_a_copy_that_was_cut_short_is_no_archive(storage, monkeypatch):
    run = storage.local / "a"
    write(run, "one")
    storage.save("a")

    def cut(source, target):
        Path(target).write_bytes(Path(source).read_bytes()[:20])
        raise OSError("Transport endpoint is not connected")

    monkeypatch.setattr(shutil, "copyfile", cut)
    with pytest.raises(OSError, match="Transport"), storage.kept("a"):
        write(run, "two")
    shutil.rmtree(run)
    storage.fetch("a")
    assert (run / "config.json").read_text() == "one"


def test_archives_of_a_run_in_training_are_of_one_moment(storage, monkeypatch):
    """A checkpoint that comes in the middle must not lie beside the records of an earlier moment, or be half there."""
    run, read, calls = storage.local / "a", Path.read_bytes, []
    write(run, "one")
    (run / "old").write_text("")

    def reading(path):
        if path.parent == run and not calls:
            calls.append(path)
            (run / "old").unlink()
            (run / "new").write_text("")
            (run / "config.json").write_text("two")
            return b"one"
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", reading)
    storage.save("a")
    with zipfile.ZipFile(storage.remote / "a.zip") as packed:
        assert {name: packed.read(name) for name in packed.namelist()} == {"config.json": b"two", "new": b""}


def test_a_directory_is_saved_while_it_is_worked_in_and_when_that_fails(tmp_path, capsys):
    storage = Storage(tmp_path / "runs", tmp_path / "drive", seconds=0.05, on_message=print)
    with pytest.raises(KeyboardInterrupt), storage.kept("a") as run:  # noqa: PT012
        write(run, "one")
        deadline = time.monotonic() + 10
        while not (storage.remote / "a.zip").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (storage.remote / "a.zip").exists()
        write(run, "two")
        raise KeyboardInterrupt
    shutil.rmtree(run)
    storage.fetch("a")
    assert (run / "config.json").read_text() == "two"
