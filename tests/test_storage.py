"""Copies of run directories in a place that stays: whole, of one moment, and found again."""

from __future__ import annotations

import shutil
import time
import zipfile
from pathlib import Path

import pytest

from gru_jax.errors import UsageError
from gru_jax.runtime.storage import Storage


@pytest.fixture
def storage(tmp_path):
    return Storage(tmp_path / "runs", tmp_path / "runs" / "storage", on_message=print)


def write(folder, text):
    folder.mkdir(exist_ok=True)
    for name in ("config.json", "lock", "summary.json"):
        (folder / name).write_text(text)


def test_what_was_saved_comes_back(storage, capsys):
    with storage.kept("a") as run:
        assert not run.exists()
        write(run, "1")
    shutil.rmtree(run)
    with storage.kept("a") as run:
        assert {path.name for path in run.iterdir()} == {"config.json", "summary.json"}
        write(run, "2")
    storage.fetch("a")
    assert (run / "config.json").read_text() == "2", "what is here is newer"
    assert capsys.readouterr().out.count("fetched a") == 1


def central(data, offset, value):
    """The first entry of the archive's list of files, which has no checksum, with other bytes."""
    start = data.index(b"PK\1\2") + offset
    return data[:start] + value + data[start + len(value) :]


DAMAGES = {
    "empty": lambda data: b"",
    "empty archive": lambda data: b"PK\5\6" + bytes(18),
    "cut": lambda data: data[:-9],
    "changed": lambda data: data.replace(b"two", b"tow"),
    "version": lambda data: central(data, 6, b"\xff"),  # NotImplementedError
    "encrypted": lambda data: central(data, 8, b"\1"),  # RuntimeError
    "compressed": lambda data: central(data, 10, b"\x08").replace(b"PK\3\4\x14\0\0\0\0", b"PK\3\4\x14\0\0\0\x08"),
    "file forgotten": lambda data: central(data, 32, b"\x80"),  # its comment is to begin where the next entry is
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
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
    assert (run / "summary.json").read_text() == "one"
    messages = capsys.readouterr().out.splitlines()
    assert len(messages) == 2
    assert messages[0].startswith(f"{newest} is damaged (")
    assert messages[0].endswith(") and not used")
    assert messages[1] == "fetched a from the archive before"


def test_a_damaged_archive_does_not_take_the_place_of_the_sound_one_before_it(storage, capsys):
    run = storage.local / "a"
    for text in ("one", "two"):
        write(run, text)
        storage.save("a")
    newest, previous = storage.remote / "a.zip", storage.remote / "a.previous.zip"
    sound = previous.read_bytes()
    newest.write_bytes(newest.read_bytes()[:-9])
    write(run, "three")
    storage.save("a")
    assert previous.read_bytes() == sound
    assert (
        "a.zip is damaged (its list of files is not that which was written) and replaced\n" in capsys.readouterr().out
    )
    shutil.rmtree(run)
    storage.fetch("a")
    assert (run / "config.json").read_text() == "three"


def test_a_directory_whose_archives_are_all_damaged_is_not_begun_anew(storage):
    run = storage.local / "a"
    for text in ("one", "two"):
        write(run, text)
        storage.save("a")
    shutil.rmtree(run)
    for archive in storage.remote.iterdir():
        archive.write_bytes(b"PK")
    message = r"a\.zip: damaged, and no sound archive before it; move it away to begin a anew"
    with pytest.raises(UsageError, match=message), storage.kept("a"):
        pass
    assert {path.name: path.read_bytes() for path in storage.remote.iterdir()} == {
        "a.zip": b"PK",
        "a.previous.zip": b"PK",
    }


def test_archives_from_before_their_list_had_a_checksum_are_read(storage):
    with zipfile.ZipFile(storage.remote / "a.zip", "w") as packed:
        packed.writestr("config.json", "old")
    storage.fetch("a")
    assert (storage.local / "a" / "config.json").read_text() == "old"


def test_nothing_does_not_take_the_place_of_what_was_saved(storage):
    run = storage.local / "a"
    write(run, "one")
    storage.save("a")
    sound = (storage.remote / "a.zip").read_bytes()
    shutil.rmtree(run)
    with pytest.raises(UsageError, match=r"runs/a: no such directory"):
        storage.save("a")
    run.mkdir()
    with pytest.raises(UsageError, match=r"runs/a: no file in it"):
        storage.save("a")
    with storage.kept("a"):
        pass
    assert (storage.remote / "a.zip").read_bytes() == sound
    assert [path.name for path in storage.remote.iterdir()] == ["a.zip"]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "a\\b", "a\0", "a.previous"])
def test_names_are_those_of_one_directory(storage, name):
    for use in (storage.save, storage.fetch, lambda name: storage.kept(name).__enter__()):
        with pytest.raises(UsageError, match=r"name=.*: allowed is that of one directory"):
            use(name)


def test_the_archives_are_not_put_into_themselves(storage):
    with pytest.raises(UsageError, match=r"name='storage': .* holds the archives themselves"):
        storage.save("storage")


def test_a_file_is_no_place(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"file: cannot be used as a directory \(File exists\)"):
        Storage(tmp_path / "file", tmp_path / "drive")


def test_saving_goes_on_whatever_happened(tmp_path, monkeypatch, capsys):
    storage = Storage(tmp_path / "runs", tmp_path / "drive", seconds=0.02, on_message=print)
    save, failures = storage.save, [ValueError("odd"), OSError("gone")]
    monkeypatch.setattr(
        storage, "save", lambda name: save(name) if not failures else (_ for _ in ()).throw(failures.pop())
    )
    with storage.kept("a") as run:
        write(run, "one")
        deadline = time.monotonic() + 10
        while not (storage.remote / "a.zip").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (storage.remote / "a.zip").exists()
    assert "a could not be saved (odd); work goes on" in capsys.readouterr().out


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
        assert {name: packed.read(name) for name in packed.namelist()} == {
            "config.json": b"two",
            "new": b"",
            "summary.json": b"one",
        }


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
