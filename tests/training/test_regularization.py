"""What regularises: off it is the plain training, on it is what the equations say, whatever the batch is split into."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import train
from gru_jax.config import load, traced_hyperparameters, training_program
from gru_jax.errors import UsageError
from gru_jax.nn import LayerTrace
from gru_jax.runs.checkpoints import Checkpoints
from gru_jax.runs.directory import RunDir
from gru_jax.runs.run import Run
from gru_jax.runs.stored import restore_state
from gru_jax.tasks import Batch
from gru_jax.tasks.loading import load_splits
from gru_jax.training.evaluation import build_evaluator
from gru_jax.training.network import build_model
from gru_jax.training.population import CompiledPopulation, Population
from gru_jax.training.regularization import (
    perturbed_weights,
    recurrent_masks,
    square_of_changes,
    square_of_states,
    with_bounded_columns,
    with_input_noise,
)
from gru_jax.training.state import RandomStream, stream_key
from gru_jax.training.step import Trainer
from gru_jax.unroll import Unrolled
from tests.training.killing import struck
from tests.training.small import small
from tests.training.test_resume import same_run

PENALTIES = {"label_smoothing": 0.2, "activation": 0.3, "temporal_activation": 0.7, "orthogonality": 0.05}
DRAWN = {"input_noise": 0.1, "weight_noise": 0.05, "dropconnect": 0.4, "recurrent_dropout": 0.25}
LENGTHS = np.array([8, 1, 3, 8, 5, 2, 7, 4], np.int32)
WEIGHTS = np.array([0.0, 1.0, 0.5, 3.0, 0.0, 1.0, 2.0, 0.25])


def config_of(regularization, **changes):
    """A small classifier of sequences."""
    values = {"task": {"name": "temporal_order", "length": 20, "valid_size": 20, "test_size": 30},
              "model": {"hidden": (4,)}, **changes}  # fmt: skip
    return small(regularization=regularization, **values)


# Off


def test_off_nothing_of_it_is_in_the_program():
    """Nor in the state: its numbers are not read, and no argument of the program is one of them."""
    config = config_of({}, train={"accumulate": 2, "skip_nonfinite": 1})
    trainer, values = Trainer(config), traced_hyperparameters(config)
    state = jax.eval_shape(trainer.init, 0, values)
    assert state.iterate == ()
    assert state.to_dict().keys() == {"step", "params", "opt_state"}
    assert values["regularization"]
    plain, without = (
        trainer.run.lower(state, 0, {**values, "regularization": numbers}, {}, np.zeros((1, 8), np.int32), np.int32(1))
        for numbers in (values["regularization"], {})
    )
    assert plain.as_text() == without.as_text()


NUMBERS = {**PENALTIES, **DRAWN, "max_norm": 1.0}


def test_numbers_are_traced_and_switches_are_not():
    plain = training_program(config_of({}))
    for name, value in {**NUMBERS, "ema": 0.9, "swa_from": 3}.items():
        one, two = (config_of({name: number}) for number in (value, type(value)(value * 2 if value < 0.5 else value + 1)
                                                             if name != "ema" else 0.5))  # fmt: skip
        assert training_program(one) == training_program(two) != plain, name
        assert name in traced_hyperparameters(one)["regularization"], name


# Penalties


def closed_form(config, model, params, batch, drawn):
    """What is minimised, written down anew, and the plain loss: sums over sequences, one by one.

    The network has the weights that are `drawn` from the parameters; whether these are orthogonal is another matter.
    """
    trace = model.apply(drawn, batch.xs, lengths=batch.lengths)
    regularization, total = config.regularization, 0.0
    weights, losses = np.asarray(batch.weights), []
    for i, (length, weight) in enumerate(zip(LENGTHS.tolist(), weights.tolist(), strict=True)):
        log_p = jax.nn.log_softmax(trace.outputs[i])
        target = (1 - regularization.label_smoothing) * jax.nn.one_hot(batch.targets[i], len(log_p))
        target += regularization.label_smoothing / len(log_p)
        hs = trace.layers[-1].unrolled.hs[i, :length]
        penalty = regularization.activation * (hs**2).sum() / hs.size
        if length > 1:
            change = hs[1:] - hs[:-1]
            penalty += regularization.temporal_activation * (change**2).sum() / change.size
        total += weight / weights.sum() * (penalty - (target * log_p).sum())
        losses.append(-log_p[batch.targets[i]])
    for _, place in model.cells:
        for kernel in place.parameters(params)["U"].values():
            gram = kernel.T @ kernel - jnp.eye(len(kernel))
            total += regularization.orthogonality * (gram**2).sum()
    return total, (weights * jnp.stack(losses)).sum() / weights.sum()


@pytest.mark.parametrize(
    ("drawn", "changes"),
    [
        ({}, {"train": {"accumulate": 2}, "model": {"hidden": (3,), "bidirectional": True}}),
        ({"weight_noise": 0.05, "dropconnect": 0.4}, {"model": {"hidden": (4,), "readout": "mean"}}),
    ],
    ids=("in parts", "drawn weights"),
)
def test_penalties_are_what_their_equations_say(drawn, changes, x64):
    """With lengths and weights, in both directions, in parts and whole; the metrics are those without them.

    Through weights that are drawn the gradient goes back: one that is dropped gets none, one that is kept gets
    1 / (1 - p) times that of what the network saw.
    """
    config = config_of({**PENALTIES, **drawn}, dtype="float64", **changes)
    trainer, values = Trainer(config), traced_hyperparameters(config)
    batch = trainer.batch(3, {}, jnp.arange(8, dtype=jnp.int32))
    batch = batch._replace(lengths=jnp.asarray(LENGTHS), weights=jnp.asarray(WEIGHTS))

    key = stream_key(3, RandomStream.REGULARIZATION, 0)

    def wanted_loss_of(params):
        seen = perturbed_weights(config, trainer.model, params, key, values["regularization"])
        return closed_form(config, trainer.model, params, batch, seen)

    @jax.jit
    def both(state):
        update = trainer.update(state, 3, values, batch)
        return update.metrics["loss"], update.grads, *jax.grad(wanted_loss_of, has_aux=True)(state.params)[::-1]

    with jax.numpy_dtype_promotion("standard"):  # shares are float64, and an accuracy is float32
        loss, grads, wanted_loss, wanted = both(trainer.init(3, values))
    np.testing.assert_allclose(loss, wanted_loss, rtol=1e-10)
    assert_close(grads, wanted)


def test_the_mean_squares_of_states_by_hand():
    """Of states 1, 2, 4 and padding; a sequence of one step does not change, one of none has no states."""
    hs = jnp.array([[1.0, 2.0, 4.0, 0.0], [3.0, 0.0, 0.0, 0.0], [0.0] * 4])[..., None]
    unrolled = Unrolled(hs, hs[:, -1], jnp.ones(hs.shape[:2], bool))
    top = LayerTrace(hs, unrolled, None, jnp.array([3, 1, 0]))
    assert square_of_states(top).tolist() == [7.0, 9.0, 0.0]
    assert square_of_changes(top).tolist() == [2.5, 0.0, 0.0]
    whole = top._replace(lengths=None)
    assert square_of_states(whole).tolist() == [5.25, 2.25, 0.0]
    assert square_of_changes(whole).tolist() == [7.0, 3.0, 0.0]


def test_smoothing_is_of_the_steps_that_count():
    """Where each step has a target; against optax on smoothed targets."""
    config = small(task={"name": "copy_memory", "length": 3}, regularization={"label_smoothing": 0.3})
    trainer, values = Trainer(config), traced_hyperparameters(config)
    batch = trainer.batch(0, {}, jnp.arange(8, dtype=jnp.int32))
    state = trainer.init(0, values)

    def wanted(params):
        outputs = trainer.model.apply(params, batch.xs).outputs
        smoothed = optax.smooth_labels(jax.nn.one_hot(batch.targets, outputs.shape[-1]), 0.3)
        return optax.softmax_cross_entropy(outputs, smoothed).mean()

    grads, of_wanted = jax.jit(lambda s: (trainer.update(s, 0, values, batch).grads, jax.grad(wanted)(s.params)))(state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), grads, of_wanted)


# What is drawn


@pytest.fixture(scope="module")
def drawn_network():
    config = config_of(DRAWN)
    return config, build_model(config), Trainer(config).init(0, traced_hyperparameters(config)).params


def test_drawn_weights_are_the_weights_in_expectation(drawn_network):
    """Noise on every kernel and none on a bias; of recurrent kernels weights are missing, and the others larger."""
    config, model, params = drawn_network
    values = traced_hyperparameters(config)["regularization"]
    draw = jax.jit(jax.vmap(lambda key: perturbed_weights(config, model, params, key, values)))
    drawn = draw(jax.random.split(jax.random.key(1), 4000))
    cell, of_cell = (model.layers[0][0].parameters(tree) for tree in (params, drawn))
    for name in ("b", "c"):
        for gate, bias in cell.get(name, {}).items():
            np.testing.assert_array_equal(of_cell[name][gate], np.broadcast_to(bias, (4000, *bias.shape)))
    for gate, kernel in cell["W"].items():
        np.testing.assert_allclose(of_cell["W"][gate].mean(axis=0), kernel, atol=5 * 0.05 / 4000**0.5)
        np.testing.assert_allclose(of_cell["W"][gate].std(axis=0), 0.05, rtol=0.1)
    for gate, kernel in cell["U"].items():
        deviation = np.sqrt((0.4 / 0.6) * np.asarray(kernel) ** 2 + 0.05**2 / 0.6)
        np.testing.assert_allclose(of_cell["U"][gate].std(axis=0), deviation, rtol=0.15)
        assert np.all(np.abs(of_cell["U"][gate].mean(axis=0) - kernel) < 5 * deviation / 4000**0.5)
        np.testing.assert_allclose((of_cell["U"][gate] == 0).mean(), 0.4, atol=0.02)


def test_noise_on_inputs_is_gaussian_and_of_each_sequence(drawn_network):
    config, values = drawn_network[0], traced_hyperparameters(drawn_network[0])["regularization"]
    batch, keys = Batch(jnp.zeros((500, 8, 6)), jnp.zeros(500)), jax.random.split(jax.random.key(0), 500)
    noise = np.asarray(with_input_noise(config, batch, keys, values).xs)
    np.testing.assert_allclose([noise.mean(), noise.std()], [0, 0.1], atol=2e-3)
    np.testing.assert_allclose((noise**4).mean() / noise.std() ** 4, 3, rtol=0.05)
    alone = with_input_noise(config, batch._replace(xs=batch.xs[7:9]), keys[7:9], values).xs
    np.testing.assert_array_equal(alone, noise[7:9])


@pytest.mark.parametrize("per", ["sequence", "step"])
def test_what_is_dropped_of_states_is_one_in_expectation(per):
    """Of each layer and direction its own; of a decoder as many steps as it reads; the same at all, or each its own."""
    changes = {"model": {"hidden": (4, 3), "bidirectional": True}}
    config = config_of({"recurrent_dropout": 0.25, "recurrent_dropout_per": per}, **changes)
    values, keys = traced_hyperparameters(config)["regularization"], jax.random.split(jax.random.key(0), 2000)
    batch = Batch(jnp.zeros((2000, 5, 6)), jnp.zeros(2000))
    masks = recurrent_masks(config, build_model(config), batch, keys, values)["recurrent_masks"]
    assert [mask.shape[1:] for mask in masks] == [(5 if per == "step" else 1, width) for width in (8, 6)]
    for mask in masks:
        assert np.unique(mask).tolist() == [0, np.float32(1) / np.float32(0.75)]
        np.testing.assert_allclose(mask.mean(axis=0), 1, atol=5 * (1 / 3 / 2000) ** 0.5)
    halves = np.asarray(masks[0])[..., :4], np.asarray(masks[0])[..., 4:]
    assert abs(np.corrcoef(halves[0].ravel(), halves[1].ravel())[0, 1]) < 0.05


def test_the_network_reads_its_states_with_what_is_dropped():
    """The loss of a step is that of the network with those masks, which change it."""
    config = config_of({"recurrent_dropout": 0.5}, optimizer={"name": "sgd"})
    trainer, values = Trainer(config), traced_hyperparameters(config)
    batch, state = trainer.batch(3, {}, jnp.arange(8, dtype=jnp.int32)), trainer.init(3, values)
    step_key = stream_key(3, RandomStream.REGULARIZATION, 0)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(step_key, jnp.arange(8))

    @jax.jit
    def losses(state):
        masks = recurrent_masks(config, trainer.model, batch, keys, values["regularization"])
        given = [trainer.loss(state.params, None, batch, **chosen)[0] for chosen in (masks, {})]
        return trainer.update(state, 3, values, batch).loss, *given

    loss, wanted, plain = losses(state)
    np.testing.assert_allclose(loss, wanted, rtol=1e-6)
    assert abs(loss - plain) > 1e-4


# Bounds and averages


def test_columns_are_no_longer_than_the_bound():
    """Shorter ones, biases and an embedding stay as they are, bit for bit; the longest numbers are no exception."""
    config, values = config_of({"max_norm": 2.0}), {"max_norm": np.float32(2.0)}
    kernel = np.array([[3.0, 1e-3, 0.0, 1e38], [4.0, 1.0, 0.0, -1e38]], np.float32)
    params = {"cell": {"U": {"n": kernel}, "b": {"n": kernel[0]}}, "embed": {"embedding": kernel}}
    params = jax.tree.map(jnp.asarray, params)
    bounded = with_bounded_columns(config.regularization, params, values)
    of_kernel = np.asarray(bounded["cell"]["U"]["n"])
    np.testing.assert_allclose(np.linalg.norm(of_kernel, axis=0), [2, np.linalg.norm(kernel[:, 1]), 0, 2], rtol=1e-6)
    np.testing.assert_allclose(of_kernel[:, [0, 3]], [[1.2, 2**0.5], [1.6, -(2**0.5)]], rtol=1e-6)
    np.testing.assert_array_equal(of_kernel[:, 1:3], kernel[:, 1:3])
    np.testing.assert_array_equal(bounded["cell"]["b"]["n"], kernel[0])
    np.testing.assert_array_equal(bounded["embed"]["embedding"], kernel)


def networks(config, count):
    """The state after each of so many steps."""
    trainer, values = Trainer(config), traced_hyperparameters(config)
    step, state, states = jax.jit(trainer.step), trainer.init(0, values), []
    for i in range(count):
        state = step(state, 0, values, {}, config.task.train_indices(8, 0)(i, 1)[0])[0]
        states.append(state)
    return states


def test_averages_are_those_of_their_equations(x64):
    """Of the networks of the last steps, which no average changes; the initial one is in none."""
    changes = {"dtype": "float64", "optimizer": {"lr": 0.1}}
    moving, equal = (networks(config_of(kind, **changes), 6) for kind in ({"ema": 0.7}, {"swa_from": 3}))
    trained = [jax.device_get(state.training_params) for state in moving]
    for n in range(1, 7):
        of_moving = np.append(0.3 * 0.7 ** (n - 1 - np.arange(n)) / (1 - 0.7**n), np.zeros(6 - n))
        of_equal = np.zeros(6)
        of_equal[min(n, 3) - 1 : n] = 1 / max(n - 2, 1)
        for shares, state in ((of_moving, moving[n - 1]), (of_equal, equal[n - 1])):
            np.testing.assert_allclose(shares.sum(), 1)
            average = jax.tree.map(lambda *leaves, shares=shares: np.tensordot(shares, leaves, 1), *trained)
            assert_close(state.params, average)
            assert_close(state.training_params, trained[n - 1])


def assert_close(tree, wanted):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-12), tree, wanted)


# Runs and populations


ALL = {**PENALTIES, **DRAWN, "max_norm": 1.5}
TINY = {"hidden": (3,), "readout": "mean"}


@pytest.mark.usefixtures("compiled_once")
@pytest.mark.parametrize("mapping", ["map", "vmap"])
@pytest.mark.slow
def test_members_are_the_runs_alone_with_numbers_of_their_own(mapping):
    """In one program, the average of each its own."""
    configs = [
        config_of(
            {**{name: factor * value for name, value in ALL.items()}, "swa_from": 2 + seed}, seed=seed, model=TINY
        )
        for seed, factor in enumerate((1.0, 0.5))
    ]
    splits = load_splits(configs[0].task, 100)
    together = Population(CompiledPopulation(configs[0], splits, jax.devices()[:1], mapping), configs)
    alone = CompiledPopulation(configs[0], splits, jax.devices()[:1], single=True)

    def outcome(population, members):
        indices = np.stack([config.task.train_indices(8, config.seed)(0, 3) for config in members])
        count = np.full(len(members), 3)
        return population.train(population.initial(), population.compiled.data["train"], indices, count)

    both = outcome(together, configs)
    for i, config in enumerate(configs):
        by_itself = outcome(Population(alone, [config]), [config])
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a[i], b[0], rtol=1e-4, atol=1e-6),  # noqa: B023
            (both.metrics, both.state.params, both.state.iterate),
            (by_itself.metrics, by_itself.state.params, by_itself.state.iterate),
        )
    assert both.state.iterate.averaged.tolist() == [2, 1]
    assert not np.allclose(both.metrics["loss"][0], both.metrics["loss"][1])


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_once")
def test_a_run_is_the_same_after_any_kill_and_keeps_its_average(tmp_path, monkeypatch, undrawn):
    """The network that is scored, kept as the best and read by commands is the average; the training is another."""
    config = config_of({**ALL, "swa_from": 6}, model=TINY)
    train.run(config, tmp_path / "whole")
    for call in (2, 4):
        with struck(monkeypatch, Checkpoints, "save", call):
            train.run(config, tmp_path / "killed")
    train.run(config, tmp_path / "killed")
    same_run(tmp_path / "whole", tmp_path / "killed")
    run, other = (Run(tmp_path / name) for name in ("whole", "killed"))
    jax.tree.map(np.testing.assert_array_equal, run.params, other.params)
    state = restore_state(RunDir(tmp_path / "whole"), config, jax.devices()[0])
    assert int(state.iterate.averaged) == 12 - 6 + 1
    assert not np.allclose(state.params["head"]["kernel"], state.training_params["head"]["kernel"], rtol=1e-3)
    evaluator = build_evaluator(config, build_model(config))
    scores = evaluator(state.params, "test", {})
    final = RunDir(tmp_path / "whole").read_summary()["final"]["test"]
    np.testing.assert_allclose([scores[name] for name in final], list(final.values()), rtol=1e-6)


@pytest.mark.parametrize(
    ("regularization", "changes", "message"),
    [
        ({"ema": 0.9, "swa_from": 2}, {}, r"swa_from=2: together with regularization\.ema; allowed is one of them"),
        ({"swa_from": 13}, {}, r"swa_from=13: allowed are up to 12, the length of the training"),
        ({"label_smooting": 0.1}, {}, "label_smooting.*label_smoothing"),
        ({"recurrent_dropout": 0.5}, {"gradient": {"omega": 1.0}}, r"recurrent_dropout=0\.5: together with"),
        ({"max_norm": 1.0}, {"transfer": {"thaw_steps": (3,)}}, r"max_norm=1: it would change what does not learn yet"),
        ({"sparsity": 0.5}, {"transfer": {"thaw_steps": (3,)}}, r"sparsity=0.5: it would change what does not learn"),
        ({"dropconnect": 1.0}, {}, r"dropconnect=1\.0.*0\.99"),
        ({"dropconnect": 0.5}, {"model": {"cell": {"name": "mingru"}}}, r"dropconnect=0\.5: without effect, this cell"),
        ({"input_noise": 0.5}, {"task": {"name": "reverse", "length": 5, "symbols": 4}}, r"this task are tok"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_said(regularization, changes, message):
    with pytest.raises(UsageError, match=message):
        config_of(regularization, **changes)


def test_smoothing_needs_classes():
    config = small(regularization={"label_smoothing": 0.1})
    trainer = Trainer(config)
    values = traced_hyperparameters(config)
    with pytest.raises(UsageError, match=r"label_smoothing=0\.1: the targets of this task are numbers or labels"):
        jax.eval_shape(trainer.step, jax.eval_shape(trainer.init, 0, values), 0, values, {}, np.zeros(8, np.int32))


def test_old_configs_load():
    """Of a run before there was this section."""
    plain = small().to_dict()
    assert load({name: section for name, section in plain.items() if name != "regularization"}) == small()


def test_labels_that_cannot_be_smoothed_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UsageError, match=r"regularization\.label_smoothing=0\.1: the targets of this task are numbers"):
        train.run(small(regularization={"label_smoothing": 0.1}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
