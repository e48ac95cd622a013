"""The gradient of single steps' losses on its way back through a network whose loss reads many steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from gru_jax.config import Config
from gru_jax.errors import UsageError
from gru_jax.flow.instruments import SourceAdjoint, adjoint_profile
from gru_jax.flow.sources import TOTAL, from_single_steps
from gru_jax.nn import Functional
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
    config: Config, model: Functional, params: Any, batch: Batch, values: Mapping[str, Any], key: PRNGKeyArray
) -> dict[str, SourceAdjoint]:
    """By cell, what the loss of one step of each sequence sends back to it, interventions included.

    It is the last step of the cell's own pass, or one of those up to it: cells that run backwards have steps of their
    own, and a backward pass.

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
    intervening, reads = interventions(config, detach_masks(config, key, (size, time), values), values), []

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

    sent = {reverse: send_back(reverse) for reverse in {place.reverse for _, place in model.cells}}
    return {
        place.name: SourceAdjoint(carry_adjoint(place, sent[place.reverse][0][number]), sent[place.reverse][1] > 0)
        for number, place in model.cells
    }


def live_profiles(
    config: Config,
    model: Functional,
    params: Any,
    batch: Batch,
    adjoints: Adjoints | None,
    values: Mapping[str, Any],
    key: PRNGKeyArray,
) -> dict[str, Array]:
    """The adjoint profile of every cell on a training step's batch, mean over sequences, by name.

    Args:
        config, model, params, values, key: as of `source_adjoints`.
        batch: the step's.
        adjoints: of the batch's mean loss, for every layer, where the whole loss is what is followed.
    """
    factor = batch.xs.shape[0] if batch.weights is None else _each_alone(batch)
    if follows_single_steps(config):
        batch = jax.tree.map(lambda a: a[:LIVE_SEQUENCES], batch)
        of_cells = source_adjoints(config, model, params, batch, values, key)
    else:
        each = jax.tree.map(lambda a: factor * a, adjoints)  # of each sequence's own loss
        of_cells = {place.name: (carry_adjoint(place, each[number]), None) for number, place in model.cells}
    return {
        f"adjoint/{place.name}": adjoint_profile(
            of_cells[place.name][0], batch.lengths, of_cells[place.name][1], reverse=place.reverse
        ).mean
        for _, place in model.cells
    }


def _each_alone(batch: Batch) -> Float[Array, "B 1 1"]:
    """What makes of the gradients of a batch's mean loss those of each example's own; 0 of one that does not count."""
    share = shares(batch, batch.xs.shape[0], total_weight(batch))
    return jnp.where(share > 0, 1 / jnp.where(share > 0, share, 1), 0)[:, None, None]
