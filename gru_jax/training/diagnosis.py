"""Where a training step stopped being finite."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gru_jax.tasks import Batch
from gru_jax.training.instruments import adjoints, layer_names
from gru_jax.training.step import Trainer, forward


class NonFiniteError(Exception):
    """A run met an infinite or undefined number and stopped; the message says where."""


def explain(trainer: Trainer, params: Any, batch: Batch) -> str | None:
    """Which layer, time step and sequence of a batch is first not finite: forwards, else in the backward pass.

    The forward pass is looked at first step first, layers bottom to top; the adjoint from its last step, since the
    backward pass comes from there, layers top to bottom. None where all of these are finite.
    """
    config, model = trainer.config, trainer.model
    names = layer_names(config)
    trace, metrics = jax.jit(lambda p, b: forward(config, model, p, b))(params, batch)
    for name, layer in zip(names, trace.layers, strict=True):
        bad = np.logical_not(layer.unrolled.finite)
        if bad.any():
            time = int(bad.any(axis=0).argmax())
            return f"the state of {name} first at time step {time} (sequence {int(bad[:, time].argmax())} of the batch)"
    if not bool(jnp.isfinite(metrics["loss"]).all()):
        sequence = int(np.argmin(np.isfinite(np.asarray(metrics["loss"]))))
        return f"all states are finite, the loss of sequence {sequence} of the batch is not"
    backward = jax.jit(lambda p, b: adjoints(config, model, p, b))(params, batch)
    for name, adjoint in reversed(list(zip(names, backward, strict=True))):
        bad = np.logical_not(np.isfinite(adjoint)).any(axis=-1)
        if bad.any():
            time = int(np.flatnonzero(bad.any(axis=0))[-1])
            sequence = int(bad[:, time].argmax())
            return f"the gradient at the state of {name}, going back, from time step {time} (sequence {sequence})"
    return None
