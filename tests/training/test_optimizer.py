"""Every optimiser, schedule and penalty against optax' own or the formula; numbers stay traced."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gru_jax.config import OPTIMIZERS, OptimizerConfig, real_settings
from gru_jax.training.optimizer import build_optimizer, schedule_shape
from tests import lenient

pytestmark = pytest.mark.usefixtures("x64")  # float32 would show the rounding of 1 - b2, not mistakes
PARAMS = {"kernel": np.linspace(-1, 1, 6).reshape(2, 3), "bias": np.array([0.5, -0.5, 2.0])}
LR = 0.05


def trajectory(config, steps=5, total=100, warmup=0):
    """Parameters after a few steps on a quadratic, through the compiled path with traced numbers."""

    @jax.jit
    def advance(numbers, params, state):
        optimizer = build_optimizer(config, total, warmup, numbers)
        grads = jax.tree.map(lambda p: 2 * p + 0.1, params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    numbers = real_settings(config)
    params = jax.tree.map(jnp.asarray, PARAMS)
    state = build_optimizer(config, total, warmup, numbers).init(params)
    for _ in range(steps):
        params, state = advance(numbers, params, state)
    return params


def by_optax(optimizer, steps=5, add=lambda p: jax.tree.map(jnp.zeros_like, p)):
    params = jax.tree.map(jnp.asarray, PARAMS)
    state = optimizer.init(params)
    for _ in range(steps):
        grads = jax.tree.map(lambda p, a: 2 * p + 0.1 + a, params, add(params))
        with lenient.jax_as_users_have_it():
            updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params


def mask(params):
    return {"kernel": True, "bias": False}


REFERENCES = {
    "sgd": optax.sgd(LR),
    "momentum": optax.sgd(LR, momentum=0.9),
    "adam": optax.adam(LR),
    "adamw": optax.adamw(LR, weight_decay=0.1, mask=mask),
    "rmsprop": optax.rmsprop(LR, decay=0.9),
    "adagrad": optax.adagrad(LR, eps=1e-8),
    "lion": optax.lion(LR, b2=0.999, weight_decay=0.0),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_rules_are_those_of_optax(name):
    decay = 0.1 if name == "adamw" else 0.0
    config = OptimizerConfig(name=name, lr=LR, clip_norm=None, weight_decay=decay)
    got, wanted = trajectory(config), by_optax(REFERENCES[name])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), got, wanted)


def test_clipping():
    plain = OptimizerConfig(name="sgd", lr=LR, clip_norm=0.3, weight_decay=0.0)
    wanted = by_optax(optax.chain(optax.clip_by_global_norm(0.3), optax.sgd(LR)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), trajectory(plain), wanted)
    both = OptimizerConfig(name="sgd", lr=LR, clip_norm=0.3, clip_value=0.2, weight_decay=0.0)
    wanted = by_optax(optax.chain(optax.clip(0.2), optax.clip_by_global_norm(0.3), optax.sgd(LR)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), trajectory(both), wanted)


@pytest.mark.parametrize("kind", ["l1", "l2"])
def test_penalties_are_gradients_of_kernels(kind):
    config = OptimizerConfig(name="sgd", lr=LR, clip_norm=None, weight_decay=0.0, **{kind: 0.3})

    def penalty(kernel):
        return 0.3 * (jnp.abs(kernel).sum() if kind == "l1" else (kernel**2).sum() / 2)

    def add(params):
        return {"kernel": jax.grad(penalty)(params["kernel"]), "bias": jnp.zeros(3)}

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), trajectory(config), by_optax(optax.sgd(LR), add=add)
    )


def shape(steps=100, warmup=0, **options):
    schedule = schedule_shape(OptimizerConfig(**options), steps, warmup, 0.1)
    return [float(schedule(jnp.asarray(i))) for i in range(steps + 1)]


def test_schedules():
    assert shape(schedule="constant") == [1.0] * 101
    cosine = 0.1 + 0.9 * (1 + np.cos(np.pi * np.arange(101) / 100)) / 2
    np.testing.assert_allclose(shape(schedule="cosine"), cosine, atol=1e-6)
    np.testing.assert_allclose(shape(schedule="exponential"), 0.1 ** (np.arange(101) / 100), rtol=1e-5)
    warm = shape(schedule="cosine", warmup=20)
    np.testing.assert_allclose(warm[:21], np.arange(21) / 20, atol=1e-6)
    assert warm[-1] == pytest.approx(0.1, abs=1e-6)


def test_changing_a_number_compiles_nothing():
    config = OptimizerConfig(weight_decay=0.0)
    compiled = []

    @jax.jit
    def advance(numbers, params, state):
        compiled.append(1)
        return build_optimizer(config, 10, 0, numbers).update(params, state, params)

    for lr in (1e-4, 1e-3, 1e-2):
        numbers = real_settings(OptimizerConfig(lr=lr, weight_decay=0.0))
        advance(numbers, PARAMS, build_optimizer(config, 10, 0, numbers).init(PARAMS))
    assert len(compiled) == 1
