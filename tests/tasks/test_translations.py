"""Texts written of texts: what is read of files, what counts, and what comes back."""

from __future__ import annotations

import dataclasses
import gzip
import json
import math
import sys
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gru_jax.data.vocabulary import build_vocabulary
from gru_jax.errors import UsageError
from gru_jax.tasks import Multi30k, Sort, TranslationTable
from gru_jax.tasks.text_facts import TranslationFacts, text_facts_of
from gru_jax.tasks.text_scores import share_of_equal, summary_scores, translation_scores

PAIRS = {
    "train": [("a dog runs", "ein Hund läuft"), ("a cat sees a dog", "eine Katze sieht einen Hund"), ("", "nichts")],
    "valid": [("a dog", "ein Hund")],
    "test": [("A bird runs", "ein Vogel läuft"), ("a cat", "eine Katze")],
}


def table(folder, **settings):
    for split, pairs in PAIRS.items():
        lines = "\n".join("\t".join(pair) for pair in pairs)
        (folder / f"{split}.tsv").write_text(f"source\ttarget\n{lines}\n")
    return TranslationTable(**{"data_dir": str(folder), "tokens": "words", **settings})


def batch_of(task, split="train"):
    return task.examples(jax.device_put(task.load(split)), jnp.arange(task.size(split)))


@pytest.mark.parametrize(
    ("tokens", "size"), [("words", None), ("bytes", None), ("characters", None), ("byte_pairs", 270)]
)
def test_texts_come_back_and_end(tokens, size, tmp_path):
    task = table(tmp_path, tokens=tokens, vocabulary=size)
    for split in ("train", "valid") if tokens in ("words", "characters") else PAIRS:
        batch = batch_of(task, split)
        assert task.texts_of(np.asarray(batch.targets)) == [pair[1] for pair in PAIRS[split]]
        assert task.target_texts(split) == [pair[1] for pair in PAIRS[split]]
        for row, n, late, m in zip(
            *map(np.asarray, (batch.targets, batch.decoder_lengths, batch.decoder_inputs, batch.mask)), strict=True
        ):
            assert row[n - 1] == task.end_token
            assert task.end_token not in row[: n - 1]
            assert late.tolist() == [task.end_token, *row[:-1].tolist()]
            assert m.tolist() == [1.0] * n + [0.0] * (len(row) - n)
        assert batch.weights.tolist() == batch.decoder_lengths.tolist()
        assert (np.asarray(batch.lengths) >= 1).all()
        for (source, _), xs, n in zip(PAIRS[split], np.asarray(batch.xs), np.asarray(batch.lengths), strict=True):
            np.testing.assert_array_equal(task.source_tokens(source), xs[:n])


def test_vocabularies_are_of_the_training_texts_alone(tmp_path):
    task = table(tmp_path)
    facts = task.facts
    assert "bird" not in facts.source_vocabulary.tokens
    assert "Hund" in facts.target_vocabulary.tokens
    assert "Hund" not in facts.source_vocabulary.tokens
    assert task.input_size == len(facts.source_vocabulary) == 2 + 5
    plain = json.loads(json.dumps(facts.to_json()))
    assert text_facts_of(plain) is TranslationFacts
    assert TranslationFacts.from_json(plain) == facts
    for damage in ({"longest": "5"}, {"source_vocabulary": 3}, {"more": 1}, {"texts": None}):
        with pytest.raises(UsageError, match="damaged"):
            TranslationFacts.from_json({**plain, **damage})
    assert table(tmp_path, length=2).time == 2
    assert "a" in table(tmp_path, lower=True).facts.source_vocabulary.tokens
    assert table(tmp_path, lower=True).target_texts("test")[0] == "ein vogel läuft"


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_every_token_of_the_targets_counts_the_same(smoothing, tmp_path):
    task = dataclasses.replace(table(tmp_path), label_smoothing=smoothing)
    batch = batch_of(task)
    outputs = jax.random.normal(jax.random.key(0), (*batch.targets.shape, task.output_size))
    metrics = task.metrics(outputs, batch)
    means = {name: float(np.average(value, weights=batch.weights)) for name, value in metrics.items()}
    smooth = optax.smooth_labels(jax.nn.one_hot(batch.targets, task.output_size), smoothing)
    each, plain = (
        optax.softmax_cross_entropy(outputs, smooth),
        optax.softmax_cross_entropy_with_integer_labels(outputs, batch.targets),
    )
    within = np.asarray(batch.mask) > 0
    assert means["loss"] == pytest.approx(np.asarray(each)[within].mean(), rel=1e-5)
    nll = np.asarray(plain)[within].mean()
    assert ("nll" in means) == (smoothing > 0)
    assert means.get("nll", means["loss"]) == pytest.approx(nll, rel=1e-5)
    assert task.of_means(means)["perplexity"] == pytest.approx(math.exp(nll), rel=1e-4)
    padded = jnp.where(batch.mask[..., None] > 0, outputs, jnp.nan)
    assert task.metrics(padded, batch)["loss"].tolist() == metrics["loss"].tolist()


def test_pairs_of_like_length_share_a_batch(tmp_path):
    task = table(tmp_path)
    assert task.train_lengths().tolist() == [4, 6, 2]
    indices = task.train_indices(1, 0, by_length=True)(0, 3)
    assert sorted(indices.ravel().tolist()) == [0, 1, 2]


def test_knowing_nothing_of_the_source(tmp_path):
    task = table(tmp_path)
    counts = np.ones(task.output_size)
    for text in [target for _, target in PAIRS["train"]]:
        np.add.at(counts, task.facts.target_vocabulary.encode(f"{text}\n"), 1)
    tokens = np.concatenate([task.facts.target_vocabulary.encode(f"{text}\n") for _, text in PAIRS["test"]])
    assert task.baseline["loss"] == pytest.approx(-np.log(counts / counts.sum())[tokens].mean())
    length_one = Sort(1, symbols=4).baseline
    assert length_one == {"loss": 0.5 * math.log(4), "accuracy": 0.625, "exact": 0.25}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": "targt"}, "'targt' is no column of it; there are source, target; did you mean 'target'"),
        ({"train": "trian.tsv"}, "no such file.*did you mean 'train.tsv'"),
        ({"folds": 2}, "folds=2: texts are not divided so"),
        ({"tokens": "byte_pairs", "vocabulary": 100}, "vocabulary=100: allowed are whole numbers from 256"),
    ],
)
def test_wrong_settings(settings, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        table(tmp_path, **settings).size("train")


def test_damaged_tables(tmp_path):
    for content, message in (
        (b"source\ttarget\na\n", "row 1 has 1 fields; there are 2 columns"), (b"", "is empty"),
        (b"source\ttarget\n", "train: has no rows"),
        ("source\ttarget\né\tb\n".encode("latin-1"), "not UTF-8|no text in UTF-8"),
    ):  # fmt: skip
        task = table(tmp_path)
        (tmp_path / "train.tsv").write_bytes(content)
        with pytest.raises(UsageError, match=message):
            task.size("train")


def test_real_translations(data_dir):
    task = Multi30k(tokens="words", source="de", target="en")
    assert {split: task.size(split) for split in PAIRS} == {"train": 29_000, "valid": 1_014, "test": 1_000}
    pairs = task.text_pairs("test")
    assert pairs.sources[0] == "Ein Mann mit einem orangefarbenen Hut, der etwas anstarrt."
    assert pairs.targets[0] == "A man in an orange hat starring at something."
    assert Multi30k(test="test_2017_mscoco", tokens="words").text_pairs("test").sources[460]
    with pytest.raises(UsageError, match="target=en: is what is read; allowed is the other language"):
        Multi30k(source="en", target="en")


def test_damaged_and_missing_files_are_refused(tmp_path, data_dir, monkeypatch):
    folder = tmp_path / "multi30k"
    folder.mkdir()
    content = (data_dir / "multi30k/train.en.gz").read_bytes()
    (folder / "train.en.gz").write_bytes(content[:-1])
    with pytest.raises(UsageError, match="damaged, its sha256"):
        Multi30k(data_dir=str(tmp_path)).size("train")
    (folder / "train.en.gz").write_bytes(content)
    monkeypatch.setattr("urllib.request.urlopen", lambda *args, **kwargs: (_ for _ in ()).throw(OSError("no network")))
    with pytest.raises(UsageError, match=r"train\.de\.gz: missing, and https://.* cannot be had \(no network\); put"):
        Multi30k(data_dir=str(tmp_path)).size("train")


def test_packed_texts(tmp_path):
    from gru_jax.data.texts import load_text

    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress("é\r\nb\n".encode()))
    assert load_text(path) == "é\nb\n"
    packed = gzip.compress(b"a long text " * 50)
    for content in (b"plain", packed[:-9], packed[:20] + b"\0\0\0" + packed[23:]):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=r"a\.gz: cannot be read"):
            load_text(path)


def test_scores_are_those_of_the_library():
    library = pytest.importorskip("sacrebleu")
    written = ["a dog runs over green grass", "two men sit", ""]
    wanted = ["a dog runs across the green grass", "two men are sitting", "a cat"]
    scores = translation_scores(written, wanted)
    assert scores["bleu"] == library.BLEU().corpus_score(written, [wanted]).score
    assert scores["chrf"] == library.CHRF().corpus_score(written, [wanted]).score
    assert translation_scores(wanted, wanted)["bleu"] == pytest.approx(100)
    assert share_of_equal(["a", "b", "c"], ["a", "c", "c"]) == pytest.approx(2 / 3)


def test_end_of_line_is_one_token_in_every_vocabulary():
    for tokens, size in (("words", None), ("bytes", None), ("characters", None), ("byte_pairs", 300)):
        vocabulary = build_vocabulary(tokens, "a b.\nc d!\n" * 30, size)
        assert len(vocabulary.encode("\n")) == 1


def overlap(one, other, n):
    """The F-measure of runs of n words that two texts share, each as often as in both, by its definition."""
    counts = [Counter(zip(*(text.split()[i:] for i in range(n)), strict=False)) for text in (one, other)]
    shared, (ours, theirs) = (counts[0] & counts[1]).total(), (count.total() for count in counts)
    return 2 * shared / (ours + theirs) if ours + theirs else 0.0


def test_summaries_are_scored_by_rouge(tmp_path, monkeypatch, unchecked_types):
    pytest.importorskip("rouge_score")
    written = ["the cat sat on the mat", "a dog runs", "nothing", ""]
    wanted = ["the cat lay on a mat", "a dog runs", "the film", "a film"]
    scores = table(tmp_path, scores="summary").text_scores(written, wanted)
    for n in (1, 2):
        each = [overlap(one, other, n) for one, other in zip(written, wanted, strict=True)]
        assert scores[f"rouge_{n}"] == pytest.approx(100 * np.mean(each))
    # Of "the cat on mat", the longest words in order that the first two share, and all of the second two.
    assert scores["rouge_l"] == pytest.approx(100 * (4 / 6 + 1) / 4)
    assert table(tmp_path, scores="summary").text_scores([], []) == {"rouge_1": 0, "rouge_2": 0, "rouge_l": 0}
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(UsageError, match=r"rouge-score, .* pip install 'gru_jax\[text\]' brings it"):
        summary_scores(written, wanted)
    with pytest.raises(UsageError, match="scores='rouge': allowed are translation, summary"):
        table(tmp_path, scores="rouge")


def test_labels_of_tokens_stand_by_themselves(tmp_path):
    task = table(tmp_path, tokens="characters")
    assert task.source_labels(task.source_tokens("a dog").tolist()) == ["a", "␣", "d", "o", "g", "⏎"]
    words = table(tmp_path)
    batch = batch_of(words)
    assert words.target_labels(batch.targets[0, :4].tolist()) == ["ein", "Hund", "läuft", "⏎"]
