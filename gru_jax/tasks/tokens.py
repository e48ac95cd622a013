"""What tasks of texts share: tokens side by side, how often each occurs, and tables that texts stand in."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from gru_jax.data.arrays import LENGTHS, XS
from gru_jax.data.files import data_root, files_by_name
from gru_jax.data.formats import files_of_splits, matching_files
from gru_jax.settings import setting
from gru_jax.tasks.base import SPLITS, FromFiles

LARGEST_EXPONENT = 700.0  # beyond it a perplexity is no number of 64 bits


def stacked_tokens(rows: Sequence[np.ndarray], longest: int) -> dict[str, np.ndarray]:
    """Tokens of sequences as arrays: `xs`, filled up to so many, and `lengths`."""
    xs = np.zeros((len(rows), longest), np.int32)
    for filled, row in zip(xs, rows, strict=True):
        filled[: len(row)] = row
    return {XS: xs, LENGTHS: np.array([len(row) for row in rows], np.int32)}


def shares_in_training(numbers: Int[np.ndarray, " N"], count: int) -> Float[np.ndarray, " count"]:
    """The share of each of so many tokens or classes in training, each counted once more."""
    counts = np.bincount(numbers, minlength=count) + 1.0
    return counts / counts.sum()


def perplexity(loss: float) -> float:
    """The exponential of a loss in nats a token."""
    return math.exp(min(loss, LARGEST_EXPONENT))


@dataclasses.dataclass(frozen=True)
class TextTables(FromFiles):
    """A task whose texts stand in columns of tables, a table or more for each split.

    Attributes:
        train, valid, test: files below the data directory, or patterns of many: `.tsv`, `.txt`, `.csv`, `.parquet`.
        header: whether the first line has the names of the columns; without they are column1, column2, ….

    Examples:
        >>> from gru_jax.tasks import TextTable  # one of its subclasses
        >>> TextTable.train, TextTable.header
        ('train.tsv', True)
    """

    train: str = setting("train.tsv", kw_only=True)
    valid: str = setting("valid.tsv", kw_only=True)
    test: str = setting("test.tsv", kw_only=True)
    header: bool = setting(True, kw_only=True)

    def tables(self, split: str) -> list[Path]:
        """The files of a split."""
        return matching_files(data_root(self.data_dir), getattr(self, split))

    def text_files(self) -> Sequence[Path]:
        """The files that are read, of all splits."""
        files = files_of_splits(data_root(self.data_dir), {split: getattr(self, split) for split in SPLITS})
        return [path for paths in files.values() for path in paths]

    def data_files(self) -> Mapping[str, Path]:
        return files_by_name(self.data_dir, self.text_files)
