"""Outputs and gradients of other libraries' cells for our parameters; used live and for the stored values.

A peer is a function of (params, xs, h0, weight) in numpy: our parameters, inputs [B, T, D], an initial state [B, H]
(for the LSTM a pair), and a weight [B, T, H]. It returns a flat dict with "hs", the states, and the gradients of
sum(hs * weight) with respect to everything, by the name our parameters have: "W/r", "xs", "h0", ...
Where a peer has two biases for our one, it is given unequal parts of it; both must have our gradient.
"""

from __future__ import annotations

import os
import warnings

import numpy as np

from gru_jax import interop
from gru_jax.cells import GRU, LSTM, Elman
from tests import lenient

SHARE = 0.3  # of a bias that goes to a peer's input side where it has two


def random_problem(cell, batch, time, input_size, hidden_size, dtype, seed):
    """Non-zero random parameters, inputs, initial state and weight for a cell."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return (0.5 * rng.standard_normal(shape)).astype(dtype)

    rows = {"W": (input_size,), "U": (hidden_size,)}
    params = {
        group: {g: draw(*rows.get(group, ()), hidden_size) for g in gates} for group, gates in cell.groups.items()
    }
    params = {group: gates for group, gates in params.items() if gates}
    carry = tuple(draw(batch, hidden_size) for _ in range(cell.carry_parts))
    h0 = carry if cell.carry_parts > 1 else carry[0]
    return params, draw(batch, time, input_size), h0, draw(batch, time, hidden_size)


def _shared(bias, outer):
    """Unequal parts of each bias that ours has once and a peer twice: where the recurrent side is zero in ours."""
    moved = np.where(outer == 0, (1 - SHARE) * bias, 0).astype(bias.dtype)
    return bias - moved, outer + moved


def _by_gate(cell, fused, gates):
    """Gradients of fused arrays by our names; a peer's two biases must have the same where ours is one."""
    grads = interop.unfuse(cell, fused._replace(recurrent_bias=np.zeros_like(fused.bias)), gates)
    outer = interop.unfuse(cell, fused._replace(bias=np.zeros_like(fused.bias)), gates)
    for gate in gates:
        if gate in cell.recurrent_biases:
            grads["c"][gate] = outer["c"][gate]
        else:
            np.testing.assert_allclose(outer["b"][gate], grads["b"][gate], rtol=1e-4, atol=1e-6)
    return {f"{group}/{gate}": a for group, by_gate in grads.items() for gate, a in by_gate.items()}


def _torch(cell, module_of):
    def peer(params, xs, h0, weight):
        import torch

        size = weight.shape[-1]
        module = module_of(torch, xs.shape[-1], size).to(torch.from_numpy(xs).dtype)
        state = interop.to_torch(interop.Weights(cell, ((params,),)))
        state["bias_ih_l0"], state["bias_hh_l0"] = _shared(state["bias_ih_l0"], state["bias_hh_l0"])
        weights = {name.removesuffix("_l0"): p for name, p in module.named_parameters()}
        with torch.no_grad():
            for name, value in state.items():
                weights[name.removesuffix("_l0")].copy_(torch.from_numpy(value))
        x = torch.from_numpy(xs).requires_grad_()
        parts = [torch.from_numpy(h).requires_grad_() for h in (h0 if isinstance(h0, tuple) else (h0,))]
        if isinstance(module, torch.nn.GRUCell):
            h, steps = parts[0], []
            for t in range(xs.shape[1]):
                h = module(x[:, t], h)
                steps.append(h)
            hs = torch.stack(steps, dim=1)
        else:
            start = tuple(h[None] for h in parts)
            hs, _ = module(x, start if len(start) > 1 else start[0])
        (hs * torch.from_numpy(weight)).sum().backward()
        grads = [weights[name].grad.numpy().T for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        named = _by_gate(cell, interop.Fused(*grads), interop.torch.GATES[type(cell)])
        for name, part in zip(("h0", "c0"), parts, strict=False):
            named[name] = part.grad.numpy()
        return {"hs": hs.detach().numpy(), "xs": x.grad.numpy(), **named}

    return peer


def _keras_gru(cell):
    reset_after = cell.reset == "after"

    def peer(params, xs, h0, weight):
        os.environ.setdefault("KERAS_BACKEND", "jax")
        import jax
        import jax.numpy as jnp
        import keras

        size = weight.shape[-1]
        with warnings.catch_warnings(), lenient.jax_as_users_have_it():
            warnings.simplefilter("ignore")
            # Keras' own tanh (3.15 on JAX) rounds to float32 in between.
            layer = keras.layers.GRU(size, activation=jnp.tanh, return_sequences=True, reset_after=reset_after,
                                     dtype=str(xs.dtype))  # fmt: skip
            layer.build(xs.shape)
            kernel, recurrent, bias = interop.to_keras(interop.Weights(cell, ((params,),)))
            if reset_after:
                bias = np.stack(_shared(*bias))

            def run(variables, x, h):
                return layer.stateless_call(variables, [v.value for v in layer.non_trainable_variables], x,
                                            initial_state=h)[0]  # fmt: skip

            def loss(variables, x, h):
                return (run(variables, x, h) * weight).sum()

            variables = [kernel, recurrent, bias]
            hs = run(variables, xs, h0)
            (w, u, b), x, h = jax.grad(loss, argnums=(0, 1, 2))(variables, xs, h0)
        b = np.asarray(b)
        inner, outer = (b[0], b[1]) if reset_after else (b, b)
        named = _by_gate(cell, interop.Fused(np.asarray(w), np.asarray(u), inner, outer), interop.keras.GATES[GRU])
        return {"hs": np.asarray(hs), "xs": np.asarray(x), "h0": np.asarray(h), **named}

    return peer


def _torch_rnn(activation):
    return _torch(Elman(activation), lambda torch, d, h: torch.nn.RNN(d, h, nonlinearity=activation, batch_first=True))


# name: (library, our cell, peer)
PEERS = {
    "torch_gru": ("torch", GRU(), _torch(GRU(), lambda torch, d, h: torch.nn.GRU(d, h, batch_first=True))),
    "torch_gru_cell": ("torch", GRU(), _torch(GRU(), lambda torch, d, h: torch.nn.GRUCell(d, h))),
    "torch_lstm": ("torch", LSTM(), _torch(LSTM(), lambda torch, d, h: torch.nn.LSTM(d, h, batch_first=True))),
    "torch_rnn_tanh": ("torch", Elman(), _torch_rnn("tanh")),
    "torch_rnn_relu": ("torch", Elman("relu"), _torch_rnn("relu")),
    "keras_gru_after": ("keras", GRU(), _keras_gru(GRU())),
    "keras_gru_before": ("keras", GRU("before"), _keras_gru(GRU("before"))),
}
