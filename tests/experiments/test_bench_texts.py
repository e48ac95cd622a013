"""The networks of other libraries that read tokens are those of the config."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.bench import text_networks
from gru_jax.cells import LSTM
from gru_jax.config import Config, load, traced_hyperparameters
from gru_jax.errors import UsageError
from gru_jax.training.step import Trainer

pytestmark = pytest.mark.usefixtures("jax_as_users_have_it")  # other libraries count on it

COMMON = {"train": {"batch_size": 3, "steps": 100}}


@pytest.fixture(params=["language model", "labels", "translation"])
def config(request, tmp_path) -> Config:
    """A small network of each kind, with what it reads."""
    if request.param == "language model":
        (tmp_path / "book.txt").write_text("a b c d e f g h i j " * 60)
        task = {"name": "text", "train": "book.txt", "data_dir": str(tmp_path), "length": 5, "tokens": "words",
                "valid_fraction": 0.1, "test_fraction": 0.1}  # fmt: skip
        return load({**COMMON, "task": task, "model": {"hidden": (4,), "embedding": 4, "tied": True}})
    if request.param == "labels":
        rows = [f"{'good ' * (i % 4 + 1)}film\t1\n{'bad ' * (i % 3 + 1)}\t0\n" for i in range(9)]
        for split in ("train", "valid", "test"):
            (tmp_path / f"{split}.tsv").write_text("text\tlabel\n" + "".join(rows))
        task = {"name": "text_table", "data_dir": str(tmp_path)}
        model = {"hidden": (4, 4), "embedding": 3, "bidirectional": True, "readout": "max"}
        return load({**COMMON, "task": task, "model": model})
    model = {"hidden": (4,), "embedding": 3, "bidirectional": True, "attention": "luong"}
    return load({**COMMON, "task": {"name": "reverse", "length": 5}, "model": model})


def test_they_have_our_parameters(config):
    ours = Trainer(config).init(0, traced_hyperparameters(config)).params
    batch = text_networks.token_batches(config)[0]
    carry = tuple(jnp.zeros((3, size)) for size in config.model.hidden) if config.task.is_stream else None
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(0)}
    theirs = text_networks._linen_network(config).init(keys, batch, carry)
    assert sum(leaf.size for leaf in jax.tree.leaves(theirs)) == sum(leaf.size for leaf in jax.tree.leaves(ours))


def test_they_take_steps(config):
    text_networks.linen_text_training(config, 10)()
    assert text_networks.tokens_per_step(config) > 3


def test_batches_are_those_that_ours_sees(config):
    first, second = text_networks.token_batches(config)[:2]
    assert first.xs.shape[0] == 3
    if config.task.is_stream:  # row by row it goes on
        tokens = np.asarray(config.task.load("train")["tokens"])
        np.testing.assert_array_equal(np.concatenate([first.xs[0], second.xs[0]]), tokens[:10])


def test_pytorch_takes_steps(config):
    pytest.importorskip("torch")
    text_networks.torch_text_training(config, 10)()


def test_another_network_is_refused(config):
    other = dataclasses.replace(config, model=dataclasses.replace(config.model, cell=LSTM()))
    with pytest.raises(UsageError, match=r"^model\.cell\.name=LSTM: the networks of other libraries here have GRU$"):
        text_networks.token_batches(other)
