"""The backward pass of the unroll in blocks of time, derived from a cell's equations.

Let a[i, j] be the derivative of result i of F, the pointwise function between the products, with respect to its
argument j (see `structure`). A block's products are computed again from its states, for all its steps at once, and
with them every a. Then a short scan runs against time, from dcarry' = dL/dcarry_t to dcarry = dL/dcarry_{t-1}:

    dv = sum_i a[i, v] dcarry'_i + sum_q a[q, v] dq,    dq = sum_v dv U_v^T,
    dcarry_j = sum_i a[i, j] dcarry'_i + sum_q a[q, j] dq,

and dU = sum_t q_t^T dv_t and dW = sum_t x_t^T du_t are one product each over all rows of the block. The scan stores
no more than the cotangents of F's results; dv and du are formed from them for the whole block. Where a mask m is
multiplied with what products read, m q_t stands in place of q_t in dU, and dq = m sum_v dv U_v^T.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from gru_jax.cells import Carry, Cell
from gru_jax.cells.base import carry_from_leaves, carry_leaves
from gru_jax.cells.products import product
from gru_jax.dtypes import carry_dtype
from gru_jax.unroll.blocked.chunks import StepNumber, cut
from gru_jax.unroll.blocked.forward import BlockedSettings, Masks, Operands, Residuals, block_states
from gru_jax.unroll.blocked.kernels import (
    Kernels,
    add_input_biases,
    affine_gradient,
    arrange_kernels,
    input_products,
    join_bundle,
    recurrent_multiplier,
    transpose_kernels,
    zero_kernels,
)
from gru_jax.unroll.blocked.padding import skip_padding
from gru_jax.unroll.blocked.structure import (
    Partials,
    ValueName,
    arguments_from_kept,
    pointwise_partials,
    recording,
    run_equations,
    trace_structure,
)
from gru_jax.unroll.masking import Perturbation, StepInputs, entering, masked, select, where
from gru_jax.unroll.sharding import zeros_beside


class Cotangents(NamedTuple):
    """The cotangents of the states, zero where steps do not count, and of the last carry; None is zero."""

    hs: Float[Array, "B T H"] | None
    carry: Carry


class BackwardStep(NamedTuple):
    """What the scan against time reads at each step.

    Attributes:
        partials: the derivatives of F at this step.
        earlier: the number of the step processed before this one.
        valid: False at steps that do not count.
        resets: True where the carry was set anew before the step.
        recurrent_mask: what the recurrent products read was multiplied by it.
    """

    partials: Partials
    earlier: Int[Array, ""]
    valid: Bool[Array, " B"] | None
    resets: Bool[Array, " B"] | None
    recurrent_mask: Float[Array, "B H"] | None


@jax.named_scope("unroll_backward")
def backward_pass(
    settings: BlockedSettings,
    operands: Operands,
    masks: Masks,
    residuals: Residuals,
    cts: Cotangents,
    wanted: frozenset[str],
) -> dict[str, Any]:
    """Cotangents of those fields of `Operands` that are `wanted`, by name."""
    time, dtype = operands.xs.shape[1], carry_dtype(operands.xs.dtype)
    weights, split = jax.vjp(lambda params: arrange_kernels(settings.cell, params, settings.layout), operands.params)
    recurrent_back = transpose_kernels(weights.recurrent, operands.xs.dtype)
    inputs_back = transpose_kernels(weights.inputs, operands.xs.dtype)

    def block(carry: tuple[Carry, Any, Any], start: StepNumber, length: int, before: Carry) -> tuple[Any, Any, None]:
        ct, of_resets, total = carry
        steps = cut(StepInputs(operands.xs, *masks, operands.perturbation), start, length)
        states = cut(residuals.states, start, length)
        if states is None:
            _, states, _ = block_states(settings, weights, steps, before, operands.reset_carry)
        carries = _carries_before(settings, steps, states, before, operands.reset_carry)
        arguments = cut(residuals.arguments, start, length)
        queries, partials = _linearise(settings, weights, steps, carries, arguments)
        earlier = start + jnp.arange(length) + (1 if settings.reverse else -1)
        backward_steps = BackwardStep(partials, earlier, steps.valid, steps.resets, steps.recurrent_mask)
        (ct, of_resets), results = _against_time(settings, recurrent_back, backward_steps, cts.hs, (ct, of_resets))
        per_step: dict[str, Any] = {}
        if "perturbation" in wanted:
            per_step["perturbation"] = _perturbation_cotangent(operands.perturbation, results, steps.valid)
        dv, du = _product_cotangents(settings, partials, results)
        if "xs" in wanted:
            terms = [product(a, kernel, None, kernel.dtype) for a, kernel in zip(du, inputs_back, strict=False)]
            per_step["xs"] = _sum(terms).astype(operands.xs.dtype)
        if "params" in wanted:
            of_block = _weight_cotangent(settings, masked(steps.xs, steps.valid), queries, dv, du, weights)
            total = jax.tree.map(jnp.add, total, of_block)
        return (ct, of_resets, total), per_step, None

    def padding(carry: tuple[Carry, Any, Any], start: StepNumber, length: int, before: Carry) -> tuple[Any, Any, None]:
        """A block in which the carry stood still."""
        del before
        earlier = start + length if settings.reverse else start - 1
        per_step = {name: getattr(operands, name) for name in ("xs", "perturbation") if name in wanted}
        per_step = jax.tree.map(lambda a: zeros_beside(a, (length, a.shape[0], a.shape[2]), a.dtype), per_step)
        return (_with_loss(settings.cell, carry[0], cts.hs, earlier), *carry[1:]), per_step, None

    ct = _or_zeros(cts.carry, operands.carry0)
    ct = _with_loss(settings.cell, ct, cts.hs, 0 if settings.reverse else time - 1)
    of_resets = jax.tree.map(jnp.zeros_like, operands.reset_carry) if "reset_carry" in wanted else None
    total = zero_kernels(weights, dtype) if "params" in wanted else None
    chunks = settings.chunks(time)
    of_any_block = skip_padding(chunks, masks.valid, block, padding)
    state, result, _ = chunks.scan(of_any_block, (ct, of_resets, total), residuals.starts, back=True)
    ct, of_resets, total = state
    if "params" in wanted:
        total = jax.tree.map(lambda a, like: a.astype(like.dtype), total, weights)
        result["params"] = split(total)[0]
    of_carries = {"carry0": ct, "reset_carry": of_resets}
    return result | {name: ct for name, ct in of_carries.items() if name in wanted}


def _with_loss(cell: Cell, ct: Carry, hs_ct: Float[Array, "B T H"] | None, step: StepNumber) -> Carry:
    """The cotangent of the carry after a step, once it has what the loss sends to its state; before the first, nothing.

    Where a block is padding, only the step before it has any: the loss reads no state of a step that does not count.
    """
    if hs_ct is None:
        return ct
    here = jax.lax.dynamic_index_in_dim(hs_ct, step, axis=1, keepdims=False)
    sent = jnp.where((step >= 0) & (step < hs_ct.shape[1]), here, jnp.zeros_like(here))
    return cell.with_hidden(ct, cell.hidden(ct) + sent)


def _or_zeros(carry: Carry, like: Carry) -> Carry:
    """A carry with zeros in place of the parts that are None."""
    return jax.tree.map(
        lambda part, like: jnp.zeros_like(like) if part is None else part,
        carry,
        like,
        is_leaf=lambda part: part is None,
    )


def _perturbation_cotangent(
    perturbation: Perturbation, results: dict[ValueName, Array], valid: Bool[Array, "C B"] | None
) -> Array | tuple[Array, ...]:
    """The cotangent of a perturbation: that of the carry behind each step, in the structure of the perturbation."""
    perturbed_parts = range(len(carry_leaves(perturbation)))
    per_part = tuple(masked(results["carry", part], valid) for part in perturbed_parts)
    return per_part if isinstance(perturbation, tuple) else per_part[0]


def _carries_before(
    settings: BlockedSettings, steps: StepInputs, states: Carry, before: Carry, reset_carry: Carry | None
) -> Carry:
    """The carry that each step of a block starts from, given those after each step and the one before the block."""

    def shift(after: Array, first: Array) -> Array:
        return jnp.concatenate((after[1:], first[None]) if settings.reverse else (first[None], after[:-1]))

    # Without the barrier XLA makes a copy for each use.
    shifted = jax.lax.optimization_barrier(jax.tree.map(shift, states, before))
    return entering(settings.cell, shifted, steps.resets, reset_carry)


@jax.named_scope("linearise")
def _linearise(
    settings: BlockedSettings,
    weights: Kernels,
    steps: StepInputs,
    carries: Carry,
    arguments: dict[ValueName, Array] | None,
) -> tuple[list[Array], Partials]:
    """What every product reads, and the derivatives of F, for all steps of a block at once; zero in the padding.

    The arguments of F are those kept or, where none are, computed again.
    """
    cell, layout = settings.cell, settings.layout
    if arguments is None:
        u = add_input_biases(layout, weights, input_products(layout, weights, masked(steps.xs, steps.valid)))
        multiply, v = recording(recurrent_multiplier(layout, weights, steps.xs.dtype, steps.recurrent_mask))
    else:
        u, kept = arguments_from_kept(cell, arguments)
        multiply, v = recording(lambda call, gate, q: kept[call])
    _, queries = run_equations(cell, multiply, carries, u)
    partials = pointwise_partials(cell, carries, u, [v[call] for call in range(len(v))])
    if steps.valid is not None:
        partials = jax.tree.map(lambda a, valid=steps.valid: where(valid, a, jnp.zeros_like(a)), partials)
    mask = steps.recurrent_mask
    return queries if mask is None else [q * mask for q in queries], partials


@jax.named_scope("against_time")
def _against_time(
    settings: BlockedSettings,
    kernels: list[Array],
    steps: BackwardStep,
    hs_ct: Float[Array, "B T H"] | None,
    cts: tuple[Carry, Carry | None],
) -> tuple[tuple[Carry, Carry | None], dict[ValueName, Array]]:
    """Scan a block against the order of processing.

    Args:
        settings: what is fixed.
        kernels: those of the backward products.
        steps: the block.
        hs_ct: what the loss sends to the state after each step; None for nothing.
        cts: dL/dcarry after the block's last step, what the loss sends to it included; and what has come to the
            carry that resets set, None if that is not wanted.

    Returns:
        The same before the block; and the cotangents of every result of F at each step, `[C, B, H]`.
    """
    cell = settings.cell

    def body(state: tuple[Carry, Carry | None], step: BackwardStep) -> tuple[PyTree, PyTree]:
        after, of_resets = state
        before, results = _pull(settings, kernels, step.partials, after, step.recurrent_mask)
        if step.resets is not None:
            if of_resets is not None:
                acts = step.resets if step.valid is None else step.resets & step.valid
                arriving = jax.tree.map(lambda a: masked(a, acts), before)
                of_resets = jax.tree.map(jnp.add, of_resets, arriving)
            before = jax.tree.map(lambda a, reset=step.resets: where(reset, jnp.zeros_like(a), a), before)
        if step.valid is not None:
            before = select(step.valid, before, after)
        return (_with_loss(cell, before, hs_ct, step.earlier), of_resets), results

    return jax.lax.scan(body, cts, steps, reverse=not settings.reverse, unroll=settings.unroll)


def _pull(
    settings: BlockedSettings, kernels: list[Array], partials: Partials, after: Carry, mask: Array | None
) -> tuple[Carry, dict[ValueName, Array]]:
    """One step: the cotangent of the carry before it, and of every result of F."""
    cell, structure = settings.cell, trace_structure(settings.cell)
    results: dict[ValueName, Array] = {("carry", part): ct for part, ct in enumerate(carry_leaves(after))}

    def query_cotangent(query: int) -> Array:
        bundles = [
            (calls, kernel)
            for calls, kernel in zip(settings.layout.recurrent, kernels, strict=True)
            if structure.query[calls[0]] == query
        ]
        cts = [(_bundle_cotangent(calls, partials, results), kernel) for calls, kernel in bundles]
        total = _sum([product(ct, kernel, None, kernel.dtype) for ct, kernel in cts])
        return total if mask is None else total * mask

    for query in reversed(range(len(structure.source))):  # a q depends on products that were asked for before it alone
        if structure.source[query] is None:
            results["q", query] = query_cotangent(query)
    before = []
    for part in range(cell.carry_parts):
        through = [query_cotangent(query) for query, source in enumerate(structure.source) if source == part]
        before.append(_sum([_cotangent(("carry", part), partials, results), *through]))
    return carry_from_leaves(cell, before), results


def _cotangent(argument: ValueName, partials: Partials, results: dict[ValueName, Array]) -> Array:
    """The cotangent of an argument of F, from those of its results."""
    terms = [
        by_argument[argument] * results[result] for result, by_argument in partials.items() if argument in by_argument
    ]
    return _sum(terms) if terms else jnp.zeros_like(results["carry", 0])


def _sum(terms: list[Array]) -> Array:
    return sum(terms[1:], terms[0])


def _bundle_cotangent(calls: tuple[int, ...], partials: Partials, results: dict[ValueName, Array]) -> Array:
    """The cotangents of products that are computed as one, side by side."""
    return join_bundle(calls, {call: _cotangent(("v", call), partials, results) for call in calls})


def _product_cotangents(
    settings: BlockedSettings, partials: Partials, results: dict[ValueName, Array]
) -> tuple[list[Array], list[Array]]:
    """Cotangents of the bundles of recurrent and of input products."""
    structure, layout = trace_structure(settings.cell), settings.layout
    dv = [_bundle_cotangent(calls, partials, results) for calls in layout.recurrent]
    names: dict[str, ValueName] = {gate: ("u", gate) for gates in layout.inputs for gate in gates}
    names |= {gate: ("v", call) for gate, call in structure.sums.items()}
    du = {gate: _cotangent(name, partials, results) for gate, name in names.items()}
    return dv, [join_bundle(gates, du) for gates in layout.inputs]


@jax.named_scope("weights")
def _weight_cotangent(
    settings: BlockedSettings, x: Array, queries: list[Array], dv: list[Array], du: list[Array], weights: Kernels
) -> Kernels:
    """What a block adds to the gradient of the kernels."""
    recurrent_inputs = [queries[calls[0]] for calls in settings.layout.recurrent]
    return Kernels(
        tuple(affine_gradient(affine, x, ct, x.dtype) for affine, ct in zip(weights.inputs, du, strict=True)),
        tuple(
            affine_gradient(affine, q, ct, x.dtype)
            for q, ct, affine in zip(recurrent_inputs, dv, weights.recurrent, strict=True)
        ),
    )
