"""Tiny Shakespeare, a language model of 1.1 million characters."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from gru_jax.data.files import DataFile, locate
from gru_jax.data.texts import load_text, split_text
from gru_jax.tasks.language_model import LanguageModel

FILE = DataFile(
    "tinyshakespeare/input.txt",
    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
)
FRACTIONS = (0.9, 0.05, 0.05)


@dataclasses.dataclass(frozen=True)
class TinyShakespeare(LanguageModel):
    """Tiny Shakespeare: 1,115,394 characters of plays, 65 different ones. Karpathy 2015, char-rnn.

    Of the text the first 90 % are trained on, the next 5 % validated on, the last 5 % tested on.

    Examples:
        >>> from gru_jax.tasks import TinyShakespeare
        >>> TinyShakespeare(length=64).time  # the file is read, or downloaded, where data are asked for
        64
    """

    def text_files(self) -> Sequence[Path]:
        return [locate(FILE, self.data_dir)]

    def texts(self) -> Mapping[str, str]:
        (path,) = self.text_files()
        return dict(zip(("train", "valid", "test"), split_text(load_text(path), FRACTIONS), strict=True))
