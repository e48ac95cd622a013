"""Arrays with numbers that are not finite, which can be made where JAX is set to look for such numbers too."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def broken(xs: ArrayLike, where: ArrayLike, number: float = jnp.nan) -> jax.Array:
    """An array `[B, T, ...]` with a number in the place of all that stands at some steps `[B, T]`."""
    with without_alarms():
        where = jnp.asarray(where)
        return jnp.where(where.reshape(where.shape + (1,) * (jnp.ndim(xs) - where.ndim)), number, xs)


@contextlib.contextmanager
def without_alarms() -> Iterator[None]:
    """Without `jax_debug_nans` and `jax_debug_infs`, for what is about such numbers."""
    with jax.debug_nans(False), jax.debug_infs(False):
        yield
