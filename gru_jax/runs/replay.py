"""Running the batch again that stopped a run."""

from __future__ import annotations

import dataclasses
import logging
import os
import tempfile
from types import MappingProxyType
from typing import NamedTuple

import jax
import numpy as np

from gru_jax.config import Config, Hyperparameters, traced_hyperparameters
from gru_jax.config.checkpoint_names import LATEST
from gru_jax.runs.checkpoints import Checkpoints
from gru_jax.runs.data_facts import check_same_data
from gru_jax.runs.diagnosis import (
    Failure,
    NonFiniteError,
    explain,
    explain_update,
    find_invalid_batch,
    first_bad,
    read_failure,
)
from gru_jax.runs.directory import RunDir
from gru_jax.runs.early_stopping import CheckpointMetadata, EndReason
from gru_jax.runs.stored import open_run
from gru_jax.runs.teacher import teacher_of
from gru_jax.runs.train import train_run
from gru_jax.runtime.devices import Device, choose_device, precision
from gru_jax.runtime.processes import log_once
from gru_jax.tasks.loading import load_splits
from gru_jax.training.network import run_network
from gru_jax.training.state import TrainState
from gru_jax.training.step import Trainer

logger = logging.getLogger(__name__)

SHOWN = 8  # time steps


class Replay(NamedTuple):
    """A batch on which a network was not finite, and what is known of the step that it was for.

    Attributes:
        failure: the network and the batch.
        state: what the step began with; None where only the network was kept.
        hyperparameters: what it was to be taken with.
    """

    failure: Failure
    state: TrainState | None = None
    hyperparameters: Hyperparameters = MappingProxyType({})


def replay_failure(workdir: str | os.PathLike[str]) -> tuple[str | None, list[str]]:
    """Run the batch again with which a run, or a member of a study, met a number that is not finite.

    A member of a study that keeps no networks is trained again first, up to there.

    Returns:
        Where it is first not finite, None if it is finite; and lines for people, beginning with what happened then.

    Raises:
        UsageError: the directory is no run's, or the run met nothing of the kind.
    """
    rundir, config = open_run(workdir)
    is_member = rundir.summary.exists() and rundir.read_summary()["end_reason"] == EndReason.DIVERGED
    if is_member and not rundir.checkpoints.is_dir():
        return _replay_trained_again(config, rundir)
    check_same_data(rundir, config)
    device = choose_device(config.platform)
    with precision(config.dtype, config.matmul_precision), jax.default_device(device):
        trainer = Trainer(config, teacher=teacher_of(config))
        if is_member:
            replay = _of_member(rundir, trainer, device)
        else:
            splits = load_splits(config.task, config.resident_mb)
            replay = Replay(read_failure(rundir.checkpoints, device, trainer, splits))
        failure = replay.failure
        where = explain(trainer, failure.params, failure.batch)
        if where is None and failure.split == "train":
            if replay.state is None:
                where = _explain_gradient(trainer, failure)
            else:
                where = explain_update(trainer, replay.state, config.seed, replay.hyperparameters, failure.batch)
        return where, [
            f"then, after {failure.step} steps: {failure.what}",
            f"here: {where or 'all is finite'}",
            *_describe_pass(trainer, failure),
        ]


def _of_member(rundir: RunDir, trainer: Trainer, device: Device) -> Replay:
    """What a member of a study diverged with: the last state that was finite, and the batch that comes next."""
    config = trainer.config
    values = traced_hyperparameters(config)
    shapes = jax.eval_shape(trainer.init, 0, values)
    checkpoints = Checkpoints(rundir.checkpoints, device, read_only=True)
    saved, metadata = checkpoints.restore(
        LATEST, shapes.to_dict(), read=lambda content: CheckpointMetadata.from_json(content, 1)
    )
    state, (progress,) = TrainState(**saved), metadata.members
    rate = values["optimizer"]["lr"]
    values["optimizer"]["lr"] = rate * rate.dtype.type(progress.rate_factor(config))
    data = jax.device_put(config.task.load("train"))
    indices = config.task.train_indices(config.train.batch_size, config.seed, by_length=config.train.batch_by_length)
    index = indices(progress.steps, 1)[0]
    finite = jax.jit(trainer.step)(state, config.seed, values, data, index)[2]
    if finite:
        split, valid = "valid", jax.device_put(config.task.load("valid"))
        batch = find_invalid_batch(trainer, state.params, valid, split)
    else:
        split, batch = "train", jax.jit(trainer.batch)(config.seed, data, index)
    params = state.params if finite else state.training_params
    failure = Failure(progress.steps, progress.end_message or "diverged", split, params, batch)
    return Replay(failure, state, values)


def _replay_trained_again(config: Config, rundir: RunDir) -> tuple[str | None, list[str]]:
    """Train a member alone until it diverges, in a directory that does not stay, and run its batch again."""
    stopped = rundir.read_summary()["stopped"]
    log_once(logger, f"{rundir.path} keeps no networks: it is trained again")
    with tempfile.TemporaryDirectory() as folder:
        try:
            train_run(dataclasses.replace(config, writers=None, profile=None), folder)
        except NonFiniteError:
            where, lines = replay_failure(folder)
            return where, lines
    return None, [f"then: {stopped}", "here, trained alone: all is finite to the end"]


def _explain_gradient(trainer: Trainer, failure: Failure) -> str | None:
    """Which parameter's gradient is not finite."""
    grads = jax.grad(lambda params: trainer.loss(params, None, failure.batch)[0])(failure.params)
    path = first_bad(grads)
    return None if path is None else f"the gradient of {jax.tree_util.keystr(path)}"


def _describe_pass(trainer: Trainer, failure: Failure) -> list[str]:
    """The losses of the batch, and how large states grow over time."""
    trace, metrics = run_network(trainer.config, trainer.model, failure.params, failure.batch)
    lines = [f"losses of the batch: {_range(np.asarray(metrics['loss'], np.float64))}"]
    for number, layer in enumerate(trace.layers):
        sizes = np.abs(np.asarray(layer.unrolled.hs, np.float64)).max(axis=(0, 2))
        marks = np.unique(np.linspace(0, len(sizes) - 1, min(SHOWN, len(sizes))).astype(int))
        shown = "  ".join(f"{t}: {sizes[t]:.3g}" for t in marks)
        name = trainer.model.layers[number][0].name.removesuffix(".forward")
        lines.append(f"largest state of {name} at time steps  {shown}")
    return lines


def _range(values: np.ndarray) -> str:
    finite = values[np.isfinite(values)]
    shown = f"{finite.min():.4g} to {finite.max():.4g}" if finite.size else "none is finite"
    return f"{shown}, {values.size - finite.size} of {values.size} not finite"
