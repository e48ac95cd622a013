"""Runs that are on disk: their configs and their networks."""

from __future__ import annotations

import dataclasses
import logging
import os
from typing import Literal, cast, get_args

import jax

from gru_jax.config import Config, load, traced_hyperparameters
from gru_jax.config.checkpoint_names import BEST, LATEST
from gru_jax.errors import ArgumentError, check_argument
from gru_jax.runs.checkpoints import Checkpoints
from gru_jax.runs.directory import RunDir
from gru_jax.runtime.devices import Device, choose_device, precision
from gru_jax.runtime.files import read_json
from gru_jax.tasks import SPLITS
from gru_jax.tasks.base import FromFiles
from gru_jax.tasks.scores import Answers, scores_of
from gru_jax.training.answers import evaluate_answers
from gru_jax.training.evaluation import build_evaluator
from gru_jax.training.step import Trainer, TrainState

logger = logging.getLogger(__name__)

CheckpointKind = Literal["best", "latest"]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Metrics of a run's network, computed anew.

    Attributes:
        split: of the data.
        step: of the checkpoint.
        metrics: by name.
        stored: those in the run's summary, if it has them.
    """

    split: str
    step: int
    metrics: dict[str, float]
    stored: dict[str, float] | None

    @property
    def equals_stored(self) -> bool:
        """Whether they equal the stored ones to the last bit."""
        return self.metrics == self.stored


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
    return TrainState(**checkpoints.restore(stored_as, shapes._asdict(), step)[0])


def evaluate_run(
    workdir: str | os.PathLike[str],
    split: str = "test",
    checkpoint: str = BEST,
    data_dir: str | None = None,
) -> Evaluation:
    """Compute the metrics of a run's network anew.

    Args:
        workdir: of the run.
        split: train, valid or test.
        checkpoint: which of its networks.
        data_dir: where its data files are now, if not where the run found them.

    Raises:
        UsageError: there is no such run, checkpoint, split or data.
    """
    check_argument("split", split, SPLITS)
    check_argument("checkpoint", checkpoint, get_args(CheckpointKind))
    rundir, config = open_run(workdir)
    config = _with_data_dir(config, data_dir)
    if config.task.size(split) is None:
        raise ArgumentError(f"split={split}: generated without end; allowed are valid, test")
    device = choose_device(config.platform)
    with precision(config.dtype, config.matmul_precision), jax.default_device(device):
        data = jax.device_put(config.task.load(split))
        state = restore_state(rundir, config, device, cast("CheckpointKind", checkpoint))
        metrics = build_evaluator(config, Trainer(config).model)(state.params, split, data)
        if config.train.metrics:
            metrics |= scores_of(config.train.metrics, evaluate_answers(config, state.params, split, data))
    recorded = None
    if rundir.summary.exists():
        recorded = rundir.read_summary()["best" if checkpoint == BEST else "final"].get(split)
    return Evaluation(split, int(state.step), metrics, recorded)


def answers_of_run(rundir: RunDir, config: Config, split: str = "test") -> Answers:
    """What the network of a run that was best in validation answers to a split.

    Raises:
        UsageError: there is no such checkpoint, or data.
    """
    device = choose_device(config.platform)
    with precision(config.dtype, config.matmul_precision), jax.default_device(device):
        params = restore_state(rundir, config, device, BEST).params
        return evaluate_answers(config, params, split, jax.device_put(config.task.load(split)))


def _with_data_dir(config: Config, data_dir: str | None) -> Config:
    if data_dir is None:
        return config
    if not isinstance(config.task, FromFiles):
        raise ArgumentError(f"data_dir={data_dir}: this run's task is generated and reads no files")
    return dataclasses.replace(config, task=dataclasses.replace(config.task, data_dir=data_dir))
