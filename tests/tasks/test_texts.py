"""Texts as tokens, and the language models that read them."""

from __future__ import annotations

import gzip

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gru_jax.data.texts import load_text, split_text
from gru_jax.data.vocabulary import TOKEN_KINDS, Vocabulary, build_vocabulary
from gru_jax.errors import UsageError
from gru_jax.tasks import PennTreebank, TextFiles, TinyShakespeare
from gru_jax.tasks.text_facts import TextFacts

TEXT = "the cat sees the dog\nthe dog sees the cat and 1,000 é…\n" * 40


@pytest.mark.parametrize("kind", TOKEN_KINDS)
def test_a_text_comes_back(kind):
    vocabulary = build_vocabulary(kind, TEXT, 300 if kind == "byte_pairs" else None)
    numbers = vocabulary.encode(TEXT)
    assert numbers.dtype == np.int32
    assert numbers.min() >= 0
    assert numbers.max() < len(vocabulary)
    assert vocabulary.decode(numbers) == TEXT
    assert Vocabulary.from_json(vocabulary.to_json()) == vocabulary


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=50))
def test_any_text_comes_back_from_characters_and_bytes(text):
    for kind in ("characters", "bytes"):
        vocabulary = build_vocabulary(kind, text + "ab")
        assert vocabulary.decode(vocabulary.encode(text)) == text


@given(st.lists(st.lists(st.sampled_from(["a", "bb", "c"]), max_size=4), max_size=5))
def test_words_come_back_line_by_line(lines):
    text = "".join(f"{' '.join(line)}\n" for line in lines)
    vocabulary = build_vocabulary("words", "a bb c\n")
    assert vocabulary.decode(vocabulary.encode(text)) == text


def test_what_is_not_in_the_vocabulary_is_unknown():
    characters, words = build_vocabulary("characters", "abc"), build_vocabulary("words", "a b\n", most=3)
    assert characters.encode("aé\U0001f600c").tolist() == [1, 0, 0, 3]
    assert words.encode("a b z\n").tolist() == [2, 0, 0, 1]
    assert build_vocabulary("words", "a <unk> <unk>\n").tokens == ("<unk>", "<eos>", "a")


def test_byte_pairs_are_the_librarys():
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = build_vocabulary("byte_pairs", TEXT, 280)
    assert len(vocabulary) <= 280
    theirs = tokenizers.Tokenizer.from_str(vocabulary.merges)
    assert vocabulary.encode("the cat 日本").tolist() == theirs.encode("the cat 日本").ids
    assert vocabulary.decode(vocabulary.encode("the cat 日本")) == "the cat 日本"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: build_vocabulary("characters", "a", 10), "vocabulary=10: without effect on characters"),
        (lambda: build_vocabulary("byte_pairs", "a", 100), "vocabulary=100: allowed are whole numbers from 256"),
        (lambda: Vocabulary.from_json({"kind": "letters", "tokens": [], "merges": None}), "damaged, no vocabulary"),
        (lambda: Vocabulary.from_json({"kind": "words", "tokens": [3], "merges": None}), "damaged, no vocabulary"),
        (lambda: Vocabulary.from_json(["words"]), "damaged, no vocabulary"),
        (lambda: TextFacts.from_json({"vocabulary": 3}), "damaged"),
    ],
)
def test_wrong_vocabularies(call, message):
    with pytest.raises(UsageError, match=message):
        call()


def test_texts_of_files(tmp_path):
    path = tmp_path / "a.txt"
    for content, message in (
        (b"", "is empty"), ("é".encode("latin-1"), "line 1: holds bytes that are no text"),
        (gzip.compress(b"abc"), "no text"),
    ):  # fmt: skip
        path.write_bytes(content)
        with pytest.raises(UsageError, match=message):
            load_text(path)
    with pytest.raises(UsageError, match="cannot be read"):
        load_text(tmp_path / "none.txt")
    path.write_bytes("\ufeffa\r\nb".encode())
    assert load_text(path) == "a\nb\n"


@given(st.text("ab", max_size=60), st.floats(0, 0.5), st.floats(0, 0.49))
def test_parts_of_a_text_are_the_text(text, valid, test):
    parts = split_text(text, [1 - valid - test, valid, test])
    assert "".join(parts) == text
    assert [len(part) for part in parts[1:]] == [int(len(text) * valid), int(len(text) * test)]


def text_task(tmp_path, **settings):
    (tmp_path / "a.txt").write_text(TEXT)
    return TextFiles(**{"data_dir": str(tmp_path), "train": "a.txt", "valid_fraction": 0.2, "test_fraction": 0.2,
                        "length": 7, **settings})  # fmt: skip


def test_every_token_is_predicted_once(tmp_path):
    task = text_task(tmp_path)
    for split in ("train", "valid", "test"):
        data, size = jax.device_put(task.load(split)), task.size(split)
        batch = task.examples(data, jnp.arange(size))
        tokens = task._encoded[1][split]
        counts = np.full(size, 7) if batch.lengths is None else np.asarray(batch.lengths)
        targets = np.concatenate([row[:n] for row, n in zip(np.asarray(batch.targets), counts, strict=True)])
        inputs = np.concatenate([row[:n] for row, n in zip(np.asarray(batch.xs), counts, strict=True)])
        whole = len(tokens) - 1 if split != "train" else (len(tokens) - 1) // 7 * 7
        np.testing.assert_array_equal(targets, tokens[1 : whole + 1])
        np.testing.assert_array_equal(inputs, tokens[:whole])
        assert batch.weights is None or batch.weights.sum() == whole


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": "b.txt"}, "no such file.*did you mean 'a.txt'"),
        ({"valid_fraction": None}, "valid=None: needed is a file or valid_fraction, and neither is there"),
        ({"valid": "a.txt"}, "valid=a.txt: needed is a file or valid_fraction, and both is there"),
        ({"test_fraction": 0.9}, "valid_fraction=0.2: with test_fraction=0.9 nothing is left"),
        ({"folds": 2}, "folds=2: a text is no set of examples"),
        ({"valid_fraction": 1e-6}, "valid: its text has 0 tokens"),
        ({"tokens": "letters"}, "tokens='letters': allowed are characters, words, bytes, byte_pairs"),
    ],
)
def test_wrong_settings(settings, message, tmp_path, unchecked_types):
    with pytest.raises(UsageError, match=message):
        text_task(tmp_path, **settings).size("valid")


def test_the_data_are_known_by_content(tmp_path):
    assert set(text_task(tmp_path).data_files()) == {"a.txt"}
    with pytest.raises(UsageError, match=r"experiments\.sample"):
        text_task(tmp_path).read_input(tmp_path / "a.txt")


def test_real_texts(data_dir):
    """The numbers that the data's own description has."""
    words = PennTreebank()
    assert dict(words.facts.tokens) == {"train": 929_589, "valid": 73_760, "test": 82_430}
    assert words.input_size == 10_000
    characters = PennTreebank(tokens="characters")
    assert {split: characters.facts.tokens[split] for split in ("train", "valid")} == {
        "train": 5_017_482, "valid": 393_042,
    }  # fmt: skip
    assert characters.input_size == 50 + 1, "and one for what is unknown"
    play = TinyShakespeare()
    assert (sum(play.facts.tokens.values()), play.input_size) == (1_115_394, 65 + 1)
    assert words.baseline["perplexity"] == pytest.approx(639.79, abs=0.01)


def test_a_damaged_text_is_refused(tmp_path, data_dir):
    (tmp_path / "tinyshakespeare").mkdir()
    content = (data_dir / "tinyshakespeare/input.txt").read_bytes()
    (tmp_path / "tinyshakespeare/input.txt").write_bytes(content[:-1])
    with pytest.raises(UsageError, match="damaged, its sha256"):
        TinyShakespeare(data_dir=str(tmp_path)).size("train")
