"""One long text read piece by piece: what is carried, what counts, what is drawn."""

from __future__ import annotations

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import gru_jax
from experiments import evaluate, sample, train
from gru_jax.config import load, traced_hyperparameters
from gru_jax.data.vocabulary import build_vocabulary
from gru_jax.errors import UsageError
from gru_jax.runs.checkpoints import Checkpoints
from gru_jax.runs.directory import RunDir
from gru_jax.runs.sampling import TextSampler
from gru_jax.tasks.loading import load_splits
from gru_jax.training.evaluation import build_evaluator
from gru_jax.training.network import build_model
from gru_jax.training.population import CompiledPopulation, Population
from gru_jax.training.sampling import Drawing, draw_token
from gru_jax.training.step import Trainer
from tests.training.killing import struck
from tests.training.test_resume import same_run

TEXT = "to be or not to be, that is the question\n" * 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts")
    (path / "a.txt").write_text(TEXT)
    return path


@pytest.fixture
def text(folder):
    """Makes configs of a small language model of that text."""

    def made(**changes):
        values = {
            "task": {"name": "text", "data_dir": str(folder), "train": "a.txt", "valid_fraction": 0.2,
                     "test_fraction": 0.1, "length": 9},
            "model": {"hidden": (6,), "embedding": 4},
            "optimizer": {"lr": 0.01},
            "train": {"batch_size": 4, "steps": 12, "eval_steps": 4, "log_steps": 2, "call_steps": 5},
            "flow": {"batch_size": 4},
            "devices": 1,
        }  # fmt: skip
        for section, content in changes.items():
            values[section] = {**values.get(section, {}), **content} if isinstance(content, dict) else content
        return load(values)

    return made


def loss_of_whole(config, params, split):
    """The mean over all tokens, of one pass over the whole text."""
    tokens = config.task._encoded[1][split]
    trace = build_model(config).apply(params, jnp.asarray(tokens[None, :-1]))
    return optax.softmax_cross_entropy_with_integer_labels(trace.outputs[0], tokens[1:]).mean()


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_pieces_of_any_size_give_the_loss_of_the_whole_text(cell, text, x64):
    config = text(model={"cell": {"name": cell}, "hidden": (6, 5)}, dtype="float64")
    model = build_model(config)
    params = model.init(jax.random.key(3))
    wanted = loss_of_whole(config, params, "valid")
    for length in (1, 9, 400):
        changes = {"task": {"length": length}, "train": {"batch_size": 1}, "dtype": "float64"}
        config = text(model={"cell": {"name": cell}, "hidden": (6, 5)}, **changes)
        got = build_evaluator(config, model)(params, "valid", jax.device_put(config.task.load("valid")))
        np.testing.assert_allclose(got["loss"], wanted, rtol=1e-6)
        assert got["bits"] == got["loss"] / math.log(2)


def test_streams_of_an_evaluation_are_parts_of_the_text(text):
    """Cut into three parts, each counts by its tokens and begins with a new carry."""
    config = text(task={"eval_streams": 3})
    model = build_model(config)
    params, data = model.init(jax.random.key(3)), jax.device_put(config.task.load("valid"))
    got = build_evaluator(config, model)(params, "valid", data)
    tokens = config.task._encoded[1]["valid"]
    part = -(-config.task.size("valid") // 3) * 9
    total = 0.0
    for start in (0, part, 2 * part):
        xs, targets = tokens[start : start + part], tokens[start + 1 : start + part + 1]
        outputs = model.apply(params, jnp.asarray(xs[None, : len(targets)])).outputs[0]
        total += optax.softmax_cross_entropy_with_integer_labels(outputs, targets).sum()
    np.testing.assert_allclose(got["loss"], total / (len(tokens) - 1), rtol=1e-5)


def test_training_carries_on_and_cuts_gradients_between_pieces(text):
    """Against a loop of optax over the model; the text is begun anew when it is through."""
    config = text(optimizer={"name": "momentum", "lr": 0.1, "momentum": 0.0, "clip_norm": None})
    trainer, hyperparameters = Trainer(config), traced_hyperparameters(config)
    state = trainer.init(0, hyperparameters)
    params, data = jax.tree.map(jnp.array, state.params), jax.device_put(config.task.load("train"))
    per_epoch = config.task.size("train") // 4
    indices = config.task.train_indices(4, 0)(0, per_epoch + 2)
    got = trainer.run(state, 0, hyperparameters, data, indices, len(indices))

    @jax.jit
    def step(params, carry, index):
        batch = config.task.batch(data, jax.random.key(0), index)

        def loss(params):
            trace = trainer.model.apply(params, batch.xs, carry0=carry)
            each = optax.softmax_cross_entropy_with_integer_labels(trace.outputs, batch.targets)
            return each.mean(), trace.carry

        (value, carry), grads = jax.value_and_grad(loss, has_aux=True)(params)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), carry, value

    losses, carry = [], None
    for number, index in enumerate(indices):
        params, carry, value = step(params, (jnp.zeros((4, 6)),) if number % per_epoch == 0 else carry, index)
        losses.append(value)
    np.testing.assert_allclose(got.metrics["loss"], losses, rtol=1e-4)
    np.testing.assert_allclose(got.state.streams.carries[0], carry[0], rtol=1e-4, atol=1e-6)


@dataclasses.dataclass(frozen=True)
class Weighted(gru_jax.tasks.Adding):
    """The adding problem, whose examples count as their first mark says; every fourth not at all."""

    def example(self, key):
        batch = super().example(key)
        weight = jnp.where(jax.random.bits(key, dtype=jnp.uint8) % 4 > 0, batch.xs[0, 0], 0)
        return batch._replace(weights=weight)


@pytest.mark.parametrize("gradient", [{}, {"adjoint_clip": 0.05, "detach": 0.3}])
def test_examples_count_by_their_weights(gradient):
    """Losses, metrics, gradients, validations; what is clipped is each sequence's own gradient."""
    plain, weighted = (
        load({
            "task": {"name": task, "length": 6, "valid_size": 10}, "model": {"hidden": (4,)}, "gradient": gradient,
            "train": {"batch_size": 8, "steps": 2},
        })
        for task in ("adding", Weighted)
    )  # fmt: skip
    trainer, index = Trainer(weighted), jnp.arange(8, dtype=jnp.int32)
    state = trainer.init(0, traced_hyperparameters(weighted))
    batch = trainer.batch(0, {}, index)
    got = jax.jit(trainer.update)(state, 0, traced_hyperparameters(weighted), batch)
    alone, hyperparameters, grads, losses = Trainer(plain), traced_hyperparameters(plain), [], []
    one_at_a_time = load({**plain.to_dict(), "train": {**plain.to_dict()["train"], "batch_size": 1}})
    update_of_one = jax.jit(Trainer(one_at_a_time).update)
    if not gradient:
        for i in range(8):
            one = jax.tree.map(lambda a, i=i: a[i : i + 1], batch._replace(weights=None))
            update = update_of_one(state, 0, hyperparameters, one)
            grads.append(update.grads)
            losses.append(update.loss)
        shares = batch.weights / batch.weights.sum()
        np.testing.assert_allclose(got.loss, (shares * jnp.stack(losses)).sum(), rtol=1e-5)
        wanted = jax.tree.map(lambda *g: sum(s * a for s, a in zip(shares, g, strict=True)), *grads)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7), got.grads, wanted)
    equal = jax.jit(alone.update)(state, 0, hyperparameters, batch._replace(weights=None))
    same = jax.jit(trainer.update)(state, 0, hyperparameters, batch._replace(weights=jnp.full(8, 3.0)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7), same.grads, equal.grads)
    metrics = build_evaluator(weighted, trainer.model)(state.params, "valid", {})
    examples = weighted.task.batch({}, gru_jax.tasks.split_key("valid", 0), jnp.arange(10, dtype=jnp.int32))
    outputs = trainer.model.apply(state.params, examples.xs).outputs
    each = weighted.task.metrics(outputs, examples)["loss"]
    np.testing.assert_allclose(metrics["loss"], np.average(each, weights=examples.weights), rtol=1e-5)


def test_a_run_is_the_same_after_any_kill(text, tmp_path, monkeypatch, undrawn):
    """Between two pieces of a stream too."""
    config = text(model={"input_dropout": 0.2, "output_dropout": 0.3})
    train.run(config, tmp_path / "whole")
    for call in (1, 2, 3, 4):
        with struck(monkeypatch, Checkpoints, "save", call):
            train.run(config, tmp_path / "killed")
    train.run(config, tmp_path / "killed")
    same_run(tmp_path / "whole", tmp_path / "killed")


def test_members_of_a_population_are_the_runs_alone(text):
    configs = [text(optimizer={"lr": rate}, seed=seed) for seed, rate in ((0, 0.01), (1, 0.03))]
    splits = load_splits(configs[0].task, 100)
    alone = []
    for config in configs:
        population = Population(CompiledPopulation(config, splits, jax.devices()[:1], single=True), [config])
        indices = config.task.train_indices(4, config.seed)(0, 6)[None]
        result = population.train(population.initial(), population.compiled.data["train"], indices, np.array([6]))
        alone.append(result.metrics["loss"][0])
    together = Population(CompiledPopulation(configs[0], splits, jax.devices()[:1], "vmap"), configs)
    indices = np.stack([config.task.train_indices(4, config.seed)(0, 6) for config in configs])
    result = together.train(together.initial(), together.compiled.data["train"], indices, np.array([6, 6]))
    np.testing.assert_allclose(result.metrics["loss"], alone, rtol=1e-5)


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """A run that knows the text by heart, nearly; its data are gone."""
    values = {
        "task": {"name": "text", "data_dir": str(folder), "train": "a.txt", "valid_fraction": 0.1,
                 "test_fraction": 0.1, "length": 20},
        "model": {"hidden": (32,)}, "optimizer": {"lr": 0.02}, "train": {"batch_size": 8, "steps": 120},
        "devices": 1, "flow": {"every": 0},
    }  # fmt: skip
    return train.run(load(values), tmp_path_factory.mktemp("run") / "run")


def test_its_scores_come_again(trained, capsys):
    assert evaluate.run(trained).equals_stored
    assert RunDir(trained).read_summary()["final"]["test"]["bits"] < 1.0
    stored = json.loads((trained.path / "data.json").read_text())
    assert stored["vocabulary"]["kind"] == "characters"


def test_the_likeliest_text_is_that_of_scores(trained):
    """Decoding is scoring: each token drawn is the likeliest in a pass over all that came before it."""
    sampler, prompt = TextSampler(trained), "to be or"
    tokens = [int(step[0]) for step in sampler.tokens(prompt, 30, how=Drawing(temperature=0.0))]
    read = sampler.vocabulary.encode(prompt).tolist()
    outputs = trained.model(jnp.asarray([[*read, *tokens]], jnp.int32))[0]
    assert outputs.argmax(axis=-1)[len(read) - 1 : -1].tolist() == tokens
    text = sampler.vocabulary.decode(tokens)
    assert text.startswith(" not to be, that is the questi")
    assert "".join(sampler.pieces(tokens)) == text


def test_what_is_drawn_follows_from_the_seed(trained):
    one, two = sample.run(trained, "to", 40, 2, seed=1, temperature=2.0)
    assert one != two
    assert sample.run(trained, "to", 40, 2, seed=1, temperature=2.0) == [one, two]
    assert sample.run(trained, "to", 40, seed=2, temperature=2.0) != [one]
    assert sample.run(trained, "to", 40, seed=3, top_k=1) == sample.run(trained, "to", 40, temperature=0.0)
    assert sample.run(trained, "to", 40, seed=3, top_k=3 * 10**9) == sample.run(trained, "to", 40, seed=3)


def test_tokens_are_drawn_by_their_probabilities():
    scores = jnp.log(jnp.array([0.1, 0.5, 0.15, 0.25]))
    keys = jax.random.split(jax.random.key(0), 4000)

    def shares(**how):
        drawn = jax.vmap(lambda key: draw_token(scores, key, Drawing(**how)))(keys)
        return np.bincount(drawn, minlength=4) / len(keys)

    np.testing.assert_allclose(shares(), [0.1, 0.5, 0.15, 0.25], atol=0.03)
    np.testing.assert_allclose(shares(top_k=2), [0, 2 / 3, 0, 1 / 3], atol=0.03)
    np.testing.assert_allclose(shares(top_p=0.8), [0, 5 / 9, 1.5 / 9, 2.5 / 9], atol=0.03)
    np.testing.assert_allclose(shares(top_p=0.3), [0, 1, 0, 0])
    squared = np.array([0.1, 0.5, 0.15, 0.25]) ** 2
    np.testing.assert_allclose(shares(temperature=0.5), squared / squared.sum(), atol=0.03)


def test_characters_of_several_bytes_wait_for_their_end(trained):
    sampler = TextSampler(trained)
    sampler.vocabulary = gru_jax.data.vocabulary.build_vocabulary("bytes", "")
    pieces = list(sampler.pieces([*"aé…".encode(), 0xFF, *b"bcdef"]))
    assert "".join(pieces) == "aé…\N{REPLACEMENT CHARACTER}bcdef"
    assert pieces[:2] == ["a", "é"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": ""}, "prompt='': has no token"), ({"length": 0}, "length=0"), ({"count": 0}, "count=0"),
        ({"temperature": -1.0}, "temperature=-1.0"), ({"top_k": -1}, "top_k=-1"), ({"top_p": 0.0}, "top_p=0.0"),
        ({"checkpoint": "last"}, "checkpoint='last': allowed are best, latest"),
    ],
)  # fmt: skip
def test_wrong_arguments(arguments, message, trained):
    with pytest.raises(UsageError, match=message):
        sample.run(trained, **arguments)


def test_a_run_of_another_task_has_no_texts(uninterrupted):
    with pytest.raises(UsageError, match="its task is Adding; allowed are language models"):
        sample.run(uninterrupted)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"bidirectional": True}}, "model.bidirectional=True: this task reads on"),
        ({"model": {"tied": True}}, "model.embedding=4: allowed with model.tied is 6"),
        ({"train": {"metrics": ("f1",)}}, "train.metrics=f1: scores of whole sequences, and this task reads on"),
        ({"task": {"name": "adding"}, "model": {"embedding": 4}}, "model.embedding=4: without effect"),
        ({"task": {"name": "adding"}, "model": {"tied": True, "embedding": None}}, "model.tied=True: without effect"),
        ({"train": {"batch_size": 500}}, "train.batch_size=500: allowed are up to"),
    ],
)
def test_wrong_configs(changes, message, text):
    if "name" in changes.get("task", {}):
        with pytest.raises(UsageError, match=message):
            load({**changes, "train": {"steps": 2}})
        return
    with pytest.raises(UsageError, match=message):
        text(**changes)


def test_a_head_that_shares_the_embedding(text, tmp_path, undrawn):
    run = train.run(text(model={"tied": True, "embedding": None}), tmp_path / "run")
    params = run.params
    assert params["embed"]["embedding"].shape == (run.config.task.input_size, 6)
    assert set(params["head"]) == {"bias"}
    model, xs = run.model, jnp.arange(5, dtype=jnp.int32)[None]
    hs = model.stack(model.embed(xs))
    wanted = hs @ params["embed"]["embedding"].T + params["head"]["bias"][None, None]
    np.testing.assert_allclose(model(xs), wanted, rtol=1e-5, atol=1e-6)


def test_dropout_at_input_and_output(text):
    """Off it is the network without; on, the mean over many draws is the network's, where all is linear."""
    model = gru_jax.nn.Stack(gru_jax.cells.Elman("identity"), 3, (3,), input_dropout=0.3, output_dropout=0.4,
                             rngs=nnx.Rngs(0))  # fmt: skip
    xs = jax.random.normal(jax.random.key(0), (2, 4, 3))
    keys = jax.random.split(jax.random.key(1), 4000)
    drawn = jax.vmap(lambda key: model(xs, dropout_key=key))(keys)
    assert (drawn == 0).mean() == pytest.approx(0.4, abs=0.05)
    model.eval()
    np.testing.assert_allclose(drawn.mean(axis=0), model(xs), atol=0.08)


def test_a_text_is_followed_by_the_instruments(text, tmp_path):
    """Recorded, live, and with interventions."""
    config = text(flow={"live": 2, "instruments": ("adjoint", "gates", "lyapunov")}, gradient={"truncate": 3})
    run = train.run(config, tmp_path / "run")
    assert np.isfinite(run.records["live/adjoint/layer_0"]).all()
    assert {path.name for path in (run.path / "plots").iterdir()} >= {"gradient_flow.png", "learning_curve.png"}


def test_the_command_says_what_texts_do_not_take(trained, uninterrupted):
    with pytest.raises(UsageError, match=r"--frames=5: without effect on language models; allowed are .*--prompt"):
        sample.command([f"--workdir={trained.path}", "--frames=5"])
    with pytest.raises(UsageError, match="its task is Adding; allowed are language models, networks of music"):
        sample.command([f"--workdir={uninterrupted}"])


def test_words_that_go_on_are_apart_from_those_before(trained):
    sampler = TextSampler(trained.path)
    assert sampler.between("the cat", "saw") == ""  # of characters
    sampler.vocabulary = build_vocabulary("words", "the cat saw\n", 10)
    assert [sampler.between(*texts) for texts in (("cat", "saw"), ("cat ", "saw"), ("cat", "\nsaw"), ("", "saw"))] == [
        " ", "", "", "",
    ]  # fmt: skip
