"""From a config to optax, with every number a traced value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from gru_jax.config import LEARNING_RATE, OptimizerBase, OptimizerConfig, Plan, Values
from gru_jax.errors import UsageError
from gru_jax.norms import global_norm, scaled_global_norm
from gru_jax.training.schedules import schedule_fraction
from gru_jax.training.state import RandomStream, stream_key
from gru_jax.user_code import reference
from gru_jax.with_arguments import refusing_decisions

RULES: dict[str, Callable[[Values, bool], optax.GradientTransformation]] = {
    "adam": lambda n, nesterov: optax.scale_by_adam(n["b1"], n["b2"], n["eps"]),
    "adamw": lambda n, nesterov: optax.scale_by_adam(n["b1"], n["b2"], n["eps"]),
    "sgd": lambda n, nesterov: optax.identity(),
    "momentum": lambda n, nesterov: optax.trace(n["momentum"], nesterov=nesterov),
    "rmsprop": lambda n, nesterov: optax.scale_by_rms(n["decay"], n["eps"]),
    "adagrad": lambda n, nesterov: optax.scale_by_rss(eps=n["eps"]),
    "lion": lambda n, nesterov: optax.scale_by_lion(n["b1"], n["b2"]),
}


def build_optimizer(
    config: OptimizerBase,
    durations: Plan,
    values: Values,
    seed: ArrayLike = 0,
    around_rule: Callable[[optax.GradientTransformation], optax.GradientTransformation] = lambda rule: rule,
) -> optax.GradientTransformation:
    """The chain that a config describes.

    Args:
        config: decides which parts there are (names, which clipping, which penalties), never a value.
        durations: of the training and of its schedule.
        values: hyperparameters of the section `optimizer`; they may be traced.
        seed: of the noise on gradients.
        around_rule: makes of the optimiser itself what stands in its place.
    """
    fraction = schedule_fraction(config, durations, values)
    parts = []
    if config.clip_value is not None:
        parts.append(optax.clip(values["clip_value"]))
    if config.clip_norm is not None:
        parts.append(_clip_by_global_norm(values["clip_norm"]))
    if config.noise:
        parts.append(_noise(values, stream_key(seed, RandomStream.GRADIENT_NOISE)))
    if config.l1:
        parts.append(_add_signs(values["l1"]))
    if config.l2:
        parts.append(optax.add_decayed_weights(values["l2"], mask=is_kernel))
    if isinstance(config, OptimizerConfig):
        parts.append(around_rule(RULES[config.name](values, config.nesterov)))
    elif config.function is not None:
        schedule = lambda count: values["lr"] * fraction(count)  # noqa: E731
        parts.append(around_rule(_of_function(config.function, config, values, schedule)))
    if LEARNING_RATE not in config.own_arguments:
        if config.weight_decay and "weight_decay" not in config.own_arguments:
            parts.append(optax.add_decayed_weights(values["weight_decay"], mask=is_kernel))
        parts.append(optax.scale_by_schedule(lambda count: -values["lr"] * fraction(count)))
    chain = optax.chain(*parts)

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        # optax mixes traced numbers with its integer counts, which strict promotion forbids.
        with jax.numpy_dtype_promotion("standard"):
            return chain.update(updates, state, params)

    return optax.GradientTransformation(chain.init, update)


def _of_function(
    function: Callable[..., Any], config: OptimizerBase, values: Values, schedule: optax.Schedule
) -> optax.GradientTransformation:
    """What a function of a user's own gives, with the keys of the section as its arguments."""
    traced = {LEARNING_RATE: schedule, **values}
    arguments = {name: traced[name] if name in traced else getattr(config, name) for name in config.own_arguments}
    with refusing_decisions(f"optimizer.name={reference(function)}"):
        rule = function(**arguments)
    if not (hasattr(rule, "init") and hasattr(rule, "update")):
        kind = type(rule).__name__
        raise UsageError(f"optimizer.name={reference(function)}: gives a {kind}; needed is a GradientTransformation")
    return rule


def is_kernel(params: PyTree) -> PyTree:
    """Which parameters penalties act on: matrices, not biases."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


def norm_to_clip(config: OptimizerBase, grads: PyTree, values: Values) -> Float[Array, ""]:
    """The norm of gradients that `clip_norm` is compared with, after `clip_value`."""
    if config.clip_value is not None:
        grads = jax.tree.map(lambda grad: jnp.clip(grad, -values["clip_value"], values["clip_value"]), grads)
    return global_norm(grads)


def _clip_by_global_norm(greatest_norm: ArrayLike) -> optax.GradientTransformation:
    """optax' clipping by the norm of all gradients together, for gradients of any size.

    g min(1, C / ||g||). Pascanu et al. 2013, arXiv:1211.5063, section 3.2. optax' own squares the entries as they are:
    those above 1.8e19 make its norm infinite and all gradients zero or undefined.
    """

    def update(updates: PyTree, params: PyTree) -> PyTree:
        del params
        scale, norm = scaled_global_norm(updates)
        short, down = scale * norm < greatest_norm, 1.0 / scale
        # Times the reciprocal: of two divisions the compiler would make one, by a product that may overflow.
        return jax.tree.map(lambda g: jnp.where(short, g, ((g * down) / norm) * greatest_norm), updates)

    return optax.stateless(update)


def _noise(values: Values, key: PRNGKeyArray) -> optax.GradientTransformation:
    """optax' noise, with its key as raw bits in the state: Orbax stores no typed keys."""
    inner = optax.add_noise(values["noise"], values["noise_decay"], key)

    def init(params: PyTree) -> PyTree:
        state: PyTree = inner.init(params)
        return state._replace(rng_key=jax.random.key_data(state.rng_key))

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        typed = state._replace(rng_key=jax.random.wrap_key_data(state.rng_key))
        updates, after = inner.update(updates, typed, params)
        return updates, after._replace(rng_key=jax.random.key_data(after.rng_key))  # type: ignore[attr-defined]

    return optax.GradientTransformation(init, update)


def _add_signs(factor: ArrayLike) -> optax.GradientTransformation:
    """The gradient of `factor` * sum |w|."""

    def update(updates: PyTree, params: PyTree) -> PyTree:
        return jax.tree.map(lambda g, p: g + factor * jnp.sign(p) if p.ndim > 1 else g, updates, params)

    return optax.stateless(update)
