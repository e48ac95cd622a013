"""The training step: the same bits however calls are cut, batches by seed and step, no recompilation."""

from __future__ import annotations

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax.config import traced_hyperparameters
from gru_jax.runs.diagnosis import explain, explain_update
from gru_jax.tasks import MNIST, Adding
from gru_jax.training.evaluation import build_evaluator
from gru_jax.training.network import build_model, run_network
from gru_jax.training.step import Trainer, all_finite
from tests.training.small import small


def trainer_of(config):
    return Trainer(config)


def run(trainer, calls, seed=0, numbers=None, rows=5):
    config = trainer.config
    numbers = numbers or traced_hyperparameters(config)
    indices = config.task.train_indices(config.train.batch_size, seed)
    state, history = trainer.init(seed, numbers), []
    for count in calls:
        padded = np.zeros((rows, config.train.batch_size), np.int32)
        padded[:count] = indices(int(state.step), count)
        done = trainer.run(state, seed, numbers, {}, padded, np.int32(count))
        state = done.state
        history.append(np.asarray(done.metrics["loss"])[:count])
    return state, np.concatenate(history), done


def test_calls_of_any_length_give_the_same_bits():
    trainer = trainer_of(small(model={"dropout": 0.3, "hidden": (4, 3)}))
    whole, losses, _ = run(trainer, [5, 5])
    cut, same, _ = run(trainer, [1, 3, 2, 4])
    np.testing.assert_array_equal(losses, same)
    jax.tree.map(np.testing.assert_array_equal, whole, cut)
    assert int(whole.step) == 10


def test_learning_rate_and_seed_are_values():
    trainer = trainer_of(small())
    results = []
    for lr, seed in ((0.1, 0), (0.01, 0), (0.1, 1)):
        numbers = traced_hyperparameters(small(optimizer={"lr": lr}))
        results.append(run(trainer, [3], seed=seed, numbers=numbers)[1])
    assert trainer.run._cache_size() == 1
    assert trainer.init._cache_size() == 1
    assert results[0][0] == results[1][0]  # the same start
    assert results[0][2] != results[1][2]
    assert results[0][0] != results[2][0]


def test_dropout_differs_by_step_and_is_off_in_evaluation():
    config = small(model={"dropout": 0.5, "hidden": (4, 3)}, optimizer={"lr": 0.0})
    trainer = trainer_of(config)
    state, losses, _ = run(trainer, [2])
    batch = trainer.batch(0, {}, jnp.asarray(config.task.train_indices(8, 0)(0, 1)[0]))
    clean = trainer.loss(state.params, None, batch)[0]
    assert losses[0] != pytest.approx(float(clean), rel=1e-6)
    model = build_model(config)
    evaluate = build_evaluator(config, model)
    assert evaluate(state.params, "valid", {}) == evaluate(state.params, "valid", {})


def test_evaluation_is_the_mean_over_the_split():
    config = small(train={"eval_batch_size": 7})  # does not divide 20
    model = build_model(config)
    params = model.init(jax.random.key(0))
    got = build_evaluator(config, model)(params, "valid", {})
    task = config.task
    from gru_jax.tasks import split_key

    batch = task.batch({}, split_key("valid", 0), jnp.arange(20, dtype=jnp.int32))
    wanted = run_network(config, model, params, batch)[1]["loss"].mean()
    assert got["loss"] == pytest.approx(float(wanted), rel=1e-6)


def test_epochs_read_every_example_once():
    class Tiny(MNIST):
        def count(self, split):
            return 10

    indices = Tiny().train_indices(3, seed=0)
    epochs = [indices(3 * e, 3).ravel() for e in range(3)]
    for epoch in epochs:
        assert len(set(epoch.tolist())) == 9
    assert epochs[0].tolist() != epochs[1].tolist()
    np.testing.assert_array_equal(indices(4, 3), np.concatenate([indices(4, 1), indices(5, 2)]))
    np.testing.assert_array_equal(Tiny().train_indices(3, seed=0)(7, 1), indices(7, 1))
    assert Tiny().train_indices(3, seed=1)(0, 3).ravel().tolist() != epochs[0].tolist()


def test_generated_examples_are_numbered_on():
    indices = Adding().train_indices(4, seed=0)
    assert indices(2, 2).tolist() == [[8, 9, 10, 11], [12, 13, 14, 15]]


def test_a_step_that_is_not_finite_changes_nothing():
    trainer = trainer_of(small())
    numbers = traced_hyperparameters(small())
    state, _, _ = run(trainer, [2])
    poisoned = state._replace(params=jax.tree.map(lambda p: p * jnp.nan, state.params))
    kept = jax.tree.map(np.asarray, poisoned)
    indices = np.zeros((5, 8), np.int32)
    done = trainer.run(poisoned, 0, numbers, {}, indices, np.int32(4))
    assert not done.finite
    jax.tree.map(np.testing.assert_array_equal, done.state, kept)
    assert int(done.state.step) == 2


@dataclasses.dataclass(frozen=True)
class Steep(Adding):
    """The adding problem with a loss of another size."""

    slope: float = 1.0
    valid_size: int = 20
    test_size: int = 30

    def metrics(self, outputs, batch):
        return {"loss": self.slope * super().metrics(outputs, batch)["loss"]}


def steep(slope, **optimizer):
    return dataclasses.replace(small(optimizer={"name": "sgd", "lr": 0.1, **optimizer}), task=Steep(8, slope=slope))


def test_the_share_of_clipped_steps_is_of_what_is_left_after_clipping_by_value():
    config = steep(1.0, clip_norm=0.1, clip_value=1e-4)
    _, _, done = run(trainer_of(config), [1], numbers=traced_hyperparameters(config))
    assert float(done.metrics["grad_norm"][0]) > 0.1  # before either
    assert float(done.metrics["clipped"][0]) == 0.0


@pytest.mark.parametrize("slope", [1e-26, 1e19, 1e25, 3e35])
def test_clipping_saves_a_step_whose_gradient_has_infinite_squares(slope):
    """Clipped to a norm of 1e-3, a gradient gives the same step whatever its size."""
    clip = 1e-3 if slope > 1 else 1e-30
    config, usual = steep(slope, clip_norm=clip), steep(1.0, clip_norm=1e-3)
    state, _, done = run(trainer_of(config), [1], numbers=traced_hyperparameters(config))
    wanted, _, one = run(trainer_of(usual), [1], numbers=traced_hyperparameters(usual))
    assert done.finite
    norm, norm_of_one = (float(d.metrics["grad_norm"][0]) for d in (done, one))
    assert norm == pytest.approx(slope * norm_of_one, rel=1e-5)
    assert float(done.metrics["clipped"][0]) == 1.0
    if slope > 1:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), state.params, wanted.params)


def test_an_optimiser_that_overflows_ends_the_call():
    """Adam's mean of squares would be infinite, and all later updates zero."""
    config = steep(1e25, name="adam", clip_norm=None)
    trainer = trainer_of(config)
    state, _, done = run(trainer, [2], numbers=traced_hyperparameters(config))
    assert not done.finite
    assert int(state.step) == 0
    batch = trainer.batch(0, {}, jnp.asarray(config.task.train_indices(8, 0)(0, 1)[0]))
    assert explain(trainer, state.params, batch) is None
    said = explain_update(trainer, state, 0, traced_hyperparameters(trainer.config), batch)
    assert "optimiser's state" in said
    assert re.search(r"nu.* is not, after gradients of up to \d\.\d+e\+2[45], which optimizer\.clip_norm", said)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (steep(1e6, name="sgd", lr=1e38, clip_norm=None), "the update of .* is not"),
        (steep(3e38, name="sgd", clip_norm=None), "gradient"),
    ],
)
def test_what_is_not_finite_is_said(config, said):
    trainer = trainer_of(config)
    state = trainer.init(0, traced_hyperparameters(config))
    batch = trainer.batch(0, {}, jnp.asarray(config.task.train_indices(8, 0)(0, 1)[0]))
    assert re.search(said, explain_update(trainer, state, 0, traced_hyperparameters(trainer.config), batch))


def test_an_optimiser_may_begin_with_infinity():
    before = {"best": jnp.array([jnp.inf, 1.0]), "count": jnp.array(3)}
    assert all_finite(before, before)
    assert not all_finite(before)
    assert not all_finite({**before, "best": jnp.array([1.0, jnp.inf])}, before)


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_precisions(dtype):
    from gru_jax.runtime.devices import precision

    config = small(dtype=dtype)
    with precision(config.dtype, config.matmul_precision):
        state, losses, _ = run(trainer_of(config), [5])
        wanted = jnp.float64 if dtype == "float64" else jnp.float32
        assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype(wanted)}
    assert losses.dtype == wanted
    assert np.isfinite(losses).all()
    if dtype == "bfloat16":  # double precision draws other numbers, so that its losses are others
        _, single, _ = run(trainer_of(small()), [5])
        np.testing.assert_allclose(losses, single, rtol=1e-1)
