"""Sequences of one's own."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from gru_jax.data.files import data_root
from gru_jax.data.npy import Rows
from gru_jax.errors import UsageError, in_one_line
from gru_jax.runtime.files import FileStamp, stamp_of
from gru_jax.settings import setting
from gru_jax.tasks.array_baselines import baselines_of_arrays
from gru_jax.tasks.array_files import (
    FOLDED_SPLITS,
    LEAST_WEIGHT,
    LENGTHS,
    MASK,
    NAMES,
    TARGETS,
    XS,
    ArrayFiles,
    as_used,
    write_arrays,
)
from gru_jax.tasks.base import SPLITS, Batch, FromFiles


@dataclasses.dataclass(frozen=True)
class Arrays(FromFiles):
    """Classify or label sequences, or predict numbers from them, that stand in `.npy` files, of any size.

    Below the data directory are, for each SPLIT of train, valid and test, or with folds of train and test alone, in
    `folder`:

    - `<SPLIT>_xs.npy`, `[N, T, D]`;
    - `<SPLIT>_targets.npy`: whole numbers, classes from 0, one for a sequence `[N]` or for each step `[N, T]`; or
      floats, `[N, O]` or `[N, T, O]`;
    - `<SPLIT>_lengths.npy`, where sequences differ in length, whole numbers `[N]`;
    - `<SPLIT>_mask.npy`, where steps with targets count unequally, numbers from 0 up, `[N, T]`.

    The loss of classes is cross-entropy, that of numbers the squared error, mean over O; with targets at each step it
    is the mean over a sequence's steps, weighted by the mask, and those beyond its length do not count. Sequences count
    the same. `write` puts arrays there.

    Baselines know the training data alone: the mean, or the shares of the classes; and of forecasts, whose targets are
    nearer to the past of an input channel than to their mean, persistence and the seasonal naive.

    Attributes:
        folder: where the files are, below the data directory.
        class_weights: factor of the loss for each class; None for 1.

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
    class_weights: tuple[float, ...] | None = setting(None, low=0.0)

    @classmethod
    def write(
        cls,
        folder: str | os.PathLike[str],
        *,
        class_weights: Sequence[float] | None = None,
        folds: int | None = None,
        **splits: Sequence[Any] | Mapping[str, Any] | Iterable[Any],
    ) -> Arrays:
        """Write arrays into a folder, and give the task that reads them, now and when a run goes on.

        Args:
            folder: the folder, which need not exist; files of these names there are replaced.
            class_weights: of the task.
            folds: of the task; with them valid may be left out.
            splits: train, valid and test: arrays `(xs, targets)` or `(xs, targets, lengths)`, or a dict of arrays by
                name (`xs`, `targets`, `lengths`, `mask`); or a Grain data set, or any other iterable of examples, each
                such a tuple or dict of one sequence: those of unequal length are padded, and their lengths noted.
                Targets and mask at each step are as many as the steps. Lengths or a mask that are None are none.

        Raises:
            UsageError: a split is missing, or arrays are not as the class says.
        """
        path = Path(os.path.abspath(folder))  # without .., which would name another folder below its parent
        weights = None if class_weights is None else _checked_weights(class_weights)

        def task(at: Path) -> Arrays:
            return cls(data_dir=str(at.parent), folder=at.name, class_weights=weights, folds=folds)

        write_arrays(path, splits, SPLITS if folds is None else FOLDED_SPLITS, check=task)
        return task(path)

    def __post_init__(self) -> None:
        if self.folder.startswith(("/", "~")) or ".." in self.folder.split("/"):
            raise UsageError(f"folder={self.folder!r}: allowed is a folder below the data directory")
        if self.class_weights is not None:
            object.__setattr__(self, "class_weights", _checked_weights(self.class_weights))
            classes = self._files.classes
            if len(self.class_weights) != classes:
                needed = (
                    f"needed is one for each of {classes} classes"
                    if classes
                    else "targets that are numbers have no classes"
                )
                raise UsageError(f"class_weights={self.class_weights}: {needed}")
        super().__post_init__()

    @property
    def _files(self) -> ArrayFiles:
        splits = SPLITS if self.folds is None else FOLDED_SPLITS
        return ArrayFiles(data_root(self.data_dir) / self.folder, splits)

    @property
    def goal(self) -> tuple[str, str]:  # type: ignore[override]
        return ("accuracy", "max") if self._files.classes else ("loss", "min")

    @property
    def readout(self) -> str:  # type: ignore[override]
        return "every" if self._files.per_step else "last"

    @property
    def input_size(self) -> int:
        return self._files.rows("train", XS).shape[2]

    @property
    def output_size(self) -> int:
        return self._files.classes or self._files.rows("train", TARGETS).shape[-1]

    @property
    def time(self) -> int:
        return self._files.rows("train", XS).shape[1]

    @property
    def baseline(self) -> Mapping[str, float]:
        return next(iter(self.baselines.values()))

    @property
    def baselines(self) -> Mapping[str, Mapping[str, float]]:
        files = self._files
        paths = [path for split in FOLDED_SPLITS for name in NAMES if (path := files.path(split, name)).exists()]
        return _baselines(self, tuple(map(stamp_of, paths)))

    def count(self, split: str) -> int:
        return self._files.rows(split, XS).shape[0]

    def open(self, split: str) -> dict[str, Rows]:
        return self._files.open(split)

    def read(self, split: str) -> dict[str, np.ndarray]:
        return {name: rows.all() for name, rows in self.open(split).items()}

    def examples(self, data: Mapping[str, Array], index: Int[Array, " B"]) -> Batch:
        xs = data[XS][index].astype(jnp.float32)
        lengths = data[LENGTHS][index].astype(jnp.int32) if LENGTHS in data else None
        targets = data[TARGETS][index].astype(jnp.int32 if self._files.classes else jnp.float32)
        if not self._files.per_step:
            return Batch(xs, targets, lengths)
        mask = data[MASK][index].astype(jnp.float32) if MASK in data else jnp.ones(xs.shape[:2])
        if lengths is not None:
            mask = jnp.where(jnp.arange(xs.shape[1])[None] < lengths[:, None], mask, 0.0)
        counts = (mask if self._files.classes else mask[..., None]) >= LEAST_WEIGHT
        return Batch(xs, jnp.where(counts, targets, 0), lengths, mask)

    def metrics(self, outputs: Array, batch: Batch) -> dict[str, Float[Array, " B"]]:
        values = self._values(outputs, batch.targets)
        if batch.mask is None:
            return values
        share = (batch.mask / batch.mask.sum(axis=1, keepdims=True)).astype(outputs.dtype)
        return {name: (value * share).sum(axis=1) for name, value in values.items()}

    def _values(self, outputs: Array, targets: Array) -> dict[str, Array]:
        """Loss and metrics of each target."""
        if not self._files.classes:
            return {"loss": optax.squared_error(outputs, targets.astype(outputs.dtype)).mean(axis=-1)}
        loss = optax.softmax_cross_entropy_with_integer_labels(outputs, targets)
        if self.class_weights is not None:
            loss = loss * jnp.asarray(self.class_weights, loss.dtype)[targets]
        return {"loss": loss, "accuracy": (outputs.argmax(axis=-1) == targets).astype(jnp.float32)}


@functools.lru_cache(maxsize=64)
def _baselines(task: Arrays, stamps: tuple[FileStamp, ...]) -> Mapping[str, Mapping[str, float]]:
    del stamps
    order = None if task.folds is None else task.order("train")
    return baselines_of_arrays(task._files, order, task.class_weights)


def _checked_weights(weights: Any) -> tuple[float, ...]:
    """Weights of classes as the loss can use them."""
    try:
        factors = np.asarray(weights, np.float64)
    except (TypeError, ValueError, OverflowError):
        factors = np.array(np.nan)
    used = as_used(factors)
    if factors.ndim != 1 or not (np.isfinite(used) & (used >= 0)).all() or not used.any():
        shown = in_one_line(repr(weights))[:100]
        raise UsageError(f"class_weights={shown}: allowed is a finite number from 0 up for each class, not all 0")
    return tuple(factors.tolist())
