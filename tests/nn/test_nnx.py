"""Layers and models inside programs of Flax NNX: its transforms, its optimiser, its displays, its randomness."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from gru_jax.cells import GRU, LSTM, LayerNormGRU
from gru_jax.errors import UsageError
from gru_jax.nn import Bidirectional, Recurrent, SequenceModel, Stack, functional
from tests import lenient

BATCH, TIME, SIZE = 4, 6, 5
LENGTHS = jnp.array([2, 6, 4, 0])
PADDING = np.arange(TIME)[None, :] >= np.asarray(LENGTHS)[:, None]
XS = jnp.where(PADDING[..., None], jnp.nan, jax.random.normal(jax.random.key(7), (BATCH, TIME, SIZE)))

CELLS = (GRU(), LSTM(), LayerNormGRU())
cells = pytest.mark.parametrize("cell", CELLS, ids=str)
# Every cell forward, one in both directions; the others in both repeat it.
cells_and_directions = pytest.mark.parametrize(
    ("cell", "bidirectional"),
    [(cell, False) for cell in CELLS]
    + [pytest.param(cell, True, marks=[] if cell == GRU() else pytest.mark.slow) for cell in CELLS],
    ids=str,
)


def build(cell, bidirectional, rngs, **kwargs):
    return SequenceModel(cell, SIZE, (4, 3), 2, bidirectional=bidirectional, rngs=rngs, **kwargs)


def loss(model):
    return (model(XS, lengths=LENGTHS) ** 2).sum()


def assert_close(ours, theirs):
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@cells_and_directions
def test_jit_grad_and_remat_are_the_pure_functions(cell, bidirectional):
    pure = functional(lambda rngs: build(cell, bidirectional, rngs))
    params = pure.init(jax.random.key(0))
    model = build(cell, bidirectional, nnx.Rngs(params=jax.random.key(0)))
    wanted = jax.grad(lambda params: (pure.apply(params, XS, lengths=LENGTHS).outputs ** 2).sum())(params)
    assert all(np.isfinite(leaf).all() and np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(wanted))
    assert_close(nnx.jit(loss)(model), loss(model))
    assert_close(nnx.to_pure_dict(nnx.grad(loss)(model)), wanted)
    assert_close(nnx.to_pure_dict(nnx.jit(nnx.grad(nnx.remat(loss)))(model)), wanted)


@cells_and_directions
def test_optimizer_brings_the_loss_down(cell, bidirectional):
    model = build(cell, bidirectional, nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(3e-2), wrt=nnx.Param)
    before = loss(model)

    @nnx.jit
    def step(model, optimizer):
        optimizer.update(model, nnx.grad(loss)(model))

    with lenient.jax_as_users_have_it():  # optax' Adam raises a float to an integer power
        for _ in range(20):
            step(model, optimizer)
    assert loss(model) < before / 2


@cells_and_directions
def test_vmap_makes_and_runs_several_models(cell, bidirectional):
    @nnx.split_rngs(splits=3)
    @nnx.vmap
    def several(rngs):
        return build(cell, bidirectional, rngs)

    outputs = nnx.vmap(lambda model: model(XS, lengths=LENGTHS))(several(nnx.Rngs(0)))
    assert outputs.shape == (3, BATCH, 2)
    assert not np.allclose(outputs[0], outputs[1])
    assert np.isfinite(outputs).all()


@cells_and_directions
def test_scan_over_layers_is_one_after_the_other(cell, bidirectional):
    size = SIZE * (2 if bidirectional else 1)
    layer = Bidirectional if bidirectional else Recurrent
    inputs = jnp.concatenate([XS, XS], axis=-1) if bidirectional else XS

    @nnx.split_rngs(splits=3)
    @nnx.vmap
    def several(rngs):
        return layer(cell, size, SIZE, rngs=rngs)

    layers = several(nnx.Rngs(0))
    run = nnx.scan(lambda xs, layer: layer(xs, lengths=LENGTHS), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
    graph, state = nnx.split(layers)
    wanted = inputs
    for i in range(3):
        wanted = nnx.merge(graph, jax.tree.map(lambda leaf, i=i: leaf[i], state))(wanted, lengths=LENGTHS)
    assert_close(run(inputs, layers), wanted)


@cells_and_directions
def test_display_and_tabulate(cell, bidirectional, capsys):
    model = build(cell, bidirectional, nnx.Rngs(0), dropout=0.5)
    table = nnx.tabulate(model, XS, lengths=LENGTHS)
    assert "SequenceModel" in table
    assert "stack" in table
    nnx.display(model)
    assert "SequenceModel" in capsys.readouterr().out


@cells_and_directions
def test_state_goes_on(cell, bidirectional):
    layers = [
        (Bidirectional if bidirectional else Recurrent)(cell, SIZE, 3, rngs=nnx.Rngs(0)),
        Stack(cell, SIZE, (4, 3), bidirectional=bidirectional, rngs=nnx.Rngs(0)),
        build(cell, bidirectional, nnx.Rngs(0)),
    ]
    for layer in layers:
        outputs, carry = nnx.jit(lambda layer, xs: layer(xs, return_state=True))(layer, XS[1:2])
        np.testing.assert_allclose(layer(XS[1:2]), outputs, atol=1e-6)
        after, _ = layer(XS[1:2], carry, return_state=True)
        assert not np.allclose(after, outputs, atol=1e-4)
        assert_close(layer(XS[1:2], jax.tree.map(jnp.zeros_like, carry)), outputs)


@cells
def test_a_sequence_in_pieces_is_the_whole(cell):
    whole = jax.random.normal(jax.random.key(2), (BATCH, TIME, SIZE))
    layers = (Recurrent(cell, SIZE, 3, rngs=nnx.Rngs(0)), Stack(cell, SIZE, (4, 3), rngs=nnx.Rngs(0)))
    for layer in (*layers, build(cell, False, nnx.Rngs(0), readout="every")):
        first, carry = layer(whole[:, :2], return_state=True)
        second, carry = layer(whole[:, 2:], carry, return_state=True)
        outputs, last = layer(whole, return_state=True)
        assert_close((jnp.concatenate([first, second], axis=1), carry), (outputs, last))


def test_dropout_draws_from_its_stream():
    model = build(GRU(), False, nnx.Rngs(params=0, dropout=1), dropout=0.5)
    twin = build(GRU(), False, nnx.Rngs(params=0, dropout=1), dropout=0.5)
    plain = build(GRU(), False, nnx.Rngs(params=0))
    run = nnx.jit(lambda model: model(XS, lengths=LENGTHS))
    first, second = run(model), run(model)
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(run(twin), first)
    model.eval()
    np.testing.assert_allclose(run(model), run(plain), atol=1e-6)
    np.testing.assert_array_equal(run(model), run(model))
    model.train()
    assert not np.allclose(run(model), run(plain))


def test_dropout_without_a_stream_says_so():
    model = build(GRU(), False, nnx.Rngs(params=0), dropout=0.5)
    with pytest.raises(UsageError, match=r"dropout=0.5: there is no stream dropout"):
        model(XS, lengths=LENGTHS)
    model.eval()
    assert np.isfinite(model(XS, lengths=LENGTHS)).all()
    keyed = build(GRU(), False, nnx.Rngs(0), dropout=0.5)(XS, lengths=LENGTHS, dropout_key=jax.random.key(3))
    assert np.isfinite(keyed).all()


def test_inside_a_foreign_model():
    model = nnx.Sequential(Recurrent(GRU(), SIZE, 4, rngs=nnx.Rngs(0)), nnx.Linear(4, 2, rngs=nnx.Rngs(1)))
    assert model(jnp.ones((BATCH, TIME, SIZE))).shape == (BATCH, TIME, 2)
    both = nnx.Sequential(Bidirectional(LSTM(), SIZE, 4, rngs=nnx.Rngs(0)), Stack(GRU(), 8, (3,), rngs=nnx.Rngs(1)))
    assert both(jnp.ones((BATCH, TIME, SIZE))).shape == (BATCH, TIME, 3)


class WithNoise(SequenceModel):
    """A family with a dropout of its own before the head."""

    def __init__(self, *args, rngs, **kwargs):
        super().__init__(*args, rngs=rngs, **kwargs)
        self.noise = nnx.Dropout(0.5, rngs=rngs)

    def trace(self, xs, **kwargs):
        return super().trace(self.noise(xs), **kwargs)


def test_randomness_of_a_family_of_ones_own_follows_the_key():
    def noisy(rngs):
        return WithNoise(GRU(), SIZE, (4,), 2, rngs=rngs)

    model, xs = functional(noisy), jnp.ones((BATCH, TIME, SIZE))
    params = model.init(jax.random.key(0))
    assert model.is_random
    assert not functional(lambda rngs: build(GRU(), False, rngs)).is_random
    run = jax.jit(lambda key: model.apply(params, xs, dropout_key=key).outputs)
    keys = jax.random.split(jax.random.key(1), 2)
    np.testing.assert_array_equal(run(keys[0]), run(keys[0]))
    assert not np.allclose(run(keys[0]), run(keys[1]))
    np.testing.assert_array_equal(model.apply(params, xs).outputs, model.apply(params, xs).outputs)
    np.testing.assert_allclose(jax.vmap(run)(keys), jnp.stack([run(key) for key in keys]), atol=1e-6)


def test_variables_that_are_no_parameters_are_refused():
    class Normalised(SequenceModel):
        def __init__(self, *args, rngs, **kwargs):
            super().__init__(*args, rngs=rngs, **kwargs)
            self.norm = nnx.BatchNorm(SIZE, rngs=rngs)

    with pytest.raises(UsageError, match=r"Normalised: has variables of kind BatchStat; allowed are Param alone"):
        functional(lambda rngs: Normalised(GRU(), SIZE, (4,), 2, rngs=rngs))
