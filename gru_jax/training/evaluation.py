"""Metrics of a whole split in one device call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int

from gru_jax.config import Config, traced_hyperparameters, with_task_values
from gru_jax.nn import Functional
from gru_jax.tasks import split_key
from gru_jax.training.network import draw_batch, run_network
from gru_jax.training.splitting import over_rows, parts_of
from gru_jax.training.step import Data


def build_totals(config: Config, model: Functional, mesh: Mesh | None = None) -> Callable[..., dict[str, Array]]:
    """Sums of every metric over a split of so many examples, as `totals(params, data, key, size, task_values)`.

    The last are the task's traced hyperparameters. Over the devices of a mesh each batch is split, and there is a sum
    of each, `[devices]`.
    """
    parts, batch_rows = parts_of(mesh), rows_of_each(config, mesh)

    def totals(params: Any, data: Data, key: Any, size: Any, task_values: Mapping[str, Any]) -> dict[str, Array]:
        shared, device_numbers = (params, data, key, size, task_values), jnp.arange(parts, dtype=jnp.int32)
        return over_rows(of_device, mesh, shared, device_numbers)[1]

    def of_device(shared: Any, device_number: Int[Array, " 1"]) -> tuple[None, dict[str, Array]]:
        params, data, key, size, task_values = shared
        traced = with_task_values(config, task_values)

        def one(i: Any) -> dict[str, Array]:
            first = (i * parts + device_number[0]) * batch_rows
            index = first + jnp.arange(batch_rows, dtype=jnp.int32)
            batch = draw_batch(traced, data, key, jnp.minimum(index, size - 1))
            _, metrics = run_network(traced, model, params, batch)
            # Behind the end the last example stands again; it does not count, not even as 0 * NaN.
            return {name: jnp.where(index < size, value, 0).sum() for name, value in metrics.items()}

        zero = jnp.zeros((), jnp.int32)
        sums = {name: jnp.zeros((), leaf.dtype) for name, leaf in jax.eval_shape(one, zero).items()}
        count = (size + parts * batch_rows - 1) // (parts * batch_rows)
        sums = jax.lax.fori_loop(zero, count, lambda i, s: jax.tree.map(jnp.add, s, one(i)), sums)
        return None, jax.tree.map(lambda total: total[None], sums)

    return totals


def rows_of_each(config: Config, mesh: Mesh | None) -> int:
    """How many rows of a batch of an evaluation are each device's."""
    return -(-(config.train.eval_batch_size or config.train.part_size) // parts_of(mesh))


def build_evaluator(
    config: Config, model: Functional, mesh: Mesh | None = None
) -> Callable[[Any, str, Data], dict[str, float]]:
    """Means of every metric over a split of finite size, as a function `evaluate(params, split, data)`.

    On as many devices the same parameters give the same bits, in training and in `experiments.evaluate`: it is one
    program.
    """
    task, program = config.task, jax.jit(build_totals(config, model, mesh))
    task_values = traced_hyperparameters(config)["task"]

    def evaluate(params: Any, split: str, data: Data) -> dict[str, float]:
        size = task.size(split)
        if size is None:
            raise ValueError(f"split={split!r}: generated without end; it has no mean")
        return means_of(program(params, data, split_key(split, 0), np.int32(size), task_values), size)

    return evaluate


def means_of(sums: Mapping[str, Any], size: int) -> dict[str, float]:
    """Means of metrics over a split of so many examples, from the sums of every device."""
    return {name: float(np.asarray(value, np.float64).sum() / size) for name, value in sorted(sums.items())}
