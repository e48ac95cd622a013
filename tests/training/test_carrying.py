"""Parts of another run's network: by name of token, of feature and of part; what is new, and what does not fit."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax
from experiments import ablate, train
from gru_jax import cells, nn
from gru_jax.config import load
from gru_jax.errors import UsageError
from gru_jax.nn import NetworkParts
from gru_jax.runs.directory import RunDir
from gru_jax.runs.flow import params_of_run
from gru_jax.runs.transfer import TRANSFER_FILE
from gru_jax.runs.weights import starting_point
from gru_jax.studies.study import load_study
from gru_jax.tasks.naming import NumberNames
from gru_jax.training.carrying import PartlyTaken, with_weights
from tests.training.small import small

pytestmark = pytest.mark.usefixtures("undrawn", "compiled_once")
TRAIN = {"batch_size": 2, "steps": 1, "eval_steps": 1, "log_steps": 1}
TEXT = "a good film\na bad film\na film\nthe film is good\n" * 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts")
    (path / "a.txt").write_text(TEXT)
    (path / "b.txt").write_text(TEXT + "the book is bad\n" * 8)
    for split in ("train", "valid", "test"):
        (path / f"{split}.tsv").write_text("text\tlabel\n" + "a good book\tgood\nno good film\tbad\n" * 3)
    return str(path)


def language_model(folder, file="a.txt", **changes):
    task = {"name": "text", "tokens": "words", "train": file, "valid_fraction": 0.1, "test_fraction": 0.1, "length": 4}
    return configured({**task, "data_dir": folder}, **changes)


def reviews(folder, **changes):
    return configured({"name": "text_table", "data_dir": folder, **changes.pop("task", {})}, **changes)


def configured(task, **changes):
    values = {"task": task, "model": {"hidden": (3,), "embedding": 3}, "train": TRAIN, "flow": {"every": 0}}
    for section, content in changes.items():
        values[section] = {**values.get(section, {}), **content} if isinstance(content, dict) else content
    return load(values)


@pytest.fixture(scope="module")
def source(folder, tmp_path_factory):
    """A language model of words; its head shares the embedding's weights."""
    path = tmp_path_factory.mktemp("runs") / "words"
    train.run(language_model(folder, model={"tied": True}, optimizer={"lr": 0.1}), path)
    return gru_jax.open(path)


def begun(config):
    """The parameters that a run begins with, those that would be drawn, and the listing."""
    start = starting_point(config, tells=False)
    _, drawn = params_of_run(RunDir("nowhere"), load({**config.to_dict(), "transfer": {}, "train": TRAIN}), "init")
    return with_weights(drawn, start.weights or {}), drawn, start.listing


def test_words_take_their_rows_and_new_ones_are_drawn(source, folder, tmp_path, capsys):
    """From a language model to sentiment, with a head of two classes."""
    parts = {"train": {"init_from": str(source.path)}, "transfer": {"parts": ("embedding", "layers")}}
    config = reviews(folder, optimizer={"lr": 0.0}, **parts)
    run = train.run(config, tmp_path / "run")
    said = capsys.readouterr().out
    old, new = (one.config.task.facts.vocabulary.tokens for one in (source, run))
    known = [word for word in new if word in old]
    assert {"a", "good", "film", "bad"} - {"bad"} <= set(known) < set(new)
    learnt, rows = source.params["embed"]["embedding"], run.params["embed"]["embedding"]
    _, drawn = params_of_run(RunDir("nowhere"), reviews(folder), "init")
    for place, word in enumerate(new):
        wanted = learnt[old.index(word)] if word in old else drawn["embed"]["embedding"][place]
        np.testing.assert_array_equal(rows[place], wanted, err_msg=word)
    jax.tree.map(np.testing.assert_array_equal, run.params["stack"], source.params["stack"])
    jax.tree.map(np.testing.assert_array_equal, run.params["head"], drawn["head"])
    content = json.loads((run.path / TRANSFER_FILE).read_text())
    left = len(old) - len(known)
    assert content == {
        "source": str(source.path),
        "step": source.summary["best"]["step"],
        "taken": {
            "embedding": {"other": "embedding", "what": "tokens (words)", "known": len(known),
                          "new": len(new) - len(known), "left": left},
            "layer_0": {"other": "layer_0", "what": "", "known": 0, "new": 0, "left": 0},
        },
        "new": ["head"],
        "left": ["head"],
    }  # fmt: skip
    assert (
        f"embedding ({len(known)} of {len(new)} tokens (words) by name, {len(new) - len(known)} new, {left} left)"
        in said
    )
    assert "new: head; left there: head" in said


@pytest.mark.parametrize("tied", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_wider_vocabulary_keeps_what_is_said_of_known_words(tied, source, folder, tmp_path):
    """Of a head as well: its biases, and its columns where they are its own."""
    old = source
    if not tied:
        train.run(language_model(folder), tmp_path / "untied")
        old = gru_jax.open(tmp_path / "untied")
    changes = {"train": {"init_from": str(old.path)}, "transfer": {"parts": ("all",)}, "model": {"tied": tied}}
    wider = language_model(folder, "b.txt", **changes)
    params, drawn, listing = begun(wider)
    words = old.config.task.facts.vocabulary.tokens, wider.task.facts.vocabulary.tokens
    assert listing.taken["head"].known == listing.taken["embedding"].known == len(set(words[0]) & set(words[1]))
    assert listing.taken["head"].new > 0
    for place, word in enumerate(words[1]):
        for group, name in [("embed", "embedding"), *(("head", leaf) for leaf in params["head"])]:
            got, fresh, learnt = (
                np.moveaxis(np.asarray(tree[group][name]), 0 if group == "embed" else -1, 0)
                for tree in (params, drawn, old.params)
            )
            wanted = learnt[words[0].index(word)] if word in words[0] else fresh[place]
            np.testing.assert_array_equal(got[place], wanted)


def test_a_layer_may_come_from_another(folder, source):
    """Of one direction to each of two, and to the encoder of a network that has one."""
    changes = {"train": {"init_from": str(source.path)}, "model": {"bidirectional": True}}
    parts = ("embedding", "layer_0.forward=layer_0", "layer_0.backward=layer_0")
    params, _, listing = begun(reviews(folder, **changes, transfer={"parts": parts}))
    for direction in ("forward", "backward"):
        got = params["stack"]["layer_0"][direction]
        jax.tree.map(np.testing.assert_array_equal, got, source.params["stack"]["layer_0"])
    assert listing.taken["layer_0.backward"].other == "layer_0"
    assert "layer_0.backward (there layer_0)" in listing.lines()[0]


@pytest.mark.slow
def test_an_encoder_may_come_from_a_language_model(source):
    decoder = configured(
        {"name": "reverse", "length": 5, "symbols": 4, "valid_size": 4, "test_size": 4},
        train={"init_from": str(source.path)},
        transfer={"parts": ("encoder.layer_0=layer_0", "decoder.layer_0=layer_0")},
    )
    params, _, listing = begun(decoder)
    jax.tree.map(np.testing.assert_array_equal, params["encoder"]["layer_0"], source.params["stack"]["layer_0"])
    assert set(listing.new) == {"source_embedding", "target_embedding", "attention", "head"}


def arrays(folder, features, classes=("fall", "rise"), **changes):
    """A task of sequences with named features; writes its files."""
    (files := folder / "arrays").mkdir(parents=True, exist_ok=True)
    for split in ("train", "valid", "test"):
        np.save(files / f"{split}_xs.npy", np.random.default_rng(0).normal(size=(6, 4, len(features))).astype("f4"))
        np.save(files / f"{split}_targets.npy", np.arange(6) % len(classes))
    (files / "names.json").write_text(json.dumps({"features": list(features), "classes": list(classes)}))
    return configured({"name": "arrays", "data_dir": str(folder)}, model={"embedding": None}, **changes)


def test_features_take_their_rows(tmp_path):
    train.run(arrays(tmp_path / "old", ("wind", "rain", "sun")), tmp_path / "run")
    old = gru_jax.open(tmp_path / "run").params
    changes = {"train": {"init_from": str(tmp_path / "run")}, "transfer": {"parts": ("layer_0", "head")}}
    params, drawn, listing = begun(
        arrays(tmp_path / "new", ("snow", "rain", "wind", "fog"), ("rise", "fall"), **changes)
    )
    assert (listing.taken["layer_0"].what, listing.taken["layer_0"].known) == ("features", 2)
    learnt, fresh, got = (tree["stack"]["layer_0"]["weights"] for tree in (old, drawn, params))
    for gate, kernel in got["W"].items():
        np.testing.assert_array_equal(kernel[1], learnt["W"][gate][1])
        np.testing.assert_array_equal(kernel[2], learnt["W"][gate][0])
        np.testing.assert_array_equal(kernel[jnp.array([0, 3])], fresh["W"][gate][jnp.array([0, 3])])
    jax.tree.map(np.testing.assert_array_equal, got["U"], learnt["U"])
    np.testing.assert_array_equal(params["head"]["kernel"], old["head"]["kernel"][:, ::-1])  # of classes too
    with pytest.raises(UsageError, match=r"reads 3 features, and this network 3 features, of which it knows 2; transf"):
        starting_point(arrays(tmp_path / "other", ("sun", "rain", "fog"), train={"init_from": str(tmp_path / "run")}))
    masked = arrays(tmp_path / "masked", ("rain", "fog", "wind"), **changes).to_dict()
    masked = load({**masked, "task": {**masked["task"], "missing": "mask"}})
    with pytest.raises(UsageError, match="layer_0: its rows are not one for each of its features, and those there are"):
        starting_point(masked)


ERRORS = {
    "no such part here": ({"transfer": {"parts": ("layer_1",)}}, r"parts=layer_1: no such part; this network has"),
    "no such part there": (
        {"transfer": {"parts": ("layers",)}, "model": {"hidden": (3, 3)}},
        r"transfer\.parts=layers: no part layer_1 there; that network has embedding, layer_0, head",
    ),
    "several": ({"transfer": {"parts": ("layers=layer_0",)}}, r"layers stands for several parts; name each, as lay"),
    "cell": (
        {"transfer": {"parts": ("layers",)}, "model": {"cell": {"name": "lstm"}}},
        r"layer_0: model\.cell\.name is gru there and lstm here; allowed is the same cell",
    ),
    "convention": (
        {"transfer": {"parts": ("layers",)}, "model": {"cell": {"name": "gru", "update": "write"}}},
        r"layer_0: model\.cell\.update is keep there and write here",
    ),
    "units": (
        {"transfer": {"parts": ("layers",)}, "model": {"hidden": (5,)}},
        r"layer_0\.U\.n is \[3, 3\] there and \[5, 5\] here; set model\.hidden=3, or name in transfer\.parts those to "
        "take without layer_0, which is then drawn",
    ),
    "embedding": (
        {"transfer": {"parts": ("embedding",)}, "model": {"embedding": 2}},
        r"embedding\.embedding is \[\d+, 3\] there and \[\d+, 2\] here; set model\.embedding=3, or",
    ),
    "head": ({"transfer": {"parts": ("all",)}}, r"head: it consists of bias there and of bias, kernel here; name in"),
    "characters": (
        {"transfer": {"parts": ("embedding",)}, "task": {"tokens": "characters"}},
        r"embedding: its \d+ tokens \(words\) there are none of the \d+ tokens \(characters\) here",
    ),
    "directions": (
        {"transfer": {"parts": ("layers",)}, "model": {"bidirectional": True}},
        r"no part layer_0\.forward there; that network has .*PART=OTHER takes one of another name",
    ),
    "all of it": ({}, r"reads 9 tokens \(words\), and this network 7 tokens \(words\), of which it knows 5; transf"),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_what_does_not_fit_is_one_line(case, source, folder, tmp_path):
    changes, said = ERRORS[case]
    config = reviews(folder, **changes, train={"init_from": str(source.path)})
    with pytest.raises(UsageError, match=said) as raised:
        train.run(config, tmp_path / "run")
    assert str(raised.value).startswith(f"train.init_from={source.path}: ")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_digits_and_damage(source, folder, tmp_path):
    with pytest.raises(UsageError, match=r"transfer\.parts=head: without effect; allowed with train\.init_as=exact"):
        small(train={"steps": 1, "init_from": "runs/a", "init_as": "units"}, transfer={"parts": ("head",)})
    for file in (source.path / "checkpoints" / "best").rglob("*"):
        target = tmp_path / "damaged" / file.relative_to(source.path)
        if file.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes()[:-1])
    (tmp_path / "damaged" / "config.json").write_bytes((source.path / "config.json").read_bytes())
    (tmp_path / "damaged" / "data.json").write_bytes((source.path / "data.json").read_bytes())
    start = {"train": {"init_from": str(tmp_path / "damaged")}, "transfer": {"parts": ("embedding",)}}
    with pytest.raises(UsageError, match=r"^train\.init_from=.*damaged: .*best/1: damaged"):
        starting_point(reviews(folder, **start))


@pytest.mark.slow
def test_where_members_start_is_no_program(source, folder, tmp_path, monkeypatch):
    """Which parts are taken, if any, is an axis; every member keeps its own listing, also one that was killed."""
    monkeypatch.setattr("experiments.report.run", lambda path: None)
    begins = {
        "drawn": {"train.init_from": None, "transfer.parts": None},
        "embedding": {"train.init_from": str(source.path), "transfer.parts": ("embedding",)},
        "all below": {"train.init_from": str(source.path), "transfer.parts": ("embedding", "layers")},
    }
    base = reviews(folder, optimizer={"lr": 0.0}).to_dict()
    study = load_study({"base": base, "axes": {"start": begins, "seed": [0, 1]}})
    ablate.run(study, tmp_path / "study")
    listings = []
    for member in study.members():
        path = tmp_path / "study" / "members" / member.id
        run, wanted = gru_jax.open(path), begun(member.config)[0]
        jax.tree.map(np.testing.assert_array_equal, run.params, wanted)
        file = path / TRANSFER_FILE
        listings.append(tuple(json.loads(file.read_text())["taken"]) if file.exists() else ())
    assert listings == [(), (), ("embedding",), ("embedding",), ("embedding", "layer_0"), ("embedding", "layer_0")]


def test_parts_and_levels_of_an_encoder_and_a_decoder():
    model = nn.functional(
        lambda rngs: nn.EncoderDecoder(
            cells.GRU(), 9, (3, 4), 8, embedding=4, bidirectional=True, attention="luong", rngs=rngs
        )
    )
    parts = NetworkParts.of(model.init(jax.random.key(0)), model.layers)
    assert parts.levels == {
        "source_embedding": 0,
        "encoder.layer_0.forward": 1, "encoder.layer_0.backward": 1,
        "encoder.layer_1.forward": 2, "encoder.layer_1.backward": 2,
        "target_embedding": 3, "bridge": 3,
        "decoder.layer_0": 4, "decoder.layer_1": 5,
        "head": 6, "attention": 6,
    }  # fmt: skip
    assert parts.select("key", ("encoder",)) == tuple(part for part in parts.paths if part.startswith("encoder."))
    assert set(parts.select("key", ("embedding", "bridge"))) == {"source_embedding", "target_embedding", "bridge"}
    assert (
        parts.narrowest("key", {"encoder.layer_0": 1, "all": 2, "layers": 3})["encoder.layer_0.forward"]
        == "encoder.layer_0"
    )


def test_numbers_that_are_taken_stand_among_those_drawn():
    drawn = {"head": {"kernel": np.zeros((2, 3)), "bias": np.zeros(3)}}
    columns = PartlyTaken(np.full((2, 3), 5.0), np.array([[True, False, True]]))
    got = with_weights(drawn, {"head": {"kernel": columns}})
    np.testing.assert_array_equal(got["head"]["kernel"], [[5, 0, 5], [5, 0, 5]])
    assert got["head"]["bias"] is drawn["head"]["bias"]
    assert NumberNames("a", ("x", "y")).places_in(NumberNames("a", ("y",))) == {1: 0}
