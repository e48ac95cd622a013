"""What recurrent products read is multiplied by a mask: dropout of the state where it is read."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gru_jax
from gru_jax.cells import GRU, LSTM
from gru_jax.errors import UsageError
from gru_jax.nn import Bidirectional
from tests.unroll.toys import Toy

BATCH, TIME, SIZE, HIDDEN = 3, 7, 2, 4
LENGTHS = jnp.array([7, 4, 0])
RESETS = jnp.zeros((BATCH, TIME), bool).at[0, 3].set(True)


def problem(cell):
    params = cell.init(jax.random.key(0), SIZE, HIDDEN, gru_jax.Scheme(bias="normal", bias_scale=0.5))
    xs, drawn = (jax.random.normal(jax.random.key(i), (BATCH, TIME, width)) for i, width in ((1, SIZE), (2, HIDDEN)))
    return params, xs, jnp.where(drawn > 0, 1.6, 0.0)


def loss_of(unrolled):
    return (unrolled.hs**2).sum() + sum(jnp.sin(part).sum() for part in jax.tree.leaves(unrolled.carry))


@functools.partial(jax.jit, static_argnames=("cell", "options"))
def measure(cell, params, xs, mask, options):
    def loss(params, xs):
        unrolled = gru_jax.unroll(
            cell, params, xs, lengths=LENGTHS, resets=RESETS, recurrent_mask=mask, **dict(options)
        )
        return loss_of(unrolled), unrolled.hs

    return jax.value_and_grad(loss, (0, 1), has_aux=True)(params, xs)


@functools.partial(jax.jit, static_argnames=("cell", "reverse"))
def measure_scaled(cell, params, xs, mask, reverse):
    """Each sequence by itself, with kernels of its own whose rows are multiplied by its mask."""

    def of_sequence(params, xs, mask, length, resets):
        kernels = {gate: kernel * mask[:, None] for gate, kernel in params["U"].items()}
        unrolled = gru_jax.unroll(
            cell, {**params, "U": kernels}, xs[None], lengths=length[None], resets=resets[None], reverse=reverse,
            method="reference",
        )  # fmt: skip
        return loss_of(unrolled), unrolled.hs[0]

    def loss(params, xs):
        losses, hs = jax.vmap(of_sequence, (None, 0, 0, 0, 0))(params, xs, mask, LENGTHS, RESETS)
        return losses.sum(), hs

    return jax.value_and_grad(loss, (0, 1), has_aux=True)(params, xs)


def assert_alike(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6), one, other)


@pytest.mark.parametrize("cell", [GRU("before"), pytest.param(LSTM(), marks=pytest.mark.slow), Toy()], ids=str)
def test_a_mask_of_a_sequence_is_a_factor_of_the_rows_of_its_kernels(cell):
    """By both methods, in both directions, of a block that is cut short, with padding and resets."""
    params, xs, masks = problem(cell)
    reverse = isinstance(cell, Toy)
    wanted = measure_scaled(cell, params, xs, masks[:, 0], reverse)
    for options in ({"method": "reference"}, {"method": "fast", "chunk": 3}):
        given = tuple({**options, "reverse": reverse}.items())
        assert_alike(measure(cell, params, xs, masks[:, :1], given), wanted)
    grads = wanted[1][0]["U"]
    assert all(np.abs(kernel).max() > 1e-3 for kernel in grads.values())


@pytest.mark.parametrize("keep", ["boundaries", pytest.param("gates", marks=pytest.mark.slow)])
def test_a_mask_of_every_step_is_the_same_by_both_methods(keep):
    cell = GRU()
    params, xs, masks = problem(cell)
    wanted = measure(cell, params, xs, masks, (("method", "reference"),))
    assert_alike(measure(cell, params, xs, masks, (("method", "fast"), ("chunk", 3), ("keep", keep))), wanted)
    of_sequence = measure(cell, params, xs, masks[:, :1], (("method", "reference"),))
    assert not np.allclose(wanted[0][1], of_sequence[0][1])


def test_forward_mode_agrees_with_reverse_mode():
    cell = GRU()
    params, xs, masks = problem(cell)
    change = jax.random.normal(jax.random.key(5), xs.shape)
    value, grads = measure(cell, params, xs, masks, (("method", "fast"), ("chunk", 3)))

    @jax.jit
    def forward(xs):
        unrolled = gru_jax.unroll(cell, params, xs, lengths=LENGTHS, resets=RESETS, recurrent_mask=masks, chunk=3)
        return loss_of(unrolled)

    np.testing.assert_allclose(jax.jvp(forward, (xs,), (change,)), (value[0], (grads[1] * change).sum()), rtol=1e-4)


@pytest.mark.usefixtures("single_precision")
def test_each_direction_has_its_half_of_a_mask():
    layer = Bidirectional(GRU(), SIZE, HIDDEN, rngs=nnx.Rngs(0))
    _, xs, masks = problem(GRU())
    both = jnp.concatenate([masks, 1 - masks], axis=-1)
    hs = layer.trace(xs, lengths=LENGTHS, recurrent_mask=both).hs
    halves = [
        part.trace(xs, lengths=LENGTHS, recurrent_mask=mask).hs
        for part, mask in ((layer.forward, masks), (layer.backward, 1 - masks))
    ]
    np.testing.assert_array_equal(hs, jnp.concatenate(halves, axis=-1))


def test_a_mask_that_does_not_fit_is_refused(unchecked_types):
    params, xs, masks = problem(GRU())
    with pytest.raises(UsageError, match=r"recurrent_mask has shape \(3, 2, 4\): allowed is \(3, 7, 4\)"):
        gru_jax.unroll(GRU(), params, xs, recurrent_mask=masks[:, :2])
    with pytest.raises(UsageError, match="recurrent_mask has dtype bool: allowed are floating types"):
        gru_jax.unroll(GRU(), params, xs, recurrent_mask=masks > 0)
