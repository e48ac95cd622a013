"""The gated recurrent unit and its variants."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from jax.nn import sigmoid
from jaxtyping import Array, Float

from gru_jax.cells.base import ACTIVATIONS, Carry, Cell, Dense, Gates, Memory, Params
from gru_jax.cells.products import mix
from gru_jax.settings import setting

Reset = Literal["after", "before"]
Update = Literal["keep", "write"]
Activation = Literal["tanh", "relu"]


@dataclasses.dataclass(frozen=True)
class GRU(Cell):
    """The gated recurrent unit, in its usual variants.

    With f the activation, r = sigmoid(W_r x + b_r + U_r h) and z = sigmoid(W_z x + b_z + U_z h):

    - `reset="before"`: n = f(W_n x + b_n + U_n (r * h)). Cho et al. 2014, arXiv:1406.1078, eq. 8; Keras with
      `reset_after=False`.
    - `reset="after"`: n = f(W_n x + b_n + r * (U_n h + c_n)). cuDNN, PyTorch, Keras' default.
    - `update="keep"`: h' = z * h + (1 - z) * n. Cho et al. 2014, eq. 7; PyTorch, Keras.
    - `update="write"`: h' = (1 - z) * h + z * n. Chung et al. 2014, arXiv:1412.3555, eq. 7; Haiku.
    - `output_gate=True`: the candidate gets a gate of its own, o = sigmoid(W_o x + b_o + U_o h), and
      h' = z * h + o * n (keep) or (1 - z) * h + o * n (write), so that h' need not be a convex mix.

    Attributes:
        reset: where the reset gate acts, `"after"` the product or `"before"` it.
        update: what z near 1 does, `"keep"` the state or `"write"` the candidate.
        output_gate: whether the candidate has a gate of its own.
        activation: of the candidate, `"tanh"` or `"relu"`.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import gru_jax
        >>> cell = gru_jax.cells.GRU(reset="before", update="write")
        >>> params = cell.init(jax.random.key(0), 2, 3)
        >>> xs = jnp.ones((4, 5, 2))
        >>> gru_jax.unroll(cell, params, xs).hs.shape
        (4, 5, 3)
    """

    reset: Reset = "after"
    update: Update = "keep"
    output_gate: bool = setting(False, choices=(False, True))
    activation: Activation = "tanh"

    @property
    def input_gates(self) -> tuple[str, ...]:
        return ("r", "z", "n", "o") if self.output_gate else ("r", "z", "n")

    @property
    def recurrent_gates(self) -> tuple[str, ...]:
        return self.input_gates

    @property
    def recurrent_biases(self) -> tuple[str, ...]:
        # Behind the reset gate c_n differs from b_n; anywhere else the two would be one bias written twice.
        return ("n",) if self.reset == "after" else ()

    @property
    def memory(self) -> Memory:
        return Memory("z", 1 if self.update == "keep" else -1, "o" if self.output_gate else None)

    def equations(self, dense: Dense, carry: Carry, u: Mapping[str, Array]) -> tuple[Carry, Gates]:
        h = carry
        r = sigmoid(u["r"] + dense("r", h))
        z = sigmoid(u["z"] + dense("z", h))
        recurrent = r * dense("n", h) if self.reset == "after" else dense("n", r * h)
        n = ACTIVATIONS[self.activation](u["n"] + recurrent)
        gates = {"r": r, "z": z, "n": n}
        if self.output_gate:
            gates["o"] = o = sigmoid(u["o"] + dense("o", h))
            kept = z if self.update == "keep" else 1.0 - z
            return kept * h + o * n, gates
        return (mix(z, h, n) if self.update == "keep" else mix(z, n, h)), gates


def gru(
    params: Params,
    h: Float[Array, "*B H"],
    x: Float[Array, "*B D"],
    *,
    reset: Reset = "after",
    update: Update = "keep",
    output_gate: bool = False,
    activation: Activation = "tanh",
) -> Float[Array, "*B H"]:
    """Take one step of a gated recurrent unit, as a plain function; see `GRU` for the equations and the parameters.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import gru_jax
        >>> params = gru_jax.cells.GRU().init(jax.random.key(0), 2, 3)
        >>> gru_jax.gru(params, jnp.zeros((4, 3)), jnp.ones((4, 2))).shape
        (4, 3)
    """
    return GRU(reset, update, output_gate, activation).step(params, h, x)
