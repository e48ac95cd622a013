"""The fast unroll as one differentiable function."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import PyTree

from gru_jax.cells.base import hidden_size
from gru_jax.unroll.blocked.backward import Cotangents, backward_pass
from gru_jax.unroll.blocked.forward import BlockedResult, BlockedSettings, Masks, Operands, forward_pass
from gru_jax.unroll.blocked.linear_map import linear_map
from gru_jax.unroll.blocked.twins import with_twins, without_twins


@functools.partial(jax.jit, static_argnums=0)
def fast_unroll(settings: BlockedSettings, operands: Operands, masks: Masks) -> BlockedResult:
    """Unroll in blocks. Reverse mode runs `backward_pass`; forward mode differentiates `forward_pass`.

    Args:
        settings: what is fixed when this is compiled.
        operands: batch-major inputs.
        masks: batch-major masks.
    """
    own_units = hidden_size(settings.cell, operands.params)
    if settings.units == own_units:
        return _unrolled(settings, operands, masks)
    return without_twins(_unrolled(settings, *with_twins(operands, masks, settings.units)), own_units)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _unrolled(settings: BlockedSettings, operands: Operands, masks: Masks) -> BlockedResult:
    return forward_pass(settings, operands, masks)[0]


@functools.partial(_unrolled.defjvp, symbolic_zeros=True)
def _jvp(
    settings: BlockedSettings, primals: tuple[Operands, Masks], tangents: tuple[Operands, Masks]
) -> tuple[BlockedResult, BlockedResult]:
    operands, masks = primals
    result, residuals = forward_pass(settings, operands, masks)
    moving = {name: tangent for name, tangent in tangents[0]._asdict().items() if not _is_zero(tangent)}
    moving = {name: _instantiated(tangent, getattr(operands, name)) for name, tangent in moving.items()}
    wanted = frozenset(moving)  # not the tangents themselves: a transpose that held them would leak them

    def apply(primal_values: PyTree, tangents: dict[str, Any]) -> Cotangents:
        operands, masks, _ = primal_values

        def states_and_carry(values: dict[str, Any]) -> Cotangents:
            result = forward_pass(settings, operands._replace(**values), masks)[0]
            return Cotangents(result.hs, result.carry)

        with jax.default_matmul_precision(settings.precision):
            primals = {name: getattr(operands, name) for name in tangents}
            return jax.jvp(states_and_carry, [primals], [tangents])[1]

    def transpose(primal_values: PyTree, cts: Cotangents) -> dict[str, Any]:
        with jax.default_matmul_precision(settings.precision):
            operands, masks, residuals = primal_values
            return backward_pass(settings, operands, masks, residuals, cts, wanted)

    like = Cotangents(result.hs, result.carry)
    tangent = linear_map(apply, transpose, (operands, masks, residuals), moving, like)
    tangent_of_mask = jax.custom_derivatives.zero_from_primal(result.finite, symbolic_zeros=True)
    return result, BlockedResult(tangent.hs, tangent.carry, tangent_of_mask)


def current_precision() -> str | None:
    """`jax.default_matmul_precision` as it is now: a transpose is traced later, outside the caller's context."""
    return getattr(jax.config, "jax_default_matmul_precision")  # noqa: B009 (type checkers do not know it)


def _is_zero(tangent: PyTree) -> bool:
    return all(isinstance(leaf, SymbolicZero) for leaf in jax.tree.leaves(tangent))


def _instantiated(tangent: PyTree, primal: PyTree) -> PyTree:
    return jax.tree.map(lambda t, p: jnp.zeros_like(p) if isinstance(t, SymbolicZero) else t, tangent, primal)
