"""Model families by name."""

from __future__ import annotations

from gru_jax.nn.encoder_decoder import EncoderDecoder
from gru_jax.nn.forecaster import Forecaster
from gru_jax.nn.models import SequenceModel

SEQUENCE, ENCODER_DECODER, FORECASTER = "sequence", "encoder_decoder", "forecaster"
FAMILIES: dict[str, type[SequenceModel]] = {
    SEQUENCE: SequenceModel,
    ENCODER_DECODER: EncoderDecoder,
    FORECASTER: Forecaster,
}
"""Model families by the name that configs use."""
