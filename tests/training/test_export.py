"""Every training program that ships lowers for GPUs and TPUs, on a machine that has neither."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from gru_jax.cells import CELLS
from gru_jax.config import FLOW_INSTRUMENTS, traced_hyperparameters
from gru_jax.tasks import split_key
from gru_jax.tasks.loading import load_splits
from gru_jax.training.evaluation import build_totals
from gru_jax.training.instruments import build_instruments
from gru_jax.training.population import MEASURE, TRAIN, CompiledPopulation, Population
from gru_jax.training.step import Trainer
from tests.programs import assert_exports
from tests.training.small import small

PLATFORMS = ("cuda", "tpu")


def assert_lowers(function, *arguments):
    """That a compiled function lowers for both."""
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(np.shape(a), jax.numpy.asarray(a).dtype), arguments)
    assert_exports(function, PLATFORMS, *shapes)


def training(config):
    trainer = Trainer(config)
    state = jax.eval_shape(trainer.init, 0, traced_hyperparameters(config))
    indices = np.zeros((config.train.call_steps, config.train.batch_size), np.int32)
    state = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), state)
    return trainer, (state, 0, traced_hyperparameters(config), {}, indices, np.int32(1))


@pytest.mark.parametrize("cell", CELLS)
def test_training(cell):
    trainer, arguments = training(small(model={"cell": {"name": cell}}, flow={"live": 1}))
    assert_lowers(trainer.run, *arguments)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"method": "reference"}},
        {"model": {"keep": "boundaries", "hidden": (4, 3), "bidirectional": True, "dropout": 0.5}},
        {"dtype": "bfloat16"},
        {"gradient": {"adjoint_clip": 1.0, "detach": 0.5, "omega": 0.1}},
        {"gradient": {"floss": 1, "floss_every": 2}},
    ],
    ids=str,
)
def test_variants_of_training(changes):
    trainer, arguments = training(small(**changes))
    assert_lowers(trainer.run, *arguments)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_instruments_and_evaluation(cell):
    config = small(model={"cell": {"name": cell}}, flow={"instruments": FLOW_INSTRUMENTS})
    trainer, (state, *_) = training(config)
    measure = build_instruments(config, trainer.model, split_key("valid", 0))
    assert_lowers(jax.jit(lambda params: measure(params, {})), state.params)
    totals = build_totals(config, trainer.model)
    assert_lowers(jax.jit(lambda params: totals(params, {}, split_key("test", 0), 30, {})), state.params)


def test_populations():
    config = small()
    compiled = CompiledPopulation(config, load_splits(config.task, config.resident_mb), jax.devices()[:1], "vmap")
    population = Population(compiled, [config] * 3)
    for name in (TRAIN, MEASURE, "valid"):
        assert_exports(compiled.programs[name], PLATFORMS, *population.arguments(name))
