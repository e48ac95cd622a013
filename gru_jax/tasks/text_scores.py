"""Scores of texts against those that were wanted."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from types import ModuleType

from gru_jax.errors import UsageError


def translation_scores(written: Sequence[str], wanted: Sequence[str]) -> Mapping[str, float]:
    """BLEU and chrF, 0 to 100, of all texts together: Papineni et al. 2002, Popović 2015, by sacrebleu (Post 2018).

    With sacrebleu's defaults: BLEU of words as its tokenizer 13a splits them, chrF of up to 6 characters.

    Raises:
        UsageError: sacrebleu is not installed.

    Examples:
        >>> import importlib.util
        >>> from gru_jax.tasks.text_scores import translation_scores
        >>> texts = ["a dog runs over the green lawn ."]
        >>> if importlib.util.find_spec("sacrebleu") is not None:  # where it is installed
        ...     assert round(translation_scores(texts, texts)["bleu"]) == 100
    """
    library = import_sacrebleu()
    bleu, chrf = library.corpus_bleu(list(written), [list(wanted)]), library.corpus_chrf(list(written), [list(wanted)])
    return {"bleu": bleu.score, "chrf": chrf.score}


def share_of_equal(written: Sequence[str], wanted: Sequence[str]) -> float:
    """The share of texts that are the wanted ones.

    Examples:
        >>> from gru_jax.tasks.text_scores import share_of_equal
        >>> share_of_equal(["1 2", "3"], ["1 2", "4"])
        0.5
    """
    pairs = list(zip(written, wanted, strict=True))
    return sum(text == other for text, other in pairs) / max(1, len(pairs))


def import_sacrebleu() -> ModuleType:
    """The library that scores translations.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return importlib.import_module("sacrebleu")
    except ImportError as error:
        missing = "sacrebleu, which scores translations, is not installed; pip install 'gru_jax[text]' brings it"
        raise UsageError(missing) from error
