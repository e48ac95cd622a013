"""Tables of columns with names: CSV and TSV, of which every line is looked at, and Parquet."""

from __future__ import annotations

import csv
import dataclasses
import functools
import gzip
import io
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from gru_jax.errors import UsageError, closest, in_one_line, listing
from gru_jax.runtime.files import FileStamp, stamp_of

SEPARATORS = (",", "\t", ";", "|")
MISSING_TEXTS = ("", "NA", "N/A", "na", "n/a", "NaN", "nan", "NAN", "null", "NULL", "None", "?", "-", "#N/A")
LONGEST_FIELD = 2**31 - 1
"""Characters of a field of CSV, of which Python allows 131,072 by itself."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """The columns of a file.

    Attributes:
        path: of the file.
        frame: its columns; of text files all are texts.
        first_line: the line of its first row, counted from 1; None where a file has no lines.
    """

    path: Path
    frame: pl.DataFrame
    first_line: int | None

    def place(self, row: int, column: str | None = None) -> str:
        """Where a cell is, for people."""
        where = f"row {row}" if self.first_line is None else f"line {row + self.first_line}"
        return f"{self.path}: {where}" + ("" if column is None else f", column {column!r}")

    def check_columns(self, names: Sequence[str], what: str) -> None:
        """Refuse names of columns that are not there."""
        for name in names:
            if name not in self.frame.columns:
                present = self.frame.columns
                raise UsageError(
                    f"{self.path}: {what} {name!r} is no column of it; there are {listing(present[:30])}"
                    f"{closest(name, present)}"
                )

    def has_values(self, name: str) -> bool:
        """Whether there is a column of this name of which not all cells are missing."""
        return name in self.frame.columns and not _absent(self.frame[name]).all()

    def is_text(self, name: str) -> bool:
        """Whether no cell of a column that is not missing is a number."""
        column = self.frame[name]
        return column.dtype == pl.String and _as_numbers(column).is_not_null().sum() == 0 and not _absent(column).all()

    def numbers(self, name: str) -> np.ndarray:
        """A column as floats, NaN where a cell is missing.

        Raises:
            UsageError: a cell is no number.
        """
        column = self.frame[name]
        if not (column.dtype == pl.String or column.dtype.is_numeric() or column.dtype == pl.Boolean):
            raise UsageError(f"{self.path}: column {name!r} holds {column.dtype}; allowed are numbers")
        numbers = _as_numbers(column)
        wrong = numbers.is_null() & ~_absent(column)
        if wrong.any():
            row = int(wrong.arg_max() or 0)
            raise UsageError(f"{self.place(row, name)}: {str(column[row])[:50]!r} is no number")
        return numbers.to_numpy().astype(np.float64)

    def texts(self, name: str) -> np.ndarray:
        """A column as texts, which are empty where a cell is missing."""
        column = self.frame[name]
        texts = column if column.dtype == pl.String else column.cast(pl.String, strict=False)
        return texts.fill_null("").str.strip_chars().to_numpy().astype(np.str_)


def _as_numbers(column: pl.Series) -> pl.Series:
    if column.dtype == pl.String:
        column = column.str.strip_chars()
    return column.cast(pl.Float64, strict=False).fill_nan(None)


def _absent(column: pl.Series) -> pl.Series:
    if column.dtype == pl.String:
        return column.is_null() | column.str.strip_chars().is_in(MISSING_TEXTS)
    return column.is_null() | column.cast(pl.Float64, strict=False).is_nan().fill_null(False)


def open_table(path: Path, *, has_header: bool = True, splits_at_blanks: bool = False) -> Table:
    r"""The table of a `.csv`, `.tsv`, `.txt` or `.parquet` file. What separates fields is seen in the first line.

    Args:
        path: of the file.
        has_header: whether the first line has the names of the columns; else they are `column1` and so on.
        splits_at_blanks: whether blanks separate fields where the first line has nothing else that does.

    Raises:
        UsageError: it cannot be read, a line has more or fewer fields than the first, or two columns have one name.

    Examples:
        >>> import pathlib, tempfile
        >>> from gru_jax.data.tables import open_table
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = pathlib.Path(folder.name, "a.csv")
        >>> _ = path.write_text("a;b\n1;NA\n")
        >>> open_table(path).numbers("b").tolist()
        [nan]
        >>> folder.cleanup()
    """
    try:
        stamp = stamp_of(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    if path.suffix == ".parquet":
        return _read_parquet(path, stamp)
    return _read_text_table(path, has_header, splits_at_blanks, stamp)


@functools.lru_cache(maxsize=4)
def _read_parquet(path: Path, stamp: FileStamp) -> Table:
    del stamp
    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UsageError(f"{path}: cannot be read as Parquet ({in_one_line(error)[:100]})") from error
    if not frame.height:
        raise UsageError(f"{path}: has no rows")
    # Texts that are stored as numbers of a list, such as a category of pandas.
    coded = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.Categorical | pl.Enum)]
    return Table(path, frame.with_columns(pl.col(coded).cast(pl.String)), None)


@functools.lru_cache(maxsize=4)
def _read_text_table(
    path: Path, has_header: bool, splits_at_blanks: bool, stamp: FileStamp
) -> Table:  # splits are parts of one file
    del stamp
    content = read_text(path)
    if splits_at_blanks and not any(separator.encode() in content.partition(b"\n")[0] for separator in SEPARATORS):
        content = b"\n".join(b"\t".join(line.split()) for line in content.split(b"\n"))
    header, _, body = content.partition(b"\n")
    first = header.decode()
    counts = {separator: first.count(separator) for separator in SEPARATORS}
    separator = max(counts, key=lambda name: counts[name])
    fields = next(csv.reader([first], delimiter=separator))
    names = _names(path, fields) if has_header else [f"column{i + 1}" for i in range(len(fields))]
    rows = body if has_header else content
    if not rows.strip():
        raise UsageError(f"{path}: has no rows")
    count = _check_fields(path, rows, separator, len(names), 1 + has_header)
    try:
        frame = pl.read_csv(
            io.BytesIO(rows),
            has_header=False,
            separator=separator,
            new_columns=names,
            infer_schema=False,
        )
    except pl.exceptions.PolarsError as error:
        raise UsageError(f"{path}: cannot be read ({in_one_line(error)[:100]})") from error
    if frame.height != count:
        raise UsageError(f"{path}: {count} rows, of which {frame.height} can be read; is a quote left open?")
    return Table(path, frame, 1 + has_header)


def read_text(path: Path) -> bytes:
    r"""The content of a file in UTF-8, with `\n` at the ends of its lines; that of a `.gz` file unpacked."""
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or in_one_line(error)
        raise UsageError(f"{path}: cannot be read ({reason})") from error
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        try:
            content = content.decode("utf-16").encode()
        except UnicodeError as error:
            raise UsageError(f"{path}: begins like UTF-16 and is none ({error})") from error
    content = content.removeprefix(BYTE_ORDER_MARK)
    if b"\r" in content:
        content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if not content.strip():
        raise UsageError(f"{path}: is empty")
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UsageError(f"{path}: line {line}: holds bytes that are no text in UTF-8") from error
    if b"\0" in content:
        line = content[: content.index(b"\0")].count(b"\n") + 1
        raise UsageError(f"{path}: line {line}: holds a byte of 0, which is no text")
    return content.rstrip(b"\n") + b"\n"


def _names(path: Path, fields: Sequence[str]) -> list[str]:
    """The names of columns in a first line."""
    names = [field.strip() or f"column{i + 1}" for i, field in enumerate(fields)]
    twice = [name for i, name in enumerate(names) if name in names[:i]]
    if twice:
        raise UsageError(f"{path}: line 1: two columns are called {twice[0]!r}")
    if all(_is_number(name) for name in names):
        raise UsageError(f"{path}: line 1: holds numbers and no names of columns; task.header=false reads it as a row")
    return names


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def csv_rows(text: str, separator: str = ",") -> Any:
    """A reader of the rows of a text of CSV, which raises `csv.Error`; of fields of any length."""
    csv.field_size_limit(LONGEST_FIELD)
    return csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)


def _check_fields(path: Path, rows: bytes, separator: str, count: int, first_line: int) -> int:
    """How many rows there are, none of which has more or fewer fields than there are columns, as polars would take."""
    needed = f"there are {count} columns, separated by {separator!r}"
    if b'"' in rows:
        reader, number = csv_rows(rows.decode(), separator), 0
        try:
            for number, fields in enumerate(reader, 1):  # noqa: B007
                if len(fields) != count:
                    line = first_line + reader.line_num - 1
                    raise UsageError(f"{path}: line {line}: has {len(fields)} fields; {needed}")
        except csv.Error as error:
            raise UsageError(f"{path}: line {first_line + reader.line_num - 1}: {error}") from error
        return number
    content = np.frombuffer(rows, np.uint8)
    ends = np.flatnonzero(content == ord("\n"))
    separators = np.flatnonzero(content == ord(separator))
    fields = np.diff(np.searchsorted(separators, ends), prepend=0) + 1
    wrong = np.flatnonzero(fields != count)
    if wrong.size:
        raise UsageError(f"{path}: line {first_line + wrong[0]}: has {fields[wrong[0]]} fields; {needed}")
    return len(ends)
