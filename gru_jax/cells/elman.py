"""The simple recurrent network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from jaxtyping import Array

from gru_jax.cells.base import ACTIVATIONS, Carry, Cell, Dense, Gates


@dataclasses.dataclass(frozen=True)
class Elman(Cell):
    """The simple recurrent network, without gates.

    h' = f(W_n x + b_n + U_n h). Elman 1990. With `activation="relu"` and the scheme `recurrent="identity"` this is the
    IRNN of Le et al. 2015, arXiv:1504.00941.

    Attributes:
        activation: f, `"tanh"`, `"relu"`, or `"identity"` for a linear recurrence.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import gru_jax
        >>> cell = gru_jax.cells.Elman(activation="relu")
        >>> params = cell.init(jax.random.key(0), 2, 3)
        >>> xs = jnp.ones((4, 5, 2))
        >>> gru_jax.unroll(cell, params, xs).hs.shape
        (4, 5, 3)
    """

    activation: Literal["tanh", "relu", "identity"] = "tanh"

    @property
    def input_gates(self) -> tuple[str, ...]:
        return ("n",)

    @property
    def recurrent_gates(self) -> tuple[str, ...]:
        return ("n",)

    def equations(self, dense: Dense, carry: Carry, u: Mapping[str, Array]) -> tuple[Carry, Gates]:
        n = ACTIVATIONS[self.activation](u["n"] + dense("n", carry))
        return n, {"n": n}
