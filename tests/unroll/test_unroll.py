"""Both ways to unroll against a Python loop over `step`, with everything they take."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gru_jax
from gru_jax.cells import GRU, LSTM, Elman, MinGRU
from gru_jax.errors import UsageError
from tests.broken import broken
from tests.golden.peers import random_problem

METHODS = ["reference", "fast"]
CELLS = [GRU(), GRU("before", "write", output_gate=True), LSTM(), Elman("relu"), MinGRU()]
# The fast method is held against the reference elsewhere, and both against a loop: here one cell is enough for that.
PAIRS = [
    pytest.param(
        method, cell, marks=pytest.mark.slow if method == "reference" and cell != LSTM() else (), id=f"{cell}-{method}"
    )
    for cell in CELLS
    for method in METHODS
]


def as_jax(tree):
    return jax.tree.map(jnp.asarray, tree)


@functools.cache
def step_of(cell):
    return jax.jit(cell.step)


def by_loop(cell, params, xs, carry0, lengths, resets, reverse):
    """Each sequence by itself, step by step, without masks."""
    batch, time, _ = xs.shape
    hidden_size = params["b"][cell.input_gates[0]].shape[-1]
    hs, carries = np.zeros((batch, time, hidden_size), np.float32), []
    step = step_of(cell)
    for b in range(batch):
        carry = jax.tree.map(lambda a, b=b: a[b], carry0)
        steps = range(int(lengths[b]))
        for t in reversed(steps) if reverse else steps:
            if resets[b, t]:
                carry = cell.initial_carry((), hidden_size)
            carry = step(params, carry, xs[b, t])
            hs[b, t] = cell.hidden(carry)
        carries.append(carry)
    return hs, jax.tree.map(lambda *parts: np.stack(parts), *carries)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "cell",
    [pytest.param(c, marks=pytest.mark.slow if c.carry_parts == 1 and c != GRU() else ()) for c in CELLS],
    ids=str,
)
@settings(max_examples=6)
@given(
    seed=st.integers(0, 2**16),
    time=st.sampled_from([0, 1, 2, 5, 7]),
    reverse=st.booleans(),
    unroll=st.sampled_from([1, 3, 9]),
)
def test_against_a_loop(method, cell, seed, time, reverse, unroll):
    batch = 3
    params, xs, carry0, _ = as_jax(random_problem(cell, batch, time, 2, 3, "float32", seed))
    rng = np.random.default_rng(seed)
    lengths = jnp.asarray(rng.integers(0, time + 1, batch), jnp.int32)
    resets = jnp.asarray(rng.random((batch, time)) < 0.3)
    padding = np.arange(time)[None, :] >= np.asarray(lengths)[:, None]
    poisoned = broken(xs, padding)
    out = gru_jax.unroll(
        cell, params, poisoned, carry0, lengths=lengths, resets=resets, reverse=reverse, unroll=unroll, method=method
    )
    hs, carry = by_loop(cell, params, xs, carry0, lengths, resets, reverse)
    np.testing.assert_allclose(out.hs, hs, rtol=1e-5, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), out.carry, carry)
    assert (np.asarray(out.hs)[padding] == 0).all()
    assert out.finite.shape == (batch, time)
    assert out.finite.all()


@pytest.mark.parametrize(("method", "cell"), PAIRS)
def test_nan_in_the_padding_harms_no_gradient(method, cell):
    params, xs, carry0, weight = as_jax(random_problem(cell, 3, 6, 2, 4, "float32", 0))
    lengths = jnp.array([0, 4, 6])
    padding = np.arange(6)[None, :] >= np.asarray(lengths)[:, None]

    def loss(params, xs, carry0):
        out = gru_jax.unroll(cell, params, xs, carry0, lengths=lengths, method=method)
        return (out.hs * weight).sum() + cell.hidden(out.carry).sum()

    clean = jax.grad(loss, argnums=(0, 1, 2))(params, xs, carry0)
    dirty = jax.grad(loss, argnums=(0, 1, 2))(params, broken(xs, padding), carry0)
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)
    assert (np.asarray(clean[1])[padding] == 0).all()


@pytest.mark.parametrize(("method", "cell"), PAIRS)
def test_reverse_is_flipping(method, cell):
    params, xs, carry0, _ = as_jax(random_problem(cell, 2, 7, 3, 4, "float32", 1))
    resets = jnp.asarray(np.random.default_rng(0).random((2, 7)) < 0.3)
    there = gru_jax.unroll(cell, params, xs, carry0, resets=resets, reverse=True, method=method)
    back = gru_jax.unroll(cell, params, xs[:, ::-1], carry0, resets=resets[:, ::-1], method=method)
    np.testing.assert_allclose(there.hs, back.hs[:, ::-1], rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), there.carry, back.carry)


@pytest.mark.parametrize(("method", "cell"), PAIRS)
def test_packed_sequences_are_separate(method, cell, x64):
    params, xs, _, _ = as_jax(random_problem(cell, 1, 9, 3, 4, "float64", 1))
    resets = jnp.zeros((1, 9), bool).at[0, 4].set(True)
    packed = gru_jax.unroll(cell, params, xs, resets=resets, method=method)
    second = gru_jax.unroll(cell, params, xs[:, 4:], method=method)
    np.testing.assert_allclose(packed.hs[:, 4:], second.hs, rtol=1e-6)


@pytest.mark.parametrize(
    ("method", "cell"),
    [
        pytest.param(method, cell, marks=() if method == "fast" and cell == GRU() else pytest.mark.slow)
        for cell in CELLS
        for method in METHODS
    ],
    ids=str,
)
def test_transformations_agree(method, cell, x64):
    params, xs, carry0, weight = as_jax(random_problem(cell, 2, 5, 2, 3, "float64", 3))
    lengths = jnp.array([3, 5])

    def loss(params, xs):
        return (gru_jax.unroll(cell, params, xs, carry0, lengths=lengths, method=method).hs * weight).sum()

    loss = jax.jit(loss)
    reverse = jax.grad(loss)(params, xs)
    direction = jax.tree.map(jnp.cos, params)
    _, forward = jax.jvp(lambda p: loss(p, xs), (params,), (direction,))
    step = 1e-6
    moved = [loss(jax.tree.map(lambda p, d, s=s: p + s * d, params, direction), xs) for s in (step, -step)]
    along = sum(jnp.vdot(g, d) for g, d in zip(*map(jax.tree.leaves, (reverse, direction)), strict=True))
    np.testing.assert_allclose(forward, along, rtol=1e-12)
    np.testing.assert_allclose((moved[0] - moved[1]) / (2 * step), along, rtol=1e-7)
    each = jax.vmap(jax.grad(loss), in_axes=(None, 0))(params, jnp.stack([xs, 2 * xs]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[0], b, rtol=1e-10, atol=1e-12), each, reverse)
    # Hessian-vector product, both ways round
    hvp = jax.jvp(lambda p: jax.grad(loss)(p, xs), (params,), (direction,))[1]
    pvh = jax.grad(lambda p: jax.jvp(lambda q: loss(q, xs), (p,), (direction,))[1])(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10), hvp, pvh)


@pytest.mark.parametrize(("method", "cell"), PAIRS)
def test_half_precision_carries_float32(method, cell):
    params, xs, carry0, _ = as_jax(random_problem(cell, 2, 5, 3, 8, "float32", 1))
    half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), carry0)
    out = gru_jax.unroll(cell, params, xs.astype(jnp.bfloat16), half, method=method)
    assert out.hs.dtype == jnp.bfloat16
    assert {part.dtype for part in jax.tree.leaves(out.carry)} == {jnp.dtype(jnp.float32)}
    np.testing.assert_allclose(
        out.hs.astype(jnp.float32), gru_jax.unroll(cell, params, xs, carry0, method=method).hs, atol=0.1
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.usefixtures("single_precision")
def test_finite_flags_tell_where(method, without_alarms):
    cell = Elman("relu")
    params = cell.init(jax.random.key(0), 1, 2, gru_jax.Scheme(recurrent="identity", recurrent_scale=1e20))
    out = gru_jax.unroll(cell, params, jnp.ones((2, 5, 1)) * jnp.array([0.0, 1.0])[:, None, None], method=method)
    assert out.finite[0].all()
    assert out.finite[1].tolist() == [True, True, False, False, False]


@pytest.mark.parametrize("method", METHODS)
def test_perturbation_gives_the_adjoint(method, x64):
    for cell in CELLS:
        params, xs, carry0, weight = as_jax(random_problem(cell, 2, 4, 2, 3, "float64", 5))

        @jax.jit
        def loss(perturbation, cell=cell, params=params, xs=xs, carry0=carry0, weight=weight):
            hs = gru_jax.unroll(cell, params, xs, carry0, perturbation=perturbation, method=method).hs
            return (jnp.tanh(hs) * weight).sum()

        adjoint = jax.grad(loss)(jnp.zeros((2, 4, 3)))
        step = 1e-6
        for b, t, i in ((0, 0, 0), (1, 2, 1), (0, 3, 2)):
            unit = jnp.zeros((2, 4, 3)).at[b, t, i].set(step)
            np.testing.assert_allclose(adjoint[b, t, i], (loss(unit) - loss(-unit)) / (2 * step), rtol=1e-6, atol=1e-9)


GOOD = {
    "cell": GRU(),
    "params": GRU().init(jax.random.key(0), 2, 3, dtype=jnp.float32),
    "xs": jnp.zeros((4, 5, 2), jnp.float32),
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"xs": jnp.zeros((5, 2))}, ("xs", "(5, 2)", "[B, T, D]")),
        ({"xs": jnp.zeros((4, 5, 3))}, ("xs", "3 features", "D=2")),
        ({"xs": jnp.zeros((4, 5, 2), jnp.int32)}, ("int32", "float32")),
        ({"lengths": jnp.array([1, 2, 3, 6])}, ("lengths", "6", "0 to T=5")),
        ({"lengths": jnp.array([-1, 2, 3, 5])}, ("lengths", "-1")),
        ({"lengths": np.array([1, 2, 3, 2**40])}, ("lengths", str(2**40))),
        ({"lengths": jnp.array([1, 2, 3])}, ("lengths", "(3,)", "(4,)")),
        ({"lengths": jnp.ones(4, jnp.float32)}, ("lengths", "float32", "integer")),
        ({"resets": jnp.zeros((4, 4), bool)}, ("resets", "(4, 4)", "(4, 5)")),
        ({"resets": jnp.zeros((4, 5), jnp.float32)}, ("resets", "float32", "bool")),
        ({"carry0": jnp.zeros((4, 4))}, ("carry0", "(4, 4)", "(4, 3)")),
        ({"carry0": (jnp.zeros((4, 3)), jnp.zeros((4, 3)))}, ("carry0 is a tuple of 2: GRU carries one array",)),
        ({"carry0": jnp.zeros((4, 3), jnp.int32)}, ("carry0", "int32")),
        ({"lengths": [1, 2, 6, 3]}, ("lengths", "6", "0 to T=5")),
        ({"cell": LSTM()}, ("params", "LSTM", "W/f")),
        ({"cell": GRU("before")}, ("params", "another cell")),
        ({"perturbation": jnp.zeros((4, 5, 2))}, ("perturbation", "(4, 5, 3)")),
        ({"method": "fastest"}, ("method='fastest'", "auto, fast, reference", "'fast'")),
        ({"method": "reference", "chunk": 16}, ("chunk=16", "reference", "None")),
        ({"method": "reference", "keep": "boundaries"}, ("keep='boundaries'", "reference", "'auto'")),
        ({"method": "reference", "layout": "fused"}, ("layout='fused'", "reference", "'auto'")),
        ({"keep": "boundary"}, ("keep='boundary'", "auto, states, gates, boundaries", "'boundaries'")),
        ({"layout": "split"}, ("layout='split'", "auto, separate, fused")),
        ({"chunk": 0}, ("chunk=0", "from 1")),
        ({"chunk": 2.5}, ("chunk=2.5", "from 1")),
        ({"unroll": 0}, ("unroll=0", "from 1")),
        ({"unroll": 1.5}, ("unroll=1.5",)),
    ],
)
@pytest.mark.usefixtures("single_precision")
def test_wrong_use_names_the_argument(change, words, unchecked_types):
    assert issubclass(UsageError, ValueError)
    with pytest.raises(UsageError) as raised:
        gru_jax.unroll(**{**GOOD, **change})
    assert all(word in str(raised.value) for word in words), str(raised.value)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64])
def test_any_integer_lengths(dtype, unchecked_types):
    xs = jnp.ones((2, 300, 2))
    out = gru_jax.unroll(GOOD["cell"], GOOD["params"], xs, lengths=np.array([200, 3], dtype))
    assert (np.abs(out.hs).sum(axis=-1) > 0).sum(axis=1).tolist() == [200, 3]


@pytest.mark.usefixtures("single_precision")
def test_arrays_of_other_orders_of_bytes_and_long_doubles(unchecked_types, jax_as_users_have_it):
    cell = GRU()
    params = cell.init(jax.random.key(0), 2, 3)
    xs, lengths = np.random.default_rng(0).normal(size=(2, 4, 2)).astype(np.float32), np.array([4, 2])
    plain = gru_jax.unroll(cell, params, xs, lengths=lengths).hs
    for kind in (">f4", ">f8", np.longdouble):
        foreign = gru_jax.unroll(cell, params, xs.astype(kind), lengths=lengths.astype(">i4")).hs
        np.testing.assert_array_equal(foreign, plain)
