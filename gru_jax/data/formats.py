"""Which reader a file is for. A format is a file of this folder, and a line in `READERS`."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from gru_jax.data.columns import TableOptions, read_columns
from gru_jax.data.loaded import LoadedSequences
from gru_jax.data.npz import read_npz
from gru_jax.data.ts import read_ts
from gru_jax.data.ucr import read_ucr
from gru_jax.errors import UsageError, closest, listing

Format = Literal["auto", "table", "ucr", "ts", "npz"]
READERS: Mapping[str, Callable[[Path, TableOptions], LoadedSequences]] = {
    "table": read_columns,
    "ucr": read_ucr,
    "ts": read_ts,
    "npz": read_npz,
}
ENDINGS = {".csv": "table", ".tsv": "table", ".txt": "table", ".parquet": "table", ".ts": "ts", ".npz": "npz"}
_UCR = re.compile(r".*_(TRAIN|TEST)\.(tsv|txt)$")


def format_of(path: Path, wanted: Format = "auto") -> str:
    """The name of the reader of a file.

    Raises:
        UsageError: there is none.

    Examples:
        >>> from pathlib import Path
        >>> from gru_jax.data.formats import format_of
        >>> [format_of(Path(name)) for name in ("Rock_TRAIN.tsv", "rows.tsv", "Motions.ts")]
        ['ucr', 'table', 'ts']
    """
    if wanted != "auto":
        return wanted
    if _UCR.match(path.name):
        return "ucr"
    if path.suffix not in ENDINGS:
        raise UsageError(
            f"{path}: of no known format; allowed are files that end in {listing(ENDINGS)}"
            f"{closest(path.suffix, ENDINGS)}, or a task.format"
        )
    return ENDINGS[path.suffix]


def files_of_splits(root: Path, patterns: Mapping[str, str | None]) -> dict[str, list[Path]]:
    """The files below a folder by split, of those that have a path or a pattern.

    Args:
        root: the folder.
        patterns: by split, that of training first; None where a split has no files.

    Raises:
        UsageError: there are none, or one of another split is trained on too, where these are not one path.
    """
    files = {split: matching_files(root, pattern) for split, pattern in patterns.items() if pattern is not None}
    first, *others = files
    trained_on = {path.resolve() for path in files[first]}
    for split in (split for split in others if patterns[split] != patterns[first]):
        for path in files[split]:
            if path.resolve() in trained_on:
                raise UsageError(
                    f"{first}={patterns[first]}: takes {path} in, a file of {split}; needed are files that nothing but "
                    "training reads"
                )
    return files


def matching_files(root: Path, pattern: str) -> list[Path]:
    """The files below a folder that a path or a pattern such as `train/*.csv` stands for, in the order of their names.

    Raises:
        UsageError: there are none.
    """
    if pattern.startswith(("/", "~")) or ".." in Path(pattern).parts:
        raise UsageError(f"{pattern!r}: allowed are files below the data directory, task.data_dir")
    path = root / pattern
    if path.is_file():
        return [path]
    if path.is_dir():
        raise UsageError(f"{path}: a directory; allowed is a file, or a pattern such as {pattern}/*.csv")
    names = glob.glob(str(Path(glob.escape(str(root)), pattern)), recursive=True)
    paths = sorted(Path(name) for name in names if Path(name).is_file())
    if not paths:
        present = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
        hint = f"; there are {listing(present[:20])}{closest(path.name, present)}" if present else ""
        raise UsageError(f"{path}: no such file{hint}")
    return paths
