"""What Keras' lists of arrays tell and what they do not, against the live library."""

from __future__ import annotations

import functools
import os
import warnings

import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax import interop
from gru_jax.cells import GRU, LSTM, Elman
from tests import lenient
from tests.interop.refusal import assert_refused

os.environ.setdefault("KERAS_BACKEND", "jax")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    keras = pytest.importorskip("keras")
    from keras import layers as kl

XS = np.random.default_rng(0).normal(size=(2, 4, 2)).astype("float32")


def network(*layers):
    """The weights of these layers, drawn, and what they make of `XS`."""
    rng = np.random.default_rng(1)
    with warnings.catch_warnings(), lenient.jax_as_users_have_it():
        warnings.simplefilter("ignore")
        model = keras.Sequential([keras.Input(XS.shape[1:]), *layers])
        model.set_weights([rng.normal(size=a.shape).astype("float32") for a in model.get_weights()])
        return model.get_weights(), np.asarray(model(XS))


def layers(kind, units, count=1, **options):
    return [kind(units, return_sequences=True, **options) for _ in range(count)]


def assert_agrees(arrays, expected, *args, **kwargs):
    weights = interop.from_keras(arrays, *args, **kwargs)
    ours = weights.stack() if weights.head is None else weights.model(readout="every")
    np.testing.assert_allclose(ours(jnp.asarray(XS)), expected, rtol=0, atol=1e-6)


refused = functools.partial(assert_refused, read=interop.from_keras)


def test_a_cell_of_another_convention_than_the_biases_is_refused():
    after, before = (network(*layers(kl.GRU, 3, reset_after=flag))[0] for flag in (True, False))
    refused(after, r"cell=GRU\(reset='before'.*these weights have 2 rows of biases, reset='after'", GRU("before"))
    refused(before, r"cell=GRU\(reset='after'.*these weights have 1 row of biases, reset='before'", GRU())
    refused(after, r"Keras' update gate keeps, update='keep'; \.with_update\('write'\)", GRU(update="write"))
    mixed = network(*layers(kl.GRU, 3), *layers(kl.GRU, 3, reset_after=False))[0]
    refused(mixed, "layers with one row of biases, reset_after=False, and with two")
    refused(mixed, "layers with one row of biases, reset_after=False, and with two", GRU())


@pytest.mark.parametrize("reset", ["after", "before"])
def test_without_bias_the_cell_says_the_convention(reset):
    options = {"reset_after": reset == "after"}
    arrays, expected = network(*layers(kl.GRU, 3, **options, use_bias=False))
    refused(arrays, r"a GRU without bias does not tell reset_after; say cell=GRU\('after'\) if it is True")
    assert_agrees(arrays, expected, GRU(reset))
    # A layer with biases does not speak for another.
    arrays, expected = network(*layers(kl.GRU, 3, **options), *layers(kl.GRU, 3, **options, use_bias=False))
    refused(arrays, "a GRU without bias does not tell reset_after")
    assert_agrees(arrays, expected, GRU(reset))


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_layers_of_two_units(bidirectional, use_bias, count):
    """A kernel of two rows is as large as biases of two."""
    stacked = layers(kl.GRU, 2, count, use_bias=use_bias)
    arrays, expected = network(*(map(kl.Bidirectional, stacked) if bidirectional else stacked))
    assert_agrees(arrays, expected, GRU(), bidirectional=bidirectional, use_bias=use_bias)
    if not bidirectional and (use_bias or count > 1):
        refused(
            arrays, r"they fit with biases of the recurrent layers and without, \[2, 6\].*; say use_bias=True", GRU()
        )


@pytest.mark.parametrize(
    ("stacked", "cell"),
    [
        (layers(kl.LSTM, 2, 3, use_bias=False), LSTM()),
        ([*layers(kl.SimpleRNN, 2, use_bias=False), kl.Dense(2)], Elman()),
        ([*layers(kl.SimpleRNN, 2, use_bias=False), kl.Dense(2, use_bias=False)], Elman()),
        ([*layers(kl.LSTM, 2, use_bias=False), kl.Dense(8, use_bias=False)], LSTM()),
        ([*layers(kl.SimpleRNN, 1, use_bias=False), kl.Dense(1)], Elman()),
        ([*layers(kl.SimpleRNN, 1), *layers(kl.SimpleRNN, 1, use_bias=False), kl.Dense(1)], Elman()),
        ([*layers(kl.GRU, 3), kl.Dense(6, use_bias=False)], GRU()),
        ([*layers(kl.GRU, 2, reset_after=False), kl.Dense(6)], GRU("before")),
    ],
)
def test_networks_that_can_be_read_in_one_way(stacked, cell):
    arrays, expected = network(*stacked)
    assert interop.from_keras(arrays).cell == cell
    assert_agrees(arrays, expected)


def test_a_bidirectional_layer_is_said_to_be_one():
    arrays, expected = network(*map(kl.Bidirectional, layers(kl.GRU, 3, 2)), kl.Dense(1))
    refused(arrays, "weights of Keras fit nowhere: .*; they fit with bidirectional=True")
    assert_agrees(arrays, expected, bidirectional=True)


def test_what_fits_nowhere_is_listed():
    gru = network(*layers(kl.GRU, 3))[0]
    refused(gru, "; they fit with use_bias left out", use_bias=False)
    refused([*gru, np.ones((3, 2)), np.ones((2, 5))], r"fit nowhere: .*\[3, 2\], \[2, 5\]; needed are")
    refused([*gru, np.ones((3, 2)), np.float32(1)], r"fit nowhere: .*\[3, 2\], \[\]; needed are")
    refused(network(*layers(kl.GRU, 3), *layers(kl.LSTM, 3))[0], "fit nowhere: .*all of one kind")
    refused([np.ones((2, 9)), np.ones((3, 8))], r"a recurrent kernel of 2\.66667 gates, \[3, 8\]; Keras has RNN \(1\)")
    refused([np.ones((2, 6))] * 120 + [np.ones(5)], "fit nowhere")  # at once, though there are 10^15 ways to begin
    refused([np.ones(9), np.ones(9)], r"fit nowhere: \[9\], \[9\]")
    refused([], "fit nowhere: nothing")
    refused(["a"], "array 0 is a str; needed is an array of real numbers")
    with lenient.jax_as_users_have_it():
        refused(keras.Sequential([keras.Input(XS.shape[1:]), *layers(kl.GRU, 3)]), r"Sequential; needed is a list")
