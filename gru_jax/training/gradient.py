"""What a config does to gradients beside optimising with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from gru_jax.config import Config, GradientConfig, Values
from gru_jax.dtypes import carry_dtype
from gru_jax.flow.regularizers import flossing_penalty, vanishing_penalty
from gru_jax.nn import Functional, LayerInputs
from gru_jax.training.network import cell_trajectories
from gru_jax.unroll import Intervention


def detach_masks(
    config: Config, model: Functional, key: PRNGKeyArray, shape: tuple[int, int], values: Values
) -> tuple[Bool[Array, "B T"], ...] | None:
    """Where each layer's gradient does not pass to the state before, drawn at random; None without `detach`.

    Args:
        config: the config.
        model: its network.
        key: draws the masks.
        shape: of the masks, `[B, T]`.
        values: hyperparameters of the section `gradient`.
    """
    if not config.gradient.detach:
        return None
    keys = (jax.random.fold_in(key, number) for number in range(len(model.layers)))
    return tuple(jax.random.bernoulli(key, values["detach"], shape) for key in keys)


def interventions(
    config: Config,
    model: Functional,
    detached: tuple[Bool[Array, "B T"], ...] | None,
    values: Values,
    weight: ArrayLike = 1.0,
) -> tuple[Intervention, ...] | None:
    """What is done in each layer's backward recursion; None for nothing.

    Args:
        config: the config.
        model: its network.
        detached: of `detach_masks`.
        values: hyperparameters of the section `gradient`.
        weight: of each sequence's own loss in the one that is differentiated: 1 / B in their mean, or `[B]`.
    """
    gradient = config.gradient
    if not gradient.intervenes:
        return None
    clip = None if gradient.adjoint_clip is None else weight * values["adjoint_clip"]
    masks = (None,) * len(model.layers) if detached is None else detached
    return tuple(Intervention(clip, mask, gradient.truncate) for mask in masks)


def needs_adjoints(gradient: GradientConfig) -> bool:
    """Whether a penalty is a function of the adjoints of the loss."""
    return gradient.omega > 0


def needs_inputs(gradient: GradientConfig) -> bool:
    """Whether a penalty is a function of the inputs of every layer."""
    return gradient.omega > 0 or (gradient.floss > 0 and gradient.floss_every is not None)


def penalty_gradient(
    config: Config,
    model: Functional,
    params: PyTree,
    inputs: PyTree,
    adjoints: PyTree,
    step: Any,
    values: Values,
    on_every_device: Callable[[Any], Any] = lambda arrays: arrays,
    whole: Callable[[Any], Any] = lambda params: params,
) -> PyTree:
    """The gradient of all penalties, to be added to the loss's; None where there are none.

    Args:
        config: the config.
        model: its network.
        params: of the network, those that learn.
        inputs: of every layer, where a penalty needs them.
        adjoints: of the batch's loss, for every layer, where a penalty needs them.
        step: steps done.
        values: hyperparameters of the section `gradient`.
        on_every_device: puts arrays that are split over devices on each of them: flossing is of few sequences, and its
            loops are not to wait for one another.
        whole: makes of those that learn all parameters.
    """
    gradient = config.gradient
    total = None
    if gradient.omega:

        def vanishing(params: PyTree) -> Array:
            terms = [
                vanishing_penalty(place.cell, weights, trajectory, adjoint, slopes=gradient.omega_slopes)
                for place, weights, trajectory, adjoint in cell_trajectories(model, whole(params), inputs, adjoints)
            ]
            return values["omega"] * sum(terms[1:], terms[0])

        total = jax.grad(vanishing)(params)
    if gradient.floss and gradient.floss_every:

        def flossing(params: PyTree) -> PyTree:
            count, time = gradient.floss_sequences, gradient.floss_time
            few = on_every_device(jax.tree.map(lambda a: a[:count], inputs))
            shortened = tuple(
                LayerInputs(xs[:, :time], carry0, None if lengths is None else jnp.minimum(lengths, time))
                for xs, carry0, lengths in few
            )
            return jax.grad(lambda p: values["floss_weight"] * floss(config, model, whole(p), shortened))(params)

        due = step % gradient.floss_every == 0
        flossed = jax.lax.cond(due, flossing, lambda params: jax.tree.map(jnp.zeros_like, params), params)
        total = flossed if total is None else jax.tree.map(jnp.add, total, flossed)
    return total


def floss(config: Config, model: Functional, params: PyTree, inputs: tuple[LayerInputs, ...]) -> Float[Array, ""]:
    """The flossing penalty of all layers on these inputs."""
    k, warmup = config.gradient.floss, config.gradient.floss_transient
    terms = [
        flossing_penalty(place.cell, weights, jax.lax.stop_gradient(trajectory), k=k, warmup=warmup)
        for place, weights, trajectory, _ in cell_trajectories(model, params, inputs, (None,) * len(inputs))
    ]
    return sum(terms[1:], terms[0])


def floss_before_training(
    config: Config,
    model: Functional,
    params: PyTree,
    key: PRNGKeyArray,
    values: Values,
    whole: Callable[[Any], Any] = lambda params: params,
) -> PyTree:
    """What learns, after `floss_before` steps of Adam on the flossing penalty, on unit Gaussian inputs drawn anew."""
    gradient = config.gradient
    if not gradient.floss or not gradient.floss_before:
        return params
    optimizer = optax.adam(values["floss_lr"])
    shape = (gradient.floss_sequences, min(gradient.floss_time, config.task.time))
    kernels = [places[0].parameters(whole(params))["W"] for places in model.layers]
    sizes = [next(iter(of_gates.values())).shape[0] for of_gates in kernels]
    dtype = carry_dtype(config.dtype)

    def body(i: Int[Array, ""], state: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
        params, opt_state = state
        keys = jax.random.split(jax.random.fold_in(key, i), len(sizes))
        drawn = [jax.random.normal(k, (*shape, size), dtype) for k, size in zip(keys, sizes, strict=True)]
        inputs = tuple(map(LayerInputs, drawn))
        grads = jax.grad(lambda p: floss(config, model, whole(p), inputs))(params)
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    return jax.lax.fori_loop(0, gradient.floss_before, body, (params, optimizer.init(params)))[0]
