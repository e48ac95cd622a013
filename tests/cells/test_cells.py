"""Cells against numpy written out from the papers, and what all cells have in common."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

import gru_jax
from gru_jax.cells import CELLS, GRU, LSTM, Elman, LayerNormGRU, MinGRU, RefineGRU
from gru_jax.errors import UsageError
from gru_jax.runtime.devices import precision
from tests.golden.peers import random_problem

ALL = [
    *(GRU(reset, update, gate, act) for reset in ("after", "before") for update in ("keep", "write")
      for gate in (False, True) for act in ("tanh", "relu")),
    LSTM(), Elman(), Elman("relu"), Elman("identity"), MinGRU(), MinGRU("positive"), MinGRU("tanh"),
    RefineGRU(), LayerNormGRU(), LayerNormGRU("before", "write", True),
]  # fmt: skip


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def relu(x):
    return np.maximum(x, 0)


def gru_by_hand(cell, p, h, x):
    f = {"tanh": np.tanh, "relu": relu}[cell.activation]
    r = sigmoid(x @ p["W"]["r"] + p["b"]["r"] + h @ p["U"]["r"])
    z = sigmoid(x @ p["W"]["z"] + p["b"]["z"] + h @ p["U"]["z"])
    u = x @ p["W"]["n"] + p["b"]["n"]
    before = cell.reset == "before"
    n = f(u + (r * h) @ p["U"]["n"]) if before else f(u + r * (h @ p["U"]["n"] + p["c"]["n"]))
    keep = z if cell.update == "keep" else 1 - z
    write = 1 - keep
    if cell.output_gate:
        write = sigmoid(x @ p["W"]["o"] + p["b"]["o"] + h @ p["U"]["o"])
    return keep * h + write * n


def lstm_by_hand(cell, p, carry, x):
    h, c = carry
    i, f, n, o = (x @ p["W"][g] + p["b"][g] + h @ p["U"][g] for g in "ifno")
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(n)
    return sigmoid(o) * np.tanh(c), c


def elman_by_hand(cell, p, h, x):
    f = {"tanh": np.tanh, "relu": relu, "identity": lambda v: v}[cell.activation]
    return f(x @ p["W"]["n"] + p["b"]["n"] + h @ p["U"]["n"])


def mingru_by_hand(cell, p, h, x):
    def positive(x):
        return np.where(x >= 0, x + 0.5, sigmoid(x))

    f = {"identity": lambda x: x, "positive": positive, "tanh": np.tanh}[cell.activation]
    z = sigmoid(x @ p["W"]["z"] + p["b"]["z"])
    return (1 - z) * h + z * f(x @ p["W"]["n"] + p["b"]["n"])


def refine_by_hand(cell, p, h, x):
    r, z, s = (sigmoid(x @ p["W"][g] + p["b"][g] + h @ p["U"][g]) for g in "rzs")
    n = np.tanh(x @ p["W"]["n"] + p["b"]["n"] + r * (h @ p["U"]["n"] + p["c"]["n"]))
    low, high = z**2, 2 * z - z**2  # the band in which the refine gate moves the update gate
    g = low + s * (high - low)
    return g * h + (1 - g) * n


def layer_norm_by_hand(cell, p, h, x):
    def norm(v):
        return (v - v.mean(-1, keepdims=True)) / np.sqrt(v.var(-1, keepdims=True) + 1e-5)

    def read(g):
        return p["p"][g] * norm(x @ p["W"][g]) + p["b"][g]

    def recur(g, q):
        return p["s"][g] * norm(q @ p["U"][g])

    r, z = (sigmoid(read(g) + recur(g, h)) for g in "rz")
    before = cell.reset == "before"
    n = np.tanh(read("n") + (recur("n", r * h) if before else r * (recur("n", h) + p["c"]["n"])))
    keep = z if cell.update == "keep" else 1 - z
    return keep * h + (sigmoid(read("o") + recur("o", h)) if cell.output_gate else 1 - keep) * n


BY_HAND = {
    GRU: gru_by_hand, LSTM: lstm_by_hand, Elman: elman_by_hand, MinGRU: mingru_by_hand, RefineGRU: refine_by_hand,
    LayerNormGRU: layer_norm_by_hand,
}  # fmt: skip


def as_jax(tree):
    return jax.tree.map(jnp.asarray, tree)


@pytest.mark.parametrize("cell", ALL, ids=str)
@settings(max_examples=8)
@given(seed=st.integers(0, 2**16), batch=st.integers(1, 4), input_size=st.integers(1, 6), hidden_size=st.integers(1, 7))
def test_step_is_the_papers(cell, seed, batch, input_size, hidden_size):
    params, xs, h, _ = random_problem(cell, batch, 1, input_size, hidden_size, "float32", seed)
    wide = jax.tree.map(lambda a: a.astype("float64"), (params, h, xs[:, 0]))
    wanted = BY_HAND[type(cell)](cell, wide[0], wide[1], wide[2])
    got = cell.step(*as_jax((params, h, xs[:, 0])))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), got, wanted)


def smooth(cell):
    return getattr(cell, "activation", "tanh") in ("tanh", "identity")


@pytest.mark.parametrize("cell", [c for c in ALL if smooth(c)], ids=str)
def test_derivatives_by_finite_differences(cell, x64):
    params, xs, h, _ = random_problem(cell, 2, 1, 3, 4, "float64", 0)
    order = 2 if cell in (GRU(), MinGRU()) else 1  # the second takes most of a minute to compile for all
    step = jax.jit(lambda *arguments: cell.step(*as_jax(arguments)))  # with jax_disable_jit they come as NumPy arrays
    check_grads(step, as_jax((params, h, xs[:, 0])), order=order, modes=("fwd", "rev"), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("cell", ALL, ids=str)
def test_leading_dimensions_and_vmap(cell, x64):
    params, xs, h, _ = as_jax(random_problem(cell, 6, 1, 3, 4, "float64", 0))
    x = xs[:, 0]
    flat = cell.step(params, h, x)
    fold = cell.step(params, jax.tree.map(lambda a: a.reshape(2, 3, 4), h), x.reshape(2, 3, 3))
    none = cell.step(params, jax.tree.map(lambda a: a[0], h), x[0])
    mapped = jax.vmap(cell.step, in_axes=(None, 0, 0))(params, h, x)
    for got, shape in ((fold, (2, 3, 4)), (none, (4,)), (mapped, (6, 4))):
        rows = slice(0, 1) if shape == (4,) else slice(None)
        jax.tree.map(
            lambda a, b, shape=shape, rows=rows: np.testing.assert_allclose(
                a.reshape(-1, 4), b[rows], rtol=1e-12, atol=1e-13
            ),
            got,
            flat,
        )
        assert cell.hidden(got).shape == shape


@pytest.mark.parametrize("cell", ALL, ids=str)
def test_half_precision_keeps_a_float32_carry(cell):
    params, xs, h, _ = as_jax(random_problem(cell, 3, 1, 5, 8, "float32", 0))
    for dtype in (jnp.bfloat16, jnp.float16):
        for p in (params, jax.tree.map(lambda a, dtype=dtype: a.astype(dtype), params)):
            carry = cell.step(p, h, xs[:, 0].astype(dtype))
            exact = cell.step(params, h, xs[:, 0])
            for got, wanted in zip(jax.tree.leaves(carry), jax.tree.leaves(exact), strict=True):
                assert got.dtype == jnp.float32
                np.testing.assert_allclose(got, wanted, atol=0.1)


def test_plain_function_is_the_cell():
    cell = GRU("before", "write", True, "relu")
    params, xs, h, _ = as_jax(random_problem(cell, 3, 1, 5, 8, "float32", 0))
    options = {"reset": "before", "update": "write", "output_gate": True, "activation": "relu"}
    np.testing.assert_array_equal(gru_jax.gru(params, h, xs[:, 0], **options), cell.step(params, h, xs[:, 0]))


def test_cells_are_hashable_values():
    assert len({*ALL, *ALL}) == len(ALL)
    assert set(CELLS.values()) == {type(cell) for cell in ALL}


def step(cell, *, params=None, carry=None, x=None):
    """A step with three units and two inputs, of what is given and else of what fits."""
    params = cell.init(jax.random.key(0), 2, 3) if params is None else params
    return cell.step(params, cell.initial_carry((), 3) if carry is None else carry, jnp.zeros(2) if x is None else x)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: GRU(reset="befor"), ("reset='befor'", "before", "did you mean 'before'")),
        (lambda: GRU(update="hold"), ("update='hold'", "keep, write")),
        (lambda: GRU(activation="gelu"), ("activation='gelu'", "tanh, relu")),
        (lambda: Elman("sigmoid"), ("activation='sigmoid'",)),
        (lambda: MinGRU("relu"), ("activation='relu'", "identity")),
        (lambda: GRU().init(jax.random.key(0), 0, 4), ("input_size=0", "whole numbers from 1")),
        (lambda: GRU().init(jax.random.key(0), 4, -1), ("hidden_size=-1",)),
        (lambda: GRU().init(jax.random.key(0), 4, 2.5), ("hidden_size=2.5", "whole numbers")),
        (lambda: step(GRU(), x=jnp.zeros(2, int)), ("int32",)),
        (
            lambda: step(LSTM(), carry=jnp.zeros((2, 3)), x=jnp.zeros((2, 2))),
            ("LSTM carries a tuple of 2",),
        ),
        (lambda: step(GRU(), carry=(jnp.zeros(3), jnp.zeros(3))), ("carry is a tuple of 2", "GRU carries one array")),
        (lambda: step(GRU(), carry=jnp.zeros((2, 3))), ("carry has shape (2, 3): allowed is (3,)",)),
        (lambda: step(GRU(), carry=jnp.zeros(3, int)), ("carry has dtype int32",)),
        (lambda: step(GRU(), x=jnp.zeros(5)), ("x has 5 features: params were made for D=2",)),
        (lambda: step(GRU(), x=jnp.zeros(())), ("x has no features",)),
        (lambda: step(GRU(), params=LSTM().init(jax.random.key(0), 2, 3)), ("params lack", "GRU")),
        (lambda: step(Elman(), params=GRU().init(jax.random.key(0), 2, 3)), ("params are of another cell", "Elman")),
    ],
)
@pytest.mark.usefixtures("single_precision")
def test_wrong_use_names_the_argument(make, words, unchecked_types):
    with pytest.raises(UsageError) as raised:
        make()
    assert all(word in str(raised.value) for word in words)


@pytest.mark.parametrize("cell", [GRU(), LayerNormGRU()], ids=str)
def test_parameters_and_states_have_the_default_type(cell, x64):
    """Of JAX, as arrays have that no type is said for."""
    params, carry = cell.init(jax.random.key(0), 2, 3), cell.initial_carry((4,), 3)
    assert {a.dtype for a in jax.tree.leaves((params, carry))} == {jnp.dtype("float64")}
    assert cell.step(params, carry, jnp.ones((4, 2))).dtype == jnp.float64
    with precision("float32", "float32"):
        params, carry = cell.init(jax.random.key(0), 2, 3), cell.initial_carry((4,), 3)
    assert {a.dtype for a in jax.tree.leaves((params, carry))} == {jnp.dtype("float32")}


def test_mixed_precision_is_refused(x64):
    params = GRU().init(jax.random.key(0), 2, 3, dtype=jnp.float32)
    with pytest.raises(UsageError, match="float64 but params have float32"):
        GRU().step(params, jnp.zeros(3, jnp.float64), jnp.zeros(2, jnp.float64))
