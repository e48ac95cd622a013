"""The gated recurrent unit with layer normalisation."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from gru_jax.cells.base import Dense, Params
from gru_jax.cells.gru import GRU
from gru_jax.cells.products import per_unit, product
from gru_jax.dtypes import carry_dtype, chosen_or_default
from gru_jax.initializers import Scheme

EPSILON = 1e-5


@dataclasses.dataclass(frozen=True)
class LayerNormGRU(GRU):
    """A gated recurrent unit whose products are normalised over the units.

    With LN(v) = (v - mean v) / sqrt(var v + 1e-5), every W_g x + b_g of the `GRU` becomes p_g * LN(W_g x) + b_g, and
    every U_g q + c_g becomes s_g * LN(U_g q) + c_g, with gains p, s that start at 1.

    Ba et al. 2016, arXiv:1607.06450, eq. 22 to 24 of its supplement, with one bias for both sides where they are added.
    The state's norm no longer sets the gates' derivatives; the Jacobian mixes units through the normalisation too.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import gru_jax
        >>> cell = gru_jax.cells.LayerNormGRU()
        >>> params = cell.init(jax.random.key(0), 2, 3)
        >>> xs = jnp.ones((4, 5, 2))
        >>> gru_jax.unroll(cell, params, xs).hs.shape
        (4, 5, 3)
    """

    affine: ClassVar[bool] = False

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        return {**super().groups, "p": self.input_gates, "s": self.recurrent_gates}

    def init(
        self,
        key: PRNGKeyArray,
        input_size: int,
        hidden_size: int,
        scheme: Scheme | None = None,
        dtype: DTypeLike | None = None,
    ) -> dict[str, dict[str, Array]]:
        dtype = chosen_or_default(dtype)
        params = super().init(key, input_size, hidden_size, scheme, dtype)
        gains = {group: {g: jnp.ones(hidden_size, dtype) for g in self.groups[group]} for group in ("p", "s")}
        return {**params, **gains}

    def input_products(self, params: Params, x: Float[Array, "... D"]) -> dict[str, Array]:
        wide = carry_dtype(x.dtype)
        products = {}
        for gate in self.input_gates:
            v = normalise_units(product(x, params["W"][gate], None, x.dtype))
            gain, bias = (per_unit(params[group][gate].astype(wide), v) for group in ("p", "b"))
            products[gate] = v * gain + bias
        return products | self.vectors_like(params, products[self.input_gates[0]])

    def dense(self, params: Params, compute_dtype: DTypeLike) -> Dense:
        wide = carry_dtype(compute_dtype)

        def multiply(gate: str, q: Array) -> Array:
            v = normalise_units(product(q, params["U"][gate], None, compute_dtype))
            v = v * per_unit(params["s"][gate].astype(wide), v)
            return v + per_unit(params["c"][gate].astype(wide), v) if gate in self.recurrent_biases else v

        return multiply


def normalise_units(v: Float[Array, "*B H"]) -> Float[Array, "*B H"]:
    """Shift and scale a vector to mean 0 and variance 1 over the units."""
    centred = v - v.mean(axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + EPSILON)
