"""Forecasts without a network: the mean, the last value, that of a season before, a linear map of the context."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from gru_jax.data.checks import measure_features
from gru_jax.tasks.facts import DataFacts
from gru_jax.tasks.forecast_scores import forecast_metrics
from gru_jax.tasks.forecast_windows import SplitWindows

PENALTIES = tuple(10.0**power for power in range(-6, 3))
"""Of the linear forecast, for each training window; that with the least error in validation is taken."""
MOST_NUMBERS = 8 * 10**6  # of the windows that a linear forecast is fitted to
BLOCK = 256  # windows that are scored at a time


class ForecastSettings(NamedTuple):
    """What of a task says how forecasts without a network are made.

    Attributes:
        context: steps that are read.
        season: steps after which things recur; None for none.
        quantiles: levels that are forecast; none where numbers are.
    """

    context: int
    season: int | None
    quantiles: tuple[float, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class ForecastBaseline:
    """A forecast without a network, of standardised numbers.

    Attributes:
        answer: makes forecasts `[N, H, O]` of windows.
        spread: the quantiles of its errors in training, `[H, O, Q]`; None where numbers are forecast.
    """

    answer: Callable[[SplitWindows], Float[np.ndarray, "N H O"]]
    spread: np.ndarray | None = None

    def forecasts(self, windows: SplitWindows) -> Float[np.ndarray, "N H O Q"]:
        """Forecasts, or their quantiles, of windows."""
        points = self.answer(windows)[..., None]
        return points if self.spread is None else points + self.spread


class StandardColumns:
    """The columns to forecast as their means and deviations in training make them.

    Args:
        facts: what is known of the recording.
    """

    def __init__(self, facts: DataFacts) -> None:
        assert facts.targets_scale is not None
        self.mean, self.deviation = np.array(facts.targets_scale.mean), np.array(facts.targets_scale.deviation)

    def mean_of(self, windows: SplitWindows) -> Float[np.ndarray, " O"]:
        """The mean of each over the rows of windows, of those that are not missing."""
        values = windows.values[:, None, : len(self.mean)]
        return (measure_features([(0, values)], None, len(self.mean)).mean - self.mean) / self.deviation

    def targets(self, windows: SplitWindows) -> Float[np.ndarray, "N H O"]:
        """What becomes of them, NaN where it is missing."""
        return (windows.targets(len(self.mean)) - self.mean) / self.deviation

    def rows(self, windows: SplitWindows) -> Float[np.ndarray, "M O"]:
        """Their rows, in which the last value before stands for one that is missing, and 0 for none."""
        rows = (windows.values[:, : len(self.mean)].astype(np.float64) - self.mean) / self.deviation
        latest = np.where(np.isnan(rows), -1, np.arange(len(rows))[:, None])
        latest = np.maximum.accumulate(latest, axis=0)
        return np.where(latest < 0, 0.0, np.take_along_axis(rows, np.maximum(latest, 0), axis=0))


def fit_baselines(
    train: SplitWindows, valid: SplitWindows, facts: DataFacts, settings: ForecastSettings
) -> dict[str, ForecastBaseline]:
    """Forecasts by name, made of the training windows.

    The mean in training; the last value; with a season, the value a whole number of seasons before; and a linear map of
    each column's context, relative to its last value, by ridge regression in closed form. Where quantiles are forecast,
    they are these numbers and the quantiles of their errors in training, for each step and column.

    Args:
        train: the training windows.
        valid: those that the penalty of the linear map is chosen by.
        facts: what is known of the recording.
        settings: context, season and quantiles.
    """
    standard = StandardColumns(facts)
    horizon = train.horizon

    centre = standard.mean_of(train)  # not zero where nothing is standardised

    def mean(windows: SplitWindows) -> np.ndarray:
        return np.broadcast_to(centre, (len(windows.origins), horizon, len(centre)))

    def naive(windows: SplitWindows) -> np.ndarray:
        return np.repeat(standard.rows(windows)[windows.origins][:, None], horizon, axis=1)

    def seasonal(windows: SplitWindows) -> np.ndarray:
        season, ahead = settings.season or 1, np.arange(1, horizon + 1)
        return standard.rows(windows)[windows.origins[:, None] + ahead - season * -(-ahead // season)]

    answers: dict[str, Callable[[SplitWindows], np.ndarray]] = {"training mean": mean, "naive, last value": naive}
    if settings.season is not None:
        answers[f"seasonal naive, {settings.season} steps"] = seasonal
    answers[f"linear, ridge on {settings.context} steps"] = fit_linear(train, valid, standard, settings.context)
    few = _few(train, 2000)
    made = {}
    for name, answer in answers.items():
        spread = None
        if settings.quantiles:
            errors = standard.targets(few) - answer(few)
            spread = np.moveaxis(np.nanquantile(errors, settings.quantiles, axis=0), 0, -1)
        made[name] = ForecastBaseline(answer, spread)
    return made


def _few(windows: SplitWindows, most: int) -> SplitWindows:
    """Some of the windows, evenly spaced."""
    chosen = np.unique(np.linspace(0, len(windows.origins) - 1, min(most, len(windows.origins))).astype(int))
    return dataclasses.replace(windows, origins=windows.origins[chosen])


def fit_linear(
    train: SplitWindows, valid: SplitWindows, standard: StandardColumns, context: int
) -> Callable[[SplitWindows], np.ndarray]:
    """A linear map from each column's context to all steps of its horizon, both relative to the last value.

    `(X' X + p N I)^-1 X' Y` of centred numbers, for the penalty p of `PENALTIES` that has the least squared error in
    validation; Zeng et al. 2023, arXiv:2205.13504, train the same map (NLinear).
    """
    train = _few(train, max(2, MOST_NUMBERS // (context + train.horizon)))
    valid = _few(valid, max(2, MOST_NUMBERS // (context + train.horizon)))
    maps = [
        _ridge(
            _complete(_regression(train, standard, context, column)),
            _complete(_regression(valid, standard, context, column)),
        )
        for column in range(len(standard.mean))
    ]

    def answer(windows: SplitWindows) -> np.ndarray:
        made = []
        for column, (weights, offset) in enumerate(maps):
            x, _, last = _regression(windows, standard, context, column)
            made.append(x @ weights + offset + last[:, None])
        return np.stack(made, axis=-1)

    return answer


def _complete(regression: tuple[np.ndarray, np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Contexts and what comes of them, of those windows of which nothing is missing."""
    x, y, _ = regression
    complete = np.isfinite(y).all(axis=1)
    return x[complete], y[complete]


def _ridge(train: tuple[np.ndarray, np.ndarray], valid: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Weights `[C, H]` and offset `[H]` of the penalty that is best in validation; zeros without training windows."""
    x, y = train
    if len(x) < 2:
        return np.zeros((x.shape[1], y.shape[1])), np.zeros(y.shape[1])
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    values, vectors = np.linalg.eigh((x - mean_x).T @ (x - mean_x) / len(x))
    turned = vectors.T @ ((x - mean_x).T @ (y - mean_y)) / len(x)
    # Validation windows by the same means, and offsets, so that their error follows from products of these alone.
    valid_x, valid_y = valid[0] - mean_x, valid[1] - mean_y
    gram, cross = vectors.T @ (valid_x.T @ valid_x) @ vectors, vectors.T @ (valid_x.T @ valid_y)
    tried = []
    for penalty in PENALTIES:
        weights = turned / (np.maximum(values, 0) + penalty)[:, None]
        tried.append((float(((gram @ weights - 2 * cross) * weights).sum()), penalty))
    weights = vectors @ (turned / (np.maximum(values, 0) + min(tried)[1])[:, None])
    return weights, mean_y - mean_x @ weights


def _regression(
    windows: SplitWindows, standard: StandardColumns, context: int, column: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The contexts of a column, `[N, C]`, and what comes of them, `[N, H]`, relative to the last values, `[N]`."""
    rows = standard.rows(windows)[:, column]
    x = rows[windows.origins[:, None] + np.arange(1 - context, 1)]
    future = (windows.values[windows.rows_to_come(), column].astype(np.float64) - standard.mean[column]) / (
        standard.deviation[column]
    )
    last = x[:, -1]
    return x - last[:, None], future - last[:, None], last


def baseline_metrics(
    fitted: Mapping[str, ForecastBaseline], windows: SplitWindows, facts: DataFacts, settings: ForecastSettings
) -> dict[str, dict[str, float]]:
    """The metrics of forecasts without a network on windows, means over all that is not missing."""
    standard, scores = StandardColumns(facts), {}
    for name, forecast in fitted.items():
        totals, weight = dict[str, float](), 0.0
        for first in range(0, len(windows.origins), BLOCK):
            part = dataclasses.replace(windows, origins=windows.origins[first : first + BLOCK])
            targets = standard.targets(part)
            shares = np.isfinite(targets).mean(axis=(1, 2))
            metrics = forecast_metrics(forecast.forecasts(part), targets, standard.deviation[None], settings.quantiles)
            totals = {key: totals.get(key, 0.0) + float(value @ shares) for key, value in metrics.items()}
            weight += float(shares.sum())
        scores[name] = {key: total / max(weight, 1e-12) for key, total in totals.items()}
    return scores
