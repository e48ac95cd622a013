"""Sequences in files as people have them: tables, and the archives of UCR and UEA."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gru_jax.data.arrays import LENGTHS, MASK, TARGETS, WEIGHTS, XS, check_input
from gru_jax.data.checks import as_float32
from gru_jax.data.columns import Layout, MissingTargets, TableOptions
from gru_jax.data.files import data_root
from gru_jax.data.formats import READERS, Format, files_of_splits, format_of
from gru_jax.data.loaded import LoadedSequences, TargetKind, join_sequences
from gru_jax.data.npy import MemoryRows, Rows
from gru_jax.data.preparing import names_in_files, prepare_sequences
from gru_jax.errors import UsageError, closest, listing
from gru_jax.runtime.files import FileStamp
from gru_jax.settings import setting
from gru_jax.tasks.array_files import TEST, TRAIN, ArrayFiles
from gru_jax.tasks.array_shapes import GROUPS
from gru_jax.tasks.arrays import Sequences
from gru_jax.tasks.base import SPLITS

GENERAL = ("kind", "is_new", "may_lack_targets")
"""Options of tables that other formats have too."""


@dataclasses.dataclass(frozen=True)
class ReadFiles(ArrayFiles):
    """The sequences of files of any format, as arrays in memory.

    Attributes:
        sources: by split, its files and the fractions of their rows between which it stands.
        format: of the files.
        options: what their columns are.
        scale_each: whether each sequence is standardised by itself.
        stack: how many steps are read as one.
    """

    sources: tuple[tuple[str, tuple[Path, ...], tuple[float, float]], ...] = ()
    format: Format = "auto"
    options: TableOptions = dataclasses.field(default_factory=TableOptions)
    scale_each: bool = False
    stack: int = 1

    def path(self, split: str, name: str) -> Path:
        return next((paths[0] for source, paths, _ in self.sources if source == split), self.folder / split)

    def stored(self, split: str, name: str) -> Rows | None:
        return self._arrays()[0].get((split, name))

    def stored_names(self) -> Mapping[str, list[str]]:
        return self._arrays()[1]

    def data_files(self) -> list[Path]:
        return list(dict.fromkeys(path for _, paths, _ in self.sources for path in paths))

    def _arrays(self) -> tuple[dict[tuple[str, str], Rows], dict[str, list[str]]]:
        names = ("classes_wanted", "sources", "format", "options", "scale_each", "stack")  # all that reading depends on
        return _read_sources(ReadFiles(Path(), **{name: getattr(self, name) for name in names}), self.stamps())


@functools.lru_cache(maxsize=4)
def _read_sources(
    files: ReadFiles, stamps: tuple[FileStamp, ...]
) -> tuple[dict[tuple[str, str], Rows], dict[str, list[str]]]:
    """All arrays by split and name, and the names of features, targets and classes."""
    del stamps
    options, classes_wanted = files.options, files.classes_wanted
    loaded = {
        split: prepare_sequences(read, scale_each=files.scale_each, stack=files.stack)
        for split, read in _load_splits(files, options).items()
    }
    first = loaded[TRAIN]
    if options.weights is not None and first.weights is None:
        raise UsageError(f"{first.place(0)}: weights {options.weights!r} is no column of the training's files")
    for split, sequences in loaded.items():
        if sequences.targets is None and split != TEST:
            raise UsageError(
                f"{sequences.place(0)}: {split} has no targets; leave it out, hold some out of training by "
                f"task.{split}_fraction, and predict it afterwards"
            )
    join_sequences(list(loaded.values()))  # which checks their columns
    names = {"features": list(first.features), "targets": list(first.target_names)}
    if first.targets is not None and first.targets[0].dtype.kind == "U":
        names["classes"] = _class_names(loaded) if classes_wanted is None else [str(i) for i in range(classes_wanted)]
    longest = max(len(xs) for sequences in loaded.values() for xs in sequences.xs)
    differ = any(len(xs) != longest for sequences in loaded.values() for xs in sequences.xs)
    arrays: dict[tuple[str, str], Rows] = {}
    for (split, paths, _), sequences in zip(files.sources, loaded.values(), strict=True):
        for name, array in stack(
            sequences, names.get("classes"), longest, differ=differ, skips=options.missing_targets == "skip"
        ).items():
            arrays[split, name] = MemoryRows.of_array(paths[0], array, sequences.place)
    return arrays, names


def _load_splits(files: ReadFiles, options: TableOptions) -> dict[str, LoadedSequences]:
    """The sequences of every split. Whole numbers are no classes where other training targets of tables are not."""
    loaded = {
        split: _load(paths, files.format, dataclasses.replace(options, part=part, may_lack_targets=split == TEST))
        for split, paths, part in files.sources
    }
    held = {split: {target.dtype.kind for target in read.targets or ()} for split, read in loaded.items()}
    formats = {format_of(path, files.format) for _, paths, _ in files.sources for path in paths}
    is_mixed = "f" in held[TRAIN] and any("U" in kinds for kinds in held.values())
    if options.kind == "auto" and is_mixed and formats <= {"table", "ucr"}:
        return _load_splits(files, dataclasses.replace(options, kind="numbers"))
    for split, kinds in held.items():
        if {"U", "f"} <= {*held[TRAIN], *kinds}:
            raise UsageError(
                f"{loaded[split].place(0)}: {split} has numbers for targets where others are classes; task.kind says "
                "what all are"
            )
    return loaded


def _load(paths: Sequence[Path], wanted: Format, options: TableOptions) -> LoadedSequences:
    """The sequences of some files.

    Raises:
        UsageError: an option is of no effect on a format.
    """
    loaded = []
    for path in paths:
        name = format_of(path, wanted)
        if options.kind == "labels" and name in ("ucr", "ts"):
            raise UsageError(f"kind=labels: is for tables and .npz files, and {path} is a {name} file")
        for field in dataclasses.fields(options) if name != "table" else ():
            if field.name not in GENERAL and getattr(options, field.name) != field.default:
                value = getattr(options, field.name)
                raise UsageError(f"{field.name}={value}: is for tables, and without effect on {path}, a {name} file")
        loaded.append(READERS[name](path, options))
        if (loaded[-1].weights is None) != (loaded[0].weights is None):
            lacking = loaded[-1] if loaded[-1].weights is None else loaded[0]
            raise UsageError(f"{lacking.place(0)}: has no weights, which other files of its split have")
    return join_sequences(loaded)


def _class_names(loaded: Mapping[str, LoadedSequences]) -> list[str]:
    """The classes that occur, whole numbers in their order, texts in that of the alphabet."""
    texts = {str(text) for part in loaded.values() for target in part.targets or () for text in np.ravel(target)}
    return sorted(texts, key=lambda text: (0, int(text), "") if re.fullmatch(r"-?\d+", text) else (1, 0, text))


def stack(
    sequences: LoadedSequences, classes: Sequence[str] | None, longest: int, *, differ: bool, skips: bool
) -> dict[str, np.ndarray]:
    """The arrays of sequences, filled up to so many steps.

    Args:
        sequences: as a reader gives them.
        classes: names of the classes, if targets are.
        longest: steps of the arrays.
        differ: whether there are lengths.
        skips: whether steps whose target is missing do not count.

    Raises:
        UsageError: a class is none of those in training.
    """
    count = len(sequences.xs)
    inputs = np.zeros((count, longest, len(sequences.features)), np.float32)
    for row, xs in zip(inputs, sequences.xs, strict=True):
        row[: len(xs)] = xs
    arrays: dict[str, np.ndarray] = {XS: inputs}
    if differ:
        arrays[LENGTHS] = np.array([len(xs) for xs in sequences.xs], np.int32)
    if sequences.weights is not None:
        arrays[WEIGHTS] = as_float32(np.array(sequences.weights))
    if sequences.groups is not None:
        arrays[GROUPS] = np.unique(np.array(sequences.groups), return_inverse=True)[1].astype(np.int32)
    if sequences.targets is None:
        return arrays
    targets = sequences.targets
    if classes is not None:
        targets = [_codes_of(target, classes, sequences, i) for i, target in enumerate(targets)]
    if sequences.per_step and targets[0].dtype.kind == "f" and skips:
        counts = [np.asarray(np.isfinite(t).all(axis=1)) for t in targets]
        arrays[MASK] = _padded(counts, longest).astype(np.float32)
        targets = [np.nan_to_num(t) for t in targets]
    if sequences.per_step:
        arrays[TARGETS] = _padded(targets, longest)
    else:
        arrays[TARGETS] = np.stack(targets)
    return arrays


def _padded(parts: Sequence[np.ndarray], longest: int) -> np.ndarray:
    """Arrays `[T, ...]`, filled up with zeros to so many steps."""
    return np.stack([np.pad(part, [(0, longest - len(part)), *[(0, 0)] * (part.ndim - 1)]) for part in parts])


def _codes_of(target: np.ndarray, classes: Sequence[str], sequences: LoadedSequences, row: int) -> np.ndarray:
    """Classes as their places among the names."""
    known = {name: code for code, name in enumerate(classes)}
    for text in np.ravel(target):
        if str(text) not in known:
            allowed = f"allowed are {listing(classes)}{closest(text, classes)}"
            raise UsageError(f"{sequences.place(row)}: class {str(text)!r} is none of the training's; {allowed}")
    return np.array([known[str(text)] for text in np.ravel(target)], np.int32).reshape(np.shape(target))


@dataclasses.dataclass(frozen=True)
class Files(Sequences):
    r"""Classify or label sequences, or predict numbers from them, that stand in tables or in files of UCR or UEA.

    Files are `.csv`, `.tsv` and `.parquet` tables with names of columns; `_TRAIN.tsv` and `_TEST.tsv` of the UCR
    archive; `.ts` of UEA and aeon; and `.npz` with `xs`, `targets` and `lengths`. Sequences may be of unequal lengths.
    A pattern such as `train/*.csv` stands for many files. Classes are the texts or whole numbers that occur. The rest
    is as of `gru_jax.tasks.arrays.Sequences`.

    Attributes:
        train, valid, test: files of each split, below the data directory; what is None is held out of train, by
            `valid_fraction` and `test_fraction`. Those of the test may have no targets; there is no test score then.
        format: table, ucr, ts or npz; auto goes by their names.
        inputs: columns of a table that are inputs; None for all but the others named here, and of windows with a
            horizon the targets too. With a horizon of 0 no target is an input.
        targets: its columns that are targets, more than one only of numbers and labels; None where the format says so.
        kind: whether targets are classes, numbers, or labels, columns of 0 and 1 of which several may be 1; auto takes
            texts and, without a window, whole numbers for classes.
        sequence: its column whose equal values make a sequence; None where each file is one.
        group: its column of what must stay together when some are held out; None for nothing.
        weights: its column of how much a sequence counts in the loss and all metrics, by its last row; None where all
            count the same, as they do in files of validation and test without it.
        layout: long, where a row is a step; wide, where it is a sequence whose input columns are its steps.
        per_step: whether each step has a target.
        window: steps of the windows into which sequences are cut, None for whole ones; what is held out is then the end
            of each file.
        stride: steps from one window to the next.
        horizon: rows from a window's last step, or from each step, to that of its target: a forecast.
        header: whether the first line of a table has the names of its columns; without they are column1, column2, ….
        scale_each: whether every feature of each sequence is brought to mean 0 and standard deviation 1 over its own
            steps, as archives have it; what is then the same in all of them is no news to a network.
        stack: how many steps are read as one, side by side, so that a sequence is so many times shorter; the last is
            filled up with the values of the last step.
        missing_targets: whether numbers to predict that are missing are refused (error), or their windows, sequences or
            steps left out (skip).

    Examples:
        >>> import pathlib, tempfile
        >>> from gru_jax.tasks import Files
        >>> folder = tempfile.TemporaryDirectory()
        >>> rows = [f"{i // 5},{i % 5},{'ab'[i // 5 % 2]}" for i in range(100)]
        >>> _ = pathlib.Path(folder.name, "rows.csv").write_text("\n".join(["id,value,kind", *rows]))
        >>> columns = {"sequence": "id", "targets": ("kind",), "valid_fraction": 0.2, "test_fraction": 0.2}
        >>> task = Files(data_dir=folder.name, train="rows.csv", **columns)
        >>> task.time, task.facts.classes, [task.size(split) for split in ("train", "valid", "test")]
        (5, ('a', 'b'), [12, 4, 4])
        >>> folder.cleanup()
    """

    train: str = setting("train.csv", kw_only=True)
    valid: str | None = setting(None, kw_only=True)
    test: str | None = setting(None, kw_only=True)
    format: Format = setting("auto", kw_only=True)
    inputs: tuple[str, ...] | None = setting(None, kw_only=True)
    targets: tuple[str, ...] | None = setting(None, kw_only=True)
    kind: TargetKind = setting("auto", kw_only=True)
    sequence: str | None = setting(None, kw_only=True)
    group: str | None = setting(None, kw_only=True)
    weights: str | None = setting(None, kw_only=True)
    layout: Layout = setting("long", kw_only=True)
    per_step: bool = setting(False, kw_only=True)
    window: int | None = setting(None, low=1, high=10**7, kw_only=True)
    stride: int = setting(1, low=1, high=10**7, kw_only=True)
    horizon: int = setting(0, low=0, high=10**7, kw_only=True)
    header: bool = setting(True, kw_only=True)
    scale_each: bool = setting(False, kw_only=True)
    stack: int = setting(1, low=1, high=10**6, kw_only=True)
    missing_targets: MissingTargets = setting("error", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window is None and self.stride != 1:
            raise UsageError(f"stride={self.stride}: without effect; task.window says how long windows are")
        if self.per_step and self.stack != 1:
            raise UsageError(f"stack={self.stack}: a target for each step needs these; allowed with per_step is 1")

    @property
    def _table_options(self) -> TableOptions:
        others = {"is_new", "may_lack_targets", "targets", "part"}
        names = {field.name for field in dataclasses.fields(TableOptions)} - others
        return TableOptions(**{name: getattr(self, name) for name in names}, targets=self.targets or ())

    @property
    def _files(self) -> ArrayFiles:
        root = data_root(self.data_dir)
        files = {split: getattr(self, split) for split in SPLITS}
        options: dict[str, Any] = self._options(lambda split: files[split] is not None)
        for split in options["splits"]:
            if files[split] is None and split not in dict(options["division"].fractions):
                raise UsageError(f"{split}=None: needed is a file, or {split}_fraction of the training examples")
        parts = {split: (0.0, 1.0) for split in options["splits"] if files[split] is not None}
        self._check_windows_in_folds()
        if self.window is not None and options["division"].fractions:
            if self.divide_by not in ("random", "time"):
                raise UsageError(f"divide_by={self.divide_by}: windows are divided in time, as the last rows of a file")
            parts |= _parts_in_time(dict(options["division"].fractions))
            options["division"] = dataclasses.replace(options["division"], fractions=())
        paths = files_of_splits(root, {split: files[split] for split in SPLITS if split in parts})
        sources = tuple((split, tuple(paths.get(split, paths[TRAIN])), part) for split, part in sorted(parts.items()))
        return ReadFiles(
            root, **options, sources=sources, format=self.format, options=self._table_options,
            scale_each=self.scale_each, stack=self.stack,
        )  # fmt: skip

    def features_of_files(self) -> tuple[str, ...]:
        """The names of the inputs as its files have them now."""
        return tuple(self._files.stored_names()["features"])

    def _check_windows_in_folds(self) -> None:
        """Refuse folds whose windows have rows of each other."""
        if self.window is None or self.folds is None or self.divide_by == "group":
            return
        if self.stride < self.window + self.horizon:
            raise UsageError(
                f"folds={self.folds}: windows share rows, of which some would be trained on and validated on; allowed "
                f"are a stride of {self.window + self.horizon} or more, divide_by=group, or valid_fraction"
            )

    def read_input(self, path: Path) -> Mapping[str, np.ndarray]:
        if path.suffix == ".npy":
            return super().read_input(path)
        facts, kind_of_file = self.facts, format_of(path, self.format)
        options = dataclasses.replace(self._table_options, is_new=True)
        if kind_of_file in ("table", "ucr") and not (facts.codes or facts.are_labels):
            options = dataclasses.replace(options, kind="numbers")  # whole ones too
        if kind_of_file == "table" and self.layout == "long":
            options = dataclasses.replace(options, inputs=names_in_files(facts.features, self.stack))
        read = READERS[kind_of_file](path, options)
        sequences = prepare_sequences(read, scale_each=self.scale_each, stack=self.stack)
        if sequences.features != facts.features:
            trained = listing(facts.features)
            raise UsageError(f"{path}: its features are {listing(sequences.features)}; in training they were {trained}")
        longest = max(facts.time, *(len(xs) for xs in sequences.xs))
        differ = any(len(xs) != longest for xs in sequences.xs)
        arrays = stack(sequences, facts.classes or None, longest, differ=differ, skips=False)
        return super().check_new(arrays, path, sequences.place)

    def check_new(
        self, arrays: Mapping[str, np.ndarray], path: Path, place: Callable[..., str] | None = None
    ) -> Mapping[str, np.ndarray]:
        """New inputs as they stand in files, which are prepared as those are; or steps that are stacked already."""
        features = names_in_files(self.facts.features, self.stack)
        is_stacked = self.stack > 1 and XS in arrays and arrays[XS].shape[-1:] == (len(self.facts.features),)
        if is_stacked and not self.scale_each:
            return super().check_new(arrays, path, place)
        arrays = check_input(arrays, path, len(features), self.missing, place)
        count, time, _ = arrays[XS].shape
        lengths = arrays.get(LENGTHS, np.full(count, time))
        where = place or MemoryRows.of_array(path, arrays[XS]).place
        rows = [row[:length] for row, length in zip(arrays[XS], lengths, strict=True)]
        read = LoadedSequences(rows, None, per_step=False, features=features, target_names=(), place=where)
        prepared = prepare_sequences(read, scale_each=self.scale_each, stack=self.stack)
        made = stack(prepared, None, -(-time // self.stack), differ=LENGTHS in arrays, skips=False)
        return super().check_new({**arrays, **made}, path, prepared.place)


def _parts_in_time(fractions: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """Between which fractions of a file's rows each split stands: training first, then validation, then the test."""
    test, valid = (fractions.get(split, 0.0) for split in ("test", "valid"))
    if test + valid >= 1:
        raise UsageError(f"valid_fraction={valid:g}: with test_fraction={test:g} nothing is left to train on")
    parts = {TRAIN: (0.0, 1 - valid - test), "valid": (1 - valid - test, 1 - test), "test": (1 - test, 1.0)}
    return {split: part for split, part in parts.items() if split == TRAIN or split in fractions}
