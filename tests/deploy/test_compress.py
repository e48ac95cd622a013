"""Networks made smaller: what is stored is what is computed with, and what is taken out was not read."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

import gru_jax
from experiments import compress, evaluate, train
from gru_jax.cells import CELLS
from gru_jax.config import load
from gru_jax.deploy.numpy_gru import NumpyNetwork
from gru_jax.deploy.pruning import prune_units
from gru_jax.deploy.storage import flatten_params, pack, pack_exactly, quantise, rounded, unpack
from gru_jax.errors import UsageError
from gru_jax.runs.compression import COMPRESSION_METHODS, _config_of
from gru_jax.training.network import build_model
from tests.training.small import small

XS = jax.random.normal(jax.random.key(7), (3, 6, 2))
NUMBERS = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)


@given(arrays_of.arrays(np.float32, arrays_of.array_shapes(min_dims=2, max_dims=2), elements=NUMBERS))
def test_bytes_are_the_nearest_and_stay(kernel):
    """Each product is within half a scale, exact in float32, and quantises to the same bytes."""
    numbers, scales = quantise(kernel)
    read = numbers * scales
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, numbers.astype(np.float64) * scales.astype(np.float64))
    assert (np.abs(read - kernel.astype(np.float64)) <= scales / 2 + 1e-30).all()
    again = quantise(read)
    np.testing.assert_array_equal(again[0], numbers)
    used = (numbers != 0).any(axis=0)
    np.testing.assert_array_equal(again[1][used], scales[used])


@pytest.mark.parametrize(("stored_as", "size"), [("full", 4), ("bfloat16", 2), ("int8", 1)])
def test_what_is_stored_is_what_is_computed_with(stored_as, size):
    params = build_model(small()).init(jax.random.key(0))
    values = rounded(params, stored_as)
    packed = pack_exactly(values, stored_as)
    assert {a.dtype.itemsize for a in packed.values() if a.ndim == 2} == {size}
    jax.tree.map(np.testing.assert_array_equal, unpack(packed), values)
    if stored_as != "full":
        with pytest.raises(UsageError, match=f"its numbers are none of {stored_as}; they would be rounded"):
            pack_exactly(params, stored_as)
    jax.tree.map(np.testing.assert_array_equal, pack(values, stored_as), packed)


def unread(params, layers, removed):
    """Parameters in which nothing reads these units of any layer."""
    flat = {name: np.array(leaf) for name, leaf in flatten_params(params).items()}
    for number, places in enumerate(layers):
        for place in places:
            path, rows = "/".join(place.path), [place.part * place.units + unit for unit in removed]
            above = [n for n in flat if n.startswith(f"stack/layer_{number + 1}/") and "/W/" in n] or ["head/kernel"]
            for name in above:
                flat[name][rows] = 0
            for name in [n for n in flat if n.startswith(f"{path}/U/")]:
                flat[name][removed] = 0
    return unpack(flat)


@pytest.mark.parametrize("changes", [{"hidden": (7, 5)}, {"hidden": (6, 5), "bidirectional": True}], ids=str)
@pytest.mark.parametrize("cell", sorted(CELLS.keys() - {"layer_norm_gru"}))  # its gates read all units by their norm
def test_units_that_nothing_reads_go_without_a_trace(cell, changes):
    config = small(model={"cell": {"name": cell}, **changes, "init": {"bias": "normal", "bias_scale": 0.3}})
    model = build_model(config)
    params = unread(model.init(jax.random.key(0)), model.layers, [0, 2])
    sizes = tuple(size - 2 for size in config.model.hidden)
    fewer = build_model(small(model={"cell": {"name": cell}, **changes, "hidden": sizes}))
    pruned = jax.tree.map(jnp.asarray, prune_units(params, model.layers, sizes))
    needed = jax.eval_shape(fewer.init, jax.random.key(0))
    assert jax.tree.map(np.shape, pruned) == jax.tree.map(np.shape, needed)
    np.testing.assert_allclose(fewer.apply(pruned, XS).outputs, model.apply(params, XS).outputs, atol=1e-6)


def test_a_normalised_network_loses_units_in_every_group():
    config = small(model={"cell": {"name": "layer_norm_gru"}, "hidden": (6, 5)})
    model, fewer = build_model(config), build_model(small(model={"cell": {"name": "layer_norm_gru"}, "hidden": (3, 2)}))
    pruned = prune_units(model.init(jax.random.key(0)), model.layers, (3, 2))
    needed = jax.eval_shape(fewer.init, jax.random.key(0))
    assert jax.tree.map(np.shape, pruned) == jax.tree.map(np.shape, needed)


@pytest.mark.parametrize("sizes", [(4,), (8, 5), (7, 6)])
def test_no_more_units_than_there_are(sizes):
    model = build_model(small(model={"hidden": (7, 5)}))
    with pytest.raises(UsageError, match=r"model\.hidden=\[.*\]: allowed are as many layers, of up to \[7, 5\] units"):
        prune_units(model.init(jax.random.key(0)), model.layers, sizes)


def test_units_of_a_network_without_a_head():
    model = build_model(small())
    params = {"stack": model.init(jax.random.key(0))["stack"]}
    with pytest.raises(UsageError, match="units: the network has no linear head of its own, whose inputs could go"):
        prune_units(params, model.layers, (2,))


@pytest.fixture(autouse=True)
def measured_once(monkeypatch):
    """Times are not looked at here."""
    monkeypatch.setattr("gru_jax.runs.latency.TURNS", 1)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    path = tmp_path_factory.mktemp("compressed") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gru_jax.runs.pictures.draw_pictures", lambda rundir, config: [])
        train.run(small(model={"hidden": (6, 5)}, flow={"every": 0}, optimizer={"warmup_steps": 4}), path)
    return path


@pytest.mark.parametrize(
    ("method", "dtype"), [("int8", "int8"), pytest.param("bfloat16", "uint16", marks=pytest.mark.slow)]
)
def test_a_run_of_small_numbers(method, dtype, original, tmp_path, undrawn, unchecked_types):
    """It is the rounded network, scores by itself, and goes out in as few bytes."""
    compression = compress.run(original, tmp_path / "small", method)
    run = gru_jax.open(tmp_path / "small")
    assert run.summary["steps"] == 0
    jax.tree.map(np.testing.assert_array_equal, run.params, rounded(gru_jax.open(original).params, method))
    assert evaluate.run(run).equals_stored
    table = {row["network"]: row for row in compression.table.to_dicts()}
    assert table["original"]["test_loss"] == gru_jax.open(original).summary["best"]["test"]["loss"]
    assert table[method]["test_loss"] == run.summary["best"]["test"]["loss"] != table["original"]["test_loss"]
    network = NumpyNetwork(run.export(tmp_path / "small.zip", platforms=("cpu",)))
    assert network.description["model"]["weights"] == method
    with np.load(tmp_path / "small.zip") as archive:
        assert archive["weights/stack/layer_0/weights/U/n"].dtype == dtype
    np.testing.assert_allclose(
        network.sequence(network.start(3), np.asarray(XS))[1], run.predict(XS).outputs, atol=1e-6
    )


def test_a_run_of_fewer_units(original, tmp_path, undrawn, capsys):
    """It trains on from what stays; the same command says that it is done, and measures anew."""
    flags = ["--workdir", str(original), "--method", "units", "--output", str(tmp_path / "few"), "--steps", "3"]
    for line in ("3 steps", "already done"):
        assert compress.command([*flags, "--hidden", "3,4", "--lr", "0.02"]) == 0
        out = capsys.readouterr().out
        assert line in out
        assert f"results: {tmp_path / 'few'}" in out
    run = gru_jax.open(tmp_path / "few")
    assert run.config.model.hidden == (3, 4)
    assert run.config.optimizer.lr == 0.02
    assert run.config.train.init_from == f"{original}:best"
    source = gru_jax.open(original)
    pruned = prune_units(source.params, build_model(source.config).layers, (3, 4))
    stored = json.loads((tmp_path / "few" / "compression.json").read_text())["networks"]
    assert stored["units"]["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(pruned))
    assert stored["units"]["parameters"] < stored["original"]["parameters"]
    assert evaluate.run(run).equals_stored


@pytest.mark.slow
def test_a_run_of_fewer_weights(original, tmp_path, undrawn):
    """Three in four of each kernel are gone; what is stored says how many are left. It goes out in bytes, too."""
    compression = compress.run(original, tmp_path / "sparse", "magnitude", sparsity=0.75, steps=4)
    run, table = gru_jax.open(tmp_path / "sparse"), {row["network"]: row for row in compression.table.to_dicts()}
    kernels = [np.asarray(leaf) for leaf in jax.tree.leaves(run.params) if leaf.ndim > 1]
    gone = sum(round(0.75 * kernel.size) for kernel in kernels)
    assert sum(int((kernel == 0).sum()) for kernel in kernels) == gone
    assert table["magnitude"]["parameters"] == table["original"]["parameters"]
    assert table["magnitude"]["not_zero"] <= table["original"]["parameters"] - gone
    assert evaluate.run(run).equals_stored
    compress.run(run, tmp_path / "bytes", "int8")
    assert gru_jax.open(tmp_path / "bytes").config.regularization.sparsity == 0


@pytest.mark.slow
def test_without_retraining_it_is_what_stays(original, tmp_path, undrawn):
    compress.run(original, tmp_path / "half", "units", steps=0)
    source, run = gru_jax.open(original), gru_jax.open(tmp_path / "half")
    assert run.config.model.hidden == (3, 2)
    pruned = prune_units(source.params, build_model(source.config).layers, (3, 2))
    jax.tree.map(np.testing.assert_array_equal, run.params, pruned)


@pytest.mark.parametrize("method", COMPRESSION_METHODS)
def test_where_the_original_began_is_of_its_training_alone(method, original):
    transfer = {"parts": ("layers",), "thaw_steps": (3,), "rates": {"head": 0.5}}
    gradient = {"floss": 2, "floss_before": 3}
    config = small(model={"hidden": (6, 5)}, train={"init_from": str(original)}, transfer=transfer, gradient=gradient)
    made = _config_of(config, original, method, {})
    assert (made.transfer.parts, made.transfer.num_thaws) == (None, 0)
    assert made.gradient.floss_before == (3 if method == "distil" else 0)
    assert made.transfer.rate_by_part == ({} if method == "distil" else {"head": 0.5})


def test_wrong_use_is_one_line(original, tmp_path):
    flags = ["--workdir", str(original)]
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.json").write_text((original / "config.json").read_text())
    for arguments, message in (
        (
            [*flags, "--method", "int4"],
            "--method='int4': allowed are units, magnitude, distil, int8, bfloat16; did you mean 'int8'?",
        ),
        (flags, "--method: missing; allowed is units, magnitude, distil, int8, bfloat16"),
        (
            [*flags, "--method", "int8", "--hidden", "3"],
            "--hidden=[3]: without effect on int8; allowed with method=units or distil",
        ),
        ([*flags, "--method", "units", "--hidden", "9,9"], "allowed are as many layers, of up to [6, 5] units"),
        ([*flags, "--method", "units", "--steps", "few"], "--steps=few"),
        (["--workdir", str(tmp_path / "begun"), "--method", "int8"], "begun: not finished, it has no summary"),
    ):
        with pytest.raises(UsageError) as error:
            compress.command([*arguments, "--output", str(tmp_path / "new")])
        assert message in str(error.value)
        assert "\n" not in str(error.value)
        assert not (tmp_path / "new").exists()


def test_configs_that_contradict_themselves(original):
    start = {"init_from": str(original)}
    for section, message in (
        ({"steps": 0}, r"train\.steps=0: allowed are whole numbers from 1, or 0 with train\.init_from"),
        (
            {"steps": 1, "init_as": "units"},
            r"train\.init_as='units': without effect; train\.init_from says of which run",
        ),
        ({"steps": 1, **start, "init_as": "int8"}, r"train\.init_as='int8': training would change its numbers"),
    ):
        with pytest.raises(UsageError, match=message):
            load({"train": section})
    assert load({"train": {"steps": 0, **start}}).train.steps == 0
