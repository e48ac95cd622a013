"""Interventions in the gradient against what they say they do, written out step by step."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax
from gru_jax.cells import GRU, LSTM, Elman
from gru_jax.errors import UsageError
from gru_jax.unroll import Intervention
from tests.golden.peers import random_problem

BATCH, TIME, UNITS = 2, 7, 3
CELLS = [GRU(), GRU("before"), LSTM(), Elman()]
DIRECTED = [(cell, bool(i % 2)) for i, cell in enumerate(CELLS)]


def problem(cell, seed=0):
    return jax.tree.map(jnp.asarray, random_problem(cell, BATCH, TIME, 2, UNITS, "float64", seed))


def adjoints(cell, problem, intervention, reverse=False):
    """dL/ds_t of every part of the carry, under an intervention."""
    params, xs, carry, weight = problem

    def loss(perturbation):
        out = gru_jax.unroll(
            cell, params, xs, carry, reverse=reverse, perturbation=perturbation, intervention=intervention
        )
        return (jnp.sin(out.hs) * weight).sum()

    zeros = tuple(jnp.zeros((BATCH, TIME, UNITS)) for _ in range(cell.carry_parts))
    return [np.asarray(a) for a in jax.jit(jax.grad(loss))(zeros)]


def by_hand(cell, problem, alter, reverse=False):
    """The same by the recursion itself, with `alter(b, t, ct)` applied to what step t sends to the state before it."""
    params, xs, carry0, weight = problem
    wanted = np.zeros((cell.carry_parts, BATCH, TIME, UNITS))
    order = sorted(range(TIME), reverse=reverse)
    step = jax.jit(cell.step)
    pull = jax.jit(lambda carry, x, ct: jax.vjp(lambda c: cell.step(params, c, x), carry)[1](ct)[0])
    for b in range(BATCH):
        carries = [jax.tree.map(lambda a, b=b: a[b], carry0)]
        for t in order:
            carries.append(step(params, carries[-1], xs[b, t]))
        ct = jax.tree.map(jnp.zeros_like, carries[-1])
        for place in reversed(range(TIME)):
            t = order[place]
            after = carries[place + 1]
            ct = cell.with_hidden(ct, cell.hidden(ct) + jnp.cos(cell.hidden(after)) * weight[b, t])
            wanted[:, b, t] = np.stack(jax.tree.leaves(ct))
            ct = alter(b, place, pull(carries[place], xs[b, t], ct))
    return wanted


@pytest.mark.parametrize(("cell", "reverse"), DIRECTED, ids=str)
def test_clipping(cell, reverse, x64):
    clip = 0.3

    def alter(b, place, ct):
        norm = np.sqrt(sum(float((part**2).sum()) for part in jax.tree.leaves(ct)))
        return jax.tree.map(lambda part: part * min(1.0, clip / norm), ct)

    case = problem(cell)
    got = adjoints(cell, case, Intervention(clip=clip), reverse)
    np.testing.assert_allclose(got, by_hand(cell, case, alter, reverse), rtol=1e-12, atol=1e-14)
    plain = adjoints(cell, case, Intervention(), reverse)
    assert not np.allclose(got, plain, rtol=1e-3)
    np.testing.assert_allclose(adjoints(cell, case, Intervention(clip=1e9), reverse), plain, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_detaching_blocks_the_hidden_state_alone(cell, x64):
    mask = jnp.zeros((BATCH, TIME), bool).at[0, 2].set(True).at[1, 5].set(True)

    def alter(b, place, ct):
        return cell.with_hidden(ct, jnp.zeros(UNITS)) if mask[b, place] else ct

    case = problem(cell)
    got = adjoints(cell, case, Intervention(detach=mask))
    np.testing.assert_allclose(got, by_hand(cell, case, alter), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("cell", "reverse"), DIRECTED, ids=str)
def test_truncation_blocks_everything_every_so_many_steps(cell, reverse, x64):
    def alter(b, place, ct):
        return jax.tree.map(jnp.zeros_like, ct) if place and place % 3 == 0 else ct

    case = problem(cell)
    got = adjoints(cell, case, Intervention(truncate=3), reverse)
    np.testing.assert_allclose(got, by_hand(cell, case, alter, reverse), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("cell", "reverse"), [(GRU(), False), (LSTM(), True)], ids=str)
@pytest.mark.parametrize("kind", ["clip", "detach", "truncate"])
def test_the_padding_is_left_alone(cell, reverse, kind, x64):
    params, xs, carry, _ = problem(cell)
    mask = jax.random.bernoulli(jax.random.key(3), 0.4, (BATCH, TIME)).at[:, 5:].set(True)
    lengths = jnp.array([5, TIME])

    def gradient(rows, time):
        intervention = {"clip": Intervention(clip=0.1), "detach": Intervention(detach=mask[rows, :time]),
                        "truncate": Intervention(truncate=2)}[kind]  # fmt: skip

        def loss(xs):
            own = jax.tree.map(lambda a: a[rows], carry)
            out = gru_jax.unroll(
                cell, params, xs, own, lengths=jnp.minimum(lengths[rows], time), reverse=reverse,
                intervention=intervention,
            )  # fmt: skip
            return sum(jnp.sin(part).sum() for part in jax.tree.leaves(out.carry))

        return jax.jit(jax.grad(loss))(xs[rows, :time])

    padded = gradient(slice(None), TIME)
    for row, length in enumerate(lengths):
        alone = gradient(slice(row, row + 1), int(length))
        np.testing.assert_allclose(padded[row : row + 1, :length], alone, rtol=1e-12, atol=1e-15)
        assert np.any(alone != 0)


def test_the_forward_pass_does_not_change():
    params, xs, carry, _ = jax.tree.map(jnp.asarray, random_problem(LSTM(), BATCH, TIME, 2, UNITS, "float32", 0))
    plain = gru_jax.unroll(LSTM(), params, xs, carry, method="reference")
    mask = jnp.ones((BATCH, TIME), bool)
    other = gru_jax.unroll(LSTM(), params, xs, carry, intervention=Intervention(0.1, mask, 2))
    jax.tree.map(np.testing.assert_array_equal, plain, other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "fast", "intervention": Intervention(clip=1.0)}, "method='fast': it knows no interventions"),
        ({"intervention": Intervention(clip=0.0)}, "clip=0.0: allowed are numbers above 0"),
        ({"intervention": Intervention(truncate=0)}, "truncate=0: allowed are whole numbers from 1"),
        ({"intervention": Intervention(detach=jnp.ones((2, 3), bool))}, r"detach has shape \(2, 3\)"),
        (
            {"intervention": Intervention(detach=jnp.ones((BATCH, TIME), jnp.float32))},
            "detach has dtype float32: allowed is bool",
        ),
        ({"chunk": 3, "intervention": Intervention(clip=1.0)}, "chunk=3"),
    ],
)
@pytest.mark.usefixtures("single_precision")
def test_bad_interventions_are_named(changes, message, unchecked_types):
    params, xs, carry, _ = jax.tree.map(jnp.asarray, random_problem(GRU(), BATCH, TIME, 2, UNITS, "float32", 0))
    with pytest.raises(UsageError, match=message):
        gru_jax.unroll(GRU(), params, xs, carry, **changes)


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e19, 3e38])
@pytest.mark.usefixtures("single_precision")
def test_clipping_of_adjoints_of_any_size(size):
    """What is longer is cut to the length, with its direction, though its norm may be beyond float32."""
    params, xs, _, _ = jax.tree.map(jnp.asarray, random_problem(Elman("identity"), 1, 1, 2, UNITS, "float32", 0))
    params["U"]["n"] = jnp.eye(UNITS)
    direction = jnp.linspace(-1.0, 1.0, UNITS)[None]

    def adjoint(carry0):
        hs = gru_jax.unroll(Elman("identity"), params, xs, carry0, intervention=Intervention(clip=0.5)).hs
        return (hs[:, 0] * (size * direction)).sum()

    wanted = np.asarray(direction, np.float64) * size
    norm = np.linalg.norm(wanted)
    wanted *= min(1.0, 0.5 / norm)
    np.testing.assert_allclose(jax.grad(adjoint)(jnp.zeros((1, UNITS))), wanted, rtol=1e-5)
