"""What modules of NNX and variables of linen may and may not be, against Flax itself."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from gru_jax import interop
from gru_jax.cells import GRU, LSTM, Elman
from tests.interop.refusal import assert_refused

XS = jax.random.normal(jax.random.key(0), (2, 5, 3))


def drawn(module):
    """The module with every parameter drawn, biases too."""
    state = nnx.state(module, nnx.Param)
    keys = iter(jax.random.split(jax.random.key(1), 99))
    nnx.update(module, jax.tree.map(lambda a: jax.random.normal(next(keys), a.shape, a.dtype), state))
    return module


def cell(kind=nnx.SimpleCell, inputs=3, **options):
    return kind(inputs, 3, rngs=nnx.Rngs(0), **options)


def rnn(kind=nnx.SimpleCell, inputs=3, **options):
    return drawn(nnx.RNN(cell(kind, inputs, **options)))


def assert_agrees(layers, expected, ours):
    weights = interop.from_nnx(layers)
    assert weights.cell == ours
    np.testing.assert_allclose(weights.stack()(XS), expected, rtol=0, atol=1e-6)


refused = functools.partial(assert_refused, read=interop.from_nnx)


@pytest.mark.parametrize(
    ("kind", "options", "ours"),
    [
        (nnx.SimpleCell, {"activation_fn": nnx.relu}, Elman("relu")),
        (nnx.SimpleCell, {"activation_fn": lambda x: x}, Elman("identity")),
        (nnx.SimpleCell, {"activation_fn": jax.lax.tanh}, Elman()),
        (nnx.SimpleCell, {"residual": True}, Elman()),
        (nnx.GRUCell, {"activation_fn": lambda x: jnp.maximum(x, 0)}, GRU(activation="relu")),
        (nnx.GRUCell, {"carry_init": nnx.initializers.zeros_init()}, GRU()),
        (nnx.LSTMCell, {"gate_fn": jax.nn.sigmoid}, LSTM()),
    ],
)
@pytest.mark.filterwarnings("ignore:carry_init is provided")
def test_a_module_tells_its_cell(kind, options, ours):
    layer = rnn(kind, **options)
    assert_agrees(layer, layer(XS), ours)


def test_the_type_that_a_module_computes_in_is_no_part_of_its_weights():
    assert_agrees(rnn(nnx.LSTMCell, dtype=jnp.bfloat16), rnn(nnx.LSTMCell)(XS), LSTM())


@pytest.mark.filterwarnings("ignore:carry_init is provided")
@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (nnx.GRUCell, {"activation_fn": nnx.gelu}, "activation_fn=gelu of GRUCell; allowed are tanh, relu"),
        (nnx.GRUCell, {"activation_fn": lambda x: x}, "activation_fn=<lambda> of GRUCell; allowed are tanh, relu"),
        (nnx.GRUCell, {"activation_fn": jax.nn.relu6}, "activation_fn=relu6 of GRUCell; allowed are tanh, relu"),
        (nnx.GRUCell, {"gate_fn": nnx.hard_sigmoid}, "gate_fn=hard_sigmoid of GRUCell; allowed are sigmoid"),
        (nnx.LSTMCell, {"activation_fn": nnx.relu}, "activation_fn=relu of LSTMCell; allowed are tanh"),
        (nnx.OptimizedLSTMCell, {"gate_fn": nnx.tanh}, "gate_fn=tanh of OptimizedLSTMCell; allowed are sigmoid"),
        (nnx.SimpleCell, {"activation_fn": nnx.softplus}, "activation_fn=softplus of SimpleCell"),
        (nnx.SimpleCell, {"activation_fn": lambda x, y: x}, "activation_fn=<lambda> of SimpleCell"),
        (nnx.SimpleCell, {"carry_init": nnx.initializers.ones_init()}, "carry_init; a carry here begins at zero"),
    ],
)
def test_what_no_cell_of_ours_computes_is_refused(kind, options, message):
    refused(rnn(kind, **options), f"weights of NNX: {message}")


class OtherCell(nnx.GRUCell):
    def __call__(self, carry, inputs):
        return super().__call__(2 * carry, inputs)


class OtherRNN(nnx.RNN):
    pass


def test_modules_that_are_no_layers_of_ours_are_refused():
    refused(
        nnx.RNN(cell(OtherCell)), "weights of NNX: OtherCell; allowed are nnx.GRUCell, nnx.LSTMCell, .* as they are"
    )
    refused(OtherRNN(cell()), "weights of NNX: OtherRNN; allowed are nnx.RNN, nnx.Bidirectional of them")
    refused(cell(), "weights of NNX: SimpleCell; allowed are nnx.RNN")
    refused(nnx.Sequential(rnn(), nnx.relu), "weights of NNX: relu; allowed are nnx.RNN")
    refused(nnx.RNN(cell(), reverse=True), "reverse=True; a stack here has a backward layer beside a forward one alone")
    refused([], "needed are layers of one cell and as many directions each; these are none")
    refused([rnn(), rnn(nnx.LSTMCell)], r"these are Elman\(activation='tanh'\), LSTM\(\)")
    refused(3, "weights of NNX: int; needed are the parameters of a layer as a dict")
    refused(rnn(), r"cell=Elman\(activation='relu'\): these weights are of Elman\(activation='tanh'\)", Elman("relu"))
    adapted = rnn(nnx.GRUCell)
    adapted.cell.dense_i = nnx.LoRALinear(3, 9, lora_rank=1, rngs=nnx.Rngs(0))
    refused(adapted, "weights of NNX: GRUCell; allowed are .* as they are")


def test_both_directions():
    forward, backward = rnn(nnx.GRUCell), nnx.RNN(drawn(cell(nnx.GRUCell)), time_major=True, return_carry=True)
    layer = nnx.Bidirectional(forward, backward)
    assert_agrees(layer, layer(XS), GRU())
    shared = nnx.Bidirectional(forward, forward)
    assert_agrees(shared, shared(XS), GRU())
    concatenated = nnx.Bidirectional(forward, backward, merge_fn=lambda a, b: jnp.concatenate([a, b], axis=-1))
    assert_agrees(concatenated, layer(XS), GRU())
    refused(nnx.Bidirectional(forward, backward, merge_fn=jnp.add), "merge_fn; a layer here puts the outputs of both")
    refused([layer, forward], r"these are GRU\(.*\) and GRU\(.*\), GRU\(")
    other = nnx.Bidirectional(forward, rnn(nnx.GRUCell, activation_fn=nnx.relu))
    refused(other, "needed are layers of one cell and as many directions each")


def test_a_list_of_modules_is_one_of_layers():
    layers = [rnn(nnx.GRUCell), rnn(nnx.GRUCell)]
    expected = layers[1](layers[0](XS))
    lists = [kind(layers) for kind in (list, tuple, getattr(nnx, "List", list))]  # Flax 0.11 has no list of its own
    for stacked in (*lists, nnx.Sequential(*layers)):
        assert_agrees(stacked, expected, GRU())


def test_activations_of_plain_parameters_are_said():
    layer = linen.RNN(linen.GRUCell(3, activation_fn=nnx.relu))
    variables = layer.init(jax.random.key(0), XS)
    weights = interop.from_linen(variables, GRU(activation="relu"))
    np.testing.assert_allclose(weights.stack()(XS), layer.apply(variables, XS), rtol=0, atol=1e-6)
    (again,) = interop.to_linen(weights)
    np.testing.assert_allclose(layer.apply(again, XS), layer.apply(variables, XS), rtol=0, atol=1e-6)
    refused(variables, r"cell=GRU\(reset='before'.*these weights are of GRU", GRU("before"), read=interop.from_linen)
    refused(variables, r"cell=LSTM\(\): these weights are of GRU", LSTM(), read=interop.from_linen)


def gates(**changes):
    """linen's parameters of a GRU, with changes of its modules; None leaves one out."""
    kernel, bias = {"kernel": np.ones((3, 3))}, {"bias": np.zeros(3)}
    modules = {"ir": kernel | bias, "iz": kernel | bias, "in": kernel | bias, "hr": kernel, "hz": kernel}
    modules |= {"hn": kernel | bias, **{name.rstrip("_"): arrays for name, arrays in changes.items()}}
    return {"cell": {name: arrays for name, arrays in modules.items() if arrays is not None}}


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (3, "weights of linen: int; needed are variables, as layer.init gives them"),
        (linen.RNN(linen.GRUCell(3)), "weights of linen: RNN; needed are variables"),
        ([3], "weights of linen: int; needed are the parameters of a layer as a dict"),
        ({"GRUCell_0": {}}, "missing cell; there are GRUCell_0"),
        ({"cell": 3}, "weights of linen: int"),
        ({**gates(), "Dense_0": {}}, "fit nowhere: Dense_0; allowed are cell"),
        (gates(scale={}), "fit nowhere: scale; allowed are ir, iz, in, hr, hz, hn"),
        (gates(ir=None), "missing ir; there are iz, in, hr, hz, hn"),
        (gates(ir={"kernel": np.ones((3, 3)), "scale": np.ones(3)}), "fit nowhere: scale; allowed are kernel"),
        (gates(ir={"bias": np.ones(3)}), "missing kernel; there are bias"),
        (gates(ir={"kernel": "a"}), "kernel is a str; needed is an array of real numbers"),
        (gates(ir={"kernel": np.ones((3, 4))}), r"gates of one size; these are \[3, 4\] and \[3, 3\], \[3, 3\] and"),
        (gates(**{name: {"kernel": np.ones(3)} for name in ("ir", "iz", "in_")}), r"not so kernel \[3\]"),
        (gates(**{name: {"kernel": np.ones(())} for name in ("ir", "iz", "in_")}), r"not so kernel \[\]"),
        (linen.RNN(linen.MGUCell(3)).init(jax.random.key(0), XS), "missing ir, iz, hr, hz; there are"),
    ],
)
def test_parameters_that_fit_nowhere_are_listed(tree, message):
    refused(tree, message, read=interop.from_linen)


def test_parameters_with_gates_side_by_side_that_fit_nowhere():
    for shape in ((9,), (3, 8), ()):
        refused({"cell": {"dense_i": {"kernel": np.ones((3, 9))}, "dense_h": {"kernel": np.ones(shape)}}}, "not so")
