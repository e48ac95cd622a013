"""Exported networks that read tokens: programs apart are the model, texts become the run's tokens and come back."""

from __future__ import annotations

import io
import json
import shutil
import zipfile

import jax
import jaxtyping
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gru_jax
from experiments import compress, sample, train
from experiments import export as export_command
from gru_jax.config import load
from gru_jax.data.vocabulary import build_vocabulary
from gru_jax.deploy import numpy_gru
from gru_jax.deploy.archive import VOCABULARY, archive_bytes
from gru_jax.deploy.numpy_gru import NumpyNetwork
from gru_jax.deploy.pruning import prune_units
from gru_jax.deploy.text_codec import TextCodec
from gru_jax.errors import UsageError
from gru_jax.runs.export import export_network
from gru_jax.runs.predictions import predict
from gru_jax.training.network import build_model
from tests.deploy.apart import JAX_ALONE, NUMPY_ALONE, description_of, run_apart

TEXT = "To be, or not to be:\nthat is the question\n"
ROWS = [("A fine film", "good"), ("dull, dull", "bad"), ("fine and  dull", "mixed"), ("Not a film", "bad")]
LENGTHS = np.array([7, 0, 3, 1, 7])


@pytest.fixture(scope="module", autouse=True)
def unchecked_sizes():
    """Types say that sizes are numbers, which exports leave open."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts")
    (path / "a.txt").write_text(TEXT * 20)
    for split in ("train", "valid", "test"):
        (path / f"{split}.tsv").write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in ROWS))
    shutil.copy(numpy_gru.__file__, path)
    return path


def config_of(folder, of_classes=False, **model):
    """A config of a small language model, or of a classifier."""
    text = {"name": "text", "train": "a.txt", "valid_fraction": 0.2, "test_fraction": 0.1, "length": 9}
    task = {"name": "text_table", "length": 4} if of_classes else text
    model = {"hidden": (5, 4), "embedding": 3, "init": {"bias": "normal", "bias_scale": 0.3}, **model}
    train_section = {"steps": 6, "batch_size": 4, "eval_steps": 3, "log_steps": 3}
    return load({
        "task": {**task, "data_dir": str(folder)}, "model": model, "train": train_section, "devices": 1,
        "flow": {"every": 0},
    })  # fmt: skip


NETWORKS = {
    "language model, tied": {"embedding": 4, "tied": True, "embedding_scale": 1.0},
    "classifier, max": {"of_classes": True, "readout": "max"},
    "classifier, attention": {
        "of_classes": True, "readout": "attention", "bidirectional": True, "cell": {"name": "lstm"},
    },
    "classifier, last": {"of_classes": True},
}  # fmt: skip


@pytest.fixture(scope="module")
def apart(folder):
    """By name a network, what both kinds of process made of it, and its description."""
    networks, inputs = {}, {}
    for number, (name, changes) in enumerate(NETWORKS.items()):
        config = config_of(folder, **changes)
        params, path = build_model(config).init(jax.random.key(1)), folder / f"{number}.zip"
        path.write_bytes(export_network(config, params, ("cpu",)))
        xs = np.random.default_rng(0).integers(0, config.task.input_size, (5, 7)).astype(np.int32)
        networks[name], inputs[path] = (config, params, path), (xs, LENGTHS)
    results = {script: run_apart(script, inputs, folder) for script in (JAX_ALONE, NUMPY_ALONE)}
    return {
        name: (config, params, inputs[path][0], {script: made[path] for script, made in results.items()}, path)
        for name, (config, params, path) in networks.items()
    }


@pytest.mark.parametrize(("script", "tolerance"), [(JAX_ALONE, 1e-6), (NUMPY_ALONE, 1e-5)], ids=["jax", "numpy"])
@pytest.mark.parametrize("name", NETWORKS)
def test_programs_apart_are_the_model(name, script, tolerance, apart):
    config, params, xs, results, path = apart[name]
    made, each = results[script], config.model.readout == "every"
    wanted = build_model(config).apply(params, xs, lengths=LENGTHS).outputs
    np.testing.assert_allclose(made["sequence"], wanted, atol=tolerance, rtol=tolerance)
    assert ("steps" in made) == (description_of(path)["programs"]["step"] is not None) == (name[-3:] in ("ied", "ast"))
    for b, length in enumerate(LENGTHS):
        if length and "steps" in made:
            steps = made["steps"][b, :length] if each else made["steps"][b, length - 1]
            np.testing.assert_allclose(steps, wanted[b, :length] if each else wanted[b], atol=tolerance)


TRAINED_ON = "The cat — sees the dog.\nThe dog sees\u2028Zoë \U0001f600\n\n" * 3
CODECS = {
    kind: build_vocabulary(kind, TRAINED_ON, 300 if kind == "byte_pairs" else None)
    for kind in ("characters", "words", "bytes", "byte_pairs")
}


def codec_of(vocabulary, lower=False, last=None):
    reads = {"vocabulary": VOCABULARY, "lower": lower, "last": last}
    member = json.dumps(vocabulary.to_json()).encode()
    return TextCodec(io.BytesIO(archive_bytes({"inputs": reads}, {VOCABULARY: member}, {})))


@pytest.mark.parametrize("kind", CODECS)
@given(text=st.text(st.sampled_from("The cat.\n\tdogZë\U0001f600\u2028xq—<unk>"), min_size=1, max_size=30))
def test_a_codec_is_the_vocabulary(kind, text):
    vocabulary, codec = CODECS[kind], codec_of(CODECS[kind])
    wanted = vocabulary.encode(text).tolist()
    assert codec.encode(text) == (wanted or [0])
    assert codec.decode(wanted) == vocabulary.decode(wanted)
    shorter = codec_of(vocabulary, lower=True, last=3)
    assert shorter.encode(text) == (vocabulary.encode(text.lower())[-3:].tolist() or [0])


def test_a_codec_needs_a_vocabulary(tmp_path):
    (tmp_path / "numbers.zip").write_bytes(archive_bytes({"inputs": {"vocabulary": None}}, {}, {}))
    with pytest.raises(ValueError, match=r"numbers.zip: has no vocabulary; its network reads numbers"):
        TextCodec(tmp_path / "numbers.zip")


@pytest.fixture(scope="module")
def runs(folder):
    """Of a classifier, and of a language model whose head is the embedding."""
    configs = {
        "classifier": config_of(folder, of_classes=True, readout="max", hidden=(4,)),
        "language": config_of(folder, hidden=(4,), embedding=4, tied=True),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gru_jax.runs.pictures.draw_pictures", lambda rundir, config: [])
        return {name: train.run(config, folder / "runs" / name) for name, config in configs.items()}


def test_texts_in_and_labels_out(runs, tmp_path):
    """What a run predicts of texts is what the archive says of them."""
    run = runs["classifier"]
    texts = ["A FINE day, dull and long and short", "", "unheard", "dull"]
    arrays = run.config.task.encode_texts(texts)
    path = run.export(tmp_path / "texts.zip", platforms=("cpu",))
    network, codec = NumpyNetwork(path), TextCodec(path)
    xs, lengths = codec.arrays(texts)
    np.testing.assert_array_equal(lengths, arrays["lengths"])
    np.testing.assert_array_equal(xs, arrays["xs"][:, : xs.shape[1]])
    names, shares = network.read(network.sequence(network.start(4), xs, lengths)[1])
    wanted = predict(run.config, run.params, arrays)
    assert names.tolist() == wanted.columns["prediction"].tolist()
    assert network.description["outputs"]["classes"] == ["bad", "good", "mixed"]
    np.testing.assert_allclose(shares[:, 0], wanted.columns["p(bad)"], atol=1e-5)


def test_a_language_model_goes_on_with_a_text(runs):
    """Token by token in NumPy alone, the likeliest each time, as `experiments.sample` does."""
    run = runs["language"]
    assert export_command.command(["--workdir", str(run.path), "--platforms", "cpu"]) == 0
    path = run.path / "export.zip"
    network, codec = NumpyNetwork(path), TextCodec(path)
    carry, outputs = network.sequence(network.start(1), codec.arrays(["to be"])[0])
    outputs, drawn = outputs[:, -1], []
    for _ in range(12):
        likeliest, shares = network.read(outputs)
        np.testing.assert_allclose(shares.sum(), 1.0, rtol=1e-5)
        drawn.append(int(likeliest[0]))
        carry, outputs = network.step(carry, likeliest)
    assert codec.decode(drawn) == sample.run(run.path, "to be", 12, temperature=0.0)[0]
    with zipfile.ZipFile(path) as archive:
        kept = json.loads((run.path / "data.json").read_text())
        assert json.loads(archive.read(VOCABULARY)) in (kept.get("vocabulary"), *(
            part.get("vocabulary") for part in kept.values() if isinstance(part, dict)))  # fmt: skip


@pytest.mark.slow
def test_texts_in_fewer_bytes(runs, tmp_path, undrawn, monkeypatch):
    """The embedding, which is the head, too; the archive is the run's own network."""
    monkeypatch.setattr("gru_jax.runs.latency.TURNS", 1)
    compression = compress.run(runs["language"].path, tmp_path / "small", "int8")
    assert compression.table["weights_kb"][1] < compression.table["weights_kb"][0]
    run = gru_jax.open(tmp_path / "small")
    assert run.summary["best"]["test"]["bits"] != runs["language"].summary["best"]["test"]["bits"]
    path = run.export(tmp_path / "small.zip", platforms=("cpu",))
    with np.load(path) as archive:
        assert archive["weights/embed/embedding"].dtype == np.int8
    network, xs = NumpyNetwork(path), np.arange(8, dtype=np.int32)[None]
    np.testing.assert_allclose(network.sequence(network.start(1), xs)[1], run.model(xs), atol=1e-5)


def test_texts_with_fewer_units(runs, tmp_path, undrawn, monkeypatch):
    monkeypatch.setattr("gru_jax.runs.latency.TURNS", 1)
    compress.run(runs["classifier"].path, tmp_path / "half", "units", steps=0)
    source, run = runs["classifier"], gru_jax.open(tmp_path / "half")
    assert run.config.model.hidden == (2,)
    pruned = prune_units(source.params, build_model(source.config).layers, (2,))
    jax.tree.map(np.testing.assert_array_equal, run.params, pruned)
    np.testing.assert_array_equal(run.params["embed"]["embedding"], source.params["embed"]["embedding"])
    with pytest.raises(UsageError, match="units: the network has no linear head of its own, whose inputs could go"):
        prune_units(runs["language"].params, build_model(runs["language"].config).layers, (2,))
    with pytest.raises(UsageError, match="units: the readout attention maps states onto themselves"):
        prune_units({**source.params, "attention": {}}, build_model(source.config).layers, (2,))


def test_a_decoder_is_refused_in_one_line(tmp_path):
    config = load({"task": {"name": "reverse"}, "model": {"hidden": (4,)}, "train": {"steps": 1, "batch_size": 4}})
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps(config.to_dict()))
    with pytest.raises(UsageError, match="run: its network has a decoder; allowed are those without one") as error:
        export_command.command(["--workdir", str(tmp_path / "run")])
    assert "\n" not in str(error.value)
    assert gru_jax.open(tmp_path / "run").config == config
