"""What a cell's equations consist of, read off by tracing them.

Between its products a cell is pointwise: a function F from the carry, the input products u and the recurrent products
v to the next carry and to the vectors q that are multiplied next. Which products share a q, which result depends on
which argument, and the partial derivatives of F, diagonal as F is pointwise, all follow from `Cell.equations`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Literal
from jaxtyping import Array

from gru_jax.cells import Carry, Cell
from gru_jax.cells.base import carry_from_leaves, carry_leaves
from gru_jax.errors import UsageError, listing

ValueName = tuple[str, Any]
"""An argument of F, ("carry", part), ("u", gate) or ("v", call), or a result, ("carry", part) or ("q", query)."""
Partials = dict[ValueName, dict[ValueName, Array]]
"""The derivative of each result of F with respect to each argument that it depends on, as a diagonal."""


class Structure(NamedTuple):
    """The recurrent products that a cell asks for, in order, and what depends on what.

    Attributes:
        calls: the gate of each product.
        query: for each product, the number of its q; equal numbers are the same vector.
        source: for each q, the part of the carry that it is, or None where it is computed.
        reads: for each result of F, the arguments that it depends on.
        sums: for each gate whose u enters F only as the sum of u and one v, the number of that product: the
            derivatives with respect to both are equal, and `reads` lists v alone.
    """

    calls: tuple[str, ...]
    query: tuple[int, ...]
    source: tuple[int | None, ...]
    reads: Mapping[ValueName, tuple[ValueName, ...]]
    sums: Mapping[str, int]

    def bundles(self, fused: bool) -> tuple[tuple[int, ...], ...]:
        """Products that are computed as one: all that share a q if `fused`, else each by itself."""
        if not fused:
            return tuple((call,) for call in range(len(self.calls)))
        sharing: dict[int, list[int]] = {}
        for call, query in enumerate(self.query):
            sharing.setdefault(query, []).append(call)
        return tuple(map(tuple, sharing.values()))


Multiply = Callable[[int, str, Array], Array]
"""`multiply(call, gate, q)`, a recurrent product."""


def run_equations(cell: Cell, multiply: Multiply, carry: Carry, u: Mapping[str, Array]) -> tuple[Carry, list[Array]]:
    """The next carry, and q of every product; the products themselves are `multiply(call, gate, q)`."""
    queries: list[Array] = []

    def dense(gate: str, q: Array) -> Array:
        queries.append(q)
        return multiply(len(queries) - 1, gate, q)

    return cell.equations(dense, carry, u)[0], queries


def recording(multiply: Multiply) -> tuple[Multiply, dict[int, Array]]:
    """The same products, and a dict that has each by its number once it was asked for."""
    v: dict[int, Array] = {}

    def record(call: int, gate: str, q: Array) -> Array:
        v[call] = multiply(call, gate, q)
        return v[call]

    return record, v


def kept_arguments(cell: Cell, u: Mapping[str, Array], v: Mapping[int, Array]) -> dict[ValueName, Array]:
    """What has to be kept of the products to have the arguments of F again: where they enter as a sum, the sum."""
    sums = trace_structure(cell).sums
    kept: dict[ValueName, Array] = {("v", call): value for call, value in v.items() if call not in sums.values()}
    return kept | {("u", gate): u[gate] + v[sums[gate]] if gate in sums else u[gate] for gate in u}


def arguments_from_kept(cell: Cell, kept: Mapping[ValueName, Array]) -> tuple[dict[str, Array], dict[int, Array]]:
    """Input and recurrent products that make F what it was: of a sum, all of it and zero."""
    structure = trace_structure(cell)
    u = {name: value for (kind, name), value in kept.items() if kind == "u"}
    like = next(iter(kept.values()))
    return u, {call: kept.get(("v", call), jnp.zeros_like(like)) for call in range(len(structure.calls))}


def pointwise_function(
    cell: Cell, carry: Carry, u: Mapping[str, Array], v: Sequence[Array]
) -> tuple[tuple[Array, ...], list[Array]]:
    """The cell between its products, F: from the carry and the products to the next carry and q of every product."""
    after, queries = run_equations(cell, lambda call, gate, q: v[call], carry, u)
    return carry_leaves(after), queries


POINTWISE = frozenset({
    "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil",
    "clamp", "convert_element_type", "copy", "cos", "cosh", "digamma", "div", "eq", "erf", "erf_inv", "erfc",
    "exp", "exp2", "expm1", "floor", "ge", "gt", "integer_pow", "is_finite", "le", "lgamma", "log", "log1p",
    "logistic", "lt", "max", "min", "mul", "ne", "neg", "nextafter", "not", "or", "pow", "reduce_precision",
    "rem", "round", "rsqrt", "select_n", "sign", "sin", "sinh", "sqrt", "square", "stop_gradient", "sub", "tan",
    "tanh", "xor",
})  # fmt: skip
"""Primitives of JAX that act on each entry by itself. Others may keep the shape and yet mix entries, as `cumsum`."""


@functools.lru_cache(maxsize=256)
def trace_structure(cell: Cell) -> Structure:
    """Trace the equations of `cell` and read off their structure.

    Raises:
        UsageError: they are not pointwise between the products.
    """
    if not cell.affine:
        raise UsageError(
            f"{cell} has products that are not affine, as method='fast' needs; method='reference' takes any cell"
        )
    calls: list[str] = []
    unit = jax.ShapeDtypeStruct((2, 3), jnp.float32)
    carry, u = carry_from_leaves(cell, [unit] * cell.carry_parts), dict.fromkeys(cell.input_gates + cell.vectors, unit)

    def count(call: int, gate: str, q: Array) -> Array:
        del call
        calls.append(gate)
        return q

    jax.eval_shape(lambda carry, u: run_equations(cell, count, carry, u)[0], carry, u)
    jaxpr = jax.make_jaxpr(functools.partial(pointwise_function, cell))(carry, u, [unit] * len(calls)).jaxpr
    mixing = _not_pointwise(jaxpr)
    if mixing:
        raise UsageError(
            f"{cell} is not pointwise between its products, as method='fast' needs: it has {listing(sorted(mixing))}; "
            "method='reference' takes any cell"
        )
    names: list[ValueName] = [("carry", part) for part in range(cell.carry_parts)]
    names += [("u", gate) for gate in sorted(cell.input_gates + cell.vectors)]  # as a dict is flattened
    names += [("v", call) for call in range(len(calls))]
    return _read_structure(jaxpr, dict(zip(jaxpr.invars, names, strict=True)), cell.carry_parts, tuple(calls))


def _not_pointwise(jaxpr: Any) -> set[str]:
    """What in a program is not pointwise."""
    mixing = {"an array of its own" for var in jaxpr.constvars if var.aval.shape}
    for eqn in jaxpr.eqns:
        values = [getattr(value, "jaxpr", value) for value in eqn.params.values()]
        inner_jaxprs = [value for value in values if hasattr(value, "eqns")]
        if eqn.primitive.name in ("jit", "pjit", "custom_jvp_call", "custom_vjp_call"):
            mixing = mixing.union(*map(_not_pointwise, inner_jaxprs))
        elif eqn.primitive.name == "broadcast_in_dim":
            mixing |= {"broadcast_in_dim"} if eqn.invars[0].aval.shape else set()
        elif eqn.primitive.name not in POINTWISE:
            mixing.add(eqn.primitive.name)
    return mixing


def is_pointwise(cell: Cell) -> bool:
    """Whether the equations of `cell` are pointwise between its products."""
    try:
        trace_structure(cell)
    except UsageError:
        return False
    return True


def _read_structure(jaxpr: Any, arguments: dict[Any, ValueName], carry_parts: int, calls: tuple[str, ...]) -> Structure:
    """The structure of a cell whose pointwise function was traced; `arguments` names the program's inputs."""
    uses: dict[Any, list[int]] = {var: [] for var in arguments}
    depends = {var: frozenset([name]) for var, name in arguments.items()}
    for i, eqn in enumerate(jaxpr.eqns):
        inputs = [var for var in eqn.invars if not isinstance(var, Literal)]
        for var in inputs:
            if var in uses:
                uses[var].append(i)
        reads = frozenset[ValueName]().union(*(depends[var] for var in inputs if var in depends))
        depends.update(dict.fromkeys(eqn.outvars, reads))

    sums: dict[str, int] = {}
    for eqn in jaxpr.eqns:
        summands = [arguments.get(var) for var in eqn.invars if not isinstance(var, Literal)]
        by_kind = dict(name for name in summands if name is not None)
        adds = eqn.primitive.name == "add" and len(summands) == 2 and by_kind.keys() == {"u", "v"}
        if adds and all(len(uses[var]) == 1 and var not in jaxpr.outvars for var in eqn.invars):
            sums[by_kind["u"]] = by_kind["v"]

    after, queries = jaxpr.outvars[:carry_parts], jaxpr.outvars[carry_parts:]
    distinct = list(dict.fromkeys(queries))
    names_of_queries = [arguments.get(var) for var in distinct]
    source = tuple(name[1] if name and name[0] == "carry" else None for name in names_of_queries)
    results: dict[ValueName, Any] = {("carry", part): var for part, var in enumerate(after)}
    results |= {("q", i): var for i, var in enumerate(distinct) if source[i] is None}
    reads = {
        name: tuple(a for a in arguments.values() if a in depends.get(var, ()) and not (a[0] == "u" and a[1] in sums))
        for name, var in results.items()
    }
    return Structure(calls, tuple(distinct.index(q) for q in queries), source, reads, sums)


def pointwise_partials(cell: Cell, carry: Carry, u: Mapping[str, Array], v: Sequence[Array]) -> Partials:
    """The partial derivatives of the pointwise function F at arrays of any shape."""
    structure = trace_structure(cell)

    def derivatives(result: ValueName) -> dict[ValueName, Array]:
        values: dict[ValueName, Array] = {("carry", part): value for part, value in enumerate(carry_leaves(carry))}
        values |= {("u", gate): value for gate, value in u.items()}
        values |= {("v", call): value for call, value in enumerate(v)}

        def result_of(*read: Array) -> Array:
            arguments = values | dict(zip(structure.reads[result], read, strict=True))
            after, queries = pointwise_function(
                cell,
                carry_from_leaves(cell, [arguments["carry", part] for part in range(cell.carry_parts)]),
                {gate: arguments["u", gate] for gate in u},
                [arguments["v", call] for call in range(len(v))],
            )
            kind, number = result
            return after[number] if kind == "carry" else queries[structure.query.index(number)]

        value, pull = jax.vjp(result_of, *(values[name] for name in structure.reads[result]))
        return dict(zip(structure.reads[result], pull(jnp.ones_like(value)), strict=True))

    return {result: derivatives(result) for result in structure.reads}
