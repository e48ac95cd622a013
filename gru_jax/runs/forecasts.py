"""Forecasts of a run's network, held against those that need none: by step, by origin, by column, and by how much."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import jax
import numpy as np
import polars as pl
from jax.sharding import Mesh
from jaxtyping import Float, PyTree
from matplotlib.figure import Figure

from gru_jax.config import Config
from gru_jax.config.checkpoint_names import BEST
from gru_jax.errors import ArgumentError, UsageError, check_argument
from gru_jax.plotting.forecasts import ForecastPanel, plot_error_by_horizon, plot_error_by_origin, plot_forecasts
from gru_jax.runs.data_facts import check_same_data
from gru_jax.runs.stored import CHECKPOINT_KINDS, CheckpointKind, devices_of_run, open_run, restore_state
from gru_jax.runtime.devices import precision
from gru_jax.tasks import SPLITS
from gru_jax.tasks.forecast_baselines import StandardColumns
from gru_jax.tasks.forecast_scores import level_weights, pinball_losses, symmetric_pairs
from gru_jax.tasks.forecast_windows import ORIGINS, VALUES, SplitWindows
from gru_jax.tasks.forecasting import Forecasting
from gru_jax.training.network import build_model
from gru_jax.training.prediction import outputs_of_data
from gru_jax.training.splitting import batch_mesh

NETWORK = "network"
LEVEL = 0.95  # of intervals
BAND = (0.1, 0.9)  # of errors in validation, where a network gives no quantiles
SHOWN = 4  # forecasts in the picture


class Margin(NamedTuple):
    """How much better a network is than the best answer without one.

    Attributes:
        baseline: its name.
        difference: its error less the network's; above 0 the network is better.
        share: of its error; NaN where it makes none.
        low, high: bounds of a 95 % interval of the difference; None of too few origins for one.
        block: origins that are drawn together.
    """

    baseline: str
    difference: float
    share: float
    low: float | None
    high: float | None
    block: int


@dataclasses.dataclass(frozen=True, eq=False)
class Backtest:
    """Forecasts from every origin of a split, made by a network that is trained once.

    Attributes:
        split: of the data.
        step: of the checkpoint.
        metric: that `by_step`, `by_origin` and `margin` are of: mse, or crps where quantiles are forecast; both of
            standardised numbers.
        by_step: a row for each step of the horizon: `step`, and the error of the network and of each baseline.
        by_origin: a row for each origin: `origin`, its time or row, and the same errors.
        by_column: a row for each forecast and column: `mse` and `mae`, standardised, `mse_units` and `mae_units`.
        margin: over the best baseline.
        panels: a few forecasts, for the picture.
    """

    split: str
    step: int
    metric: str
    by_step: pl.DataFrame
    by_origin: pl.DataFrame
    by_column: pl.DataFrame
    margin: Margin
    panels: tuple[ForecastPanel, ...]

    def figures(self) -> dict[str, Figure]:
        """Pictures by name: some forecasts with bands, and the error by step and by origin beside the baselines'."""
        errors = {name: self.by_step[name].to_numpy() for name in self.by_step.columns[1:]}
        of_origins = {name: self.by_origin[name].to_numpy() for name in (NETWORK, self.margin.baseline)}
        return {
            "forecasts": plot_forecasts(self.panels),
            "error_by_step": plot_error_by_horizon(errors, self.metric),
            "error_by_origin": plot_error_by_origin(self.by_origin["origin"].to_list(), of_origins, self.metric),
        }


def network_forecasts(
    config: Config, params: PyTree, split: str, windows: SplitWindows, mesh: Mesh | None = None
) -> tuple[Float[np.ndarray, "N H O Q"], dict[str, float]]:
    """What a network forecasts of windows, standardised, and its metrics.

    Args:
        config: of a task that forecasts.
        params: of the network.
        split: like whose examples the windows are.
        windows: any of the recording.
        mesh: whose devices share each batch; None for one.
    """
    task = cast("Forecasting", config.task)
    factor = len(task.facts.targets) if task.separate else 1
    data = {VALUES: windows.values, ORIGINS: windows.origins}
    size = len(windows.origins) * factor
    made = outputs_of_data(config, build_model(config), params, split, data, size, mesh)
    forecasts = np.asarray(task.forecasts_of(made.outputs))
    if task.separate:
        forecasts = forecasts[:, :, 0].reshape(len(windows.origins), factor, *forecasts[:, :, 0].shape[1:])
        forecasts = np.moveaxis(forecasts, 1, 2)
    return forecasts.astype(np.float64), made.metrics


def backtest_run(
    workdir: str | os.PathLike[str],
    split: str = "test",
    checkpoint: str = BEST,
    data_dir: str | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Backtest:
    """Forecast from every origin of a split with a run's network, and compare with forecasts without one.

    Args:
        workdir: of the run.
        split: train, valid or test.
        checkpoint: which of its networks, best or latest.
        data_dir: where its data file is now, if not where the run found it.
        resamples: of the interval of the margin.
        seed: of their draws.

    Raises:
        UsageError: there is no such run, checkpoint or data, or the run's task does not forecast.
    """
    check_argument("split", split, SPLITS)
    check_argument("checkpoint", checkpoint, CHECKPOINT_KINDS)
    if resamples < 1:
        raise ArgumentError(f"resamples={resamples}: allowed are whole numbers from 1")
    rundir, config = open_run(workdir)
    if not isinstance(config.task, Forecasting):
        raise UsageError(f"{rundir.path}: of the task {type(config.task).__name__}, which forecasts no recording")
    if data_dir is not None:
        config = dataclasses.replace(config, task=dataclasses.replace(config.task, data_dir=data_dir))
    check_same_data(rundir, config)
    devices = devices_of_run(rundir, config)
    with precision(config.dtype, config.matmul_precision), jax.default_device(devices[0]):
        state = restore_state(rundir, config, devices[0], cast("CheckpointKind", checkpoint))
        return backtest(config, state.params, split, int(state.step), batch_mesh(devices), resamples, seed)


def backtest(
    config: Config,
    params: PyTree,
    split: str,
    step: int,
    mesh: Mesh | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Backtest:
    """The same of a network's parameters; see `backtest_run`."""
    task = cast("Forecasting", config.task)
    windows, standard = windows_of_split(task, split), StandardColumns(task.facts)
    targets = standard.targets(windows)
    forecasts, _ = network_forecasts(config, params, split, windows, mesh)
    cells, columns = {}, []
    for name, values in {NETWORK: forecasts, **_baseline_forecasts(task, windows)}.items():
        cells[name] = cell_errors(values, targets, task.quantiles or ())
        columns += _of_columns(name, values, targets, task)
        del values
    origins = [windows.shown(int(row)) for row in windows.origins]
    steps = np.arange(1, task.horizon + 1)
    return Backtest(
        split,
        step,
        "crps" if task.quantiles else "mse",
        pl.DataFrame({"step": steps, **{name: _mean(errors, (0, 2)) for name, errors in cells.items()}}),
        pl.DataFrame({"origin": origins, **{name: _mean(errors, (1, 2)) for name, errors in cells.items()}}),
        pl.DataFrame(columns),
        _margin(cells, task.horizon, resamples, seed),
        _panels(config, params, forecasts, windows, mesh),
    )


def windows_of_split(task: Forecasting, split: str) -> SplitWindows:
    """The windows of a split, of those of training the share that is trained on; all where that is of their columns."""
    windows = task.windows(split)
    if not task.is_chosen(split) or task.separate:
        return windows
    return dataclasses.replace(windows, origins=windows.origins[np.sort(task.order(split))])


def _baseline_forecasts(task: Forecasting, windows: SplitWindows) -> Mapping[str, np.ndarray]:
    return {name: forecast.forecasts(windows) for name, forecast in task.fitted_baselines().items()}


def cell_errors(
    forecasts: Float[np.ndarray, "N H O Q"], targets: Float[np.ndarray, "N H O"], quantiles: tuple[float, ...]
) -> Float[np.ndarray, "N H O"]:
    """The squared error of each number, or its continuous ranked probability score; NaN where it is missing."""
    errors = targets[..., None] - forecasts
    if not quantiles:
        return errors[..., 0] ** 2
    return 2 * (pinball_losses(errors, quantiles) * level_weights(quantiles)).sum(axis=-1)


def _mean(errors: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Means of what is there, NaN where nothing is."""
    present = np.isfinite(errors)
    counts = present.sum(axis=axes)
    return np.where(counts > 0, np.nansum(errors, axis=axes) / np.maximum(counts, 1), np.nan)


def _of_columns(name: str, forecasts: np.ndarray, targets: np.ndarray, task: Forecasting) -> list[dict[str, Any]]:
    middle = task.quantiles.index(0.5) if task.quantiles else 0
    errors, units = targets - forecasts[..., middle], StandardColumns(task.facts).deviation
    squared, absolute = _mean(errors**2, (0, 1)), _mean(abs(errors), (0, 1))
    return [
        {
            "forecast": name,
            "column": column,
            "mse": float(squared[i]),
            "mae": float(absolute[i]),
            "mse_units": float(squared[i] * units[i] ** 2),
            "mae_units": float(absolute[i] * units[i]),
        }
        for i, column in enumerate(task.facts.targets)
    ]


def _margin(cells: Mapping[str, np.ndarray], horizon: int, resamples: int, seed: int) -> Margin:
    """Over the baseline that has the least error in the split itself, which is the hardest to beat."""
    totals = {name: float(_mean(errors, (0, 1, 2))) for name, errors in cells.items()}
    best = min((name for name in totals if name != NETWORK), key=lambda name: totals[name])
    differences = cells[best] - cells[NETWORK]
    sums, counts = np.nansum(differences, axis=(1, 2)), np.isfinite(differences).sum(axis=(1, 2))
    block = max(horizon, math.isqrt(len(sums)))
    interval = block_interval(sums, counts, block, resamples, seed)
    difference = totals[best] - totals[NETWORK]
    share = difference / totals[best] if totals[best] else math.nan
    return Margin(best, difference, share, *interval, block)


def block_interval(
    sums: Float[np.ndarray, " N"], counts: np.ndarray, block: int, resamples: int = 2000, seed: int = 0
) -> tuple[float | None, float | None]:
    """The 95 % interval of a mean over origins, by the moving-block bootstrap; Künsch 1989, Annals of Statistics 17.

    Neighbouring origins forecast the same rows, so that whole blocks of them are drawn, each as likely, until there are
    as many origins as before; the bounds are quantiles of the means. None of fewer origins than two blocks.

    Args:
        sums: of each origin.
        counts: of how many numbers each is the sum.
        block: origins that are drawn together.
        resamples: how many means are drawn.
        seed: of the draws.

    Examples:
        >>> import numpy as np
        >>> from gru_jax.runs.forecasts import block_interval
        >>> block_interval(np.ones(10), np.ones(10), 2)
        (1.0, 1.0)
    """
    count = len(sums)
    if count < 2 * block:
        return None, None
    blocks = -(-count // block)
    random = np.random.default_rng(seed)
    starts = random.integers(0, count - block + 1, (resamples, blocks))
    totals = []
    for values in (sums, counts):
        running = np.concatenate([[0.0], np.cumsum(values)])
        ends = np.full(blocks, block)
        ends[-1] = count - block * (blocks - 1)  # as many origins as before
        totals.append((running[starts + ends] - running[starts]).sum(axis=1))
    means = totals[0] / np.maximum(totals[1], 1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _panels(
    config: Config, params: PyTree, forecasts: np.ndarray, windows: SplitWindows, mesh: Mesh | None
) -> tuple[ForecastPanel, ...]:
    """Forecasts of the last column from evenly spaced origins, in units: with the outermost interval of quantiles, or,
    where a number is forecast, between quantiles of its errors in validation.
    """
    task = cast("Forecasting", config.task)
    standard, quantiles = StandardColumns(task.facts), task.quantiles or ()
    column = len(task.facts.targets) - 1
    mean, unit = standard.mean[column], standard.deviation[column]
    chosen = np.unique(np.linspace(0, len(windows.origins) - 1, SHOWN).astype(int))
    middle = quantiles.index(0.5) if quantiles else 0
    values = np.sort(forecasts[chosen, :, column], axis=-1)
    points, pairs = values[..., middle], symmetric_pairs(quantiles)
    if pairs:
        (low, high), spread = (values[..., i] for i in pairs[0]), quantiles[pairs[0][1]] - quantiles[pairs[0][0]]
        label = f"central {spread:.0%} of its quantiles"
    else:
        valid = task.windows("valid")
        errors = standard.targets(valid) - network_forecasts(config, params, "valid", valid, mesh)[0][..., middle]
        low, high = (points + np.nanquantile(errors[..., column], level, axis=0) for level in BAND)
        label = f"{BAND[1] - BAND[0]:.0%} of its errors in validation"
    panels = []
    for i, number in enumerate(chosen):
        origin = int(windows.origins[number])
        before = min(task.context, 3 * task.horizon)
        rows = np.arange(origin + 1 - before, origin + 1 + task.horizon)
        panels.append(
            ForecastPanel(
                name=task.facts.targets[column],
                origin=windows.shown(origin),
                steps=rows - origin,
                values=windows.values[rows, column].astype(np.float64),
                forecast=points[i] * unit + mean,
                low=low[i] * unit + mean,
                high=high[i] * unit + mean,
                band=label,
            )
        )
    return tuple(panels)
