"""The minimal gated recurrent unit, whose gates do not see the state."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from jax.nn import sigmoid
from jaxtyping import Array

from gru_jax.cells.base import ACTIVATIONS, Carry, Cell, Dense, Gates, Memory
from gru_jax.cells.products import mix


@dataclasses.dataclass(frozen=True)
class MinGRU(Cell):
    """A minimal gated recurrent unit, whose gate and candidate do not see the state.

    z = sigmoid(W_z x + b_z), n = f(W_n x + b_n), h' = (1 - z) * h + z * n. Feng et al. 2024, arXiv:2410.01201, section
    3.1. The step is linear in h, so that it can run parallel in time.

    Attributes:
        activation: f, `"identity"` as in the paper's section 3.1, `"positive"` as in its log-space form
            (x + 1/2 above zero, a sigmoid below), or `"tanh"`.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import gru_jax
        >>> cell = gru_jax.cells.MinGRU()
        >>> params = cell.init(jax.random.key(0), 2, 3)
        >>> xs = jnp.ones((4, 5, 2))
        >>> gru_jax.unroll(cell, params, xs).hs.shape
        (4, 5, 3)
    """

    activation: Literal["identity", "positive", "tanh"] = "identity"

    @property
    def input_gates(self) -> tuple[str, ...]:
        return ("z", "n")

    @property
    def recurrent_gates(self) -> tuple[str, ...]:
        return ()

    @property
    def memory(self) -> Memory:
        return Memory("z", -1)

    def equations(self, dense: Dense, carry: Carry, u: Mapping[str, Array]) -> tuple[Carry, Gates]:
        z = sigmoid(u["z"])
        n = ACTIVATIONS[self.activation](u["n"])
        return mix(z, n, carry), {"z": z, "n": n}
