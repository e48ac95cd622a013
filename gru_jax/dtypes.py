"""Which floating type is used where."""

from __future__ import annotations

import jax.numpy as jnp
from jax.typing import DTypeLike


def carry_dtype(dtype: DTypeLike) -> DTypeLike:
    """The type of carries, pointwise arithmetic and accumulation for inputs of type `dtype`: float64, else float32."""
    return jnp.float64 if jnp.dtype(dtype) == jnp.float64 else jnp.float32
