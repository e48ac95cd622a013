"""Unrolling under a mesh of devices: arrays that differ between devices, and batches that are split over them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec, reshard
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from gru_jax.errors import UsageError


def varying_axes(aval: Any) -> frozenset[str]:
    """The axes of a `jax.shard_map` over which an array of some type (`jax.typeof`) differs between devices."""
    manual = getattr(aval, "manual_axis_type", None)  # before JAX 0.10 it is the attribute below
    return frozenset(getattr(aval, "vma", ()) if manual is None else manual.varying)


def vary_alike(tree: Any, *others: Any) -> Any:
    """Let all arrays of a pytree vary over whatever axes any of them does, or any array of the others.

    A loop's carry has to keep its type, and what comes out of a step varies over the axes of all that went into it. The
    transpose sums over the axes: gradients of what all devices share meet here, once, and not in every step.
    """
    axes = frozenset().union(*(varying_axes(jax.typeof(leaf)) for leaf in jax.tree.leaves((tree, others))))
    return jax.tree.map(lambda leaf: _vary(leaf, axes), tree) if axes else tree


def zeros_beside(like: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Zeros that vary over the same axes as another array."""
    return _vary(jnp.zeros(shape, dtype), varying_axes(jax.typeof(like)))


def zeros_of(aval: Any) -> Array:
    """Zeros of a type as `jax.typeof` gives it."""
    return _vary(jnp.zeros(aval.shape, aval.dtype), varying_axes(aval))


def _vary(array: Any, axes: frozenset[str]) -> Any:
    missing = tuple(sorted(axes - varying_axes(jax.typeof(array))))
    if not missing:
        return array
    lax: Any = jax.lax
    return lax.pcast(array, missing, to="varying") if hasattr(lax, "pcast") else lax.pvary(array, missing)


class BatchSplit(NamedTuple):
    """How a batch is split over the explicit axes of a mesh."""

    mesh: Any
    axes: tuple[str, ...]

    @property
    def parts(self) -> int:
        """The number of parts."""
        return math.prod(self.mesh.shape[axis] for axis in self.axes)

    @property
    def rows(self) -> NamedSharding:
        """The sharding of a batch-major array."""
        return NamedSharding(self.mesh, PartitionSpec(self.axes))


def batch_split(xs: Float[Array, "B T D"]) -> BatchSplit | None:
    """How the batch of inputs is split over a mesh of explicit axes, None where it is not.

    Raises:
        UsageError: another dimension is split.
    """
    sharding: Any = jax.typeof(xs).sharding
    if AxisType.Explicit not in sharding.mesh.axis_types:
        return None
    batch, *others = (*sharding.spec, None, None, None)[: xs.ndim]
    if any(axes is not None for axes in others):
        raise UsageError(f"xs is sharded as {sharding.spec}: allowed is a split of its first dimension, the batch")
    if batch is None:
        return None
    return BatchSplit(sharding.mesh, (batch,) if isinstance(batch, str) else tuple(batch))


def split_like(array: Array, xs: Float[Array, "B T D"]) -> Array:
    """A batch-major array split over devices as inputs are."""
    split = batch_split(xs)
    return array if split is None else reshard(array, split.rows)


def over_split(function: Callable[[Any, Any], Any], split: BatchSplit | None, whole: Any, parts: Any) -> Any:
    """`function(whole, parts)` by every device for its part of a batch, the results put together.

    Args:
        function: it returns batch-major arrays.
        split: how the batch is split.
        whole: a pytree of arrays that every device needs all of.
        parts: a pytree of batch-major arrays.
    """
    if split is None:
        return function(whole, parts)
    everywhere = NamedSharding(split.mesh, PartitionSpec())
    whole = jax.tree.map(lambda a: reshard(a, everywhere), whole)
    parts = jax.tree.map(lambda a: reshard(a, split.rows), parts)
    of_device = jax.shard_map(
        lambda whole, parts: function(*vary_alike((whole, parts))),
        mesh=split.mesh,
        in_specs=(everywhere.spec, split.rows.spec),
        out_specs=split.rows.spec,
        axis_names=set(split.axes),
    )
    return jax.jit(of_device)(whole, parts)
