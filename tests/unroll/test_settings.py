"""The core under settings of JAX that users turn on: nothing fails, and nothing is another number."""

from __future__ import annotations

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax
from gru_jax import flow
from gru_jax.cells import GRU, LSTM, LayerNormGRU
from tests.broken import broken

CELLS = (GRU(), LSTM(), LayerNormGRU())
BATCH, TIME, SIZE, HIDDEN = 4, 5, 3, 4
LENGTHS = jnp.array([3, 2, 0, 1])  # of five steps, in blocks of two the last of which is padding
cells = pytest.mark.parametrize("cell", CELLS, ids=lambda cell: type(cell).__name__)
methods = pytest.mark.parametrize("method", ["auto", "reference"])


def problem(cell, time=TIME):
    params = cell.init(jax.random.key(0), SIZE, HIDDEN)
    return params, jax.random.normal(jax.random.key(1), (BATCH, time, SIZE))


def in_blocks(cell, method):
    """Options that make several blocks of the few steps, where the method has any."""
    return {"method": method, "lengths": LENGTHS, **({"chunk": 2} if method == "auto" and cell.affine else {})}


@contextlib.contextmanager
def setting(name, value=True):
    before = getattr(jax.config, name)
    jax.config.update(name, value)
    try:
        yield
    finally:
        jax.config.update(name, before)


@cells
@methods
@pytest.mark.usefixtures("with_jit")
def test_no_tracer_leaks(cell, method):
    params, xs = problem(cell)

    def loss(params, xs):
        return (gru_jax.unroll(cell, params, xs, **in_blocks(cell, method)).hs ** 2).mean()

    wanted = jax.grad(loss)(params, xs)
    with jax.checking_leaks():
        gradient = jax.jit(jax.grad(loss))(params, xs)
        jax.jit(lambda p: jax.jvp(lambda p: loss(p, xs), (p,), (p,)))(params)
        jax.jit(jax.hessian(lambda xs: loss(params, xs)))(xs)
    for one, other in zip(jax.tree.leaves(gradient), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@cells
@methods
@pytest.mark.parametrize("name", ["jax_debug_nans", "jax_debug_infs"])
def test_what_stands_in_the_padding_is_no_alarm(cell, method, name):
    params, xs = problem(cell)
    bad = jnp.nan if name == "jax_debug_nans" else jnp.inf
    padded = broken(xs, np.arange(TIME)[None] >= np.asarray(LENGTHS)[:, None], bad)

    def loss(params, xs):
        return (gru_jax.unroll(cell, params, xs, **in_blocks(cell, method)).hs ** 2).mean()

    wanted = jax.value_and_grad(loss)(params, xs)
    with setting(name):
        found = jax.value_and_grad(loss)(params, padded)
        gates = flow.gate_values(cell, params, flow.Trajectory(padded, lengths=LENGTHS))
    assert all(np.isfinite(value).all() for value in gates.values())
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@cells
@methods
@pytest.mark.parametrize("time", [0, pytest.param(1, marks=pytest.mark.slow), TIME])
def test_without_jit(cell, method, time):
    params, xs = problem(cell, time)

    def loss(params, xs):
        unrolled = gru_jax.unroll(cell, params, xs, method=method)
        return (unrolled.hs**2).sum() + (cell.hidden(unrolled.carry) ** 2).sum()

    wanted = jax.value_and_grad(loss)(params, xs)
    with jax.disable_jit():
        found = jax.value_and_grad(loss)(params, xs)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@methods
def test_of_no_steps_the_carry_is_the_one_before(method):
    params, xs = problem(LSTM(), 0)
    carry0 = (jnp.ones((BATCH, HIDDEN)), 2 * jnp.ones((BATCH, HIDDEN)))
    unrolled = gru_jax.unroll(LSTM(), params, xs, carry0, method=method)
    assert unrolled.hs.shape == (BATCH, 0, HIDDEN)
    assert unrolled.finite.shape == (BATCH, 0)
    np.testing.assert_array_equal(unrolled.carry, carry0)
    gradient = jax.grad(lambda c: gru_jax.unroll(LSTM(), params, xs, c, method=method).carry[1].sum())(carry0)
    np.testing.assert_array_equal(gradient, (np.zeros_like(carry0[0]), np.ones_like(carry0[0])))


INSTRUMENTS_OF_PASSES = {
    "dense_jacobians": lambda cell, params, along: flow.dense_jacobians(cell, params, along),
    "gate_values": lambda cell, params, along: flow.gate_values(cell, params, along),
    "lyapunov_spectrum": lambda cell, params, along: flow.lyapunov_spectrum(cell, params, along, k=2).exponents,
    "push": lambda cell, params, along: flow.push(cell, params, along, jnp.eye(HIDDEN)).vectors,
    "pull": lambda cell, params, along: flow.pull(cell, params, along, jnp.eye(HIDDEN)).vectors,
}


@pytest.mark.parametrize("time", [0, 2])
@pytest.mark.parametrize("name", INSTRUMENTS_OF_PASSES)
def test_instruments_without_jit(name, time, without_alarms):
    """Of no steps too, of which a scan is refused without jit; an exponent of none is not known."""
    params, xs = problem(GRU(), time)
    wanted = INSTRUMENTS_OF_PASSES[name](GRU(), params, xs)
    with jax.disable_jit():
        got = INSTRUMENTS_OF_PASSES[name](GRU(), params, xs)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
