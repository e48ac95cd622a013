"""The Stanford Sentiment Treebank with two classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from gru_jax.data.files import DataFile, locate
from gru_jax.data.texts import LabelledTexts, load_labelled_texts
from gru_jax.tasks.base import SPLITS
from gru_jax.tasks.text_classification import TextClassification

_URL = "https://raw.githubusercontent.com/clairett/pytorch-sentiment-classification/master/data/SST2/"
_SHA256 = {
    "train": "ec192f833a64da08f475488a77b0d0b47db47acd0f458bd18433fc793b569920",
    "dev": "eddea6b39e601dd4e7a672b53cc40fdf6019fa80522f351206c24340ca5d9359",
    "test": "831169c7e2e429d6026e1bdbb542f33b636e3e596caad9602ebc953c205928b7",
}
FILES = [DataFile(f"sst2/{name}.tsv", sha256, f"{_URL}{name}.tsv") for name, sha256 in _SHA256.items()]
NAMES = {"0": "negative", "1": "positive"}


@dataclasses.dataclass(frozen=True)
class SST2(TextClassification):
    """Sentences of film reviews, positive or negative: 6,920 in training, 872 and 1,821. Socher et al. 2013.

    Its sentences are of the same reviews as those of `RTPolarity`: none is to be trained on for the other.

    Examples:
        >>> from gru_jax.tasks import SST2
        >>> SST2(vocabulary=5000).vocabulary  # files are read, or downloaded, where data are asked for
        5000
    """

    def text_files(self) -> Sequence[Path]:
        return [locate(file, self.data_dir) for file in FILES]

    def labelled_texts(self) -> Mapping[str, LabelledTexts]:
        splits = {}
        for split, path in zip(SPLITS, self.text_files(), strict=True):
            texts, labels = load_labelled_texts(path, "column1", "column2", has_header=False)
            splits[split] = LabelledTexts(texts, [NAMES[label] for label in labels])
        return splits
