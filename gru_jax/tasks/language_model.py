"""Language models: the next token of a text, read from its beginning to its end."""

from __future__ import annotations

import abc
import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gru_jax.data.files import data_root, files_by_name
from gru_jax.data.formats import files_of_splits, matching_files
from gru_jax.data.texts import load_text, split_text
from gru_jax.data.vocabulary import TokenKind, build_vocabulary
from gru_jax.errors import UsageError
from gru_jax.runtime.files import FileStamp, stamp_of
from gru_jax.settings import setting
from gru_jax.tasks.base import SPLITS, Batch, FromFiles, classification
from gru_jax.tasks.text_facts import TextFacts
from gru_jax.tasks.text_variables import text_variables, texts_of_tokens
from gru_jax.tasks.tokens import perplexity, shares_in_training

TOKENS, COUNTS = "tokens", "counts"


@dataclasses.dataclass(frozen=True)
class LanguageModel(FromFiles):
    """Predict each token of a text from those before it: a language model, Mikolov et al. 2010.

    The text is cut into pieces of `length` tokens. Each row of a training batch reads a part of the text of its own,
    piece after piece, and what the network carries goes on from one to the next, while gradients do not: truncated
    backpropagation through time. Evaluations read a whole split so, every token but the first of each part.

    The loss is the cross-entropy in nats, mean over all tokens; of characters and bytes `bits` is the same in bits, of
    words and byte pairs `perplexity` is its exponential. The vocabulary is of the training text alone.

    Attributes:
        tokens: what a token is: characters, words between white space with a token for the end of a line, bytes, or
            byte_pairs.
        vocabulary: greatest number of tokens, of words or byte pairs; None for all words, or 8,192 byte pairs.
        length: tokens of a piece, the horizon of the gradient.
        eval_streams: parts of equal length into which evaluations cut a text, to be faster; each is read from a network
            that has read nothing yet. With 1 the score is that of the whole text.

    Examples:
        >>> from gru_jax.tasks import TextFiles  # one of its subclasses
        >>> TextFiles.is_stream, TextFiles.readout
        (True, 'every')
    """

    goal: ClassVar[tuple[str, str]] = ("loss", "min")
    readout: ClassVar = "every"
    reads_tokens: ClassVar[bool] = True
    is_stream: ClassVar[bool] = True

    tokens: TokenKind = setting("characters", kw_only=True)
    vocabulary: int | None = setting(None, low=3, high=10**7, kw_only=True)
    length: int = setting(100, low=1, high=10**6, kw_only=True)
    eval_streams: int = setting(1, low=1, high=10**6, kw_only=True)

    def __post_init__(self) -> None:
        if self.folds is not None:
            raise UsageError(f"folds={self.folds}: a text is no set of examples to be divided; allowed is None")
        if self.train_share < 1:
            raise UsageError(f"train_share={self.train_share:g}: a text is read from end to end; allowed is 1")
        super().__post_init__()

    @abc.abstractmethod
    def text_files(self) -> Sequence[Path]:
        """The files that are read, of all splits."""

    @abc.abstractmethod
    def texts(self) -> Mapping[str, str]:
        """The text of each split."""

    @property
    def facts(self) -> TextFacts:
        return self.stored_facts if isinstance(self.stored_facts, TextFacts) else self._encoded[0]

    @property
    def _encoded(self) -> tuple[TextFacts, Mapping[str, Int[np.ndarray, " N"]]]:
        whatever_the_pieces = dataclasses.replace(self, length=1, eval_streams=1)
        return _encode(whatever_the_pieces, tuple(stamp_of(path) for path in self.text_files()))

    @property
    def input_size(self) -> int:
        return len(self.facts.vocabulary)

    @property
    def output_size(self) -> int:
        return len(self.facts.vocabulary)

    @property
    def time(self) -> int:
        return self.length

    @property
    def streams_in_evaluation(self) -> int:
        return self.eval_streams

    @property
    def baseline(self) -> Mapping[str, float]:
        """Of how often each token occurs in training, counted once more."""
        facts, tokens = self._encoded
        shares = shares_in_training(tokens["train"], len(facts.vocabulary))
        loss = float(-np.log(shares)[tokens["test"][1:]].mean())
        return {"loss": loss, **self.of_means({"loss": loss})}

    def count(self, split: str) -> int:
        predicted = self.facts.tokens[split] - 1
        return predicted // self.length if split == "train" else -(-predicted // self.length)

    def read(self, split: str) -> dict[str, np.ndarray]:
        pieces, tokens = self.count(split), self._encoded[1][split]
        end = pieces * self.length + 1
        arrays = {TOKENS: np.pad(tokens, (0, max(0, end - len(tokens))))[:end]}
        if split != "train":  # whose last piece is not full
            arrays[COUNTS] = np.minimum(self.length, len(tokens) - 1 - self.length * np.arange(pieces)).astype(np.int32)
        return arrays

    def examples(self, data: Mapping[str, Array], index: Int[Array, " B"]) -> Batch:
        places = index[:, None] * self.length + jnp.arange(self.length + 1, dtype=jnp.int32)[None, :]
        tokens = data[TOKENS][places]
        xs, targets = tokens[:, :-1], tokens[:, 1:]
        if COUNTS not in data:
            return Batch(xs, targets)
        counts = data[COUNTS][index]
        mask = (jnp.arange(self.length, dtype=jnp.int32)[None, :] < counts[:, None]).astype(jnp.float32)
        return Batch(xs, targets, counts, mask, counts.astype(jnp.float32))

    def metrics(self, outputs: Array, batch: Batch) -> dict[str, Float[Array, " B"]]:
        values = classification(outputs, batch.targets)
        if batch.mask is None:
            return {name: value.mean(axis=1) for name, value in values.items()}
        share = batch.mask / batch.mask.sum(axis=1, keepdims=True)
        return {name: (value * share.astype(value.dtype)).sum(axis=1) for name, value in values.items()}

    def of_means(self, means: Mapping[str, float]) -> Mapping[str, float]:
        if self.tokens in ("characters", "bytes"):
            return {"bits": means["loss"] / math.log(2)}
        return {"perplexity": perplexity(means["loss"])}

    def variables(self, batch: Batch) -> Mapping[str, Float[Array, "B T"]]:
        """Where in a line the text is, and whether within quotes or brackets."""
        return text_variables(batch.xs, texts_of_tokens(self.facts.vocabulary))

    def describe_data(self) -> list[str]:
        facts, tokens = self._encoded
        vocabulary = facts.vocabulary
        lines = [f"{len(vocabulary):,} tokens ({self.tokens})"]
        for split, of_split in tokens.items():
            unknown = ""
            if vocabulary.unknown is not None and (count := int((of_split == vocabulary.unknown).sum())):
                unknown = f", {count:,} of them {vocabulary.tokens[vocabulary.unknown]}"
            lines.append(f"{split}: {len(of_split):,} tokens{unknown}")
        return lines

    def check_new(self, arrays: Any, path: Path, place: object = None) -> NoReturn:
        raise UsageError(f"{path}: nothing to predict, this network continues texts; experiments.sample does that")

    def read_input(self, path: Path) -> NoReturn:
        self.check_new(None, path)


@functools.lru_cache(maxsize=4)
def _encode(
    task: LanguageModel, stamps: tuple[FileStamp, ...]
) -> tuple[TextFacts, Mapping[str, Int[np.ndarray, " N"]]]:
    """The vocabulary of the training text of a task, and the tokens of all its texts."""
    del stamps
    by_split = task.texts()
    vocabulary = build_vocabulary(task.tokens, by_split["train"], task.vocabulary)
    tokens = {split: vocabulary.encode(by_split[split]) for split in SPLITS}
    for split, of_split in tokens.items():
        if len(of_split) < 2:
            raise UsageError(f"{split}: its text has {len(of_split)} tokens; needed are 2 or more")
    return TextFacts(vocabulary, {split: len(of_split) for split, of_split in tokens.items()}), tokens


@dataclasses.dataclass(frozen=True)
class TextFiles(LanguageModel):
    r"""A language model of text files in UTF-8.

    Attributes:
        train, valid, test: files below the data directory, or patterns such as `books/*.txt`, whose files follow one
            another in the order of their names; of what is None the last part of the training text is held out.
        valid_fraction: of the characters of the training text, what is held out for validation; None where there are
            files for it.
        test_fraction: the same for the test; None where there are files for it.

    Examples:
        >>> import pathlib, tempfile
        >>> from gru_jax.tasks import TextFiles
        >>> folder = tempfile.TemporaryDirectory()
        >>> _ = pathlib.Path(folder.name, "a.txt").write_text("to be or not to be\n" * 20)
        >>> task = TextFiles(data_dir=folder.name, train="a.txt", valid_fraction=0.1, test_fraction=0.1, length=10)
        >>> task.input_size, [task.size(split) for split in ("train", "valid", "test")]
        (9, [30, 4, 4])
        >>> folder.cleanup()
    """

    train: str = setting("train.txt", kw_only=True)
    valid: str | None = setting(None, kw_only=True)
    test: str | None = setting(None, kw_only=True)
    valid_fraction: float | None = setting(None, low=1e-6, high=0.999, kw_only=True)
    test_fraction: float | None = setting(None, low=1e-6, high=0.999, kw_only=True)

    def _paths(self, split: str) -> list[Path]:
        pattern = getattr(self, split)
        return [] if pattern is None else matching_files(data_root(self.data_dir), pattern)

    def _check_splits(self) -> None:
        """Refuse a split of which it is not clear what it consists of."""
        held_out = 0.0
        for split in SPLITS[1:]:
            fraction, files = getattr(self, f"{split}_fraction"), getattr(self, split)
            if (fraction is None) == (files is None):
                which = "neither" if fraction is None else "both"
                raise UsageError(f"{split}={files}: needed is a file or {split}_fraction, and {which} is there")
            held_out += fraction or 0.0
        if held_out >= 1:
            shown = f"valid_fraction={self.valid_fraction:g}: with test_fraction={self.test_fraction:g}"
            raise UsageError(f"{shown} nothing is left to train on")

    def text_files(self) -> Sequence[Path]:
        self._check_splits()
        files = files_of_splits(data_root(self.data_dir), {split: getattr(self, split) for split in SPLITS})
        return [path for paths in files.values() for path in paths]

    def data_files(self) -> Mapping[str, Path]:
        return files_by_name(self.data_dir, self.text_files)

    def texts(self) -> Mapping[str, str]:
        texts = {split: "".join(map(load_text, self._paths(split))) for split in SPLITS if getattr(self, split)}
        fractions = {split: getattr(self, f"{split}_fraction") for split in SPLITS[1:] if split not in texts}
        parts = split_text(texts["train"], [0.0, *fractions.values()])
        return {**texts, **dict(zip(["train", *fractions], parts, strict=True))}
