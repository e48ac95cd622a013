"""Heads over many classes at many steps, as those over words, whose outputs are never in memory all at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from gru_jax.nn import Functional, Trace
from gru_jax.nn.families import FAMILIES

MOST_AT_ONCE = 2**21
"""Outputs up to which a head's are computed at once; of a batch with more, those of a block of sequences."""


def blocks_of(sequences: int, of_each: int) -> int:
    """Into how many blocks of as many sequences a batch is cut, of so many outputs of each sequence.

    Examples:
        >>> from gru_jax.training.large_heads import blocks_of
        >>> blocks_of(20, 35 * 10_000), blocks_of(64, 30 * 8_000), blocks_of(32, 128 * 65)
        (4, 8, 1)
    """
    if sequences * of_each <= MOST_AT_ONCE:
        return 1
    divisors = (n for n in range(1, sequences) if sequences % n == 0)
    return next((n for n in divisors if sequences // n * of_each <= MOST_AT_ONCE), sequences)


def over_outputs(
    function: Callable[[Array, Any], Any], model: Functional, params: PyTree, trace: Trace, rows: PyTree = ()
) -> PyTree:
    """What a function of outputs and rows gives for each sequence. Where outputs are many, of a block at a time.

    They are then computed of what the head reads, again in the backward pass, so that no more than one block's are ever
    there; in the trace they stand nevertheless, and what no one reads of it is not computed. Outputs of a family of a
    user's own are taken as they are.

    Args:
        function: gives batch-major arrays, each sequence's of itself alone.
        model: the network.
        params: its parameters.
        trace: of the batch.
        rows: a pytree of batch-major arrays.
    """
    count, features = _blocks_of_trace(model, params, trace)
    if features is None:
        return function(trace.outputs, rows)
    network = model.module(params)

    @jax.checkpoint
    def of_block(features: Array, rows: PyTree) -> PyTree:
        return function(network.read_out(features), rows)

    return _joined(jax.lax.map(lambda block: of_block(*block), _cut((features, rows), count)))


def mean_loss_over_outputs(
    metrics_of: Callable[[Array, Any], dict[str, Array]],
    mean_of: Callable[[Array, Any], Array],
    model: Functional,
    params: PyTree,
    trace: Trace,
    rows: PyTree,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """The mean loss, and what `over_outputs` gives of all metrics; of many outputs the mean alone has a gradient.

    It is taken in the forward pass, while a block's outputs are there, and scaled in the backward pass: outputs are
    computed once, where a backward pass of its own would compute them again.

    Args:
        metrics_of: the metrics of each sequence by name, `loss` among them, from outputs and rows.
        mean_of: the mean of what each sequence has, linear in it, from that and rows.
        model: the network.
        params: its parameters.
        trace: of the batch.
        rows: a pytree of batch-major arrays.
    """
    count, features = _blocks_of_trace(model, params, trace)
    if features is None:
        metrics = metrics_of(trace.outputs, rows)
        return mean_of(metrics["loss"], rows), metrics
    head, read_out = _head_of(model, params, features)

    def with_gradient(head: list[Array], features: Array, rows: PyTree) -> tuple[PyTree, PyTree]:
        loss = jax.eval_shape(metrics_of, trace.outputs, rows)["loss"]
        shares = jax.grad(mean_of)(jnp.zeros(loss.shape, loss.dtype), rows)

        def share_of_mean(
            head: list[Array], features: Array, rows: PyTree, shares: Array
        ) -> tuple[Array, dict[str, Array]]:
            metrics = metrics_of(read_out(head, features), rows)
            return jnp.where(shares != 0, shares * metrics["loss"], 0).sum(), metrics

        gradients = jax.grad(share_of_mean, argnums=(0, 1), has_aux=True)

        def add(sums: list[Array], block: PyTree) -> tuple[list[Array], Any]:
            (of_head, of_features), metrics = gradients(head, *block)
            return jax.tree.map(jnp.add, sums, of_head), (of_features, metrics)

        sums, of_blocks = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, head), _cut((features, rows, shares), count))
        of_features, metrics = _joined(of_blocks)
        return (mean_of(metrics["loss"], rows), metrics), (sums, of_features)

    @jax.custom_vjp
    def mean_loss(head: list[Array], features: Array, rows: PyTree) -> tuple[Array, dict[str, Array]]:
        return with_gradient(head, features, rows)[0]

    def scaled(gradients: PyTree, cotangents: tuple[Array, Any]) -> tuple[Any, Any, None]:
        return *jax.tree.map(lambda leaf: cotangents[0].astype(leaf.dtype) * leaf, gradients), None

    mean_loss.defvjp(with_gradient, scaled)
    return mean_loss(head, features, rows)


def _blocks_of_trace(model: Functional, params: PyTree, trace: Trace) -> tuple[int, Array | None]:
    """Into how many blocks the outputs of a trace are cut, and the features that these are read out of.

    One and None where outputs are taken as they are: few, or of a network that does not read features out as ours do.
    """
    count = blocks_of(len(trace.outputs), math.prod(trace.outputs.shape[1:]))
    if count == 1 or trace.features is None or type(model.module(params)) not in FAMILIES.values():
        return 1, None
    return count, trace.features


def _head_of(
    model: Functional, params: PyTree, features: Array
) -> tuple[list[Array], Callable[[list[Array], Array], Array]]:
    """The parameters that a head reads, and its outputs as a function of these and of features."""
    leaves, structure = jax.tree.flatten(params)

    def read_out(leaves: list[Array], features: Array) -> Array:
        return model.module(jax.tree.unflatten(structure, leaves)).read_out(features)

    program = jax.make_jaxpr(read_out)(leaves, features[:1]).jaxpr
    read = {id(variable) for equation in program.eqns for variable in equation.invars}
    places = [i for i, variable in enumerate(program.invars[: len(leaves)]) if id(variable) in read]

    def of_head(head: list[Array], features: Array) -> Array:
        others = [jnp.zeros(leaf.shape, leaf.dtype) for leaf in leaves]  # which nothing reads
        for place, leaf in zip(places, head, strict=True):
            others[place] = leaf
        return read_out(others, features)

    return [leaves[place] for place in places], of_head


def _cut(tree: PyTree, count: int) -> PyTree:
    """Batch-major arrays cut into so many blocks of as many sequences."""
    return jax.tree.map(lambda a: a.reshape(count, -1, *a.shape[1:]), tree)


def _joined(tree: PyTree) -> PyTree:
    """The inverse of `_cut`."""
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), tree)
