"""The parts of the fast method, each by itself."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gru_jax
from gru_jax.cells import GRU, LSTM, Elman
from gru_jax.unroll import options as choice
from gru_jax.unroll.blocked.chunks import Chunks, cut
from gru_jax.unroll.blocked.kernels import arrange_kernels, product_layout
from gru_jax.unroll.blocked.linear_map import linear_map
from gru_jax.unroll.blocked.structure import pointwise_partials, trace_structure
from tests.golden.peers import random_problem
from tests.programs import operations
from tests.unroll.toys import Toy


def test_structure_of_known_cells():
    after = trace_structure(GRU())
    assert after.calls == ("r", "z", "n")
    assert after.query == (0, 0, 0)
    assert after.source == (0,)
    assert after.sums == {"r": 0, "z": 1}  # of the candidate, the recurrent product is behind the reset gate
    assert after.bundles(fused=True) == ((0, 1, 2),)
    assert after.bundles(fused=False) == ((0,), (1,), (2,))
    before = trace_structure(GRU("before"))
    assert before.query == (0, 0, 1)
    assert before.source == (0, None)
    assert before.sums == {"r": 0, "z": 1, "n": 2}
    assert before.reads["q", 1] == (("carry", 0), ("v", 0))
    lstm = trace_structure(LSTM())
    assert set(lstm.sums) == {"i", "f", "n", "o"}
    assert ("carry", 0) not in lstm.reads["carry", 1]


def test_structure_of_a_cell_nobody_knows():
    toy = trace_structure(Toy())
    assert toy.calls == ("a", "b", "b", "a", "d", "d")
    assert toy.query == (0, 1, 2, 1, 3, 0)
    assert toy.source == (0, 2, None, None)
    assert toy.sums == {"a": 0, "w": 2, "d": 4}
    assert toy.bundles(fused=True) == ((0, 5), (1, 3), (2,), (4,))


@pytest.mark.parametrize("cell", [GRU(), GRU("before"), LSTM(), Elman("relu"), Toy()], ids=str)
def test_partial_derivatives_are_diagonals_of_jacobians(cell, x64):
    """At scalars, where F is a function of scalars and every Jacobian a number."""
    rng = np.random.default_rng(0)
    structure = trace_structure(cell)
    carry = tuple(jnp.asarray(rng.standard_normal((1, 1))) for _ in range(cell.carry_parts))
    carry = carry if cell.carry_parts > 1 else carry[0]
    u = {gate: jnp.asarray(rng.standard_normal((1, 1))) for gate in cell.input_gates + cell.vectors}
    v = [jnp.asarray(rng.standard_normal((1, 1))) for _ in structure.calls]
    partials = pointwise_partials(cell, carry, u, v)

    def results(carry, u, v):
        queries = []

        def dense(gate, q):
            queries.append(q)
            return v[len(queries) - 1]

        after = cell.equations(dense, carry, u)[0]
        after = after if isinstance(after, tuple) else (after,)
        named = {("carry", i): part for i, part in enumerate(after)}
        return named | {
            ("q", n): queries[structure.query.index(n)] for n, source in enumerate(structure.source) if source is None
        }

    jacobians = jax.jacrev(results, argnums=(0, 1, 2))(carry, u, v)
    assert partials.keys() == jacobians.keys()
    for result, by_argument in partials.items():
        by_carry, by_u, by_v = jacobians[result]
        parts = by_carry if cell.carry_parts > 1 else (by_carry,)
        dense = {("carry", i): a for i, a in enumerate(parts)}
        dense |= {("u", gate): a for gate, a in by_u.items() if gate not in structure.sums}
        dense |= {("v", call): a for call, a in enumerate(by_v)}
        for argument, jacobian in dense.items():
            np.testing.assert_allclose(by_argument.get(argument, 0.0), jacobian.reshape(1, 1), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("time", "size", "reverse", "back"),
    [(12, 4, False, False), (12, 4, True, True), (12, 5, True, False), (12, 5, False, True), (1, 1, False, False),
     (5, 12, True, False), (7, 1, False, True), (11, 10, True, True)],
)  # fmt: skip
def test_chunks_visit_every_step_once_and_in_order(time, size, reverse, back):
    visit_chunks(time, size, reverse, back, fill=2)


@pytest.mark.slow
@given(
    time=st.integers(1, 12), size=st.integers(1, 12), reverse=st.booleans(), back=st.booleans(), fill=st.integers(1, 3)
)
def test_chunks_of_any_length(time, size, reverse, back, fill):
    visit_chunks(time, size, reverse, back, fill)


def visit_chunks(time, size, reverse, back, fill):
    """Once there, once back with what the way there gave, each block told where it begins and how long it is."""
    xs = jnp.arange(2 * time, dtype=jnp.float32).reshape(2, time)
    chunks = Chunks(time, min(size, time), reverse)
    seen = []

    def block(carry, start, length, given):
        steps = cut(xs, start, length)
        assert steps.shape == (length, 2)
        seen.append(length)
        start = jnp.asarray(start, jnp.int32)
        return (carry[0] + 1, start), steps * fill, (start, *carry)

    last, per_step, starts = chunks.scan(block, (jnp.int32(0), jnp.int32(-1)), back=back)
    np.testing.assert_array_equal(per_step, xs * fill)
    count, rest = divmod(time, chunks.size)
    assert set(seen) == {length for length in (chunks.size if count else 0, rest) if length}
    assert last[0] == count + (rest > 0)
    blocks = [np.atleast_1d(np.asarray(a)) for a in starts[0]]
    rows = list(zip(*blocks, strict=True)) + ([tuple(map(int, starts[1]))] if rest else [])
    assert len(rows) == count + (rest > 0)
    in_order = sorted(rows, key=lambda row: row[1])
    assert [row[0] for row in in_order] == sorted((row[0] for row in rows), reverse=reverse != back)
    assert [row[2] for row in in_order] == [-1, *(row[0] for row in in_order[:-1])]

    def given_back(carry, start, length, given):
        return carry, cut(xs, start, length), (given[0], start)

    _, _, ((given, where), rest_of) = chunks.scan(given_back, jnp.float32(0), starts, back=not back)
    np.testing.assert_array_equal(given, where)
    if rest:
        assert rest_of[0] == rest_of[1]


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("cell", [GRU(), LSTM(), Toy()], ids=str)
def test_layouts_hold_the_parameters_and_split_gradients(cell, fused):
    params = jax.tree.map(jnp.asarray, random_problem(cell, 1, 1, 2, 3, "float32", 0)[0])
    layout = product_layout(cell, fused)
    laid_out, split = jax.vjp(lambda params: arrange_kernels(cell, params, layout), params)
    again = split(laid_out)[0]
    # A kernel that two products use has two places in the layout, and its gradient is the sum of both.
    uses = {gate: trace_structure(cell).calls.count(gate) for gate in cell.recurrent_gates}
    for group, times in (("W", {}), ("b", {}), ("U", uses), ("c", uses)):
        for gate, array in params.get(group, {}).items():
            np.testing.assert_allclose(again[group][gate], times.get(gate, 1) * array, rtol=1e-6)


def test_linear_map_uses_its_own_transpose():
    """Forward mode applies the one, reverse mode the other; both under vmap, and differentiated again."""

    def doubled(residual, tangent):
        return {"y": residual * tangent["x"]}

    def tripled(residual, ct):
        return {"x": 3.0 * residual * ct["y"]}  # not the transpose, to see who was asked

    @jax.custom_jvp
    def f(a, x):
        return {"y": a * x}

    @f.defjvp
    def _(primals, tangents):
        a, x = primals
        out = f(a, x)
        return out, linear_map(doubled, tripled, a, {"x": tangents[1]}, out)

    a, x = jnp.array([2.0, 5.0]), jnp.array([1.0, 4.0])
    ones = jnp.ones(2)
    np.testing.assert_array_equal(jax.jvp(lambda x: f(a, x)["y"], (x,), (ones,))[1], a)
    np.testing.assert_array_equal(jax.grad(lambda x: f(a, x)["y"].sum())(x), 3 * a)
    np.testing.assert_array_equal(jax.vmap(jax.grad(lambda a, x: f(a, x)["y"], argnums=1))(a, x), 3 * a)
    np.testing.assert_array_equal(jax.jit(jax.vmap(jax.grad(lambda x: f(a, x)["y"].sum())))(x[None])[0], 3 * a)
    over = jax.jvp(lambda a: jax.grad(lambda x: f(a, x)["y"].sum())(x), (a,), (ones,))[1]
    np.testing.assert_array_equal(over, 3 * ones)
    back_and_forth = jax.linear_transpose(lambda t: jax.vjp(lambda x: f(a, x)["y"], x)[1](t)[0], ones)
    np.testing.assert_array_equal(back_and_forth(ones)[0], a)  # the transpose of the transpose is the map


def test_linear_map_says_what_came_out():
    with pytest.raises(TypeError, match="a linear map returned"):
        linear_map(lambda residual, t: [t, t], lambda residual, ct: ct, jnp.ones(2), jnp.ones(2), jnp.ones(2))


@pytest.fixture
def on_cpu(monkeypatch):
    """The rules as for a CPU, on whatever the tests run."""
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")


def test_block_length_by_rule(on_cpu):
    assert choice.choose_chunk(None, 1024, 32, 128) == 64
    assert choice.choose_chunk(None, 784, 100, 128) == 16  # divides 784, and is near 2**18 / 12800
    assert choice.choose_chunk(None, 4096, 1, 64) == 128
    assert choice.choose_chunk(None, 4096, 256, 512) == choice.SHORTEST
    assert choice.choose_chunk(None, 5, 1, 1) == 5
    assert choice.choose_chunk(None, 1009, 32, 128) == 64  # a prime: a shorter last block
    assert choice.choose_chunk(10**6, 100, 1, 1) == 100
    assert choice.choose_chunk(None, 0, 0, 4) == 1


def test_layout_by_rule(on_cpu):
    assert not choice.choose_layout("auto", 32, 128)
    assert choice.choose_layout("auto", 16, 64)
    assert choice.choose_layout("auto", 1, 64)
    assert choice.choose_layout("auto", 8, 128)
    assert not choice.choose_layout("auto", 1, 200)
    assert choice.choose_layout("auto", 100, 5)
    assert choice.choose_layout("auto", 100, 50)
    assert not choice.choose_layout("auto", 100, 24)
    assert choice.choose_layout("auto", 100, 56)
    assert choice.choose_layout("auto", 100, 64)
    assert not choice.choose_layout("auto", 100, 66)
    assert choice.choose_layout("auto", 16, 8)
    assert not choice.choose_layout("auto", 17, 8)
    assert choice.choose_layout("fused", 32, 128)
    assert not choice.choose_layout("separate", 1, 8)


@pytest.mark.parametrize(
    ("units", "computed"),
    [(1, 1), (6, 6), (7, 8), (8, 8), (9, 16), (15, 16), (16, 16), (20, 20), (21, 24), (26, 26), (27, 32), (34, 34),
     (50, 50), (51, 56), (100, 104), (128, 128), (300, 304), (500, 500)],
)  # fmt: skip
def test_units_by_rule(units, computed, on_cpu, monkeypatch):
    assert choice.choose_units(units, time=100) == computed
    assert choice.choose_units(units, time=1) == units
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert choice.choose_units(units, time=100) == units


def test_a_program_computes_as_many_units(on_cpu):
    params = GRU().init(jax.random.key(0), 3, 13)
    lowered = jax.jit(lambda xs: gru_jax.unroll(GRU(), params, xs).hs).lower(jnp.ones((5, 20, 3)))
    candidates = operations(lowered, "stablehlo.tanh")
    assert [list(operation.result.type.shape) for operation in candidates] == [[5, 16]]


def test_gates_are_kept_by_rule(on_cpu, monkeypatch):
    for *shape, kept in (
        (28, 64, 128, "gates"), (28, 128, 128, "states"), (28, 64, 95, "states"), (1, 1, 1, "states"),  # few rows
        (32, 64, 383, "gates"), (33, 64, 383, "states"), (33, 64, 384, "gates"), (53, 120, 429, "gates"),
        (100, 32, 511, "states"), (100, 32, 512, "gates"), (4096, 16, 512, "gates"), (4096, 32, 512, "states"),
        (4097, 16, 512, "states"),  # many units
    ):  # fmt: skip
        assert choice.choose_keep("auto", *shape) == kept, shape
        assert choice.choose_keep("auto", *shape, recurrent=False) == "states"
    assert choice.choose_keep("boundaries", 28, 64, 128) == "boundaries"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert choice.choose_keep("auto", 256, 32, 512) == choice.choose_keep("auto", 28, 64, 128) == "states"


@pytest.mark.parametrize(("platform", "fast"), [("cpu", 1), ("gpu", 8), ("tpu", 1)])
def test_steps_of_an_iteration_by_rule(platform, fast, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    assert choice.choose_unroll(None, "fast") == fast
    assert choice.choose_unroll(None, "reference") == 1
    assert choice.choose_unroll(3, "fast") == choice.choose_unroll(3, "reference") == 3
