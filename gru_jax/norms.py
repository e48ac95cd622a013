"""Euclidean norms of numbers of any size: the one home of them in the package.

The squares of float32 numbers above 1.8e19 are infinite and those below 1e-23 lose digits or vanish, while the numbers
themselves, and nearly always their norm, are well within the range. Hence

    ||x|| = s ||x / s||,    s a power of two about as large as the greatest |x_i|.

Multiplying by a power of two is exact, so that the result has the bits of the plain square root of the sum of squares
wherever that neither overflows nor underflows, but for the order in which a compiler adds. The idea is that of Blue
1978, ACM Transactions on Mathematical Software 4(1). An entry that is not finite makes the norm so; the norm of nothing
but zeros is 0, and so is its derivative there.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from gru_jax.dtypes import carry_dtype


class ScaledNorm(NamedTuple):
    """A norm as `scale * norm`, so that it may lie beyond the range of its type.

    Attributes:
        scale: a power of two.
        norm: of everything divided by it; 0, or from 1/2 to the square root of how many numbers there are.
    """

    scale: Float[Array, ""]
    norm: Float[Array, ""]


def power_of_two(largest: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """A power of two about as large as a number: dividing by it is exact, and squares are safe afterwards.

    1 for what is zero or not finite. It and its reciprocal are normal numbers. No derivative goes through it.

    Examples:
        >>> import jax.numpy as jnp
        >>> from gru_jax.norms import power_of_two
        >>> power_of_two(jnp.array([3.0, 0.25, 0.0])).tolist()
        [4.0, 0.5, 1.0]
    """
    largest = jax.lax.stop_gradient(largest)
    usual = jnp.isfinite(largest) & (largest != 0)
    exponent = jnp.frexp(jnp.where(usual, largest, 0.5))[1]  # 0.5 is 2^0 / 2
    bound = jnp.finfo(largest.dtype).maxexp - 3
    return jnp.ldexp(jnp.ones_like(largest), jnp.clip(exponent, -bound, bound))


def euclidean_norm(x: Float[Array, "*B N"]) -> Float[Array, "*B"]:
    """The norm over the last axis, ||x|| = sqrt(sum_i x_i^2), `[..., N]` to `[...]`; of half precision in float32.

    inf only where the norm itself is beyond the range. Its derivative is x / ||x||, and 0 where x is 0.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from gru_jax.norms import euclidean_norm
        >>> euclidean_norm(jnp.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
        [5.0, 0.0]
        >>> jax.grad(euclidean_norm)(jnp.zeros(2)).tolist()
        [0.0, 0.0]
    """
    return _norm(x.astype(carry_dtype(x.dtype)))


@jax.custom_jvp
def _norm(x: Float[Array, "*B N"]) -> Float[Array, "*B"]:
    scale, x = _near_one(x)
    return scale * _root(jnp.square(x).sum(axis=-1))


@_norm.defjvp
def _norm_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    """<x / ||x||, dx>: by the chain rule the change would be divided by the scale, which may leave nothing of it."""
    (x,), (change,) = primals, tangents
    near_one = _near_one(x)[1]
    norm = _norm(near_one)
    unit = near_one / jnp.where(norm == 0, 1.0, norm)[..., None]
    return _norm(x), (unit * change).sum(axis=-1)


def _near_one(x: Float[Array, "*B N"]) -> tuple[Float[Array, "*B"], Float[Array, "*B N"]]:
    """A power of two for each vector, and the vectors divided by theirs."""
    scale = power_of_two(jnp.abs(x).max(axis=-1, initial=0.0))
    return scale, x * (1.0 / scale)[..., None]


def scaled_global_norm(tree: PyTree) -> ScaledNorm:
    """The norm of all leaves of a tree as one vector, in parts that do not overflow.

    Examples:
        >>> import jax.numpy as jnp
        >>> from gru_jax.norms import scaled_global_norm
        >>> scale, norm = scaled_global_norm({"a": jnp.full(3, 2e38), "b": jnp.full(1, 2e38)})
        >>> round(float(norm) * float(scale) / 1e38, 3)
        4.0
    """
    sizes = [jnp.abs(leaf) if jnp.iscomplexobj(leaf) else leaf for leaf in jax.tree.leaves(tree)]
    leaves = [leaf.astype(carry_dtype(leaf.dtype)) for leaf in sizes]
    scale = power_of_two(jnp.stack([jnp.abs(leaf).max(initial=0.0) for leaf in leaves]).max())
    squares = [jnp.square(leaf * (1.0 / scale)).sum() for leaf in leaves]
    return ScaledNorm(scale, _root(sum(squares[1:], squares[0])))


def global_norm(tree: PyTree) -> Float[Array, ""]:
    """The norm of all leaves of a tree as one vector.

    Of finite numbers it is finite: a norm beyond the range of its type, which entries near the end of the range may
    have, is the greatest number of the type.

    Examples:
        >>> import jax.numpy as jnp
        >>> from gru_jax.norms import global_norm
        >>> float(global_norm({"a": jnp.array([3e25]), "b": jnp.array([[4e25]])}) / 1e25)
        5.0
    """
    scale, norm = scaled_global_norm(tree)
    whole = scale * norm
    return jnp.where(jnp.isfinite(norm), jnp.minimum(whole, jnp.finfo(whole.dtype).max), whole)


def _root(squares: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """The square root, with a derivative of 0 at 0."""
    positive = squares != 0  # of NaN too, which must show
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1.0)), 0.0)


def rounding_of(values: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
    """By how much numbers of this size may seem to differ along an axis where they are equal.

    Examples:
        >>> import jax.numpy as jnp
        >>> from gru_jax.norms import rounding_of
        >>> bool(jnp.full(1000, 0.1).std() < rounding_of(jnp.full(1000, 0.1), axis=0))
        True
    """
    return 4 * jnp.finfo(values.dtype).eps * jnp.abs(values).max(axis=axis)
