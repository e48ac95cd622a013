"""A linear function with a transpose of its own, under every transformation of JAX.

Autodiff of a `custom_jvp` function transposes its tangent rule; here the rule can say how. Under forward mode the map
is applied, under reverse mode its `transpose` is, and both are plain JAX programs that can be differentiated again.
`jax.custom_derivatives.linear_call` has the same idea but neither batches nor differentiates in its residuals.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import PyTree

from gru_jax.unroll.sharding import zeros_of

Flat = Sequence[Any]


@dataclasses.dataclass(frozen=True)
class _Pair:
    """A map and its transpose over flat lists of arrays.

    Attributes:
        apply: `(residuals, linear) -> outputs`, linear in `linear`.
        transpose: `(residuals, cotangents) -> cotangents of linear`; a cotangent that is zero comes as None.
    """

    apply: Callable[[Flat, Flat], Flat]
    transpose: Callable[[Flat, Flat], Flat]


def linear_map(
    apply: Callable[[PyTree, PyTree], PyTree],
    transpose: Callable[[PyTree, PyTree], PyTree],
    residuals: PyTree,
    tangents: PyTree,
    like: PyTree,
) -> PyTree:
    """`apply(residuals, tangents)`, with `transpose(residuals, cotangents)` as its transpose.

    Args:
        apply: linear in `tangents`.
        transpose: returns cotangents in the structure of `tangents`. Its argument has the structure of `like`, with
            None in place of arrays that are known to be zero.
        residuals: a pytree of arrays.
        tangents: a pytree of floating arrays.
        like: a pytree of arrays with the structure, shapes and types of the result.
    """
    res, res_tree = jax.tree.flatten(residuals)
    lin, lin_tree = jax.tree.flatten(tangents)
    out, out_tree = jax.tree.flatten(like)

    def flat_apply(res: Flat, lin: Flat) -> Flat:
        outputs = apply(jax.tree.unflatten(res_tree, res), jax.tree.unflatten(lin_tree, lin))
        return _leaves(outputs, out_tree)

    def flat_transpose(res: Flat, cts: Flat) -> Flat:
        return _leaves(transpose(jax.tree.unflatten(res_tree, res), jax.tree.unflatten(out_tree, cts)), lin_tree)

    avals = tuple(jax.typeof(a) for a in out)
    outputs = _linear_p.bind(*res, *lin, pair=_Pair(flat_apply, flat_transpose), split=len(res), avals=avals)
    return jax.tree.unflatten(out_tree, outputs)


def _leaves(tree: PyTree, expected: Any) -> Flat:
    leaves, structure = jax.tree.flatten(tree)
    if structure != expected:
        raise TypeError(f"a linear map returned {structure}, not {expected}")
    return leaves


_linear_p = Primitive("linear_map")
_linear_p.multiple_results = True


def _impl(*args: Any, pair: _Pair, split: int, avals: Flat) -> Flat:
    del avals
    return pair.apply(args[:split], args[split:])


def _jvp(primals: Flat, tangents: Flat, *, pair: _Pair, split: int, avals: Flat) -> tuple[Flat, Flat]:
    outputs = _linear_p.bind(*primals, pair=pair, split=split, avals=avals)
    moving = [i for i, t in enumerate(tangents) if type(t) is not ad.Zero]
    if all(i >= split for i in moving):
        lin = [_array(t) for t in tangents[split:]]
        return outputs, _linear_p.bind(*primals[:split], *lin, pair=pair, split=split, avals=avals)

    def as_function_of_moving(*values: Any) -> Flat:
        args = list(primals)
        for i, value in zip(moving, values, strict=True):
            args[i] = value
        return pair.apply(args[:split], args[split:])

    moving_primals = [primals[i] for i in moving]
    return outputs, jax.jvp(as_function_of_moving, moving_primals, [tangents[i] for i in moving])[1]


def _transpose(cts: Flat, *args: Any, pair: _Pair, split: int, avals: Flat) -> Flat:
    res, lin = args[:split], args[split:]
    nonzero = [i for i, ct in enumerate(cts) if type(ct) is not ad.Zero]

    def apply(res: Flat, nonzero_cts: Flat) -> Flat:
        all_cts: list[Any] = [None] * len(avals)
        for i, ct in zip(nonzero, nonzero_cts, strict=True):
            all_cts[i] = ct
        return pair.transpose(res, all_cts)

    def transpose(res: Flat, cts: Flat) -> Flat:
        full = [zeros_of(a) if ct is None else ct for ct, a in zip(cts, lin_avals, strict=True)]
        outputs = pair.apply(res, full)
        return [outputs[i] for i in nonzero]

    lin_avals = tuple(a.aval for a in lin)
    nonzero_cts = [cts[i] for i in nonzero]
    outputs = _linear_p.bind(*res, *nonzero_cts, pair=_Pair(apply, transpose), split=split, avals=lin_avals)
    return [None] * split + list(outputs)


def _batch(args: Flat, dims: Flat, *, pair: _Pair, split: int, avals: Flat) -> tuple[Flat, Flat]:
    size = next(a.shape[d] for a, d in zip(args, dims, strict=True) if d is not None)
    res, axes = args[:split], list(dims[:split])
    # Every linear argument is batched, so that the transpose need not sum over the batch: the broadcast's does.
    lin = [
        jnp.broadcast_to(a, (size, *a.shape)) if d is None else jnp.moveaxis(a, d, 0)
        for a, d in zip(args[split:], dims[split:], strict=True)
    ]

    def apply(res: Flat, lin: Flat) -> Flat:
        return jax.vmap(pair.apply, in_axes=(axes, 0), axis_size=size)(list(res), list(lin))

    def transpose(res: Flat, cts: Flat) -> Flat:
        return jax.vmap(pair.transpose, in_axes=(axes, 0), axis_size=size)(list(res), list(cts))

    batched = tuple(a.update(shape=(size, *a.shape)) for a in avals)
    outputs = _linear_p.bind(*res, *lin, pair=_Pair(apply, transpose), split=split, avals=batched)
    return outputs, [0] * len(outputs)


def _array(tangent: PyTree) -> PyTree:
    if type(tangent) is not ad.Zero:
        return tangent
    return zeros_of(tangent.aval)


_linear_p.def_impl(_impl)
_linear_p.def_abstract_eval(lambda *_, avals, **__: list(avals))
ad.primitive_jvps[_linear_p] = _jvp
ad.primitive_transposes[_linear_p] = _transpose
batching.primitive_batchers[_linear_p] = _batch
mlir.register_lowering(_linear_p, mlir.lower_fun(_impl, multiple_results=True))
