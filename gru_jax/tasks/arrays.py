"""Sequences of one's own."""

from __future__ import annotations

import abc
import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Integer

from gru_jax.data.arrays import LENGTHS, MASK, TARGETS, WEIGHTS, XS, check_input
from gru_jax.data.checks import Missing
from gru_jax.data.files import data_root, files_by_name
from gru_jax.data.npy import MemoryRows, Rows
from gru_jax.errors import UsageError, check_choice
from gru_jax.runtime.files import FileStamp
from gru_jax.settings import setting
from gru_jax.tasks.array_baselines import baselines_of_arrays
from gru_jax.tasks.array_files import FOLDED_SPLITS, LEAST_WEIGHT, TEST, ArrayFiles, Division
from gru_jax.tasks.array_shapes import SHAPE_CHECKS
from gru_jax.tasks.array_targets import check_new_targets, checked_class_weights
from gru_jax.tasks.array_writing import write_arrays
from gru_jax.tasks.base import SPLITS, Batch, FromFiles
from gru_jax.tasks.describing import describe_sequences
from gru_jax.tasks.facts import DataFacts, FeatureScale
from gru_jax.tasks.labels import answers_of_labels, label_metrics, read_labels
from gru_jax.tasks.reading import read_numbers


@dataclasses.dataclass(frozen=True)
class Sequences(FromFiles):
    """Classify or label sequences, or predict numbers from them, that are read from files.

    The loss of classes is cross-entropy; that of labels, of which several may hold, the binary cross-entropy of a
    sigmoid, mean over O; that of numbers the squared error, mean over O. With targets at each step it is the mean over
    a sequence's steps, weighted by the mask, and those beyond its length do not count. Sequences count the same. All
    splits are looked at before a training begins: a number that is not finite is refused where it counts.

    Baselines know the training data alone: the mean, or the shares of the classes; and of forecasts, whose targets are
    nearer to the past of an input channel than to their mean, persistence and the seasonal naive.

    Attributes:
        class_weights: factor of the loss for each class; None for 1.
        classes: how many there are, from 0, whether they occur or not; None for those that occur.
        missing: what inputs that are NaN are taken for: error, which refuses them; zero; mean, their feature's in
            training; or mask, 0 beside an input for each feature that is 1 where it is missing.
        scale: whether inputs and targets that are numbers are brought to mean 0 and deviation 1 of the training
            examples; predictions are in the units of the files all the same.
        valid_fraction: of the training examples, what is held out for validation; None where it has files.
        test_fraction: of the training examples, what is held out for the test; None where it has files.
        allow_one_hot: whether targets may be numbers of which one is 1 and the others 0.

    Examples:
        >>> from gru_jax.tasks import Arrays  # one of its subclasses
        >>> Arrays.missing, Arrays.scale
        ('error', False)
    """

    class_weights: tuple[float, ...] | None = setting(None, low=0.0, kw_only=True)
    classes: int | None = setting(None, low=1, high=10**6, kw_only=True)
    missing: Missing = setting("error", kw_only=True)
    scale: bool = setting(False, kw_only=True)
    valid_fraction: float | None = setting(None, low=1e-6, high=0.999, kw_only=True)
    test_fraction: float | None = setting(None, low=1e-6, high=0.999, kw_only=True)
    allow_one_hot: bool = setting(False, kw_only=True)

    def __post_init__(self) -> None:
        if self.class_weights is not None:
            object.__setattr__(self, "class_weights", checked_class_weights(self.class_weights))
        super().__post_init__()
        if self.class_weights is not None:
            classes = len(self.facts.codes)
            if len(self.class_weights) != classes:
                needed = (
                    f"needed is one for each of {classes} classes"
                    if classes
                    else "targets that are numbers have no classes"
                )
                raise UsageError(f"class_weights={self.class_weights}: {needed}")

    @property
    @abc.abstractmethod
    def _files(self) -> ArrayFiles:
        """Where the arrays are."""

    def _options(self, has_files: Callable[[str], bool]) -> dict[str, Any]:
        """What `ArrayFiles` takes of the settings; it is asked which splits have files."""
        splits = SPLITS if self.folds is None else FOLDED_SPLITS
        fractions = {"test": self.test_fraction, "valid": self.valid_fraction}
        for split, fraction in fractions.items():
            if fraction is not None and (split not in splits or has_files(split)):
                why = "with folds there is no such split" if split not in splits else "it has files of its own"
                raise UsageError(f"{split}_fraction={fraction:g}: without effect, {why}")
        held = tuple((split, fraction) for split, fraction in fractions.items() if fraction is not None)
        return {
            "splits": splits,
            "division": Division(held, self.divide_by),
            "classes_wanted": self.classes,
            "missing": self.missing,
            "scales": self.scale,
            "allows_one_hot": self.allow_one_hot,
        }

    @property
    def is_divided(self) -> bool:
        return super().is_divided or self.valid_fraction is not None or self.test_fraction is not None

    @property
    def facts(self) -> DataFacts:
        if isinstance(self.stored_facts, DataFacts):
            return self.stored_facts
        facts = self._files.facts()
        if self.folds is None or self.divide_by != "group":
            return facts
        sizes = np.bincount(self.fold_numbers(), minlength=self.folds)
        return dataclasses.replace(facts, fold_sizes=tuple(sizes.tolist()))

    def fold_numbers(self) -> np.ndarray:
        return self._files.fold_numbers(self.folds or 1)

    def fold_sizes(self) -> Sequence[int]:
        return self.facts.fold_sizes or super().fold_sizes()

    @property
    def goal(self) -> tuple[str, str]:  # type: ignore[override]
        return ("accuracy", "max") if self.facts.codes else ("loss", "min")

    @property
    def readout(self) -> str:  # type: ignore[override]
        return "every" if self.facts.per_step else "last"

    @property
    def input_size(self) -> int:
        return len(self.facts.features) * (2 if self.missing == "mask" else 1)

    @property
    def output_size(self) -> int:
        return len(self.facts.codes) or len(self.facts.targets)

    @property
    def time(self) -> int:
        return self.facts.time

    @property
    def scored_splits(self) -> tuple[str, ...]:
        return tuple(split for split in super().scored_splits if split not in self.facts.unlabelled)

    @property
    def baseline(self) -> Mapping[str, float]:
        return next(iter(self.baselines.values()), {})

    @property
    def baselines(self) -> Mapping[str, Mapping[str, float]]:
        return _baselines(self, self._files.stamps())

    def count(self, split: str) -> int:
        return self.facts.sizes[split]

    def open(self, split: str) -> dict[str, Rows]:
        return self._files.open(split)

    def read(self, split: str) -> dict[str, np.ndarray]:
        return self._files.read(split)

    def train_lengths(self) -> Integer[np.ndarray, " N"] | None:
        if not self._files.has("train", LENGTHS):
            return None
        lengths = self._files.rows("train", LENGTHS).all()
        return lengths[self.order("train")] if self.is_chosen("train") else lengths

    def data_files(self) -> Mapping[str, Path]:
        return files_by_name(self.data_dir, lambda: self._files.data_files())

    def check_rows(self, split: str) -> None:
        self._files.open(split)
        self._files.count_missing(split)

    def describe_data(self) -> list[str]:
        return describe_sequences(self._files)

    def examples(self, data: Mapping[str, Array], index: Int[Array, " B"]) -> Batch:
        xs = self.network_inputs(data[XS][index].astype(jnp.float32))
        lengths = data[LENGTHS][index].astype(jnp.int32) if LENGTHS in data else None
        targets = self._targets(data[TARGETS][index])
        weights = data[WEIGHTS][index].astype(jnp.float32) if WEIGHTS in data else None
        if not self.facts.per_step:
            return Batch(xs, targets, lengths, weights=weights)
        mask = data[MASK][index].astype(jnp.float32) if MASK in data else jnp.ones(xs.shape[:2])
        if lengths is not None:
            mask = jnp.where(jnp.arange(xs.shape[1])[None] < lengths[:, None], mask, 0.0)
        counts = (mask if self.facts.codes else mask[..., None]) >= LEAST_WEIGHT
        return Batch(xs, jnp.where(counts, targets, 0), lengths, mask, weights=weights)

    def network_inputs(self, xs: Array) -> Array:
        absent, scale = jnp.isnan(xs), self.facts.inputs_scale or FeatureScale((0.0,), (1.0,))
        mean, deviation = (_beside(values, xs) for values in (scale.mean, scale.deviation))
        if self.missing == "zero":
            xs = jnp.where(absent, 0.0, xs)
        elif self.missing in ("mean", "mask"):
            xs = jnp.where(absent, mean, xs)
        if self.scale:
            xs = (xs - mean) / deviation
        return jnp.concatenate([xs, absent.astype(xs.dtype)], axis=-1) if self.missing == "mask" else xs

    def _targets(self, stored: Array) -> Array:
        """Targets as the loss takes them."""
        codes, scale = self.facts.codes, self.facts.targets_scale
        if codes:
            classes = stored.astype(jnp.int32)
            is_counted = codes == tuple(range(len(codes)))
            return classes if is_counted else jnp.searchsorted(jnp.asarray(codes, jnp.int32), classes)
        targets = stored.astype(jnp.float32)
        if scale is None:
            return targets
        return (targets - _beside(scale.mean, targets)) / _beside(scale.deviation, targets)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.facts.classes

    def read_outputs(self, outputs: np.ndarray) -> Mapping[str, np.ndarray]:
        if self.facts.codes:
            return super().read_outputs(outputs)
        if self.facts.are_labels:
            return read_labels(outputs, self.facts.targets)
        return read_numbers(self._in_units(outputs), self.facts.targets)

    def read_targets(self, targets: np.ndarray) -> Mapping[str, np.ndarray]:
        if self.facts.codes:
            return super().read_targets(targets)
        if self.facts.are_labels:
            return read_numbers(targets > 0, self.facts.targets, "target ")
        return read_numbers(self._in_units(targets), self.facts.targets, "target ")

    def _in_units(self, values: np.ndarray) -> np.ndarray:
        """Numbers as the loss takes them, in the units of the files."""
        scale, values = self.facts.targets_scale, np.asarray(values, np.float64)
        return values if scale is None else values * scale.deviation + scale.mean

    def check_new(
        self, arrays: Mapping[str, np.ndarray], path: Path, place: Callable[..., str] | None = None
    ) -> Mapping[str, np.ndarray]:
        arrays = check_input(arrays, path, len(self.facts.features), self.missing, place)
        if WEIGHTS in arrays:
            rows = MemoryRows.of_array(path, arrays[WEIGHTS], place)
            SHAPE_CHECKS[WEIGHTS](rows, rows, arrays[XS].shape)
        if TARGETS in arrays:
            check_new_targets(self.facts, arrays, path)
        return arrays

    def metrics(self, outputs: Array, batch: Batch) -> dict[str, Float[Array, " B"]]:
        values = self._values(outputs, batch.targets)
        if batch.mask is None:
            return values
        share = (batch.mask / batch.mask.sum(axis=1, keepdims=True)).astype(outputs.dtype)
        return {name: (value * share).sum(axis=1) for name, value in values.items()}

    def answers(self, outputs: Array, batch: Batch) -> tuple[Array, Array, Array]:
        outputs, targets, weights = super().answers(outputs, batch)
        return answers_of_labels(outputs, targets, weights) if self.facts.are_labels else (outputs, targets, weights)

    def _values(self, outputs: Array, targets: Array) -> dict[str, Array]:
        """Loss and metrics of each target."""
        if self.facts.are_labels:
            return label_metrics(outputs, targets)
        if not self.facts.codes:
            return {"loss": optax.squared_error(outputs, targets.astype(outputs.dtype)).mean(axis=-1)}
        loss = optax.softmax_cross_entropy_with_integer_labels(outputs, targets)
        if self.class_weights is not None:
            loss = loss * jnp.asarray(self.class_weights, loss.dtype)[targets]
        return {"loss": loss, "accuracy": (outputs.argmax(axis=-1) == targets).astype(jnp.float32)}


@dataclasses.dataclass(frozen=True)
class Arrays(Sequences):
    """Classify or label sequences, or predict numbers from them, that stand in `.npy` files, of any size.

    Below the data directory are, for each SPLIT of train, valid and test, or with folds of train and test alone, in
    `folder`:

    - `<SPLIT>_xs.npy`, `[N, T, D]`;
    - `<SPLIT>_targets.npy`: whole numbers, classes from 0, one for a sequence `[N]` or for each step `[N, T]`; or
      floats, or booleans for labels of which several may hold, `[N, O]` or `[N, T, O]`; without those of the test there
      is no test score;
    - `<SPLIT>_lengths.npy`, where sequences differ in length, whole numbers `[N]`;
    - `<SPLIT>_mask.npy`, where steps with targets count unequally, numbers from 0 up, `[N, T]`;
    - `<SPLIT>_weights.npy`, where sequences count unequally, numbers from 0 up, `[N]`;
    - `train_groups.npy`, where whole groups of sequences are held out, whole numbers `[N]`;
    - `names.json`, where there are names of `classes`, `features` or `targets`.

    `write` puts arrays there.

    Attributes:
        folder: below the data directory.

    Examples:
        >>> import tempfile
        >>> import numpy as np
        >>> from gru_jax.tasks import Arrays
        >>> folder = tempfile.TemporaryDirectory()
        >>> xs, targets = np.zeros((6, 5, 3), np.float32), np.arange(6) % 2
        >>> three = {split: (xs, targets) for split in ("train", "valid", "test")}
        >>> task = Arrays.write(f"{folder.name}/mine", **three)
        >>> task.time, task.input_size, task.output_size, task.goal
        (5, 3, 2, ('accuracy', 'max'))
        >>> folder.cleanup()
    """

    folder: str = setting("arrays")

    @classmethod
    def write(
        cls,
        folder: str | os.PathLike[str],
        *,
        columns: Mapping[str, str] | None = None,
        class_names: Sequence[str] | None = None,
        **splits_and_settings: Any,
    ) -> Arrays:
        """Write arrays into a folder, and give the task that reads them, now and when a run goes on.

        Args:
            folder: the folder, which need not exist; files of these names there are replaced.
            columns: what arrays are called in dicts, by the names they have here, as `{"targets": "label"}`; others are
                left out.
            class_names: of the classes 0, 1, ….
            splits_and_settings: train, valid and test: arrays `(xs, targets)` or `(xs, targets, lengths)`, or a dict of
                arrays by name (`xs`, `targets`, `lengths`, `mask`, `weights`, `groups`); or a data set of Hugging Face,
                TFDS (as NumPy) or Grain, or any other iterable of examples, each a tuple or dict of one sequence:
                those of unequal length are padded, and their lengths noted. Targets and mask at each step are as many
                as the steps. Classes may be texts, which are their names then. Lengths or a mask that are None are
                none, and targets of the test. With folds valid may be left out, and valid and test with a fraction. And
                settings of the task.

        Raises:
            UsageError: a split is missing, or arrays are not as the class says.
        """
        path = Path(os.path.abspath(folder))  # without .., which would name another folder below its parent
        splits = {name: value for name, value in splits_and_settings.items() if name in SPLITS and value is not None}
        settings = {name: value for name, value in splits_and_settings.items() if name not in SPLITS}
        for name in settings:
            check_choice("argument", name, [field.name for field in dataclasses.fields(cls)] + list(SPLITS))
        if settings.get("class_weights") is not None:
            settings["class_weights"] = checked_class_weights(settings["class_weights"])

        def task(at: Path) -> Arrays:
            return cls(data_dir=str(at.parent), folder=at.name, **settings)

        needed = SPLITS if settings.get("folds") is None else FOLDED_SPLITS
        needed = [split for split in needed if settings.get(f"{split}_fraction") is None]

        def check(at: Path) -> None:
            written = task(at)
            for split in written._files.splits:
                written.check_rows(split)

        write_arrays(path, splits, needed, check, columns, class_names)
        return task(path)

    def __post_init__(self) -> None:
        if self.folder.startswith(("/", "~")) or ".." in self.folder.split("/"):
            raise UsageError(f"folder={self.folder!r}: allowed is a folder below the data directory")
        super().__post_init__()

    @property
    def _files(self) -> ArrayFiles:
        folder = data_root(self.data_dir) / self.folder
        return ArrayFiles(folder, **self._options(lambda split: ArrayFiles(folder).path(split, XS).exists()))


def _beside(values: Sequence[float], array: Array) -> Array:
    """Numbers of the last axis of an array, in its shape and type."""
    return jnp.broadcast_to(jnp.asarray(values, array.dtype), array.shape)


@functools.lru_cache(maxsize=64)
def _baselines(task: Sequences, stamps: tuple[FileStamp, ...]) -> Mapping[str, Mapping[str, float]]:
    del stamps
    if TEST not in task.scored_splits:
        return {}
    order = task.order("train") if task.is_chosen("train") else None
    return baselines_of_arrays(task._files, order, task.class_weights)
