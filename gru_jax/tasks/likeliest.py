"""The likeliest of many classes, by maxima, which CPUs find faster than `argmax`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def likeliest(logits: Float[Array, "*batch O"]) -> Int[Array, " *batch"]:
    """The first of the classes with the greatest logit, as `argmax` has it, in int32.

    Examples:
        >>> import jax.numpy as jnp
        >>> from gru_jax.tasks.likeliest import likeliest
        >>> likeliest(jnp.array([1.0, 3.0, 3.0])).item()
        1
    """
    numbers = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
    return jnp.where(logits == logits.max(axis=-1, keepdims=True), numbers, logits.shape[-1]).min(axis=-1)


def is_likeliest(logits: Float[Array, "*batch O"], labels: Int[Array, " *batch"]) -> Bool[Array, " *batch"]:
    """Whether each label is the first of the classes with the greatest logit, what `argmax` would be.

    Examples:
        >>> import jax.numpy as jnp
        >>> from gru_jax.tasks.likeliest import is_likeliest
        >>> is_likeliest(jnp.array([[1.0, 3.0, 3.0]] * 3), jnp.arange(3)).tolist()
        [False, True, False]
    """
    label = labels[..., None]
    label_logit, greatest = jnp.take_along_axis(logits, label, axis=-1), logits.max(axis=-1, keepdims=True)
    comes_first = jax.lax.broadcasted_iota(labels.dtype, logits.shape, logits.ndim - 1) < label
    return (label_logit == greatest)[..., 0] & ~(comes_first & (logits == greatest)).any(axis=-1)
