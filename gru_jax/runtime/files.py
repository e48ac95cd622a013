"""Files that are whole or not there, in directories that nothing leads out of."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gru_jax.errors import UsageError

Json = dict[str, Any]
"""What a JSON object holds, by its keys."""


def refuse_links(directory: Path) -> None:
    """Refuse a directory with symbolic links in it, which would lead what is written there elsewhere.

    Raises:
        UsageError: it has one.
    """
    if not directory.is_dir():
        return
    try:
        links = sorted(entry.path for entry in os.scandir(directory) if entry.is_symlink())
    except OSError as error:
        raise UsageError(f"{directory}: cannot be read ({error.strerror})") from error
    if links:
        raise UsageError(f"{links[0]}: a symbolic link, which could lead anywhere; allowed are files and directories")


class FileStamp(NamedTuple):
    """What tells that a file is another than before, without reading it, for as long as a process runs.

    Size and time of change stay when a tool sets the time; the place of the file and its own record of changes do not.
    """

    size: int
    changed: int
    place: tuple[int, int]
    recorded: int


def stamp_of(path: Path) -> FileStamp:
    """The stamp of a file.

    Raises:
        OSError: it cannot be looked at.
    """
    status = path.stat()
    return FileStamp(status.st_size, status.st_mtime_ns, (status.st_dev, status.st_ino), status.st_ctime_ns)


def sha256_of(path: Path) -> str:
    """The sha256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_json(path: Path) -> Json:
    """Read a JSON file.

    Raises:
        UsageError: it is not one.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: damaged, not JSON ({error})") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path}: damaged, not a JSON object")
    return content


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write a JSON file, whole or not at all."""
    replace_file(path, (json.dumps(content, indent=2) + "\n").encode())


def replace_file(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all.

    Raises:
        UsageError: it cannot be written.
    """
    part = path.with_name(path.name + ".tmp")
    with naming_file(path):
        try:
            part.unlink(missing_ok=True)
            with part.open("xb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Turn errors of the system, which do not name the file that is written, into one line that does."""
    try:
        yield
    except OSError as error:  # a full disk, above all
        raise UsageError(
            f"{path}: cannot be written ({error.strerror or error}); the same command goes on from the last checkpoint"
        ) from error
