"""Arrays in `.npy` files, row by row: also those that are larger than memory."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gru_jax.errors import UsageError
from gru_jax.runtime.files import FileStamp, stamp_of

NUMBERS = "numbers, real ones of up to 64 bits"
DENSE = 4  # rows that are read at once for each that is needed
BLOCK_BYTES = 2**24


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """The rows of an array in a file. Reading needs memory for what is read alone, and may go on in many threads.

    Attributes:
        path: the file.
        dtype: of its numbers, in its order of bytes.
        shape: `[N, ...]`.
        offset: of its first byte in the file.
        order: which rows of the file these are, if not all in their order.
        as_type: the type in which they are read, if not the file's in the machine's order of bytes.
    """

    path: Path
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    order: np.ndarray | None = None
    as_type: np.dtype[Any] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return math.prod(self.shape) * self.dtype.itemsize

    def take(self, index: np.ndarray) -> np.ndarray:
        """The rows with these indices, in memory."""
        index = index if self.order is None else self.order[index]
        first, count = (int(index.min()), int(np.ptp(index)) + 1) if len(index) else (0, 0)
        if count <= DENSE * len(index):  # one read of some rows more is quicker than many
            return self._read(first, count)[index - first]
        return np.concatenate([self._read(int(i), 1) for i in index])

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """All rows in memory, block after block: the number of the first, and the rows."""
        count = max(1, BLOCK_BYTES // max(1, self.nbytes // max(1, len(self))))
        for first in range(0, len(self), count):
            last = min(len(self), first + count)
            yield first, self._read(first, last - first) if self.order is None else self.take(np.arange(first, last))

    def place(self, row: int, *where: int) -> str:
        """Where a number is, for people: the file, the row in it, and a step and a feature if it has them."""
        row = row if self.order is None else int(self.order[row])
        names = (f", {name} {index}" for name, index in zip(("step", "feature"), where, strict=False))
        return f"{self.path}: row {row}{''.join(names)}"

    def __len__(self) -> int:
        return self.shape[0]

    def all(self) -> np.ndarray:
        """All rows, in memory."""
        if self.order is None:
            return self._read(0, len(self))
        return self.take(np.arange(len(self)))

    def ordered(self, order: np.ndarray) -> Rows:
        """These rows of it alone, in this order."""
        order = order if self.order is None else self.order[order]
        return dataclasses.replace(self, shape=(len(order), *self.shape[1:]), order=order)

    def _read(self, first: int, count: int) -> np.ndarray:
        size = math.prod(self.shape[1:])
        start = self.offset + first * size * self.dtype.itemsize
        try:
            numbers = np.fromfile(self.path, self.dtype, count * size, offset=start)
        except OSError as error:
            raise UsageError(f"{self.path}: cannot be read ({error.strerror or error})") from error
        if len(numbers) != count * size:
            raise UsageError(f"{self.path}: cut short while it is read")
        as_type = self.dtype.newbyteorder("=") if self.as_type is None else self.as_type
        return numbers.reshape(count, *self.shape[1:]).astype(as_type, copy=False)


def open_rows(path: Path) -> Rows:
    """The rows of a `.npy` file; its header alone is read.

    Raises:
        UsageError: there is none, or it is damaged, holds what are no numbers of JAX, or is in Fortran's order.
    """
    try:
        stamp = stamp_of(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    return _open(path, stamp)


@functools.lru_cache(maxsize=64)
def _open(path: Path, stamp: FileStamp) -> Rows:
    try:
        with path.open("rb") as stream:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(stream)
            offset = stream.tell()
    except Exception as error:  # NumPy evaluates the header as Python, where damage can raise anything
        raise UsageError(f"{path}: not a .npy file ({' '.join(str(error).split())[:100]})") from error
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise UsageError(f"{path}: holds {dtype}; allowed are {NUMBERS}")
    if fortran and len(shape) > 1:
        raise UsageError(f"{path}: its rows are not together (Fortran's order); numpy.ascontiguousarray puts them so")
    if not shape or min(shape) < 1:
        raise UsageError(f"{path}: of shape {list(shape)}; needed is [N, ...] with one row or more")
    rows = Rows(path, dtype, shape, offset)
    if stamp.size != offset + rows.nbytes:
        raise UsageError(f"{path}: damaged, it has {stamp.size:,} bytes and should have {offset + rows.nbytes:,}")
    return rows


@dataclasses.dataclass(frozen=True, eq=False)
class MemoryRows(Rows):
    """Rows of an array that is in memory.

    Attributes:
        array: all of them, `[N, ...]`.
        places: says where a row, a step and a feature of it came from; None for their numbers.
    """

    array: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    places: Callable[..., str] | None = None

    @classmethod
    def of_array(cls, path: Path, array: np.ndarray, places: Callable[..., str] | None = None) -> MemoryRows:
        """The rows of an array that was read from this file."""
        return cls(path, array.dtype, array.shape, 0, array=array, places=places)

    def place(self, row: int, *where: int) -> str:
        if self.places is None:
            return super().place(row, *where)
        return self.places(row if self.order is None else int(self.order[row]), *where)

    def _read(self, first: int, count: int) -> np.ndarray:
        rows = self.array[first : first + count]
        return rows if self.as_type is None else rows.astype(self.as_type, copy=False)
