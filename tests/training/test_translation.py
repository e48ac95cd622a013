"""Networks with a decoder in training: what counts, what is recorded, what is written."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import evaluate, predict, train
from gru_jax import flow, unroll
from gru_jax.config import load, traced_hyperparameters
from gru_jax.errors import UsageError
from gru_jax.runs.alignments import alignments_of_run
from gru_jax.runs.checkpoints import Checkpoints
from gru_jax.runs.directory import RunDir
from gru_jax.runs.predictions import Predictions
from gru_jax.studies.results import read_results
from gru_jax.tasks import SPLITS, split_key
from gru_jax.tasks.loading import load_splits
from gru_jax.tasks.text_scores import translation_scores
from gru_jax.training.decoding import Search
from gru_jax.training.instruments import cell_passes, loss_adjoints
from gru_jax.training.network import build_model, draw_batch
from gru_jax.training.population import CompiledPopulation, Population
from gru_jax.training.step import Trainer
from tests.training.killing import struck
from tests.training.test_resume import same_run


def reversing(**changes):
    """A config of a small network that writes sequences backwards."""
    values = {
        "task": {"name": "reverse", "length": 4, "symbols": 3, "valid_size": 20, "test_size": 30},
        "model": {"hidden": (5,), "embedding": 4, "bidirectional": True},
        "optimizer": {"lr": 0.01},
        "train": {"batch_size": 8, "steps": 6, "eval_steps": 3, "log_steps": 2, "call_steps": 3},
        "flow": {"batch_size": 4},
        "devices": 1,
    }
    if changes.get("task", {}).get("name") == "translation_table":
        del values["task"]
    for section, content in changes.items():
        values[section] = {**values.get(section, {}), **content} if isinstance(content, dict) else content
    return load(values)


def test_what_every_cell_read_gives_its_states_and_its_share_of_the_gradient():
    """The decoder from the encoder's carry, each with lengths of its own: of any, shares add up to the gradient."""
    config = reversing(model={"cell": {"name": "lstm"}, "hidden": (4,)})
    model = build_model(config)
    params = model.init(jax.random.key(0))
    index = jnp.arange(6, dtype=jnp.int32)
    batch = draw_batch(config, {}, split_key("valid", 0), index)
    shorter = jnp.maximum(batch.lengths - 1, 1)  # sources and targets of lengths of their own
    batch = batch._replace(lengths=shorter)
    trainer = Trainer(config)
    trace = trainer.loss(params, None, batch)[1][1]
    gradient = jax.grad(lambda p: 6.0 * trainer.loss(p, None, batch)[0])(params)
    for (number, place), (name, of_cell) in zip(model.cells, cell_passes(config, model, params, batch), strict=True):
        along, decodes = of_cell.along, name.startswith("decoder")
        np.testing.assert_array_equal(along.lengths, batch.decoder_lengths if decodes else shorter)
        assert (along.carry0 is None) != decodes
        again = unroll(place.cell, of_cell.params, along.xs, along.carry0, lengths=along.lengths, reverse=along.reverse)
        np.testing.assert_allclose(again.hs, place.states(trace.layers[number].unrolled.hs), rtol=1e-5, atol=1e-6)
        profile = flow.parameter_profile(of_cell.cell, of_cell.params, along, of_cell.adjoint)
        for gate, share in profile.shares.items():
            groups = [group[gate] for group in place.parameters(gradient).values() if gate in group]
            norm = np.sqrt(sum(float(jnp.square(group).sum()) for group in groups))
            np.testing.assert_allclose(share.sum(), norm, rtol=1e-4)


def test_single_steps_are_followed_into_the_encoder_from_its_end():
    config = reversing(flow={"source": "last"})
    model = build_model(config)
    params = model.init(jax.random.key(0))
    batch = draw_batch(config, {}, split_key("valid", 0), jnp.arange(4, dtype=jnp.int32))
    chosen = {name: np.asarray(of_cell.source.chosen) for name, of_cell in cell_passes(config, model, params, batch)}
    steps, lengths = np.arange(config.task.time)[None], np.asarray(batch.lengths)[:, None]
    np.testing.assert_array_equal(chosen["encoder.layer_0.forward"], steps == lengths - 1)
    np.testing.assert_array_equal(chosen["encoder.layer_0.backward"], np.broadcast_to(steps == 0, (4, 5)))
    np.testing.assert_array_equal(chosen["decoder.layer_0"], steps == lengths - 1)


def test_what_is_done_to_gradients_is_done_in_both_stacks():
    """Where they do not pass from step to step, what reaches the encoder reaches the last step of each source alone."""
    adjoints = {}
    for truncate in (None, 1):
        config = reversing(model={"bidirectional": False, "attention": "none"}, gradient={"truncate": truncate})
        model = build_model(config)
        params = model.init(jax.random.key(0))
        batch = draw_batch(config, {}, split_key("valid", 0), jnp.arange(4, dtype=jnp.int32))
        sent = jax.jit(lambda p, b, config=config, model=model: loss_adjoints(config, model, p, b)[0])(params, batch)
        adjoints[truncate] = [np.abs(np.asarray(of_layer[0])).max(axis=-1) > 0 for of_layer in sent]
    within = np.arange(5)[None] < np.asarray(batch.lengths)[:, None]
    for encoder_or_decoder in adjoints[None]:
        np.testing.assert_array_equal(encoder_or_decoder, within)
    encoder, decoder = adjoints[1]
    np.testing.assert_array_equal(decoder, within)
    assert not encoder[np.arange(5)[None] < np.asarray(batch.lengths)[:, None] - 1].any()


@pytest.mark.parametrize("task", ["copy", "reverse", "sort"])
def test_generated_pairs(task):
    config = reversing(task={"name": task, "length": 6, "shortest": 2, "symbols": 4})
    batch = draw_batch(config, {}, split_key("valid", 0), jnp.arange(200, dtype=jnp.int32))
    seen = set()
    for xs, length, targets, late, mask in zip(
        *map(np.asarray, (batch.xs, batch.lengths, batch.targets, batch.decoder_inputs, batch.mask)), strict=True
    ):
        symbols = xs[: length - 1].tolist()
        wanted = {"copy": symbols, "reverse": symbols[::-1], "sort": sorted(symbols)}[task]
        assert targets.tolist() == [*wanted, *[0] * (7 - len(wanted))]
        assert late.tolist() == [0, *targets[:-1]]
        assert mask.tolist() == [1.0] * length + [0.0] * (7 - length)
        assert min(symbols) >= 1
        seen |= {(len(symbols),)} | set(symbols)
    assert seen == {1, 2, 3, 4, *((n,) for n in range(2, 7))}
    wrong = jax.nn.one_hot(batch.targets.at[0, 1].add(1), 5)
    metrics = config.task.metrics(wrong, batch)
    assert metrics["exact"].tolist() == [0.0] + [1.0] * 199
    length = float(batch.decoder_lengths[0])
    assert metrics["accuracy"][:2].tolist() == pytest.approx([(length - 1) / length, 1.0])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that learnt to write sequences of two symbols backwards."""
    config = reversing(
        task={"length": 2}, model={"hidden": (16,)}, optimizer={"lr": 0.03},
        train={"steps": 150, "batch_size": 16, "eval_steps": 75, "call_steps": 50}, flow={"every": 0},
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gru_jax.runs.pictures.draw_pictures", lambda *args: None)
        return train.run(config, tmp_path_factory.mktemp("run") / "run")


def test_it_writes_what_it_learnt(trained, tmp_path, capsys):
    scores = evaluate.run(trained, search=Search(3, 0.5))
    assert scores.equals_stored
    assert scores.metrics["exact"] == 1.0
    assert scores.written == {"exact_greedy": scores.metrics["exact"], "exact_beam": 1.0}
    (tmp_path / "new.txt").write_text("1 2\n3\n2 2\n")
    assert predict.command([f"--workdir={trained.path}", f"--input={tmp_path / 'new.txt'}", "--beam_size=2"]) == 0
    rows = [line.split(",") for line in capsys.readouterr().out.splitlines()]
    assert [row[:2] for row in rows] == [["sequence", "text"], ["0", "2 1"], ["1", "3"], ["2", "2 2"]]
    (tmp_path / "new.txt").write_text("1 2\n7\n")
    with pytest.raises(UsageError, match="line 2: '7' is no symbol; allowed are whole numbers from 1 to 3"):
        predict.run(trained, tmp_path / "new.txt")
    (tmp_path / "good.txt").write_text("1\n")
    with pytest.raises(UsageError, match="beam_size=0"):
        predict.run(trained, tmp_path / "good.txt", search=Search(0))


def test_where_it_looks(trained):
    """While it writes greedily: the rows of pictures add up to 1, and are those of a pass over what it wrote."""
    alignments = alignments_of_run(RunDir(trained.path), trained.config)
    assert len(alignments) == 4
    model = build_model(trained.config).module(trained.params)
    for weights, source, target in alignments:
        assert source == [*target[-2::-1], "end"]  # the longest, written backwards
        np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
        xs, written = ([0 if label == "end" else int(label) for label in labels] for labels in (source, target))
        memory, _ = model.encode(jnp.array([xs], jnp.int32))
        trace = model.decode(jnp.array([[0, *written[:-1]]], jnp.int32), memory, memory.carries)
        of_source = model.source_attention.weights(trace.layers[-1].unrolled.hs, memory)
        np.testing.assert_allclose(weights, of_source[0], rtol=1e-4, atol=1e-6)
    assert len(trained.plot("attention").axes) == 5


def test_translations_are_scored_and_written_without_the_data(tmp_path, undrawn):
    pytest.importorskip("sacrebleu")
    numbers = {"one": "eins", "two": "zwei", "three": "drei"}
    pairs = [((a, b), (numbers[a], numbers[b])) for a in numbers for b in numbers]
    for split in SPLITS:
        lines = [f"{' '.join(source)}\t{' '.join(target)}" for source, target in pairs]
        (tmp_path / f"{split}.tsv").write_text("source\ttarget\n" + "\n".join(lines) + "\n")
    config = reversing(
        task={"name": "translation_table", "data_dir": str(tmp_path), "tokens": "words", "label_smoothing": 0.1},
        model={"hidden": (8,)}, optimizer={"lr": 0.05}, train={"steps": 60, "eval_steps": 30, "call_steps": 30},
        flow={"every": 0},
    )  # fmt: skip
    run = train.run(config, tmp_path / "run")
    scores = evaluate.run(run, predicts=True)
    assert scores.equals_stored
    assert scores.metrics["perplexity"] == np.exp(scores.metrics["nll"])
    texts = scores.predictions.table
    assert texts["target"].to_list() == [" ".join(target) for _, target in pairs]
    wanted = translation_scores(texts["text"].to_list(), texts["target"].to_list())
    assert {name: scores.written[f"{name}_greedy"] for name in ("bleu", "chrf")} == dict(wanted)
    assert scores.written.keys() == {"bleu_greedy", "chrf_greedy", "bleu_beam", "chrf_beam"}
    (row,) = read_results(tmp_path / "run", lambda task, _: (task, "a command"))
    assert row.scores["0"] == {**scores.metrics, **scores.written}  # kept for the page of results
    for split in SPLITS:
        (tmp_path / f"{split}.tsv").unlink()
    (tmp_path / "new.txt").write_text("one two\nfour\n\n")
    written = predict.run(run, tmp_path / "new.txt", search=Search(4)).table
    assert written["text"].to_list()[0] == "eins zwei"
    with pytest.raises(UsageError, match="xs: this network reads texts, line by line"):
        run.predict(np.ones((2, 3, 1)))


@pytest.mark.slow
def test_a_run_is_the_same_after_any_kill(tmp_path, monkeypatch, undrawn):
    changes = {"model": {"output_dropout": 0.3, "input_dropout": 0.2, "bidirectional": False}, "flow": {"every": 0}}
    train.run(reversing(**changes), tmp_path / "whole")
    with struck(monkeypatch, Checkpoints, "save", 3):
        train.run(reversing(**changes), tmp_path / "killed")
    train.run(reversing(**changes), tmp_path / "killed")
    same_run(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.slow
def test_members_of_a_population_are_the_runs_alone():
    configs = [reversing(optimizer={"lr": rate}, seed=seed) for seed, rate in ((0, 0.01), (1, 0.03))]
    splits = load_splits(configs[0].task, 100)
    indices = np.stack([config.task.train_indices(8, config.seed)(0, 4) for config in configs])
    together = Population(CompiledPopulation(configs[0], splits, jax.devices()[:1], "vmap"), configs)
    result = together.train(together.initial(), together.compiled.data["train"], indices, np.array([4, 4]))
    trainer = Trainer(configs[0])
    for member, config in enumerate(configs):
        hyperparameters = traced_hyperparameters(config)
        state = trainer.init(config.seed, hyperparameters)
        alone = trainer.run(state, config.seed, hyperparameters, {}, jnp.asarray(indices[member]), 4)
        np.testing.assert_allclose(result.metrics["loss"][member], alone.metrics["loss"], rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"family": "sequence"}}, "model.family=sequence: this task needs another kind of network; allowed"),
        ({"task": {"name": "adding", "length": 5}, "model": {"family": "encoder_decoder", "embedding": None}},
         "model.family=encoder_decoder: this task needs another kind of network; allowed are auto, sequence"),
        ({"task": {"name": "adding", "length": 5}, "model": {"attention": "luong", "embedding": None}},
         "model.attention='luong': without effect, this network has no decoder"),
        ({"model": {"attention": "loung"}}, "model.attention='loung': allowed are auto, none, luong, bahdanau"),
        ({"model": {"readout": "mean"}}, "model.readout='mean': this task needs one of: every"),
        ({"model": {"tied": True}}, "model.embedding=4: allowed with model.tied is 5, what the head reads"),
        ({"task": {"shortest": 5}}, "shortest=5: allowed are 1 to 4, the longest"),
    ],
)  # fmt: skip
def test_wrong_configs(changes, message):
    if changes.get("task", {}).get("name") == "adding":
        changes = {"task": changes["task"], "model": changes["model"], "train": {"steps": 2}}
        with pytest.raises(UsageError, match=message):
            load(changes)
        return
    with pytest.raises(UsageError, match=message):
        reversing(**changes)


def test_the_kind_of_network_follows_from_the_task():
    assert (reversing().model.family, reversing().model.attention) == ("encoder_decoder", "luong")
    config = load({"train": {"steps": 2}})
    assert (config.model.family, config.model.attention) == ("sequence", "none")
    assert set(load_splits(reversing().task, 100)) == set(SPLITS)


def test_what_is_written_of_a_share_is_held_against_its_own_targets(tmp_path, undrawn, monkeypatch):
    """The share is drawn, in an order of its own."""
    for split in ("train", "valid", "test"):
        rows = [f"{chr(97 + i % 26) * (1 + i // 26)}\t{chr(97 + i % 26) * (1 + i // 26)}" for i in range(40)]
        (tmp_path / f"{split}.tsv").write_text("\n".join(["source\ttarget", *rows]) + "\n")
    task = {"name": "translation_table", "data_dir": str(tmp_path), "tokens": "characters", "train_share": 0.5}
    run = train.run(reversing(task=task), tmp_path / "run")

    def write_targets(config, params, pairs, *rest):
        texts = config.task.texts_of(pairs["targets"])
        return Predictions(np.zeros(len(texts)), {"text": np.array(texts)}, None, {})

    monkeypatch.setattr("gru_jax.runs.evaluation.write_texts", write_targets)
    for split in SPLITS:
        assert evaluate.run(run, split).written["chrf_greedy"] == pytest.approx(100.0)
    assert RunDir(run.path).written_scores.is_file()
    train.run(reversing(task=task, train={"steps": 9}), run.path)
    assert not RunDir(run.path).written_scores.is_file()
