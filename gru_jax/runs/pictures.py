"""The pictures of a run, in its directory."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from gru_jax.config import Config
from gru_jax.errors import UsageError
from gru_jax.plotting.attention import plot_attention
from gru_jax.plotting.flow import plot_records
from gru_jax.plotting.runs import plot_confusion, plot_learning_curve
from gru_jax.plotting.style import save_figures
from gru_jax.runs.alignments import alignments_of_run
from gru_jax.runs.directory import RunDir
from gru_jax.runs.evaluation import answers_of_run
from gru_jax.runs.forecasts import backtest_run
from gru_jax.runs.summary import named_baselines
from gru_jax.tasks.forecasting import Forecasting
from gru_jax.tasks.scores import CLASS_SCORES, confusion_matrix

logger = logging.getLogger("gru_jax")
ATTENTION, CONFUSION = "attention", "confusion"


def figures_of_run(rundir: RunDir, config: Config, only: str | None = None) -> dict[str, Figure]:
    """All pictures of a run, by name; those that need its data or network, where one alone is wanted, if it is that."""
    is_done = rundir.summary.is_file()
    baselines: Any = named_baselines(rundir.read_summary()) if is_done else config.task.baselines
    learning_curve = plot_learning_curve(rundir.read_metrics(), config.goal[0], baselines)
    drawn = {"learning_curve": learning_curve, **plot_records(rundir.read_flow(), config.model)}
    if not rundir.checkpoints.is_dir():
        return drawn
    if set(CLASS_SCORES) & set(config.train.metrics or ()) and only in (None, CONFUSION):
        drawn |= _where_data_are(rundir, only, lambda: {CONFUSION: _confusion(rundir, config)})
    if config.model.attention != "none" and only in (None, ATTENTION):
        drawn |= _where_data_are(rundir, only, lambda: {ATTENTION: plot_attention(alignments_of_run(rundir, config))})
    if isinstance(config.task, Forecasting) and only not in drawn:
        drawn |= _where_data_are(rundir, only, lambda: backtest_run(rundir.path).figures())
    return drawn


def _confusion(rundir: RunDir, config: Config) -> Figure:
    return plot_confusion(confusion_matrix(answers_of_run(rundir, config, config.task.scored_splits[-1])))


def _where_data_are(rundir: RunDir, only: str | None, draw: Callable[[], dict[str, Figure]]) -> dict[str, Figure]:
    """Pictures that need a run's data; none, with a warning, where these are elsewhere and all pictures are wanted."""
    try:
        return draw()
    except UsageError as error:
        if only is not None:
            raise
        logger.warning("%s: some pictures are left out (%s)", rundir.path, error)
        return {}


def draw_pictures(rundir: RunDir, config: Config) -> list[Path]:
    """Draw all pictures of a run into its `plots/` and return their paths."""
    return save_figures(figures_of_run(rundir, config), rundir.plots)
