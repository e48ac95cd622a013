"""Several processes that train one run together, by `jax.distributed`: the first alone reads and writes its files.

All of them go through the same program on the same numbers. What only the first can know, such as a checkpoint or the
time that a call took, it tells the others. Without `jax.distributed` nothing here does anything.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from gru_jax.errors import UsageError

BLOCK = 4096  # bytes: texts of one length are one compiled program


def several() -> bool:
    """Whether there are several processes. Does not make JAX look for devices, which may not be there."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def leads() -> bool:
    """Whether this process is the first."""
    return not several() or jax.process_index() == 0


def by_lead(work: Callable[[], Any]) -> Any:
    """Do something in the first process alone; all get its outcome, which must be JSON.

    Raises:
        UsageError: in every process, where it is raised in the first.
    """
    if not several():
        return work()
    told = None
    if leads():
        try:
            told = {"value": work()}
        except UsageError as error:
            told = {"error": str(error)}
    outcome = _text_of_lead(json.dumps(told))
    if "error" in outcome:
        raise UsageError(outcome["error"])
    return outcome["value"]


def arrays_of_lead(tree: Any) -> Any:
    """Arrays of the first process in all of them; those of the others give types and shapes."""
    if not several():
        return tree
    return jax.tree.map(np.asarray, multihost_utils.broadcast_one_to_all(jax.tree.map(_zeros, tree)))


def say(line: str) -> None:
    """Print a line, once."""
    if leads():
        print(line, flush=True)


def anywhere(flag: bool) -> bool:
    """Whether a flag is up in any process."""
    if not several():
        return flag
    return bool(np.asarray(multihost_utils.process_allgather(np.int32(flag))).any())


def placed(tree: Any, sharding: jax.sharding.Sharding) -> Any:
    """Arrays that every process has, on all devices of a sharding."""
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def place(leaf: Any) -> jax.Array:
        array = np.asarray(leaf)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(place, tree)


def _zeros(leaf: Any) -> np.ndarray:
    return np.zeros(leaf.shape, leaf.dtype) if isinstance(leaf, jax.ShapeDtypeStruct) else np.asarray(leaf)


def _text_of_lead(text: str) -> Any:
    content = np.frombuffer(text.encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(content.size)))
    buffer = np.zeros(-(-size // BLOCK) * BLOCK, np.uint8)
    if leads():
        buffer[:size] = content
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(buffer))[:size].tobytes())
