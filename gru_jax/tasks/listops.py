"""ListOps: what nested operations on lists of digits come to."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gru_jax.data.arrays import LENGTHS, TARGETS, XS
from gru_jax.data.division import HELD_OUT_SEED
from gru_jax.data.files import DataFile, locate
from gru_jax.data.listops import (
    DIGITS,
    END,
    TOKENS,
    Expression,
    draw_expressions,
    load_expressions,
    parse_expression,
    with_brackets,
)
from gru_jax.data.texts import load_text
from gru_jax.errors import UsageError
from gru_jax.runtime.files import FileStamp, stamp_of
from gru_jax.settings import setting
from gru_jax.tasks.base import MEMORYLESS, ORDER, SPLITS, Batch, FromFiles, classification
from gru_jax.tasks.facts import DataFacts
from gru_jax.tasks.tokens import shares_in_training

LISTOPS_FILE = DataFile(
    "listops/test_d20s.tsv",
    "71335416e6896e8dd8dc69281c8ed9b37316382d05d3705d660461564e843840",
    "https://raw.githubusercontent.com/nyu-mll/spinn/listops-release/python/spinn/data/listops/test_d20s.tsv",
)
TRAIN_SIZE, VALID_SIZE = 100_000, 2_000
HELD_OUT = {"valid": 0.1, "test": 0.1}
"""Of the expressions of the file, where they are all that there is."""


@dataclasses.dataclass(frozen=True)
class ListOps(FromFiles):
    """What nested operations on lists of digits come to, one digit. Nangia and Bowman 2018, arXiv:1804.06028.

    Operators are MAX, MIN, MED (the median, rounded down) and SM (the sum modulo 10), and lists are nested up to 20
    deep. The test set is the published one, 10,000 expressions. Those of training and validation are drawn of the same
    grammar, the same in every run; none of the test is among them, and none twice.

    Attributes:
        training: where training and validation examples come from: generated; or file, which cuts the published test
            set at random, the same way in every run, into 8 parts for training, 1 for validation and 1 for the test.
        min_length: least number of tokens; shorter expressions are left out in all splits.
        max_length: greatest number of tokens; longer ones are left out.
        brackets: whether the round brackets of the binary tree are tokens too: 3 T - 2 tokens, where there are T
            without.
        train_size: training expressions that are generated; None for 100,000.
        valid_size: validation expressions that are generated; None for 2,000.
        draw_seed: what generated expressions are drawn by.

    Examples:
        >>> from gru_jax.tasks import ListOps
        >>> task = ListOps(max_length=100)
        >>> task.time, task.input_size, task.size("train")  # the file is read, or downloaded, where data are asked for
        (100, 15, 100000)
    """

    goal: ClassVar[tuple[str, str]] = ("accuracy", "max")
    reads_tokens: ClassVar[bool] = True

    training: Literal["generated", "file"] = "generated"
    min_length: int = setting(1, low=1, high=10**4, kw_only=True)
    max_length: int = setting(500, low=1, high=10**4, kw_only=True)
    brackets: bool = setting(False, kw_only=True)
    train_size: int | None = setting(None, low=1, high=10**7, kw_only=True)
    valid_size: int | None = setting(None, low=1, high=10**7, kw_only=True)
    draw_seed: int = setting(0, low=0, high=2**31 - 1, kw_only=True)

    def __post_init__(self) -> None:
        if self.min_length > self.max_length:
            raise UsageError(f"min_length={self.min_length}: allowed are up to max_length={self.max_length}")
        for name in ("train_size", "valid_size", "draw_seed") if self.training == "file" else ():
            if value := getattr(self, name):
                raise UsageError(f"{name}={value}: without effect with training='file', where nothing is generated")
        super().__post_init__()

    @property
    def facts(self) -> DataFacts:
        if isinstance(self.stored_facts, DataFacts):
            return self.stored_facts
        classes, sizes = self.class_names, {split: self.count(split) for split in SPLITS}
        return DataFacts(self.max_length, ("token",), False, tuple(range(DIGITS)), classes, ("value",), sizes)

    @property
    def input_size(self) -> int:
        return len(TOKENS) if self.brackets else END + 1

    @property
    def output_size(self) -> int:
        return DIGITS

    @property
    def time(self) -> int:
        return self.max_length

    @property
    def class_names(self) -> tuple[str, ...]:
        return TOKENS[:DIGITS]

    @property
    def baseline(self) -> Mapping[str, float]:
        return self.baselines[MEMORYLESS]

    @property
    def baselines(self) -> Mapping[str, Mapping[str, float]]:
        """Of the share of each digit in training, of all expressions and of those with the same first operator."""
        train, test = (self._expressions(split) for split in ("train", "test"))
        return {
            MEMORYLESS: _constant(train, test, knows_first=False),
            "training shares by the first token": _constant(train, test, knows_first=True),
        }

    def count(self, split: str) -> int:
        if isinstance(self.stored_facts, DataFacts):
            return self.stored_facts.sizes[split]
        generated = {"train": self.train_size or TRAIN_SIZE, "valid": self.valid_size or VALID_SIZE}
        if self.training == "generated" and split in generated:
            return generated[split]
        return len(self._expressions(split))

    def read(self, split: str) -> dict[str, np.ndarray]:
        expressions = self._expressions(split)
        arrays = self._stacked(expressions, self.max_length)
        return {**arrays, TARGETS: np.array([expression.value for expression in expressions], np.int32)}

    def train_lengths(self) -> Int[np.ndarray, " N"]:
        arrays = self.load("train")
        return arrays[LENGTHS][arrays[ORDER]] if ORDER in arrays else arrays[LENGTHS]

    def division_labels(self) -> Mapping[str, np.ndarray | None]:
        values = [expression.value for expression in self._expressions("train")]
        return {"classes": np.array(values)} if self.divide_by == "stratified" else {}

    def _expressions(self, split: str) -> Sequence[Expression]:
        """The expressions of a split, in the order of their numbers.

        Raises:
            UsageError: the file is damaged, or has no expression of these lengths.
        """
        path = locate(LISTOPS_FILE, self.data_dir)
        published, lengths = _published(path, stamp_of(path)), self._plain_lengths
        suited = [expression for expression in published if lengths[0] <= len(expression.tokens) <= lengths[1]]
        if self.training == "file":
            suited = _cut(suited)[split]
        elif split != "test":
            sizes = self.count("train"), self.count("valid")
            drawn = _generated(sum(sizes), self.draw_seed, lengths, path, stamp_of(path))
            return drawn[: sizes[0]] if split == "train" else drawn[sizes[0] :]
        if not suited:
            raise UsageError(
                f"{path}: {split} has no expression of {self.min_length} to {self.max_length} tokens; others are needed"
            )
        return suited

    @property
    def _plain_lengths(self) -> tuple[int, int]:
        """The least and the greatest number of tokens without round brackets: T of them are 3 T - 2 with these."""
        shortest, longest = self.min_length, self.max_length
        return (-(-(shortest + 2) // 3), (longest + 2) // 3) if self.brackets else (shortest, longest)

    def _tokens(self, expression: Expression) -> bytes:
        return with_brackets(expression.tokens) if self.brackets else expression.tokens

    def _stacked(self, expressions: Sequence[Expression], longest: int) -> dict[str, np.ndarray]:
        """Tokens, a byte each, filled up to so many, and how many there are."""
        rows = [self._tokens(expression) for expression in expressions]
        xs = np.frombuffer(b"".join(row.ljust(longest, b"\0") for row in rows), np.uint8).reshape(len(rows), longest)
        return {XS: xs, LENGTHS: np.array([len(row) for row in rows], np.int32)}

    def examples(self, data: Mapping[str, Array], index: Int[Array, " B"]) -> Batch:
        return Batch(data[XS][index].astype(jnp.int32), data[TARGETS][index], data[LENGTHS][index])

    def metrics(self, outputs: Array, batch: Batch) -> dict[str, Float[Array, " B"]]:
        return classification(outputs, batch.targets)

    def describe_data(self) -> list[str]:
        lines = []
        for split in SPLITS:
            expressions = self._expressions(split)
            lengths = [len(self._tokens(expression)) for expression in expressions]
            of_lengths = f"{min(lengths)} to {max(lengths)} tokens, half of them up to {int(np.median(lengths))}"
            lines.append(f"{split}: {len(expressions):,} expressions of {of_lengths}")
        return lines

    def read_input(self, path: Path) -> Mapping[str, np.ndarray]:
        """The lines of a text file, each an expression."""
        lines = load_text(path).rstrip("\n").split("\n")
        expressions = [parse_expression(line, f"{path}: line {i}") for i, line in enumerate(lines, start=1)]
        longest = max(len(self._tokens(expression)) for expression in expressions)
        arrays = self._stacked(expressions, max(self.time, longest))
        return {**arrays, XS: arrays[XS].astype(np.int32)}

    def check_new(self, arrays: Any, path: Path, place: object = None) -> NoReturn:
        raise UsageError(f"{path}: this network reads expressions, one a line of a text file, as experiments.predict")


@functools.lru_cache(maxsize=2)
def _published(path: Path, stamp: FileStamp) -> Sequence[Expression]:
    del stamp
    return load_expressions(path)


@functools.lru_cache(maxsize=4)
def _generated(count: int, seed: int, lengths: tuple[int, int], path: Path, stamp: FileStamp) -> Sequence[Expression]:
    return draw_expressions(count, seed, *lengths, {expression.tokens for expression in _published(path, stamp)})


def _cut(expressions: Sequence[Expression]) -> dict[str, list[Expression]]:
    """Splits of expressions, by chance, the same in every run."""
    order, splits, first = np.random.RandomState(HELD_OUT_SEED).permutation(len(expressions)), {}, 0
    for split, share in HELD_OUT.items():
        last = first + round(share * len(expressions))
        splits[split] = [expressions[i] for i in sorted(order[first:last])]
        first = last
    return {**splits, "train": [expressions[i] for i in sorted(order[first:])]}


def _constant(train: Sequence[Expression], test: Sequence[Expression], *, knows_first: bool) -> dict[str, float]:
    """The metrics in test of the shares of the digits in training, of all or by the first token."""

    def kinds(expressions: Sequence[Expression]) -> np.ndarray:
        return np.array([expression.tokens[0] * knows_first for expression in expressions])

    values, tested = (np.array([expression.value for expression in part]) for part in (train, test))
    of_train, of_test, right, loss = kinds(train), kinds(test), 0, 0.0
    for kind in set(of_test.tolist()):
        shares = shares_in_training(values[of_train == kind], DIGITS)
        answers = tested[of_test == kind]
        right += int((answers == shares.argmax()).sum())
        loss -= float(np.log(shares)[answers].sum())
    return {"accuracy": right / len(tested), "loss": loss / len(tested)}
