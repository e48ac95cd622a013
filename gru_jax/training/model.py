"""The network of a config, as pure functions."""

from __future__ import annotations

from flax import nnx

from gru_jax.config import Config
from gru_jax.dtypes import carry_dtype
from gru_jax.initializers import Scheme
from gru_jax.nn import Functional, SequenceModel, functional


def build_model(config: Config) -> Functional:
    """Split the configured network into `init` and `apply`."""
    model, task = config.model, config.task

    def build(rngs: nnx.Rngs, scheme: Scheme = model.init) -> SequenceModel:
        return SequenceModel(
            model.cell,
            task.input_size,
            model.hidden,
            task.output_size,
            readout=model.readout,
            bidirectional=model.bidirectional,
            dropout=model.dropout,
            scheme=scheme,
            method=model.method,
            chunk=model.chunk,
            keep=model.keep,
            param_dtype=carry_dtype(config.dtype),
            rngs=rngs,
        )

    return functional(build)
