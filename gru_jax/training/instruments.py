"""The gradient-flow instruments on a network in training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gru_jax import flow
from gru_jax.config import Config
from gru_jax.dtypes import carry_dtype
from gru_jax.nn import Functional, LayerTrace
from gru_jax.tasks import Batch
from gru_jax.training.step import Data, forward
from gru_jax.unroll import valid_steps

Readings = dict[str, Array]
DIRECTIONS = ("forward", "backward")


def layer_names(config: Config) -> list[str]:
    """Names of the layers, bottom to top, as in the parameters."""
    return [f"layer_{i}" for i in range(len(config.model.hidden))]


def directions(config: Config, layer: str, states: Array) -> list[tuple[str, Array, bool]]:
    """The states of a layer, or anything of their shape, by direction: name, part, and whether it runs backwards."""
    if not config.model.bidirectional:
        return [(layer, states, False)]
    there, back = jnp.split(jnp.asarray(states), 2, axis=-1)
    return [(f"{layer}.{DIRECTIONS[0]}", there, False), (f"{layer}.{DIRECTIONS[1]}", back, True)]


def adjoints(config: Config, model: Functional, params: Any, batch: Batch) -> tuple[Array, ...]:
    """dL/dh_t of every example's own loss, for every layer, `[B, T, H]`."""
    width = 2 if config.model.bidirectional else 1
    dtype = carry_dtype(config.dtype)
    zeros = tuple(jnp.zeros((*batch.xs.shape[:2], width * hidden), dtype) for hidden in config.model.hidden)

    def total(perturbations: tuple[Array, ...]) -> Array:
        return forward(config, model, params, batch, perturbations=perturbations)[1]["loss"].sum()

    return jax.grad(total)(zeros)


def build_instruments(config: Config, model: Functional, key: Any) -> Callable[[Any, Data], Readings]:
    """`measure(params, data) -> readings`, compiled, on the first `flow.batch_size` validation sequences.

    Readings are `adjoint/<layer> [T]` and `adjoint_quantiles/<layer> [3, T]`, norms of dL/dh against the lag from the
    end of the layer's pass, and `gates/<layer>/<gate> [50]`, histograms.
    """
    task = config.task
    size = min(config.flow.batch_size, task.size("valid") or config.flow.batch_size)

    def measure(params: Any, data: Data) -> Readings:
        batch = task.batch(data, key, jnp.arange(size, dtype=jnp.int32))
        readings: Readings = {}
        for layer, adjoint in zip(layer_names(config), adjoints(config, model, params, batch), strict=True):
            for name, part, reverse in directions(config, layer, adjoint):
                profile = flow.lag_profile(flow.adjoint_norms(part), batch.lengths, reverse=reverse)
                readings[f"adjoint/{name}"] = profile.mean
                readings[f"adjoint_quantiles/{name}"] = profile.quantiles
        trace, _ = forward(config, model, params, batch)
        for name, weights, layer, reverse in _cells(config, params, trace.layers):
            gates = flow.gate_values(config.model.cell, weights, layer.inputs, lengths=batch.lengths, reverse=reverse)
            valid = valid_steps(batch.lengths, size, task.time)
            for gate, histogram in flow.gate_histograms(gates, valid).items():
                readings[f"gates/{name}/{gate}"] = histogram
        return readings

    return jax.jit(measure)


def _cells(config: Config, params: Any, layers: tuple[LayerTrace, ...]) -> Iterator[tuple[str, Any, LayerTrace, bool]]:
    """Every cell of the stack with its name, its parameters, what it read, and whether it runs backwards."""
    for name, layer in zip(layer_names(config), layers, strict=True):
        part = params["stack"][name]
        if config.model.bidirectional:
            for direction in DIRECTIONS:
                yield f"{name}.{direction}", part[direction]["weights"], layer, direction == "backward"
        else:
            yield name, part["weights"], layer, False
