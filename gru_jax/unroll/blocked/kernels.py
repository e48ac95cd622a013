"""The weights of a cell laid out for its products: one array per product, or one per group of products."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from gru_jax.cells import Cell, Params
from gru_jax.cells.products import matmul, per_unit, product
from gru_jax.dtypes import carry_dtype
from gru_jax.unroll.blocked.structure import trace_structure
from gru_jax.unroll.sharding import zeros_beside

Key = TypeVar("Key", bound=Hashable)


class Affine(NamedTuple):
    """Kernels side by side `[D, k H]` and, where any has one, biases `[k H]`; a cell's vectors are biases alone."""

    kernel: Array | None
    bias: Array | None


class Kernels(NamedTuple):
    """One `Affine` for each bundle of input products and of recurrent products."""

    inputs: tuple[Affine, ...]
    recurrent: tuple[Affine, ...]


class ProductLayout(NamedTuple):
    """Which products are computed as one.

    Attributes:
        inputs: bundles of input gates; the last is of the cell's vectors, where it has any.
        recurrent: bundles of recurrent products, by their number in the `calls` of the cell's `Structure`.
    """

    inputs: tuple[tuple[str, ...], ...]
    recurrent: tuple[tuple[int, ...], ...]


def product_layout(cell: Cell, fused: bool) -> ProductLayout:
    """All products that can be one in one if `fused`, else each gate by itself."""
    gates = cell.input_gates
    input_bundles = (gates,) if fused else tuple((gate,) for gate in gates)
    vectors = (cell.vectors,) if cell.vectors else ()
    return ProductLayout(input_bundles + vectors, trace_structure(cell).bundles(fused))


def arrange_kernels(cell: Cell, params: Params, layout: ProductLayout) -> Kernels:
    """The parameters in a layout; linear, so that its transpose takes gradients apart again."""
    biases = params.get("c", {})
    calls = trace_structure(cell).calls

    def recurrent(bundle: tuple[int, ...]) -> Affine:
        gates = [calls[call] for call in bundle]
        kernel = _side_by_side([params["U"][gate] for gate in gates])
        if not any(gate in biases for gate in gates):
            return Affine(kernel, None)
        zero = jnp.zeros(kernel.shape[0], kernel.dtype)
        return Affine(kernel, _side_by_side([biases.get(gate, zero) for gate in gates]))

    def inputs(bundle: tuple[str, ...]) -> Affine:
        if bundle == cell.vectors:
            return Affine(None, _side_by_side([params["v"][name] for name in bundle]))
        return Affine(*(_side_by_side([params[group][gate] for gate in bundle]) for group in ("W", "b")))

    return Kernels(tuple(map(inputs, layout.inputs)), tuple(map(recurrent, layout.recurrent)))


def _side_by_side(arrays: Sequence[Array]) -> Array:
    return arrays[0] if len(arrays) == 1 else jnp.concatenate(arrays, axis=-1)


def input_products(layout: ProductLayout, weights: Kernels, x: Float[Array, "... D"]) -> list[Array]:
    """The product x W of every input gate, `[..., H]`, in the order of the layout; zeros for vectors."""
    products: list[Array] = []
    for gates, (kernel, bias) in zip(layout.inputs, weights.inputs, strict=True):
        if kernel is None:
            assert bias is not None
            together = zeros_beside(x, (*x.shape[:-1], bias.size), carry_dtype(x.dtype))
        else:
            together = product(x, kernel, None, x.dtype)
        products += jnp.split(together, len(gates), axis=-1)
    return products


def add_input_biases(layout: ProductLayout, weights: Kernels, products: Sequence[Array]) -> dict[str, Array]:
    """The input products with their biases, by gate.

    Apart from the products, as it costs nothing where they are used and a pass over memory before.
    """
    gates = [gate for bundle in layout.inputs for gate in bundle]
    biases: list[Array] = []
    for bundle, affine in zip(layout.inputs, weights.inputs, strict=True):
        assert affine.bias is not None  # every input gate has one
        biases += jnp.split(affine.bias, len(bundle))
    return {g: a + per_unit(b.astype(a.dtype), a) for g, a, b in zip(gates, products, biases, strict=True)}


def recurrent_multiplier(
    layout: ProductLayout, weights: Kernels, compute_dtype: DTypeLike, mask: Float[Array, "... H"] | None = None
) -> Callable[[int, str, Array], Array]:
    """`multiply(call, gate, q)` for one run of a cell's equations, each bundle multiplied when first asked for.

    With a mask, it reads q times that.
    """
    bundle_of = {call: number for number, bundle in enumerate(layout.recurrent) for call in bundle}
    products: dict[int, Array] = {}

    def multiply(call: int, gate: str, q: Array) -> Array:
        del gate
        if call not in products:
            bundle = layout.recurrent[bundle_of[call]]
            kernel, bias = weights.recurrent[bundle_of[call]]
            assert kernel is not None
            together = product(q if mask is None else q * mask, kernel, bias, compute_dtype)
            products.update(zip(bundle, jnp.split(together, len(bundle), axis=-1), strict=True))
        return products[call]

    return multiply


def affine_gradient(
    affine: Affine, x: Float[Array, "C B D"], ct: Float[Array, "C B H"], compute_dtype: DTypeLike
) -> Affine:
    """What a block of steps adds to the gradient of an `Affine`: one product over all of its rows."""
    x_rows, ct_rows = (a.astype(compute_dtype).reshape(-1, a.shape[-1]) for a in (x, ct))
    of_kernel = None if affine.kernel is None else matmul(x_rows.T, ct_rows)
    return Affine(of_kernel, None if affine.bias is None else ct.sum(axis=(0, 1)))


def transpose_kernels(weights: Sequence[Affine], compute_dtype: DTypeLike) -> list[Array]:
    """Kernels `[k H, D]`, as the backward products read them; vectors, which come last, have none."""
    return [kernel.T.astype(compute_dtype) for kernel, _ in weights if kernel is not None]


def join_bundle(bundle: Sequence[Key], values: Mapping[Key, Array]) -> Array:
    """The values of a bundle side by side."""
    return _side_by_side([values[name] for name in bundle])


def zero_kernels(weights: Kernels, dtype: DTypeLike) -> Kernels:
    """Zeros in the shapes of the kernels: a gradient to add to."""
    return jax.tree.map(lambda a: zeros_beside(a, a.shape, dtype), weights)
