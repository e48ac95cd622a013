"""Kernels of which most weights are zero: those of least magnitude go, and the others learn on."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, PyTree

from gru_jax.config import RegularizationConfig, Values
from gru_jax.training.regularization import is_product_kernel


def with_sparse_kernels(
    config: RegularizationConfig, before: PyTree, after: PyTree, step: ArrayLike, values: Values
) -> PyTree:
    """Parameters after an update of whose kernels the weights of least magnitude are zero; as they are without that.

    After update t the share of them is s_t = s (1 - (1 - t / n)^3), with s `sparsity` and n `sparsity_until`: Zhu and
    Gupta 2017, arXiv:1710.01878, eq. 1. From update n on it is s, and what is zero stays so. The embedding is left
    alone.

    Args:
        config: the section `regularization`.
        before, after: parameters before and after the update.
        step: updates done before it.
        values: hyperparameters of the section.
    """
    if not config.sparsity:
        return after
    until = values["sparsity_until"]
    done = jnp.asarray(step, until.dtype) / until
    left = jnp.maximum(1.0 - done - 1.0 / until, 0.0)
    share, is_rising = values["sparsity"] * (1.0 - left**3), done < 1.0

    def sparse(path: tuple[Any, ...], old: Array, new: Array) -> Array:
        if not is_product_kernel(path, new):
            return new
        is_short = (old == 0).sum() < _count(share, new)  # where update n itself was skipped
        goes = jax.lax.cond(is_rising | is_short, lambda: least(new, share), lambda: old == 0)
        return jnp.where(goes, 0, new)

    return jax.tree.map_with_path(sparse, before, after)


def least(kernel: Float[Array, "D H"], share: ArrayLike) -> Bool[Array, "D H"]:
    """Where the given share of a kernel's weights is, those of least magnitude; of equal ones all or none."""
    magnitudes, count = jnp.abs(kernel), _count(share, kernel)
    ordered = jnp.sort(magnitudes.ravel())
    return (magnitudes <= ordered[jnp.maximum(count - 1, 0)]) & (count > 0)


def _count(share: ArrayLike, kernel: Float[Array, "D H"]) -> Int[Array, ""]:
    """How many of a kernel's weights are such a share."""
    return jnp.round(share * kernel.size).astype(jnp.int32)
