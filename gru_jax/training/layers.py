"""The layers of a configured network by name, and its parameters by path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from gru_jax.config import Config
from gru_jax.dtypes import carry_dtype
from gru_jax.flow.trajectory import Trajectory
from gru_jax.tasks import Batch
from gru_jax.unroll.blocked.structure import whole

DIRECTIONS = ("forward", "backward")


def layer_names(config: Config) -> list[str]:
    """Names of the layers, bottom to top, as in the parameters."""
    return [f"layer_{i}" for i in range(len(config.model.hidden))]


def directions(config: Config, layer: str, states: Any) -> list[tuple[str, Any, bool]]:
    """The states of a layer, or anything of their shape, by direction: name, part, and whether it runs backwards."""
    if not config.model.bidirectional:
        return [(layer, states, False)]
    there, back = (jax.tree.map(lambda a, i=i: jnp.split(jnp.asarray(a), 2, axis=-1)[i], states) for i in (0, 1))
    return [(f"{layer}.{DIRECTIONS[0]}", there, False), (f"{layer}.{DIRECTIONS[1]}", back, True)]


def cells_along(
    config: Config, params: Any, inputs: Sequence[Array], sent: Sequence[Any], lengths: Int[Array, " B"] | None
) -> Iterator[tuple[str, Any, Trajectory, Any]]:
    """Every cell of the stack: its name, its parameters, its trajectory, and the adjoint of its carry.

    Args:
        config: the config.
        params: of the network.
        inputs: of every layer, `[B, T, D]`.
        sent: for every layer, every part of the carry's adjoint; None where there is none.
        lengths: of the sequences.
    """
    for layer, xs, adjoint in zip(layer_names(config), inputs, sent, strict=True):
        by_direction = directions(config, layer, adjoint)
        for (name, part, reverse), weights in zip(by_direction, weights_of(config, params, layer), strict=True):
            carry = None if part is None else whole(config.model.cell, part)
            yield name, weights, Trajectory(xs, lengths=lengths, reverse=reverse), carry


def zero_perturbations(config: Config, batch: Batch) -> tuple[Any, ...]:
    """Zeros for every part of every layer's carry at every step: what adjoints are gradients with respect to."""
    width = 2 if config.model.bidirectional else 1
    dtype, parts = carry_dtype(config.dtype), config.model.cell.carry_parts
    shapes = [(*batch.xs.shape[:2], width * hidden) for hidden in config.model.hidden]
    return tuple(tuple(jnp.zeros(shape, dtype) for _ in range(parts)) for shape in shapes)


def by_name(tree: Any) -> dict[str, Array]:
    """The leaves of nested dicts by path, `a/b/c`."""
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def weights_of(config: Config, params: Any, layer: str) -> list[Any]:
    """The cell parameters of a layer, one for each direction."""
    part = params["stack"][layer]
    return [part[direction]["weights"] for direction in DIRECTIONS] if config.model.bidirectional else [part["weights"]]
