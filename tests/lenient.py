"""JAX as users have it, for the code of others: the tests run with strict promotion of types and ranks."""

from __future__ import annotations

import contextlib

import jax


@contextlib.contextmanager
def jax_as_users_have_it():
    """Types and ranks are promoted while this lasts."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
