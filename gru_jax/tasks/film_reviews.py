"""Film reviews, positive or negative, in ten folds: single sentences, and whole ones."""

from __future__ import annotations

import abc
import dataclasses
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from gru_jax.data.division import HELD_OUT_SEED
from gru_jax.data.files import DataFile, locate
from gru_jax.data.texts import LabelledTexts, load_text
from gru_jax.errors import UsageError, in_one_line
from gru_jax.settings import setting
from gru_jax.tasks.text_classification import TextClassification

FOLDS = 10
NEGATIVE, POSITIVE = "negative", "positive"


@dataclasses.dataclass(frozen=True)
class FilmReviews(TextClassification):
    """Film reviews in ten folds: one is tested on, the next validated on, the others trained on.

    All ten, as results are published, are an axis of an ablation: `--axis.task.test_fold=0..9`.

    Attributes:
        test_fold: the fold that is tested on, from 0.

    Examples:
        >>> from gru_jax.tasks import RTPolarity  # one of its subclasses
        >>> RTPolarity(test_fold=3).test_fold
        3
    """

    test_fold: int = setting(0, low=0, high=FOLDS - 1, kw_only=True)

    @abc.abstractmethod
    def all_texts(self) -> tuple[LabelledTexts, Sequence[int]]:
        """All reviews, and the fold of each."""

    def labelled_texts(self) -> Mapping[str, LabelledTexts]:
        (texts, labels), folds = self.all_texts()
        held_out = {"valid": (self.test_fold + 1) % FOLDS, "test": self.test_fold}

        def part(wanted: Sequence[int]) -> LabelledTexts:
            chosen = [i for i, fold in enumerate(folds) if fold in wanted]
            return LabelledTexts([texts[i] for i in chosen], [labels[i] for i in chosen])

        rest = [fold for fold in range(FOLDS) if fold not in held_out.values()]
        return {"train": part(rest), **{split: part([fold]) for split, fold in held_out.items()}}


_SENTENCES_URL = "https://raw.githubusercontent.com/dennybritz/cnn-text-classification-tf/master/data/rt-polaritydata/"
SENTENCES = {
    NEGATIVE: DataFile(
        "rt_polarity/rt-polarity.neg",
        "2d11cfbc790f1cd96d78339f41ce53ced1efa83cd22d37d6788fa3fe3d17e2fd",
        f"{_SENTENCES_URL}rt-polarity.neg",
    ),
    POSITIVE: DataFile(
        "rt_polarity/rt-polarity.pos",
        "4134882974a28d0c7b5151256f0e33a6169984ee7372c279e673f1114f475d58",
        f"{_SENTENCES_URL}rt-polarity.pos",
    ),
}


@dataclasses.dataclass(frozen=True)
class RTPolarity(FilmReviews):
    """5,331 positive and as many negative sentences of film reviews. Pang and Lee 2005.

    The folds are drawn at random, the same in every run.

    Examples:
        >>> from gru_jax.tasks import RTPolarity
        >>> RTPolarity().goal
        ('accuracy', 'max')
    """

    def text_files(self) -> Sequence[Path]:
        return [locate(file, self.data_dir) for file in SENTENCES.values()]

    def all_texts(self) -> tuple[LabelledTexts, Sequence[int]]:
        texts, labels, folds = list[str](), list[str](), list[int]()
        for label, path in zip(SENTENCES, self.text_files(), strict=True):
            lines = load_text(path).rstrip("\n").split("\n")
            order = np.random.default_rng(HELD_OUT_SEED).permutation(len(lines))
            texts += lines
            labels += [label] * len(lines)
            folds += (np.argsort(order) % FOLDS).tolist()
        return LabelledTexts(texts, labels), folds


REVIEWS = DataFile(
    "review_polarity/review_polarity.tar.gz",
    "fc0dccc2671af5db3c5d8f81f77a1ebfec953ecdd422334062df61ede36b2179",
    "http://www.cs.cornell.edu/people/pabo/movie-review-data/review_polarity.tar.gz",
)


@dataclasses.dataclass(frozen=True)
class ReviewPolarity(FilmReviews):
    """1,000 positive and as many negative film reviews of up to 2,800 words. Pang and Lee 2004.

    The folds are those of the data set, the first digits of the reviews' numbers.

    Examples:
        >>> from gru_jax.tasks import ReviewPolarity
        >>> ReviewPolarity(length=500).length  # the last 500 words of each
        500
    """

    def text_files(self) -> Sequence[Path]:
        return [locate(REVIEWS, self.data_dir)]

    def all_texts(self) -> tuple[LabelledTexts, Sequence[int]]:
        (path,) = self.text_files()
        texts, labels, folds = list[str](), list[str](), list[int]()
        try:
            with tarfile.open(path, "r:gz") as archive:
                for member in sorted(archive.getmembers(), key=lambda member: member.name):
                    parts, content = Path(member.name).parts, archive.extractfile(member)
                    if content is None or parts[0] != "txt_sentoken":
                        continue
                    texts.append(content.read().decode())
                    labels.append({"neg": NEGATIVE, "pos": POSITIVE}[parts[1]])
                    folds.append(int(parts[2][len("cv")]))
        except (tarfile.TarError, OSError, UnicodeDecodeError, KeyError, ValueError) as error:
            raise UsageError(f"{path}: cannot be read ({in_one_line(error)[:100]})") from error
        return LabelledTexts(texts, labels), folds
