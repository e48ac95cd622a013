"""A config that trains in a second, for tests of everything around the training."""

from __future__ import annotations

import dataclasses
import json

import jax.numpy as jnp
import numpy as np

from gru_jax.config import Config, load
from gru_jax.runs.directory import WALL_CLOCK, RunDir
from gru_jax.tasks import Adding


def small(**changes) -> Config:
    """A tiny adding problem; `changes` are sections, e.g. `train={"steps": 7}`, or a task of another name."""
    values = {
        "task": {"name": "adding", "length": 8, "valid_size": 20, "test_size": 30},
        "model": {"hidden": (4,)},
        "optimizer": {"lr": 0.01},
        "train": {"batch_size": 8, "steps": 12, "eval_steps": 4, "log_steps": 2, "call_steps": 3},
        "flow": {"batch_size": 4},
    }
    if "name" in changes.get("task", {}):
        del values["task"]
    for section, content in changes.items():
        values[section] = {**values.get(section, {}), **content} if isinstance(content, dict) else content
    return load(values)


@dataclasses.dataclass(frozen=True)
class Faulty(Adding):
    """The adding problem, of which some examples of the training are not finite."""

    bad: tuple[int, ...] = ()

    def batch(self, data, key, index):
        batch = super().batch(data, key, index)
        is_bad = jnp.isin(index, jnp.array(self.bad, jnp.int32))
        return batch._replace(xs=jnp.where(is_bad[:, None, None], jnp.nan, batch.xs))


def timeless(path) -> list[dict]:
    """The lines of a run's metrics without their wall-clock fields."""
    lines = [json.loads(line) for line in RunDir(path).metrics.read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in WALL_CLOCK} for line in lines]


def assert_same_losses(run, other):
    """That two runs tell the same, to 1e-6."""
    a, b = timeless(run), timeless(other)
    assert [line.keys() for line in a] == [line.keys() for line in b]
    for x, y in zip(a, b, strict=True):
        for name in x.keys() - {"split", "step"}:
            np.testing.assert_allclose(y[name], x[name], rtol=1e-6, err_msg=f"{name} {x}")
