"""What the gradient-flow instruments cost, in training steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench.measure import Compiled, Row, median_seconds
from gru_jax.config import FLOW_INSTRUMENTS, Config, load, traced_hyperparameters
from gru_jax.tasks import split_key
from gru_jax.training.instruments import build_instruments
from gru_jax.training.step import Trainer

TRAINING_STEP, LIVE_STEP = "training step", "training step, live adjoints"
EVERY_STEP, LIVE_SAMPLED = "training step, loss at every step", "the same, live adjoints of sampled steps"
BASES = {LIVE_SAMPLED: EVERY_STEP}  # what a cost is in units of, where that is not the training step
STEPS = 5  # in one call


def config_of_size(batch: int, hidden: int, task: Mapping[str, object]) -> Config:
    """A task at this size, with all instruments at their defaults."""
    return load({
        "task": task,
        "model": {"hidden": (hidden,)},
        "train": {"batch_size": batch, "steps": 1000},
        "flow": {"instruments": FLOW_INSTRUMENTS, "batch_size": batch},
    })  # fmt: skip


def live(config: Config) -> Config:
    """The config with a recording out of every training step."""
    return dataclasses.replace(config, flow=dataclasses.replace(config.flow, live=1))


def training_steps(config: Config) -> Compiled:
    """A few training steps in one call, their recordings brought to the host as in a run."""
    trainer = Trainer(config)
    hyperparameters = traced_hyperparameters(config)
    state = trainer.init(0, hyperparameters)
    indices = config.task.train_indices(config.train.batch_size, 0)(0, STEPS)

    def run() -> Any:
        copy = jax.tree.map(jnp.copy, state)
        done = trainer.run(copy, 0, hyperparameters, {}, indices, np.int32(STEPS))
        return jax.device_get((done.metrics, done.live))

    return Compiled(run)


def instrument_step(config: Config, name: str) -> Compiled:
    """One instrument on its batch."""
    config = dataclasses.replace(config, flow=dataclasses.replace(config.flow, instruments=(name,)))
    trainer = Trainer(config)
    instruments = jax.jit(build_instruments(config, trainer.model, split_key("valid", 0)))
    params = trainer.init(0, traced_hyperparameters(config)).params
    return Compiled(lambda: jax.device_get(instruments(params, {})))


def measure_costs(sizes: Sequence[tuple[int, ...]], repeats: int) -> Iterator[Row]:
    """Measure all instruments at every size T,B,H: medians in milliseconds and in training steps."""
    for time, batch, hidden in sizes:
        tasks = {"name": "adding"}, {"name": "delayed_memory", "delay": max(1, time // 10)}
        config, every_step = (config_of_size(batch, hidden, {**task, "length": time}) for task in tasks)
        steps = {TRAINING_STEP: training_steps(config), LIVE_STEP: training_steps(live(config)),
                 EVERY_STEP: training_steps(every_step), LIVE_SAMPLED: training_steps(live(every_step))}  # fmt: skip
        of_several = list(steps)
        steps |= {name: instrument_step(config, name) for name in FLOW_INSTRUMENTS}
        seconds = median_seconds(steps, repeats)
        seconds |= {name: seconds[name] / STEPS for name in of_several}
        costs = {
            name: {"ms": 1e3 * s, "steps": s / seconds[BASES.get(name, TRAINING_STEP)]} for name, s in seconds.items()
        }
        yield {"time": time, "batch": batch, "hidden": hidden, "costs": costs}


def describe_costs(row: Row) -> str:
    """What everything costs at one size, a line each."""
    lines = [f"\nT,B,H = {row['time']},{row['batch']},{row['hidden']}"]
    for name, cost in row["costs"].items():
        lines.append(f"  {name:42}{cost['ms']:9.1f} ms{cost['steps']:9.2f} training steps")
    return "\n".join(lines)
