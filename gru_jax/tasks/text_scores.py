"""Scores of texts against those that were wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gru_jax.errors import import_extra


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
    library = import_extra("text", "sacrebleu, which scores translations,", "sacrebleu")
    bleu, chrf = library.corpus_bleu(list(written), [list(wanted)]), library.corpus_chrf(list(written), [list(wanted)])
    return {"bleu": bleu.score, "chrf": chrf.score}


def summary_scores(written: Sequence[str], wanted: Sequence[str]) -> Mapping[str, float]:
    """ROUGE-1, ROUGE-2 and ROUGE-L, 0 to 100: means over all texts of the F-measures of Lin 2004, by rouge-score.

    Of words and pairs of words that both texts have, and of their longest common subsequence; without stemming.

    Raises:
        UsageError: rouge-score is not installed.

    Examples:
        >>> import importlib.util
        >>> from gru_jax.tasks.text_scores import summary_scores
        >>> if importlib.util.find_spec("rouge_score") is not None:  # where it is installed
        ...     assert round(summary_scores(["a dog runs"], ["a dog sleeps"])["rouge_1"]) == 67
    """
    kinds = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}
    library = import_extra("text", "rouge-score, which scores summaries,", "rouge_score.rouge_scorer")
    scorer = library.RougeScorer(list(kinds.values()))
    each = [scorer.score(other, text) for text, other in zip(written, wanted, strict=True)]
    return {name: 100 * sum(one[kind].fmeasure for one in each) / max(1, len(each)) for name, kind in kinds.items()}


SCORES = {"translation": translation_scores, "summary": summary_scores}
"""Of texts that are written, by what they are."""


def share_of_equal(written: Sequence[str], wanted: Sequence[str]) -> float:
    """The share of texts that are the wanted ones.

    Examples:
        >>> from gru_jax.tasks.text_scores import share_of_equal
        >>> share_of_equal(["1 2", "3"], ["1 2", "4"])
        0.5
    """
    pairs = list(zip(written, wanted, strict=True))
    return sum(text == other for text, other in pairs) / max(1, len(pairs))
