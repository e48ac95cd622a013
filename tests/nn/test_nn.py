"""Layers and models: shapes, masks, directions, dropout, and the split into pure functions."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gru_jax
from gru_jax.cells import GRU, LSTM
from gru_jax.errors import UsageError
from gru_jax.nn import Bidirectional, Recurrent, SequenceModel, Stack, functional
from gru_jax.nn.layers import BothCarries

XS = jax.random.normal(jax.random.key(7), (3, 6, 2))
LENGTHS = jnp.array([2, 6, 4])
PADDING = np.arange(6)[None, :] >= np.asarray(LENGTHS)[:, None]


def rngs(seed=0):
    return nnx.Rngs(params=jax.random.key(seed))


@pytest.mark.parametrize("cell", [GRU(), LSTM()], ids=str)
def test_layer_is_the_unroll(cell):
    layer = Recurrent(cell, 2, 5, scheme=gru_jax.Scheme(gate_bias="chrono", t_max=50.0), rngs=rngs())
    out, wanted = layer.trace(XS, lengths=LENGTHS), gru_jax.unroll(cell, layer.params, XS, lengths=LENGTHS)
    jax.tree.map(np.testing.assert_array_equal, out, wanted)
    assert layer.params.keys() == cell.init(jax.random.key(0), 2, 5).keys()


@pytest.mark.parametrize("cell", [GRU(), LSTM()], ids=str)
def test_bidirectional_is_two_layers(cell):
    layer = Bidirectional(cell, 2, 5, rngs=rngs())
    out = layer.trace(XS, lengths=LENGTHS)
    assert out.hs.shape == (3, 6, 10)
    for b, length in enumerate(LENGTHS.tolist()):
        x = XS[b : b + 1, :length]
        there = gru_jax.unroll(cell, layer.forward.params, x)
        back = gru_jax.unroll(cell, layer.backward.params, x[:, ::-1])
        np.testing.assert_allclose(out.hs[b, :length, :5], there.hs[0], atol=1e-6)
        np.testing.assert_allclose(out.hs[b, :length, 5:], back.hs[0, ::-1], atol=1e-6)
        wanted = np.concatenate([cell.hidden(there.carry)[0], cell.hidden(back.carry)[0]])
        np.testing.assert_allclose(layer.final_state(out)[b], wanted, atol=1e-6)
    assert not np.allclose(layer.forward.params["W"]["n"], layer.backward.params["W"]["n"])


def test_bidirectional_packed_sequences_are_separate():
    layer = Bidirectional(GRU(), 2, 5, rngs=rngs())
    resets = jnp.zeros((3, 6), bool).at[:, 0].set(True).at[:, 4].set(True)
    packed = layer(XS, resets=resets)
    np.testing.assert_allclose(packed[:, :4], layer(XS[:, :4]), atol=1e-6)
    np.testing.assert_allclose(packed[:, 4:], layer(XS[:, 4:]), atol=1e-6)


def test_what_resets_set_may_be_of_each_direction():
    layer, resets = Bidirectional(GRU(), 2, 5, rngs=rngs()), jnp.zeros((3, 6), bool).at[:, 2].set(True)
    set_to = BothCarries(jnp.full((3, 5), 0.5), jnp.full((3, 5), -0.5))
    both = layer(XS, resets=resets, reset_carry=set_to)
    for half, one, carry in zip(jnp.split(both, 2, axis=-1), (layer.forward, layer.backward), set_to, strict=True):
        np.testing.assert_array_equal(half, one(XS, resets=resets, reset_carry=carry))
    np.testing.assert_array_equal(
        layer(XS, resets=resets, reset_carry=set_to.forward),
        layer(XS, resets=resets, reset_carry=BothCarries(set_to.forward, set_to.forward)),
    )


@pytest.mark.parametrize("bidirectional", [False, True])
def test_stack_of_different_widths(bidirectional):
    stack = Stack(GRU(), 2, (8, 4, 3), bidirectional=bidirectional, rngs=rngs())
    traces = stack.trace(XS, lengths=LENGTHS)
    factor = 2 if bidirectional else 1
    assert [t.unrolled.hs.shape[-1] for t in traces] == [8 * factor, 4 * factor, 3 * factor]
    assert stack.output_size == 3 * factor
    for lower, upper in itertools.pairwise(traces):
        np.testing.assert_array_equal(lower.unrolled.hs, upper.inputs)


def test_dropout_acts_between_layers_only():
    two, key = Stack(GRU(), 2, (64, 4), dropout=0.5, rngs=rngs()), jax.random.key(3)
    two.eval()
    dropped, plain = two.trace(XS, dropout_key=key)[1].inputs, two.trace(XS)[1].inputs
    kept = np.asarray(dropped) != 0
    assert 0.4 < kept.mean() < 0.6
    np.testing.assert_allclose(dropped[kept], 2 * np.asarray(plain)[kept], rtol=1e-6)
    np.testing.assert_array_equal(two.trace(XS, dropout_key=key)[1].inputs, dropped)
    assert not np.array_equal(two.trace(XS, dropout_key=jax.random.key(4))[1].inputs, dropped)
    with pytest.raises(UsageError, match=r"dropout=0\.5: it acts between layers, and there is one; allowed is 0"):
        Stack(GRU(), 2, (64,), dropout=0.5, rngs=rngs())


def test_a_call_may_say_how_much_is_dropped():
    """Also where the stack drops nothing by itself: then from a key, or it says that there is no stream."""
    stack, key = Stack(GRU(), 2, (64, 4), rngs=rngs()), jax.random.key(3)
    dropped = stack.trace(XS, dropout=0.9, dropout_key=key)[1].inputs
    assert 0.05 < (np.asarray(dropped) != 0).mean() < 0.2
    with pytest.raises(UsageError, match=r"dropout=0\.9: there is no stream"):
        stack(XS, dropout=0.9)
    stack.eval()
    with pytest.raises(UsageError, match=r"dropout=0\.9: nothing is dropped after \.eval\(\); give dropout_key too"):
        stack(XS, dropout=0.9)
    for wrong in (1, 1.5, -0.5, float("nan"), "a half"):
        with pytest.raises(UsageError, match="allowed are numbers from 0 to below 1"):
            stack(XS, dropout=wrong, dropout_key=key)


def test_each_layer_has_its_own_of_what_there_is_one_of_for_each(unchecked_types):
    stack = Stack(GRU(), 2, (3, 4), rngs=rngs())
    for name in ("perturbations", "interventions", "reset_carry"):
        with pytest.raises(UsageError, match=f"{name}: has 1 entries; needed is a tuple of one for each layer, 2"):
            stack.trace(XS, **{name: (None,)})
    with pytest.raises(UsageError, match="hidden_sizes='34': the units of each layer are needed"):
        Stack(GRU(), 2, "34", rngs=rngs())


@pytest.mark.parametrize(
    ("readout", "bidirectional"),
    [("last", False), ("last", True), ("mean", False), ("every", False)]
    + [pytest.param(readout, True, marks=pytest.mark.slow) for readout in ("mean", "every")],
)
def test_readouts_ignore_the_padding(readout, bidirectional):
    model = SequenceModel(LSTM(), 2, (5, 4), 3, readout=readout, bidirectional=bidirectional, rngs=rngs())
    poisoned = jnp.where(PADDING[..., None], jnp.nan, XS)
    outputs = model(poisoned, lengths=LENGTHS)
    assert outputs.shape == ((3, 6, 3) if readout == "every" else (3, 3))
    for b, length in enumerate(LENGTHS.tolist()):
        alone = model(XS[b : b + 1, :length])[0]
        got = outputs[b, :length] if readout == "every" else outputs[b]
        np.testing.assert_allclose(got, alone, atol=1e-6)


def test_pure_functions_of_a_plain_dict():
    def build(rngs):
        return SequenceModel(GRU(), 2, (5, 4), 3, dropout=0.5, rngs=rngs)

    model = functional(build)
    params = model.init(jax.random.key(0))
    assert all(isinstance(k.key, str) for path, _ in jax.tree_util.tree_leaves_with_path(params) for k in path)
    module = build(rngs())
    module.eval()
    np.testing.assert_allclose(model.apply(params, XS).outputs, module(XS), rtol=1e-6)
    doubled = jax.tree.map(lambda p: 2 * p, params)
    assert not np.allclose(model.apply(doubled, XS).outputs, model.apply(params, XS).outputs)
    np.testing.assert_array_equal(model.apply(params, XS).outputs, model.apply(params, XS).outputs)
    members = jax.vmap(model.init)(jax.random.split(jax.random.key(1), 4))
    outputs = jax.jit(jax.vmap(lambda p: model.apply(p, XS).outputs))(members)
    assert outputs.shape == (4, 3, 3)
    grads = jax.grad(lambda p: model.apply(p, XS).outputs.sum())(params)
    assert jax.tree.structure(grads) == jax.tree.structure(params)
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(grads))


def test_wrong_use_names_the_argument(unchecked_types):
    with pytest.raises(UsageError, match="hidden_sizes"):
        Stack(GRU(), 2, (), rngs=rngs())
    with pytest.raises(UsageError, match="hidden_sizes=8: the units of each layer are needed"):
        Stack(GRU(), 2, 8, rngs=rngs())
    for dropout in (1.0, 1.5, -0.5, float("nan")):
        with pytest.raises(UsageError, match=r"dropout=.*: allowed are numbers from 0 to below 1"):
            Stack(GRU(), 2, (4, 4), dropout=dropout, rngs=rngs())
    with pytest.raises(UsageError, match="readout='first'"):
        SequenceModel(GRU(), 2, (4,), 3, readout="first", rngs=rngs())


@pytest.mark.parametrize("bidirectional", [False, True])
def test_carried_state_goes_on_in_both_directions(bidirectional):
    stack = Stack(GRU(), 2, (5,), bidirectional=bidirectional, rngs=rngs())
    layer = stack.layers[0]
    carry = jax.tree.map(lambda a: a + 0.5, stack.trace(XS)[0].unrolled.carry)
    jax.tree.map(np.testing.assert_array_equal, stack.trace(XS, (carry,))[0].unrolled, layer.trace(XS, carry))


def test_carries_are_one_for_each_layer():
    stack = Stack(GRU(), 2, (5, 4), rngs=rngs())
    _, carry = stack(XS, return_state=True)
    with pytest.raises(UsageError, match="carry0: has 1 entries; needed is a tuple of one for each layer, 2"):
        stack(XS, carry[:1])
