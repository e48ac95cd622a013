"""Cells that no file of the product knows."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from gru_jax.cells import Cell


@dataclasses.dataclass(frozen=True)
class Toy(Cell):
    """Three parts of carry, vectors, a gate behind a product of a computed vector, a product asked for twice, a bias c.

    s' = y tanh(s) + sigmoid(u_a + dense(a, h)) * dense(b, m),  m' = m/2 + u_b * sigmoid(w + dense(b, s * h)),
    h' = sin(u_d + dense(d, tanh(dense(a, m)))) + s' * dense(d, h).
    """

    carry_parts = 3
    input_gates = ("a", "b", "d")
    recurrent_gates = ("a", "b", "d")
    recurrent_biases = ("b",)
    vectors = ("y", "w")

    def initial_vector(self, name, key, hidden_size):
        """See the class."""
        return (1.0 if name == "y" else 0.0) + 0.3 * jax.random.normal(key, hidden_size)

    def equations(self, dense, carry, u):
        """See the class."""
        h, s, m = carry
        a = jax.nn.sigmoid(u["a"] + dense("a", h))
        s_new = u["y"] * jnp.tanh(s) + a * dense("b", m)
        m_new = 0.5 * m + u["b"] * jax.nn.sigmoid(u["w"] + dense("b", s * h))
        d = jnp.sin(u["d"] + dense("d", jnp.tanh(dense("a", m))))
        h_new = d + 0.1 * s_new * dense("d", h)
        return (h_new, s_new, m_new), {"a": a, "d": d}


@dataclasses.dataclass(frozen=True)
class Normalized(Cell):
    """Not pointwise: the state has length one."""

    input_gates = ("n",)
    recurrent_gates = ("n",)

    def equations(self, dense, carry, u):
        """See the class."""
        n = jnp.tanh(u["n"] + dense("n", carry))
        return n / jnp.linalg.norm(n, axis=-1, keepdims=True), {"n": n}
