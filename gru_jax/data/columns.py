"""Sequences in the columns of a table: a row for each step, or for each sequence, or windows of a long recording."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from gru_jax.data.checks import as_float32
from gru_jax.data.loaded import LoadedSequences, TargetKind, are_whole_numbers
from gru_jax.data.tables import MISSING_TEXTS, Table, open_table
from gru_jax.errors import UsageError, listing

Layout = Literal["long", "wide"]
"""Whether a row of a table is a step, or a whole sequence whose columns are the steps."""

MISSING_CLASSES = [text for text in MISSING_TEXTS if text not in ("None", "-")]
"""Texts that stand for a class that is missing; those two may be classes."""
MissingTargets = Literal["error", "skip"]

logger = logging.getLogger(__name__)
Rows = Sequence[np.ndarray]


@dataclasses.dataclass(frozen=True)
class TableOptions:
    """What the columns of a table are.

    Attributes:
        inputs: names of input columns; None for all that are nothing else, which must be numbers, and of windows with a
            horizon the targets too, as far as they are known by then.
        targets: names of target columns.
        kind: what targets are.
        sequence: the column whose equal values make a sequence; None where the file is one.
        group: the column of what must stay together; None for none.
        weights: the column of how much each sequence counts, as it says in the last row of it; None for none. A file
            may lack it.
        layout: whether a row is a step or a sequence.
        per_step: whether each step has a target.
        window: steps of a window into which sequences are cut; None for whole sequences.
        stride: steps from a window to the next.
        horizon: steps from a step to the row that has its target.
        header: whether the first line has the names of the columns.
        missing_targets: whether a number to predict that is missing is refused, or its window or step left out.
        part: between which fractions of the rows of every sequence windows stand.
        is_new: whether there may be no targets, as for predictions.
        may_lack_targets: whether a file may have no targets at all, and is read as a new one then.
    """

    inputs: tuple[str, ...] | None = None
    targets: tuple[str, ...] = ()
    kind: TargetKind = "auto"
    sequence: str | None = None
    group: str | None = None
    weights: str | None = None
    layout: Layout = "long"
    per_step: bool = False
    window: int | None = None
    stride: int = 1
    horizon: int = 0
    header: bool = True
    missing_targets: MissingTargets = "error"
    part: tuple[float, float] = (0.0, 1.0)
    is_new: bool = False
    may_lack_targets: bool = False

    def rows_of(self, sequence: np.ndarray) -> np.ndarray:
        """The part of a sequence's rows."""
        first, last = (round(fraction * len(sequence)) for fraction in self.part)
        return sequence[first:last]

    @property
    def fewest_rows(self) -> int:
        """Of a sequence that has a window, or a step, with a target."""
        return (self.window or 1) + self.horizon


def read_columns(path: Path, options: TableOptions) -> LoadedSequences:
    """The sequences of a table.

    Args:
        path: of the file.
        options: what its columns are.

    Raises:
        UsageError: a column is missing, a cell is no number, or a sequence is too short.
    """
    table = open_table(path, has_header=options.header)
    named = [name for name in (options.sequence, options.group) if name is not None]
    table.check_columns([name for name in named if not options.is_new or name != options.group], "column")
    targets = options.targets
    lacks_targets = not any(table.has_values(name) for name in targets)
    if lacks_targets and (options.may_lack_targets or options.is_new):
        options, targets = dataclasses.replace(options, is_new=options.is_new or bool(targets)), ()
    table.check_columns(targets, "target")
    if not targets and not options.is_new:
        raise UsageError(f"{path}: targets=None: needed is the name of a column; there are {_some(table)}")
    if options.weights is not None:
        named.append(options.weights)
    inputs = _inputs(table, options, named)
    return (
        _read_wide(table, options, inputs, targets)
        if options.layout == "wide"
        else _read_long(table, options, inputs, targets)
    )


def _some(table: Table) -> str:
    return listing(table.frame.columns[:30])


def _inputs(table: Table, options: TableOptions, named: Sequence[str]) -> list[str]:
    """The columns of inputs; none is what is to be predicted at the same row."""
    if options.inputs is not None:
        table.check_columns(options.inputs, "input")
        shown = f"inputs={','.join(options.inputs)}"
        if len(set(options.inputs)) < len(options.inputs):
            raise UsageError(f"{shown}: names a column twice")
        leaked = [name for name in options.inputs if name in options.targets]
        if leaked and not options.horizon:
            raise UsageError(
                f"{shown}: {listing(leaked)} is a target too, of the same row; allowed with a horizon of 1 or more"
            )
        return list(options.inputs)
    reads_targets = options.window and options.horizon
    others = {*named, *(() if reads_targets else options.targets)}
    names = [name for name in table.frame.columns if name not in others]
    texts = [name for name in names if table.is_text(name)]
    if texts:
        numbers = [name for name in names if name not in texts]
        hint = f"task.inputs={','.join(numbers)} leaves them out" if numbers else "needed is a column of numbers"
        raise UsageError(f"{table.path}: {listing(texts)} hold texts; {hint}")
    if not names:
        raise UsageError(f"{table.path}: no column is left for inputs; there are {_some(table)}")
    return names


def _target_values(table: Table, options: TableOptions, targets: Sequence[str]) -> tuple[np.ndarray, bool]:
    """The targets of all rows, texts `[N]`, or numbers or labels `[N, O]`, and whether they are classes."""
    if options.kind == "classes" or (options.kind == "auto" and len(targets) == 1 and table.is_text(targets[0])):
        if len(targets) != 1:
            raise UsageError(f"targets={','.join(targets)}: of classes there is one column")
        texts = table.texts(targets[0])
        is_sure = options.kind == "classes" or table.first_line is None  # what is missing in Parquet is null
        missing = np.flatnonzero(np.isin(texts, "" if is_sure else MISSING_CLASSES))
        if missing.size:
            row = int(missing[0])
            shown = f", {str(texts[row])!r}; task.kind=classes takes that for one" * bool(texts[row])
            raise UsageError(f"{table.place(row, targets[0])}: has no class{shown}")
        return texts, True
    numbers = np.stack([table.numbers(name) for name in targets], axis=1)
    if options.kind == "labels":
        return _labels(table, targets, numbers), False
    if options.kind == "auto" and len(targets) == 1 and not options.window and are_whole_numbers(numbers):
        missing = np.flatnonzero(np.isnan(numbers[:, 0]))
        if missing.size:
            raise UsageError(f"{table.place(int(missing[0]), targets[0])}: has no class")
        return class_texts(numbers[:, 0], lambda row: table.place(row, targets[0])), True
    return numbers, False


def class_texts(numbers: np.ndarray, place: Callable[[int], str]) -> np.ndarray:
    """Whole numbers, of which none is missing, as texts.

    Args:
        numbers: of the classes, `[N]`.
        place: says where a row is.

    Raises:
        UsageError: one is too large for a float to hold it and no other.
    """
    wrong = np.flatnonzero(~(np.abs(numbers) < 2**53))
    if wrong.size:
        row = int(wrong[0])
        raise UsageError(
            f"{place(row)}: holds the class {numbers[row]:g}; allowed are whole numbers below 2^53, and with "
            "task.kind=classes any text"
        )
    return numbers.astype(np.int64).astype(np.str_)


def _labels(table: Table, targets: Sequence[str], numbers: np.ndarray) -> np.ndarray:
    """Numbers 0 and 1 as booleans."""
    wrong = ~np.isin(numbers, (0, 1))
    if wrong.any():
        row, column = (int(i) for i in np.argwhere(wrong)[0])
        came = "is missing" if np.isnan(numbers[row, column]) else f"holds {numbers[row, column]:g}"
        raise UsageError(f"{table.place(row, targets[column])}: {came}; allowed are 0 and 1, for labels")
    return numbers > 0


def _read_wide(table: Table, options: TableOptions, inputs: Sequence[str], targets: Sequence[str]) -> LoadedSequences:
    if options.window or options.sequence or options.per_step:
        raise UsageError("layout=wide: a row is a sequence; window, sequence and per_step are for rows that are steps")
    values = as_float32(np.stack([table.numbers(name) for name in inputs], axis=1)[..., None])
    values, lengths = without_padding(values)
    labels = None
    if targets:
        labels, _ = _target_values(table, options, targets)

    def place(row: int, step: int | None = None, feature: int | None = None) -> str:
        del feature
        return table.place(row, None if step is None else inputs[step])

    return LoadedSequences(
        xs=[row[:length] for row, length in zip(values, lengths, strict=True)],
        targets=None if labels is None else [np.asarray(label) for label in labels],
        per_step=False,
        features=("value",),
        target_names=tuple(targets) or options.targets,
        place=place,
        groups=None if (groups := _groups_of(table, options)) is None else list(groups),
        weights=_weights_of(table, options, [np.array([row]) for row in range(len(values))]),
    )


def without_padding(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sequences `[N, T, 1]`, and their lengths up to the last value that is not missing, at least 1.

    Examples:
        >>> import numpy as np
        >>> from gru_jax.data.columns import without_padding
        >>> without_padding(np.array([[[1.0], [np.nan], [2.0], [np.nan]]]))[1].tolist()
        [3]
    """
    present = np.logical_not(np.isnan(values).all(axis=2))
    lengths = values.shape[1] - np.argmax(present[:, ::-1], axis=1)
    return values, np.where(present.any(axis=1), lengths, 1)


def _read_long(table: Table, options: TableOptions, inputs: Sequence[str], targets: Sequence[str]) -> LoadedSequences:
    values = as_float32(np.stack([table.numbers(name) for name in inputs], axis=1))
    labels, are_classes = _target_values(table, options, targets) if targets else (None, False)
    rows = [piece for whole in _sequence_rows(table, options) for piece in _windows(options.rows_of(whole), options)]
    if not rows:
        raise UsageError(
            f"{table.path}: no sequence has the {options.fewest_rows} rows that a window and its target take"
        )
    if labels is not None and not are_classes and options.missing_targets == "skip" and not options.is_new:
        rows = _with_targets(table, options, labels, rows)
    made = None if labels is None else _targets_of(table, options, labels, are_classes, rows)

    def place(sequence: int, step: int | None = None, feature: int | None = None) -> str:
        row = int(rows[sequence][0 if step is None else step])
        return table.place(row, None if feature is None else inputs[feature])

    groups = _groups_of(table, options)
    if groups is not None and options.window:
        _check_groups(table, options, groups, rows)
    return LoadedSequences(
        xs=[values[index[: _steps(index, options)]] for index in rows],
        targets=made,
        per_step=options.per_step,
        features=tuple(inputs),
        target_names=tuple(targets) or options.targets,
        place=place,
        groups=None if groups is None else [str(groups[index[0]]) for index in rows],
        weights=_weights_of(table, options, rows),
    )


def _groups_of(table: Table, options: TableOptions) -> np.ndarray | None:
    """What must stay together of each row; None where nothing must, as of new data."""
    return None if options.group is None or options.is_new else table.texts(options.group)


def _check_groups(table: Table, options: TableOptions, groups: np.ndarray, rows: Rows) -> None:
    """Refuse windows of rows of two groups: one of them would have rows of the other."""
    if (change := _first_change(groups, rows)) is not None:
        raise UsageError(
            f"{table.place(change[1], options.group)}: a window goes on from one group into this; "
            f"task.sequence={options.group} cuts windows within each"
        )


def _first_change(values: np.ndarray, rows: Rows) -> tuple[int, int] | None:
    """Of the first sequence of rows whose values are not all one, its first row and the first that differs from it."""
    for index in rows:
        other = np.flatnonzero(values[index] != values[index[0]])
        if other.size:
            return int(index[0]), int(index[other[0]])
    return None


def _weights_of(table: Table, options: TableOptions, rows: Rows) -> list[float] | None:
    """How much each sequence counts, of the rows that it stands in."""
    if options.weights is None or options.weights not in table.frame.columns:
        return None
    values, last = table.numbers(options.weights), np.array([index[-1] for index in rows])
    missing = np.flatnonzero(np.isnan(values[last]))
    if missing.size:
        raise UsageError(f"{table.place(int(last[missing[0]]), options.weights)}: has no weight")
    return values[last].tolist()


def _with_targets(table: Table, options: TableOptions, labels: np.ndarray, rows: Rows) -> list[np.ndarray]:
    """The rows of those windows, or sequences, that have a target, or one at a step."""
    absent: np.ndarray = np.asarray(np.isnan(labels).any(axis=1))

    def has_target(index: np.ndarray) -> bool:
        return not (absent[index[options.horizon :]].all() if options.per_step else absent[index[-1]])

    kept = [index for index in rows if has_target(index)]
    if not kept:
        raise UsageError(f"{table.path}: every target is missing, {listing(options.targets)}")
    if len(kept) < len(rows):
        message = "%s: %s of %s sequences are left out, whose target is missing"
        logger.info(message, table.path, len(rows) - len(kept), len(rows))
    return kept


def _sequence_rows(table: Table, options: TableOptions) -> Rows:
    """The rows of every sequence, in their order."""
    if options.sequence is None:
        return [np.arange(table.frame.height)]
    names = table.texts(options.sequence)
    missing = np.flatnonzero(names == "")
    if missing.size:
        raise UsageError(f"{table.place(int(missing[0]), options.sequence)}: is empty; needed is its sequence")
    _, first, member = np.unique(names, return_index=True, return_inverse=True)
    order = np.argsort(member, kind="stable")
    pieces = np.split(order, np.cumsum(np.bincount(member))[:-1])
    return [pieces[i] for i in np.argsort(first)]  # as they come in the file


def _windows(rows: np.ndarray, options: TableOptions) -> list[np.ndarray]:
    """The rows of every window with those up to its target; of a whole sequence all. New data need no target."""
    if options.window is None:
        return [rows] if len(rows) >= (1 if options.is_new else options.fewest_rows) else []
    size = options.window if options.is_new else options.fewest_rows
    return [
        rows[first : min(len(rows), first + options.fewest_rows)]
        for first in range(0, len(rows) - size + 1, options.stride)
    ]


def _steps(rows: np.ndarray, options: TableOptions) -> int:
    """Of these rows, how many are inputs; the others have targets alone."""
    if options.window is not None:
        return options.window
    return len(rows) if options.is_new else len(rows) - options.horizon


def _targets_of(
    table: Table, options: TableOptions, labels: np.ndarray, are_classes: bool, rows: Rows
) -> list[np.ndarray] | None:
    """The target of every sequence, or of each of its steps; None where the rows of new data end before one."""
    if any(len(index) < _steps(index, options) + options.horizon for index in rows):
        return None
    used = np.concatenate([index[options.horizon :] if options.per_step else index[-1:] for index in rows])
    if options.is_new and not are_classes and np.isnan(labels[used]).any():
        return None
    if options.per_step:
        return [labels[index[options.horizon :]] for index in rows]
    is_of_sequence = are_classes and options.window is None and not options.horizon
    if is_of_sequence and (change := _first_change(labels, rows)) is not None:
        first, other = change
        raise UsageError(
            f"{table.place(other, options.targets[0])}: is {labels[other]} where the sequence began with "
            f"{labels[first]}; task.per_step=true has a class for each step"
        )
    return [np.asarray(labels[index[-1]]) for index in rows]
