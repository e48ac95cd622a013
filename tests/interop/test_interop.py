"""Weights from and to other libraries: the same bits there and back, the same outputs as the live library."""

from __future__ import annotations

import importlib.util
import os
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from gru_jax import interop
from gru_jax.cells import GRU, LSTM, Elman, LayerNormGRU
from gru_jax.errors import UsageError
from gru_jax.interop import Weights
from gru_jax.nn import Forecaster, Recurrent, SequenceModel, Stack
from tests import lenient

SIZE, HIDDEN, OUTPUTS = 3, 4, 2
TOLERANCE = {"float32": 1e-6, "float64": 1e-12}


def random_weights(cell, bidirectional=True, dtype="float32", head=False):
    """Two layers with non-zero biases."""
    rng = np.random.default_rng(1)

    def params(input_size):
        shapes = jax.eval_shape(lambda: cell.init(jax.random.key(0), input_size, HIDDEN))
        return jax.tree.map(lambda leaf: rng.normal(0, 0.5, leaf.shape).astype(dtype), shapes)

    directions = 2 if bidirectional else 1
    layers = tuple(tuple(params(size) for _ in range(directions)) for size in (SIZE, directions * HIDDEN))
    kernel = {"kernel": rng.normal(size=(directions * HIDDEN, OUTPUTS)), "bias": rng.normal(size=OUTPUTS)}
    return Weights(cell, layers, {name: a.astype(dtype) for name, a in kernel.items()} if head else None)


def without_c(weights):
    """The candidate's recurrent bias zero, which `nnx.GRUCell` lacks."""
    layers = jax.tree_util.tree_map_with_path(
        lambda path, a: np.zeros_like(a) if "'c'" in str(path) else a, weights.layers
    )
    return weights._replace(layers=layers)


def assert_same_bits(ours, theirs):
    assert ours.cell == theirs.cell
    assert jax.tree.structure((ours.layers, ours.head)) == jax.tree.structure((theirs.layers, theirs.head))
    arrays = (jax.tree.leaves((weights.layers, weights.head)) for weights in (ours, theirs))
    for one, other in zip(*arrays, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def torch_outputs(weights, xs):
    import torch

    kind = {GRU: torch.nn.GRU, LSTM: torch.nn.LSTM, Elman: torch.nn.RNN}[type(weights.cell)]
    options = {"nonlinearity": weights.cell.activation} if isinstance(weights.cell, Elman) else {}
    module = kind(SIZE, HIDDEN, 2, batch_first=True, bidirectional=weights.bidirectional, **options)
    module = module.to(torch.from_numpy(xs).dtype)
    module.load_state_dict({name: torch.from_numpy(a) for name, a in interop.to_torch(weights).items()})
    assert_same_bits(interop.from_torch(module.state_dict(), weights.cell), weights)
    return module(torch.from_numpy(xs))[0].detach().numpy()


def exact_tanh(x):
    """Keras' own (3.15 on JAX) rounds to float32 in between."""
    return jnp.tanh(x)


def keras_outputs(weights, xs):
    os.environ.setdefault("KERAS_BACKEND", "jax")
    with warnings.catch_warnings(), lenient.jax_as_users_have_it():
        warnings.simplefilter("ignore")
        import keras

        cell, dtype = weights.cell, str(xs.dtype)
        tanh = keras.saving.register_keras_serializable("tests")(exact_tanh)
        activation = "relu" if getattr(cell, "activation", "tanh") == "relu" else tanh
        options = {"return_sequences": True, "activation": activation, "dtype": dtype}
        if isinstance(cell, GRU):
            options["reset_after"] = cell.reset == "after"
        kind = {GRU: keras.layers.GRU, LSTM: keras.layers.LSTM, Elman: keras.layers.SimpleRNN}[type(cell)]
        layers = [kind(HIDDEN, **options) for _ in range(2)]
        if weights.bidirectional:
            layers = [keras.layers.Bidirectional(layer, dtype=dtype) for layer in layers]
        model = keras.Sequential([keras.Input((xs.shape[1], SIZE), dtype=dtype), *layers])
        model.set_weights(interop.to_keras(weights))
        read = interop.from_keras(model.get_weights(), cell, bidirectional=weights.bidirectional)
        assert_same_bits(read, weights)
        return np.asarray(model(xs))


def linen_outputs(weights, xs):
    kind = {GRU: linen.GRUCell, LSTM: linen.LSTMCell, Elman: linen.SimpleCell}[type(weights.cell)]
    options = {"activation_fn": jax.nn.relu} if weights.cell == Elman("relu") else {}
    options["param_dtype"] = xs.dtype
    for variables in interop.to_linen(weights):
        forward, backward = (linen.RNN(kind(HIDDEN, **options)) for _ in range(2))
        layer = linen.Bidirectional(forward, backward) if weights.bidirectional else forward
        xs = layer.apply(variables, xs)
    return xs


def nnx_outputs(weights, xs, optimized=False):
    lstm = nnx.OptimizedLSTMCell if optimized else nnx.LSTMCell
    kind = {GRU: nnx.GRUCell, LSTM: lstm, Elman: nnx.SimpleCell}[type(weights.cell)]
    options = {"activation_fn": jax.nn.relu} if weights.cell == Elman("relu") else {}
    modules = []
    for arrays in interop.to_nnx(weights, optimized_lstm=optimized):
        rngs, size = nnx.Rngs(0), xs.shape[-1]
        forward, backward = (
            nnx.RNN(kind(size, HIDDEN, param_dtype=xs.dtype, dtype=xs.dtype, rngs=rngs, **options)) for _ in range(2)
        )
        layer = nnx.Bidirectional(forward, backward, rngs=rngs) if weights.bidirectional else forward
        state = nnx.state(layer, nnx.Param)
        nnx.replace_by_pure_dict(state, jax.tree.map(jnp.asarray, arrays))
        nnx.update(layer, state)
        modules.append(layer)
        xs = layer(xs)
    assert_same_bits(interop.from_nnx(modules, weights.cell), weights)
    return xs


def haiku_outputs(weights, xs):
    import haiku

    kind = {GRU: haiku.GRU, LSTM: haiku.LSTM, Elman: haiku.VanillaRNN}[type(weights.cell)]

    def network(xs):
        xs = xs.swapaxes(0, 1)
        for _ in range(2):
            directions = []
            for reverse in (False, True)[: 1 + weights.bidirectional]:
                core = kind(HIDDEN)
                start = core.initial_state(xs.shape[1])
                hs = haiku.dynamic_unroll(core, jnp.flip(xs, 0) if reverse else xs, start)[0]
                directions.append(jnp.flip(hs, 0) if reverse else hs)
            xs = jnp.concatenate(directions, axis=-1)
        return xs.swapaxes(0, 1)

    with warnings.catch_warnings(), lenient.jax_as_users_have_it():
        warnings.simplefilter("ignore")
        return haiku.without_apply_rng(haiku.transform(network)).apply(interop.to_haiku(weights), xs)


RELU = Elman("relu")
CASES = {
    "torch": (torch_outputs, (GRU(), LSTM(), Elman(), RELU)),
    "keras": (keras_outputs, (GRU(), GRU("before"), LSTM(), Elman(), RELU)),
    "linen": (linen_outputs, (GRU(), LSTM(), Elman(), RELU)),
    "nnx": (nnx_outputs, (GRU(), LSTM(), Elman(), RELU)),
    "nnx, optimised LSTM": (lambda weights, xs: nnx_outputs(weights, xs, optimized=True), (LSTM(),)),
    "haiku": (haiku_outputs, (GRU("before", "write"), LSTM(), RELU)),
}
MODULES = {"torch": "torch", "keras": "keras", "haiku": "haiku"}


@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "both"])
@pytest.mark.parametrize(("library", "cell"), [(name, cell) for name, (_, cells) in CASES.items() for cell in cells])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_outputs_are_those_of_the_live_library(library, cell, dtype, bidirectional, request):
    if dtype == "float64":
        request.getfixturevalue("x64")
    if library in MODULES and importlib.util.find_spec(MODULES[library]) is None:
        pytest.skip(f"{library} is not installed; there and back is tested without it")
    weights = random_weights(cell, bidirectional, dtype)
    if library == "nnx":
        weights = without_c(weights)
    xs = np.random.default_rng(2).normal(size=(2, 7, SIZE)).astype(dtype)
    outputs = CASES[library][0](weights, xs)
    assert outputs.dtype == dtype
    np.testing.assert_allclose(outputs, weights.stack()(jnp.asarray(xs)), rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "both"])
@pytest.mark.parametrize("cell", [GRU(), GRU("before"), GRU("before", "write"), LSTM(), Elman(), RELU], ids=str)
def test_there_and_back_gives_equal_bits(cell, bidirectional):
    weights = random_weights(cell, bidirectional, head=True)
    headless = weights._replace(head=None)
    if cell == GRU() or not isinstance(cell, GRU):
        assert_same_bits(interop.from_torch(interop.to_torch(weights), cell), weights)
        assert_same_bits(interop.from_linen(interop.to_linen(weights), cell), headless)
        assert_same_bits(interop.from_nnx(interop.to_nnx(without_c(weights)), cell), without_c(headless))
    if getattr(cell, "update", "keep") == "keep":
        assert_same_bits(interop.from_keras(interop.to_keras(weights), cell, bidirectional=bidirectional), weights)
    if cell in (GRU("before", "write"), RELU):
        names = [("a/gru_1", "gru_2"), ("gru_3", "gru_4")] if cell != RELU else None
        if bidirectional and names:
            assert_same_bits(interop.from_haiku(interop.to_haiku(weights, names), names), headless)
        if not bidirectional:
            assert_same_bits(interop.from_haiku(interop.to_haiku(weights)), headless)


def test_haikus_forget_gate_is_one_higher():
    weights = random_weights(LSTM(), bidirectional=False)
    again = interop.from_haiku(interop.to_haiku(weights))
    for one, other in zip(jax.tree.leaves(again.layers), jax.tree.leaves(weights.layers), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-7)  # (b - 1) + 1 rounds


def test_update_conventions_are_one_another_with_the_sign_turned():
    weights = random_weights(GRU("after", "write"))
    xs = jax.random.normal(jax.random.key(0), (2, 7, SIZE))
    kept = interop.from_torch(interop.to_torch(weights))
    assert kept.cell == GRU("after", "keep")
    np.testing.assert_allclose(kept.stack()(xs), weights.stack()(xs), rtol=0, atol=1e-6)
    assert_same_bits(interop.from_haiku(interop.to_haiku(random_weights(GRU("before"), False))),
                     interop.from_haiku(interop.to_haiku(random_weights(GRU("before"), False))))  # fmt: skip


def test_normalised_products_keep_their_gains_where_the_sign_is_turned():
    stack = Stack(LayerNormGRU(update="write"), SIZE, (HIDDEN,), rngs=nnx.Rngs(1))
    weights = interop.weights_of(stack)
    params = jax.tree.map(lambda a: a + 0.3, weights.layers[0][0])  # biases and gains that are not what they begin as
    weights = weights._replace(layers=((params,),))
    xs = jax.random.normal(jax.random.key(0), (2, 7, SIZE))
    np.testing.assert_allclose(weights.with_update("keep").stack()(xs), weights.stack()(xs), rtol=0, atol=1e-6)


def test_a_head_that_shares_the_embedding_has_its_kernel():
    model = SequenceModel(GRU(), OUTPUTS, (HIDDEN,), OUTPUTS, embedding=HIDDEN, tied=True, rngs=nnx.Rngs(3))
    weights = interop.weights_of(model)
    features = np.random.default_rng(0).normal(size=(3, HIDDEN)).astype(np.float32)
    linear = features @ interop.to_torch(model, head="fc.")["fc.weight"].T + weights.head["bias"]
    np.testing.assert_allclose(linear, model.read_out(jnp.asarray(features)), atol=1e-6)


@pytest.mark.parametrize("options", [{"readout": "attention"}, {"highway": 6}])
def test_parts_of_a_model_that_would_be_lost_are_refused(options):
    if "highway" in options:
        model = Forecaster(GRU(), SIZE, (HIDDEN,), 2, columns=1, horizon=2, rngs=nnx.Rngs(0), **options)
    else:
        model = SequenceModel(GRU(), SIZE, (HIDDEN,), OUTPUTS, rngs=nnx.Rngs(0), **options)
    with pytest.raises(UsageError, match=r"(attention|context_map).* no place in weights; network.stack is without"):
        interop.to_torch(model)
    assert interop.weights_of(model.stack).head is None


def test_a_model_goes_through_a_file(tmp_path):
    model = SequenceModel(GRU(), SIZE, (HIDDEN, HIDDEN), OUTPUTS, bidirectional=True, rngs=nnx.Rngs(3))
    path = tmp_path / "model.safetensors"
    interop.save_safetensors(model, path, rnn="encoder.rnn.", head="fc.")
    xs = jax.random.normal(jax.random.key(0), (2, 7, SIZE))
    np.testing.assert_array_equal(interop.from_torch(path).model()(xs), model(xs))
    assert_same_bits(interop.weights_of(interop.from_torch(path).model()), interop.from_torch(path))


def test_networks_of_every_kind_give_their_weights():
    layer = Recurrent(GRU(), SIZE, HIDDEN, rngs=nnx.Rngs(0))
    assert interop.weights_of(layer).hidden_sizes == (HIDDEN,)
    stack = Stack(LSTM(), SIZE, (5, 6), bidirectional=True, rngs=nnx.Rngs(0))
    assert interop.weights_of(stack).hidden_sizes == (5, 6)
    with pytest.raises(UsageError, match="reverse=True: other libraries"):
        interop.to_torch(Recurrent(GRU(), SIZE, HIDDEN, reverse=True, rngs=nnx.Rngs(0)))


def changed(state, **changes):
    state = {**state, **changes}
    return {name: a for name, a in state.items() if a is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight_hh_l1": None}, "missing weight_hh_l1"),
        ({"bias_hh_l0": None}, "missing bias_hh_l0"),
        ({"bias_ih_l1": None, "bias_hh_l1": None}, "missing bias_ih_l1, bias_hh_l1"),
        ({"weight_ih_l1": np.ones((12, 9))}, r"fit nowhere: W_r of layer 1, direction 0: \[9, 4\] for \[4, 4\]"),
        ({"weight_hh_l0": np.ones((8, 4))}, r"a recurrent kernel of 2 gates, \[4, 8\]; PyTorch has RNN \(1\)"),
        ({"bias_ih_l0": np.ones(5)}, r"not so bias \[5\]"),
        ({"fc1.weight": np.ones((2, 3)), "fc2.weight": np.ones((2, 3))}, r"fc1.weight \[2, 3\], fc2.weight \[2, 3\]"),
        ({"fc.weight": np.ones((2, 9)), "fc.bias": np.ones(2)}, r"kernel of the head: \[9, 2\] for \[4, 2\]"),
        ({"weight_hr_l0": np.ones((2, 4))}, r"fit nowhere: weight_hr_l0 \[2, 4\], which an LSTM with proj_size has"),
        ({"other.weight_ih_l0": np.ones((12, 3))}, "of several recurrent modules"),
    ],
)
def test_what_fits_nowhere_is_listed(changes, message):
    state = interop.to_torch(random_weights(GRU(), bidirectional=False))
    with pytest.raises(UsageError, match=message) as error:
        interop.from_torch(changed(state, **changes))
    assert "\n" not in str(error.value)


def test_refusals():
    gru = random_weights(GRU(), bidirectional=False)
    with pytest.raises(UsageError, match=r"PyTorch has no GRU\(reset='before'.*it has GRU with reset='after'"):
        interop.to_torch(random_weights(GRU("before")))
    with pytest.raises(UsageError, match=r"Haiku has no GRU\(reset='after'"):
        interop.to_haiku(gru)
    with pytest.raises(UsageError, match=r"fit nowhere in NNX: c_n \[4\]; its GRUCell lacks"):
        interop.to_nnx(gru)
    with pytest.raises(UsageError, match="linen has no LayerNormGRU"):
        interop.to_linen(Stack(LayerNormGRU(), SIZE, (HIDDEN,), rngs=nnx.Rngs(0)))
    with pytest.raises(UsageError, match="Keras has no LayerNormGRU"):
        interop.to_keras(Stack(LayerNormGRU(), SIZE, (HIDDEN,), rngs=nnx.Rngs(0)))
    with pytest.raises(UsageError, match="PyTorch has layers of one size alone"):
        interop.to_torch(Stack(GRU(), SIZE, (5, 6), rngs=nnx.Rngs(0)))
    with pytest.raises(UsageError, match=r"cell=LSTM\(\): these weights are of the kind GRU in PyTorch"):
        interop.from_torch(interop.to_torch(gru), LSTM())
    with pytest.raises(UsageError, match=r"weights of PyTorch: none is named weight_ih_l0; there are a \[2\]"):
        interop.from_torch({"a": np.ones(2)})
    with pytest.raises(UsageError, match=r"weights of Keras fit nowhere: \[2\]"):
        interop.from_keras([np.ones(2)])
    with pytest.raises(UsageError, match="weights of Haiku: no gru, lstm or vanilla_rnn among linear"):
        interop.from_haiku({"linear": {"w": np.ones((2, 2))}})
    with pytest.raises(UsageError, match="weights: have no head"):
        gru.model()
    with pytest.raises(UsageError, match=r"weights: float64, which .* jax_enable_x64"):
        random_weights(GRU(), dtype="float64").stack()
    mixed = gru._replace(layers=(gru.layers[0], random_weights(GRU(), False, "float64").layers[1]))
    with pytest.raises(UsageError, match=r"weights: of several types, float32, float64; .astype makes them one"):
        mixed.stack()
    with pytest.raises(UsageError, match=r"weights: float16; allowed are float32, float64"):
        gru.astype("float16").stack()
    with pytest.raises(UsageError, match="no such file"):
        interop.from_torch("nowhere.safetensors")


def test_a_damaged_file(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"not such a file at all")
    with pytest.raises(UsageError, match=r"not a safetensors file"):
        interop.from_torch(path)
