"""The gated recurrent unit with a refine gate."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
from jax.nn import sigmoid
from jaxtyping import Array

from gru_jax.cells.base import Carry, Cell, Dense, Gates, Memory
from gru_jax.cells.products import mix


@dataclasses.dataclass(frozen=True)
class RefineGRU(Cell):
    """A GRU whose update gate is moved by a refine gate, so that it can still learn where it is saturated.

    With r, z and n as in a `GRU` of `reset="after"` and `update="keep"`, and s = sigmoid(W_s x + b_s + U_s h),

        g = s * (1 - (1 - z)^2) + (1 - s) * z^2,    h' = g * h + (1 - g) * n.

    Gu et al. 2020, arXiv:1910.09890, eq. 6 to 8; with `gate_bias="uniform_gate"` the UR-GRU of its section 3.3. The
    effective gate g reaches 1 - (1 - z)^2, so that 1 - g can be the square of 1 - z: time scales are squared. The rule
    `uniform_gate` also sets the bias of s to minus that of z, as the paper does; at s = 1/2 the gate g is z itself.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import gru_jax
        >>> cell = gru_jax.cells.RefineGRU()
        >>> params = cell.init(jax.random.key(0), 2, 3)
        >>> xs = jnp.ones((4, 5, 2))
        >>> gru_jax.unroll(cell, params, xs).hs.shape
        (4, 5, 3)
    """

    @property
    def input_gates(self) -> tuple[str, ...]:
        return ("r", "z", "n", "s")

    @property
    def recurrent_gates(self) -> tuple[str, ...]:
        return self.input_gates

    @property
    def recurrent_biases(self) -> tuple[str, ...]:
        return ("n",)

    @property
    def memory(self) -> Memory:
        return Memory("z", 1, refine="s", kept="g")

    def equations(self, dense: Dense, carry: Carry, u: Mapping[str, Array]) -> tuple[Carry, Gates]:
        h = carry
        r, z, s = (sigmoid(u[g] + dense(g, h)) for g in ("r", "z", "s"))
        n = jnp.tanh(u["n"] + r * dense("n", h))
        g = mix(s, 1.0 - jnp.square(1.0 - z), jnp.square(z))
        return mix(g, h, n), {"r": r, "z": z, "n": n, "s": s, "g": g}
