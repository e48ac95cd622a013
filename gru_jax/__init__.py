"""gru_jax: a laboratory for gated recurrent networks on long sequences.

This top level needs JAX alone; Flax, optax and Orbax come in with `gru_jax.nn` and `gru_jax.training`.
"""

from gru_jax import cells, flow, initializers
from gru_jax.cells import gru
from gru_jax.initializers import Scheme
from gru_jax.unroll import Intervention, Unrolled, unroll

__version__ = "0.1.0"

__all__ = ["Intervention", "Scheme", "Unrolled", "__version__", "cells", "flow", "gru", "initializers", "unroll"]
