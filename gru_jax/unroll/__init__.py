"""How a cell runs over time."""

from gru_jax.unroll.arguments import start_carry, valid_steps
from gru_jax.unroll.dispatch import Unrolled, unroll
from gru_jax.unroll.interventions import Intervention
from gru_jax.unroll.options import KEEPS, LAYOUTS, METHODS
from gru_jax.unroll.streaming import streaming_step

__all__ = [
    "KEEPS",
    "LAYOUTS",
    "METHODS",
    "Intervention",
    "Unrolled",
    "start_carry",
    "streaming_step",
    "unroll",
    "valid_steps",
]
