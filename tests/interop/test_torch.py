"""What PyTorch's state dicts may and may not be, against the live library."""

from __future__ import annotations

import functools
import inspect

import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax import interop
from gru_jax.cells import LSTM
from gru_jax.errors import UsageError
from tests.interop.refusal import assert_refused

torch = pytest.importorskip("torch")
XS = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")


class Model(torch.nn.Module):
    """A GRU and a linear layer, which is called and registered as one likes, on either side."""

    def __init__(self, rnn, name, linear, before=False):
        super().__init__()
        if before:
            setattr(self, name, linear)
        self.rnn = rnn
        setattr(self, name, linear)
        self.linear, self.before = [linear], before  # in a list it is not registered again

    def forward(self, xs):
        return self.rnn(self.linear[0](xs))[0] if self.before else self.linear[0](self.rnn(xs)[0])


def gru(inputs=3, hidden=4):
    return torch.nn.GRU(inputs, hidden, batch_first=True)


def outputs(module):
    hs = module(torch.from_numpy(XS))
    return (hs[0] if isinstance(hs, tuple) else hs).detach().numpy()


def assert_agrees(module, state=None, **kwargs):
    weights = interop.from_torch(module.state_dict() if state is None else state, **kwargs)
    ours = weights.stack() if weights.head is None else weights.model(readout="every")
    np.testing.assert_allclose(ours(jnp.asarray(XS)), outputs(module), rtol=0, atol=1e-6)


refused = functools.partial(assert_refused, read=interop.from_torch)


def test_parameters_that_require_gradients_are_read():
    module = gru()
    assert_agrees(module, dict(module.named_parameters()))


def test_bfloat16_is_read_exactly():
    module = gru().bfloat16()
    weights = interop.from_torch(module.state_dict())
    assert weights.dtype.name == "bfloat16"
    np.testing.assert_array_equal(
        weights.astype("float32").layers[0][0]["W"]["n"], module.weight_ih_l0[8:].detach().float().numpy().T
    )


def test_bfloat16_goes_through_a_file(tmp_path):
    weights = interop.from_torch(gru().bfloat16().state_dict())
    interop.save_safetensors(weights, tmp_path / "half.safetensors")
    again = interop.from_torch(tmp_path / "half.safetensors")
    np.testing.assert_array_equal(again.layers[0][0]["W"]["n"], weights.layers[0][0]["W"]["n"])


def test_a_head_without_bias_has_one_of_zeros():
    model = Model(gru(), "fc", torch.nn.Linear(4, 2, bias=False))
    assert_agrees(model)
    np.testing.assert_array_equal(interop.from_torch(model.state_dict()).head["bias"], np.zeros(2))


def test_a_linear_layer_before_the_rnn_is_not_taken_for_the_head(tmp_path):
    ambiguous = r"a\.weight \[3, 3\] fits before the recurrent module and behind; is it the head, say head='a\.'"
    before = Model(gru(3, 3), "a", torch.nn.Linear(3, 3), before=True).state_dict()
    refused(before, ambiguous)
    behind = Model(gru(3, 3), "a", torch.nn.Linear(3, 3))
    assert_agrees(behind)  # behind in the state dict

    import safetensors.torch

    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(behind.state_dict(), path)  # a file has no order
    refused(path, ambiguous)
    assert_agrees(behind, path, head="a.")
    weights = interop.from_torch(path, head="a.")
    interop.save_safetensors(weights, path)
    assert_agrees(behind, path)  # called head.
    refused(Model(gru(3, 4), "a", torch.nn.Linear(5, 3), before=True).state_dict(), r"\[5, 3\] for \[4, 3\]")


def test_the_name_of_the_head_is_checked():
    state = Model(gru(), "fc", torch.nn.Linear(4, 2)).state_dict()
    refused(state, r"head='fc': allowed are fc\.; did you mean 'fc\.'\?", head="fc")
    refused(gru().state_dict(), r"head='fc\.': allowed are None", head="fc.")


def with_head(**arrays):
    return {**gru().state_dict(), **{name.replace("_", "."): a for name, a in arrays.items()}}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (gru(), r"weights of PyTorch: GRU; needed are a state dict, module\.state_dict\(\), or the path"),
        ({0: np.ones(3)}, "weights of PyTorch: dict; needed are a state dict"),
        ({"state_dict": gru().state_dict()}, "state_dict is a .*Dict; needed is an array of real numbers"),
        (with_head(a_weight=np.ones((1, 4)), b_bias=np.ones(1)), r"fit nowhere: a\.weight \[1, 4\], b\.bias \[1\]"),
        (with_head(a_bias=np.ones(1)), r"fit nowhere: a\.bias \[1\]; beside the recurrent module"),
        (with_head(a_weight=np.ones((1, 4)), a_bias=np.float32(1)), r"bias of the head: \[\] for \[1\]"),
        (with_head(a_weight=np.ones((1, 4)), a_bias=np.ones((1, 1))), r"bias of the head: \[1, 1\] for \[1\]"),
        (with_head(a_weight=np.ones((2, 4)), a_bias=np.ones(3)), r"bias of the head: \[3\] for \[2\]"),
        (with_head(a_weight=np.ones(4)), r"fit nowhere: a\.weight \[4\]"),
        ({**gru().state_dict(), "weight_ih": np.ones((12, 3))}, "weight_ih_l0 and weight_ih are one array of one"),
        ({**gru().state_dict(), "weight_ih_l99999": np.ones((12, 4))}, "layers 0, 99999; they are numbered from 0"),
        ({**gru().state_dict(), "weight_hh_l0_reverse": np.ones((12, 4))}, "missing weight_ih_l0_reverse, bias_ih_l0"),
        ({"weight_ih_l0": np.ones(9), "weight_hh_l0": np.ones(9)}, r"weight_ih_l0 \[9\], weight_hh_l0 \[9\]; a weight"),
        ({"weight_ih_l0": np.ones((9, 2)), "weight_hh_l0": np.ones((9, 0))}, r"recurrent kernel of 0 gates, \[0, 9\]"),
        (torch.nn.LSTM(2, 4, proj_size=2).state_dict(), r"weight_hr_l0 \[2, 4\], which an LSTM with proj_size has"),
        (
            {name: a.to(torch.complex64) for name, a in gru().state_dict().items()},
            "weight_ih_l0 is a Tensor; needed is an array of real numbers",
        ),
        (gru().to("meta").state_dict(), "weight_ih_l0 is not an array: "),
    ],
)
def test_what_is_no_network_of_ours_is_refused(state, message):
    refused(state, message)


def test_a_file_that_cannot_be_written(tmp_path):
    weights = interop.from_torch(gru().state_dict())
    for path in (tmp_path / "missing" / "a.safetensors", tmp_path):
        with pytest.raises(UsageError, match=f"{path}: cannot be written: ") as error:
            interop.save_safetensors(weights, path)
        assert "\n" not in str(error.value)


def test_what_is_no_network_is_not_written():
    with pytest.raises(UsageError, match="network: GRU; allowed are Recurrent, Bidirectional, Stack"):
        inspect.unwrap(interop.weights_of)(gru())


def test_what_weights_determine_is_no_option():
    weights = interop.from_torch(torch.nn.LSTM(3, 4).state_dict())
    assert weights.cell == LSTM()
    with pytest.raises(UsageError, match=r"param_dtype: the weights are float32; \.astype changes that"):
        weights.stack(param_dtype="float16")
    with pytest.raises(UsageError, match="bidirectional: the weights are of one direction"):
        weights.stack(bidirectional=True)
