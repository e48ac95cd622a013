"""Arrays of bytes in gzipped idx files, as MNIST has them."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from gru_jax.errors import UsageError


def read_idx(path: Path) -> np.ndarray:
    """Read a gzipped idx file of bytes.

    Raises:
        UsageError: the file is not one, or is cut short.
    """
    try:
        content = gzip.decompress(path.read_bytes())
        zero, kind, rank = struct.unpack_from(">HBB", content)
        shape = struct.unpack_from(f">{rank}I", content, 4)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise UsageError(f"{path}: not a gzipped idx file ({error})") from error
    body = content[4 + 4 * rank :]
    if (zero, kind) != (0, 8) or len(body) != math.prod(shape):
        raise UsageError(f"{path}: not an idx file of bytes, or cut short")
    return np.frombuffer(body, np.uint8).reshape(shape)
