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

from gru_jax.cells import GRU, LSTM, Elman

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


def _biases(params, gates):
    """Bias vectors of the input and the recurrent side, gates side by side."""
    own = params.get("c", {})
    ours = [params["b"][g] for g in gates]
    inner = [b if g in own else SHARE * b for g, b in zip(gates, ours, strict=True)]
    outer = [own[g] if g in own else (1 - SHARE) * b for g, b in zip(gates, ours, strict=True)]
    return np.concatenate(inner).astype(ours[0].dtype), np.concatenate(outer).astype(ours[0].dtype)


def _by_gate(params, gates, size, w, u, b, c):
    """Gradients of fused arrays by our names; `w`, `u` are [D, k H], [H, k H]."""
    grads = {}
    for i, gate in enumerate(gates):
        part = slice(i * size, (i + 1) * size)
        grads[f"W/{gate}"], grads[f"U/{gate}"], grads[f"b/{gate}"] = w[:, part], u[:, part], b[part]
        if gate in params.get("c", {}):
            grads[f"c/{gate}"] = c[part]
        else:
            np.testing.assert_allclose(c[part], b[part], rtol=1e-4, atol=1e-6)
    return grads


def _torch(module_of, gates):
    def peer(params, xs, h0, weight):
        import torch

        size = weight.shape[-1]
        module = module_of(torch, xs.shape[-1], size).to(torch.from_numpy(xs).dtype)
        b, c = _biases(params, gates)
        fused = {
            "weight_ih": np.concatenate([params["W"][g] for g in gates], axis=1).T,
            "weight_hh": np.concatenate([params["U"][g] for g in gates], axis=1).T,
            "bias_ih": b,
            "bias_hh": c,
        }
        weights = {name.removesuffix("_l0"): p for name, p in module.named_parameters()}
        with torch.no_grad():
            for name, value in fused.items():
                weights[name].copy_(torch.from_numpy(np.ascontiguousarray(value)))
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
        grads = {name: weights[name].grad.numpy() for name in fused}
        named = _by_gate(
            params, gates, size, grads["weight_ih"].T, grads["weight_hh"].T, grads["bias_ih"], grads["bias_hh"]
        )
        for name, part in zip(("h0", "c0"), parts, strict=False):
            named[name] = part.grad.numpy()
        return {"hs": hs.detach().numpy(), "xs": x.grad.numpy(), **named}

    return peer


def _keras_gru(reset_after):
    gates = ("z", "r", "n")

    def peer(params, xs, h0, weight):
        os.environ.setdefault("KERAS_BACKEND", "jax")
        import jax
        import jax.numpy as jnp
        import keras

        size = weight.shape[-1]
        with warnings.catch_warnings(), jax.numpy_dtype_promotion("standard"):
            warnings.simplefilter("ignore")
            # Keras' own tanh (3.15 on JAX) rounds to float32 in between.
            layer = keras.layers.GRU(size, activation=jnp.tanh, return_sequences=True, reset_after=reset_after,
                                     dtype=str(xs.dtype))  # fmt: skip
            layer.build(xs.shape)
            kernel = np.concatenate([params["W"][g] for g in gates], axis=1)
            recurrent = np.concatenate([params["U"][g] for g in gates], axis=1)
            single = np.concatenate([params["b"][g] for g in gates])
            bias = np.stack(_biases(params, gates)) if reset_after else single

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
        named = _by_gate(params, gates, size, np.asarray(w), np.asarray(u), inner, outer)
        return {"hs": np.asarray(hs), "xs": np.asarray(x), "h0": np.asarray(h), **named}

    return peer


def _torch_rnn(activation):
    return _torch(lambda torch, d, h: torch.nn.RNN(d, h, nonlinearity=activation, batch_first=True), ("n",))


# name: (library, our cell, peer)
PEERS = {
    "torch_gru": (
        "torch", GRU(), _torch(lambda torch, d, h: torch.nn.GRU(d, h, batch_first=True), ("r", "z", "n")),
    ),
    "torch_gru_cell": ("torch", GRU(), _torch(lambda torch, d, h: torch.nn.GRUCell(d, h), ("r", "z", "n"))),
    "torch_lstm": (
        "torch", LSTM(), _torch(lambda torch, d, h: torch.nn.LSTM(d, h, batch_first=True), ("i", "f", "n", "o")),
    ),
    "torch_rnn_tanh": ("torch", Elman(), _torch_rnn("tanh")),
    "torch_rnn_relu": ("torch", Elman("relu"), _torch_rnn("relu")),
    "keras_gru_after": ("keras", GRU(), _keras_gru(reset_after=True)),
    "keras_gru_before": ("keras", GRU(reset="before"), _keras_gru(reset_after=False)),
}  # fmt: skip
