"""What tells that data are others than before: their content, whenever and wherever it was written."""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path

from gru_jax.errors import UsageError
from gru_jax.runtime.files import FileStamp, sha256_of, stamp_of

WHOLE_BYTES = 64 * 2**20
"""Files of up to this size are read whole."""
SAMPLES, SAMPLE_BYTES = 1024, 16 * 2**10
"""Of larger ones so many pieces are read, of this size, evenly spread from the first byte to the last."""
DIGITS = 32


def fingerprint_of_file(path: Path) -> str:
    """A short text that follows from the content of a file: `sha256:…` of all of it, or `sampled:…` of a large one.

    The latter is the sha256 of the size and of 1,024 pieces of 16 KiB, 16 MiB in all. It tells other sizes and orders
    of rows and another scale, but not one changed number between two pieces.

    Raises:
        UsageError: it cannot be read.

    Examples:
        >>> import pathlib, tempfile
        >>> from gru_jax.data.fingerprint import fingerprint_of_file
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = pathlib.Path(folder.name, "a.csv")
        >>> _ = path.write_text("x,y")
        >>> fingerprint_of_file(path)
        'sha256:968e772cf168b7f17f3fbd00e6e1c8b4'
        >>> folder.cleanup()
    """
    try:
        return _fingerprint(path, stamp_of(path))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error


@functools.lru_cache(maxsize=2**16)
def _fingerprint(path: Path, stamp: FileStamp) -> str:  # asked for many times in a run
    if stamp.size <= WHOLE_BYTES:
        return f"sha256:{sha256_of(path)[:DIGITS]}"
    digest = hashlib.sha256(str(stamp.size).encode())
    with path.open("rb", buffering=0) as stream:
        for piece in range(SAMPLES):
            digest.update(os.pread(stream.fileno(), SAMPLE_BYTES, (stamp.size - SAMPLE_BYTES) * piece // (SAMPLES - 1)))
    return f"sampled:{digest.hexdigest()[:DIGITS]}"
