"""A share of the training examples: the fewer among the more, the same in every run."""

from __future__ import annotations

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import train
from gru_jax.config import load, plan, training_program
from gru_jax.errors import UsageError
from gru_jax.runs.directory import RunDir
from gru_jax.runs.flow import params_of_run
from gru_jax.tasks import MNIST, TextTable
from gru_jax.tasks.base import ORDER

WORDS = ("one", "two", "three", "four", "five")


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Texts of one to five words; the k-th has a word of its own."""
    folder = tmp_path_factory.mktemp("texts")
    for split in ("train", "valid", "test"):
        rows = [f"{' '.join(WORDS[: k % 5])} word{k}\t{'good' if k % 2 else 'bad'}" for k in range(20)]
        (folder / f"{split}.tsv").write_text("text\tlabel\n" + "\n".join(rows))
    return str(folder)


def test_the_fewer_are_among_the_more():
    orders = [MNIST(train_share=share).order("train") for share in (0.001, 0.1, 0.5)]
    assert [len(order) for order in orders] == [55, 5500, 27500]
    for fewer, more in itertools.pairwise(orders):
        np.testing.assert_array_equal(fewer, more[: len(fewer)])
        assert len(set(more.tolist())) == len(more)
    np.testing.assert_array_equal(MNIST(train_share=0.1).order("train"), orders[1])
    assert MNIST(train_share=1e-6).size("train") == 1


def test_other_splits_are_whole_and_folds_lose_nothing_of_theirs():
    task = MNIST(train_share=0.1, folds=5, fold=1)
    assert [task.size(split) for split in ("train", "valid", "test")] == [4400, 11000, 10000]
    whole = MNIST(folds=5, fold=1)
    np.testing.assert_array_equal(task.order("valid"), whole.order("valid"))
    np.testing.assert_array_equal(task.order("train"), whole.order("train")[:4400])
    assert MNIST(train_share=0.1).size("valid") == 5000


def test_texts_keep_their_vocabulary_and_lengths(texts):
    whole, part = TextTable(data_dir=texts), TextTable(data_dir=texts, train_share=0.3)
    assert part.facts == whole.facts
    assert part.size("train") == 6
    data = part.load("train")
    assert len(data[ORDER]) == 6
    np.testing.assert_array_equal(part.train_lengths(), whole.train_lengths()[data[ORDER]])
    batch = part.batch(jax.device_put(data), jax.random.key(0), jnp.arange(6))
    np.testing.assert_array_equal(batch.lengths, part.train_lengths())
    assert ORDER not in part.load("valid")


def test_it_is_trained_on_that_alone(texts, tmp_path, undrawn):
    """Epochs are of the share, and no word that is in the other texts alone is learnt."""

    def config(share):
        return load({
            "task": {"name": "text_table", "data_dir": texts, "train_share": share}, "flow": {"every": 0},
            "model": {"hidden": (4,), "embedding": 4}, "optimizer": {"name": "sgd", "lr": 1.0},
            "train": {"batch_size": 3, "epochs": 2, "batch_by_length": True},
        })  # fmt: skip

    part = config(0.3)
    assert plan(part).steps == 4
    assert training_program(part) != training_program(config(0.5))
    run = train.run(part, tmp_path / "run")
    words = part.task.facts.vocabulary.tokens
    first, last = (params_of_run(RunDir(run.path), part, when)[1]["embed"]["embedding"] for when in ("init", "latest"))
    moved = {word for word, *rows in zip(words, first, last, strict=True) if not np.array_equal(*rows)} - set(WORDS)
    assert moved == {f"word{k}" for k in part.task.order("train")}
    assert json.loads(RunDir(run.path).config.read_text())["task"]["train_share"] == 0.3


def test_one_text_has_no_share():
    with pytest.raises(UsageError, match=r"task\.train_share=0\.5: a text is read from end to end; allowed is 1"):
        load({"task": {"name": "tiny_shakespeare", "train_share": 0.5}, "train": {"steps": 1}})
