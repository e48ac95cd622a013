"""Flax NNX modules around the pure cells."""

from gru_jax.nn.layers import Bidirectional, CellPlace, LayerTrace, Recurrent, Stack
from gru_jax.nn.models import READOUTS, SequenceModel, Trace
from gru_jax.nn.pure import Functional, functional

__all__ = [
    "READOUTS",
    "Bidirectional",
    "CellPlace",
    "Functional",
    "LayerTrace",
    "Recurrent",
    "SequenceModel",
    "Stack",
    "Trace",
    "functional",
]
