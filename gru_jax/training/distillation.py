"""What a network learns from another one's outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree

from gru_jax.config import Config, Values
from gru_jax.errors import UsageError
from gru_jax.nn import Functional
from gru_jax.tasks import Batch
from gru_jax.training.network import mean_over_examples, run_network


class Teacher(NamedTuple):
    """A network that is learnt from.

    Attributes:
        model: the network.
        params: its parameters, as NumPy arrays: they are constants of the compiled step.
    """

    model: Functional
    params: PyTree


def with_teacher(
    config: Config,
    teacher: Teacher | None,
    values: Values | None,
    outputs: Array,
    batch: Batch,
    means: Mapping[str, Array],
) -> tuple[Array, dict[str, Array]]:
    """The loss that is trained on, and the means of a batch's metrics with that of `distillation_loss` among them.

    Args:
        config: of the network.
        teacher: that it learns from.
        values: of the section `distillation`, maybe traced; None for the task's loss alone.
        outputs: of the network.
        batch: whose outputs they are.
        means: of its metrics.

    Raises:
        UsageError: there are values, and no teacher.
    """
    if values is None:
        return means["loss"], dict(means)
    if teacher is None:
        raise UsageError(f"distillation.teacher={config.distillation.teacher}: its network is needed here")
    params = jax.tree.map(jnp.asarray, teacher.params)
    taught = run_network(config, teacher.model, params, batch)[0].outputs
    says = mean_over_examples(distillation_loss(outputs, taught, batch, values["temperature"]), batch)
    loss = (1 - values["weight"]) * means["loss"] + values["weight"] * says
    return loss, {**means, "distillation": says}


def distillation_loss(outputs: Array, taught: Array, batch: Batch, temperature: ArrayLike) -> Float[Array, " B"]:
    """How far outputs are from a teacher's, of each example.

    For classes t^2 KL(softmax(taught / t) || softmax(outputs / t)) at temperature t, Hinton et al. 2015,
    arXiv:1503.02531, section 2, whose factor t^2 keeps the gradient's size; for numbers the mean squared difference.
    Where each step has outputs, the mean over the steps that count.

    Args:
        outputs: `[B, O]` or `[B, T, O]`.
        taught: the teacher's.
        batch: whose outputs they are.
        temperature: t.

    Examples:
        >>> import jax.numpy as jnp
        >>> from gru_jax.tasks import Batch
        >>> from gru_jax.training.distillation import distillation_loss
        >>> batch = Batch(jnp.ones((1, 5, 2)), jnp.zeros(1, jnp.int32))
        >>> scores = jnp.array([[1.0, 2.0]])
        >>> distillation_loss(scores, scores + 3.0, batch, 2.0).round(4).tolist()  # the same probabilities
        [0.0]
    """
    if jnp.issubdtype(batch.targets.dtype, jnp.integer) and outputs.shape[-1] > 1:
        t = jnp.asarray(temperature, outputs.dtype)
        wanted, said = (jax.nn.log_softmax(scores.astype(outputs.dtype) / t) for scores in (taught, outputs))
        values = jnp.square(t) * (jnp.exp(wanted) * (wanted - said)).sum(axis=-1)
    else:
        values = jnp.square(outputs - taught.astype(outputs.dtype)).mean(axis=-1)
    if values.ndim == 1:
        return values
    if batch.mask is None or batch.mask.shape != values.shape:
        return values.mean(axis=1)
    weights = batch.mask.astype(values.dtype)
    return (weights * values).sum(axis=1) / jnp.maximum(weights.sum(axis=1), jnp.finfo(values.dtype).tiny)
