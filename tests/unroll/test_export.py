"""Programs that leave sizes open, for `jax.export`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import export

import gru_jax
from gru_jax.cells import GRU, LSTM, LayerNormGRU
from gru_jax.errors import UsageError
from gru_jax.nn import SequenceModel

# Types say that sizes are numbers, as for users they mostly are.
pytestmark = pytest.mark.usefixtures("with_jit", "unchecked_types")

SIZE, HIDDEN = 3, 4
OPEN = ("b, 5, 3", "4, t, 3", "b, t, 3")


def exported(function, sizes, *others, dtype=jnp.float32):
    """A function of `[B, T, D]` and of arrays `[B]` of some types, exported with these sizes."""
    shape = export.symbolic_shape(sizes)
    batch = [jax.ShapeDtypeStruct(shape[:1], other) for other in others]
    return export.export(jax.jit(function))(jax.ShapeDtypeStruct(shape, dtype), *batch)


@pytest.mark.parametrize(
    ("cell", "sizes"),
    [
        pytest.param(cell, sizes, marks=() if i == j else pytest.mark.slow)
        for i, sizes in enumerate(OPEN)
        for j, cell in enumerate((LSTM(), LayerNormGRU(), GRU()))
    ],
    ids=str,
)
def test_batch_and_time_may_be_open(cell, sizes, x64):
    """Values, with and without lengths, and gradients are those of the program that knows the sizes."""
    params = cell.init(jax.random.key(0), SIZE, HIDDEN, dtype=jnp.float64)
    xs, lengths = jax.random.normal(jax.random.key(1), (4, 5, SIZE), jnp.float64), jnp.array([5, 0, 3, 1], jnp.int32)

    def states(xs, lengths=None):
        return gru_jax.unroll(cell, params, xs, lengths=lengths).hs

    def gradient(xs, lengths):
        return jax.grad(lambda xs: jnp.square(states(xs, lengths)).sum())(xs)

    np.testing.assert_allclose(exported(states, sizes, dtype=xs.dtype).call(xs), states(xs), rtol=1e-12, atol=1e-13)
    for function in (states, gradient):
        found = exported(function, sizes, jnp.int32, dtype=xs.dtype).call(xs, lengths)
        np.testing.assert_allclose(found, function(xs, lengths), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("readout", ["last", "mean", "every"])
@pytest.mark.usefixtures("single_precision")
def test_a_model_of_open_sizes(readout):
    model = SequenceModel(GRU(), SIZE, (HIDDEN, 2), 2, readout=readout, bidirectional=True, rngs=nnx.Rngs(0))
    xs, lengths = jax.random.normal(jax.random.key(1), (4, 5, SIZE)), jnp.array([5, 2, 3, 1], jnp.int32)
    program = exported(lambda xs, lengths: model(xs, lengths=lengths), "b, t, 3", jnp.int32)
    np.testing.assert_allclose(program.call(xs, lengths), model(xs, lengths=lengths), atol=1e-6)


def test_blocks_need_a_known_number_of_steps():
    params = GRU().init(jax.random.key(0), SIZE, HIDDEN, dtype=jnp.float32)
    with pytest.raises(UsageError, match="method='fast': blocks need a known number of steps, not t; allowed are auto"):
        exported(lambda xs: gru_jax.unroll(GRU(), params, xs, method="fast").hs, "4, t, 3")
