"""Which floating type is used where."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike


def carry_dtype(dtype: DTypeLike) -> DTypeLike:
    """The type of carries, pointwise arithmetic and accumulation for inputs of type `dtype`: float64, else float32."""
    return jnp.float64 if jnp.dtype(dtype) == jnp.float64 else jnp.float32


def chosen_or_default(dtype: DTypeLike | None) -> DTypeLike:
    """A type, or JAX's own where it is None: float32, or float64 where `jax_enable_x64` is set.

    Examples:
        >>> from gru_jax.dtypes import chosen_or_default
        >>> chosen_or_default(None)
        dtype('float32')
    """
    return jnp.result_type(float) if dtype is None else dtype


def in_single_precision(values: Array) -> Array:
    """Numbers of half precision in single precision, in which sums of squares hold; others as they are.

    Examples:
        >>> import jax.numpy as jnp
        >>> from gru_jax.dtypes import in_single_precision
        >>> in_single_precision(jnp.ones(2, jnp.bfloat16)).dtype
        dtype('float32')
    """
    return values.astype(carry_dtype(values.dtype))


def in_machine_order(array: Any) -> Any:
    """An array of NumPy as JAX takes it, in the machine's order of bytes and of at most 64 bits; others as they are.

    Examples:
        >>> import numpy as np
        >>> from gru_jax.dtypes import in_machine_order
        >>> in_machine_order(np.ones(2, ">f4")).dtype, in_machine_order(np.ones(2, np.longdouble)).dtype
        (dtype('float32'), dtype('float64'))
    """
    if not isinstance(array, np.ndarray):
        return array
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        return array.astype(np.float64)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
