"""Runs that are on disk: their configs and their networks."""

from __future__ import annotations

import logging
import os
from typing import Literal, get_args

import jax

from gru_jax.config import Config, load, traced_hyperparameters
from gru_jax.config.checkpoint_names import LATEST
from gru_jax.errors import ArgumentError
from gru_jax.runs.checkpoints import Checkpoints
from gru_jax.runs.data_facts import read_facts
from gru_jax.runs.directory import RunDir
from gru_jax.runtime.devices import Device, choose_device, use_all_cores
from gru_jax.runtime.files import read_json
from gru_jax.tasks.facts import stored_facts
from gru_jax.training.state import TrainState
from gru_jax.training.step import Trainer

logger = logging.getLogger(__name__)

CheckpointKind = Literal["best", "latest"]
CHECKPOINT_KINDS = get_args(CheckpointKind)


def open_run(workdir: str | os.PathLike[str], *, compares_source: bool = True) -> tuple[RunDir, Config]:
    """The directory of a run, finished or not, and its config.

    Args:
        workdir: the directory.
        compares_source: whether it is said that code of a user's own has changed.

    Raises:
        UsageError: it is none.
    """
    rundir = RunDir(workdir)
    if not rundir.config.is_file():
        raise ArgumentError(f"workdir={workdir}: not a run directory, it has no config.json")
    with stored_facts(read_facts(rundir)):
        config = load(read_json(rundir.config))
    if compares_source and (change := rundir.changed_sources(config.to_dict())) is not None:
        logger.warning("%s: %s", rundir.path, change)
    return rundir, config


def restore_state(
    rundir: RunDir, config: Config, device: Device, kind: CheckpointKind = LATEST, step: int | None = None
) -> TrainState:
    """A checkpoint of a run: the best or the latest one, or the one of a given step.

    Raises:
        UsageError: there is no such checkpoint.
    """
    shapes = jax.eval_shape(Trainer(config).init, 0, traced_hyperparameters(config))
    checkpoints = Checkpoints(rundir.checkpoints, device, read_only=True)
    stored_as = kind if step is None else checkpoints.holding(step)
    return TrainState(**checkpoints.restore(stored_as, shapes.to_dict(), step)[0])


def devices_of_run(rundir: RunDir, config: Config) -> list[Device]:
    """As many devices as a run was trained on, which give its results to the bit, or one where there are fewer."""
    use_all_cores()
    here = jax.local_devices(backend=choose_device(config.platform).platform)
    used = read_json(rundir.env)["device"]["used"] if rundir.env.is_file() else 1
    if used <= len(here):
        return here[:used]
    logger.warning(
        "%s: trained on %d devices, of which %d are here: on one, results may differ in their last bits",
        rundir.path, used, len(here),
    )  # fmt: skip
    return here[:1]
