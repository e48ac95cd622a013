"""Answers that need no network, made from training data alone, and their scores on test data."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

WORK = 2 * 10**8  # numbers that are looked at in search of a season
LONGEST_SEASON = 1000  # steps
AS_GOOD = 0.01  # of the largest error: a minimum that is so much above another one


class WeightedTargets(NamedTuple):
    """Targets one after the other, and how much each counts.

    Attributes:
        values: `[K]` of classes or `[K, O]` of numbers.
        weights: `[K]`, 1 in all.
        unit: in which errors are measured, `[O]` or one for all.
    """

    values: np.ndarray
    weights: np.ndarray
    unit: np.ndarray | float = 1.0


def constant_numbers(train: WeightedTargets, test: WeightedTargets) -> dict[str, float]:
    """The squared error in test of always answering the training mean.

    Examples:
        >>> import numpy as np
        >>> from gru_jax.tasks.naive import WeightedTargets, constant_numbers
        >>> half = np.full(2, 0.5)
        >>> train, test = (WeightedTargets(np.array(of_two)[:, None], half) for of_two in ([0.0, 2.0], [3.0, 5.0]))
        >>> constant_numbers(train, test)
        {'loss': 10.0}
    """
    mean = (train.values * train.weights[:, None]).sum(axis=0)
    return {"loss": _error(test, np.broadcast_to(mean, test.values.shape))}


def constant_classes(
    train: WeightedTargets, test: WeightedTargets, classes: int, class_weights: np.ndarray
) -> dict[str, float]:
    """The accuracy in test of the most frequent class in training, and the cross-entropy of its shares of classes.

    Classes that training does not show get the share of a single target.

    Examples:
        >>> import numpy as np
        >>> from gru_jax.tasks.naive import WeightedTargets, constant_classes
        >>> half = np.full(2, 0.5)
        >>> train, test = (WeightedTargets(np.array(of_two), half) for of_two in ([0, 0], [0, 1]))
        >>> constant_classes(train, test, 2, np.ones(2))["accuracy"]
        0.5
    """
    shares, in_test = (np.bincount(targets.values, targets.weights, classes) for targets in (train, test))
    shown = np.where(shares > 0, shares, 1.0 / (1 + len(train.values)))
    paid = shown * class_weights
    paid_for = paid > 0
    # What is best where a wrong answer on some classes costs more: shares times costs.
    log_shares = np.log(paid[paid_for] / paid.sum())
    loss = float(-((in_test * class_weights)[paid_for] * log_shares).sum())
    return {"accuracy": float(in_test[int(shares.argmax())]), "loss": loss}


class Points(NamedTuple):
    """Steps at which a number is to be told.

    Attributes:
        xs: inputs, `[N, T, D]`.
        row, step: of each of K targets, the sequence and the last step that is known of it, `[K]`.
        targets: what is to be told, and how much it counts.
    """

    xs: np.ndarray
    row: np.ndarray
    step: np.ndarray
    targets: WeightedTargets

    def inputs(self, lag: int) -> tuple[np.ndarray, np.ndarray]:
        """The inputs so many steps before the last ones, `[K', D]`, and which targets have such a step, `[K]`."""
        has_step = self.step >= lag
        return self.xs[self.row[has_step], self.step[has_step] - lag].astype(np.float64), has_step


def forecasts(train: Points, test: Points) -> dict[str, dict[str, float]]:
    """Persistence and the seasonal naive, where training data say that targets go on with inputs: their errors in test.

    Persistence answers the last value of an input channel; the seasonal naive its value some steps before, where the
    error has a minimum over the lag. Which channel, and which lag, is what has the least error in training, for each
    target by itself. One that does not beat the mean there is left out: the targets are then no forecast.

    Examples:
        >>> import numpy as np
        >>> from gru_jax.tasks.naive import Points, WeightedTargets, forecasts
        >>> wave = np.tile([0.0, 1.0, 4.0, 1.0], 50)[None, :, None]
        >>> row, step, weights = np.zeros(199, int), np.arange(199), np.full(199, 1 / 199)
        >>> points = Points(wave, row, step, WeightedTargets(wave[0, 1:], weights))
        >>> {name: round(scores["loss"], 1) for name, scores in forecasts(points, points).items()}
        {'seasonal naive, 3 steps before the last': 0.1}
    """
    targets = train.targets
    mean = constant_numbers(targets, targets)["loss"]
    channels = _lag_errors(train, 0).argmin(axis=0)  # of each target
    last = np.zeros_like(channels)
    seasons = _seasons(train, channels)
    names = {"persistence": last}
    if seasons is not None:
        unlike = len(set(seasons.tolist())) > 1
        names["seasonal naive" + ("" if unlike else f", {seasons[0]} steps before the last")] = seasons
    scores = {}
    for name, lags in names.items():
        if _error(targets, _answers(train, channels, lags)) < mean:
            scores[name] = {"loss": _error(test.targets, _answers(test, channels, lags))}
    return scores


def few_rows(count: int, time: int, size: int) -> np.ndarray:
    """As many of so many sequences, of `size` numbers a step, as are looked at in search of a season: evenly spaced."""
    most = max(1, WORK // (time * min(time, LONGEST_SEASON) * size))
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int))


def _answers(points: Points, channels: np.ndarray, lags: np.ndarray) -> np.ndarray:
    """Values of input channels some steps before the last; the last where there is no such step."""
    step = np.where(points.step[:, None] >= lags, points.step[:, None] - lags, points.step[:, None])
    return points.xs[points.row[:, None], step, channels[None, :]].astype(np.float64)


def _lag_errors(points: Points, lag: int) -> np.ndarray:
    """Squared errors of every input channel as the answer to every target, `[D, O]`."""
    inputs, has_step = points.inputs(lag)
    values, weights = points.targets.values[has_step], points.targets.weights[has_step]
    mean_of = lambda a: (a * weights[:, None]).sum(axis=0) / weights.sum()  # noqa: E731
    squares = mean_of(np.square(inputs))[:, None] + mean_of(np.square(values))[None, :]
    return squares - 2 * (inputs * weights[:, None]).T @ values / weights.sum()


def _seasons(points: Points, channels: np.ndarray) -> np.ndarray | None:
    """For each target, the lag above 0 at which the error has its least minimum; None where one has no minimum."""
    longest = min(int(points.step.max(initial=0)), LONGEST_SEASON)
    errors = np.full((longest + 1, len(channels)), np.inf)
    for lag in range(longest + 1):
        if points.targets.weights[points.step >= lag].sum() < 0.5:  # most of the targets have such a step
            break
        errors[lag] = _lag_errors(points, lag)[channels, np.arange(len(channels))]
    known = errors[np.isfinite(errors).all(axis=1)]
    if len(known) < 3:
        return None
    inner = known[1:-1]
    is_minimum = (inner < known[:-2]) & (inner <= known[2:])
    if not is_minimum.any(axis=0).all():
        return None
    minima = np.where(is_minimum, inner, np.inf)
    # The first of those that are as good: twice a season is a season too.
    return 1 + (minima <= minima.min(axis=0) + AS_GOOD * known.max(axis=0)).argmax(axis=0)


def _error(targets: WeightedTargets, answers: np.ndarray) -> float:
    """The squared error, mean over the numbers of a target."""
    errors = (targets.values - answers) / targets.unit
    return float((np.square(errors) * targets.weights[:, None]).sum(axis=0).mean())
