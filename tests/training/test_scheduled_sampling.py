"""A decoder that reads its own tokens in training, against what those are."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import train
from gru_jax.config import load, traced_hyperparameters, training_program
from gru_jax.errors import UsageError
from gru_jax.runs.checkpoints import Checkpoints
from gru_jax.tasks import split_key
from gru_jax.training.network import build_model, draw_batch, run_network
from gru_jax.training.scheduled_sampling import draw_own_tokens, with_own_tokens
from gru_jax.training.step import Trainer
from tests.training.killing import struck
from tests.training.test_resume import same_run
from tests.training.test_translation import reversing

PLAIN = {"bidirectional": False, "attention": "none"}


def sampling(probability, schedule="constant", **changes):
    model = {**PLAIN, "scheduled_sampling": probability, "sampling_schedule": schedule}
    return reversing(model=model, **changes)


def probabilities(schedule, steps, probability=0.8):
    config = sampling(probability, schedule)
    values = traced_hyperparameters(config)["model"]
    each = jax.jit(jax.vmap(lambda step: draw_own_tokens(config, 0, step, steps, 2, values).probability))
    return np.asarray(each(jnp.arange(steps)))[:, 0]


def test_schedules_grow_as_in_the_paper():
    """One less than the decays of Bengio et al., whose constants follow from the number of steps."""
    steps = 11
    step, last = np.arange(steps), steps - 1
    k = 0.01 ** (1 / last)
    width, middle = last / 12, last / 2  # of k / (k + exp(i / k)) = sigmoid((k ln k - i) / k): a sigmoid of the step
    wanted = {
        "constant": np.zeros(steps),
        "linear": 1 - step / last,
        "exponential": k**step,
        "inverse_sigmoid": 1 / (1 + np.exp((step - middle) / width)),
    }
    for schedule, of_target in wanted.items():
        np.testing.assert_allclose(probabilities(schedule, steps), 0.8 * (1 - of_target), rtol=1e-5, atol=1e-7)


def test_what_is_read_is_the_target_or_the_likeliest_token():
    config = sampling(0.5, task={"length": 6, "symbols": 4})
    model = build_model(config)
    params = jax.tree.map(lambda leaf: 8 * leaf, model.init(jax.random.key(0)))
    index = jnp.arange(200, dtype=jnp.int32)

    @jax.jit
    def read(probability):
        batch = draw_batch(config, {}, split_key("valid", 0), index)
        own = draw_own_tokens(config, 3, 7, 10, 200, {"scheduled_sampling": probability})
        likeliest = run_network(config, model, params, batch)[0].outputs.argmax(axis=-1)
        return batch.decoder_inputs, likeliest, with_own_tokens(model, params, batch, own).decoder_inputs

    targets, likeliest, half = map(np.asarray, read(jnp.float32(0.5)))
    late = np.concatenate([targets[:, :1], likeliest[:, :-1]], axis=1)
    assert ((half == targets) | (half == late)).all()
    differs = targets != late
    assert 0.45 < (half == late)[differs].mean() < 0.55
    np.testing.assert_array_equal(read(jnp.float32(1.0))[2], late)
    np.testing.assert_array_equal(read(jnp.float32(0.0))[2], targets)


def test_the_loss_is_of_what_was_read():
    config = sampling(0.9)
    trainer, values, index = Trainer(config), traced_hyperparameters(config), jnp.arange(8, dtype=jnp.int32)
    state = jax.jit(trainer.init)(0, values)

    @jax.jit
    def losses(state):
        batch = trainer.batch(0, {}, index)
        own = draw_own_tokens(config, 0, state.step, trainer.plan.steps, 8, values["model"])
        read = with_own_tokens(trainer.model, state.params, batch, own)
        of_step = trainer.step(state, 0, values, {}, index)[1].metrics["loss"]
        return of_step, trainer.loss(state.params, None, read)[0], trainer.loss(state.params, None, batch)[0]

    of_step, of_read, of_targets = map(float, losses(state))
    assert of_step == pytest.approx(of_read, rel=1e-6)
    assert of_step != pytest.approx(of_targets, rel=1e-4)


def test_off_is_the_program_without_it(monkeypatch):
    config = sampling(0.0)
    trainer, values, index = Trainer(config), traced_hyperparameters(config), jnp.arange(8, dtype=jnp.int32)
    state = jax.eval_shape(trainer.init, 0, values)
    text = jax.jit(trainer.step).lower(state, 0, values, {}, index).as_text()
    monkeypatch.setattr("gru_jax.training.step.draw_own_tokens", lambda *args: None)
    monkeypatch.setattr("gru_jax.training.step.with_own_tokens", lambda model, params, batch, sampled: batch)
    assert (
        jax.jit(lambda *args: trainer.step(*args))
        .lower(state, 0, values, {}, index)
        .as_text()
        .replace("jit__lambda_", "jit_step")
        .replace("jit__lambda", "jit_step")
        == text
    )
    assert training_program(sampling(0.9)) == training_program(sampling(0.2)) != training_program(config)


@pytest.mark.slow
def test_a_run_is_the_same_after_any_kill(tmp_path, monkeypatch, undrawn):
    config = sampling(0.5, "linear", flow={"every": 0})
    train.run(config, tmp_path / "whole")
    with struck(monkeypatch, Checkpoints, "save", 3):
        train.run(config, tmp_path / "killed")
    train.run(config, tmp_path / "killed")
    same_run(tmp_path / "whole", tmp_path / "killed")


def test_wrong_configs():
    for changes, message in (
        ({"scheduled_sampling": 0.5}, "model.scheduled_sampling=0.5: without effect, this network has no decoder"),
        ({"sampling_schedule": "linear"}, "model.sampling_schedule='linear': without effect; model.scheduled_sampling"),
        ({"sampling_schedule": "sigmoid"}, "did you mean 'inverse_sigmoid'"),
        ({"scheduled_sampling": 1.5}, "model.scheduled_sampling=1.5: allowed are"),
    ):
        with pytest.raises(UsageError, match=message):
            load({"task": {"name": "adding", "length": 5}, "model": changes, "train": {"steps": 2}})
