"""Run directories on a machine that may go away, with copies in a place that stays: a runtime and a drive."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import shutil
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from gru_jax.errors import UsageError, in_one_line
from gru_jax.runtime.locks import LOCK

PREVIOUS = ".previous"


class Storage:
    """Directories under `local`, each with a copy under `remote`: one archive, which is whole or not there.

    A drive that is mounted is slow, uploads in the background, file by file, and may miss the end. So a directory goes
    there as one zip archive, written under another name and renamed when it is whole. The last sound archive before it
    is kept besides, and used if the newer one turns out damaged: every file has a checksum, and so has their list.

    Args:
        local: where directories are worked in.
        remote: where their archives go.
        seconds: between two copies of a directory that is worked in.
        on_message: what is told of fetched, damaged and missed copies.

    Raises:
        UsageError: a place cannot be used, a name is not that of one directory, or there are archives and all are
            damaged.

    Examples:
        >>> import pathlib, shutil, tempfile
        >>> from gru_jax.runtime.storage import Storage
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> storage = Storage(folder / "runs", folder / "drive", on_message=print)
        >>> with storage.kept("a") as run:
        ...     run.mkdir()
        ...     _ = (run / "summary.json").write_text("{}")
        >>> shutil.rmtree(run)  # the machine is gone
        >>> with storage.kept("a") as run:
        ...     print((run / "summary.json").read_text())
        fetched a
        {}
    """

    def __init__(
        self, local: Path, remote: Path, seconds: float = 60.0, on_message: Callable[[str], None] = lambda text: None
    ) -> None:
        self.local, self.remote, self.seconds, self.on_message = Path(local), Path(remote), seconds, on_message
        for place in (self.local, self.remote):
            try:
                place.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UsageError(f"{place}: cannot be used as a directory ({error.strerror})") from error

    @contextlib.contextmanager
    def kept(self, name: str) -> Iterator[Path]:
        """A directory that is fetched at the start, and saved every so often and at the end, whatever that is."""
        self.fetch(name)
        ended = threading.Event()
        saving = threading.Thread(target=self._save_regularly, args=(name, ended), daemon=True)
        saving.start()
        try:
            yield self.local / name
        finally:
            ended.set()
            saving.join()
            if _files_of(self.local / name):
                self.save(name)

    def save(self, name: str) -> None:
        """Put a copy of a directory into the storage.

        Raises:
            UsageError: there is no such directory, or no file in it.
        """
        directory, (whole, previous) = self._directory(name), self._archives(name)
        part = self.remote / f"{name}.part"
        with tempfile.TemporaryDirectory() as folder:
            _pack(directory, Path(folder) / "packed")
            shutil.copyfile(Path(folder) / "packed", part)
        if whole.exists() and self._is_sound(_check, whole, "replaced"):
            whole.replace(previous)
        part.replace(whole)

    def fetch(self, name: str) -> None:
        """Bring a directory back from the storage, unless it is here.

        Raises:
            UsageError: every archive of it is damaged.
        """
        directory = self._directory(name)
        archives = [archive for archive in self._archives(name) if archive.exists()]
        if directory.exists() or not archives:
            return
        for archive in archives:
            with tempfile.TemporaryDirectory(dir=self.local) as folder:
                unpacked = Path(folder) / name
                unpacked.mkdir()
                if self._is_sound(functools.partial(_unpack, folder=unpacked), archive, "not used"):
                    unpacked.rename(directory)
                    is_newest = archive == self._archives(name)[0]
                    self.on_message(f"fetched {name}" + ("" if is_newest else " from the archive before"))
                    return
        raise UsageError(f"{archives[0]}: damaged, and no sound archive before it; move it away to begin {name} anew")

    def _directory(self, name: str) -> Path:
        """The directory of a name, which must not lead elsewhere or to the archives of another."""
        leads_away = name in ("", ".", "..") or any(sign in name for sign in "/\\\0")
        if leads_away or name.endswith(PREVIOUS):
            raise UsageError(
                f"name={name!r}: allowed is that of one directory, without / and \\, not ending in {PREVIOUS}"
            )
        directory = self.local / name
        if self.remote.resolve().is_relative_to(directory.resolve()):
            raise UsageError(f"name={name!r}: {directory} holds the archives themselves; another name is needed")
        return directory

    def _archives(self, name: str) -> tuple[Path, Path]:
        """The newest archive of a directory and the one before it."""
        return self.remote / f"{name}.zip", self.remote / f"{name}{PREVIOUS}.zip"

    def _is_sound(self, read: Callable[[Path], None], archive: Path, otherwise: str) -> bool:
        """Whether an archive can be read to its end; otherwise a message says so, and what becomes of it."""
        try:
            read(archive)
        except Exception as error:  # damaged bytes make zipfile raise anything, zlib.error and RuntimeError among it
            self.on_message(f"{archive} is damaged ({in_one_line(error)}) and {otherwise}")
            return False
        return True

    def _save_regularly(self, name: str, ended: threading.Event) -> None:
        while not ended.wait(self.seconds):
            try:
                if _files_of(self.local / name):
                    self.save(name)
            except Exception as error:  # whatever it was, the copies must not end with it
                self.on_message(f"{name} could not be saved ({error}); work goes on, and it is tried again")


def _files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != LOCK)


def _pack(folder: Path, archive: Path) -> None:
    """Put a directory into an archive while it may be in training: again, if files came or went meanwhile."""
    while True:
        with contextlib.suppress(FileNotFoundError):
            files = _files_of(folder)
            if not files:
                raise UsageError(f"{folder}: " + ("no file in it" if folder.is_dir() else "no such directory"))
            with zipfile.ZipFile(archive, "w") as packed:
                for file in files:
                    packed.writestr(file.relative_to(folder).as_posix(), file.read_bytes())
                packed.comment = _digest(packed)
            if files == _files_of(folder):
                return


def _digest(packed: zipfile.ZipFile) -> bytes:
    """A checksum of what an archive holds, by the names and checksums of its files."""
    entries = [(entry.filename, entry.file_size, entry.CRC) for entry in packed.infolist()]
    return hashlib.sha256(repr(entries).encode()).hexdigest().encode()


def _check_list(packed: zipfile.ZipFile) -> None:
    """Refuse an archive of nothing, or whose list of files has changed, of which zip itself has no checksum."""
    if not packed.infolist():
        raise zipfile.BadZipFile("no file in it")
    if packed.comment and packed.comment != _digest(packed):  # earlier archives have none
        raise zipfile.BadZipFile("its list of files is not that which was written")


def _check(archive: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        _check_list(packed)
        if (name := packed.testzip()) is not None:
            raise zipfile.BadZipFile(f"Bad CRC-32 for file {name!r}")


def _unpack(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        _check_list(packed)
        packed.extractall(folder)
