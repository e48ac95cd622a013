"""A run as an object: what it recorded as tables, its network, its pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Integer, Shaped
from matplotlib.figure import Figure

from gru_jax.config import Config
from gru_jax.config.checkpoint_names import BEST
from gru_jax.errors import UsageError, check_choice, listing
from gru_jax.nn import SequenceModel
from gru_jax.runs.directory import RunDir
from gru_jax.runs.export import PLATFORMS, export_run
from gru_jax.runs.flow import table_of_records
from gru_jax.runs.inspection.inspection import Inspection, inspect_run
from gru_jax.runs.pictures import figures_of_run
from gru_jax.runs.predictions import Predictions, predict
from gru_jax.runs.stored import CheckpointKind, devices_of_run, open_run, restore_state
from gru_jax.runtime.devices import choose_device, precision
from gru_jax.training.network import build_model
from gru_jax.training.splitting import batch_mesh


class Run:
    """A run in its directory, finished or not. Everything is read when it is asked for; it may stand for its path.

    Args:
        path: of the directory.
        config: its config, where that is known; else it is read.

    Attributes:
        path: of the directory.
        config: the config.

    Raises:
        UsageError: it is no run's directory.

    Examples:
        >>> import tempfile
        >>> import gru_jax
        >>> from gru_jax.config import load
        >>> from gru_jax.runs.train import train_run
        >>> folder = tempfile.TemporaryDirectory()
        >>> _ = train_run(load({"task": {"name": "adding", "length": 5}, "train": {"steps": 4}}), folder.name)
        >>> run = gru_jax.open(folder.name)
        >>> run.summary["steps"], run.metrics.filter(split="valid")["step"].to_list()
        (4, [0, 1, 2, 3, 4])
        >>> folder.cleanup()
    """

    def __init__(self, path: str | os.PathLike[str], config: Config | None = None) -> None:
        self._rundir, self.config = open_run(path) if config is None else (RunDir(path), config)
        self.path: Path = self._rundir.path

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        state = "finished" if self._rundir.summary.exists() else "not finished"
        return f"Run({str(self.path)!r}, {type(self.config.task).__name__}, {state})"

    @property
    def summary(self) -> dict[str, Any]:
        """The content of `summary.json`.

        Raises:
            UsageError: the run is not finished.
        """
        if not self._rundir.summary.exists():
            raise UsageError(f"{self.path}: not finished, it has no summary; the same training goes on with it")
        return self._rundir.read_summary()

    @property
    def metrics(self) -> pl.DataFrame:
        """A row for each line of `metrics.jsonl`: `step`, `split`, and the metrics, null where a line has none."""
        return pl.DataFrame(self._rundir.read_metrics(), infer_schema_length=None)

    @property
    def records(self) -> dict[str, np.ndarray]:
        """What the instruments recorded, as the arrays of `flow.npz`, `[S, ...]` for S recordings."""
        return self._rundir.read_flow()

    @property
    def flow(self) -> pl.DataFrame:
        """What the instruments recorded, a row for each number; see `gru_jax.runs.flow.table_of_records`."""
        return table_of_records(self.records)

    @property
    def params(self) -> dict[str, Any]:
        """The parameters of the network that was best in validation."""
        return self.params_at(BEST)

    def params_at(self, checkpoint: CheckpointKind | int) -> dict[str, Any]:
        """The parameters of the best or the latest network, or of that of a step.

        Raises:
            UsageError: there is no such checkpoint.
        """
        kind, step = (BEST, checkpoint) if isinstance(checkpoint, int) else (checkpoint, None)
        with precision(self.config.dtype, self.config.matmul_precision):
            return restore_state(self._rundir, self.config, choose_device(self.config.platform), kind, step).params

    @property
    def model(self) -> SequenceModel:
        """The network that was best in validation, as a Flax NNX module."""
        return build_model(self.config).module(self.params)

    def predict(
        self, xs: Shaped[Any, "B T D"], lengths: Integer[Any, " B"] | Sequence[int] | None = None
    ) -> Predictions:
        """What the network that was best in validation says of new sequences, as they stand in files of its data.

        Raises:
            UsageError: they are of another shape or not finite, or a length is not between 0 and T.
        """
        arrays = {"xs": np.asarray(xs)} | ({} if lengths is None else {"lengths": np.asarray(lengths)})
        checked = self.config.task.check_new(arrays, Path("xs"))
        mesh = batch_mesh(devices_of_run(self._rundir, self.config))
        with precision(self.config.dtype, self.config.matmul_precision):
            return predict(self.config, self.params, checked, mesh)

    def export(
        self,
        output: str | os.PathLike[str] | None = None,
        checkpoint: CheckpointKind = BEST,
        platforms: Sequence[str] = PLATFORMS,
        *,
        onnx: bool = False,
    ) -> Path:
        """Write the network into one file that JAX alone can run; see `gru_jax.runs.export.export_run`.

        Raises:
            UsageError: there is no such checkpoint, a platform is none, or a program cannot be written.
        """
        return export_run(self.path, output, checkpoint, platforms, onnx=onnx)

    def inspect(self, checkpoint: CheckpointKind = BEST, **options: Any) -> Inspection:
        """Its network opened up; options as of `gru_jax.runs.inspection.inspection.inspect_run`.

        Raises:
            UsageError: there is no such checkpoint, or data are missing.
        """
        return inspect_run(self.path, checkpoint, **options)

    def plot(self, name: str = "learning_curve") -> Figure:
        """One of the pictures of the run, which notebooks show: `learning_curve`, `gradient_flow`, `gates`, ….

        Raises:
            UsageError: nothing was recorded for a picture of that name.
        """
        drawn = figures_of_run(self._rundir, self.config, name)
        if name not in drawn and self.config.flow.every == 0:
            raise UsageError(
                f"name={name!r}: allowed are {listing(drawn)}; with flow.every=0 nothing else was recorded"
            )
        check_choice("name", name, drawn)
        return drawn[name]
