"""What the gradient-flow instruments cost, in training steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.bench import measure
from experiments.bench.measure import Compiled
from gru_jax.config import FLOW_INSTRUMENTS, Config, load, plan
from gru_jax.config.hyperparameters import numbers_of
from gru_jax.data.feed import batch_indices
from gru_jax.tasks import split_key
from gru_jax.training.instruments import build_instruments
from gru_jax.training.model import build_model
from gru_jax.training.step import Trainer

PLAIN, LIVE = "training step", "training step, live adjoints"
STEPS = 5  # in one call


def config_of(time: int, batch: int, hidden: int) -> Config:
    """Adding at this size, with all instruments at their defaults."""
    return load({
        "task": {"name": "adding", "length": time},
        "model": {"hidden": (hidden,)},
        "train": {"batch_size": batch, "steps": 1000},
        "flow": {"instruments": FLOW_INSTRUMENTS, "batch_size": batch},
    })  # fmt: skip


def training(config: Config) -> Compiled:
    """A few training steps in one call, their recordings brought to the host as in a run."""
    trainer = Trainer(config, plan(config), build_model(config))
    numbers = numbers_of(config)
    state = trainer.init(0, numbers)
    indices = batch_indices(config.task, config.train.batch_size, 0)(0, STEPS)

    def run() -> Any:
        copy = jax.tree.map(jnp.copy, state)
        done = trainer.run(copy, 0, numbers, {}, indices, np.int32(STEPS))
        return jax.device_get((done.metrics, done.live))

    return Compiled(run)


def instrument(config: Config, name: str) -> Compiled:
    """One instrument on its batch."""
    config = dataclasses.replace(config, flow=dataclasses.replace(config.flow, instruments=(name,)))
    model = build_model(config)
    measured = jax.jit(build_instruments(config, model, split_key("valid", 0)))
    params = Trainer(config, plan(config), model).init(0, numbers_of(config)).params
    return Compiled(lambda: jax.device_get(measured(params, {})))


def costs(sizes: Sequence[tuple[int, ...]], repeats: int) -> list[dict[str, Any]]:
    """Medians for every size T,B,H, in milliseconds and in training steps, printed as they come."""
    rows = []
    for time, batch, hidden in sizes:
        config = config_of(time, batch, hidden)
        live = dataclasses.replace(config, flow=dataclasses.replace(config.flow, live=1))
        steps = {PLAIN: training(config), LIVE: training(live)}
        steps |= {name: instrument(config, name) for name in FLOW_INSTRUMENTS}
        seconds = {name: float(np.median(times)) for name, times in measure.interleaved(steps, repeats).items()}
        seconds |= {name: seconds[name] / STEPS for name in (PLAIN, LIVE)}
        costs = {name: {"ms": 1e3 * s, "steps": s / seconds[PLAIN]} for name, s in seconds.items()}
        rows.append({"time": time, "batch": batch, "hidden": hidden, "costs": costs})
        print(f"\nT,B,H = {time},{batch},{hidden}")
        for name, cost in costs.items():
            print(f"  {name:30}{cost['ms']:9.1f} ms{cost['steps']:9.2f} training steps", flush=True)
    return rows


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Costs in training steps."""
    names = [name for name in rows[0]["costs"] if name != PLAIN]
    figure = Figure(figsize=(7.0, 1.4 + 0.4 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    height = 0.8 / len(rows)
    for i, row in enumerate(rows):
        label = f"T,B,H = {row['time']},{row['batch']},{row['hidden']}"
        places = np.arange(len(names)) + (i - (len(rows) - 1) / 2) * height
        ax.barh(places, [row["costs"][name]["steps"] for name in names], height, label=label)
    ax.set_yticks(np.arange(len(names)), names)
    ax.invert_yaxis()
    ax.set(xlabel="cost in training steps", xscale="log")
    ax.axvline(1.0, color="black", lw=1, ls="--")
    ax.legend(frameon=False, fontsize=8)
    figure.savefig(path, facecolor="white", dpi=150)
