"""The files of sequences of one's own, checked beside each other."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gru_jax.data.arrays import LENGTHS, MASK, NAMES, TARGETS, WEIGHTS, XS, are_classes
from gru_jax.data.checks import Missing, as_float32, check_finite, measure_features
from gru_jax.data.division import HELD_OUT_SEED, DivideBy, fold_numbers, held_out
from gru_jax.data.npy import Rows, open_rows
from gru_jax.errors import UsageError, listing
from gru_jax.runtime.files import FileStamp, read_json, stamp_of
from gru_jax.tasks.array_shapes import GROUPS, SHAPE_CHECKS
from gru_jax.tasks.base import SPLITS
from gru_jax.tasks.facts import DataFacts, FeatureScale

FOLDED_SPLITS = ("train", "test")  # that are read where the training examples are divided into folds
TRAIN, _, TEST = SPLITS
USED = np.finfo(np.float32)  # in which losses are weighed and numbers are learnt, whatever a file has
LEAST_WEIGHT = float(USED.smallest_normal)  # of a step that counts; devices may take smaller numbers for 0


@dataclasses.dataclass(frozen=True)
class Division:
    """What is held out of the training examples for splits that have no files.

    Attributes:
        fractions: by split, of all examples of the training files; in the order in which they are held out.
        by: how.
    """

    fractions: tuple[tuple[str, float], ...] = ()
    by: DivideBy = "random"


@dataclasses.dataclass(frozen=True)
class ArrayFiles:
    """`<SPLIT>_<NAME>.npy` in a folder, of these splits; see `gru_jax.tasks.Arrays`.

    Attributes:
        folder: the folder.
        splits: that are read.
        division: what is held out of the training examples.
        classes_wanted: how many classes there are, if that is known.
        missing: what inputs that are NaN are taken for.
        scales: whether inputs, and targets that are numbers, are standardised.
        allows_one_hot: whether targets may be numbers of which one is 1 and the others 0.
    """

    folder: Path
    splits: tuple[str, ...] = SPLITS
    division: Division = Division()
    classes_wanted: int | None = None
    missing: Missing = "error"
    scales: bool = False
    allows_one_hot: bool = False

    # Files

    def path(self, split: str, name: str) -> Path:
        """Of a file."""
        return self.folder / f"{split}_{name}.npy"

    @property
    def names_path(self) -> Path:
        """Of the file with names of classes, features and targets, where there is one."""
        return self.folder / "names.json"

    def has(self, split: str, name: str) -> bool:
        """Whether a split has an array of this name."""
        return self.stored(self._source(split), name) is not None

    def stored(self, split: str, name: str) -> Rows | None:
        """An array as it is in the files of a split; None where there is none."""
        path = self.path(split, name)
        is_needed = name == XS or (name == TARGETS and split != TEST)
        return open_rows(path) if is_needed or path.exists() else None

    def stored_names(self) -> Mapping[str, list[str]]:
        """Names of `classes`, `features` and `targets`, where the files have them."""
        content = read_json(self.names_path) if self.names_path.exists() else {}
        for key, names in content.items():
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise UsageError(f"{self.names_path}: {key} is no list of names")
        return content

    def data_files(self) -> list[Path]:
        """All files that are read."""
        splits = [split for split in self.splits if split not in dict(self.division.fractions)]
        paths = [self.path(split, name) for split in splits for name in (*NAMES, GROUPS)]
        return [path for path in (*paths, self.names_path) if path.exists()]

    # Splits

    def read(self, split: str) -> dict[str, np.ndarray]:
        """The arrays of a split, checked.

        Raises:
            UsageError: an array does not fit the others, or a number is not finite that counts.
        """
        rows = self._rows_of(split)
        arrays = {name: column.all() for name, column in rows.items()}
        check_finite([(0, arrays[XS])], arrays.get(LENGTHS), rows[XS].place, self.missing)
        return arrays

    def open(self, split: str) -> dict[str, Rows]:
        """The arrays of a split, to be read row by row, whose inputs `count_missing` checks."""
        return self._rows_of(split)

    def count_missing(self, split: str) -> int:
        """How many inputs of a split are missing, once all are read and checked, as `read` does."""
        return _check_stored(self, split, self.stamps())

    def _rows_of(self, split: str) -> dict[str, Rows]:
        for name in (LENGTHS, MASK):
            self._check_presence(name)
        rows = {name: self.rows(split, name) for name in NAMES if self.has(split, name)}
        if WEIGHTS in rows and not as_float32(rows[WEIGHTS].all()).any():
            raise UsageError(f"{rows[WEIGHTS].path}: all weights of {split} are 0; needed is one above it")
        if split in self.labelled:
            self.weighted_targets(split)  # which checks them
        return rows

    def _check_presence(self, name: str) -> None:
        """Refuse an array of one split that another has not: its padding would be taken for data."""
        has = {split: self.has(split, name) for split in (self.labelled if name == MASK else self.splits)}
        if len(set(has.values())) > 1:
            present, absent = ([split for split in has if has[split] is is_there] for is_there in (True, False))
            raise UsageError(
                f"{self.folder}: {name} of {listing(present)} and not of {listing(absent)}, where padding would be "
                "read as data; needed are files of all splits, or of none"
            )

    def _source(self, split: str) -> str:
        """The split whose files a split's examples are in."""
        return TRAIN if split in dict(self.division.fractions) else split

    def order(self, split: str) -> np.ndarray | None:
        """Which rows of the files a split consists of; None for all of them."""
        if not self.division.fractions or self._source(split) != TRAIN:
            return None
        return _divide(self, self.stamps())[split]

    def stamps(self) -> tuple[FileStamp, ...]:
        """Of all files: what is known of them holds as long as these are the same."""
        return tuple(stamp_of(path) for path in self.data_files())

    def rows(self, split: str, name: str) -> Rows:
        """An array of a split, once its shape is right beside the others.

        Raises:
            UsageError: it is not.
        """
        source = self._source(split)
        rows, first = self._stored_there(source, name), self._stored_there(TRAIN, name)
        rows = SHAPE_CHECKS[name](rows, first, self._stored_there(source, XS).shape)
        order = self.order(split)
        return rows if order is None else rows.ordered(order)

    def _stored_there(self, split: str, name: str) -> Rows:
        rows = self.stored(split, name)
        if rows is None:
            raise UsageError(f"{self.path(split, name)}: missing")
        return rows

    def division_labels(self) -> dict[str, np.ndarray | None]:
        """The class and the group of every training example, by which they may be divided; None where it has none."""
        targets = self.rows(TRAIN, TARGETS)
        classes = targets.all() if are_classes(targets.dtype) and not self.per_step else None
        groups = self.rows(TRAIN, GROUPS).all() if self.has(TRAIN, GROUPS) else None
        return {"classes": classes, "groups": groups}

    def fold_numbers(self, folds: int) -> np.ndarray:
        """Which of so many folds each training example is in; see `gru_jax.data.division.fold_numbers`."""
        return _fold_numbers(self, folds, self.stamps())

    # Targets

    @property
    def labelled(self) -> tuple[str, ...]:
        """The splits that have targets, all but, where it is so, the test."""
        return tuple(split for split in self.splits if self.has(split, TARGETS))

    @property
    def per_step(self) -> bool:
        """Whether there is a target for each step."""
        targets = self.rows(TRAIN, TARGETS)
        return len(targets.shape) == (2 if are_classes(targets.dtype) else 3)

    @property
    def codes(self) -> tuple[int, ...]:
        """The whole numbers that stand for the classes in the files, by default those that occur; empty for others."""
        if not are_classes(self.rows(TRAIN, TARGETS).dtype):
            return ()
        return _codes(self, self.stamps())

    @property
    def classes(self) -> int:
        """How many there are, 0 where targets are numbers or labels."""
        return len(self.codes)

    def weighted_targets(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """The targets that count, as the loss takes them, and how much each does; sequences count the same, 1 in all.

        Raises:
            UsageError: a target is not usable, or a sequence has no step that counts.
        """
        values, weights = self.stored_targets(split)
        if are_classes(self.rows(TRAIN, TARGETS).dtype):
            return np.searchsorted(self.codes, values), weights
        scale = self.facts().targets_scale
        return values if scale is None else (values - scale.mean) / scale.deviation, weights

    def stored_targets(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """The targets that count, one after the other, as they stand in the files, and how much each does."""
        targets = self.rows(split, TARGETS)
        values = targets.all()
        if self.per_step:
            steps = self._step_weights(split)
            counts, weights = steps > 0, steps.astype(np.float64)
            values, weights = values[counts], (weights / weights.sum(axis=1, keepdims=True))[counts] / len(weights)
        elif self.has(split, MASK):
            raise UsageError(
                f"{self.rows(split, MASK).path}: a mask needs a target for each step; there is one for a sequence"
            )
        else:
            counts, weights = np.ones(len(values), bool), np.full(len(values), 1 / max(1, len(values)))
        if not are_classes(targets.dtype):
            if targets.dtype.kind == "f":
                self._check_numbers(targets, counts, values)
            return values.astype(np.float64), weights
        wrong = np.less(values, 0) | np.greater(values, np.iinfo(np.int32).max)
        if wrong.any():
            hint = "; steps that do not count go by a mask" if self.per_step else ""
            allowed = f"allowed are whole numbers from 0, a class each, of 32 bits{hint}"
            raise UsageError(f"{_place_of(targets, counts, wrong)}: holds {values[wrong][0]}; {allowed}")
        return values, weights

    def _check_numbers(self, targets: Rows, counts: np.ndarray, values: np.ndarray) -> None:
        wrong = ~np.isfinite(as_float32(values)).all(axis=-1)
        if wrong.any():
            number = values[wrong][0]
            number = number[~np.isfinite(as_float32(number))][0]
            allowed = "allowed are finite numbers of 32 bits, where they count"
            raise UsageError(f"{_place_of(targets, counts, wrong)}: holds {number}; {allowed}")
        if self.allows_one_hot or values.shape[-1] < 2 or not len(values):
            return
        if np.isin(values, (0, 1)).all() and (values.sum(axis=-1) == 1).all():
            raise UsageError(
                f"{targets.path}: its numbers are one-hot, of which a squared error would be learnt; classes are whole "
                "numbers, as targets.argmax(axis=-1) gives, and task.allow_one_hot=true takes them for numbers"
            )

    def _step_weights(self, split: str) -> np.ndarray:
        """How much each step of each sequence counts, `[N, T]`, in the type that the loss uses."""
        count, time = self.rows(split, XS).shape[:2]
        where, weights = self.path(split, MASK), np.ones((count, time), USED.dtype)
        if self.has(split, MASK):
            rows = self.rows(split, MASK)
            mask, where = rows.all(), rows.path
            weights = as_float32(mask)
            wrong = ~(np.isfinite(weights) & (weights >= 0))
            if wrong.any():
                place = rows.place(*(int(i) for i in np.argwhere(wrong)[0]))
                raise UsageError(f"{place}: holds {mask[wrong][0]}; allowed are finite numbers from 0 up, of 32 bits")
        if self.has(split, LENGTHS):
            weights = weights * (np.arange(time) < self.rows(split, LENGTHS).all()[:, None])
        weights = np.where(weights < LEAST_WEIGHT, 0, weights)
        with np.errstate(over="ignore"):
            sums = weights.sum(axis=1)
        empty, full = np.flatnonzero(sums == 0), np.flatnonzero(np.isinf(sums))
        if empty.size:
            raise UsageError(f"{where}: in row {empty[0]} no step counts; numbers below {LEAST_WEIGHT:.2g} are 0")
        if full.size:
            raise UsageError(f"{where}: row {full[0]} adds up to more than {USED.max:.2g}, the most that 32 bits hold")
        return weights

    # What is known of them

    def facts(self) -> DataFacts:
        """What is known of the data; reads all training examples where their means are needed."""
        return _facts(self, self.stamps())

    def input_scale(self) -> FeatureScale:
        """Means and deviations of the inputs in training."""
        rows = self.rows(TRAIN, XS)
        lengths = self.rows(TRAIN, LENGTHS).all() if self.has(TRAIN, LENGTHS) else None
        return FeatureScale(*(tuple(v.tolist()) for v in measure_features(rows.blocks(), lengths, rows.shape[2])))

    def target_scale(self) -> FeatureScale:
        """Means and deviations of targets that are numbers, in training."""
        values, _ = self.stored_targets(TRAIN)
        blocks = [(0, values[:, None])]
        return FeatureScale(*(tuple(v.tolist()) for v in measure_features(blocks, None, values.shape[1])))


@functools.lru_cache(maxsize=64)
def _facts(files: ArrayFiles, stamps: tuple[FileStamp, ...]) -> DataFacts:
    del stamps
    xs, targets, codes, names = files.rows(TRAIN, XS), files.rows(TRAIN, TARGETS), files.codes, files.stored_names()
    width = 1 if are_classes(targets.dtype) else targets.shape[-1]
    are_labels = targets.dtype.kind == "b"
    files.stored_targets(TRAIN)  # which checks them
    named = {
        "features": names.get("features", [f"x{i}" for i in range(xs.shape[2])]),
        "classes": names.get("classes", [str(code) for code in codes]),
        "targets": names.get("targets", ["target"] if width == 1 else [f"target{i}" for i in range(width)]),
    }
    for key, count in {"features": xs.shape[2], "classes": len(codes), "targets": width}.items():
        if len(named[key]) != count or len(set(named[key])) != count:
            raise UsageError(f"{files.names_path}: {len(named[key])} {key}; needed are {count} names, all different")
    return DataFacts(
        time=xs.shape[1],
        per_step=files.per_step,
        codes=codes,
        sizes={split: files.rows(split, XS).shape[0] for split in files.splits},
        unlabelled=tuple(split for split in files.splits if split not in files.labelled),
        inputs_scale=files.input_scale() if files.scales or files.missing == "mean" else None,
        targets_scale=files.target_scale() if files.scales and not (codes or are_labels) else None,
        are_labels=are_labels,
        features=tuple(named["features"]),
        classes=tuple(named["classes"]),
        targets=tuple(named["targets"]),
    )


@functools.lru_cache(maxsize=64)
def _codes(files: ArrayFiles, stamps: tuple[FileStamp, ...]) -> tuple[int, ...]:
    del stamps
    names, codes = files.stored_names(), None
    if files.classes_wanted is not None or "classes" in names:
        codes = range(files.classes_wanted or len(names["classes"]))
    occurring = {split: np.unique(files.stored_targets(split)[0]) for split in files.labelled}
    if codes is None:
        return tuple(int(code) for code in np.unique(np.concatenate(list(occurring.values()))))
    for split, values in occurring.items():
        if values.max(initial=0) >= len(codes):
            path = files.rows(split, TARGETS).path
            raise UsageError(f"{path}: holds {values.max()}; allowed are 0 to {len(codes) - 1}, {len(codes)} classes")
    return tuple(codes)


@functools.lru_cache(maxsize=64)
def _divide(files: ArrayFiles, stamps: tuple[FileStamp, ...]) -> dict[str, np.ndarray]:
    """The rows of the training files that each split consists of."""
    del stamps
    whole = dataclasses.replace(files, division=Division(), splits=(TRAIN,))
    labels, count = whole.division_labels(), whole.rows(TRAIN, XS).shape[0]
    rest, division = np.arange(count), {}
    for split, fraction in files.division.fractions:
        of_rest = {name: None if values is None else values[rest] for name, values in labels.items()}
        share = min(1.0, fraction * count / len(rest))
        rows = held_out(len(rest), share, files.division.by, HELD_OUT_SEED, **of_rest)
        division[split], rest = rest[rows], np.delete(rest, rows)
    return {**division, TRAIN: rest}


@functools.lru_cache(maxsize=64)
def _fold_numbers(files: ArrayFiles, folds: int, stamps: tuple[FileStamp, ...]) -> np.ndarray:
    del stamps
    count, by = files.rows(TRAIN, XS).shape[0], files.division.by
    labels = files.division_labels() if by in ("stratified", "group") else {}
    return fold_numbers(count, folds, by, HELD_OUT_SEED, **labels)


@functools.lru_cache(maxsize=64)
def _check_stored(files: ArrayFiles, split: str, stamps: tuple[FileStamp, ...]) -> int:
    del stamps
    rows = files.rows(split, XS)
    lengths = files.rows(split, LENGTHS).all() if files.has(split, LENGTHS) else None
    return check_finite(rows.blocks(), lengths, rows.place, files.missing)


def _place_of(targets: Rows, counts: np.ndarray, wrong: Any) -> str:
    """Where the first wrong one of the targets that count is."""
    return targets.place(*(int(i) for i in np.argwhere(counts)[np.flatnonzero(wrong)[0]]))
