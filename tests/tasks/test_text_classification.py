"""Texts with labels: what files say, what networks see, what people read."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import evaluate, predict, train
from gru_jax.config import load
from gru_jax.data.texts import load_labelled_texts
from gru_jax.errors import UsageError
from gru_jax.tasks import SST2, ReviewPolarity, RTPolarity, TextTable
from gru_jax.tasks.base import SPLITS
from gru_jax.training.evaluation import build_evaluator
from gru_jax.training.network import build_model

GOOD, BAD = ["a good film", "Good", "really a good one , good", "so good"], ["a bad film", "bad bad", "BAD", "so bad !"]


@pytest.fixture
def folder(tmp_path):
    rows = [f"{text}\t{label}" for texts, label in ((GOOD, "yes"), (BAD, "no")) for text in texts]
    for split in SPLITS:
        (tmp_path / f"{split}.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n")
    return tmp_path


def config_of(folder, **changes):
    values = {
        "task": {"name": "text_table", "data_dir": str(folder)},
        "model": {"hidden": (4,), "embedding": 5},
        "train": {"batch_size": 4, "steps": 60, "eval_steps": 30},
        "optimizer": {"lr": 0.05},
        "flow": {"every": 0},
        "devices": 1,
    }
    for section, content in changes.items():
        values[section] = {**values.get(section, {}), **content} if isinstance(content, dict) else content
    return load(values)


def test_texts_are_tokens_with_lengths(folder):
    task = TextTable(data_dir=str(folder))
    assert (task.class_names, task.time, task.size("train")) == (("no", "yes"), 6, 8)
    assert task.facts.vocabulary.tokens[:4] == ("<unk>", "<eos>", "bad", "good")
    batch = task.examples(jax.device_put(task.load("train")), jnp.arange(8))
    assert batch.lengths.tolist() == [3, 1, 6, 2, 3, 2, 1, 3]
    assert task.facts.vocabulary.decode(np.asarray(batch.xs[2][:6])) == "really a good one , good"
    assert batch.targets.tolist() == [1] * 4 + [0] * 4
    assert TextTable(data_dir=str(folder), length=2).time == 2
    assert "Good" in TextTable(data_dir=str(folder), lower=False).facts.vocabulary.tokens


@pytest.mark.parametrize("readout", ["last", "mean", "max", "attention"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_padding_changes_nothing(readout, bidirectional, folder):
    """Filled up to any length, with whatever tokens, a batch has the same outputs, loss and gradients."""
    config = config_of(folder, model={"readout": readout, "bidirectional": bidirectional})
    model, task = build_model(config), config.task
    params = model.init(jax.random.key(0))
    batch = task.examples(jax.device_put(task.load("train")), jnp.arange(8))
    longer = batch._replace(xs=jnp.pad(batch.xs, ((0, 0), (0, 5)), constant_values=3))

    @jax.jit
    def loss(params, batch):
        return task.metrics(model.apply(params, batch.xs, lengths=batch.lengths).outputs, batch)["loss"].sum()

    (one, grads), (two, more) = (jax.value_and_grad(loss)(params, b) for b in (batch, longer))
    np.testing.assert_allclose(two, one, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6), grads, more)
    alone = model.apply(params, batch.xs[3:4, :2]).outputs  # by itself, with no padding
    np.testing.assert_allclose(model.apply(params, batch.xs, lengths=batch.lengths).outputs[3:4], alone, rtol=1e-5)


def test_labels_from_lines_of_text(folder, tmp_path, undrawn):
    run = train.run(config_of(folder, model={"readout": "attention"}), tmp_path / "run")
    assert run.summary["best"]["test"]["accuracy"] == 1.0
    assert evaluate.run(run).equals_stored
    for split in SPLITS:
        (folder / f"{split}.tsv").unlink()
    (tmp_path / "new.txt").write_text("a good one\nso very bad\n\n" + "bad " * 30 + "\n")
    predicted = predict.run(run, tmp_path / "new.txt")
    assert predicted.columns["prediction"].tolist()[:2] == ["yes", "no"]
    assert predicted.table.columns == ["sequence", "prediction", "p(no)", "p(yes)"]
    assert predicted.columns["prediction"][3] == "no", "longer than any text in training"


def test_a_folder_that_is_gone_is_said_where_it_is_read(tmp_path):
    task = TextTable(data_dir=str(tmp_path / "gone"))
    assert task.data_files() == {}, "as of other tasks of files, so that a run opens without its data"
    with pytest.raises(UsageError, match="there is no such directory"):
        _ = task.facts


def test_columns_of_tables(tmp_path):
    (tmp_path / "a.tsv").write_text('say "good"\t1\nbad, bad\t0\n')
    read = load_labelled_texts(tmp_path / "a.tsv", "column1", "column2", has_header=False)
    assert read.texts == ['say "good"', "bad, bad"]
    (tmp_path / "a.csv").write_text('label,text\n1,"bad, ""bad"""\n0,good\n')
    assert load_labelled_texts(tmp_path / "a.csv", "text", "label") == (['bad, "bad"', "good"], ["1", "0"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text\tlabel\na\n", "row 1 has 1 fields; there are 2 columns"),
        ("text\tlabels\na\t1\n", "'label' is no column of it; there are text, labels; did you mean 'labels'"),
        ("", "is empty"),
        ("text\tlabel\n", "train: has no rows"),
        ("text\tlabel\na\tyes\n", "train: all its texts are labelled yes; needed are two classes"),
    ],
)
def test_wrong_tables(content, message, tmp_path):
    for split in SPLITS:
        (tmp_path / f"{split}.tsv").write_text(content)
    with pytest.raises(UsageError, match=message):
        _ = TextTable(data_dir=str(tmp_path)).facts


def test_wrong_labels_and_encodings(folder):
    (folder / "test.tsv").write_text("text\tlabel\na\tya\n")
    with pytest.raises(
        UsageError, match="test: text 0 is labelled 'ya', which no text in training is; allowed are no, yes"
    ):
        _ = TextTable(data_dir=str(folder)).facts
    (folder / "test.tsv").write_bytes("text\tlabel\né\tyes\n".encode("latin-1"))
    with pytest.raises(UsageError, match=r"test.tsv: line 2: holds bytes that are no text in UTF-8"):
        _ = TextTable(data_dir=str(folder)).facts
    with pytest.raises(UsageError, match="folds=3: texts with labels are not divided so"):
        TextTable(data_dir=str(folder), folds=3)


def test_real_reviews(data_dir):
    """The numbers that the data's own description has; folds are disjoint, of all reviews, and half positive."""
    assert dict(SST2().facts.texts) == {"train": 6920, "valid": 872, "test": 1821}
    sizes = [RTPolarity(test_fold=fold).facts.texts for fold in range(2)]
    assert [sum(size.values()) for size in sizes] == [10_662] * 2
    tests = [RTPolarity(test_fold=fold).labelled_texts()["test"] for fold in range(10)]
    assert sum(len(part.texts) for part in tests) == 10_662
    assert all(abs(part.labels.count("positive") - part.labels.count("negative")) <= 1 for part in tests)
    review = ReviewPolarity(length=50)
    assert dict(review.facts.texts) == {"train": 1600, "valid": 200, "test": 200}
    assert review.facts.classes == ("negative", "positive")
    (texts, labels), folds = review.all_texts()
    assert (len(texts), labels.count("positive"), folds.count(0)) == (2000, 1000, 200)


def test_baselines_know_the_training_alone(folder):
    (folder / "test.tsv").write_text("text\tlabel\na\tyes\nb\tyes\nc\tno\n")
    config = config_of(folder)
    baseline = config.task.baseline
    assert baseline["loss"] == pytest.approx(np.log(2))
    model = build_model(config)
    metrics = build_evaluator(config, model)(
        jax.tree.map(jnp.zeros_like, model.init(jax.random.key(0))), "test", jax.device_put(config.task.load("test"))
    )
    assert metrics["loss"] == pytest.approx(np.log(2), rel=1e-6)
