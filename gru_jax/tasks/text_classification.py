"""Texts with a label each, as sentiment."""

from __future__ import annotations

import abc
import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gru_jax.data.arrays import LENGTHS, TARGETS, XS
from gru_jax.data.texts import LabelledTexts, load_labelled_texts, load_text
from gru_jax.data.vocabulary import TokenKind, Vocabulary, build_vocabulary
from gru_jax.errors import UsageError, closest, listing
from gru_jax.runtime.files import FileStamp, stamp_of
from gru_jax.settings import setting
from gru_jax.tasks.base import SPLITS, Batch, FromFiles, classification
from gru_jax.tasks.text_facts import TextFacts
from gru_jax.tasks.tokens import TextTables, shares_in_training, stacked_tokens


@dataclasses.dataclass(frozen=True)
class TextClassification(FromFiles):
    """Classify texts, such as reviews by what they think of a film.

    The vocabulary is of the training texts alone. Shorter texts are filled up to the longest, which changes no number;
    `train.batch_by_length` puts texts of like length together, so that it costs less time too.

    Attributes:
        tokens: what a token is, as of `gru_jax.tasks.LanguageModel`.
        vocabulary: greatest number of tokens, of words or byte pairs; None for all words, or 8,192 byte pairs.
        length: of longer texts only the last so many tokens are read; None for all of them.
        lower: whether capital letters are made small.

    Examples:
        >>> from gru_jax.tasks import TextTable  # one of its subclasses
        >>> TextTable.goal, TextTable.reads_tokens
        (('accuracy', 'max'), True)
    """

    goal: ClassVar[tuple[str, str]] = ("accuracy", "max")
    reads_tokens: ClassVar[bool] = True

    tokens: TokenKind = setting("words", kw_only=True)
    vocabulary: int | None = setting(None, low=3, high=10**7, kw_only=True)
    length: int | None = setting(None, low=1, high=10**6, kw_only=True)
    lower: bool = setting(True, kw_only=True)

    def __post_init__(self) -> None:
        if self.folds is not None:
            raise UsageError(f"folds={self.folds}: texts with labels are not divided so; allowed is None")
        super().__post_init__()

    @abc.abstractmethod
    def text_files(self) -> Sequence[Path]:
        """The files that are read, of all splits."""

    @abc.abstractmethod
    def labelled_texts(self) -> Mapping[str, LabelledTexts]:
        """The texts of each split, and their labels."""

    @property
    def facts(self) -> TextFacts:
        return self.stored_facts if isinstance(self.stored_facts, TextFacts) else self._encoded[0]

    @property
    def _encoded(self) -> tuple[TextFacts, Mapping[str, Mapping[str, np.ndarray]]]:
        whatever_is_trained_on = self if self.train_share == 1 else dataclasses.replace(self, train_share=1.0)
        return _encode(whatever_is_trained_on, tuple(stamp_of(path) for path in self.text_files()))

    @property
    def input_size(self) -> int:
        return len(self.facts.vocabulary)

    @property
    def output_size(self) -> int:
        return len(self.facts.classes)

    @property
    def time(self) -> int:
        return self.facts.longest

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.facts.classes

    @property
    def baseline(self) -> Mapping[str, float]:
        """The share of each label in training, and the label that is most frequent there."""
        arrays, classes = self._encoded[1], len(self.facts.classes)
        shares = shares_in_training(arrays["train"][TARGETS], classes)
        tested = arrays["test"][TARGETS]
        return {
            "accuracy": float((tested == shares.argmax()).mean()),
            "loss": float(-np.log(shares)[tested].mean()) if len(tested) else math.log(classes),
        }

    def count(self, split: str) -> int:
        return self.facts.texts[split]

    def read(self, split: str) -> dict[str, np.ndarray]:
        return dict(self._encoded[1][split])

    def train_lengths(self) -> Int[np.ndarray, " N"]:
        lengths = self._encoded[1]["train"][LENGTHS]
        return lengths[self.order("train")] if self.is_chosen("train") else lengths

    def examples(self, data: Mapping[str, Array], index: Int[Array, " B"]) -> Batch:
        return Batch(data[XS][index].astype(jnp.int32), data[TARGETS][index], data[LENGTHS][index])

    def metrics(self, outputs: Array, batch: Batch) -> dict[str, Float[Array, " B"]]:
        return classification(outputs, batch.targets)

    def describe_data(self) -> list[str]:
        facts, arrays = self._encoded
        lines = [f"{len(facts.vocabulary):,} tokens ({self.tokens})"]
        for split, of_split in arrays.items():
            lengths = of_split[LENGTHS]
            counts = np.bincount(of_split[TARGETS], minlength=len(facts.classes))
            labels = ", ".join(f"{name} {count:,}" for name, count in zip(facts.classes, counts, strict=True))
            lines.append(f"{split}: {len(lengths):,} texts of {lengths.min()} to {lengths.max()} tokens; {labels}")
        return lines

    def read_input(self, path: Path) -> Mapping[str, np.ndarray]:
        """The lines of a text file, each a text."""
        return self.encode_texts(load_text(path).rstrip("\n").split("\n"))

    def encode_texts(self, texts: Sequence[str]) -> Mapping[str, np.ndarray]:
        """Texts as the network reads them: `xs`, and `lengths`."""
        rows = [_tokens_of(text, self.facts.vocabulary, self) for text in texts]
        return stacked_tokens(rows, max(self.time, *map(len, rows)))


def _tokens_of(text: str, vocabulary: Vocabulary, task: TextClassification) -> np.ndarray:
    """The tokens of a text that are read, at least one."""
    numbers = vocabulary.encode(text.lower() if task.lower else text)
    if not len(numbers):
        numbers = np.zeros(1, np.int32)
    return numbers[-task.length :] if task.length is not None else numbers


@functools.lru_cache(maxsize=4)
def _encode(
    task: TextClassification, stamps: tuple[FileStamp, ...]
) -> tuple[TextFacts, Mapping[str, Mapping[str, np.ndarray]]]:
    """What is known of the texts of a task, and their arrays by split."""
    del stamps
    by_split = task.labelled_texts()
    for split, part in by_split.items():
        if not part.texts:
            raise UsageError(f"{split}: has no rows; needed is one or more")
    classes = tuple(sorted(set(by_split["train"].labels)))
    if len(classes) < 2:
        raise UsageError(f"train: all its texts are labelled {listing(classes)}; needed are two classes or more")
    together = "\n".join(by_split["train"].texts)
    vocabulary = build_vocabulary(task.tokens, together.lower() if task.lower else together, task.vocabulary)
    rows = {split: [_tokens_of(text, vocabulary, task) for text in part.texts] for split, part in by_split.items()}
    longest, arrays = max(len(row) for of_split in rows.values() for row in of_split), {}
    for split, part in by_split.items():
        for number, label in enumerate(part.labels):
            if label not in classes:
                allowed = f"allowed are {listing(classes)}{closest(label, classes)}"
                raise UsageError(
                    f"{split}: text {number} is labelled {label!r}, which no text in training is; {allowed}"
                )
        targets = np.array([classes.index(label) for label in part.labels], np.int32)
        arrays[split] = {**stacked_tokens(rows[split], longest), TARGETS: targets}
    counts = {split: sum(map(len, of_split)) for split, of_split in rows.items()}
    return TextFacts(vocabulary, counts, {split: len(r) for split, r in rows.items()}, longest, classes), arrays


@dataclasses.dataclass(frozen=True)
class TextTable(TextTables, TextClassification):
    r"""Classify texts that stand in a column of a table, beside a column with the label of each.

    Attributes:
        text: name of the column of texts.
        label: name of the column of labels.

    Examples:
        >>> import pathlib, tempfile
        >>> from gru_jax.tasks import TextTable
        >>> folder = tempfile.TemporaryDirectory()
        >>> for split in ("train", "valid", "test"):
        ...     _ = pathlib.Path(folder.name, f"{split}.tsv").write_text("text\tlabel\nA good film\tgood\nbad\tbad\n")
        >>> task = TextTable(data_dir=folder.name)
        >>> task.class_names, task.time, task.size("train")
        (('bad', 'good'), 3, 2)
        >>> folder.cleanup()
    """

    text: str = setting("text", kw_only=True)
    label: str = setting("label", kw_only=True)

    def labelled_texts(self) -> Mapping[str, LabelledTexts]:
        splits: dict[str, Any] = {}
        for split in SPLITS:
            together = LabelledTexts([], [])
            for path in self.tables(split):
                part = load_labelled_texts(path, self.text, self.label, has_header=self.header)
                labels = [label.strip() for label in part.labels]
                if "" in labels:
                    raise UsageError(f"{path}: row {labels.index('') + 1}: has no {self.label!r}, which is its class")
                together.texts.extend(part.texts)
                together.labels.extend(labels)
            splits[split] = together
        return splits
