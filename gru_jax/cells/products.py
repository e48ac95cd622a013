"""Matrix products in the types of the library, and what else equations of cells are made of."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from gru_jax.dtypes import carry_dtype


def product(
    x: Float[Array, "... D"], kernel: Float[Array, "D H"], bias: Float[Array, " H"] | None, compute_dtype: DTypeLike
) -> Float[Array, "... H"]:
    """Compute x @ kernel + bias: multiplied in `compute_dtype`, accumulated and returned in the carry type."""
    wide = carry_dtype(compute_dtype)
    y = matmul(x.astype(compute_dtype), kernel.astype(compute_dtype))
    return y if bias is None else y + per_unit(bias.astype(wide), y)


def per_unit(vector: Float[Array, " H"], like: Float[Array, "... H"]) -> Float[Array, "... H"]:
    """A vector over the units with as many axes as `like`, since JAX may be set to refuse adding others."""
    return vector.reshape((1,) * (like.ndim - 1) + vector.shape)


def matmul(a: Float[Array, "... D"], b: Float[Array, "D H"]) -> Float[Array, "... H"]:
    """Multiply matrices, a @ b, accumulated and returned in the carry type that goes with theirs."""
    wide = carry_dtype(a.dtype)
    if a.dtype == wide:
        return jnp.matmul(a, b)
    # A CPU multiplies half precision in float32 anyway; XLA's own way there crashes in short loops (jax 0.7.2).
    return jax.lax.platform_dependent(
        a,
        b,
        cpu=lambda a, b: jnp.matmul(a.astype(wide), b.astype(wide)),
        default=lambda a, b: jnp.matmul(a, b, preferred_element_type=wide),
    )


def mix(z: Float[Array, "*B H"], a: Float[Array, "*B H"], b: Float[Array, "*B H"]) -> Float[Array, "*B H"]:
    """Mix two arrays, z * a + (1 - z) * b; exactly a where z is 1, which b + z * (a - b) is not."""
    return z * a + (1.0 - z) * b
