"""Texts as the tokens of an exported network, and back: copy this one file beside the archive, it needs NumPy alone.

codec = TextCodec("model.zip")
xs, lengths = codec.arrays(["a text", "another one"])  # [B, T] and [B], as the program `sequence` takes them
codec.decode([3, 1, 4])                                # the text of tokens

Byte pairs are made and read by the library `tokenizers`.
"""

import json
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np

UNKNOWN, END_OF_LINE = "<unk>", "<eos>"


class TextCodec:
    """The vocabulary of an archive, and what is done to texts before they are tokens."""

    def __init__(self, path: Any) -> None:
        with zipfile.ZipFile(path) as archive:
            reads = json.loads(archive.read("description.json"))["inputs"]
            if not reads["vocabulary"]:
                raise ValueError(f"{path}: has no vocabulary; its network reads numbers")
            vocabulary = json.loads(archive.read(reads["vocabulary"]))
        self.kind, self.tokens, self.lower, self.last = (
            vocabulary["kind"],
            vocabulary["tokens"],
            reads["lower"],
            reads["last"],
        )
        self._numbers = {token: number for number, token in enumerate(self.tokens)}
        if self.kind == "byte_pairs":
            import tokenizers

            self._pairs = tokenizers.Tokenizer.from_str(vocabulary["merges"])

    def encode(self, text: str) -> list[int]:
        """The tokens of a text that the network reads, at least one."""
        text = text.lower() if self.lower else text
        if self.kind == "bytes":
            numbers = list(text.encode())
        elif self.kind == "byte_pairs":
            numbers = self._pairs.encode(text).ids
        else:
            parts = text if self.kind == "characters" else _words(text)
            numbers = [self._numbers.get(part, self._numbers[UNKNOWN]) for part in parts]
        return (numbers or [0])[-self.last if self.last else 0 :]

    def decode(self, numbers: Sequence[int]) -> str:
        """The text of tokens; of bytes that are no UTF-8, the replacement character."""
        numbers = [int(number) for number in numbers]
        if self.kind == "bytes":
            return bytes(numbers).decode(errors="replace")
        if self.kind == "byte_pairs":
            return self._pairs.decode(numbers, skip_special_tokens=False)
        parts = [self.tokens[number] for number in numbers]
        if self.kind == "characters":
            return "".join(parts)
        lines = " ".join("\n" if part == END_OF_LINE else part for part in parts)
        return lines.replace(" \n", "\n").replace("\n ", "\n")

    def arrays(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Tokens of texts side by side, filled up with zeros `[B, T]`, and how many each has `[B]`."""
        rows = [self.encode(text) for text in texts]
        lengths = np.array([len(row) for row in rows], np.int32)
        xs = np.zeros((len(rows), lengths.max()), np.int32)
        for filled, row in zip(xs, rows, strict=True):
            filled[: len(row)] = row
        return xs, lengths


def _words(text: str) -> list[str]:
    """The words between white space, and a token for the end of each line."""
    *lines, rest = text.split("\n")
    return [word for line in lines for word in (*line.split(), END_OF_LINE)] + rest.split()
