"""A recording in a table: columns of numbers, a row for each step of time."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gru_jax.data.checks import Missing, check_finite
from gru_jax.data.tables import Table, open_table
from gru_jax.data.times import Gaps, TimeStep, find_step, read_times, steps_from_first
from gru_jax.errors import UsageError, listing
from gru_jax.runtime.files import FileStamp, stamp_of


@dataclasses.dataclass(frozen=True)
class SeriesOptions:
    """What the columns of a recording are.

    Attributes:
        time: the columns of its times; none where rows have none.
        gaps: what is done where times go on by more than a step.
        header: whether the first line has the names of the columns.
        rows: how many are used, from the first; None for all.
    """

    time: tuple[str, ...] = ()
    gaps: Gaps = "error"
    header: bool = True
    rows: int | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Series:
    """A recording.

    Attributes:
        columns: their names.
        values: `[N, F]`, NaN where one is missing.
        times: of the rows, `[N]`; None without.
        step: of time; None without.
        lines: rows of the file, `[N]`; -1 where one was put between.
        table: of the file.
    """

    columns: tuple[str, ...]
    values: np.ndarray
    times: np.ndarray | None
    step: TimeStep | None
    lines: np.ndarray
    table: Table

    def __len__(self) -> int:
        return len(self.values)

    def place(self, row: int, column: int | None = None) -> str:
        """Where a value is, for people."""
        line, name = int(self.lines[row]), None if column is None else self.columns[column]
        if line >= 0:
            return self.table.place(line, name)
        before = int(self.lines[:row].max())
        return f"{self.table.place(before)}: the step after it, which the file has not"

    def check_finite(self, missing: Missing) -> int:
        """Refuse numbers that are not finite, and count those that are missing, where they may be.

        Raises:
            UsageError: there is one.
        """
        return check_finite(
            [(0, self.values[:, None])], None, lambda row, step, column: self.place(row, column), missing
        )


def number_columns(path: Path, options: SeriesOptions) -> tuple[str, ...]:
    """The columns of a file that hold numbers and no times."""
    table = open_table(path, has_header=options.header)
    return tuple(name for name in table.frame.columns if name not in options.time and not table.is_text(name))


def read_series(path: Path, columns: Sequence[str], options: SeriesOptions) -> Series:
    r"""A recording in a table.

    Args:
        path: of the file.
        columns: that are read.
        options: what they are.

    Raises:
        UsageError: the file cannot be read, a column is missing, a cell is no number or no time, or times do not
            ascend by one step.

    Examples:
        >>> import pathlib, tempfile
        >>> from gru_jax.data.series import SeriesOptions, read_series
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = pathlib.Path(folder.name, "a.csv")
        >>> _ = path.write_text("day,x\n1981-01-01,1\n1981-01-02,2\n1981-01-04,4\n")
        >>> series = read_series(path, ["x"], SeriesOptions(("day",), gaps="fill"))
        >>> series.values[:, 0].tolist(), str(series.step)
        ([1.0, 2.0, nan, 4.0], '1 day')
        >>> folder.cleanup()
    """
    try:
        stamp = stamp_of(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    return _read(path, tuple(columns), options, stamp)


@functools.lru_cache(maxsize=4)
def _read(path: Path, columns: tuple[str, ...], options: SeriesOptions, stamp: FileStamp) -> Series:
    del stamp
    table = open_table(path, has_header=options.header)
    table.check_columns(columns, "column")
    texts = [name for name in columns if table.is_text(name)]
    if texts:
        numbers = [name for name in number_columns(path, options) if name in table.frame.columns]
        raise UsageError(f"{path}: column {texts[0]!r} holds texts; columns of numbers are {listing(numbers[:30])}")
    values = np.stack([table.numbers(name) for name in columns], axis=1)
    times, step, lines = None, None, np.arange(len(values))
    if options.time:
        times = read_times(table, options.time)
        step = find_step(times, table)
        numbers = steps_from_first(times, step, options.gaps, table)
        count = int(numbers[-1]) + 1
        if count > 100 * len(times):
            raise UsageError(f"{path}: {len(times)} rows of {count:,} steps of {step}; is the step of time another?")
        filled, lines = np.full((count, len(columns)), np.nan), np.full(count, -1)
        filled[numbers], lines[numbers] = values, np.arange(len(values))
        values = filled
        if options.gaps == "fill":
            times = step.after(times[0], np.arange(count))
    part = slice(None, options.rows)
    if options.rows is not None and options.rows > len(values):
        raise UsageError(f"first_rows={options.rows}: {path} has {len(values)}")
    return Series(columns, values[part], None if times is None else times[part], step, lines[part], table)
