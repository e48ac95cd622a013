"""What a config does to gradients beside optimising with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from gru_jax.config import Config, GradientConfig
from gru_jax.dtypes import carry_dtype
from gru_jax.flow.regularizers import flossing_penalty, vanishing_penalty
from gru_jax.tasks import Batch
from gru_jax.training.layers import cells_along, layer_names, weights_of
from gru_jax.unroll import Intervention


def interventions(
    config: Config, key: PRNGKeyArray, shape: tuple[int, ...], numbers: Mapping[str, Any], weight: float = 1.0
) -> tuple[Intervention, ...] | None:
    """What is done in each layer's backward recursion; None for nothing.

    Args:
        config: the config.
        key: draws the masks.
        shape: of the masks, `[B, T]`.
        numbers: of the section `gradient`, see `gru_jax.config.hyperparameters`.
        weight: of each sequence's own loss in the one that is differentiated: 1 / B in their mean.
    """
    gradient = config.gradient
    if not gradient.intervenes:
        return None

    def of_layer(i: int) -> Intervention:
        mask = None
        if gradient.detach:
            mask = jax.random.bernoulli(jax.random.fold_in(key, i), numbers["detach"], shape)
        clip = None if gradient.adjoint_clip is None else weight * numbers["adjoint_clip"]
        return Intervention(clip, mask, gradient.truncate)

    return tuple(of_layer(i) for i in range(len(config.model.hidden)))


def needs_adjoints(gradient: GradientConfig) -> bool:
    """Whether a penalty is a function of the adjoints of the loss."""
    return gradient.omega > 0


def penalty_gradient(
    config: Config,
    params: Any,
    inputs: tuple[Array, ...],
    sent: Any,
    batch: Batch,
    step: Any,
    numbers: Mapping[str, Any],
) -> Any:
    """The gradient of all penalties, to be added to the loss's; None where there are none.

    Args:
        config: the config.
        params: of the network.
        inputs: of every layer, `[B, T, D]`.
        sent: adjoints of every layer of the batch's loss, where a penalty needs them.
        batch: the batch.
        step: steps done.
        numbers: of the section `gradient`, see `gru_jax.config.hyperparameters`.
    """
    gradient = config.gradient
    total = None
    if gradient.omega:

        def omega(params: Any) -> Array:
            terms = [
                vanishing_penalty(config.model.cell, weights, along, carry)
                for _, weights, along, carry in cells_along(config, params, inputs, sent, batch.lengths)
            ]
            return numbers["omega"] * sum(terms[1:], terms[0])

        total = jax.grad(omega)(params)
    if gradient.floss and gradient.floss_every:

        def flossing(params: Any) -> Any:
            count, time = gradient.floss_sequences, gradient.floss_time
            some = tuple(xs[:count, :time] for xs in inputs)
            lengths = None if batch.lengths is None else jnp.minimum(batch.lengths[:count], time)
            return jax.grad(lambda p: numbers["floss_weight"] * floss(config, p, some, lengths))(params)

        own = jax.lax.cond(
            step % gradient.floss_every == 0, flossing, lambda params: jax.tree.map(jnp.zeros_like, params), params
        )
        total = own if total is None else jax.tree.map(jnp.add, total, own)
    return total


def floss(
    config: Config, params: Any, inputs: tuple[Float[Array, "B T _"], ...], lengths: Int[Array, " B"] | None = None
) -> Float[Array, ""]:
    """The flossing penalty of all layers on these inputs."""
    terms = [
        flossing_penalty(config.model.cell, weights, jax.lax.stop_gradient(along), k=config.gradient.floss)
        for _, weights, along, _ in cells_along(config, params, inputs, (None,) * len(inputs), lengths)
    ]
    return sum(terms[1:], terms[0])


def flossed(config: Config, params: Any, key: PRNGKeyArray, numbers: Mapping[str, Any]) -> Any:
    """Parameters after `floss_before` steps of Adam on the flossing penalty, on unit Gaussian inputs drawn anew."""
    gradient = config.gradient
    if not gradient.floss or not gradient.floss_before:
        return params
    optimizer = optax.adam(numbers["floss_lr"])
    shape = (gradient.floss_sequences, min(gradient.floss_time, config.task.time))
    widths = [weights_of(config, params, name)[0]["W"] for name in layer_names(config)]
    sizes = [next(iter(kernels.values())).shape[0] for kernels in widths]
    dtype = carry_dtype(config.dtype)

    def body(i: Int[Array, ""], state: tuple[Any, Any]) -> tuple[Any, Any]:
        params, opt_state = state
        keys = jax.random.split(jax.random.fold_in(key, i), len(sizes))
        inputs = tuple(jax.random.normal(k, (*shape, size), dtype) for k, size in zip(keys, sizes, strict=True))
        grads = jax.grad(lambda p: floss(config, p, inputs))(params)
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    return jax.lax.fori_loop(0, gradient.floss_before, body, (params, optimizer.init(params)))[0]
