"""Every optimiser, schedule and penalty against optax' own or the formula; numbers stay traced."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gru_jax.config import OPTIMIZERS, OptimizerConfig, Plan, real_settings
from gru_jax.training.optimizer import build_optimizer
from tests import lenient

pytestmark = pytest.mark.usefixtures("x64")  # float32 would show the rounding of 1 - b2, not mistakes
PARAMS = {"kernel": np.linspace(-1, 1, 6).reshape(2, 3), "bias": np.array([0.5, -0.5, 2.0])}
LR = 0.05


def lasting(steps):
    """The durations of a training of so many steps."""
    return Plan(steps, None, eval_every=1, log_every=1, flow_every=0, warmup=0)


def trajectory(config, steps=5):
    """Parameters after a few steps on a quadratic, through the compiled path with traced numbers."""

    @jax.jit
    def advance(numbers, params, state):
        optimizer = build_optimizer(config, lasting(100), numbers)
        grads = jax.tree.map(lambda p: 2 * p + 0.1, params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    numbers = real_settings(config)
    params = jax.tree.map(jnp.asarray, PARAMS)
    state = build_optimizer(config, lasting(100), numbers).init(params)
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


@pytest.mark.parametrize("size", [1e-30, 1e-19, 1.0, 1e19, 3e37])
def test_clipping_of_gradients_of_any_size(size):
    """In float32, where squares of most of these are zero or infinite; compiled, as XLA joins divisions."""
    g = {"kernel": np.array([[3.0, -1.0], [0.5, 8.0]], np.float32), "bias": np.array([2.0, 0.0], np.float32)}
    g = {name: leaf * np.float32(size) for name, leaf in g.items()}
    norm = np.sqrt(sum(np.square(leaf.astype(np.float64)).sum() for leaf in g.values()))
    config = OptimizerConfig(name="sgd", lr=1.0, weight_decay=0.0, clip_norm=1.0)

    @jax.jit
    def update(grads, greatest):
        optimizer = build_optimizer(config, lasting(10), {**real_settings(config), "clip_norm": greatest})
        return optimizer.update(grads, optimizer.init(grads), grads)[0]

    for greatest in (0.5 * norm, 2.0 * norm):
        got = update(jax.tree.map(jnp.asarray, g), jnp.float32(min(greatest, 3e38)))
        for name, leaf in g.items():
            np.testing.assert_allclose(got[name], -leaf * min(1.0, greatest / norm), rtol=1e-6)


def test_clipping_changes_no_bit_of_optax():
    rng = np.random.default_rng(0)
    grads = {name: jnp.asarray(rng.standard_normal(s), jnp.float32) for name, s in (("a", (64, 64)), ("b", (64,)))}
    config = OptimizerConfig(name="sgd", lr=1.0, weight_decay=0.0, clip_norm=0.3)

    def of(optimizer):
        with lenient.jax_as_users_have_it():
            return optimizer.update(grads, optimizer.init(grads), grads)[0]

    got = jax.jit(lambda: of(build_optimizer(config, lasting(10), real_settings(config))))()
    wanted = jax.jit(lambda: of(optax.chain(optax.clip_by_global_norm(0.3), optax.scale(-1.0))))()
    jax.tree.map(np.testing.assert_array_equal, got, wanted)


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


def test_noise_decays_as_exactly_as_the_type():
    """The third draw of noise over that of the same key without decay is 3^(-0.55 / 2)."""
    updates = []
    for decay in (0.55, 0.0):
        config = OptimizerConfig(name="sgd", lr=LR, clip_norm=None, weight_decay=0.0, noise=0.3, noise_decay=decay)
        optimizer = build_optimizer(config, lasting(10), real_settings(config))
        state = optimizer.init({"w": jnp.zeros(())})
        for _ in range(3):
            update, state = optimizer.update({"w": jnp.zeros(())}, state, {"w": jnp.zeros(())})
        updates.append(float(update["w"]))
    np.testing.assert_allclose(updates[0] / updates[1], 3 ** (-0.55 / 2), rtol=1e-14)


def test_changing_a_number_compiles_nothing():
    config = OptimizerConfig(weight_decay=0.0)
    compiled = []

    @jax.jit
    def advance(numbers, params, state):
        compiled.append(1)
        return build_optimizer(config, lasting(10), numbers).update(params, state, params)

    for lr in (1e-4, 1e-3, 1e-2):
        numbers = real_settings(OptimizerConfig(lr=lr, weight_decay=0.0))
        advance(numbers, PARAMS, build_optimizer(config, lasting(10), numbers).init(PARAMS))
    assert len(compiled) == 1
