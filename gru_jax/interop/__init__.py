"""Weights of recurrent networks from and to other libraries.

Each library has a pair: `from_torch` reads its arrays as `Weights`, which become a layer stack or a model of ours;
`to_torch` gives a network of ours in its names and shapes. No library needs to be installed, and nothing is pickled.
"""

from gru_jax.interop.flax import from_linen, from_nnx, to_linen, to_nnx
from gru_jax.interop.haiku import from_haiku, to_haiku
from gru_jax.interop.keras import from_keras, to_keras
from gru_jax.interop.torch import from_torch, save_safetensors, to_torch
from gru_jax.interop.weights import Fused, Weights, fuse, unfuse, weights_of

__all__ = [
    "Fused",
    "Weights",
    "from_haiku",
    "from_keras",
    "from_linen",
    "from_nnx",
    "from_torch",
    "fuse",
    "save_safetensors",
    "to_haiku",
    "to_keras",
    "to_linen",
    "to_nnx",
    "to_torch",
    "unfuse",
    "weights_of",
]
