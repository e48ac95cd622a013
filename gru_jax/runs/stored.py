"""Runs that are on disk: their configs and their networks."""

from __future__ import annotations

import os

import jax

from gru_jax.config import Config, load, plan
from gru_jax.config.hyperparameters import numbers_of
from gru_jax.errors import UsageError
from gru_jax.runs.checkpoints import LATEST, Checkpoints
from gru_jax.runs.directory import RunDir
from gru_jax.runtime.devices import Device
from gru_jax.runtime.files import read_json
from gru_jax.training.model import build_model
from gru_jax.training.step import Trainer, TrainState


def open_run(workdir: str | os.PathLike[str]) -> tuple[RunDir, Config]:
    """The directory of a run, finished or not, and its config.

    Raises:
        UsageError: it is none.
    """
    rundir = RunDir(workdir)
    if not rundir.config.is_file():
        raise UsageError(f"--workdir={workdir}: not a run directory, it has no config.json")
    return rundir, load(read_json(rundir.config))


def restore(rundir: RunDir, config: Config, device: Device, which: str = LATEST, step: int | None = None) -> TrainState:
    """A checkpoint of a run: the best or the latest one, or the one of a given step.

    Raises:
        UsageError: there is no such checkpoint.
    """
    shapes = jax.eval_shape(Trainer(config, plan(config), build_model(config)).init, 0, numbers_of(config))
    checkpoints = Checkpoints(rundir.checkpoints, device, read_only=True)
    if step is not None:
        which = checkpoints.holding(step)
    return TrainState(**checkpoints.restore(which, shapes._asdict(), step)[0])
