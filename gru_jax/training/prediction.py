"""Outputs of a network, batch by batch, in the program that evaluations take."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int, PyTree

from gru_jax.config import Config, traced_hyperparameters, with_task_values
from gru_jax.errors import UsageError
from gru_jax.nn import Functional
from gru_jax.tasks import split_key
from gru_jax.training.evaluation import means_of, rows_of_each, sums_of_metrics
from gru_jax.training.network import draw_batch, run_network
from gru_jax.training.splitting import on_mesh, over_rows, parts_of


class Outputs(NamedTuple):
    """What a network says of some examples.

    Attributes:
        outputs: `[N, O]`, or `[N, T, O]` where each step has one.
        targets: what the loss compares them with; None where that is not known.
        lengths: `[N]`, None where all are T.
        metrics: their means, as `gru_jax.training.evaluation` gives them; none without targets.
    """

    outputs: np.ndarray
    targets: np.ndarray | None
    lengths: np.ndarray | None
    metrics: dict[str, float]


def outputs_of_data(
    config: Config,
    model: Functional,
    params: PyTree,
    split: str,
    data: Mapping[str, Any],
    size: int,
    mesh: Mesh | None = None,
) -> Outputs:
    """The outputs for a split, or for data like it, of so many examples, and their metrics to the bit of an evaluation.

    Args:
        config: of the network.
        model: the network.
        params: its parameters.
        split: whose examples these are.
        data: of them.
        size: how many.
        mesh: whose devices share each batch, as in the evaluation; None for one.
    """
    if config.task.is_stream:
        raise UsageError("predictions: this task reads one long sequence, of which there is a score and no table")
    values = traced_hyperparameters(config)["task"]

    def of_device(shared: PyTree, index: Int[Array, " B"]) -> tuple[None, tuple[Any, ...]]:
        params, data, values = shared
        traced = with_task_values(config, values)
        batch = draw_batch(traced, data, split_key(split, 0), jnp.minimum(index, size - 1))
        trace, metrics = run_network(traced, model, params, batch)
        sums = {name: total[None] for name, total in sums_of_metrics(metrics, batch, index < size).items()}
        return None, (trace.outputs, batch.targets, batch.lengths, sums)

    program, sums, parts = jax.jit(functools.partial(over_rows, of_device, mesh)), dict[str, np.ndarray](), []
    shared = on_mesh((params, dict(data), values), mesh)
    for index, count in index_batches(config, size, mesh):
        *of_batch, sums_here = jax.device_get(program(shared, index)[1])
        parts.append([None if part is None else part[:count] for part in of_batch])
        sums = {name: sums[name] + value if sums else value for name, value in sums_here.items()}
    outputs, targets, lengths = zip(*parts, strict=True)
    lengths = None if lengths[0] is None else np.concatenate(lengths)
    return Outputs(np.concatenate(outputs), np.concatenate(targets), lengths, means_of(sums, size, config.task))


def outputs_of_inputs(
    config: Config,
    model: Functional,
    params: PyTree,
    xs: np.ndarray,
    lengths: np.ndarray | None,
    mesh: Mesh | None = None,
) -> Outputs:
    """The outputs for inputs as they stand in files, `[N, T, D]`, of these lengths."""

    def of_device(params: PyTree, rows: tuple[PyTree, PyTree]) -> tuple[None, Any]:
        xs, lengths = rows
        inputs = xs if config.task.reads_tokens else config.task.network_inputs(xs).astype(config.dtype)
        return None, model.apply(params, inputs, lengths=lengths).outputs

    program, parts, params = jax.jit(functools.partial(over_rows, of_device, mesh)), [], on_mesh(params, mesh)
    for index, count in index_batches(config, len(xs), mesh):
        rows = np.minimum(index, len(xs) - 1)
        outputs = program(params, (xs[rows], None if lengths is None else lengths[rows]))[1]
        parts.append(jax.device_get(outputs)[:count])
    return Outputs(np.concatenate(parts), None, lengths, {})


def index_batches(config: Config, size: int, mesh: Mesh | None) -> Iterator[tuple[np.ndarray, int]]:
    """The example indices of every batch, the last of which goes beyond the end, and how many of them count."""
    batch_size = rows_of_each(config, mesh) * parts_of(mesh)
    for first in range(0, size, batch_size):
        yield first + np.arange(batch_size, dtype=np.int32), min(batch_size, size - first)
