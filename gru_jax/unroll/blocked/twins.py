"""Units beside a cell's own, so that a step's pointwise part runs in whole vector registers.

A CPU takes eight numbers at a time, and what a row of units has left over one by one: the pointwise part of a step of
ten units takes four times as long as that of sixteen. So some units get a twin, with copies of the weights into it, of
its state and of its masks. A twin holds what its unit holds, so that it is as finite, whatever the cell; no product
reads it, so that it gets no gradient and gives none.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from gru_jax.cells import Params
from gru_jax.unroll.blocked.forward import BlockedResult, Masks, Operands
from gru_jax.unroll.sharding import zeros_beside


def with_twins(operands: Operands, masks: Masks, units: int) -> tuple[Operands, Masks]:
    """Operands and masks of a cell with as many `units`, its own first and then their twins."""
    operands = Operands(
        params=_params_with_twins(operands.params, units),
        xs=operands.xs,
        carry0=_copied(operands.carry0, units),
        perturbation=_copied(operands.perturbation, units),
        reset_carry=_copied(operands.reset_carry, units),
    )
    return operands, masks._replace(recurrent_mask=_copied(masks.recurrent_mask, units))


def without_twins(result: BlockedResult, units: int) -> BlockedResult:
    """What came of a cell's own `units`."""
    hs, carry = jax.tree.map(lambda a: a[..., :units], (result.hs, result.carry))
    return BlockedResult(hs, carry, result.finite)


def _params_with_twins(params: Params, units: int) -> Params:
    copied = {group: _copied(arrays, units) for group, arrays in params.items()}
    if "U" in params:
        copied["U"] = {gate: _unread(kernel, units) for gate, kernel in copied["U"].items()}
    return copied


def _copied(tree: PyTree, units: int) -> PyTree:
    """Arrays `[..., H]` with the numbers of the first units again after those of the last."""

    def of_array(a: Float[Array, "... H"]) -> Float[Array, "... units"]:
        return jnp.concatenate([a] * -(-units // a.shape[-1]), axis=-1)[..., :units]

    return jax.tree.map(of_array, tree)


def _unread(kernel: Float[Array, "H units"], units: int) -> Float[Array, "units units"]:
    """A recurrent kernel with rows of zeros for the twins: no unit reads them."""
    nothing = zeros_beside(kernel, (units - kernel.shape[0], units), kernel.dtype)
    return jnp.concatenate([kernel, nothing])
