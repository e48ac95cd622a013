"""The text files of the UCR archive: a sequence a line, its class first."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gru_jax.data.checks import as_float32
from gru_jax.data.columns import TableOptions, class_texts, without_padding
from gru_jax.data.loaded import LoadedSequences, are_whole_numbers
from gru_jax.data.tables import open_table
from gru_jax.errors import UsageError

UNKNOWN = ("?", "nan", "na", "")
"""In place of a class that is a text, in lower case; one that is a number is missing as in any table."""


def read_ucr(path: Path, options: TableOptions) -> LoadedSequences:
    """The sequences of a file such as `Rock_TRAIN.tsv`; H. A. Dau et al. 2018, arXiv:1810.07758.

    Values that are NaN at the end of a line are padding. A class of `?`, NaN, NA or nothing is not known.

    Args:
        path: of the file.
        options: whether targets are classes or numbers.

    Raises:
        UsageError: a line has another number of fields, a field is no number, or a class is not known, unless none is
            or the sequences are new.
    """
    table = open_table(path, has_header=False, splits_at_blanks=True)
    first, *names = table.frame.columns
    if not names:
        raise UsageError(f"{path}: has one column; needed are a class and the values of a sequence in each line")
    values = as_float32(np.stack([table.numbers(name) for name in names], axis=1)[..., None])
    values, lengths = without_padding(values)
    targets = table.texts(first)
    is_number, numbers = options.kind == "numbers", None
    if is_number or not table.is_text(first):
        numbers = table.numbers(first)
    unknown = np.isin(np.char.lower(targets), UNKNOWN) if numbers is None else np.isnan(numbers)
    if numbers is not None and is_number:
        targets = numbers[:, None]
    elif numbers is not None and are_whole_numbers(numbers):  # 1.0000e+00 is 1
        targets = np.where(unknown, targets, class_texts(np.where(unknown, 0, numbers), table.place))
    is_unlabelled = not is_number and options.is_new and bool(unknown.any())
    is_unlabelled |= options.may_lack_targets and bool(unknown.all())
    if unknown.any() and not is_number and not is_unlabelled:
        row = int(unknown.argmax())
        raise UsageError(f"{table.place(row)}: has no class, {str(targets[row])!r}; needed is one for each sequence")

    def place(row: int, step: int | None = None, feature: int | None = None) -> str:
        del feature
        return table.place(row) + ("" if step is None else f", value {step}")

    return LoadedSequences(
        xs=[row[:length] for row, length in zip(values, lengths, strict=True)],
        targets=None if is_unlabelled else [np.asarray(target) for target in targets],
        per_step=False,
        features=("value",),
        target_names=("class",),
        place=place,
    )
