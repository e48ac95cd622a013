"""Text files."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from gru_jax.data.tables import csv_rows, open_table, read_text
from gru_jax.errors import UsageError, closest, listing


def load_text(path: Path) -> str:
    r"""The text of a file in UTF-8, whose lines end with "\n".

    Raises:
        UsageError: it is missing, empty, or in another encoding.

    Examples:
        >>> import pathlib, tempfile
        >>> from gru_jax.data.texts import load_text
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = pathlib.Path(folder.name, "a.txt")
        >>> _ = path.write_bytes("é\r\n".encode())
        >>> load_text(path)
        'é\n'
        >>> folder.cleanup()
    """
    return read_text(path).decode()


def split_text(text: str, fractions: Sequence[float]) -> list[str]:
    """A text cut into parts that have these fractions of its characters, what is left over going to the first.

    Examples:
        >>> from gru_jax.data.texts import split_text
        >>> split_text("abcdefghij", [0.8, 0.1, 0.1])
        ['abcdefgh', 'i', 'j']
    """
    sizes = [int(len(text) * fraction) for fraction in fractions[1:]]
    ends = [len(text) - sum(sizes[i:]) for i in range(len(sizes))] + [len(text)]
    return [text[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


class LabelledTexts(NamedTuple):
    """Texts with the label of each."""

    texts: list[str]
    labels: list[str]


def load_labelled_texts(path: Path, text: str, label: str, *, has_header: bool = True) -> LabelledTexts:
    r"""Two columns of a table: texts, and their labels.

    In `.tsv` and `.txt` files each line is a row whose fields tabs separate, whatever quotes it has; `.csv` files may
    quote fields; `.parquet` files have columns.

    Args:
        path: of the file.
        text: name of the column of texts.
        label: name of the column of labels.
        has_header: whether the first line has the names; else they are `column1` and so on.

    Raises:
        UsageError: it cannot be read, has no such column, or a row has another number of fields.

    Examples:
        >>> import pathlib, tempfile
        >>> from gru_jax.data.texts import load_labelled_texts
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = pathlib.Path(folder.name, "a.tsv")
        >>> _ = path.write_text('a "good" film\t1\nbad\t0\n')
        >>> load_labelled_texts(path, "column1", "column2", has_header=False).labels
        ['1', '0']
        >>> folder.cleanup()
    """
    if path.suffix == ".parquet":
        table = open_table(path)
        for name in (text, label):
            table.check_columns([name], "task.text or task.label")
        columns = [table.frame[name].cast(pl.String).fill_null("").to_list() for name in (text, label)]
        return LabelledTexts(*columns)
    if path.suffix not in (".tsv", ".txt", ".csv"):
        endings = (".tsv", ".txt", ".csv", ".parquet")
        raise UsageError(f"{path}: allowed are files that end in {listing(endings)}{closest(path.suffix, endings)}")
    lines = load_text(path).rstrip("\n").split("\n")
    rows = [line.split("\t") for line in lines]
    if path.suffix == ".csv":
        try:
            rows = list(csv_rows("\n".join(lines)))
        except csv.Error as error:
            raise UsageError(f"{path}: {error}") from error
    names = rows.pop(0) if has_header else [f"column{i + 1}" for i in range(len(rows[0]))]
    for name in (text, label):
        if name not in names:
            raise UsageError(f"{path}: {name!r} is no column of it; there are {listing(names)}{closest(name, names)}")
    for number, fields in enumerate(rows, start=1):
        if len(fields) != len(names):
            raise UsageError(f"{path}: row {number} has {len(fields)} fields; there are {len(names)} columns")
    columns = [[fields[names.index(name)] for fields in rows] for name in (text, label)]
    return LabelledTexts(*columns)
