"""Steps as inputs arrive are the unroll, in few products."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax
from gru_jax.cells import GRU, LSTM, LayerNormGRU, MinGRU, RefineGRU
from gru_jax.errors import UsageError
from tests.programs import operations


@pytest.mark.parametrize(
    "cell", [GRU(), GRU("before", "write"), LSTM(), RefineGRU(), MinGRU(), LayerNormGRU()], ids=str
)
def test_one_after_the_other_is_the_whole(cell):
    params = cell.init(jax.random.key(0), 3, 4, gru_jax.Scheme(bias="normal"))
    xs = jax.random.normal(jax.random.key(1), (2, 5, 3))
    step, carry = gru_jax.streaming_step(cell, params), cell.initial_carry((2,), 4)
    for x in xs.swapaxes(0, 1):
        carry = step(carry, x)
    wanted = gru_jax.unroll(cell, params, xs).carry
    for one, other in zip(jax.tree.leaves(carry), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("cell", "products"), [(GRU(), 2), (GRU("before"), 3), (LSTM(), 2)], ids=str)
@pytest.mark.usefixtures("with_jit")
def test_products_of_one_vector_are_one(cell, products):
    step = gru_jax.streaming_step(cell, cell.init(jax.random.key(0), 3, 4))
    lowered = step.lower(cell.initial_carry((1,), 4), jnp.ones((1, 3)))
    assert len(operations(lowered, "stablehlo.dot_general")) == products


def test_wrong_use_is_one_line(unchecked_types):
    step = gru_jax.streaming_step(GRU(), GRU().init(jax.random.key(0), 3, 4))
    with pytest.raises(UsageError, match="carry"):
        step(jnp.zeros((1, 5)), jnp.ones((1, 3)))
    with pytest.raises(UsageError, match="x has 2 features"):
        step(jnp.zeros((1, 4)), jnp.ones((1, 2)))
