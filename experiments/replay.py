"""Run the batch again that stopped a run.

usage: python -m experiments.replay --workdir RUN

  --workdir RUN   a run that met a number that is not finite, and saved its parameters and its batch

Says in which layer and at which time step the batch is first not finite here, and how large states grow up to there.
exit codes: 0 all is finite here (another device or precision may matter), 2 wrong use, 3 it is not finite again
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import jax
import numpy as np

from experiments import cli
from gru_jax.config import plan
from gru_jax.data.feed import load_splits
from gru_jax.errors import UsageError
from gru_jax.runs.diagnosis import explain, read_failure
from gru_jax.runs.population import DIVERGED
from gru_jax.runs.stored import open_run
from gru_jax.runtime.devices import choose_device, precision
from gru_jax.training.layers import layer_names
from gru_jax.training.model import build_model
from gru_jax.training.step import Trainer, forward

SHOWN = 8  # time steps


def run(workdir: str | os.PathLike[str]) -> tuple[str | None, list[str]]:
    """Run the saved batch again; for notebooks.

    Returns:
        Where it is first not finite, None if it is finite; and lines for people, beginning with what happened then.

    Raises:
        UsageError: the directory is no run's, or the run met nothing of the kind.
    """
    rundir, config = open_run(workdir)
    if rundir.summary.exists() and (rundir.read_summary()["stopped"] or "").startswith(DIVERGED):
        raise UsageError(
            f"--workdir={workdir}: a member of a study, which keeps no batch; trained alone, by the command in the "
            "study's report, it meets the same again and keeps it"
        )
    device = choose_device(config)
    with precision(config), jax.default_device(device):
        trainer = Trainer(config, plan(config), build_model(config))
        step, params, batch, found = read_failure(rundir.checkpoints, device, trainer, load_splits(config)["train"])
        where = explain(trainer, params, batch)
        trace, metrics = forward(config, trainer.model, params, batch)
        if where is None and found["split"] == "train":
            grads = jax.grad(lambda p: trainer.loss(p, None, batch)[0])(params)
            bad = [jax.tree_util.keystr(k) for k, g in jax.tree_util.tree_leaves_with_path(grads)
                   if not bool(np.isfinite(np.asarray(g)).all())]  # fmt: skip
            where = f"the gradient of {bad[0]}" if bad else None
    lines = [f"then, after {step} steps: {found['what']}", f"here: {where or 'all is finite'}"]
    lines.append(f"losses of the batch: {_range(np.asarray(metrics['loss'], np.float64))}")
    for name, layer in zip(layer_names(config), trace.layers, strict=True):
        sizes = np.abs(np.asarray(layer.unrolled.hs, np.float64)).max(axis=(0, 2))
        marks = np.unique(np.linspace(0, len(sizes) - 1, min(SHOWN, len(sizes))).astype(int))
        told = "  ".join(f"{t}: {sizes[t]:.3g}" for t in marks)
        lines.append(f"largest state of {name} at time steps  {told}")
    return where, lines


def command(argv: Sequence[str]) -> int:
    """The command line."""
    flags, _ = cli.parse(argv, ("workdir",))
    if "workdir" not in flags:
        raise UsageError("--workdir: missing; allowed is the directory of a run that met a number that is not finite")
    where, lines = run(flags["workdir"])
    print("\n".join(lines))
    return 0 if where is None else cli.EXIT_NON_FINITE


def usage() -> str:
    """The text of --help."""
    return __doc__ or ""


def _range(values: np.ndarray) -> str:
    finite = values[np.isfinite(values)]
    shown = f"{finite.min():.4g} to {finite.max():.4g}" if finite.size else "none is finite"
    return f"{shown}, {values.size - finite.size} of {values.size} not finite"


if __name__ == "__main__":
    cli.main(command, usage)
