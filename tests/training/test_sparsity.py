"""Kernels of which most weights are zero: which they are, when, and which network is kept."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax
from experiments import ablate, evaluate, train
from gru_jax.config import load, traced_hyperparameters, training_program
from gru_jax.errors import UsageError
from gru_jax.runs.checkpoints import Checkpoints
from gru_jax.training.sparsity import least, with_sparse_kernels
from gru_jax.training.step import Trainer
from tests.training.killing import struck
from tests.training.small import small
from tests.training.test_resume import same_run

pytestmark = pytest.mark.usefixtures("compiled_once", "undrawn")

HALF = {"sparsity": 0.5, "sparsity_until": 4}


def sparse(**changes):
    """A small run of ten steps, half of whose weights are gone after the fourth."""
    return small(**{"regularization": HALF, "train": {"steps": 10, "eval_steps": 2}, "flow": {"every": 0}, **changes})


def zeros(params):
    """Where kernels are zero, by leaf."""
    return [np.asarray(leaf) == 0 for leaf in jax.tree.leaves(params) if leaf.ndim > 1]


def test_the_least_go():
    kernel = jnp.asarray([[3.0, -1.0, 0.5], [-0.1, 2.0, -4.0]])
    np.testing.assert_array_equal(least(kernel, 0.5), [[False, True, True], [True, False, False]])
    assert not least(kernel, 0.0).any()
    assert least(kernel, 1.0).all()


def test_biases_and_embeddings_stay():
    config, values = load({"train": {"steps": 9}, "regularization": HALF}).regularization, {
        "sparsity": np.float32(0.5), "sparsity_until": np.float32(4),
    }  # fmt: skip
    params = {"U": jnp.ones((2, 2)).at[0].set(0.1), "b": jnp.ones(2), "embed": {"embedding": jnp.ones((2, 2))}}
    after = with_sparse_kernels(config, params, params, jnp.int32(3), values)
    np.testing.assert_array_equal(after["U"], [[0, 0], [1, 1]])
    jax.tree.map(np.testing.assert_array_equal, {**after, "U": 0}, {**params, "U": 0})


def test_where_the_last_update_of_the_rise_was_skipped_the_next_makes_them_sparse():
    config, values = sparse().regularization, {"sparsity": np.float32(0.5), "sparsity_until": np.float32(4)}
    dense = {"U": jnp.arange(1.0, 5.0).reshape(2, 2)}
    after = with_sparse_kernels(config, dense, dense, jnp.int32(7), values)
    np.testing.assert_array_equal(after["U"], [[0, 0], [3, 4]])
    moved = {"U": after["U"] + jnp.array([[9.0, 9.0], [-2.9, 0.0]])}
    later = with_sparse_kernels(config, after, moved, jnp.int32(8), values)
    np.testing.assert_allclose(later["U"], [[0, 0], [0.1, 4]], rtol=1e-5)


def test_their_share_rises_as_published_and_then_they_stay():
    config = sparse()
    trainer, values = Trainer(config), traced_hyperparameters(config)
    state, step, before = trainer.init(0, values), jax.jit(trainer.step), None
    for i in range(8):
        state = step(state, 0, values, {}, config.task.train_indices(8, 0)(i, 1)[0])[0]
        gone = zeros(state.params)
        share = 0.5 * (1 - (1 - min((i + 1) / 4, 1)) ** 3)
        assert [int(where.sum()) for where in gone] == [round(share * where.size) for where in gone]
        if i >= 4:
            for one, other in zip(gone, before, strict=True):
                np.testing.assert_array_equal(one, other)
        before = gone


def test_the_best_network_is_a_sparse_one(tmp_path):
    """Even where one before it was better; and neither a target nor patience ends the training before."""
    changes = {"train": {"steps": 10, "eval_steps": 2, "target": 1e9, "patience": 1}, "optimizer": {"lr": 1e-6}}
    train.run(sparse(**changes), tmp_path / "run")
    run = gru_jax.open(tmp_path / "run")
    assert run.summary["best"]["step"] == run.summary["steps"] == 4
    assert min(where.mean() for where in zeros(run.params)) >= 0.4
    assert evaluate.run(run).equals_stored


@pytest.mark.slow
def test_a_run_is_the_same_after_any_kill(tmp_path, monkeypatch):
    config = sparse()
    train.run(config, tmp_path / "whole")
    for call in (2, 6):  # while the share rises, and after it
        with struck(monkeypatch, Checkpoints, "save", call):
            train.run(config, tmp_path / "killed")
    train.run(config, tmp_path / "killed")
    same_run(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.slow
def test_numbers_are_traced_and_members_have_their_own(tmp_path):
    one, other = sparse(), sparse(regularization={"sparsity": 0.8, "sparsity_until": 2})
    assert training_program(one) == training_program(other) != training_program(small())
    axes = {"regularization.sparsity": [0.5, 0.8], "regularization.sparsity_until": [4]}
    study = ablate.run({"base": sparse(), "axes": axes}, tmp_path / "study")
    train.run(sparse(regularization={"sparsity": 0.8, "sparsity_until": 4}), tmp_path / "alone")
    (member,) = (row for row in study.table.to_dicts() if row["regularization.sparsity"] == 0.8)
    assert member["best_valid_loss"] == pytest.approx(gru_jax.open(tmp_path / "alone").summary["best"]["valid"]["loss"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sparsity_until": 3}, r"sparsity_until=3: without effect; regularization\.sparsity says how many weights go"),
        (
            {"sparsity": 0.5, "sparsity_until": 11},
            r"sparsity_until=11: allowed are up to 10, the length of the t",
        ),
        (
            {"sparsity": 0.5, "ema": 0.9},
            r"sparsity=0\.5: an average of networks has other zeros than they; al",
        ),
    ],
)
def test_what_makes_no_sense_is_said(changes, message):
    with pytest.raises(UsageError, match=message):
        sparse(regularization=changes)
