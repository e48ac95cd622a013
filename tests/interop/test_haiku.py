"""What names of Haiku's modules tell and what they do not, against the live library."""

from __future__ import annotations

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gru_jax import interop
from gru_jax.cells import LSTM, Elman
from gru_jax.nn import Stack
from tests import lenient
from tests.interop.refusal import assert_refused

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    hk = pytest.importorskip("haiku")

XS = jax.random.normal(jax.random.key(0), (2, 5, 3))


def network(*makers):
    """Parameters of these cores one after another, drawn small enough for a rectifier, and what they make of `XS`."""

    def outputs(xs):
        xs = xs.swapaxes(0, 1)
        for make in makers:
            core = make()
            xs = hk.dynamic_unroll(core, xs, core.initial_state(xs.shape[1]))[0]
        return xs.swapaxes(0, 1)

    with warnings.catch_warnings(), lenient.jax_as_users_have_it():
        warnings.simplefilter("ignore")
        transformed = hk.without_apply_rng(hk.transform(outputs))
        keys = iter(jax.random.split(jax.random.key(1), 99))
        params = jax.tree.map(lambda a: jax.random.normal(next(keys), a.shape) / 2, transformed.init(next(keys), XS))
        return params, transformed.apply(params, XS)


def named(core, *names, size=3):
    return [lambda name=name: core(size, name=name) for name in names]


def assert_agrees(params, expected, names=None):
    weights = interop.from_haiku(params, names)
    np.testing.assert_allclose(weights.stack()(XS), expected, rtol=1e-6, atol=1e-6)
    again = interop.from_haiku(interop.to_haiku(weights, names), names)
    np.testing.assert_allclose(again.stack()(XS), expected, rtol=1e-6, atol=1e-6)


refused = functools.partial(assert_refused, read=interop.from_haiku)


@pytest.mark.parametrize("core", [hk.GRU, hk.LSTM, hk.VanillaRNN])
def test_names_of_ones_own(core):
    params, expected = network(*named(core, "upper", "lower"))
    refused(params, r"the names lower, upper do not tell the order of layers; say names=\[…\]")
    refused(params, "names='uper': allowed are lower, upper; did you mean 'upper'", ["uper", "lower"])
    assert_agrees(params, expected, ["upper", "lower"])
    params, expected = network(*named(core, None, "upper"))
    refused(params, "the names .*upper.* do not tell the order of layers")  # that one is not passed over
    params, expected = network(*named(core, "upper"))
    assert_agrees(params, expected, "upper")


def test_numbers_are_an_order_within_one_parent():
    params, expected = network(*named(hk.GRU, *[None] * 12))
    assert_agrees(params, expected)
    parts = {"b/gru": params["gru"], "a/gru": params["gru_1"]}
    refused(parts, "the names b/gru, a/gru do not tell the order of layers")
    assert interop.from_haiku(parts, ["b/gru", "a/gru"]).hidden_sizes == (3, 3)
    nested = {f"net/~/{name}": arrays for name, arrays in params.items()}
    np.testing.assert_allclose(interop.from_haiku(nested).stack()(XS), expected, rtol=1e-6, atol=1e-6)


def test_other_modules_are_passed_over():
    params, _ = network(*named(hk.LSTM, None), lambda: hk.VanillaRNN(3, double_bias=False))
    lstm = {name: arrays for name, arrays in params.items() if name.startswith("lstm")}
    linear = {"w": jnp.ones((3, 4)), "b": jnp.ones(4)}
    outer = {f"net/{name}": arrays for name, arrays in lstm.items()} | {"net/linear": linear}
    for others in (lstm | {"linear": linear}, outer, lstm | {"mlp/~/linear_0": linear}):
        assert interop.from_haiku(others).hidden_sizes == (3,)
    refused(params, "modules of several kinds, lstm, vanilla_rnn; name those of one")
    weights = interop.from_haiku(params, ["vanilla_rnn"])
    assert weights.cell == Elman("relu")


def test_layers_are_of_one_or_two_directions():
    params, _ = network(*named(hk.GRU, *[None] * 3))
    refused(params, r"names: \('gru', 'gru_1', 'gru_2'\); a layer is", [("gru", "gru_1", "gru_2")])
    refused(
        params, r"names=\['gru', \('gru_1', 'gru_2'\)\]: needed are layers, of as many", ["gru", ("gru_1", "gru_2")]
    )
    refused(params, r"names=\[\]: needed are layers", [])
    refused(params, r"names: \('',\); a layer is", [""])
    refused(params, r"names: 3; a layer is", [3])
    assert interop.from_haiku(params, ["gru", "gru"]).hidden_sizes == (3, 3)  # one module may be two layers


def test_modules_are_not_written_over():
    stack = Stack(LSTM(), 3, (3, 3), rngs=nnx.Rngs(0))
    refused(stack, "names: 'a' is there twice", ["a", "a"], read=interop.to_haiku)
    pair = [("a", "b")]
    refused(stack, "names: of 1 layers with 2 directions; the network has 2 with 1, 1", pair, read=interop.to_haiku)
    refused(stack, "names: of 1 layers with 1 directions; the network has 2", ["a"], read=interop.to_haiku)
    refused(stack, "a layer is a module's name", ["", "a"], read=interop.to_haiku)
    both = Stack(LSTM(), 3, (3,), bidirectional=True, rngs=nnx.Rngs(0))
    refused(both, "'a' is there twice", [("a", "a")], read=interop.to_haiku)
    assert list(interop.to_haiku(both)) == ["lstm/linear", "lstm_1/linear"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (3, "weights of Haiku: int; needed are parameters by module and name"),
        ({"gru": np.ones(3)}, "weights of Haiku: ndarray; needed are the arrays of gru by name"),
        ({}, "no gru, lstm or vanilla_rnn among nothing"),
        ({"gru": {"w_i": np.ones((3, 9))}}, "gru has w_i; needed are w_i, w_h, b"),
        ({"gru": {"w_i": "a", "w_h": 1.0, "b": 1.0}}, "w_i of gru is a str; needed is an array of real numbers"),
        ({"gru": {"w_i": 1.0, "w_h": 1.0, "b": 1.0}}, r"not so kernel \[\], recurrent \[\], bias \[\]"),
        ({"lstm/linear": {"w": np.ones((6, 12))}}, "lstm/linear has w; needed are w, b"),
        ({"lstm/linear": {"w": np.ones((3, 12)), "b": np.ones(12)}}, r"fits no LSTM: w \[3, 12\], b \[12\]"),
        ({"lstm/linear": {"w": np.ones(12), "b": np.ones(12)}}, r"fits no LSTM: w \[12\], b \[12\]"),
        ({"vanilla_rnn/linear": {"w": np.ones((3, 3)), "b": np.ones(3)}, "vanilla_rnn/linear_1": {}}, "has nothing"),
    ],
)
def test_arrays_that_fit_nowhere_are_listed(params, message):
    refused(params, message)
