"""Flax NNX modules around the pure cells."""

from gru_jax.nn.attention import ATTENTIONS
from gru_jax.nn.encoder_decoder import EncoderDecoder
from gru_jax.nn.forecaster import Forecaster
from gru_jax.nn.layers import Bidirectional, BothCarries, CellPlace, Recurrent
from gru_jax.nn.models import READOUTS, SequenceModel, Trace
from gru_jax.nn.parts import NetworkParts
from gru_jax.nn.pure import Functional, functional
from gru_jax.nn.stack import LayerInputs, LayerTrace, Stack, StackTrace

__all__ = [
    "ATTENTIONS",
    "READOUTS",
    "Bidirectional",
    "BothCarries",
    "CellPlace",
    "EncoderDecoder",
    "Forecaster",
    "Functional",
    "LayerInputs",
    "LayerTrace",
    "NetworkParts",
    "Recurrent",
    "SequenceModel",
    "Stack",
    "StackTrace",
    "Trace",
    "functional",
]
