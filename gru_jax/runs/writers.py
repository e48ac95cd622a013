"""Metrics to TensorBoard and Weights & Biases, beside `metrics.jsonl` and by the same names."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from gru_jax.errors import UsageError, import_extra, in_one_line
from gru_jax.runs.directory import WALL_CLOCK
from gru_jax.runtime.files import Json


class Writer(Protocol):
    """Somewhere that lines of metrics go to."""

    def write(self, lines: Iterable[Json]) -> None:
        """Take lines of `metrics.jsonl`."""

    def conclude(self, summary: Json) -> None:
        """Take the summary of a run that is at its end."""

    def close(self) -> None:
        """Write out what is left."""


class TensorBoard:
    """Event files under `<run>/tensorboard`, by tensorboardX.

    Args:
        directory: of the run.
        config: of the run.
        step: at which it is resumed; later events of an earlier process are dropped.
    """

    def __init__(self, directory: Path, config: Json, step: int) -> None:
        module = _import(MODULES["tensorboard"], "tensorboard")
        self._writer = module.SummaryWriter(str(directory / "tensorboard"), purge_step=step + 1 if step else None)

    def write(self, lines: Iterable[Json]) -> None:
        """Take lines of `metrics.jsonl`."""
        for line in lines:
            for name, value in scalars(line).items():
                self._writer.add_scalar(name, value, line["step"])

    def conclude(self, summary: Json) -> None:
        """Take the summary of a run that is at its end, of which TensorBoard has all it shows."""

    def close(self) -> None:
        """Write out what is left."""
        self._writer.close()


class WandB:
    """A run of Weights & Biases, named by the run's directory, whose identity is kept in `<run>/wandb/id`.

    Lines have the training step as a metric that all others are drawn against: W&B's own count of steps only goes up,
    and would drop the test of a best network that is older than the last one. A run that is resumed tells what came
    after its checkpoint once more, to the same values.

    Args: as of `TensorBoard`.

    Raises:
        UsageError: W&B refuses, as without a key.
    """

    def __init__(self, directory: Path, config: Json, step: int) -> None:
        module = _import(MODULES["wandb"], "wandb")
        folder = directory / "wandb"
        folder.mkdir(exist_ok=True)
        identity = folder / "id"
        if not identity.exists():
            identity.write_text(os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4))
        try:
            self._run = module.init(
                dir=str(directory), name=directory.name, id=identity.read_text(), resume="allow", config=dict(config)
            )
        except module.errors.Error as error:
            raise UsageError(
                f"writers=wandb: {in_one_line(error)}; with WANDB_MODE=offline in the environment it writes to "
                f"{folder} alone"
            ) from error
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")

    def write(self, lines: Iterable[Json]) -> None:
        """Take lines of `metrics.jsonl`."""
        for line in lines:
            self._run.log({"step": line["step"], **scalars(line)})

    def conclude(self, summary: Json) -> None:
        """Take the summary of the run: W&B's has the scores of the best network, and apart those of the last."""
        self._run.summary.update(
            {
                **{f"{split}/{name}": v for split in ("valid", "test") for name, v in summary["best"][split].items()},
                **{f"final_{split}/{k}": v for split in ("valid", "test") for k, v in summary["final"][split].items()},
                "best_step": summary["best"]["step"],
                "step": summary["final"]["step"],
            }
        )

    def close(self) -> None:
        """Write out what is left."""
        self._run.finish()


MODULES = {"tensorboard": "tensorboardX", "wandb": "wandb"}
WRITERS: dict[str, Callable[[Path, Json, int], Writer]] = {"tensorboard": TensorBoard, "wandb": WandB}


def scalars(line: Json) -> dict[str, float]:
    """The metrics of a line as `<split>/<name>`."""
    return {f"{line['split']}/{k}": v for k, v in line.items() if k not in ("step", "split", *WALL_CLOCK[:1])}


def check_writers(names: Iterable[str]) -> None:
    """Raise `UsageError` where a writer is not there, before a run begins."""
    for name in names:
        _import(MODULES[name], name)


def _import(module: str, extra: str) -> Any:
    return import_extra(extra, f"writers={extra}: {module}", module)
