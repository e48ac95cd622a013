"""A batch in parts: the gradient and the metrics of the whole, in the memory of a part."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax.config import NEUTRAL_KEYS, traced_hyperparameters, training_program
from gru_jax.errors import UsageError
from gru_jax.runs.environment import check_memory
from gru_jax.runtime import devices
from gru_jax.runtime.devices import choose_devices
from gru_jax.tasks.loading import load_splits
from gru_jax.training.evaluation import rows_of_each
from gru_jax.training.population import CompiledPopulation, Population
from gru_jax.training.step import Trainer
from tests.training.small import small

EVERYTHING = {
    "model": {"hidden": (4, 3), "dropout": 0.5},
    "gradient": {
        "detach": 0.3, "adjoint_clip": 1e-3, "truncate": 3, "omega": 0.5,
        "floss": 2, "floss_every": 1, "floss_time": 5, "floss_sequences": 3,
    },
    "flow": {"live": 1},
}  # fmt: skip
CASES = {
    "one at a time": (8, {}),
    "everything": (2, EVERYTHING),
    "every step": (4, {"model": {"cell": {"name": "lstm"}}, "task": {"name": "copy_memory", "length": 3}}),
}


def outcome(config, lengths, weights=None):
    """Everything that a step makes of a batch of unequal lengths, after another step."""
    trainer, values = Trainer(config), traced_hyperparameters(config)
    index = config.task.train_indices(8, 3)(0, 1)[0]

    def step(state):
        batch = trainer.batch(3, {}, jnp.asarray(index))
        batch = batch._replace(lengths=lengths) if lengths is not None else batch
        batch = batch if weights is None else batch._replace(weights=weights)
        update = trainer.update(state, 3, values, batch)
        report = trainer._report(state, 3, values, batch, update, state.params)
        return update._replace(adjoints=None), report

    return jax.jit(step)(trainer.init(3, values)._replace(step=jnp.int32(5)))


@pytest.mark.parametrize("name", ["one at a time", pytest.param("everything", marks=pytest.mark.slow), "every step"])
def test_the_gradient_is_that_of_the_whole_batch(name, x64):
    parts, changes = CASES[name]
    lengths = None if name == "every step" else jnp.array([8, 1, 3, 8, 5, 2, 7, 4], jnp.int32)
    whole, cut = (
        outcome(small(dtype="float64", train={"accumulate": count}, **changes), lengths) for count in (1, parts)
    )
    assert_same(whole, cut)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(cut[0].grads))


def assert_same(whole, cut):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-6, atol=1e-12), whole, cut)


def test_parts_count_as_their_sequences_weigh(x64):
    """The first of them not at all; the clipping of adjoints is of each sequence's own loss."""
    weights = jnp.array([0.0, 0.0, 0.5, 3.0, 0.0, 1.0, 2.0, 0.25])
    gradient = {"adjoint_clip": 1e-3}
    whole, cut, plain = (
        outcome(small(dtype="float64", train={"accumulate": count}, gradient=gradient), None, of_each)
        for count, of_each in ((1, weights), (4, weights), (1, None))
    )
    assert_same(whole, cut)
    assert not np.isclose(whole[0].loss, plain[0].loss, rtol=1e-3)


def test_the_memory_is_that_of_a_part():
    def bytes_of(**train):
        config = small(task={"name": "adding", "length": 150}, model={"hidden": 16}, train=train)
        trainer, values = Trainer(config), traced_hyperparameters(config)
        indices = np.zeros((1, config.train.batch_size), np.int32)
        state = jax.eval_shape(trainer.init, 0, values)
        compiled = trainer.run.lower(state, 0, values, {}, indices, np.int32(1)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    whole, part, in_parts = bytes_of(batch_size=64), bytes_of(batch_size=8), bytes_of(batch_size=64, accumulate=8)
    inputs = 64 * 150 * 2 * 4
    assert in_parts < part + 3 * inputs < whole / 3


@pytest.mark.slow
def test_members_in_parts_are_those_of_whole_batches():
    losses = []
    for accumulate in (1, 4):
        train = {"accumulate": accumulate, "steps": 12, "call_steps": 12}
        configs = [small(seed=seed, optimizer={"lr": 0.01 * (seed + 1)}, train=train) for seed in range(2)]
        compiled = CompiledPopulation(configs[0], load_splits(configs[0].task, 1), jax.devices(), "vmap")
        together = Population(compiled, configs)
        done = together.train(together.initial(), *together.feed().next(0, 12), np.array([12, 12]))
        losses.append(done.metrics["loss"])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


def test_parts_change_no_result_and_are_what_an_evaluation_takes():
    assert "train.accumulate" in NEUTRAL_KEYS
    assert len({training_program(small(train={"accumulate": parts})) for parts in (1, 2)}) == 2
    assert rows_of_each(small(train={"accumulate": 4}), None) == 2
    assert rows_of_each(small(train={"accumulate": 4, "eval_batch_size": 8}), None) == 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": {"accumulate": 3}}, r"train\.accumulate=3: as many equal parts train\.batch_size=8 has not"),
        (
            {"train": {"accumulate": 4}, "devices": 4},
            r"devices=4: .* train\.batch_size=8 in train\.accumulate=4 parts evenly; allowed are divisors of 2",
        ),
        ({"train": {"accumulate": 0}}, r"train\.accumulate=0"),
    ],
)
def test_parts_that_there_are_not_are_one_line(changes, message):
    with pytest.raises(UsageError, match=message):
        small(**changes)


def test_devices_share_each_part(monkeypatch):
    class Core:
        platform, process_index = "cpu", 0

    monkeypatch.setattr(devices.jax, "devices", lambda platform=None: [Core()] * 4)
    assert [len(choose_devices("cpu", "auto", 64, parts)) for parts in (1, 4, 8, 16)] == [4, 4, 2, 1]
    with pytest.raises(UsageError, match=r"4 devices cannot share train\.batch_size=8 in train\.accumulate=4 parts"):
        choose_devices("cpu", 0, 8, 4)


def test_a_batch_that_fits_in_parts_is_not_refused(monkeypatch):
    monkeypatch.setattr("gru_jax.runs.environment.total_memory", lambda device: 8 * 8 * 6 * 4 // 2)
    with pytest.raises(UsageError, match=r"allowed here are up to 4, or more in parts by train\.accumulate"):
        check_memory(small(), jax.devices()[0], 1)
    check_memory(small(train={"accumulate": 2}), jax.devices()[0], 1)


def test_devices_share_a_batch_and_each_has_memory_of_its_own(monkeypatch):
    monkeypatch.setattr("gru_jax.runs.environment.total_memory", lambda device: 8 * 8 * 6 * 4 // 2)

    class Chip:
        platform = "tpu"

    check_memory(small(), Chip(), 2)
    with pytest.raises(UsageError, match=r"allowed here are up to 4"):
        check_memory(small(), jax.devices("cpu")[0], 2)  # two of one machine
