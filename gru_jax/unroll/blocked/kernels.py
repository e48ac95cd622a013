"""The weights of a cell laid out for its products: one array per product, or one per group of products."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gru_jax.cells import Cell, Params
from gru_jax.cells.base import matmul, product
from gru_jax.unroll.blocked.structure import structure


class Affine(NamedTuple):
    """Kernels side by side `[D, k H]` and, where any of them has one, biases `[k H]`."""

    kernel: Array
    bias: Array | None


class Kernels(NamedTuple):
    """One `Affine` for each bundle of input products and of recurrent products."""

    inputs: tuple[Affine, ...]
    recurrent: tuple[Affine, ...]


class Layout(NamedTuple):
    """Which products are computed as one.

    Attributes:
        inputs: bundles of input gates.
        recurrent: bundles of recurrent products, by their number in `structure(cell).calls`.
    """

    inputs: tuple[tuple[str, ...], ...]
    recurrent: tuple[tuple[int, ...], ...]


def layout(cell: Cell, fused: bool) -> Layout:
    """All products that can be one in one if `fused`, else each gate by itself."""
    gates = cell.input_gates
    return Layout((gates,) if fused else tuple((gate,) for gate in gates), structure(cell).bundles(fused))


def kernels(cell: Cell, params: Params, where: Layout) -> Kernels:
    """The parameters in a layout; linear, so that its transpose takes gradients apart again."""
    biases = params.get("c", {})
    calls = structure(cell).calls

    def recurrent(bundle: tuple[int, ...]) -> Affine:
        gates = [calls[call] for call in bundle]
        kernel = _side_by_side([params["U"][gate] for gate in gates])
        if not any(gate in biases for gate in gates):
            return Affine(kernel, None)
        zero = jnp.zeros(kernel.shape[0], kernel.dtype)
        return Affine(kernel, _side_by_side([biases.get(gate, zero) for gate in gates]))

    return Kernels(
        tuple(
            Affine(_side_by_side([params["W"][g] for g in gates]), _side_by_side([params["b"][g] for g in gates]))
            for gates in where.inputs
        ),
        tuple(map(recurrent, where.recurrent)),
    )


def _side_by_side(arrays: Sequence[Array]) -> Array:
    return arrays[0] if len(arrays) == 1 else jnp.concatenate(arrays, axis=-1)


def input_products(where: Layout, weights: Kernels, x: Float[Array, "... D"]) -> list[Array]:
    """x W of every input gate, `[..., H]`, in the order of the layout."""
    products: list[Array] = []
    for gates, (kernel, _) in zip(where.inputs, weights.inputs, strict=True):
        products += jnp.split(product(x, kernel, None, x.dtype), len(gates), axis=-1)
    return products


def with_biases(where: Layout, weights: Kernels, products: Sequence[Array]) -> dict[str, Array]:
    """u of every gate. Apart from the products, as it costs nothing where u is used and a pass over memory before."""
    gates = [gate for bundle in where.inputs for gate in bundle]
    biases: list[Array] = []
    for bundle, affine in zip(where.inputs, weights.inputs, strict=True):
        assert affine.bias is not None  # every input gate has one
        biases += jnp.split(affine.bias, len(bundle))
    return {g: a + b.astype(a.dtype) for g, a, b in zip(gates, products, biases, strict=True)}


def multiplier(where: Layout, weights: Kernels, compute_dtype: Any) -> Callable[[int, str, Array], Array]:
    """`multiply(call, gate, q)` for one run of a cell's equations, each bundle multiplied when first asked for."""
    bundle_of = {call: number for number, bundle in enumerate(where.recurrent) for call in bundle}
    products: dict[int, Array] = {}

    def multiply(call: int, gate: str, q: Array) -> Array:
        del gate
        if call not in products:
            bundle = where.recurrent[bundle_of[call]]
            kernel, bias = weights.recurrent[bundle_of[call]]
            together = product(q, kernel, bias, compute_dtype)
            products.update(zip(bundle, jnp.split(together, len(bundle), axis=-1), strict=True))
        return products[call]

    return multiply


def gradient(x: Float[Array, "C B D"], ct: Float[Array, "C B H"], bias: bool, compute_dtype: Any) -> Affine:
    """What a block of steps adds to the gradient of an `Affine`: one product over all of its rows."""
    rows = [a.astype(compute_dtype).reshape(-1, a.shape[-1]) for a in (x, ct)]
    return Affine(matmul(rows[0].T, rows[1]), ct.sum(axis=(0, 1)) if bias else None)


def transposed(weights: Sequence[Affine], compute_dtype: Any) -> list[Array]:
    """Kernels `[k H, D]`, as the backward products read them."""
    return [kernel.T.astype(compute_dtype) for kernel, _ in weights]


def joined(bundle: Sequence[Any], values: Mapping[Any, Array]) -> Array:
    """The values of a bundle side by side."""
    return _side_by_side([values[name] for name in bundle])


def zeros(weights: Kernels, dtype: Any) -> Kernels:
    """A gradient to add to."""
    return jax.tree.map(lambda a: jnp.zeros(a.shape, dtype), weights)
