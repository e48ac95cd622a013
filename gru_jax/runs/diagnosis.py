"""Where a training stopped being finite, and what is kept to look at it again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from gru_jax.config import Hyperparameters, traced_hyperparameters
from gru_jax.errors import UsageError
from gru_jax.nn import CellPlace
from gru_jax.runs.checkpoints import Checkpoints
from gru_jax.runtime.devices import Device
from gru_jax.tasks import SPLITS, Batch, split_key
from gru_jax.training.instruments import loss_adjoints
from gru_jax.training.network import run_network
from gru_jax.training.state import TrainState, is_inexact
from gru_jax.training.step import Trainer

FAILED = "failed"  # the kind of checkpoint


class NonFiniteError(Exception):
    """A run met an infinite or undefined number and stopped; the message says where.

    Args:
        message: the message.
        batch_kept: whether the batch can be run again.
    """

    def __init__(self, message: str, *, batch_kept: bool = True) -> None:
        super().__init__(message)
        self.batch_kept = batch_kept


class Failure(NamedTuple):
    """A batch on which a network is not finite.

    Attributes:
        step: steps done.
        what: is not finite, in words.
        split: of the batch.
        params: of the network.
        batch: the batch.
    """

    step: int
    what: str
    split: str
    params: PyTree
    batch: Batch


def keep_failure(directory: Path, device: Device, failure: Failure) -> None:
    """Save the parameters and the batch with which something was not finite, beside the checkpoints of a run."""
    store = Checkpoints(directory, device, kinds=(FAILED,))
    state = {"params": failure.params, "batch": _arrays(failure.batch)}
    store.save(FAILED, failure.step, state, {"what": failure.what, "split": failure.split})
    store.close()


def read_failure(directory: Path, device: Device, trainer: Trainer, splits: Mapping[str, Mapping[str, Any]]) -> Failure:
    """What `keep_failure` saved last.

    Args:
        directory: of the run's checkpoints.
        device: for the arrays.
        trainer: of the run.
        splits: their data, or anything with the types and shapes of these.

    Raises:
        UsageError: there is nothing, or it is damaged.
    """
    if not (directory / FAILED).is_dir():
        raise UsageError(f"{directory}: nothing to replay, this run met no number that is not finite")
    config = trainer.config
    index = np.zeros(config.train.batch_size, np.int32)
    store = Checkpoints(directory, device, read_only=True, kinds=(FAILED,))
    split = str(store.metadata(FAILED).get("split"))
    data = splits.get(split, {})
    shapes = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in data.items()}
    if split == SPLITS[0]:
        batch = jax.eval_shape(trainer.batch, 0, shapes, index)
    else:
        batch = jax.eval_shape(lambda data, index: config.task.batch(data, split_key(split, 0), index), shapes, index)
    params = jax.eval_shape(trainer.init, 0, traced_hyperparameters(config)).params
    saved, metadata = store.restore(FAILED, {"params": params, "batch": _arrays(batch)})
    batch = batch._replace(**saved["batch"])
    return Failure(store.step(FAILED) or 0, metadata["what"], metadata["split"], saved["params"], batch)


def find_invalid_batch(trainer: Trainer, params: PyTree, data: Mapping[str, Any], split: str) -> Batch:
    """The first batch of a split on which a network is not finite; the first of all if none is found."""
    task, batch_size = trainer.config.task, trainer.config.train.batch_size
    size = task.size(split) or 0
    batches = jax.jit(lambda index: task.batch(data, split_key(split, 0), index))

    def batch_at(first: int) -> Batch:
        return batches(np.minimum(np.arange(first, first + batch_size), size - 1).astype(np.int32))

    firsts = (first for first in range(0, size, batch_size) if explain(trainer, params, batch_at(first)))
    return batch_at(next(firsts, 0))


def _arrays(batch: Batch) -> dict[str, Any]:
    return {name: value for name, value in batch._asdict().items() if value is not None}


def explain(trainer: Trainer, params: PyTree, batch: Batch) -> str | None:
    """Which layer, time step and sequence of a batch is first not finite: forwards, else in the backward pass.

    The forward pass is looked at first step first, layers bottom to top; the adjoint from its last step, since the
    backward pass comes from there, layers top to bottom. None where all of these are finite.
    """
    config, model = trainer.config, trainer.model
    trace, metrics = jax.jit(lambda p, b: run_network(config, model, p, b))(params, batch)
    for number, place in model.cells:
        unrolled = trace.layers[number].unrolled
        # A carry may be infinite where the state is not (an LSTM's c); its flags do not tell directions apart.
        finite = jnp.isfinite(place.states(unrolled.hs)).all(axis=-1) if place.parts > 1 else unrolled.finite
        bad = ~np.asarray(finite)
        if bad.any():
            return f"the state of {place.name} first at {_first_place(bad, last=place.reverse)}"
    if not bool(jnp.isfinite(metrics["loss"]).all()):
        sequence = int(np.argmin(np.isfinite(np.asarray(metrics["loss"]))))
        return f"all states are finite, the loss of sequence {sequence} of the batch is not"
    adjoints = jax.jit(lambda p, b: loss_adjoints(config, model, p, b)[0])(params, batch)
    for number in reversed(range(len(model.layers))):
        for place in model.layers[number]:
            where = _explain_adjoint(place, adjoints[number])
            if where is not None:
                return where
    return None


def explain_update(
    trainer: Trainer, state: TrainState, seed: int, hyperparameters: Hyperparameters, batch: Batch
) -> str:
    """What is not finite in the step that follows a state, where the states of the network and their gradients are.

    The first of: the gradient of a parameter, what the optimiser adds to it, the sum of both, the optimiser's state.
    """
    update = jax.jit(trainer.update)(state, seed, hyperparameters, batch)
    params = trainer.apply_updates(state, update, hyperparameters)
    largest = max((float(np.abs(leaf).max(initial=0.0)) for leaf in jax.tree.leaves(update.grads)), default=0.0)
    finite = "all states and their gradients are finite"
    for tree, what in ((update.grads, "the gradient of"), (update.updates, "the update of"), (params, "the new")):
        path = first_bad(tree)
        if path is not None:
            return f"{finite}, {what} {_slashed(path)} is not"
    path = first_bad(update.opt_state)
    if path is not None:
        return (
            f"{finite}, the optimiser's state at {_slashed(path)} is not, after gradients of up to {largest:.3g}, "
            "which optimizer.clip_norm or clip_value would bound"
        )
    return f"{finite}, and so is the update where it is computed a second time"


def first_bad(tree: PyTree) -> tuple[Any, ...] | None:
    """The path of the first leaf of floating numbers that are not all finite, as JAX has paths; None without one."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    bad = (p for p, leaf in leaves if is_inexact(leaf) and not bool(np.isfinite(np.asarray(leaf)).all()))
    return next(bad, None)


def _slashed(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _explain_adjoint(place: CellPlace, adjoints_of_layer: Any) -> str | None:
    parts = np.concatenate(place.states(adjoints_of_layer), axis=-1)
    bad = np.logical_not(np.isfinite(parts)).any(axis=-1)
    if not bad.any():
        return None
    where = _first_place(bad, last=not place.reverse)
    return f"the gradient at the state of {place.name}, going back, from {where}"


def _first_place(bad: Any, last: bool) -> str:
    """The first or the last time step that is bad in any sequence, and the first sequence that is bad there."""
    time = int(np.flatnonzero(bad.any(axis=0))[-1 if last else 0])
    return f"time step {time} (sequence {int(bad[:, time].argmax())} of the batch)"
