"""Training examples in folds, for cross-validation."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from gru_jax.data.division import HELD_OUT_SEED, DivideBy, fold_numbers, fold_sizes
from gru_jax.errors import UsageError
from gru_jax.settings import setting


@dataclasses.dataclass(frozen=True)
class Folded(abc.ABC):
    """What has training examples that may be divided into folds, the same way in every run.

    One fold is validated on, the others are trained on; a validation set of files has no part in it. Folds by chance
    are of equal size, so that all are one program, and what is left over is trained on in each; others are of all
    examples.

    Attributes:
        train_share: of the training examples, after folds, the share that is trained on, drawn once and for all, the
            fewer among the more. What is known of the data, as a vocabulary or means, is of all of them.
        folds: folds for cross-validation; None for the training and validation sets as they are.
        fold: the one that is validated on, from 0.
        divide_by: how folds, and what is held out by a fraction, are chosen: at random; stratified, of each class the
            same share; whole groups; or by time, one stretch after the other, or the last.

    Examples:
        >>> from gru_jax.tasks import MNIST  # one of its subclasses
        >>> MNIST(folds=5, fold=1).size("valid")
        11000
    """

    train_share: float = setting(1.0, low=1e-6, high=1.0, kw_only=True)
    folds: int | None = setting(None, low=2, high=10**6, kw_only=True)
    fold: int = setting(0, low=0, kw_only=True)
    divide_by: DivideBy = setting("random", kw_only=True)

    @property
    def is_divided(self) -> bool:
        """Whether its training examples are divided by `divide_by`."""
        return self.folds is not None

    @abc.abstractmethod
    def count(self, split: str) -> int:
        """Examples in the files of a split."""

    def check_folds(self) -> None:
        """Raise `UsageError` where there is no such fold, or nothing is divided."""
        if self.fold and self.folds is None:
            raise UsageError(f"fold={self.fold}: without effect; task.folds says how many there are")
        if self.folds is not None and not self.fold < self.folds <= self.count("train"):
            raise UsageError(
                f"fold={self.fold}: allowed are 0 to {self.folds - 1}, and up to {self.count('train')} folds"
            )
        if self.divide_by != "random" and not self.is_divided:
            raise UsageError(
                f"divide_by={self.divide_by}: without effect; needed are task.folds, or in data of one's own a "
                "valid_fraction or a test_fraction"
            )

    def is_chosen(self, split: str) -> bool:
        """Whether a split is made of some of the training examples, those of `order`."""
        if self.folds is None:
            return split == "train" and self.train_share < 1
        return split != "test"

    def chosen_size(self, split: str) -> int:
        """How many examples `order` has."""
        size = self.count("train")
        if self.folds is not None:
            held_out = self.fold_sizes()[self.fold]
            size = held_out if split == "valid" else size - held_out
        return size if split == "valid" else max(1, round(self.train_share * size))

    def order(self, split: str) -> np.ndarray:
        """Which examples of the training files make up the training or the validation set; see `is_chosen`."""
        order = np.random.default_rng(HELD_OUT_SEED).permutation(self.count("train")).astype(np.int32)
        if self.folds is not None:
            is_held_out = self.fold_numbers()[order] == self.fold
            order = order[is_held_out if split == "valid" else ~is_held_out]
        return order[: self.chosen_size(split)] if self.train_share < 1 else order

    def fold_numbers(self) -> np.ndarray:
        """The fold that each example of the training files is in, under `folds`; -1 of those in none."""
        count, folds = self.count("train"), self.folds or 1
        return fold_numbers(count, folds, self.divide_by, HELD_OUT_SEED, **self.division_labels())

    def fold_sizes(self) -> Sequence[int]:
        """Examples in each fold, under `folds`."""
        folds = self.folds or 1
        sizes = fold_sizes(self.count("train"), folds, self.divide_by)
        return np.bincount(self.fold_numbers(), minlength=folds).tolist() if sizes is None else sizes

    def division_labels(self) -> Mapping[str, np.ndarray | None]:
        """`classes` and `groups` of all examples of the training files, where there are any to divide them by."""
        return {}
