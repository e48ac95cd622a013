"""Long short-term memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax.numpy as jnp
from jax.nn import sigmoid
from jaxtyping import Array

from gru_jax.cells.base import Carry, Cell, Dense, Gates, Memory


@dataclasses.dataclass(frozen=True)
class LSTM(Cell):
    """The long short-term memory, with a forget gate.

    Hochreiter and Schmidhuber 1997; forget gate from Gers et al. 2000. The carry is (h, c), and

        i = sigmoid(W_i x + b_i + U_i h)      f = sigmoid(W_f x + b_f + U_f h)
        n = tanh(W_n x + b_n + U_n h)         o = sigmoid(W_o x + b_o + U_o h)
        c' = f * c + i * n                    h' = o * tanh(c')

    The candidate n is called g in PyTorch.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import gru_jax
        >>> cell = gru_jax.cells.LSTM()
        >>> params = cell.init(jax.random.key(0), 2, 3)
        >>> h, c = gru_jax.unroll(cell, params, jnp.ones((4, 5, 2))).carry
        >>> h.shape, c.shape
        ((4, 3), (4, 3))
    """

    carry_parts: ClassVar[int] = 2

    @property
    def input_gates(self) -> tuple[str, ...]:
        return ("i", "f", "n", "o")

    @property
    def recurrent_gates(self) -> tuple[str, ...]:
        return self.input_gates

    @property
    def memory(self) -> Memory:
        return Memory("f", 1, "i")

    def equations(self, dense: Dense, carry: Carry, u: Mapping[str, Array]) -> tuple[Carry, Gates]:
        h, c = carry
        i, f, o = (sigmoid(u[g] + dense(g, h)) for g in ("i", "f", "o"))
        n = jnp.tanh(u["n"] + dense("n", h))
        c = f * c + i * n
        return (o * jnp.tanh(c), c), {"i": i, "f": f, "n": n, "o": o}
