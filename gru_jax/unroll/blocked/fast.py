"""The fast unroll as one differentiable function."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from gru_jax.unroll.blocked.backward import Cotangents, backward
from gru_jax.unroll.blocked.forward import Masks, Operands, Program, Result, forward
from gru_jax.unroll.blocked.linear_map import linear_map


@functools.partial(jax.jit, static_argnums=0)
def fast_unroll(program: Program, operands: Operands, masks: Masks) -> Result:
    """Unroll in blocks. Reverse mode runs `backward`; forward mode differentiates `forward`.

    Args:
        program: what is fixed when this is compiled.
        operands: batch-major inputs.
        masks: batch-major masks.
    """
    return _unrolled(program, operands, masks)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _unrolled(program: Program, operands: Operands, masks: Masks) -> Result:
    return forward(program, operands, masks)[0]


@functools.partial(_unrolled.defjvp, symbolic_zeros=True)
def _jvp(program: Program, primals: tuple[Operands, Masks], tangents: tuple[Operands, Masks]) -> tuple[Result, Result]:
    operands, masks = primals
    result, kept = forward(program, operands, masks)
    moving = {name: tangent for name, tangent in tangents[0]._asdict().items() if not _is_zero(tangent)}
    moving = {name: _instantiated(tangent, getattr(operands, name)) for name, tangent in moving.items()}

    def apply(residuals: Any, tangents: dict[str, Any]) -> Cotangents:
        operands, masks, _ = residuals

        def of_moving(values: dict[str, Any]) -> Cotangents:
            result = forward(program, operands._replace(**values), masks)[0]
            return Cotangents(result.hs, result.carry)

        with jax.default_matmul_precision(program.precision):
            return jax.jvp(of_moving, [{name: getattr(operands, name) for name in tangents}], [tangents])[1]

    def transpose(residuals: Any, cts: Cotangents) -> dict[str, Any]:
        with jax.default_matmul_precision(program.precision):
            operands, masks, kept = residuals
            return backward(program, operands, masks, kept, cts, frozenset(moving))

    like = Cotangents(result.hs, result.carry)
    tangent = linear_map(apply, transpose, (operands, masks, kept), moving, like)
    nothing: Any = np.zeros(result.finite.shape, jax.dtypes.float0)  # the tangent of a mask
    return result, Result(tangent.hs, tangent.carry, nothing)


def current_precision() -> str | None:
    """`jax.default_matmul_precision` as it is now: a transpose is traced later, outside the caller's context."""
    return getattr(jax.config, "jax_default_matmul_precision")  # noqa: B009 (type checkers do not know it)


def _is_zero(tangent: Any) -> bool:
    return all(isinstance(leaf, SymbolicZero) for leaf in jax.tree.leaves(tangent))


def _instantiated(tangent: Any, primal: Any) -> Any:
    return jax.tree.map(lambda t, p: jnp.zeros_like(p) if isinstance(t, SymbolicZero) else t, tangent, primal)
