"""Data files: found where the user keeps them, verified, or downloaded."""

from __future__ import annotations

import functools
import os
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from gru_jax.errors import UsageError
from gru_jax.runtime.files import FileStamp, sha256_of, stamp_of

DATA_VARIABLE = "GRU_JAX_DATA"
BLOCK = 1 << 20


class DataFile(NamedTuple):
    """A published file.

    Attributes:
        path: below the data directory, e.g. `"mnist/train-images-idx3-ubyte.gz"`.
        sha256: of its content.
        url: its public address.
    """

    path: str
    sha256: str
    url: str


def data_root(data_dir: str | None) -> Path:
    """Where data files are: `data_dir`, else `$GRU_JAX_DATA`, else `~/.cache/gru_jax`.

    Raises:
        UsageError: a directory was named that is none.
    """
    for source, value in (("task.data_dir", data_dir), (DATA_VARIABLE, os.environ.get(DATA_VARIABLE))):
        if value:
            root = Path(value).expanduser()
            if not root.is_dir():
                raise UsageError(f"{source}={value!r}: there is no such directory")
            return root
    return Path.home() / ".cache" / "gru_jax"


def files_by_name(data_dir: str | None, find: Callable[[], Iterable[Path]]) -> dict[str, Path]:
    """The files that `find` finds, by their names below the data directory; none where they cannot be found.

    A run knows what it needs of its files; where they are read, it is said that they are missing.
    """
    try:
        root, paths = data_root(data_dir), find()
    except UsageError:
        return {}
    return {path.relative_to(root).as_posix(): path for path in paths}


def locate(file: DataFile, data_dir: str | None) -> Path:
    """The verified path of a data file, downloaded if it is not there.

    Raises:
        UsageError: the file is damaged, or is missing and cannot be downloaded.
    """
    path = data_root(data_dir) / file.path
    if not path.exists():
        _download(file, path)
    try:
        digest = _digest(path, stamp_of(path))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    if digest != file.sha256:
        raise UsageError(
            f"{path}: damaged, its sha256 is {digest} and should be {file.sha256}; remove it, or get it from {file.url}"
        )
    return path


@functools.lru_cache(maxsize=64)
def _digest(path: Path, stamp: FileStamp) -> str:  # tasks ask for their files many times
    del stamp
    return sha256_of(path)


def _download(file: DataFile, path: Path) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(file.url, timeout=30) as source, part.open("wb") as sink:
            total = int(source.headers.get("Content-Length") or 0) or None
            with tqdm(total=total, unit="B", unit_scale=True, desc=path.name) as bar:
                while block := source.read(BLOCK):
                    sink.write(block)
                    bar.update(len(block))
        digest = sha256_of(part)
        if digest != file.sha256:
            raise UsageError(f"{file.url}: what came has sha256 {digest} and should have {file.sha256}")
        part.replace(path)
    except OSError as error:  # URLError is one
        reason = getattr(error, "reason", None) or error.strerror or error
        raise UsageError(f"{path}: missing, and {file.url} cannot be had ({reason}); put the file there") from error
    finally:
        part.unlink(missing_ok=True)
