"""Sequences of one's own."""

from __future__ import annotations

import dataclasses
import functools
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from gru_jax.data.files import data_root
from gru_jax.data.npy import Rows, open_rows
from gru_jax.errors import UsageError, check_choice, listing
from gru_jax.settings import setting
from gru_jax.tasks.base import SPLITS, Batch, FromFiles, classification

XS, TARGETS, LENGTHS = "xs", "targets", "lengths"
MAX_CLASSES = 10**6


@dataclasses.dataclass(frozen=True)
class Arrays(FromFiles):
    """Classify sequences, or predict numbers from them, that stand in `.npy` files, of any size.

    Below the data directory are, for each SPLIT of train, valid and test, `<folder>/<SPLIT>_xs.npy`, `[N, T, D]`;
    `<folder>/<SPLIT>_targets.npy`, whole numbers `[N]`, classes from 0, or floats `[N, O]`; and, where sequences
    differ in length, `<folder>/<SPLIT>_lengths.npy`, whole numbers `[N]`. The loss of classes is cross-entropy, that
    of numbers the squared error, mean over O. The score without memory is that of the most frequent class, or of the
    mean, of the test targets. `write` puts arrays there.

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
    def write(cls, folder: str | os.PathLike[str], **splits: Sequence[Any] | Mapping[str, Any]) -> Arrays:
        """Write arrays into a folder, and give the task that reads them, now and when a run goes on.

        Args:
            folder: the folder, which need not exist; files of these names there are replaced.
            splits: train, valid and test: `(xs, targets)` or `(xs, targets, lengths)`, or a dict with these names.

        Raises:
            UsageError: a split is missing, or arrays are not as the class says.
        """
        path = Path(folder).absolute()
        if set(splits) != set(SPLITS):
            raise UsageError(f"splits={listing(splits)}: needed are {listing(SPLITS)}")
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path) as part:  # what is there stays until the new is known to be sound
            for split, arrays in splits.items():
                named = (
                    arrays if isinstance(arrays, Mapping) else dict(zip((XS, TARGETS, LENGTHS), arrays, strict=False))
                )
                for name, array in named.items():
                    check_choice(f"{split}: array", name, (XS, TARGETS, LENGTHS))
                    np.save(Path(part) / f"{split}_{name}.npy", np.asarray(array), allow_pickle=False)
            written = cls(data_dir=str(path), folder=Path(part).name)
            for split in SPLITS:
                try:
                    written.open(split)
                except UsageError as error:
                    raise UsageError(str(error).replace(part, str(path))) from error
            for split in SPLITS:
                for name in (XS, TARGETS, LENGTHS):
                    (path / f"{split}_{name}.npy").unlink(missing_ok=True)
            for file in Path(part).iterdir():
                file.rename(path / file.name)
        return cls(data_dir=str(path.parent), folder=path.name)

    def __post_init__(self) -> None:
        if self.folder.startswith(("/", "~")) or ".." in self.folder.split("/"):
            raise UsageError(f"folder={self.folder!r}: allowed is a folder below the data directory")
        super().__post_init__()

    @property
    def goal(self) -> tuple[str, str]:  # type: ignore[override]
        return ("accuracy", "max") if self._classes else ("loss", "min")

    @property
    def input_size(self) -> int:
        return self._file("train", XS).shape[2]

    @property
    def output_size(self) -> int:
        return self._classes or self._file("train", TARGETS).shape[1]

    @property
    def time(self) -> int:
        return self._file("train", XS).shape[1]

    @property
    def baseline(self) -> Mapping[str, float]:
        targets = self._file("test", TARGETS).all()
        if not self._classes:
            return {"loss": float(np.var(targets.astype(np.float64), axis=0).mean())}
        shares = np.bincount(targets) / len(targets)
        shares = shares[shares > 0]
        return {"accuracy": float(shares.max()), "loss": float(-(shares * np.log(shares)).sum())}

    def count(self, split: str) -> int:
        return self._file(split, XS).shape[0]

    def open(self, split: str) -> dict[str, Rows]:
        names = [XS, TARGETS, *([LENGTHS] if self._path(split, LENGTHS).exists() else [])]
        return {name: self._file(split, name) for name in names}

    def read(self, split: str) -> dict[str, np.ndarray]:
        return {name: rows.all() for name, rows in self.open(split).items()}

    def examples(self, data: Mapping[str, Array], index: Int[Array, " B"]) -> Batch:
        lengths = data[LENGTHS][index].astype(jnp.int32) if LENGTHS in data else None
        targets = data[TARGETS][index]
        kind = jnp.int32 if self._classes else jnp.float32
        return Batch(data[XS][index].astype(jnp.float32), targets.astype(kind), lengths)

    def metrics(self, outputs: Array, batch: Batch) -> dict[str, Float[Array, " B"]]:
        if self._classes:
            return classification(outputs, batch.targets)
        return {"loss": optax.squared_error(outputs, batch.targets.astype(outputs.dtype)).mean(axis=-1)}

    @property
    def _classes(self) -> int:
        """How many there are, 0 where targets are numbers."""
        targets = self._file("train", TARGETS)
        if targets.dtype.kind == "f":
            return 0
        return 1 + max(_range(self._file(split, TARGETS))[1] for split in SPLITS)

    def _file(self, split: str, name: str) -> Rows:
        """A file, once its shape is right beside the others."""
        rows = open_rows(self._path(split, name))
        if name == XS:
            first = rows if split == "train" else open_rows(self._path("train", XS))
            _check(rows, len(rows.shape) == 3, "[N, T, D]")
            _check(rows, rows.shape[1:] == first.shape[1:], f"[N, {', '.join(map(str, first.shape[1:]))}]")
            return rows
        count = len(self._file(split, XS))
        first = rows if split == "train" else open_rows(self._path("train", TARGETS))
        if name == TARGETS and first.dtype.kind == "f":
            fine = len(rows.shape) == 2 and len(rows) == count and rows.shape[1:] == first.shape[1:]
            _check(rows, fine and rows.dtype.kind == "f", f"[{count}, O] of floats, O as in training")
            return rows
        _check(rows, rows.shape == (count,) and rows.dtype.kind in "iu", f"[{count}] of whole numbers")
        low, high = _range(rows)
        most = self.time if name == LENGTHS else MAX_CLASSES - 1
        least = 1 if name == LENGTHS else 0
        if low < least or high > most:
            outside = low if low < least else high
            raise UsageError(f"{rows.path}: holds {outside}; allowed are {least} to {most}")
        return rows

    def _path(self, split: str, name: str) -> Path:
        return data_root(self.data_dir) / self.folder / f"{split}_{name}.npy"


def _check(rows: Rows, fine: bool, needed: str) -> None:
    if not fine:
        raise UsageError(f"{rows.path}: of shape {list(rows.shape)} and type {rows.dtype}; needed is {needed}")


@functools.lru_cache(maxsize=64)
def _range(rows: Rows) -> tuple[int, int]:
    numbers = rows.all()
    return int(numbers.min()), int(numbers.max())
