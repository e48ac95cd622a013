"""One process at a time in a directory."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from gru_jax.errors import ArgumentError

LOCK = "lock"
logger = logging.getLogger(__name__)


@contextlib.contextmanager
def lock_directory(directory: Path) -> Iterator[Callable[[], None]]:
    """Keep other processes out of a directory while this lasts.

    The kernel gives a lock back with its process, however that ends: what a dead process left behind is taken over.
    Where the file system knows no locks, that is said, and nobody is kept out.

    Args:
        directory: the directory, which is there.

    Yields:
        A check that raises `UsageError` where the directory has been moved, replaced or removed since.

    Raises:
        UsageError: another process is in it, which is named; or it cannot be written.
    """
    path = directory / LOCK
    with contextlib.ExitStack() as stack:
        try:
            descriptor = _lock_file(path)
            stack.callback(os.close, descriptor)
            stack.callback(_remove, descriptor, path)
            before = _holder(descriptor)
            os.ftruncate(descriptor, 0)
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()} since {since}\n".encode(), 0)
        except OSError as error:
            raise ArgumentError(f"workdir={directory}: cannot be written ({error.strerror})") from error
        if before:
            logger.warning("taking over from %s, which is gone", before)

        def check() -> None:
            if not _is_at(descriptor, path):
                raise ArgumentError(
                    f"workdir={directory}: no longer the directory that this process was working in; nothing more is "
                    "written, and the same command goes on where it is now"
                )

        yield check


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one that stands there."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except OSError:
        return False


def _remove(descriptor: int, path: Path) -> None:
    """Remove a lock, unless it is another's by now."""
    if _is_at(descriptor, path):
        path.unlink(missing_ok=True)


def _holder(descriptor: int) -> str:
    """What a lock says of who holds it, fit for a terminal."""
    text = os.pread(descriptor, 200, 0).decode(errors="replace")
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _lock_file(path: Path) -> int:
    """Open the file and lock it; its descriptor."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _holder(descriptor)
            os.close(descriptor)
            raise ArgumentError(
                f"workdir={path.parent}: in use by {holder or 'another process'}; allowed is one at a time"
            ) from error
        except OSError as error:
            logger.warning("%s: no locks here (%s): nothing keeps a second process out", path.parent, error.strerror)
            return descriptor
        # Its last holder may have removed it after it was opened here: then it keeps nobody out.
        if _is_at(descriptor, path):
            return descriptor
        os.close(descriptor)
