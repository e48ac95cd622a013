"""Steps that do not count, wherever they are, and resets to a state other than zeros."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

import gru_jax
from gru_jax import flow
from gru_jax.cells import GRU, LSTM, LayerNormGRU
from gru_jax.errors import UsageError
from gru_jax.nn import Bidirectional, Recurrent, SequenceModel
from tests.broken import broken

TIME, SIZE, HIDDEN = 7, 3, 4
CELLS = (GRU(), GRU("before", "write"), LSTM(), LayerNormGRU())
cells = pytest.mark.parametrize(
    "cell", [CELLS[0], *(pytest.param(c, marks=pytest.mark.slow) for c in CELLS[1:])], ids=str
)
masks = st.lists(st.lists(st.booleans(), min_size=TIME, max_size=TIME), min_size=2, max_size=2)
METHODS = {True: ("fast", "reference"), False: ("reference",)}


def problem(cell, batch=2, time=TIME):
    params = cell.init(jax.random.key(0), SIZE, HIDDEN, gru_jax.Scheme(bias="normal", bias_scale=0.5))
    return params, jax.random.normal(jax.random.key(1), (batch, time, SIZE))


def of_counting_steps(cell, params, xs, mask):
    """Of the steps that count alone, moved to the front: their states where they belong, and the last carry."""
    order = jnp.argsort(~mask, axis=1, stable=True)
    front = jnp.take_along_axis(xs, order[..., None], axis=1)
    unrolled = gru_jax.unroll(cell, params, front, lengths=mask.sum(axis=1, dtype=jnp.int32), method="reference")
    place = jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0)
    return jnp.where(mask[..., None], jnp.take_along_axis(unrolled.hs, place[..., None], axis=1), 0), unrolled.carry


@functools.partial(jax.jit, static_argnames=("cell", "method", "reverse", "chunk"))
def measure_masked(cell, params, xs, mask, method, reverse, chunk=None):
    """A loss of states and carry, its gradients, and what it is of; `method` is one of ours, or the way above."""

    def loss(params, xs):
        if method == "moved":
            order = slice(None, None, -1) if reverse else slice(None)
            hs, carry = of_counting_steps(cell, params, xs[:, order], mask[:, order])
            hs = hs[:, order]
        else:
            unrolled = gru_jax.unroll(cell, params, xs, mask=mask, reverse=reverse, method=method, chunk=chunk)
            hs, carry = unrolled.hs, unrolled.carry
        return (hs**2).sum() + sum(jnp.sin(part).sum() for part in jax.tree.leaves(carry)), (hs, carry)

    return jax.value_and_grad(loss, (0, 1), has_aux=True)(params, xs)


@cells
@given(mask=masks, reverse=st.booleans(), chunk=st.sampled_from([1, 3, TIME]))
def test_a_mask_is_the_sequence_of_the_steps_that_count(cell, mask, reverse, chunk):
    params, xs = problem(cell)
    mask = jnp.array(mask)
    with_gaps = broken(xs, ~mask)
    expected = measure_masked(cell, params, xs, mask, "moved", reverse)
    for method in METHODS[cell.affine]:
        found = measure_masked(cell, params, with_gaps, mask, method, reverse, chunk if method == "fast" else None)
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-6)


def test_a_mask_and_lengths_both_have_to_allow_a_step():
    params, xs = problem(GRU())
    mask = jnp.array([[False, True, True, False, True, True, True], [True] * TIME])
    both = gru_jax.unroll(GRU(), params, xs, mask=mask, lengths=jnp.array([5, 2]))
    one = gru_jax.unroll(GRU(), params, xs, mask=mask & (jnp.arange(TIME)[None] < jnp.array([[5], [2]])))
    np.testing.assert_array_equal(both.hs, one.hs)
    np.testing.assert_array_equal(both.carry, one.carry)


@pytest.mark.parametrize("layer", [Recurrent, Bidirectional])
@pytest.mark.usefixtures("single_precision")
def test_packed_sequences_with_gaps_are_the_sequences_by_themselves(layer):
    """Left padding, a gap before and within the second sequence, and marks in what does not count."""
    xs = jax.random.normal(jax.random.key(1), (1, 9, SIZE))
    counts = jnp.array([[0, 1, 1, 0, 0, 1, 0, 1, 0]], bool)
    resets = jnp.array([[1, 1, 0, 0, 1, 1, 1, 0, 1]], bool)
    net = layer(LSTM(), SIZE, HIDDEN, rngs=nnx.Rngs(0))
    packed = net(broken(xs, ~counts), mask=counts, resets=resets)
    for steps in ([1, 2], [5, 7]):
        np.testing.assert_allclose(packed[:, steps], net(xs[:, np.array(steps)]), rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("single_precision")
def test_a_mark_in_the_padding_leaves_a_backward_layer_its_first_carry():
    xs, carry0 = jax.random.normal(jax.random.key(1), (1, 5, SIZE)), jnp.ones((1, HIDDEN))
    layer = Recurrent(GRU(), SIZE, HIDDEN, reverse=True, rngs=nnx.Rngs(0))
    marked = layer(xs, carry0, lengths=jnp.array([3]), resets=jnp.arange(5)[None] == 3)
    np.testing.assert_array_equal(marked, layer(xs, carry0, lengths=jnp.array([3])))


@pytest.mark.parametrize("readout", ["last", "mean"])
@pytest.mark.usefixtures("single_precision")
def test_readouts_of_left_padding(readout):
    model = SequenceModel(GRU(), SIZE, (HIDDEN,), 4, readout=readout, bidirectional=True, rngs=nnx.Rngs(0))
    xs = jax.random.normal(jax.random.key(1), (2, 5, SIZE))
    mask = jnp.broadcast_to(jnp.arange(8) >= 3, (2, 8))
    left = broken(jnp.concatenate([jnp.zeros((2, 3, SIZE)), xs], axis=1), ~mask)
    np.testing.assert_allclose(model(left, mask=mask), model(xs), rtol=1e-5, atol=1e-6)


def test_instruments_know_what_counts():
    """A trajectory of masked steps has the Jacobians, gates and exponents of the steps that count."""
    cell, counting = GRU(), np.array([1, 2, 4, 6])
    params, xs = problem(cell)
    mask = jnp.zeros((2, TIME), bool).at[:, counting].set(True)
    along = flow.Trajectory(broken(xs, ~mask), mask=mask)

    @jax.jit
    def measure(along):
        return flow.jacobians(cell, params, along).dense(), flow.lyapunov_spectrum(cell, params, along).exponents

    (dense, exponents), (wanted, wanted_exponents) = measure(along), measure(xs[:, counting])
    np.testing.assert_allclose(dense[:, counting], wanted, atol=1e-6)
    np.testing.assert_array_equal(dense[:, 0], np.broadcast_to(np.eye(HIDDEN), (2, HIDDEN, HIDDEN)))
    np.testing.assert_allclose(exponents, wanted_exponents, atol=1e-5)


@cells
@pytest.mark.parametrize("each", [False, True], ids=["one for all", "one for each sequence"])
def test_resets_to_a_state(cell, each):
    """Two packed sequences are each by itself from that state; gradients go to it; no mark acts where none counts."""
    params, xs = problem(cell)
    resets = jnp.zeros((2, TIME), bool).at[:, jnp.array([0, 4, 6])].set(True)
    mask = jnp.ones((2, TIME), bool).at[:, 6].set(False)
    shape = (2, HIDDEN) if each else (HIDDEN,)
    parts = [jax.random.normal(jax.random.key(i), shape) for i in range(cell.carry_parts)]
    state = parts[0] if cell.carry_parts == 1 else tuple(parts)

    def apart(params, state):
        start = jax.tree.map(lambda part: jnp.broadcast_to(part, (2, HIDDEN)), state)
        first, second = (
            gru_jax.unroll(cell, params, xs[:, a:b], start, method="reference").hs for a, b in ((0, 4), (4, 6))
        )
        return jnp.concatenate([first, second, jnp.zeros((2, 1, HIDDEN))], axis=1)

    def measure(run):
        def loss(params, state):
            hs = run(params, state)
            return jnp.sin(hs).sum(), hs

        derivative = jax.jvp(lambda state: run(params, state), (state,), (state,))[1]
        return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(params, state), derivative

    expected = measure(apart)
    for method in METHODS[cell.affine]:
        options = {"chunk": 3} if method == "fast" else {}

        def packed(params, state, method=method, options=options):
            return gru_jax.unroll(
                cell, params, xs, mask=mask, resets=resets, reset_carry=state, method=method, **options
            ).hs

        for one, other in zip(jax.tree.leaves(measure(packed)), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-6)


def test_instruments_know_the_state_that_resets_set():
    params, xs = problem(GRU())
    resets = jnp.zeros((2, TIME), bool).at[:, 4].set(True)
    state = jnp.linspace(-0.5, 0.5, HIDDEN)
    along = flow.Trajectory(xs, resets=resets, reset_carry=state)
    gates = flow.gate_values(GRU(), params, along)
    second = flow.gate_values(GRU(), params, flow.Trajectory(xs[:, 4:], jnp.broadcast_to(state, (2, HIDDEN))))
    for name, values in second.items():
        np.testing.assert_allclose(gates[name][:, 4:], values, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"mask": jnp.ones((2, TIME), jnp.float32)}, "mask has dtype float32: allowed is bool"),
        ({"mask": jnp.ones(TIME, bool)}, "mask has shape (7,): allowed is (2, 7)"),
        ({"reset_carry": jnp.zeros(HIDDEN)}, "reset_carry: it is set where resets say; needed are resets"),
        ({"resets": jnp.ones((2, TIME), bool), "reset_carry": jnp.zeros(3)}, "allowed are (2, 4) and (4,)"),
        ({"resets": jnp.ones((2, TIME), bool), "reset_carry": (jnp.zeros(HIDDEN),)}, "reset_carry is a"),
        ({"resets": jnp.ones((2, TIME), bool), "reset_carry": jnp.zeros(HIDDEN, int)}, "reset_carry has dtype int"),
    ],
)
@pytest.mark.usefixtures("single_precision")
def test_what_does_not_fit_is_one_line(options, parts, unchecked_types):
    params, xs = problem(GRU())
    with pytest.raises(UsageError) as error:
        gru_jax.unroll(GRU(), params, xs, **options)
    assert parts in str(error.value)
    assert "\n" not in str(error.value)
