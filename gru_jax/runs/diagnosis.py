"""Where a training step stopped being finite."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gru_jax.config.hyperparameters import numbers_of
from gru_jax.errors import UsageError
from gru_jax.runs.checkpoints import Checkpoints
from gru_jax.runtime.devices import Device
from gru_jax.tasks import Batch
from gru_jax.training.instruments import adjoints
from gru_jax.training.layers import directions, layer_names
from gru_jax.training.step import Trainer, forward

FAILED = "failed"


class NonFiniteError(Exception):
    """A run met an infinite or undefined number and stopped; the message says where."""


def keep_failure(
    directory: Path, device: Device, step: int, params: Any, batch: Batch, found: Mapping[str, str]
) -> None:
    """Save the parameters and the batch with which something was not finite, beside the checkpoints of a run.

    Args:
        directory: of the run's checkpoints.
        device: of the run.
        step: steps done.
        params, batch: the parameters and the batch.
        found: its `split`, and `what` was not finite.
    """
    store = Checkpoints(directory, device, kinds=(FAILED,))
    store.save(FAILED, step, {"params": params, "batch": _arrays(batch)}, dict(found))
    store.close()


def read_failure(
    directory: Path, device: Device, trainer: Trainer, data: Mapping[str, Any]
) -> tuple[int, Any, Batch, dict[str, str]]:
    """What `keep_failure` saved last: the step, the parameters, the batch, and what was found.

    Args:
        directory: of the run's checkpoints.
        device: for the arrays.
        trainer: of the run.
        data: its training data, or anything with their types and shapes.

    Raises:
        UsageError: there is nothing, or it is damaged.
    """
    if not (directory / FAILED).is_dir():
        raise UsageError(f"{directory}: nothing to replay, this run met no number that is not finite")
    config = trainer.config
    index = np.zeros(config.train.batch_size, np.int32)
    shapes = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in data.items()}
    batch = jax.eval_shape(trainer.batch, 0, shapes, index)
    params = jax.eval_shape(trainer.init, 0, numbers_of(config)).params
    store = Checkpoints(directory, device, read_only=True, kinds=(FAILED,))
    saved, found = store.restore(FAILED, {"params": params, "batch": _arrays(batch)})
    step = store.step(FAILED) or 0
    return step, saved["params"], batch._replace(**saved["batch"]), found


def _arrays(batch: Batch) -> dict[str, Any]:
    return {name: value for name, value in batch._asdict().items() if value is not None}


def explain(trainer: Trainer, params: Any, batch: Batch) -> str | None:
    """Which layer, time step and sequence of a batch is first not finite: forwards, else in the backward pass.

    The forward pass is looked at first step first, layers bottom to top; the adjoint from its last step, since the
    backward pass comes from there, layers top to bottom. None where all of these are finite.
    """
    config, model = trainer.config, trainer.model
    names = layer_names(config)
    trace, metrics = jax.jit(lambda p, b: forward(config, model, p, b))(params, batch)
    for layer, trace_of_layer in zip(names, trace.layers, strict=True):
        # A carry may be infinite where the state is not (an LSTM's c); its flags do not tell directions apart.
        flags = np.asarray(trace_of_layer.unrolled.finite)
        for name, part, reverse in directions(config, layer, trace_of_layer.unrolled.hs):
            bad = np.asarray(~jnp.isfinite(part).all(axis=-1)) if config.model.bidirectional else ~flags
            if bad.any():
                return f"the state of {name} first at {_place(bad, last=reverse)}"
    if not bool(jnp.isfinite(metrics["loss"]).all()):
        sequence = int(np.argmin(np.isfinite(np.asarray(metrics["loss"]))))
        return f"all states are finite, the loss of sequence {sequence} of the batch is not"
    backward = jax.jit(lambda p, b: adjoints(config, model, p, b)[0])(params, batch)
    for layer, adjoint in reversed(list(zip(names, backward, strict=True))):
        for name, part, reverse in directions(config, layer, adjoint):
            bad = np.logical_not(np.isfinite(np.concatenate(part, axis=-1))).any(axis=-1)
            if bad.any():
                return f"the gradient at the state of {name}, going back, from {_place(bad, last=not reverse)}"
    return None


def _place(bad: Any, last: bool) -> str:
    """The first or the last time step that is bad in any sequence, and the first sequence that is bad there."""
    time = int(np.flatnonzero(bad.any(axis=0))[-1 if last else 0])
    return f"time step {time} (sequence {int(bad[:, time].argmax())} of the batch)"
