"""Texts that follow from texts, line by line, as translations do."""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from gru_jax.data.arrays import LENGTHS, TARGETS, XS
from gru_jax.data.files import DataFile, locate
from gru_jax.data.texts import load_labelled_texts, load_text
from gru_jax.data.vocabulary import TokenKind, Vocabulary, build_vocabulary
from gru_jax.errors import UsageError
from gru_jax.runtime.files import FileStamp, stamp_of
from gru_jax.settings import setting
from gru_jax.tasks.base import SPLITS, Batch, FromFiles
from gru_jax.tasks.sequence_to_sequence import SequenceToSequence, token_metrics, written_batch
from gru_jax.tasks.text_facts import TranslationFacts
from gru_jax.tasks.text_scores import SCORES, translation_scores
from gru_jax.tasks.tokens import TextTables, perplexity, shares_in_training, stacked_tokens

TARGET_LENGTHS = "target_lengths"
END = "\n"


class TextPairs(NamedTuple):
    """Texts, and what is to be written of each."""

    sources: list[str]
    targets: list[str]


@dataclasses.dataclass(frozen=True)
class Translation(SequenceToSequence, FromFiles):
    """Write the text that belongs to a text, token by token.

    The vocabularies, one of sources and one of targets, are of the training texts alone; the end of a line ends a text.
    Each target counts by its tokens, so that the loss is the mean over all of them; `perplexity` is its exponential.
    `nll` is the loss without label smoothing, where there is any, and the perplexity is then of that.

    Attributes:
        tokens: what a token is, as of `gru_jax.tasks.LanguageModel`.
        vocabulary: greatest number of tokens of each vocabulary, of words or byte pairs; None for all words, or 8,192
            byte pairs.
        length: of longer texts only the first so many tokens are read, or are to be written; None for all of them.
        lower: whether capital letters are made small.
        label_smoothing: share of the loss that is the mean over all tokens, Szegedy et al. 2016, arXiv:1512.00567.

    Examples:
        >>> from gru_jax.tasks import Multi30k  # one of its subclasses
        >>> Multi30k(tokens="words").family
        'encoder_decoder'
    """

    goal: ClassVar[tuple[str, str]] = ("loss", "min")

    tokens: TokenKind = setting("byte_pairs", kw_only=True)
    vocabulary: int | None = setting(None, low=3, high=10**7, kw_only=True)
    length: int | None = setting(None, low=1, high=10**6, kw_only=True)
    lower: bool = setting(False, kw_only=True)
    label_smoothing: float = setting(0.0, low=0.0, high=0.99, kw_only=True)

    def __post_init__(self) -> None:
        if self.folds is not None:
            raise UsageError(f"folds={self.folds}: texts are not divided so; allowed is None")
        super().__post_init__()

    @abc.abstractmethod
    def text_files(self) -> Sequence[Path]:
        """The files that are read, of all splits."""

    @abc.abstractmethod
    def text_pairs(self, split: str) -> TextPairs:
        """The texts of a split."""

    @property
    def facts(self) -> TranslationFacts:
        return self.stored_facts if isinstance(self.stored_facts, TranslationFacts) else self._encoded[0]

    @property
    def _encoded(self) -> tuple[TranslationFacts, Mapping[str, Mapping[str, np.ndarray]]]:
        whatever_the_loss = dataclasses.replace(self, label_smoothing=0.0, train_share=1.0)
        return _encode(whatever_the_loss, tuple(stamp_of(path) for path in self.text_files()))

    @property
    def input_size(self) -> int:
        return len(self.facts.source_vocabulary)

    @property
    def output_size(self) -> int:
        return len(self.facts.target_vocabulary)

    @property
    def time(self) -> int:
        return self.facts.longest

    @property
    def end_token(self) -> int:
        return int(self.facts.target_vocabulary.encode(END)[0])

    @property
    def baseline(self) -> Mapping[str, float]:
        """Of how often each token occurs in training targets, counted once more."""
        arrays = self._encoded[1]
        tokens = {split: _within(arrays[split][TARGETS], arrays[split][TARGET_LENGTHS]) for split in SPLITS}
        shares = shares_in_training(tokens["train"], self.output_size)
        loss = float(-np.log(shares)[tokens["test"]].mean())
        accuracy = float((tokens["test"] == shares.argmax()).mean())
        return {"loss": loss, "accuracy": accuracy, **self.of_means({"loss": loss})}

    def count(self, split: str) -> int:
        return self.facts.texts[split]

    def read(self, split: str) -> dict[str, np.ndarray]:
        return dict(self._encoded[1][split])

    def train_lengths(self) -> Int[np.ndarray, " N"]:
        """The longer of each pair's."""
        arrays = self._encoded[1]["train"]
        lengths = np.maximum(arrays[LENGTHS], arrays[TARGET_LENGTHS])
        return lengths[self.order("train")] if self.is_chosen("train") else lengths

    def examples(self, data: Mapping[str, Array], index: Int[Array, " B"]) -> Batch:
        xs, lengths, targets, target_lengths = (data[k][index] for k in (XS, LENGTHS, TARGETS, TARGET_LENGTHS))
        batch = written_batch(xs, lengths, targets, target_lengths, self.end_token)
        return batch._replace(weights=target_lengths.astype(np.float32))

    def metrics(self, outputs: Array, batch: Batch) -> dict[str, Float[Array, " B"]]:
        return token_metrics(outputs, batch, self.label_smoothing)

    def of_means(self, means: Mapping[str, float]) -> Mapping[str, float]:
        return {"perplexity": perplexity(means.get("nll", means["loss"]))}

    def text_of(self, tokens: Sequence[int]) -> str:
        return self.facts.target_vocabulary.decode(tokens).strip()

    def source_labels(self, tokens: Sequence[int]) -> list[str]:
        return self.facts.source_vocabulary.labels(tokens)

    def target_labels(self, tokens: Sequence[int]) -> list[str]:
        return self.facts.target_vocabulary.labels(tokens)

    def source_tokens(self, text: str) -> Int[np.ndarray, " N"]:
        return _tokens_of(text, self.facts.source_vocabulary, self)

    def text_scores(self, written: Sequence[str], wanted: Sequence[str]) -> Mapping[str, float]:
        return translation_scores(written, wanted)

    def target_texts(self, split: str) -> list[str]:
        """The targets of a split as they stand in its files, what is written is compared with."""
        return [_prepared(text, self) for text in self.text_pairs(split).targets]

    def describe_data(self) -> list[str]:
        facts, arrays = self._encoded
        sizes = [f"{len(vocabulary):,}" for vocabulary in (facts.source_vocabulary, facts.target_vocabulary)]
        lines = [f"{sizes[0]} tokens of sources and {sizes[1]} of targets ({self.tokens})"]
        for split, of_split in arrays.items():
            shown = [f"{of_split[name].min()} to {of_split[name].max()}" for name in (LENGTHS, TARGET_LENGTHS)]
            lines.append(f"{split}: {len(of_split[XS]):,} pairs; sources of {shown[0]} tokens, targets of {shown[1]}")
        return lines


def _within(rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The tokens that count, one after the other."""
    return rows[np.arange(rows.shape[1])[None, :] < lengths[:, None]]


def _prepared(text: str, task: Translation) -> str:
    """A text in one line."""
    in_one_line = text.replace("\n", " ").strip()
    return in_one_line.lower() if task.lower else in_one_line


def _tokens_of(text: str, vocabulary: Vocabulary, task: Translation) -> np.ndarray:
    """The tokens of a text, with the end of its line, as far as they are read."""
    tokens = np.concatenate([vocabulary.encode(_prepared(text, task)), vocabulary.encode(END)])
    return tokens[: task.length]


@functools.lru_cache(maxsize=4)
def _encode(
    task: Translation, stamps: tuple[FileStamp, ...]
) -> tuple[TranslationFacts, Mapping[str, Mapping[str, np.ndarray]]]:
    """What is known of the texts of a task, and their arrays by split."""
    del stamps
    by_split = {split: task.text_pairs(split) for split in SPLITS}
    for split, pairs in by_split.items():
        if not pairs.sources:
            raise UsageError(f"{split}: has no rows; needed is one or more")
    source_vocabulary, target_vocabulary = (
        build_vocabulary(task.tokens, "".join(f"{_prepared(text, task)}{END}" for text in texts), task.vocabulary)
        for texts in by_split["train"]
    )
    rows = {
        split: [
            [_tokens_of(text, vocabulary, task) for text in texts]
            for texts, vocabulary in zip(pairs, (source_vocabulary, target_vocabulary), strict=True)
        ]
        for split, pairs in by_split.items()
    }
    longest, arrays = max(len(row) for both in rows.values() for side in both for row in side), {}
    for split, (sources, targets) in rows.items():
        written = stacked_tokens(targets, longest)
        arrays[split] = {
            **stacked_tokens(sources, longest), TARGETS: written[XS], TARGET_LENGTHS: written[LENGTHS],
        }  # fmt: skip
    texts = {split: len(pairs.sources) for split, pairs in by_split.items()}
    return TranslationFacts(source_vocabulary, target_vocabulary, texts, longest), arrays


@dataclasses.dataclass(frozen=True)
class TranslationTable(TextTables, Translation):
    r"""Write the texts of one column of a table, of those of another: translations, summaries, answers.

    Attributes:
        source: name of the column of texts that are read.
        target: name of the column of texts that are written.
        scores: of what is written: those of a translation, BLEU and chrF, or of a summary, ROUGE.

    Examples:
        >>> import pathlib, tempfile
        >>> from gru_jax.tasks import TranslationTable
        >>> folder = tempfile.TemporaryDirectory()
        >>> for split in ("train", "valid", "test"):
        ...     _ = pathlib.Path(folder.name, f"{split}.tsv").write_text("source\ttarget\na dog\tein Hund\n")
        >>> task = TranslationTable(data_dir=folder.name, tokens="words")
        >>> task.time, task.texts_of(task.read("train")["targets"])
        (3, ['ein Hund'])
        >>> folder.cleanup()
    """

    source: str = setting("source", kw_only=True)
    target: str = setting("target", kw_only=True)
    scores: Literal["translation", "summary"] = setting("translation", kw_only=True)

    def text_scores(self, written: Sequence[str], wanted: Sequence[str]) -> Mapping[str, float]:
        return SCORES[self.scores](written, wanted)

    def text_pairs(self, split: str) -> TextPairs:
        pairs = TextPairs([], [])
        for path in self.tables(split):
            part: Any = load_labelled_texts(path, self.source, self.target, has_header=self.header)
            for column, more in zip(pairs, part, strict=True):
                column.extend(more)
        return pairs


Language = Literal["en", "de"]
Multi30kTest = Literal["test_2016_flickr", "test_2017_flickr", "test_2017_mscoco", "test_2018_flickr"]
_URL = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw/"
_SHA256 = {
    "test_2016_flickr.de": "9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8",
    "test_2016_flickr.en": "611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9",
    "test_2017_flickr.de": "a2c89666db00c495cd8513b9d708d5a3acc205d7de312ef2bf5fb7ebc1540aee",
    "test_2017_flickr.en": "76a444ee25172e72695cddb13ae4a3bda59430617be88e0bb46b60504f054074",
    "test_2017_mscoco.de": "799e4854c25d601cb6cb6be29eabe5667734c61ace2f495e03e429031a0bc338",
    "test_2017_mscoco.en": "aab300bfb4427697987e02cd0aacd44bfe8aa50456231b6474c08038bbed2b58",
    "test_2018_flickr.de": "ddd0130c7d97482dc5197a02141dae8dd79f20f03586c480d675c09a32daf608",
    "test_2018_flickr.en": "ef4f4844037d4c5dea75c9a8ed5fd78905967a26f67c255e230cc9780032654d",
    "train.de": "726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6",
    "train.en": "d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f",
    "val.de": "f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a",
    "val.en": "14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28",
}
MULTI30K_FILES = {name: DataFile(f"multi30k/{name}.gz", sha, f"{_URL}{name}.gz") for name, sha in _SHA256.items()}


@dataclasses.dataclass(frozen=True)
class Multi30k(Translation):
    """Captions of pictures in English and German: 29,000 pairs in training, 1,014 in validation. Elliott et al. 2016.

    Attributes:
        source: language that is read, en or de.
        target: language that is written, the other one.
        test: the test set.

    Examples:
        >>> from gru_jax.tasks import Multi30k
        >>> Multi30k(source="de", target="en").test  # files are read, or downloaded, where data are asked for
        'test_2016_flickr'
    """

    source: Language = setting("en", kw_only=True)
    target: Language = setting("de", kw_only=True)
    test: Multi30kTest = setting("test_2016_flickr", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.source == self.target:
            raise UsageError(f"target={self.target}: is what is read; allowed is the other language")

    def _pair(self, split: str) -> list[Path]:
        name = {"train": "train", "valid": "val", "test": self.test}[split]
        return [locate(MULTI30K_FILES[f"{name}.{side}"], self.data_dir) for side in (self.source, self.target)]

    def text_files(self) -> Sequence[Path]:
        return [path for split in SPLITS for path in self._pair(split)]

    def text_pairs(self, split: str) -> TextPairs:
        sources, targets = (load_text(path).rstrip("\n").split("\n") for path in self._pair(split))
        return TextPairs(sources, targets)
