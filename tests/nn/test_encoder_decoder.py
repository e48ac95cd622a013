"""An encoder and a decoder against what they are made of."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gru_jax import interop, nn
from gru_jax.cells import GRU, LSTM
from gru_jax.errors import UsageError
from gru_jax.nn.stack import DropoutRates

SOURCES = jnp.array([[3, 1, 4, 1, 5], [2, 6, 0, 0, 0], [5, 3, 5, 0, 0]], jnp.int32)
TARGETS = jnp.array([[1, 2, 3, 4], [4, 3, 0, 0], [2, 2, 2, 0]], jnp.int32)
LENGTHS, TARGET_LENGTHS = jnp.array([5, 2, 3]), jnp.array([4, 2, 3])
KINDS = [
    pytest.param(GRU(), {"attention": "luong", "bidirectional": True, "tied": True}, marks=pytest.mark.slow),
    (LSTM(), {"attention": "bahdanau", "bidirectional": True}),
    pytest.param(GRU(), {}, marks=pytest.mark.slow),
]


def model_of(cell, **kwargs):
    embedding = 4 if kwargs.get("tied") else 2
    return nn.EncoderDecoder(cell, 7, (3, 4), 5, embedding=embedding, rngs=nnx.Rngs(params=0, dropout=1), **kwargs)


@nnx.jit
def outputs_of(model, sources, lengths, targets, target_lengths):
    return model.trace(sources, decoder_inputs=targets, lengths=lengths, decoder_lengths=target_lengths).outputs


@nnx.jit
def one_by_one(model, sources, lengths, targets):
    memory, _ = model.encode(sources, lengths)
    carries, outputs = memory.carries, []
    for t in range(targets.shape[1]):
        trace = model.decode(targets[:, t : t + 1], memory, carries)
        carries = trace.carry
        outputs.append(trace.outputs[:, 0])
    return jnp.stack(outputs, axis=1)


@pytest.mark.parametrize(("cell", "kwargs"), KINDS, ids=str)
def test_a_target_at_once_is_the_target_token_by_token_and_padding_changes_nothing(cell, kwargs):
    model = model_of(cell, **kwargs)
    whole = outputs_of(model, SOURCES, LENGTHS, TARGETS, TARGET_LENGTHS)
    alone = one_by_one(model, SOURCES[2:, :3], None, TARGETS[2:, :3])
    np.testing.assert_allclose(whole[2, :3], alone[0], rtol=1e-5, atol=1e-6)
    padded = (jnp.pad(tokens, ((0, 0), (0, 2)), constant_values=1) for tokens in (SOURCES, TARGETS))
    sources, targets = padded
    again = outputs_of(model, sources, LENGTHS, targets, TARGET_LENGTHS)
    for i, n in enumerate(TARGET_LENGTHS):
        np.testing.assert_allclose(again[i, :n], whole[i, :n], rtol=1e-6, atol=1e-7)


SCORES = {
    "luong": lambda query, key, _: query @ key,
    "bahdanau": lambda query, key, of: of.energy.kernel[:, 0] @ np.tanh(key + query @ of.query.kernel + of.query.bias),
}


@pytest.mark.parametrize("kind", SCORES)
def test_what_attention_reads(kind, x64):
    """Each score as its paper has it, of one step and one step of the source at a time, in NumPy."""
    model = model_of(GRU(), attention=kind, bidirectional=True, param_dtype=jnp.float64)
    memory, layers = model.encode(SOURCES, LENGTHS)
    states, attention = np.asarray(layers[-1].unrolled.hs), model.source_attention
    queries = jax.random.normal(jax.random.key(0), (3, 2, 4), jnp.float64)
    if kind == "bahdanau":  # whose biases are zero at first
        attention.query.bias[...] = jnp.linspace(-1, 1, 4)
    arrays = jax.tree.map(np.asarray, nnx.state(attention))
    weights = np.asarray(attention.weights(queries, memory))
    got = attention(queries, memory)
    for i, n in enumerate(np.asarray(LENGTHS)):
        for t in range(2):
            keys = states[i, :n] @ arrays.score.kernel[...]
            scores = np.array([SCORES[kind](np.asarray(queries[i, t]), key, arrays) for key in keys])
            wanted = np.exp(scores) / np.exp(scores).sum()
            np.testing.assert_allclose(weights[i, t, :n], wanted, rtol=1e-12)
            np.testing.assert_array_equal(weights[i, t, n:], 0)
            both = np.concatenate([wanted @ states[i, :n], np.asarray(queries[i, t])])
            np.testing.assert_allclose(got[i, t], np.tanh(both @ arrays.combine.kernel[...]), rtol=1e-11)


def test_the_decoder_starts_from_the_encoder():
    model = model_of(LSTM())
    memory, layers = model.encode(SOURCES, LENGTHS)
    jax.tree.map(np.testing.assert_array_equal, memory.carries, layers.carry)
    trace = model.trace(SOURCES, decoder_inputs=TARGETS, lengths=LENGTHS, decoder_lengths=TARGET_LENGTHS)
    assert [layer.carry0 is None for layer in trace.layers] == [True, True, False, False]
    jax.tree.map(np.testing.assert_array_equal, trace.layers[2].carry0, layers[0].unrolled.carry)
    np.testing.assert_array_equal(trace.layers[1].lengths, LENGTHS)
    np.testing.assert_array_equal(trace.layers[2].lengths, TARGET_LENGTHS)
    names = [place.name for places in model.cell_places() for place in places]
    assert names == ["encoder.layer_0", "encoder.layer_1", "decoder.layer_0", "decoder.layer_1"]


def test_dropout_of_each_sequence_is_its_own_and_both_stacks_draw_differently():
    model, rates = model_of(GRU()), DropoutRates(0.0, 0.5, 0.0)
    keys = jax.random.split(jax.random.key(0), 3)
    trace = model.trace(SOURCES, decoder_inputs=SOURCES % 5, dropout_key=keys, dropout=rates)
    alone = model.trace(SOURCES[1:2], decoder_inputs=SOURCES[1:2] % 5, dropout_key=keys[1:2], dropout=rates)
    np.testing.assert_allclose(trace.outputs[1], alone.outputs[0], rtol=1e-5, atol=1e-6)
    read, written = (np.asarray(trace.layers[i].inputs) == 0 for i in (0, 2))
    assert 0.2 < read.mean() < 0.8
    assert not np.array_equal(read, written)


def test_what_it_does_not_take(unchecked_types):
    model = model_of(GRU())
    for arguments, message in (
        ({}, "decoder_inputs: missing"),
        ({"decoder_inputs": TARGETS, "carry0": ()}, "carry0: an encoder and a decoder take none"),
        ({"decoder_inputs": TARGETS, "resets": SOURCES > 0}, "resets: an encoder and a decoder take none"),
    ):
        with pytest.raises(UsageError, match=message):
            model.trace(SOURCES, **arguments)
    with pytest.raises(UsageError, match="attention='loung': allowed are none, luong, bahdanau; did you mean 'luong'"):
        model_of(GRU(), attention="loung")
    with pytest.raises(UsageError, match="EncoderDecoder; allowed are Recurrent, Bidirectional"):
        interop.weights_of(model)
    with pytest.raises(UsageError, match="tied=True: the head takes 4 numbers, and the embedding has 2"):
        nn.EncoderDecoder(GRU(), 7, (3, 4), 5, embedding=2, tied=True, rngs=nnx.Rngs(0))
