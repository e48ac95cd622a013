"""Flax NNX modules around the pure cells."""

from gru_jax.nn.model import READOUTS, Functional, SequenceModel, Trace, functional
from gru_jax.nn.recurrent import Bidirectional, LayerTrace, Recurrent, Stack

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
