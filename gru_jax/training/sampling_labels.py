"""Sequences that a network goes on with by itself, where each frame is a set of labels."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from gru_jax.nn import Functional


def sample_frames(
    model: Functional,
    params: PyTree,
    prime: Float[Array, "P O"],
    count: int,
    key: PRNGKeyArray,
    temperature: float | Float[Array, ""] = 1.0,
) -> Bool[Array, "count O"]:
    """Draw so many frames, each from the network's probabilities given those before it.

    The labels of a frame are drawn independently of each other, as the loss takes them.

    Args:
        model: a network whose outputs are logits of the labels in the next frame.
        params: its parameters.
        prime: what it has read before, at least one frame.
        count: frames to draw.
        key: of the draws.
        temperature: by which logits are divided: below 1 what is likely becomes more so, above 1 less.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from gru_jax import cells, nn
        >>> from gru_jax.training.sampling_labels import sample_frames
        >>> build = lambda rngs: nn.SequenceModel(cells.GRU(), 5, (3,), 5, readout="every", rngs=rngs)
        >>> model = nn.functional(build)
        >>> params = model.init(jax.random.key(0))
        >>> sample_frames(model, params, jnp.zeros((1, 5)), 4, jax.random.key(1)).shape
        (4, 5)
    """
    primed = model.apply(params, prime[None])

    def draw(state: tuple[Any, Array], key: PRNGKeyArray) -> tuple[tuple[Any, Array], Array]:
        carry, logits = state
        frame = jax.random.bernoulli(key, jax.nn.sigmoid(logits.astype(jnp.float32) / temperature))
        trace = model.apply(params, frame[None, None].astype(prime.dtype), carry0=carry)
        return (trace.carry, trace.outputs[0, -1]), frame

    return jax.lax.scan(draw, (primed.carry, primed.outputs[0, -1]), jax.random.split(key, count))[1]
