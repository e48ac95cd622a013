"""A cell in service: one step after the other, as inputs arrive."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gru_jax.cells import Carry, Cell, Params
from gru_jax.cells.base import check_carry, check_params
from gru_jax.dtypes import carry_dtype
from gru_jax.unroll.arguments import hidden_size
from gru_jax.unroll.blocked.kernels import (
    add_input_biases,
    arrange_kernels,
    input_products,
    product_layout,
    recurrent_multiplier,
)
from gru_jax.unroll.blocked.structure import is_pointwise, run_equations


def streaming_step(cell: Cell, params: Params) -> Callable[[Carry, Float[Array, "... D"]], Carry]:
    """Compile a step for inputs that arrive one by one: `step(carry, x) -> carry`, as `cell.step`.

    The parameters are constants of the program, side by side, so that a step waits for as few products as there can be:
    of a GRU two, where `cell.step` has six.

    Args:
        cell: the cell.
        params: its parameters, as they will stay.

    Returns:
        A compiled function of the carry, each part `[..., H]`, and an input `[..., D]`. It raises as `cell.step`.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import gru_jax
        >>> cell = gru_jax.cells.GRU()
        >>> step = gru_jax.streaming_step(cell, cell.init(jax.random.key(0), 2, 3))
        >>> h = cell.initial_carry((1,), 3)
        >>> for x in jnp.ones((5, 1, 2)):
        ...     h = step(h, x)
        >>> h.shape
        (1, 3)
    """
    if not is_pointwise(cell):
        return jax.jit(lambda carry, x: cell.step(params, carry, x))
    layout = product_layout(cell, fused=True)
    weights = arrange_kernels(cell, params, layout)

    def step(carry: Carry, x: Float[Array, "... D"]) -> Carry:
        x = jnp.asarray(x)
        check_params(cell, params, x, "x")
        check_carry("carry", cell, carry, (*x.shape[:-1], hidden_size(cell, params)))
        carry = jax.tree.map(lambda part: part.astype(carry_dtype(x.dtype)), carry)
        u = add_input_biases(layout, weights, input_products(layout, weights, x))
        return run_equations(cell, recurrent_multiplier(layout, weights, x.dtype), carry, u)[0]

    return jax.jit(step)
