"""The pictures of a run, in its directory."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from gru_jax.config import Config
from gru_jax.plotting.flow import plot_records
from gru_jax.plotting.runs import plot_confusion, plot_learning_curve
from gru_jax.plotting.style import save_figures
from gru_jax.runs.directory import RunDir
from gru_jax.runs.evaluation import answers_of_run
from gru_jax.runs.forecasts import backtest_run
from gru_jax.tasks.forecasting import Forecasting
from gru_jax.tasks.scores import CLASS_SCORES, confusion_matrix


def figures_of_run(rundir: RunDir, config: Config) -> dict[str, Figure]:
    """All pictures of a run, by name."""
    learning_curve = plot_learning_curve(rundir.read_metrics(), config.goal[0], config.task.baselines)
    drawn = {"learning_curve": learning_curve, **plot_records(rundir.read_flow(), config.model)}
    if set(CLASS_SCORES) & set(config.train.metrics or ()) and rundir.checkpoints.is_dir():
        answers = answers_of_run(rundir, config, config.task.scored_splits[-1])
        drawn["confusion"] = plot_confusion(confusion_matrix(answers))
    if isinstance(config.task, Forecasting) and rundir.checkpoints.is_dir():
        drawn |= backtest_run(rundir.path).figures()
    return drawn


def draw_pictures(rundir: RunDir, config: Config) -> list[Path]:
    """Draw all pictures of a run into its `plots/` and return their paths."""
    return save_figures(figures_of_run(rundir, config), rundir.plots)
