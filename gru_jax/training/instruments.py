"""The gradient-flow instruments on a network in training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gru_jax import flow
from gru_jax.config import NOISE, Config
from gru_jax.config.hyperparameters import floats
from gru_jax.flow.instruments import INSTRUMENTS, Options, Pass
from gru_jax.nn import Functional, Trace
from gru_jax.tasks import Batch
from gru_jax.training.gradient import interventions
from gru_jax.training.layers import by_name, cells_along, zero_perturbations
from gru_jax.training.step import Data, forward

Readings = dict[str, Array]


def adjoints(
    config: Config, model: Functional, params: Any, batch: Batch, numbers: Mapping[str, Any] | None = None
) -> tuple[tuple[Any, ...], Trace]:
    """dL/ds_t of every example's own loss, for every layer, every part of the carry `[B, T, H]`; and the pass.

    As the training has them: with interventions in the backward recursion, by `numbers` of the section `gradient` or
    else the config's own.
    """
    numbers = floats(config.gradient) if numbers is None else numbers
    intervening = interventions(config, jax.random.key(0), batch.xs.shape[:2], numbers)

    def total(perturbations: tuple[Any, ...]) -> tuple[Array, Trace]:
        trace, metrics = forward(config, model, params, batch, perturbations=perturbations, interventions=intervening)
        return metrics["loss"].sum(), trace

    return jax.grad(total, has_aux=True)(zero_perturbations(config, batch))


def build_instruments(config: Config, model: Functional, key: Any) -> Callable[..., Readings]:
    """`measure(params, data, numbers=None) -> readings`, pure, on the first `flow.batch_size` validation sequences.

    Readings are named `kind/<layer>/<gate>`, see `gru_jax.flow.instruments`, and `noise/<parameter>`.
    """
    task, names = config.task, config.flow.instruments
    size = min(config.flow.batch_size, task.size("valid") or config.flow.batch_size)
    options = Options(*(getattr(config.flow, field) for field in Options._fields))

    def measure(params: Any, data: Data, numbers: Mapping[str, Any] | None = None) -> Readings:
        batch = task.batch(data, key, jnp.arange(size, dtype=jnp.int32))
        readings: Readings = {}
        for layer, of in passes(config, model, params, batch, numbers):
            for name in names:
                if name != NOISE:
                    for (kind, *gate), value in INSTRUMENTS[name](of, options).items():
                        readings["/".join([kind, layer, *gate])] = value
        return readings | (noise(config, model, params, batch) if NOISE in names else {})

    return measure


def passes(
    config: Config, model: Functional, params: Any, batch: Batch, numbers: Mapping[str, Any] | None = None
) -> Iterator[tuple[str, Pass]]:
    """Every cell of the stack with its name, its pass over the batch and the adjoint of the task's loss."""
    sent, trace = adjoints(config, model, params, batch, numbers)
    inputs = [layer.inputs for layer in trace.layers]
    for name, weights, along, carry in cells_along(config, params, inputs, sent, batch.lengths):
        yield name, Pass(config.model.cell, weights, along, carry)


def noise(config: Config, model: Functional, params: Any, batch: Batch) -> Readings:
    """The gradient's signal-to-noise ratio over the batch, for each parameter; see `flow.signal_to_noise`."""

    def own(params: Any, example: Batch) -> Array:
        one = jax.tree.map(lambda a: a[None], example)
        return forward(config, model, params, one)[1]["loss"].sum()

    gradients = jax.lax.map(lambda example: jax.grad(own)(params, example), batch)
    return {f"{NOISE}/{name}": ratio for name, ratio in by_name(flow.signal_to_noise(gradients)).items()}
