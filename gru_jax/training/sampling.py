"""The next token of a text, drawn from what a network says, and the one compiled step that goes on with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray, PyTree

from gru_jax.nn import Functional


class Drawing(NamedTuple):
    """How tokens are drawn.

    Attributes:
        temperature: what scores are divided by; 0 for the likeliest token.
        top_k: only so many of the likeliest tokens are drawn; 0 for all.
        top_p: only the likeliest tokens that together have this probability are drawn, Holtzman et al. 2020,
            arXiv:1904.09751; 1 for all.
    """

    temperature: Any = 1.0
    top_k: Any = 0
    top_p: Any = 1.0


def draw_token(scores: Float[Array, " V"], key: PRNGKeyArray, how: Drawing) -> Int[Array, ""]:
    """A token, by its score.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from gru_jax.training.sampling import Drawing, draw_token
        >>> int(draw_token(jnp.array([0.0, 2.0, 1.0]), jax.random.key(0), Drawing(temperature=0.0)))
        1
    """
    temperature = jnp.asarray(how.temperature, scores.dtype)
    order = jnp.argsort(-scores)  # stable: of equal ones the first comes first
    scaled = scores[order] / jnp.where(temperature > 0, temperature, 1)
    probabilities = jax.nn.softmax(scaled)
    before = jnp.cumsum(probabilities) - probabilities  # of all that are likelier
    rank, count = jnp.arange(len(scores), dtype=jnp.int32), jnp.asarray(how.top_k, jnp.int32)
    allowed = ((rank < count) | (count == 0)) & (before < jnp.asarray(how.top_p, scores.dtype))
    allowed = jnp.where(temperature > 0, allowed, rank == 0) | (rank == 0)
    return order[jax.random.categorical(key, jnp.where(allowed, scaled, -jnp.inf))].astype(jnp.int32)


def build_step(model: Functional) -> Callable[..., tuple[Int[Array, " B"], Any]]:
    """One step of texts side by side: `step(params, carries, tokens, keys, number, how) -> (drawn, carries)`, compiled.

    It reads a token of each text, `[B]`, and draws the one after it, by the key of each text and the number of the
    step.
    """

    @jax.jit
    def step(
        params: PyTree,
        carries: PyTree,
        tokens: Int[Array, " B"],
        keys: Key[Array, " B"],
        number: ArrayLike,
        how: Drawing,
    ) -> tuple[PyTree, PyTree]:
        trace = model.apply(params, tokens[:, None], carry0=carries)
        keys = jax.vmap(jax.random.fold_in, (0, None))(keys, number)
        return jax.vmap(draw_token, (0, 0, None))(trace.outputs[:, 0], keys, how), trace.carry

    return step
