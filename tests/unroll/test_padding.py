"""Blocks of padding: nothing is computed in them, and nothing is another number."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax
from gru_jax.cells import GRU, LSTM
from gru_jax.unroll.blocked import backward, forward
from tests.broken import broken
from tests.programs import operations
from tests.unroll.test_fast import HOWS, agree, problem
from tests.unroll.toys import Toy

SIZE, HIDDEN = 3, 4
reversals = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])


def sequences(cell, time, batch=2):
    params = cell.init(jax.random.key(0), SIZE, HIDDEN, gru_jax.Scheme(bias="normal"))
    return params, jax.random.normal(jax.random.key(1), (batch, time, SIZE))


@pytest.fixture
def blocks_run(monkeypatch):
    """Counts the blocks that compiled programs run through, there and back."""
    counts = {"block_states": 0, "_against_time": 0}

    def counting(function):
        def counted():
            counts[function.__name__] += 1

        @functools.wraps(function)
        def wrapper(*args):
            jax.debug.callback(counted)
            return function(*args)

        return wrapper

    for module, name in ((forward, "block_states"), (backward, "_against_time")):
        monkeypatch.setattr(module, name, counting(getattr(module, name)))
    with jax.check_tracer_leaks(False):  # JAX itself leaks the tracers of a callback in a `cond` within a `scan`
        yield counts
    jax.clear_caches()  # of programs that count


@reversals
def test_only_blocks_with_steps_that_count_are_run(reverse, blocks_run):
    """Of six blocks, and a shorter one, those up to the longest sequence, and one in the middle of a mask."""
    params, xs = sequences(GRU(), time=20)

    @jax.jit
    def gradient(mask):
        def loss(params):
            return (gru_jax.unroll(GRU(), params, xs, mask=mask, reverse=reverse, chunk=3).hs ** 2).sum()

        return jax.grad(loss)(params)

    def run(*steps):
        before = dict(blocks_run)
        jax.block_until_ready(gradient(jnp.zeros((2, 20), bool).at[1, jnp.array(steps, int)].set(True)))
        jax.effects_barrier()
        return [blocks_run[name] - before[name] for name in blocks_run]

    assert run() == [0, 0]
    assert run(*range(5)) == [2, 2]
    assert run(10) == [1, 1]
    assert run(0, 19) == [2, 2]
    assert run(*range(20)) == [7, 7]


def test_under_vmap_a_block_is_run_where_any_row_needs_it(blocks_run):
    params, xs = sequences(GRU(), time=21, batch=3)

    def gradient(xs, length):
        def loss(params):
            return (gru_jax.unroll(GRU(), params, xs[None], lengths=length[None], chunk=3).hs ** 2).sum()

        return jax.grad(loss)(params)

    lengths = jnp.array([1, 8, 4])
    together = jax.block_until_ready(jax.jit(jax.vmap(gradient))(xs, lengths))
    jax.effects_barrier()
    assert list(blocks_run.values()) == [3, 3], "of seven"
    each = [gradient(*row) for row in zip(xs, lengths, strict=True)]
    agree(together, jax.tree.map(lambda *rows: jnp.stack(rows), *each), 1e-5)


@reversals
@pytest.mark.parametrize(
    ("cell", "keep"),
    [
        (GRU(), "gates"),
        *(
            pytest.param(cell, keep, marks=pytest.mark.slow)
            for cell, keep in [(LSTM(), "boundaries"), (GRU(), "states"), (Toy(), "gates"), (Toy(), "states")]
        ),
    ],
    ids=str,
)
def test_what_is_skipped_changes_no_bit(cell, keep, reverse, monkeypatch, without_alarms):
    """Of all that an unroll gives, and of its gradients in all operands, with NaN in the padding."""
    params, xs = sequences(cell, time=14)
    lengths = jnp.array([5, 2])
    padding = jnp.arange(14)[None] >= lengths[:, None]
    xs = broken(xs, padding)
    resets = (jnp.arange(14) % 4 == 3)[None] & jnp.array([[False], [True]])
    parts = [jax.random.normal(jax.random.key(i), (2, HIDDEN)) for i in range(2 * cell.carry_parts)]
    carries = [some[0] if len(some) == 1 else tuple(some) for some in (parts[::2], parts[1::2])]
    zero = tuple(jnp.zeros((2, 14, HIDDEN)) for _ in range(cell.carry_parts))

    def measure():
        def loss(params, xs, carry0, reset_carry, zero):
            out = gru_jax.unroll(
                cell, params, xs, carry0, lengths=lengths, resets=resets, reset_carry=reset_carry,
                perturbation=zero, reverse=reverse, chunk=3, keep=keep,
            )  # fmt: skip
            return jnp.sin(out.hs).sum() + sum((part**2).sum() for part in jax.tree.leaves(out.carry)), out

        with jax.disable_jit():  # compiled as a whole, what is left of a program would round in another way
            return jax.value_and_grad(loss, (0, 1, 2, 3, 4), has_aux=True)(params, xs, *carries, zero)

    (loss, out), gradients = measure()
    for module in (forward, backward):
        monkeypatch.setattr(module, "skip_padding", lambda chunks, valid, block, padding: block)
    jax.tree.map(np.testing.assert_array_equal, ((loss, out), gradients), measure())
    for per_step in (out.hs, gradients[1], *gradients[4]):
        assert not np.asarray(per_step)[np.asarray(padding)].any(), "zero in the padding"
    assert out.finite.all(), "the carry stands still"


@pytest.mark.parametrize("how", [HOWS[0], pytest.param(HOWS[1], marks=pytest.mark.slow)], ids=str)
def test_derivatives_of_every_kind(how, x64):
    """Through five blocks, the last two of them padding: forward, reverse, and both after the other."""
    (loss, params, xs), (slow, *_) = (
        problem(LSTM(), time=13, lengths=(7, 2), **options) for options in (how, {"method": "reference"})
    )
    direction = jax.tree.map(jnp.cos, params)

    def derivatives(loss):
        def along(p):
            return jax.jvp(lambda q: loss(q, xs), (p,), (direction,))[1]

        gradient = jax.grad(loss, (0, 1))
        return gradient(params, xs), along(params), jax.grad(along)(params), jax.jvp(
            lambda p: gradient(p, xs), (params,), (direction,)
        )[1]  # fmt: skip

    agree(jax.jit(lambda: derivatives(loss))(), jax.jit(lambda: derivatives(slow))(), 1e-10)
    with jax.disable_jit():
        agree(jax.grad(loss)(params, xs), jax.grad(slow)(params, xs), 1e-10)


@pytest.mark.usefixtures("with_jit")
def test_the_program_asks_only_where_there_can_be_padding():
    params, xs = sequences(GRU(), time=12)

    def conditions(**how):
        def loss(params):
            return gru_jax.unroll(GRU(), params, xs, **how).hs.sum()

        return len(operations(jax.jit(jax.grad(loss)).lower(params), "stablehlo.case"))

    lengths = jnp.array([4, 2])
    assert conditions(chunk=3) == 0
    assert conditions(chunk=12, lengths=lengths) == 0
    assert conditions(chunk=3, lengths=lengths) == 2, "one in each direction"
