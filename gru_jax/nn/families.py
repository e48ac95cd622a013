"""Model families by name."""

from __future__ import annotations

from gru_jax.nn.encoder_decoder import EncoderDecoder
from gru_jax.nn.models import SequenceModel

SEQUENCE, ENCODER_DECODER = "sequence", "encoder_decoder"
FAMILIES: dict[str, type[SequenceModel]] = {SEQUENCE: SequenceModel, ENCODER_DECODER: EncoderDecoder}
"""Model families by the name that configs use."""
