"""Exported networks, in processes that have JAX alone or NumPy alone, are the model."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from flax import nnx
from jax import export

import gru_jax
from experiments import export as export_command
from experiments import train
from gru_jax.cells import CELLS
from gru_jax.config import load
from gru_jax.deploy import numpy_gru
from gru_jax.errors import UsageError
from gru_jax.nn import SequenceModel
from gru_jax.runs.export import export_network
from gru_jax.runs.predictions import predict
from gru_jax.tasks import Adding, Arrays
from gru_jax.training.network import build_model
from tests.deploy.apart import JAX_ALONE, NUMPY_ALONE, description_of, run_apart
from tests.lenient import jax_as_users_have_it


@pytest.fixture(scope="module", autouse=True)
def unchecked_sizes():
    """Types say that sizes are numbers, which exports leave open."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


ADDING = {"name": "adding", "length": 8}
COPYING = {"name": "copy_memory", "length": 3}
NETWORKS = {
    **{name: {"task": ADDING, "model": {"cell": {"name": name}}} for name in CELLS},
    "gru before, write, output gate": {
        "task": COPYING,
        "model": {"cell": {"name": "gru", "reset": "before", "update": "write", "output_gate": True}, "hidden": (5, 3)},
    },
    "lstm stack, every": {"task": COPYING, "model": {"cell": {"name": "lstm"}, "hidden": (3, 5)}},
    "gru stack, mean": {"task": ADDING, "model": {"hidden": (4, 3), "readout": "mean"}},
    "relu": {"task": ADDING, "model": {"cell": {"name": "gru", "activation": "relu"}}},
    "positive": {"task": ADDING, "model": {"cell": {"name": "mingru", "activation": "positive"}}},
    "two directions": {"task": ADDING, "model": {"cell": {"name": "lstm"}, "hidden": (4, 3), "bidirectional": True}},
    "two directions, every": {"task": COPYING, "model": {"hidden": (3,), "bidirectional": True}},
    "two directions, mean": {"task": ADDING, "model": {"hidden": (3,), "bidirectional": True, "readout": "mean"}},
}
QUICK = ("gru", "gru before, write, output gate", "lstm stack, every", "gru stack, mean", "two directions")
LENGTHS = np.array([7, 0, 3, 1, 7])


def network_of(changes):
    """A config, and parameters of which none is zero."""
    values = {**changes, "train": {"steps": 1}, "model": {"hidden": (4,), **changes["model"]}}
    config = load({**values, "model": {**values["model"], "init": {"bias": "normal", "bias_scale": 0.3}}})
    return config, build_model(config).init(jax.random.key(1))


def inputs_of(config, batch=5, time=7):
    return np.random.default_rng(0).normal(size=(batch, time, config.task.input_size)).astype(np.float32)


def made_apart(names, folder):
    """By name, a network, what both kinds of process made of it, and its description."""
    shutil.copy(numpy_gru.__file__, folder)
    networks, paths = {name: network_of(NETWORKS[name]) for name in names}, {}
    for number, (name, (config, params)) in enumerate(networks.items()):
        paths[name] = folder / f"{number}.zip"
        paths[name].write_bytes(export_network(config, params, ("cpu",)))
    inputs = {paths[name]: (inputs_of(config), LENGTHS) for name, (config, _) in networks.items()}
    results = {script: run_apart(script, inputs, folder) for script in (JAX_ALONE, NUMPY_ALONE)}
    return {
        name: (networks[name], {script: by_path[path] for script, by_path in results.items()}, description_of(path))
        for name, path in paths.items()
    }


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    return made_apart(QUICK, tmp_path_factory.mktemp("quick"))


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    return made_apart(NETWORKS.keys() - set(QUICK), tmp_path_factory.mktemp("others"))


def assert_is_the_model(result, script, tolerance):
    """Whole sequences of any length, in one part or in two, and steps up to each of theirs."""
    (config, params), results, description = result
    made, xs, model = results[script], inputs_of(config), build_model(config)
    trace = model.apply(params, xs, lengths=LENGTHS)
    np.testing.assert_allclose(made["sequence"], trace.outputs, atol=tolerance, rtol=tolerance)
    each = config.model.readout == "every"
    if config.model.bidirectional:
        assert "steps" not in made
        assert description["programs"]["step"] is None
        assert "both directions" in description["why_no_step"]
        return
    parts = made["parts"] if not each else made["parts"][[0, 4]]
    wanted = trace.outputs if not each else trace.outputs[[0, 4], 2:]
    np.testing.assert_allclose(parts, wanted, atol=tolerance, rtol=tolerance)
    for layer, carry in enumerate(trace.carry):
        h = carry[0] if isinstance(carry, tuple) else carry
        np.testing.assert_allclose(made[f"carry/layer_{layer}.h"], h, atol=tolerance)
    for b, length in enumerate(LENGTHS):
        if length:
            steps = made["steps"][b, :length] if each else made["steps"][b, length - 1]
            whole = trace.outputs[b, :length] if each else trace.outputs[b]
            np.testing.assert_allclose(steps, whole, atol=tolerance, rtol=tolerance)


APART = pytest.mark.parametrize(("script", "tolerance"), [(JAX_ALONE, 1e-6), (NUMPY_ALONE, 1e-5)], ids=["jax", "numpy"])


@APART
@pytest.mark.parametrize("name", QUICK)
def test_programs_apart_are_the_model(name, script, tolerance, quick):
    assert_is_the_model(quick[name], script, tolerance)


@pytest.mark.slow
@APART
@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in QUICK])
def test_other_programs_apart_are_the_model(name, script, tolerance, others):
    assert_is_the_model(others[name], script, tolerance)


@pytest.mark.parametrize("cell", ["gru", pytest.param("lstm", marks=pytest.mark.slow)])
def test_ten_thousand_steps(cell, tmp_path):
    """One after the other as all at once, with one and with several sequences from one file."""
    changes = {"task": COPYING, "model": {"cell": {"name": cell}, "hidden": (16,)}}
    config, params = network_of(changes)
    shutil.copy(numpy_gru.__file__, tmp_path)
    xs = inputs_of(config, 2, 10_000)
    wanted = jax.jit(build_model(config).apply)(params, xs).outputs
    content = export_network(config, params, ("cpu",))
    paths = {name: tmp_path / f"{name}.zip" for name in ("one", "two")}
    for path in paths.values():
        path.write_bytes(content)
    full = np.full(2, 10_000)
    inputs = {paths["one"]: (xs[:1, :5], np.full(1, 5)), paths["two"]: (xs, full)}
    for script, tolerance in ((JAX_ALONE, 1e-6), (NUMPY_ALONE, 1e-5)):
        made = run_apart(script, inputs, tmp_path)
        for name in ("sequence", "steps"):
            np.testing.assert_allclose(made[paths["two"]][name], wanted, atol=tolerance)
            np.testing.assert_allclose(made[paths["one"]][name], wanted[:1, :5], atol=tolerance)


def test_a_step_waits_for_few_products(quick):
    """One of the inputs and one of the state, as in `streaming_step`, and the head's."""
    (config, params), _, _ = quick["gru"]
    archive = np.load(io.BytesIO(export_network(config, params, ("cpu",))))
    assert export.deserialize(bytearray(archive["step.jax"])).mlir_module().count("stablehlo.dot_general") == 3


@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float64", marks=pytest.mark.slow)])
def test_other_types(dtype, x64):
    """They compute as the model does, in the type of the carry at their doors."""
    changes = {"task": ADDING, "dtype": dtype, "model": {"hidden": (4, 3)}}
    values = {**changes, "train": {"steps": 1}}
    config = load(values)
    model = build_model(config)
    params = model.init(jax.random.key(1))
    archive = np.load(io.BytesIO(export_network(config, params, ("cpu", "cuda", "tpu"))))
    wide = np.float64 if dtype == "float64" else np.float32
    xs = inputs_of(config).astype(wide)
    weights = {name[8:]: archive[name] for name in archive.files if name.startswith("weights/")}
    carry = {"layer_0.h": np.zeros((5, 4), wide), "layer_1.h": np.zeros((5, 3), wide)}
    program = export.deserialize(bytearray(archive["sequence.jax"]))
    assert program.platforms == ("cpu", "cuda", "tpu")
    _, outputs = program.call(weights, carry, xs, LENGTHS.astype(np.int32))
    wanted = model.apply(params, xs.astype(config.dtype), lengths=LENGTHS).outputs
    np.testing.assert_allclose(outputs, wanted, atol={"bfloat16": 1e-2, "float64": 1e-12}[dtype])


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A run on sequences of unequal length, with gaps and in units of their own, of three classes with names."""
    folder, rng = tmp_path_factory.mktemp("labelled"), np.random.default_rng(0)
    examples = [(rng.normal(50, 9, (1 + i % 5, 2)), ["ash", "oak", "elm"][i % 3]) for i in range(24)]
    for xs, _ in examples[::4]:
        xs[0, 1] = np.nan
    task = Arrays.write(
        folder / "mine", **dict.fromkeys(("train", "valid", "test"), examples), scale=True, missing="mask"
    )
    settings = {"model": {"hidden": 6}, "train": {"steps": 2, "batch_size": 8}, "flow": {"every": 0}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gru_jax.runs.pictures.draw_pictures", lambda rundir, config: [])
        train.run({**settings, "task": task}, folder / "run")
    for path in (folder / "mine").iterdir():
        path.unlink()
    return folder / "run"


def test_a_run_exports_without_its_data(labelled, tmp_path, capsys):
    """What stands in files goes in, scaling and gaps are inside, and names come out."""
    path = tmp_path / "trees.zip"
    flags = ["--workdir", str(labelled), "--output", str(path), "--platforms", "cpu,tpu"]
    assert export_command.command(flags) == 0
    assert f"exported for cpu, tpu: {path}, {path.stat().st_size:,} bytes" in capsys.readouterr().out
    description = description_of(path)
    assert description["outputs"]["classes"] == ["ash", "elm", "oak"]
    assert description["platforms"] == ["cpu", "tpu"]
    assert description["run"]["test"].keys() == {"accuracy", "loss"}
    xs = np.random.default_rng(1).normal(50, 9, (4, 3, 2)).astype(np.float32)
    xs[2, 1, 0] = np.nan
    lengths = np.array([3, 1, 2, 3])
    wanted = gru_jax.open(labelled).predict(xs, lengths)
    shutil.copy(numpy_gru.__file__, tmp_path)
    for script, tolerance in ((JAX_ALONE, 1e-6), (NUMPY_ALONE, 1e-5)):
        made = run_apart(script, {path: (xs, lengths)}, tmp_path)[path]
        np.testing.assert_allclose(made["sequence"], wanted.outputs, atol=tolerance)
    network = numpy_gru.NumpyNetwork(path)
    names, shares = network.read(network.sequence(network.start(4), xs, lengths)[1])
    assert names.tolist() == wanted.columns["prediction"].tolist()
    np.testing.assert_allclose(shares[:, 1], wanted.columns["p(elm)"], atol=1e-5)


ONNX = {name: NETWORKS[name] for name in ("gru", "lstm stack, every", "gru stack, mean", "layer_norm_gru")}


@pytest.mark.parametrize("name", ONNX)
def test_onnx_is_the_model(name):
    """Whole sequences of sizes that the file does not know, and steps."""
    pytest.importorskip("jax2onnx")
    runtime = pytest.importorskip("onnxruntime")
    config, params = network_of(ONNX[name])
    with jax_as_users_have_it():
        archive = np.load(io.BytesIO(export_network(config, params, ("cpu",), onnx=True)))
    description = json.loads(archive["description.json"])
    assert description["onnx"] == ["sequence", "step"]
    xs, model = inputs_of(config), build_model(config)
    start = {part: np.zeros((5, *shape), np.float32) for part, shape in description["carry"].items()}
    sequence, step = (runtime.InferenceSession(archive[f"{program}.onnx"]) for program in description["onnx"])
    outputs = sequence.run(["outputs"], {"xs": xs, "lengths": LENGTHS.astype(np.int32), **start})[0]
    np.testing.assert_allclose(outputs, model.apply(params, xs, lengths=LENGTHS).outputs, atol=1e-5)
    carry, whole = start, model.apply(params, xs).outputs
    for t in range(xs.shape[1]):
        names = ["outputs", *(f"next.{part}" for part in carry)]
        outputs, *parts = step.run(names, {"x": xs[:, t], **carry})
        carry = dict(zip(carry, parts, strict=True))
    np.testing.assert_allclose(outputs, whole[:, -1] if whole.ndim == 3 else whole, atol=1e-5)


def test_onnx_that_cannot_be_is_one_line(labelled, tmp_path):
    config, params = network_of({"task": ADDING, "dtype": "bfloat16", "model": {}})
    with pytest.raises(UsageError, match="ONNX: the network computes in bfloat16; allowed is float32"):
        export_network(config, params, ("cpu",), onnx=True)
    if importlib.util.find_spec("jax2onnx") is None:
        with pytest.raises(UsageError, match=r"ONNX is written by jax2onnx: pip install 'gru_jax\[onnx\]' brings it"):
            export_command.command(["--workdir", str(labelled), "--onnx", "true"])
    else:
        config, params = network_of(NETWORKS["two directions"])
        with pytest.raises(UsageError, match="ONNX: jax2onnx cannot write this network: Reverse scan"):
            export_network(config, params, ("cpu",), onnx=True)


def test_equal_runs_give_equal_files(labelled, tmp_path):
    run = gru_jax.open(labelled)
    one, two = (run.export(tmp_path / name, platforms=("cpu",)) for name in ("one.zip", "two.zip"))
    assert one.read_bytes() == two.read_bytes()
    assert run.export(platforms=("cpu",)) == labelled / "export.zip"


def test_numbers_come_in_their_units(tmp_path):
    rng = np.random.default_rng(0)
    split = (rng.normal(5, 3, (12, 4, 2)).astype(np.float32), rng.normal(100, 20, (12, 2)))
    task = Arrays.write(tmp_path / "mine", **dict.fromkeys(("train", "valid", "test"), split), scale=True)
    config = load({"task": task, "model": {"hidden": 6}, "train": {"steps": 1, "batch_size": 4}})
    params = build_model(config).init(jax.random.key(1))
    (tmp_path / "numbers.zip").write_bytes(export_network(config, params, ("cpu",)))
    network = numpy_gru.NumpyNetwork(tmp_path / "numbers.zip")
    numbers = network.read(network.sequence(network.start(12), split[0])[1])
    wanted = predict(config, params, {"xs": split[0]}).columns
    np.testing.assert_allclose(numbers, np.stack(list(wanted.values()), axis=-1), rtol=1e-5)


def test_wrong_use_is_one_line(labelled, tmp_path):
    flags = ["--workdir", str(labelled)]
    for more, message in (
        (["--platforms", "cpu,gpu"], "--platforms='gpu': allowed are cpu, cuda, rocm, tpu"),
        (["--checkpoint", "bets"], "--checkpoint='bets': allowed are best, latest; did you mean 'best'?"),
        (["--output", "no/such/file.zip"], "--output=no/such/file.zip: its directory does not exist"),
    ):
        with pytest.raises(UsageError) as error:
            export_command.command([*flags, *more])
        assert message in str(error.value)
    with pytest.raises(UsageError, match="--workdir: missing"):
        export_command.command([])


def test_numpy_refuses_what_it_cannot_do(tmp_path):
    config, params = network_of(NETWORKS["two directions"])
    (tmp_path / "both.zip").write_bytes(export_network(config, params, ("cpu",)))
    network = numpy_gru.NumpyNetwork(tmp_path / "both.zip")
    with pytest.raises(ValueError, match="no step: the network reads in both directions"):
        network.step({}, np.ones((1, 2)))


@pytest.mark.parametrize("how", [{"keep": "boundaries"}, {"keep": "gates", "chunk": 3}, {"method": "fast"}])
def test_how_a_network_was_unrolled_is_no_part_of_it(how):
    config, params = network_of(NETWORKS["gru"])
    other = load({**config.to_dict(), "model": {**config.to_dict()["model"], **how}})
    xs, made = inputs_of(config), []
    for one in (config, other):
        with np.load(io.BytesIO(export_network(one, params, ("cpu",)))) as archive:
            weights = {name[8:]: archive[name] for name in archive.files if name.startswith("weights/")}
            program = export.deserialize(bytearray(archive["sequence.jax"]))
            carry = {"layer_0.h": np.zeros((len(xs), 4), np.float32)}
            made.append((archive["description.json"], program.call(weights, carry, xs, LENGTHS.astype(np.int32))[1]))
    assert made[0][0] == made[1][0]
    np.testing.assert_array_equal(made[0][1], made[1][1])


@pytest.mark.parametrize("task", [{"name": "delayed_memory", "length": 8, "delay": 2}, {"name": "parity", "length": 8}])
def test_of_labels_numpy_reads_probabilities(task, tmp_path):
    config, params = network_of({"task": task, "model": {}})
    (tmp_path / "labels.zip").write_bytes(export_network(config, params, ("cpu",)))
    network, xs = numpy_gru.NumpyNetwork(tmp_path / "labels.zip"), inputs_of(config)
    outputs = network.sequence(network.start(len(xs)), xs)[1]
    read = config.task.read_outputs(outputs)
    (probabilities,) = (values for name, values in read.items() if name.startswith("p("))
    np.testing.assert_allclose(network.read(outputs)[..., 0], probabilities, atol=1e-6)


@dataclasses.dataclass(frozen=True)
class Doubled(Adding):
    """A task of a user's own, which makes inputs ready by itself."""

    def network_inputs(self, xs):
        return 2.0 * xs


def test_numpy_refuses_inputs_that_a_task_of_ones_own_makes_ready(tmp_path):
    config, params = network_of({"task": Doubled(8), "model": {}})
    (tmp_path / "own.zip").write_bytes(export_network(config, params, ("cpu",)))
    with pytest.raises(ValueError, match="its inputs are made ready by a task of one's own"):
        numpy_gru.NumpyNetwork(tmp_path / "own.zip")


class Scaled(SequenceModel):
    """A model of a user's own."""

    def __init__(self, *args, rngs, **kwargs):
        super().__init__(*args, rngs=rngs, **kwargs)
        self.scale = nnx.Param(2.0 * jnp.ones(()))

    def trace(self, xs, *args, **kwargs):
        return super().trace(self.scale[...] * xs, *args, **kwargs)


def test_a_model_of_ones_own_has_whole_sequences(tmp_path):
    """NumPy alone would not know what it does with its parameters, and steps cannot be told of it."""
    config, params = network_of({"task": ADDING, "model": {"family": Scaled}})
    path, xs = tmp_path / "own.zip", inputs_of(config)
    path.write_bytes(export_network(config, params, ("cpu",)))
    assert "of a user's own" in description_of(path)["why_no_step"]
    made = run_apart(JAX_ALONE, {path: (xs, LENGTHS)}, tmp_path)[path]
    wanted = build_model(config).apply(params, xs, lengths=LENGTHS).outputs
    np.testing.assert_allclose(made["sequence"], wanted, atol=1e-6)
    with pytest.raises(ValueError, match=r"has the readout last and weights .*scale.*; not known here"):
        numpy_gru.NumpyNetwork(path)


def test_the_reader_imports_numpy_alone():
    lines = Path(numpy_gru.__file__).read_text().splitlines()
    imports = [line for line in lines if line.startswith(("import ", "from "))]
    assert imports == ["import json", "from typing import Any", "import numpy as np"]
