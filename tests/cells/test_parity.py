"""Our cells against PyTorch and Keras: outputs and all gradients, with non-zero biases."""

from __future__ import annotations

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax
from tests.golden.make_golden import FOLDER, flat
from tests.golden.peers import PEERS, random_problem

TOLERANCE = {"float32": 1e-5, "float64": 1e-10}


def ours(cell, params, xs, h0, weight):
    """What a peer returns, computed by us."""

    def loss(params, xs, h0):
        hs = gru_jax.unroll(cell, params, xs, h0).hs
        return (hs * weight).sum(), hs

    arguments = jax.tree.map(jnp.asarray, (params, xs, h0))
    grads, hs = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(*arguments)
    named = flat(*grads, weight)
    named.pop("weight")
    return {"hs": hs, **named}


def compare(got, wanted, dtype):
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        assert got[name].dtype == value.dtype == dtype
        scale = max(1.0, float(np.abs(value).max(initial=0)))
        np.testing.assert_allclose(got[name], value, rtol=0, atol=TOLERANCE[dtype] * scale, err_msg=name)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", PEERS)
def test_stored(name, dtype, x64):
    cell = PEERS[name][1]
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as stored:
        inputs = {k.removeprefix(f"{dtype}/in/"): v for k, v in stored.items() if k.startswith(f"{dtype}/in/")}
        wanted = {k.removeprefix(f"{dtype}/out/"): v for k, v in stored.items() if k.startswith(f"{dtype}/out/")}
    params: dict = {}
    for key in list(inputs):
        group, slash, gate = key.partition("/")
        if slash:
            params.setdefault(group, {})[gate] = inputs.pop(key)
    h0 = (inputs["h0"], inputs["c0"]) if "c0" in inputs else inputs["h0"]
    compare(ours(cell, params, inputs["xs"], h0, inputs["weight"]), wanted, dtype)


@pytest.mark.parametrize(("dtype", "seed"), [("float32", 1), ("float64", 2)])
@pytest.mark.parametrize("name", PEERS)
def test_live(name, dtype, seed, x64):
    library, cell, peer = PEERS[name]
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed; test_stored has its values")
    rng = np.random.default_rng(seed)
    batch, input_size, hidden_size = (int(n) for n in rng.integers(1, 9, 3))
    time = int(rng.choice([1, 2, 13, 31]))
    problem = random_problem(cell, batch, time, input_size, hidden_size, dtype, seed)
    compare(ours(cell, *problem), peer(*problem), dtype)
