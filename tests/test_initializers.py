"""Initialisation schemes: their distributions, their signs, and that they vary one thing at a time."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax.cells import GRU, LSTM, Elman, MinGRU, RefineGRU
from gru_jax.errors import UsageError
from gru_jax.initializers import KERNELS, Scheme

D, H = 96, 64
KEY = jax.random.key(0)
CELLS = [GRU(), GRU(update="write"), GRU(output_gate=True), RefineGRU(), LSTM(), Elman(), MinGRU()]


def kernels(name, scale=1.0):
    params = GRU().init(KEY, D, H, Scheme(input=name, recurrent=name, input_scale=scale, recurrent_scale=scale))
    return params["W"], params["U"]


@pytest.mark.parametrize("cell", [c for c in CELLS if c.recurrent_gates], ids=str)
def test_orthogonal_in_every_gate(cell):
    params = cell.init(KEY, D, H, Scheme(recurrent="orthogonal", recurrent_scale=0.7))
    for kernel in params["U"].values():
        np.testing.assert_allclose(kernel @ kernel.T, 0.49 * np.eye(H), atol=1e-5)


VARIANCES = {  # of the entries of a [fan_in, fan_out] kernel
    "glorot_uniform": lambda i, o: 2 / (i + o),
    "glorot_normal": lambda i, o: 2 / (i + o),
    "xavier_uniform": lambda i, o: 2 / (i + o),
    "xavier_normal": lambda i, o: 2 / (i + o),
    "lecun_uniform": lambda i, o: 1 / i,
    "lecun_normal": lambda i, o: 1 / i,
    "he_uniform": lambda i, o: 2 / i,
    "he_normal": lambda i, o: 2 / i,
    "fan_in_normal": lambda i, o: 1 / i,
    "uniform": lambda i, o: 1 / (3 * o),
    "normal": lambda i, o: 1.0,
    "zeros": lambda i, o: 0.0,
}


@pytest.mark.parametrize("name", VARIANCES)
def test_variances(name):
    for group, fan_in in zip(kernels(name, scale=3.0), (D, H), strict=True):
        wanted = 9 * VARIANCES[name](fan_in, H)
        for kernel in group.values():
            assert np.var(kernel) == pytest.approx(wanted, rel=0.06)
            assert abs(np.mean(kernel)) <= 4 * (wanted / kernel.size) ** 0.5


def test_every_kernel_name_is_tested():
    assert {*VARIANCES, "orthogonal", "identity"} == set(KERNELS)


def test_uniform_stays_within_its_bound():
    for group in kernels("uniform"):
        for kernel in group.values():
            assert np.abs(kernel).max() <= 1 / H**0.5


def test_identity():
    w, u = kernels("identity", 0.5)
    np.testing.assert_array_equal(u["n"], 0.5 * np.eye(H, dtype=np.float32))
    np.testing.assert_array_equal(w["n"], 0.5 * np.eye(D, H, dtype=np.float32))


def time_scales(cell, params):
    """Steps in which an idle cell forgets: 1 / (1 - retention), the retention computed by the cell itself."""
    h = jnp.ones(H)
    _, gates = cell.step_with_gates(params, cell.with_hidden(cell.initial_carry((), H), h * 0), jnp.zeros(D))
    gate, sign, *_ = cell.memory
    retention = gates[gate] if sign > 0 else 1 - gates[gate]
    return 1 / (1 - np.asarray(retention, np.float64))


@pytest.mark.parametrize("cell", [c for c in CELLS if c.memory], ids=str)
def test_chrono_spans_the_time_scales(cell):
    params = cell.init(KEY, D, H, Scheme(gate_bias="chrono", t_min=5.0, t_max=400.0))
    scales = time_scales(cell, params)
    assert scales.min() >= 5 * 0.99
    assert scales.max() <= 400 * 1.01
    assert scales.mean() == pytest.approx((5 + 400) / 2, rel=0.2)


@pytest.mark.parametrize("cell", [c for c in CELLS if c.memory], ids=str)
def test_uniform_gate_is_uniform(cell):
    retention = 1 - 1 / time_scales(cell, cell.init(KEY, D, 64, Scheme(gate_bias="uniform_gate")))
    assert retention.min() >= 1 / H - 1e-6
    assert retention.max() <= 1 - 1 / H + 1e-6
    np.testing.assert_allclose(np.sort(retention), np.linspace(0, 1, H), atol=0.2)


def test_signs_and_tied_write_gates():
    scheme = Scheme(gate_bias="chrono", t_max=100.0)
    keep, write, lstm, gated = (
        cell.init(KEY, D, H, scheme)["b"] for cell in (GRU(), GRU(update="write"), LSTM(), GRU(output_gate=True))
    )
    np.testing.assert_array_equal(keep["z"], -write["z"])
    assert (keep["z"] >= 0).all()
    np.testing.assert_array_equal(lstm["f"], -lstm["i"])
    np.testing.assert_array_equal(gated["z"], -gated["o"])
    refined = [RefineGRU().init(KEY, D, H, Scheme(gate_bias=b, t_max=100.0))["b"] for b in ("uniform_gate", "chrono")]
    np.testing.assert_array_equal(refined[0]["z"], -refined[0]["s"])
    assert (refined[1]["s"] == 0).all()
    constant = LSTM().init(KEY, D, H, Scheme(gate_bias="constant", gate_value=2.0))["b"]
    assert (constant["f"] == 2).all()
    assert (constant["i"] == 0).all()


def test_changing_one_gate_leaves_the_rest():
    plain = GRU().init(KEY, D, H, Scheme())
    changed = GRU().init(KEY, D, H, Scheme(gate_bias="uniform_gate", gates={"n": {"recurrent": "identity"}}))
    for group, gates in plain.items():
        for gate, value in gates.items():
            same = bool((value == changed[group][gate]).all())
            assert same == ((group, gate) not in {("b", "z"), ("U", "n")})


def test_pytorch_scheme_draws_every_bias():
    params = GRU().init(KEY, D, H, Scheme("uniform", recurrent="uniform", bias="uniform"))
    for bias in (*params["b"].values(), *params["c"].values()):
        assert 0 < np.abs(bias).max() <= 1 / H**0.5


def test_scales_may_be_traced_and_keys_differ():
    def init(key, scale, t_max):
        return GRU().init(key, D, H, Scheme(recurrent_scale=scale, gate_bias="chrono", t_max=t_max))

    keys = jax.random.split(KEY, 3)
    many = jax.jit(jax.vmap(init))(keys, jnp.array([0.5, 1.0, 2.0]), jnp.array([10.0, 100.0, 1000.0]))
    for i, scale in enumerate((0.5, 1.0, 2.0)):
        u = many["U"]["n"][i]
        np.testing.assert_allclose(u @ u.T, scale**2 * np.eye(H), atol=1e-4)
    assert not np.allclose(many["W"]["n"][0], many["W"]["n"][1])


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_dtypes(dtype, x64):
    params = LSTM().init(KEY, D, H, Scheme(gate_bias="chrono", t_max=10.0), dtype)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(dtype)}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Scheme(input="glorot"), ("input='glorot'", "glorot_uniform")),
        (lambda: Scheme(recurrent="orthogonl"), ("did you mean 'orthogonal'",)),
        (lambda: Scheme(bias="zero"), ("did you mean 'zeros'",)),
        (lambda: Scheme(gate_bias="crono"), ("did you mean 'chrono'",)),
        (lambda: Scheme(gates={"n": {"recurent": "zeros"}}), ("gates.n", "did you mean 'recurrent'")),
        (lambda: GRU().init(KEY, 2, 3, Scheme(gate_bias="chrono")), ("t_max",)),
        (lambda: Scheme(gate_bias="chrono", t_max=0.5), ("t_max=0.5", "from 1")),
        (lambda: Scheme(gate_bias="chrono", t_max=float("nan")), ("t_max=nan", "from 1")),
        (lambda: Scheme(t_min=0), ("t_min=0", "from 1")),
        (lambda: Scheme(gates={"z": {"bias": "zero"}}), ("gates.z.bias='zero'", "did you mean 'zeros'")),
        (lambda: Scheme(gates={"z": {"t_max": -2.0}}), ("gates.z.t_max=-2.0", "from 1")),
        (lambda: GRU().init(KEY, 2, 3, Scheme(gate_bias="chrono", t_min=9, t_max=5.0)), ("t_min=9", "below t_max=5.0")),
        (
            lambda: GRU().init(KEY, 2, 3, Scheme(gates={"z": {"gate_bias": "chrono", "t_max": 2.0}})),
            ("gates.z.t_min=2.0", "below t_max=2.0"),
        ),
        (lambda: GRU().init(KEY, 2, 3, Scheme(gates={"f": {}})), ("'f'", "n, r, z")),
        (lambda: Elman().init(KEY, 2, 3, Scheme(gate_bias="chrono", t_max=9.0)), ("Elman", "no gate")),
        (
            lambda: GRU().init(KEY, 2, 3, Scheme(gate_bias="chrono", t_max=9.0, gates={"z": {"bias": "constant"}})),
            ("gates.z.bias: without effect on GRU", "gate_bias='chrono', sets this bias"),
        ),
        (
            lambda: GRU().init(KEY, 2, 3, Scheme(gates={"z": {"gate_bias": "zeros", "bias_scale": 2.0}})),
            ("gates.z.bias_scale: without effect on GRU", "gate_bias='zeros'"),
        ),
    ],
)
def test_wrong_use_names_the_argument(make, words):
    with pytest.raises(UsageError) as raised:
        make()
    assert all(word in str(raised.value) for word in words)


@pytest.mark.parametrize("of_gate", [{"t_max": 50.0}, {"gate_bias": "zeros"}])
def test_time_scales_are_asked_for_of_the_gate_that_reads_them(of_gate):
    params = GRU().init(KEY, 2, 3, Scheme(gate_bias="chrono", gates={"z": of_gate}))
    assert np.isfinite(params["b"]["z"]).all()
