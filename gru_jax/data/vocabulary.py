"""Texts as numbers of tokens, and back: by characters, words, bytes, or byte pairs."""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Int

from gru_jax.errors import UsageError, import_extra

TokenKind = Literal["characters", "words", "bytes", "byte_pairs"]
"""What a token is."""
TOKEN_KINDS = get_args(TokenKind)

UNKNOWN, END_OF_LINE = "<unk>", "<eos>"
"""Tokens for what is not in the vocabulary, and for the end of a line where tokens are words."""
BYTES = 256
SIGNS = {" ": "␣", "\n": "⏎", "\t": "⇥"}
"""How blanks, ends of lines and tabulators are shown where each token stands by itself."""


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    r"""The tokens of a text, each with a number from 0 up.

    Attributes:
        kind: what a token is.
        tokens: the tokens, in the order of their numbers; of bytes none.
        merges: of byte pairs, the tokenizer as JSON of the library `tokenizers`; else None.

    Examples:
        >>> from gru_jax.data.vocabulary import build_vocabulary
        >>> words = build_vocabulary("words", "the cat sees the dog\n")
        >>> words.tokens
        ('<unk>', '<eos>', 'the', 'cat', 'dog', 'sees')
        >>> words.encode("the bird\n").tolist(), words.decode([2, 3, 1])
        ([2, 0, 1], 'the cat\n')
    """

    kind: TokenKind
    tokens: tuple[str, ...]
    merges: str | None = None

    def __len__(self) -> int:
        return BYTES if self.kind == "bytes" else len(self.tokens)

    @property
    def unknown(self) -> int | None:
        """The number of `<unk>`; None where every text has tokens."""
        return self.tokens.index(UNKNOWN) if UNKNOWN in self.tokens else None

    def encode(self, text: str) -> Int[np.ndarray, " N"]:
        """The numbers of the tokens of a text; where what stands there is no token, that of `<unk>`."""
        if self.kind == "bytes":
            return np.frombuffer(text.encode(), np.uint8).astype(np.int32)
        if self.kind == "byte_pairs":
            return np.array(_tokenizer(self.merges or "").encode(text).ids, np.int32)
        if self.kind == "words":
            numbers = self._numbers
            return np.array([numbers.get(word, numbers[UNKNOWN]) for word in split_words(text)], np.int32)
        known, of_known = self._code_points
        codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        at = np.minimum(np.searchsorted(known, codes), len(known) - 1)
        return np.where(known[at] == codes, of_known[at], self._numbers[UNKNOWN]).astype(np.int32)

    def decode(self, numbers: Sequence[int] | Int[np.ndarray, " N"]) -> str:
        """The text of tokens; of bytes that are no UTF-8, the replacement character."""
        numbers = [int(number) for number in numbers]
        if self.kind == "bytes":
            return bytes(numbers).decode(errors="replace")
        if self.kind == "byte_pairs":
            return _tokenizer(self.merges or "").decode(numbers, skip_special_tokens=False)
        texts = [self.tokens[number] for number in numbers]
        if self.kind == "characters":
            return "".join(texts)
        lines = " ".join("\n" if text == END_OF_LINE else text for text in texts)
        return lines.replace(" \n", "\n").replace("\n ", "\n")

    def labels(self, numbers: Sequence[int] | Int[np.ndarray, " N"]) -> list[str]:
        """Each token by itself, as it is written beside others: blanks and ends of lines are signs."""
        return ["".join(SIGNS.get(sign, sign) for sign in self.decode([number])) for number in numbers]

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return {token: number for number, token in enumerate(self.tokens)}

    @functools.cached_property
    def _code_points(self) -> tuple[np.ndarray, np.ndarray]:
        """The code points of the characters in order, and the number of each."""
        pairs = sorted((ord(token), number) for token, number in self._numbers.items() if len(token) == 1)
        return np.array([code for code, _ in pairs], np.uint32), np.array([number for _, number in pairs], np.int32)

    def to_json(self) -> dict[str, Any]:
        """A plain dict, which `from_json` reads."""
        return {"kind": self.kind, "tokens": list(self.tokens), "merges": self.merges}

    @classmethod
    def from_json(cls, content: Any) -> Vocabulary:
        """The inverse of `to_json`.

        Raises:
            UsageError: it is not from there.
        """
        try:
            made = cls(content["kind"], tuple(content["tokens"]), content["merges"])
        except (TypeError, KeyError) as error:
            raise UsageError(f"damaged, no vocabulary ({error})") from error
        if made.kind not in TOKEN_KINDS or not all(isinstance(token, str) for token in made.tokens):
            raise UsageError("damaged, no vocabulary")
        return made


def split_words(text: str) -> list[str]:
    """The words of a text, between white space, and a token for the end of each line.

    Examples:
        >>> from gru_jax.data.vocabulary import split_words
        >>> split_words("a cat")
        ['a', 'cat']
    """
    lines = text.split("\n")
    words = [word for line in lines[:-1] for word in (*line.split(), END_OF_LINE)]
    return [*words, *lines[-1].split()]


def build_vocabulary(kind: TokenKind, text: str, most: int | None = None) -> Vocabulary:
    """The vocabulary of a training text.

    Args:
        kind: what a token is.
        text: the text.
        most: greatest number of tokens: of words the most frequent ones, of byte pairs those merged first (8,192 where
            this is None); None for all that occur.

    Raises:
        UsageError: a number of tokens where there is no choice, or too small a one.

    Examples:
        >>> from gru_jax.data.vocabulary import build_vocabulary
        >>> build_vocabulary("characters", "banana").tokens
        ('<unk>', 'a', 'b', 'n')
        >>> build_vocabulary("words", "a b a", most=3).tokens
        ('<unk>', '<eos>', 'a')
    """
    if most is not None and kind in ("characters", "bytes"):
        raise UsageError(f"vocabulary={most}: without effect on {kind}, all of which there are; allowed is None")
    if kind == "bytes":
        return Vocabulary(kind, ())
    if kind == "byte_pairs":
        return _learn_byte_pairs(text, 8192 if most is None else most)
    if kind == "characters":
        return Vocabulary(kind, (UNKNOWN, *sorted(set(text))))
    counts = collections.Counter(split_words(text))
    for token in (UNKNOWN, END_OF_LINE):
        counts.pop(token, None)
    by_frequency = sorted(counts, key=lambda word: (-counts[word], word))
    return Vocabulary(kind, (UNKNOWN, END_OF_LINE, *by_frequency[: None if most is None else max(0, most - 2)]))


def _learn_byte_pairs(text: str, most: int) -> Vocabulary:
    """Byte pairs, merged most frequent ones first, Sennrich et al. 2016, arXiv:1508.07909; within words, by bytes."""
    if most < BYTES:
        raise UsageError(f"vocabulary={most}: allowed are whole numbers from {BYTES}, all bytes")
    library = import_tokenizers()
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = library.decoders.ByteLevel()
    alphabet = library.pre_tokenizers.ByteLevel.alphabet()
    trainer = library.trainers.BpeTrainer(vocab_size=most, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
    tokens = tuple(tokenizer.id_to_token(number) for number in range(tokenizer.get_vocab_size()))
    return Vocabulary("byte_pairs", tokens, tokenizer.to_str())


@functools.lru_cache(maxsize=8)
def _tokenizer(merges: str) -> Any:
    return import_tokenizers().Tokenizer.from_str(merges)


def import_tokenizers() -> ModuleType:
    """The library that learns and applies byte pairs.

    Raises:
        UsageError: it is not installed.
    """
    modules = [f"tokenizers.{name}" for name in ("decoders", "models", "pre_tokenizers", "trainers")]
    return import_extra("text", "tokenizers, which learns byte pairs,", "tokenizers", *modules)
