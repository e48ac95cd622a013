"""Work on a batch split over devices: each works on its rows, and what they sum meets once, in one collective."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from gru_jax.runtime.devices import Device

Work = Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]
"""`work(shared, rows) -> (sums, of_rows)`: what rows of a batch add to sums over all of it, and what each has."""
BATCH_AXIS = "batch"
"""The axis of a mesh whose devices share a batch."""


def batch_mesh(devices: Sequence[Device]) -> Mesh | None:
    """A mesh of devices that share a batch; None for one."""
    return Mesh(np.array(devices), (BATCH_AXIS,)) if len(devices) > 1 else None


def on_mesh(tree: PyTree, mesh: Mesh | None) -> PyTree:
    """Arrays on every device of a mesh, or on JAX's default device without one."""
    return jax.device_put(tree, None if mesh is None else NamedSharding(mesh, PartitionSpec()))


def laid_out(tree: PyTree, mesh: Mesh | None, spec: PartitionSpec) -> PyTree:
    """Arrays of a program laid out over the devices of a mesh; as they are without one."""
    return tree if mesh is None else jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, spec))


def parts_of(mesh: Mesh | None) -> int:
    """How many devices share a batch."""
    return 1 if mesh is None else mesh.shape[BATCH_AXIS]


def in_parts(work: Work, count: int) -> Work:
    """Work on so many parts of its rows one after the other, in the memory that one part takes.

    Args:
        work: its sums are floating numbers; what it gives for rows is batch-major, and kept of all of them.
        count: of parts, into which rows can be divided evenly; with 1 it is the work as it is.

    Examples:
        >>> import jax.numpy as jnp
        >>> from gru_jax.training.splitting import in_parts
        >>> work = in_parts(lambda factor, rows: ((factor * rows).sum(), rows + 1), 2)
        >>> total, of_rows = work(3.0, jnp.arange(4.0))
        >>> float(total), of_rows.tolist()
        (18.0, [1.0, 2.0, 3.0, 4.0])
    """
    if count == 1:
        return work

    def of_parts(shared: PyTree, rows: PyTree) -> tuple[PyTree, PyTree]:
        parts = jax.tree.map(lambda a: a.reshape(count, -1, *a.shape[1:]), rows)

        def add(sums: PyTree, part: PyTree) -> tuple[PyTree, PyTree]:
            sums_here, of_rows = work(shared, part)
            return jax.tree.map(jnp.add, sums, sums_here), of_rows

        like, _ = jax.eval_shape(work, shared, jax.tree.map(lambda a: a[0], parts))
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
        sums, of_rows = jax.lax.scan(add, zeros, parts)
        return sums, jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), of_rows)

    return of_parts


def over_rows(work: Work, mesh: Mesh | None, shared: PyTree, rows: PyTree) -> tuple[PyTree, PyTree]:
    """`work(shared, rows) -> (sums, of_rows)`, on every device for its rows of a batch.

    Inside `work` there is one device, so that no loop over time waits for another. The sums of all devices are added up
    at the end, all in one collective.

    Args:
        work: what to do. Its sums are floating numbers; what it gives for rows is batch-major.
        mesh: its axis `batch` has the devices; None for one device, where `work` is called as it is.
        shared: a pytree of arrays that every device needs all of.
        rows: a pytree of batch-major arrays.
    """
    if mesh is None:
        return work(shared, rows)

    def of_device(shared: PyTree, rows: PyTree) -> tuple[PyTree, PyTree]:
        sums, of_rows = work(shared, rows)
        return _add_up(sums), of_rows

    everywhere, split = PartitionSpec(), PartitionSpec(BATCH_AXIS)
    # Unchecked, as loops of a user's own need not keep track of what differs between devices.
    return jax.shard_map(
        of_device, mesh=mesh, in_specs=(everywhere, split), out_specs=(everywhere, split), check_vma=False
    )(shared, rows)


def _add_up(sums: PyTree) -> PyTree:
    """The sums of all devices; arrays of one type travel as one."""
    leaves, structure = jax.tree.flatten(sums)
    together: dict[Any, Any] = {}
    for dtype in {leaf.dtype: None for leaf in leaves}:
        flat = [leaf.ravel() for leaf in leaves if leaf.dtype == dtype]
        total = jax.lax.psum(jnp.concatenate(flat), BATCH_AXIS)
        ends = [sum(map(len, flat[: i + 1])) for i in range(len(flat) - 1)]
        together[dtype] = iter(jnp.split(total, ends))
    return jax.tree.unflatten(structure, [next(together[leaf.dtype]).reshape(leaf.shape) for leaf in leaves])
