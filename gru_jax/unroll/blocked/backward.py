"""The backward pass of the unroll in blocks of time, derived from a cell's equations.

Let a[i, j] be the derivative of result i of F, the pointwise function between the products, with respect to its
argument j (see `structure`). A block's products are computed again from its states, for all its steps at once, and
with them every a. Then a short scan runs against time, from dcarry' = dL/dcarry_t to dcarry = dL/dcarry_{t-1}:

    dv = sum_i a[i, v] dcarry'_i + sum_q a[q, v] dq,    dq = sum_v dv U_v^T,
    dcarry_j = sum_i a[i, j] dcarry'_i + sum_q a[q, j] dq,

and dU = sum_t q_t^T dv_t and dW = sum_t x_t^T du_t are one product each over all rows of the block. The scan stores
no more than the cotangents of F's results; dv and du are formed from them for the whole block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gru_jax.cells import Carry
from gru_jax.cells.base import carry_from_leaves, carry_leaves, product
from gru_jax.dtypes import carry_dtype
from gru_jax.unroll.blocked.chunks import cut
from gru_jax.unroll.blocked.forward import Kept, Masks, Operands, Program, block_states
from gru_jax.unroll.blocked.kernels import (
    Kernels,
    gradient,
    input_products,
    joined,
    kernels,
    multiplier,
    transposed,
    with_biases,
    zeros,
)
from gru_jax.unroll.blocked.structure import Name, Partials, partials, run, structure
from gru_jax.unroll.masking import StepInputs, entering, masked, select, where


class Cotangents(NamedTuple):
    """Of the states and of the last carry; None is zero."""

    hs: Float[Array, "B T H"] | None
    carry: Carry


class Reverse(NamedTuple):
    """One step of the scan against time: what it reads."""

    slopes: Partials
    earlier: Int[Array, ""]  # the step processed before this one
    valid: Bool[Array, " B"] | None
    resets: Bool[Array, " B"] | None


@jax.named_scope("unroll_backward")
def backward(
    program: Program, operands: Operands, masks: Masks, kept: Kept, cts: Cotangents, wanted: frozenset[str]
) -> dict[str, Any]:
    """Cotangents of those fields of `Operands` that are `wanted`, by name."""
    cell, time = program.cell, operands.xs.shape[1]
    dtype = carry_dtype(operands.xs.dtype)
    weights, split = jax.vjp(lambda params: kernels(cell, params, program.layout), operands.params)
    back = transposed(weights.recurrent, operands.xs.dtype)
    to_xs = transposed(weights.inputs, operands.xs.dtype)

    def block(carry: tuple[Carry, Any], start: Any, length: int, before: Carry) -> tuple[Any, Any, None]:
        ct, total = carry
        steps = cut(StepInputs(operands.xs, *masks, operands.perturbation), start, length)
        if kept.states is None:
            states = block_states(program, weights, steps, before)[1]
        else:
            states = cut(kept.states, start, length)
        carries = entering(cell, _shifted(states, before, program.reverse), steps.resets)
        queries, slopes = _linearise(program, weights, steps, carries)
        earlier = start + jnp.arange(length) + (1 if program.reverse else -1)
        backwards = Reverse(slopes, earlier, steps.valid, steps.resets)
        arriving = None if cts.hs is None else sent
        ct, results = _against_time(program, back, backwards, arriving, ct)
        per_step: dict[str, Any] = {}
        if "perturbation" in wanted:
            moved = range(len(carry_leaves(operands.perturbation)))
            own = tuple(masked(results["carry", part], steps.valid) for part in moved)
            per_step["perturbation"] = own if isinstance(operands.perturbation, tuple) else own[0]
        dv, into = _of_products(program, slopes, results)
        if "xs" in wanted:
            terms = [product(a, kernel, None, kernel.dtype) for a, kernel in zip(into, to_xs, strict=True)]
            per_step["xs"] = _sum(terms).astype(operands.xs.dtype)
        if "params" in wanted:
            own = _weight_cotangent(program, masked(steps.xs, steps.valid), queries, dv, into, weights)
            total = jax.tree.map(jnp.add, total, own)
        return (ct, total), per_step, None

    def sent(step: Any) -> Array:
        """What the loss sends to the state after a step; to the one before the first, nothing."""
        assert cts.hs is not None
        here = jax.lax.dynamic_index_in_dim(cts.hs, step, axis=1, keepdims=False)
        return jnp.where((step >= 0) & (step < time), here, jnp.zeros_like(here))

    ct = jax.tree.map(
        lambda part, like: jnp.zeros_like(like) if part is None else part,
        cts.carry,
        operands.carry0,
        is_leaf=lambda part: part is None,
    )
    if cts.hs is not None:
        ct = cell.with_hidden(ct, cell.hidden(ct) + sent(0 if program.reverse else time - 1))
    total = zeros(weights, dtype) if "params" in wanted else None
    (ct, total), result, _ = program.chunks(time).scan(block, (ct, total), kept.starts, back=True)
    if "params" in wanted:
        total = jax.tree.map(lambda a, like: a.astype(like.dtype), total, weights)
        result["params"] = split(total)[0]
    if "carry0" in wanted:
        result["carry0"] = ct
    return result


def _shifted(states: Carry, before: Carry, reverse: bool) -> Carry:
    """The carry before each step of a block, from those after each step and the one before the block."""

    def shift(after: Array, first: Array) -> Array:
        pieces = (after[1:], first[None]) if reverse else (first[None], after[:-1])
        return jnp.concatenate(pieces)

    # Without the barrier XLA makes a copy for each use.
    return jax.lax.optimization_barrier(jax.tree.map(shift, states, before))


@jax.named_scope("linearise")
def _linearise(program: Program, weights: Kernels, steps: StepInputs, carries: Carry) -> tuple[list[Array], Partials]:
    """q of every product, and the derivatives of F, for all steps of a block at once; zero in the padding."""
    cell, layout = program.cell, program.layout
    u = with_biases(layout, weights, input_products(layout, weights, masked(steps.xs, steps.valid)))
    multiply = multiplier(layout, weights, steps.xs.dtype)
    v: dict[int, Array] = {}

    def record(call: int, gate: str, q: Array) -> Array:
        v[call] = multiply(call, gate, q)
        return v[call]

    _, queries = run(cell, record, carries, u)
    slopes = partials(cell, carries, u, [v[call] for call in range(len(v))])
    if steps.valid is not None:
        slopes = jax.tree.map(lambda a, valid=steps.valid: where(valid, a, jnp.zeros_like(a)), slopes)
    return queries, slopes


@jax.named_scope("against_time")
def _against_time(
    program: Program, back: list[Array], steps: Reverse, sent: Callable[[Any], Array] | None, ct: Carry
) -> tuple[Carry, dict[Name, Array]]:
    """Scan a block against the order of processing.

    Args:
        program: what is fixed.
        back: the kernels of the backward products.
        steps: the block.
        sent: see `backward`.
        ct: dL/dcarry after the block's last step, what the loss sends to it included.

    Returns:
        The same for the carry before the block; and the cotangents of every result of F at each step, `[C, B, H]`.
    """
    cell = program.cell

    def body(after: Carry, step: Reverse) -> tuple[Carry, Any]:
        before, results = _pull(program, back, step.slopes, after)
        if step.resets is not None:
            before = jax.tree.map(lambda a, reset=step.resets: where(reset, jnp.zeros_like(a), a), before)
        if step.valid is not None:
            before = select(step.valid, before, after)
        if sent is not None:
            before = cell.with_hidden(before, cell.hidden(before) + sent(step.earlier))
        return before, results

    return jax.lax.scan(body, ct, steps, reverse=not program.reverse, unroll=program.unroll)


def _pull(program: Program, back: list[Array], slopes: Partials, after: Carry) -> tuple[Carry, dict[Name, Array]]:
    """One step: the cotangent of the carry before it, and of every result of F."""
    cell, facts = program.cell, structure(program.cell)
    results: dict[Name, Array] = {("carry", part): ct for part, ct in enumerate(carry_leaves(after))}

    def of_query(query: int) -> Array:
        asking = [i for i, calls in enumerate(program.layout.recurrent) if facts.query[calls[0]] == query]
        bundles = [_bundle(program.layout.recurrent[i], slopes, results) for i in asking]
        return _sum([product(ct, back[i], None, back[i].dtype) for ct, i in zip(bundles, asking, strict=True)])

    for query in reversed(range(len(facts.source))):  # a q depends on products that were asked for before it alone
        if facts.source[query] is None:
            results["q", query] = of_query(query)
    before = []
    for part in range(cell.carry_parts):
        through = [of_query(query) for query, source in enumerate(facts.source) if source == part]
        before.append(_sum([_cotangent(("carry", part), slopes, results), *through]))
    return carry_from_leaves(cell, before), results


def _cotangent(argument: Name, slopes: Partials, results: dict[Name, Array]) -> Array:
    """The cotangent of an argument of F, from those of its results."""
    terms = [slope[argument] * results[result] for result, slope in slopes.items() if argument in slope]
    return _sum(terms) if terms else jnp.zeros_like(results["carry", 0])


def _sum(terms: list[Array]) -> Array:
    return sum(terms[1:], terms[0])


def _bundle(calls: tuple[int, ...], slopes: Partials, results: dict[Name, Array]) -> Array:
    """The cotangents of products that are computed as one, side by side."""
    return joined(calls, {call: _cotangent(("v", call), slopes, results) for call in calls})


def _of_products(program: Program, slopes: Partials, results: dict[Name, Array]) -> tuple[list[Array], list[Array]]:
    """Cotangents of the bundles of recurrent and of input products."""
    facts, layout = structure(program.cell), program.layout
    dv = [_bundle(calls, slopes, results) for calls in layout.recurrent]
    names: dict[str, Name] = {gate: ("u", gate) for gate in program.cell.input_gates}
    names |= {gate: ("v", call) for gate, call in facts.sums.items()}
    du = {gate: _cotangent(name, slopes, results) for gate, name in names.items()}
    return dv, [joined(gates, du) for gates in layout.inputs]


@jax.named_scope("weights")
def _weight_cotangent(
    program: Program, x: Array, queries: list[Array], dv: list[Array], du: list[Array], weights: Kernels
) -> Kernels:
    """What a block adds to the gradient of the kernels."""
    recurrent = [queries[calls[0]] for calls in program.layout.recurrent]
    return Kernels(
        tuple(gradient(x, ct, True, x.dtype) for ct in du),
        tuple(
            gradient(q, ct, affine.bias is not None, x.dtype)
            for q, ct, affine in zip(recurrent, dv, weights.recurrent, strict=True)
        ),
    )
