"""Outputs of a network, batch by batch, in the program that evaluations take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gru_jax.config import Config, traced_hyperparameters, with_task_values
from gru_jax.nn import Functional
from gru_jax.tasks import split_key
from gru_jax.training.evaluation import means_of
from gru_jax.training.network import draw_batch, run_network


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
    config: Config, model: Functional, params: Any, split: str, data: Mapping[str, Any], size: int
) -> Outputs:
    """The outputs for a split, or for data like it, of so many examples, and their metrics to the bit of an evaluation.

    Args:
        config: of the network.
        model: the network.
        params: its parameters.
        split: whose examples these are.
        data: of them.
        size: how many.
    """
    values = traced_hyperparameters(config)["task"]

    def one(params: Any, data: Any, index: Any, values: Any) -> tuple[Any, ...]:
        traced = with_task_values(config, values)
        batch = draw_batch(traced, data, split_key(split, 0), jnp.minimum(index, size - 1))
        trace, metrics = run_network(traced, model, params, batch)
        sums = {name: jnp.where(index < size, value, 0).sum() for name, value in metrics.items()}
        return trace.outputs, batch.targets, batch.lengths, sums

    program, sums, parts = jax.jit(one), dict[str, np.ndarray](), []
    for index, count in _batches(config, size):
        *of_batch, sums_here = jax.device_get(program(params, dict(data), index, values))
        parts.append([None if part is None else part[:count] for part in of_batch])
        sums = {name: sums[name] + value if sums else value for name, value in sums_here.items()}
    outputs, targets, lengths = zip(*parts, strict=True)
    lengths = None if lengths[0] is None else np.concatenate(lengths)
    return Outputs(np.concatenate(outputs), np.concatenate(targets), lengths, means_of(sums, size))


def outputs_of_inputs(
    config: Config, model: Functional, params: Any, xs: np.ndarray, lengths: np.ndarray | None
) -> Outputs:
    """The outputs for inputs as they stand in files, `[N, T, D]`, of these lengths."""

    def one(params: Any, xs: Any, lengths: Any) -> Any:
        return model.apply(params, config.task.network_inputs(xs).astype(config.dtype), lengths=lengths).outputs

    program, parts = jax.jit(one), []
    for index, count in _batches(config, len(xs)):
        rows = np.minimum(index, len(xs) - 1)
        parts.append(jax.device_get(program(params, xs[rows], None if lengths is None else lengths[rows]))[:count])
    return Outputs(np.concatenate(parts), None, lengths, {})


def _batches(config: Config, size: int) -> Iterator[tuple[np.ndarray, int]]:
    """The example indices of every batch, the last of which goes beyond the end, and how many of them count."""
    batch_size = config.train.eval_batch_size or config.train.batch_size
    for first in range(0, size, batch_size):
        yield first + np.arange(batch_size, dtype=np.int32), min(batch_size, size - first)
