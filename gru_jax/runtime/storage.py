"""Run directories on a machine that may go away, with copies in a place that stays: a runtime and a drive."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from gru_jax.runtime.locks import LOCK


class Storage:
    """Directories under `local`, each with a copy under `remote`: one archive, which is whole or not there.

    A drive that is mounted is slow, uploads in the background, file by file, and may miss the end. So a directory goes
    there as one zip archive, written under another name and renamed when it is whole. The archive before it is kept
    until then, and used if the newer one turns out damaged: every file in it has a checksum.

    Args:
        local: where directories are worked in.
        remote: where their archives go.
        seconds: between two copies of a directory that is worked in.
        on_message: what is told of fetched, damaged and missed copies.

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
        self.local.mkdir(parents=True, exist_ok=True)
        self.remote.mkdir(parents=True, exist_ok=True)

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
            if (self.local / name).exists():
                self.save(name)

    def save(self, name: str) -> None:
        """Put a copy of a directory into the storage."""
        whole, previous, part = (self.remote / f"{name}.{end}" for end in ("zip", "previous.zip", "part"))
        with tempfile.TemporaryDirectory() as folder:
            _pack(self.local / name, Path(folder) / "packed")
            shutil.copyfile(Path(folder) / "packed", part)
        if whole.exists():
            whole.replace(previous)
        part.replace(whole)

    def fetch(self, name: str) -> None:
        """Bring a directory back from the storage, unless it is here."""
        for archive in (self.remote / f"{name}.zip", self.remote / f"{name}.previous.zip"):
            if (self.local / name).exists() or not archive.exists():
                continue
            with tempfile.TemporaryDirectory(dir=self.local) as folder:
                unpacked = Path(folder) / name
                unpacked.mkdir()
                try:
                    with zipfile.ZipFile(archive) as packed:
                        packed.extractall(unpacked)
                except (zipfile.BadZipFile, EOFError) as error:
                    self.on_message(f"{archive} is damaged ({error}) and not used")
                else:
                    unpacked.rename(self.local / name)
                    self.on_message(f"fetched {name}")

    def _save_regularly(self, name: str, ended: threading.Event) -> None:
        while not ended.wait(self.seconds):
            try:
                if (self.local / name).exists():
                    self.save(name)
            except OSError as error:
                self.on_message(f"{name} could not be saved ({error}); work goes on, and it is tried again")


def _files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != LOCK)


def _pack(folder: Path, archive: Path) -> None:
    """Put a directory into an archive while it may be in training: again, if files came or went meanwhile."""
    while True:
        with contextlib.suppress(FileNotFoundError):
            files = _files_of(folder)
            with zipfile.ZipFile(archive, "w") as packed:
                for file in files:
                    packed.writestr(file.relative_to(folder).as_posix(), file.read_bytes())
            if files == _files_of(folder):
                return
