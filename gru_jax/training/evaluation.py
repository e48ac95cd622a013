"""Metrics of a whole split in one device call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Int, PRNGKeyArray, PyTree

from gru_jax.config import Config, Values, traced_hyperparameters, with_task_values
from gru_jax.nn import Functional
from gru_jax.tasks import Batch, Task, split_key
from gru_jax.training.network import draw_batch, run_network
from gru_jax.training.splitting import over_rows, parts_of
from gru_jax.training.step import Data
from gru_jax.training.streams import start_streams

WEIGHT = "total weight"
"""Among the sums of metrics: what all examples weigh."""


def build_totals(config: Config, model: Functional, mesh: Mesh | None = None) -> Callable[..., dict[str, Array]]:
    """Sums of every metric over a split of so many examples, as `totals(params, data, key, size, task_values)`.

    The last are the task's traced hyperparameters. Over the devices of a mesh each batch is split, and there is a sum
    of each, `[devices]`. Of examples with weights these count, and `WEIGHT` is their sum.
    """
    parts, batch_rows = parts_of(mesh), rows_of_each(config, mesh)

    def totals(params: PyTree, data: Data, key: PRNGKeyArray, size: ArrayLike, task_values: Values) -> dict[str, Array]:
        shared, device_numbers = (params, data, key, size, task_values), jnp.arange(parts, dtype=jnp.int32)
        return over_rows(of_device, mesh, shared, device_numbers)[1]

    def of_device(shared: PyTree, device_number: Int[Array, " 1"]) -> tuple[None, dict[str, Array]]:
        params, data, key, size, task_values = shared
        traced = with_task_values(config, task_values)

        def one(i: Array, carry0: PyTree) -> tuple[dict[str, Array], Any]:
            if config.task.is_stream:
                rows = device_number[0] * batch_rows + jnp.arange(batch_rows, dtype=jnp.int32)
                index = rows * _pieces(size) + i
            else:
                first = (i * parts + device_number[0]) * batch_rows
                index = first + jnp.arange(batch_rows, dtype=jnp.int32)
            batch = draw_batch(traced, data, key, jnp.minimum(index, size - 1))
            trace, metrics = run_network(traced, model, params, batch, **({"carry0": carry0} if carry0 else {}))
            return sums_of_metrics(metrics, batch, index < size), trace.carry if carry0 else ()

        def add(i: Array, state: tuple[dict[str, Array], Any]) -> tuple[dict[str, Array], Any]:
            sums, carry0 = state
            more, carry = one(i, carry0)
            return jax.tree.map(jnp.add, sums, more), carry

        zero, carry0 = jnp.zeros((), jnp.int32), ()
        if config.task.is_stream:
            carry0 = start_streams(model, batch_rows, config.dtype).carries
        shapes = jax.eval_shape(one, zero, carry0)[0]
        start = {name: jnp.zeros((), leaf.dtype) for name, leaf in shapes.items()}
        count = _pieces(size) if config.task.is_stream else (size + parts * batch_rows - 1) // (parts * batch_rows)
        sums, _ = jax.lax.fori_loop(zero, count, add, (start, carry0))
        return None, jax.tree.map(lambda total: total[None], sums)

    def _pieces(size: Any) -> Any:
        streams = config.task.streams_in_evaluation
        return (size + streams - 1) // streams

    return totals


def sums_of_metrics(metrics: Mapping[str, Array], batch: Batch, counts: Bool[Array, " B"]) -> dict[str, Array]:
    """Sums of each metric over the examples that count, and of their weights, if they have any.

    Behind the end of a split its last example stands again; it does not count, not even as 0 * NaN.
    """
    if batch.weights is None:
        return {name: jnp.where(counts, value, 0).sum() for name, value in metrics.items()}
    weights = jnp.where(counts, batch.weights, 0)
    sums = {
        name: jnp.where(weights > 0, weights.astype(value.dtype) * value, 0).sum() for name, value in metrics.items()
    }
    return {**sums, WEIGHT: weights.sum()}


def rows_of_each(config: Config, mesh: Mesh | None) -> int:
    """How many rows of a batch of an evaluation are each device's."""
    rows = config.train.eval_batch_size or config.train.part_size
    return -(-(config.task.streams_in_evaluation if config.task.is_stream else rows) // parts_of(mesh))


def build_evaluator(
    config: Config, model: Functional, mesh: Mesh | None = None
) -> Callable[[Any, str, Data], dict[str, float]]:
    """Means of every metric over a split of finite size, as a function `evaluate(params, split, data)`.

    On as many devices the same parameters give the same bits, in training and in `experiments.evaluate`: it is one
    program.
    """
    task, program = config.task, jax.jit(build_totals(config, model, mesh))
    task_values = traced_hyperparameters(config)["task"]

    def evaluate(params: PyTree, split: str, data: Data) -> dict[str, float]:
        size = task.size(split)
        if size is None:
            raise ValueError(f"split={split!r}: generated without end; it has no mean")
        return means_of(program(params, data, split_key(split, 0), np.int32(size), task_values), size, task)

    return evaluate


def means_of(sums: Mapping[str, object], size: int, task: Task) -> dict[str, float]:
    """Metrics of a split of so many examples from the sums of every device: means, and what a task makes of them."""
    totals = {name: np.asarray(value, np.float64).sum() for name, value in sorted(sums.items())}
    weight = totals.pop(WEIGHT, size)
    means = {name: float(total / weight) for name, total in totals.items()}
    return {**means, **task.of_means(means)}
