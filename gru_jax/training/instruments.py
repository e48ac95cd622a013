"""The gradient-flow instruments on a network in training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, PRNGKeyArray, PyTree

from gru_jax import flow
from gru_jax.config import (
    NOISE,
    Config,
    Hyperparameters,
    Values,
    real_settings,
    traced_hyperparameters,
    with_task_values,
)
from gru_jax.flow.instruments import INSTRUMENTS, Options, Pass
from gru_jax.nn import Functional, Trace
from gru_jax.tasks import Batch
from gru_jax.training.gradient import detach_masks, interventions
from gru_jax.training.network import (
    cell_trajectories,
    draw_batch,
    leaves_by_path,
    run_network,
    zero_perturbations,
)
from gru_jax.training.sources import follows_single_steps, source_adjoints
from gru_jax.training.splitting import BATCH_AXIS, laid_out, parts_of
from gru_jax.training.step import Data
from gru_jax.user_code import look_up

Readings = dict[str, Array]

# The names that readings are recorded by.
SOURCE = "source"
"""Record that says whose gradient the adjoint profiles follow, see `gru_jax.flow.sources`."""
RECORD_AXES = ("lag", "quantiles", "gate_edges", "jacobian_time", SOURCE)
"""Records that describe axes; all others have a row for each recorded step, in `step`."""
LIVE = "live/"
"""Prefix of what training steps measured of themselves; its rows belong to the steps in `live/step`."""
LIVE_STEP = f"{LIVE}step"
DETACH_SEED = 0  # of where gradients are detached, the same at each recording


def loss_adjoints(
    config: Config, model: Functional, params: PyTree, batch: Batch, values: Values | None = None
) -> tuple[tuple[Any, ...], Trace]:
    """dL/ds_t of every example's own loss, for every layer, every part of the carry `[B, T, H]`; and the pass.

    As the training has them: with interventions in the backward recursion, by hyperparameters of the section
    `gradient` or else the config's own.
    """
    values = real_settings(config.gradient) if values is None else values
    size, time = batch.xs.shape[:2]
    detached = detach_masks(config, model, jax.random.key(DETACH_SEED), (size, time), values)
    intervening = interventions(config, model, detached, values)

    def total(perturbations: tuple[Any, ...]) -> tuple[Array, Trace]:
        trace, metrics = run_network(
            config, model, params, batch, perturbations=perturbations, interventions=intervening
        )
        return metrics["loss"].sum(), trace

    return jax.grad(total, has_aux=True)(zero_perturbations(config, model, batch))


def build_instruments(
    config: Config, model: Functional, key: PRNGKeyArray, mesh: Mesh | None = None
) -> Callable[..., Readings]:
    """The configured instruments as one pure function, on the first `flow.batch_size` validation sequences.

    The devices of a mesh share these sequences where they can share them evenly.

    Returns:
        `measure(params, data, hyperparameters=None) -> readings`, named `kind/<layer>/<gate>`, see
        `gru_jax.flow.instruments`, and `noise/<parameter>`; without hyperparameters with the config's own.
    """
    names = config.flow.instruments
    size = min(config.flow.batch_size, config.task.size("valid") or config.flow.batch_size)
    options = Options(*(getattr(config.flow, field) for field in Options._fields))

    def measure(params: PyTree, data: Data, hyperparameters: Hyperparameters | None = None) -> Readings:
        values = traced_hyperparameters(config) if hyperparameters is None else hyperparameters
        traced = with_task_values(config, values["task"])
        batch = draw_batch(traced, data, key, jnp.arange(size, dtype=jnp.int32))
        if config.task.held_out_may_be_longer:
            batch = _first_steps(batch, config.task.time)
        if size % parts_of(mesh) == 0:
            batch = laid_out(batch, mesh, PartitionSpec(BATCH_AXIS))
        readings: Readings = {}
        for layer, cell_pass in cell_passes(traced, model, params, batch, values["gradient"]):
            for name in names:
                if name != NOISE:
                    for measured, value in look_up(INSTRUMENTS, name)(cell_pass, options).items():
                        kind, *gate = (measured,) if isinstance(measured, str) else measured
                        readings["/".join([kind, layer, *gate])] = value
        return readings | (gradient_noise(traced, model, params, batch) if NOISE in names else {})

    return measure


def _first_steps(batch: Batch, time: int) -> Batch:
    """The first steps of sequences with targets at each step."""
    xs, targets, mask = (None if a is None else a[:, :time] for a in (batch.xs, batch.targets, batch.mask))
    lengths = None if batch.lengths is None else jnp.minimum(batch.lengths, time)
    return batch._replace(xs=xs, targets=targets, mask=mask, lengths=lengths)


def cell_passes(
    config: Config, model: Functional, params: PyTree, batch: Batch, values: Values | None = None
) -> Iterator[tuple[str, Pass]]:
    """Every cell of the network by name, with its pass over the batch, the adjoint of the task's loss and, where the
    config follows them, that of single steps' losses.
    """
    values = real_settings(config.gradient) if values is None else values
    adjoints, trace = loss_adjoints(config, model, params, batch, values)
    sources = {}
    if follows_single_steps(config):
        sources = source_adjoints(config, model, params, batch, values, jax.random.key(DETACH_SEED))
    inputs = [layer.read for layer in trace.layers]
    for place, weights, trajectory, adjoint in cell_trajectories(model, params, inputs, adjoints):
        yield place.name, Pass(place.cell, weights, trajectory, adjoint, sources.get(place.name))


def gradient_noise(config: Config, model: Functional, params: PyTree, batch: Batch) -> Readings:
    """The gradient's signal-to-noise ratio over the batch, for each parameter; see `flow.signal_to_noise`."""

    def loss_of_one(params: PyTree, example: Batch) -> Array:
        one = jax.tree.map(lambda a: a[None], example)
        return run_network(config, model, params, one)[1]["loss"].sum()

    gradients = jax.lax.map(lambda example: jax.grad(loss_of_one)(params, example), batch)
    return {f"{NOISE}/{name}": ratio for name, ratio in leaves_by_path(flow.signal_to_noise(gradients)).items()}
