"""Running the batch again that stopped a run."""

from __future__ import annotations

import os

import jax
import numpy as np

from gru_jax.errors import ArgumentError
from gru_jax.runs.data_facts import check_same_data
from gru_jax.runs.diagnosis import Failure, explain, first_bad, read_failure
from gru_jax.runs.early_stopping import EndReason
from gru_jax.runs.stored import open_run
from gru_jax.runtime.devices import choose_device, precision
from gru_jax.tasks.loading import load_splits
from gru_jax.training.network import run_network
from gru_jax.training.step import Trainer

SHOWN = 8  # time steps


def replay_failure(workdir: str | os.PathLike[str]) -> tuple[str | None, list[str]]:
    """Run the batch again with which a run met a number that is not finite.

    Returns:
        Where it is first not finite, None if it is finite; and lines for people, beginning with what happened then.

    Raises:
        UsageError: the directory is no run's, or the run met nothing of the kind.
    """
    rundir, config = open_run(workdir)
    if rundir.summary.exists() and rundir.read_summary()["end_reason"] == EndReason.DIVERGED:
        raise ArgumentError(
            f"workdir={workdir}: a member of a study, which keeps no batch; trained alone, by the command in the "
            "study's report, it meets the same again and keeps it"
        )
    check_same_data(rundir, config)
    device = choose_device(config.platform)
    with precision(config.dtype, config.matmul_precision), jax.default_device(device):
        trainer = Trainer(config)
        data = load_splits(config.task, config.resident_mb)["train"]
        failure = read_failure(rundir.checkpoints, device, trainer, data)
        where = explain(trainer, failure.params, failure.batch)
        if where is None and failure.split == "train":
            where = _explain_gradient(trainer, failure)
        return where, [
            f"then, after {failure.step} steps: {failure.what}",
            f"here: {where or 'all is finite'}",
            *_describe_pass(trainer, failure),
        ]


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
        lines.append(f"largest state of layer_{number} at time steps  {shown}")
    return lines


def _range(values: np.ndarray) -> str:
    finite = values[np.isfinite(values)]
    shown = f"{finite.min():.4g} to {finite.max():.4g}" if finite.size else "none is finite"
    return f"{shown}, {values.size - finite.size} of {values.size} not finite"
