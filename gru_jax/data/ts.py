"""The `.ts` files of the UEA archive, as aeon and sktime have them: lines of dimensions, separated by colons."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gru_jax.data.checks import as_float32
from gru_jax.data.columns import TableOptions
from gru_jax.data.loaded import LoadedSequences
from gru_jax.data.tables import read_text
from gru_jax.errors import UsageError

UNKNOWN = "?"  # a value or a class that is missing
CLASSES, NUMBER = "classlabel", "targetlabel"


def read_ts(path: Path, options: TableOptions) -> LoadedSequences:
    """The sequences of a file such as `BasicMotions_TRAIN.ts`; A. Bagnall et al. 2018, arXiv:1811.00075.

    Lengths may differ between sequences, not between the dimensions of one; a value of `?` is missing.

    Args:
        path: of the file.
        options: whether sequences may have no targets, and what they must be.

    Raises:
        UsageError: the header or a line is not of this format.
    """
    lines = read_text(path).decode().split("\n")[:-1]
    header, start = _read_header(path, lines)
    labels = header.get(CLASSES, header.get(NUMBER, "false")).split()
    has_target, held = labels[:1] == ["true"], "numbers" if NUMBER in header else "classes"
    if has_target and options.kind not in ("auto", held):
        raise UsageError(f"{path}: its header says that targets are {held}; task.kind={options.kind} needs others")
    numbers = [number for number in range(start, len(lines)) if lines[number].strip() and lines[number][0] != "#"]
    if not numbers:
        raise UsageError(f"{path}: has no sequence after @data")
    xs, targets = [], []
    for number in numbers:
        *dimensions, last = lines[number].split(":")
        if has_target:
            targets.append(last.strip())
        xs.append(_read_sequence(f"{path}: line {number + 1}", dimensions if has_target else [*dimensions, last]))
        if xs[-1].shape[1] != xs[0].shape[1]:
            raise UsageError(
                f"{path}: line {number + 1}: has {xs[-1].shape[1]} dimensions; the first sequence has {xs[0].shape[1]}"
            )
    for number, target in zip(numbers, targets, strict=False):
        if CLASSES in header and len(labels) > 1 and target not in (*labels[1:], UNKNOWN):
            raise UsageError(
                f"{path}: line {number + 1}: class {target!r} is none of @classLabel, {' '.join(labels[1:])}"
            )
    all_unknown = set(targets) <= {UNKNOWN}
    is_unlabelled = not targets or (options.is_new and UNKNOWN in targets) or (options.may_lack_targets and all_unknown)
    if UNKNOWN in targets and NUMBER not in header and not is_unlabelled:
        line = numbers[targets.index(UNKNOWN)] + 1
        raise UsageError(f"{path}: line {line}: has no class, {UNKNOWN!r}; needed is one for each sequence")

    def place(row: int, step: int | None = None, feature: int | None = None) -> str:
        where = "" if step is None or feature is None else f", dimension {feature}, value {step}"
        return f"{path}: line {numbers[row] + 1}{where}"

    return LoadedSequences(
        xs=xs,
        targets=None if is_unlabelled else _as_targets(targets, NUMBER in header, place),
        per_step=False,
        features=tuple(f"dimension{i}" for i in range(xs[0].shape[1])),
        target_names=("target" if NUMBER in header else "class",),
        place=place,
    )


def _read_header(path: Path, lines: list[str]) -> tuple[dict[str, str], int]:
    """What the lines that begin with @ say, by lower-case names, and the number of the first line of data."""
    header: dict[str, str] = {}
    for number, line in enumerate(lines):
        text = line.strip()
        if text.lower() == "@data":
            if header.get("timestamps", "false").lower() == "true":
                raise UsageError(f"{path}: has time stamps; allowed are values alone, in equal steps")
            return header, number + 1
        if text.startswith("@"):
            key, _, value = text[1:].partition(" ")
            header[key.lower()] = _lower_first(value) if key.lower() in (CLASSES, NUMBER) else value.strip()
        elif text and not text.startswith(("#", "%")):
            raise UsageError(f"{path}: line {number + 1}: {text[:40]!r} is no header; needed is @data before sequences")
    raise UsageError(f"{path}: has no line @data; not a .ts file, or cut short")


def _lower_first(text: str) -> str:
    """A text whose first word, `true` or `false`, is in lower case, and what comes after it as it is."""
    first, _, rest = text.strip().partition(" ")
    return f"{first.lower()} {rest}".strip()


def _read_sequence(where: str, dimensions: list[str]) -> np.ndarray:
    """One sequence, `[T, D]`."""
    columns = [_read_dimension(f"{where}, dimension {i}", text) for i, text in enumerate(dimensions)]
    steps = [len(column) for column in columns]
    if not columns or len(set(steps)) > 1:
        raise UsageError(
            f"{where}: its dimensions have {', '.join(map(str, steps)) or 'no'} values; needed are as many"
        )
    return as_float32(np.stack(columns, axis=1))


def _read_dimension(where: str, text: str) -> np.ndarray:
    values = text.split(",")
    try:
        return np.array([np.nan if value.strip() == UNKNOWN else float(value) for value in values])
    except ValueError:
        wrong = next(i for i, value in enumerate(values) if not _is_value(value))
        raise UsageError(f"{where}, value {wrong}: {values[wrong][:40]!r} is no number") from None


def _is_value(text: str) -> bool:
    try:
        float(text.replace(UNKNOWN, "nan"))
    except ValueError:
        return False
    return True


def _as_targets(targets: list[str], are_numbers: bool, place: object) -> list[np.ndarray]:
    if not are_numbers:
        return [np.array(target) for target in targets]
    for i, target in enumerate(targets):
        if not _is_value(target):
            raise UsageError(f"{place(i)}: {target[:40]!r} is no number")  # type: ignore[operator]
    return [np.array([float(target.replace(UNKNOWN, "nan"))]) for target in targets]
