"""The gradient of single steps' losses on its way back through a network whose loss reads many steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from gru_jax.config import Config, Values
from gru_jax.errors import UsageError
from gru_jax.flow.instruments import SourceAdjoint, adjoint_profile
from gru_jax.flow.sources import TOTAL, from_single_steps
from gru_jax.nn import CellPlace, Functional
from gru_jax.tasks import Batch
from gru_jax.training.gradient import detach_masks, interventions
from gru_jax.training.network import carry_adjoint, run_network, shares, total_weight, zero_perturbations

Adjoints = tuple[Any, ...]
"""For every layer, dL/ds of every part of the carry `[B, T, H]`."""


LIVE_SEQUENCES = 2
"""Of a training step's batch, whose steps are followed: with more, a recording would cost too much of the step."""


def follows_single_steps(config: Config) -> bool:
    """Whether the adjoint profile is of single steps' losses."""
    return config.flow.source != TOTAL


def source_adjoints(
    config: Config, model: Functional, params: PyTree, batch: Batch, values: Values, key: PRNGKeyArray
) -> dict[str, SourceAdjoint]:
    """By cell, what the loss of one step of each sequence sends back to it, interventions included.

    It is the last step of the cell's own pass, or one of those up to it: cells that run backwards have steps of their
    own, and a backward pass. In an encoder, whose steps no loss reads, it is looked at from the end of the source.

    Args:
        config: the config.
        model: its network.
        params: of the network.
        batch: sequences, each with a loss of its own.
        values: hyperparameters of the section `gradient`.
        key: draws where gradients are detached.

    Raises:
        UsageError: a model family of a user's own whose states are read in a way that cannot be followed.
    """
    size, time = batch.xs.shape[:2]
    detached, reads = detach_masks(config, model, key, (size, time), values), []
    intervening = interventions(config, model, detached, values)

    def total(perturbations: Adjoints, marks: Float[Array, "B T"], reverse: bool) -> Array:
        def on_read(hs: Array) -> Array:
            reads.append(hs.shape)
            return from_single_steps(config.flow.source, reverse, hs, marks)

        _, metrics = run_network(
            config, model, params, batch, perturbations=perturbations, interventions=intervening, on_read=on_read
        )
        if not reads:
            raise UsageError(
                f"flow.source={config.flow.source!r}: the model family's trace does not hand on_read on to that of "
                f"SequenceModel; allowed is {TOTAL}"
            )
        return metrics["loss"].sum()

    def send_back(reverse: bool) -> tuple[Adjoints, Array]:
        zeros = zero_perturbations(config, model, batch), jnp.zeros((size, time))
        return jax.grad(total, argnums=(0, 1))(*zeros, reverse)

    backwards = {place.name: place.reverse and not place.encodes for _, place in model.cells}
    sent = {reverse: send_back(reverse) for reverse in set(backwards.values())}

    def of_cell(number: int, place: CellPlace) -> SourceAdjoint:
        adjoints, marks = sent[backwards[place.name]]
        chosen = marks > 0
        if place.encodes:
            chosen = _last_steps(batch.lengths, chosen, reverse=place.reverse)
        return SourceAdjoint(carry_adjoint(place, adjoints[number]), chosen)

    return {place.name: of_cell(number, place) for number, place in model.cells}


def _last_steps(lengths: Int[Array, " B"] | None, chosen: Bool[Array, "B T"], *, reverse: bool) -> Bool[Array, "B T"]:
    """True at the last step of a pass over each source, of whose target a step was chosen."""
    batch, time = chosen.shape
    ends = jnp.full(batch, time) if lengths is None else lengths
    last = jnp.zeros(batch, jnp.int32) if reverse else ends.astype(jnp.int32) - 1
    return (jnp.arange(time, dtype=jnp.int32)[None, :] == last[:, None]) & chosen.any(axis=1, keepdims=True)


def live_profiles(
    config: Config,
    model: Functional,
    params: PyTree,
    batch: Batch,
    adjoints: Adjoints | None,
    values: Values,
    key: PRNGKeyArray,
    lengths: Sequence[Int[Array, " B"] | None],
) -> dict[str, Array]:
    """The adjoint profile of every cell on a training step's batch, mean over sequences, by name.

    Args:
        config, model, params, values, key: as of `source_adjoints`.
        batch: the step's.
        adjoints: of the batch's mean loss, for every layer, where the whole loss is what is followed.
        lengths: of the sequences that every layer read.
    """
    factor = batch.xs.shape[0] if batch.weights is None else _each_alone(batch)
    if follows_single_steps(config):
        batch, lengths = jax.tree.map(lambda a: a[:LIVE_SEQUENCES], (batch, lengths))
        of_cells = source_adjoints(config, model, params, batch, values, key)
    else:
        each = jax.tree.map(lambda a: factor * a, adjoints)  # of each sequence's own loss
        of_cells = {place.name: (carry_adjoint(place, each[number]), None) for number, place in model.cells}
    return {
        f"adjoint/{place.name}": adjoint_profile(
            of_cells[place.name][0], lengths[number], of_cells[place.name][1], reverse=place.reverse
        ).mean
        for number, place in model.cells
    }


def _each_alone(batch: Batch) -> Float[Array, "B 1 1"]:
    """What makes of the gradients of a batch's mean loss those of each example's own; 0 of one that does not count."""
    share = shares(batch, batch.xs.shape[0], total_weight(batch))
    return jnp.where(share > 0, 1 / jnp.where(share > 0, share, 1), 0)[:, None, None]
