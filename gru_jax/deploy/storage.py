"""Parameters as arrays by name, and in fewer bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int8, PyTree

from gru_jax.errors import UsageError

SmallType = Literal["bfloat16", "int8"]
StoredAs = Literal["full", SmallType]
"""In what type kernels are stored: their own, rounded to bfloat16, or as whole numbers with a scale for each unit."""
SMALL_TYPES = get_args(SmallType)
SCALE = ".scale"
"""Ending of the name of the scales that go with a kernel of whole numbers."""
LARGEST = 127
TINY = 1e-30  # a kernel's column below it counts as zero: products of its scale would be no normal numbers


def flatten_params(params: PyTree) -> dict[str, Any]:
    """The arrays of nested dicts by path, `stack/layer_0/weights/W/z`."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def nest_params(arrays: Mapping[str, object]) -> dict[str, Any]:
    """The inverse of `flatten_params`."""
    nested: dict[str, Any] = {}
    for path, array in arrays.items():
        *sections, name = path.split("/")
        section = nested
        for part in sections:
            section = section.setdefault(part, {})
        section[name] = array
    return nested


def quantise(kernel: Float[np.ndarray, "D H"]) -> tuple[Int8[np.ndarray, "D H"], Float[np.ndarray, " H"]]:
    """A kernel as whole numbers from -127 to 127, and a scale for each of its columns, so for each unit that it feeds.

    The product of the two is what is nearest to the kernel. Scales have 16 binary digits, so that this product is exact
    in float32, and quantising it gives the same numbers again.

    Examples:
        >>> import numpy as np
        >>> from gru_jax.deploy.storage import quantise
        >>> numbers, scales = quantise(np.array([[0.5, -2.0], [1.0, 1.0]], np.float32))
        >>> numbers.tolist(), bool(np.abs(numbers * scales - [[0.5, -2.0], [1.0, 1.0]]).max() < 0.01)
        ([[63, -127], [127, 63]], True)
    """
    wide = np.asarray(kernel, np.float64)
    greatest = np.abs(wide).max(axis=0, initial=0.0)
    fraction, exponent = np.frexp(greatest / LARGEST)
    scales = np.where(greatest < TINY, 1.0, np.ldexp(np.ceil(np.ldexp(fraction, 16)), exponent - 16))
    return np.rint(wide / scales).astype(np.int8), scales.astype(np.float32)


def pack(params: PyTree, stored_as: StoredAs) -> dict[str, np.ndarray]:
    """Parameters by name as they are stored. What is no kernel (a bias, a gain) keeps its type.

    Examples:
        >>> import numpy as np
        >>> from gru_jax.deploy.storage import pack
        >>> arrays = pack({"head": {"kernel": np.ones((4, 2), np.float32), "bias": np.zeros(2, np.float32)}}, "int8")
        >>> {name: str(array.dtype) for name, array in arrays.items()}
        {'head/bias': 'float32', 'head/kernel': 'int8', 'head/kernel.scale': 'float32'}
    """
    packed: dict[str, np.ndarray] = {}
    for name, leaf in flatten_params(params).items():
        array = np.asarray(leaf)
        if array.ndim != 2 or stored_as == "full":
            packed[name] = array
        elif stored_as == "bfloat16":
            packed[name] = array.astype(jnp.bfloat16).view(np.uint16)  # the bits, which NumPy alone can store
        else:
            packed[name], packed[name + SCALE] = quantise(array)
    return packed


def unpack(arrays: Mapping[str, Any], dtype: DTypeLike = jnp.float32) -> dict[str, Any]:
    """The parameters of `pack`, nested, as a program reads them; kernels that are stored in fewer bytes in `dtype`."""

    def whole(name: str, array: Array) -> Array:
        if array.dtype == jnp.int8:
            scales = arrays[name + SCALE].astype(dtype)
            return array.astype(dtype) * scales.reshape(1, -1)
        if array.dtype == jnp.uint16:
            return jax.lax.bitcast_convert_type(array, jnp.bfloat16).astype(dtype)
        return array

    kept = {name: jnp.asarray(array) for name, array in arrays.items() if not name.endswith(SCALE)}
    return nest_params({name: whole(name, array) for name, array in kept.items()})


def rounded(params: PyTree, stored_as: StoredAs) -> PyTree:
    """Parameters in their own type with the values that they have once stored in fewer bytes.

    Examples:
        >>> import numpy as np
        >>> from gru_jax.deploy.storage import rounded
        >>> float(rounded({"kernel": np.full((1, 1), 1.001, np.float32)}, "bfloat16")["kernel"][0, 0])
        1.0
    """
    if stored_as == "full":
        return params

    def small(leaf: object) -> np.ndarray:
        array = np.asarray(leaf)
        if array.ndim != 2:
            return array
        if stored_as == "bfloat16":
            return array.astype(jnp.bfloat16).astype(array.dtype)
        numbers, scales = quantise(array)
        return (numbers * scales).astype(array.dtype)

    return jax.tree.map(small, params)


def pack_exactly(params: PyTree, stored_as: StoredAs) -> dict[str, np.ndarray]:
    """What `pack` gives of parameters that have the values of this type already.

    Raises:
        UsageError: they have not, so that something would be lost.
    """
    before, after = flatten_params(params), flatten_params(rounded(params, stored_as))
    for name, leaf in before.items():
        if not np.array_equal(np.asarray(leaf), np.asarray(after[name])):
            raise UsageError(f"{name}: its numbers are none of {stored_as}; they would be rounded")
    return pack(params, stored_as)


def bytes_of(arrays: Mapping[str, np.ndarray]) -> int:
    """The bytes of all arrays."""
    return sum(array.nbytes for array in arrays.values())
