"""Flax NNX modules around the pure cells."""

from gru_jax.nn.layers import Bidirectional, BothCarries, CellPlace, Recurrent
from gru_jax.nn.models import READOUTS, SequenceModel, Trace
from gru_jax.nn.pure import Functional, functional
from gru_jax.nn.stack import LayerTrace, Stack, StackTrace

__all__ = [
    "READOUTS",
    "Bidirectional",
    "BothCarries",
    "CellPlace",
    "Functional",
    "LayerTrace",
    "Recurrent",
    "SequenceModel",
    "Stack",
    "StackTrace",
    "Trace",
    "functional",
]
