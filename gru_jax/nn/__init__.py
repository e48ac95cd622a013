"""Flax NNX modules around the pure cells."""

from gru_jax.nn.layers import Bidirectional, LayerTrace, Recurrent, Stack
from gru_jax.nn.models import READOUTS, Functional, SequenceModel, Trace, functional

__all__ = [
    "READOUTS",
    "Bidirectional",
    "Functional",
    "LayerTrace",
    "Recurrent",
    "SequenceModel",
    "Stack",
    "Trace",
    "functional",
]
