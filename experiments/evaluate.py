"""Evaluate a trained network on a split, and compare with what its run recorded.

usage: python -m experiments.evaluate --workdir RUN [--split test] [--checkpoint best] [--data_dir DIR]

  --workdir RUN        a directory that experiments.train made, finished or not
  --split NAME         train, valid or test (default test); generated tasks have no finite train split
  --checkpoint WHICH   best (default) or latest
  --data_dir DIR       where the data files are now, if not where the run found them

On the machine of the run the stored metrics come out again to the last bit; the command says whether they do.

exit codes: 0 done, 2 wrong use (one line says what)

example:
  python -m experiments.evaluate --workdir runs/rows --split valid
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import jax

from experiments import cli
from gru_jax.config import Config
from gru_jax.errors import UsageError, check_choice
from gru_jax.runs import stored
from gru_jax.runs.checkpoints import BEST, LATEST
from gru_jax.runtime.devices import choose_device, precision
from gru_jax.tasks import SPLITS
from gru_jax.tasks.base import FromFiles
from gru_jax.training.evaluation import build_evaluator
from gru_jax.training.model import build_model


def run(
    workdir: str | os.PathLike[str], split: str = "test", checkpoint: str = BEST, data_dir: str | None = None
) -> dict[str, Any]:
    """Evaluate a checkpoint of a run; for notebooks.

    Returns:
        `{"step": ..., "metrics": {...}, "stored": {...} or None}`, the last from the run's summary.

    Raises:
        UsageError: there is no such run, checkpoint, split or data.
    """
    check_choice("--split", split, SPLITS)
    check_choice("--checkpoint", checkpoint, (BEST, LATEST))
    rundir, config = stored.open_run(workdir)
    config = _with_data_dir(config, data_dir)
    if config.task.size(split) is None:
        raise UsageError(f"--split={split}: generated without end; allowed are valid, test")
    device = choose_device(config)
    with precision(config), jax.default_device(device):
        data = jax.device_put(config.task.load(split))
        state = stored.restore(rundir, config, device, checkpoint)
        metrics = build_evaluator(config, build_model(config))(state.params, split, data)
    recorded = None
    if rundir.summary.exists():
        recorded = rundir.read_summary()["best" if checkpoint == BEST else "final"].get(split)
    return {"step": int(state.step), "metrics": metrics, "stored": recorded}


def _with_data_dir(config: Config, data_dir: str | None) -> Config:
    if data_dir is None:
        return config
    if not isinstance(config.task, FromFiles):
        raise UsageError(f"--data_dir={data_dir}: this run's task is generated and reads no files")
    return dataclasses.replace(config, task=dataclasses.replace(config.task, data_dir=data_dir))


def command(argv: Sequence[str]) -> int:
    """The command line."""
    flags, _ = cli.parse(argv, ("workdir", "split", "checkpoint", "data_dir"))
    if "workdir" not in flags:
        raise UsageError("--workdir: missing; allowed is the directory of a run")
    split = flags.get("split", "test")
    result = run(flags["workdir"], split, flags.get("checkpoint", BEST), flags.get("data_dir"))
    recorded = result["stored"] or {}
    for name, value in result["metrics"].items():
        beside = ""
        if name in recorded:
            beside = "  (equal to the stored one)" if recorded[name] == value else f"  (stored: {recorded[name]!r})"
        print(f"{split} {name} {value!r}{beside}")
    print(f"checkpoint of step {result['step']}")
    return 0


if __name__ == "__main__":
    cli.main(command, lambda: __doc__ or "")
