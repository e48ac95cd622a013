"""Several processes that train one run together, by `jax.distributed`: the main one alone reads and writes its files.

All of them go through the same program on the same numbers. What only the main process can know, such as a checkpoint
or the time that a call took, it tells the others. Without `jax.distributed` nothing here does anything.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from gru_jax.errors import ArgumentError, UsageError, in_one_line

BLOCK = 4096  # bytes: texts of one length are one compiled program
BARRIER_SECONDS = 7 * 24 * 3600  # others take as long as they take


def join_processes(coordinator: str, processes: int, process: int) -> None:
    """Join several processes, which must come before JAX is used.

    Args:
        coordinator: address of the first of them, `host:port`.
        processes: how many they are.
        process: which of them this is, from 0.

    Raises:
        UsageError: nobody answers, or JAX is in use.
    """
    try:
        jax.distributed.initialize(coordinator, processes, process)
    except (RuntimeError, ValueError) as error:
        raise ArgumentError(f"coordinator={coordinator}: {in_one_line(error)}") from error


def is_multiprocess() -> bool:
    """Whether there are several processes. Does not make JAX look for devices, which may not be there."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_main_process() -> bool:
    """Whether this is the process that reads and writes files."""
    return not is_multiprocess() or jax.process_index() == 0


def on_main_process(work: Callable[[], Any]) -> Any:
    """Do something in the main process alone; all processes get its outcome, which must be JSON.

    Raises:
        UsageError: in every process, where it is raised in the main one.
    """
    if not is_multiprocess():
        return work()
    message, fault = None, None
    if is_main_process():
        try:
            message = {"value": work()}
            json.dumps(message)
        except UsageError as error:
            message = {"error": str(error), "of_argument": isinstance(error, ArgumentError)}
        except Exception as error:  # the others would wait for ever
            fault = error
            message = {"error": f"the main process failed: {type(error).__name__} {error}", "of_argument": False}
    outcome = _json_from_main_process(message)
    if fault is not None:
        raise fault
    if "error" in outcome:
        raise (ArgumentError if outcome["of_argument"] else UsageError)(outcome["error"])
    return outcome["value"]


def arrays_from_main_process(tree: PyTree) -> PyTree:
    """Arrays of the main process in all of them; those of the others give types and shapes."""
    if not is_multiprocess():
        return tree
    return jax.tree.map(np.asarray, multihost_utils.broadcast_one_to_all(jax.tree.map(_zeros, tree)))


def log_once(logger: logging.Logger, message: str) -> None:
    """Log a message in the main process alone."""
    if is_main_process():
        logger.info(message)


def any_process(flag: bool) -> bool:
    """Whether a flag is up in any process."""
    if not is_multiprocess():
        return flag
    return bool(np.asarray(multihost_utils.process_allgather(np.int32(flag))).any())


def barrier(name: str) -> None:
    """Wait until all processes are here, by JAX's coordination service rather than by a collective, which times out."""
    if jax.process_count() > 1:
        wait = ocp.multihost.get_barrier_sync_fn(processes=set(range(jax.process_count())))
        wait(key=name.replace(" ", "_"), timeout_ms=1000 * BARRIER_SECONDS)


def replicate(tree: PyTree, sharding: jax.sharding.Sharding) -> PyTree:
    """Arrays that every process has, on the devices of a sharding, those of other processes included."""
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def place(leaf: object) -> jax.Array:
        array = np.asarray(leaf)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(place, tree)


def _zeros(leaf: object) -> np.ndarray:
    return np.zeros(leaf.shape, leaf.dtype) if isinstance(leaf, jax.ShapeDtypeStruct) else np.asarray(leaf)


def _json_from_main_process(message: object) -> Any:
    content = np.frombuffer(json.dumps(message).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(content.size)))
    buffer = np.zeros(-(-size // BLOCK) * BLOCK, np.uint8)
    if is_main_process():
        buffer[:size] = content
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(buffer))[:size].tobytes())
