"""Unrolling under a mesh of devices: arrays that differ between devices, and batches that are split over them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec, reshard
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PyTree

from gru_jax.errors import UsageError


def varying_axes(aval: Any) -> frozenset[str]:
    """The axes of a `jax.shard_map` over which an array of some type (`jax.typeof`) differs between devices."""
    manual = getattr(aval, "manual_axis_type", None)  # before JAX 0.10 it is the attribute below
    return frozenset(getattr(aval, "vma", ()) if manual is None else manual.varying)


def vary_alike(tree: PyTree, *others: PyTree) -> PyTree:
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


def _vary(array: Array, axes: frozenset[str]) -> Array:
    missing = tuple(sorted(axes - varying_axes(jax.typeof(array))))
    if not missing:
        return array
    lax: Any = jax.lax
    return lax.pcast(array, missing, to="varying") if hasattr(lax, "pcast") else lax.pvary(array, missing)


class BatchSplit(NamedTuple):
    """How a batch is split over a mesh of devices.

    Attributes:
        mesh: the mesh.
        axes: those of its axes that share the batch.
        parts: how many parts there are.
        explicit: whether the program says so (axes of type Explicit); else XLA decides (Auto), and this is how it may.
    """

    mesh: Any
    axes: tuple[str, ...]
    parts: int
    explicit: bool

    @property
    def rows(self) -> NamedSharding:
        """The sharding of a batch-major array."""
        return NamedSharding(self.mesh, PartitionSpec(self.axes))


def batch_split(xs: Float[Array, "B T D"]) -> BatchSplit | None:
    """How the batch of inputs is split over a mesh of devices, or may be by XLA; None where it is not.

    Raises:
        UsageError: the program splits another dimension.
    """
    sharding: Any = jax.typeof(xs).sharding
    mesh, types = sharding.mesh, sharding.mesh.axis_types
    if AxisType.Explicit not in types:
        return _split_by_xla(mesh, xs.shape[0])
    batch, *others = (*sharding.spec, None, None, None)[: xs.ndim]
    if any(axes is not None for axes in others):
        raise UsageError(f"xs is sharded as {sharding.spec}: allowed is a split of its first dimension, the batch")
    if batch is None:
        return None
    axes = (batch,) if isinstance(batch, str) else tuple(batch)
    return BatchSplit(mesh, axes, math.prod(mesh.shape[axis] for axis in axes), explicit=True)


def _split_by_xla(mesh: Any, batch: int) -> BatchSplit | None:
    """The parts of a batch between which nothing needs to be computed, however XLA lays them over the devices."""
    if set(mesh.axis_types) != {AxisType.Auto} or not isinstance(batch, int):  # sizes left open have no parts
        return None
    parts = math.gcd(mesh.size, batch)
    return BatchSplit(mesh, mesh.axis_names, parts, explicit=False) if parts > 1 else None


def split_like(array: Array, xs: Float[Array, "B T D"]) -> Array:
    """A batch-major array split over devices as inputs are, where the program says how."""
    split = batch_split(xs)
    return reshard(array, split.rows) if split is not None and split.explicit else array


def over_split(
    function: Callable[[PyTree, PyTree], PyTree], split: BatchSplit | None, whole: PyTree, parts: PyTree
) -> PyTree:
    """`function(whole, parts)` for each part of a batch by itself, the results put together.

    Sums over the batch, as gradients in what is whole are, meet once, after all loops of the function.

    Args:
        function: it returns batch-major arrays.
        split: how the batch is split.
        whole: a pytree of arrays that every part needs all of.
        parts: a pytree of batch-major arrays.
    """
    if split is None:
        return function(whole, parts)
    if split.explicit:
        return _by_devices(function, split, whole, parts)
    # XLA knows which device has which part, not this program: each has its copy of what is whole, and a row of a vmap.
    count = split.parts
    copies = jax.tree.map(lambda a: jnp.broadcast_to(a, (count, *a.shape)), whole)
    rows = jax.tree.map(lambda a: a.reshape(count, -1, *a.shape[1:]), parts)
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), jax.vmap(function)(copies, rows))


def _by_devices(
    function: Callable[[PyTree, PyTree], PyTree], split: BatchSplit, whole: PyTree, parts: PyTree
) -> PyTree:
    """`over_split` on explicit axes: every device computes its part."""
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
