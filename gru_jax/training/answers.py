"""What a network answers to all examples of a split, for scores that are no means over examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from gru_jax.config import Config, Values, traced_hyperparameters, with_task_values
from gru_jax.errors import UsageError
from gru_jax.nn import Functional
from gru_jax.tasks import Batch, split_key
from gru_jax.tasks.scores import CLASS_SCORES, NUMBER_SCORES, Answers, UndefinedError, scores_of
from gru_jax.training.evaluation import rows_of_each
from gru_jax.training.network import build_model, draw_batch, run_network
from gru_jax.training.step import Data

ArrayAnswers = tuple[Array, Array, Array]
"""Outputs, targets and weights of a whole split, as `Answers` have them but for the axes of examples and steps."""


def build_answers(config: Config, model: Functional, split: str) -> Callable[..., ArrayAnswers]:
    """The answers to all examples of a split, as `answers(params, data, task_values)`.

    The last are the task's traced hyperparameters.
    """

    def answers(params: PyTree, data: Data, task_values: Values) -> ArrayAnswers:
        traced = with_task_values(config, task_values)

        def of_batch(batch: Batch) -> ArrayAnswers:
            trace, _ = run_network(traced, model, params, batch)
            return traced.task.answers(trace.outputs, batch)

        return _of_all_batches(traced, data, split, of_batch)

    return answers


def _of_all_batches(config: Config, data: Data, split: str, of_batch: Callable[[Batch], ArrayAnswers]) -> ArrayAnswers:
    """What a function gives for every batch of a split, as if all examples were one."""
    batch_size, size = rows_of_each(config, None), config.task.size(split)
    if size is None:
        raise ValueError(f"split={split!r}: generated without end; it has no scores")
    index = jnp.minimum(jnp.arange(-(-size // batch_size) * batch_size, dtype=jnp.int32), size - 1)
    of_batches = jax.lax.map(
        lambda i: of_batch(draw_batch(config, data, split_key(split, 0), i)), index.reshape(-1, batch_size)
    )
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:size], of_batches)


def on_host(answers: Sequence[Any]) -> Answers:
    """The same as arrays of examples or steps that count, `[N, …]`."""
    outputs, targets, weights = (np.asarray(part) for part in answers)
    steps = weights.ndim
    flat = Answers(*(part.reshape(-1, *part.shape[steps:]) for part in (outputs, targets, weights)))
    return Answers(*(part[flat.weights > 0] for part in flat))


def check_scores(config: Config, splits: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise `UsageError` where a score of `train.metrics` is of another kind than a task's answers, or not defined."""
    for split in config.task.scored_splits if config.train.metrics else ():
        targets = on_host(jax.jit(_silent_answers(config, split))(dict(splits[split])))
        kinds, what = (CLASS_SCORES, "classes") if targets.are_classes else (NUMBER_SCORES, "numbers")
        for name in config.train.metrics or ():
            if name not in kinds:
                raise UsageError(f"train.metrics={name!r}: this task is about {what}; allowed are {', '.join(kinds)}")
        try:
            scores_of(config.train.metrics or (), targets)
        except UndefinedError as error:
            raise UsageError(f"train.metrics={error}, as in the {split} set") from error


def _silent_answers(config: Config, split: str) -> Callable[[Data], ArrayAnswers]:
    """The answers of a network that always gives zeros."""
    model = build_model(config)

    def outputs_of(batch: Batch) -> Array:
        return run_network(config, model, model.init(jax.random.key(0)), batch)[0].outputs

    def of_batch(batch: Batch) -> ArrayAnswers:
        shape = jax.eval_shape(outputs_of, batch)
        return config.task.answers(jnp.zeros(shape.shape, shape.dtype), batch)

    return lambda data: _of_all_batches(config, data, split, of_batch)


def split_scores(config: Config, answers: Sequence[Any]) -> dict[str, float]:
    """The scores of a config's `train.metrics`, of the answers to a split.

    Raises:
        UsageError: one is not defined.
    """
    return scores_of(config.train.metrics or (), on_host(answers))


def evaluate_answers(config: Config, params: PyTree, split: str, data: Data) -> Answers:
    """What a network of a config answers to a split."""
    program = jax.jit(build_answers(config, build_model(config), split))
    return on_host(program(params, data, traced_hyperparameters(config)["task"]))
