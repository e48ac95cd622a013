"""Units with twins beside them: nothing but time depends on how many there are."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax
from gru_jax.cells import GRU, Cell
from gru_jax.unroll import dispatch
from tests.golden.peers import random_problem
from tests.unroll.test_fast import CELLS, Case, agree, value_and_gradients
from tests.unroll.toys import Toy

CASE = Case(
    cell=GRU(), batch=3, time=11, input_size=2, hidden_size=4, chunk=4, keep="states", layout="separate",
    reverse=False, lengths=True, resets=True, unroll=1, seed=0,
)  # fmt: skip


@pytest.fixture
def twins(monkeypatch):
    """Has so many twins made, whatever is chosen."""

    def make(count):
        monkeypatch.setattr(dispatch, "choose_units", lambda units, time: units + count)

    return make


@pytest.mark.parametrize("cell", CELLS, ids=str)
@pytest.mark.parametrize(
    ("count", "how"),
    [(1, {}), (4, {"keep": "gates", "layout": "fused"}), (9, {"keep": "boundaries", "layout": "fused"})],
)
def test_values_and_gradients_are_those_without(cell, count, how, twins, x64):
    case = CASE._replace(cell=cell, reverse=count == 4)
    expected = value_and_gradients(case, "float64", "reference")
    twins(count)
    agree(value_and_gradients(case, "float64", "fast", chunk=case.chunk, **how), expected, 1e-11)


def test_masks_carries_and_forward_mode_too(twins, x64):
    cell = Toy()
    params, xs, carry0, weight = jax.tree.map(jnp.asarray, random_problem(cell, 3, 11, 2, 4, "float64", 1))
    rng = np.random.default_rng(1)
    mask = jnp.asarray((rng.random((3, 1, 4)) < 0.7) / 0.7)
    resets = jnp.asarray(rng.random((3, 11)) < 0.3)
    to = jax.tree.map(lambda a: jnp.asarray(rng.standard_normal(a.shape[-1:])), carry0)

    def unrolled(params, xs, carry0, to):
        out = gru_jax.unroll(cell, params, xs, carry0, resets=resets, reset_carry=to, recurrent_mask=mask)
        return out.hs * weight, out.carry

    arguments = params, xs, carry0, to
    tangents = jax.tree.map(lambda a: jnp.asarray(rng.standard_normal(a.shape)), arguments)

    def derivatives():
        out, back = jax.vjp(unrolled, *arguments)
        return jax.jvp(unrolled, arguments, tangents), back(out)

    expected = derivatives()
    twins(4)
    together = derivatives()
    agree(together, expected, 1e-11)


@dataclasses.dataclass(frozen=True)
class Scaled(Cell):
    """h' = tanh(u / s) with a vector s, which is not zero: a unit of zeros alone would hold no number."""

    input_gates = ("n",)
    recurrent_gates = ("n",)
    vectors = ("s",)

    def initial_vector(self, name, key, hidden_size):
        """See the class."""
        return 1.0 + jax.random.uniform(key, hidden_size)

    def equations(self, dense, carry, u):
        """See the class."""
        n = jnp.tanh((u["n"] + dense("n", carry)) / u["s"])
        return n, {"n": n}


def test_twins_are_as_finite_as_their_units(twins):
    params = Scaled().init(jax.random.key(0), 2, 3)
    xs = jax.random.normal(jax.random.key(1), (4, 5, 2))

    def loss(params):
        out = gru_jax.unroll(Scaled(), params, xs)
        return (out.hs**2).mean(), out.finite

    expected = jax.value_and_grad(loss, has_aux=True)(params)
    twins(5)
    (value, finite), gradient = jax.value_and_grad(loss, has_aux=True)(params)
    assert finite.all()
    agree((value, gradient), (expected[0][0], expected[1]), 1e-6)
