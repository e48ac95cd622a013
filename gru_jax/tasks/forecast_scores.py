"""How good forecasts are: squared and absolute errors, and of quantiles the pinball loss, CRPS and coverage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float


def level_weights(quantiles: Sequence[float]) -> Float[np.ndarray, " Q"]:
    """The share of all levels from 0 to 1 that is nearest to each, 1 in all.

    Examples:
        >>> from gru_jax.tasks.forecast_scores import level_weights
        >>> level_weights([0.1, 0.5, 0.9]).round(6).tolist()
        [0.3, 0.4, 0.3]
    """
    levels = np.array(quantiles)
    borders = np.concatenate([[0.0], (levels[1:] + levels[:-1]) / 2, [1.0]])
    return np.diff(borders)


def symmetric_pairs(quantiles: Sequence[float]) -> list[tuple[int, int]]:
    """The numbers of levels that are as far from 0 as from 1, the outermost first: bounds of central intervals.

    Examples:
        >>> from gru_jax.tasks.forecast_scores import symmetric_pairs
        >>> symmetric_pairs([0.1, 0.4, 0.5, 0.9])
        [(0, 3)]
    """
    pairs = [(i, j) for i, low in enumerate(quantiles) for j, high in enumerate(quantiles) if i < j]
    return [(i, j) for i, j in pairs if abs(quantiles[i] + quantiles[j] - 1) < 1e-9]


def pinball_losses(errors: Any, quantiles: Sequence[float]) -> Any:
    """The pinball loss of each quantile, `[..., Q]`, of errors, target less forecast; Koenker and Bassett 1978.

    `max(q e, (q - 1) e)` of the error e at level q; its mean is least where the forecast is the quantile.

    Examples:
        >>> import numpy as np
        >>> from gru_jax.tasks.forecast_scores import pinball_losses
        >>> pinball_losses(np.array([[2.0], [-2.0]]), [0.9]).round(6).tolist()
        [[1.8], [0.2]]
    """
    return _beside(quantiles, errors) * errors + (abs(errors) - errors) / 2


def _beside(numbers: Any, errors: Any) -> Any:
    """Numbers for the last axis of an array, in its type and rank."""
    return np.asarray(numbers).astype(errors.dtype).reshape((1,) * (errors.ndim - 1) + (-1,))


def forecast_metrics(forecasts: Any, targets: Any, units: Any, quantiles: Sequence[float] = ()) -> dict[str, Any]:
    """Metrics of each window, means over steps and columns whose target is not missing.

    `loss` is the squared error, or of quantiles the mean of their pinball losses; `mae` the absolute error; both are of
    standardised numbers, `mse_units` and `mae_units` of those in the units of the file. Of quantiles there are also
    `mse` of the median, `crps`, the continuous ranked probability score, twice the integral of the pinball loss over
    all levels (Gneiting and Ranjan 2011) by the midpoint rule, and `coverage_P`, how often a target is within a central
    interval of P percent.

    Args:
        forecasts: of JAX or of NumPy, `[..., H, O, Q]`, where Q is 1 without quantiles.
        targets: `[..., H, O]`, NaN where one is missing.
        units: the deviation of each column, `[..., 1, O]`.
        quantiles: the levels.

    Examples:
        >>> import numpy as np
        >>> from gru_jax.tasks.forecast_scores import forecast_metrics
        >>> metrics = forecast_metrics(np.zeros((2, 1, 1)), np.array([[1.0], [np.nan]]), np.array([[3.0]]))
        >>> {name: float(value) for name, value in metrics.items()}
        {'loss': 1.0, 'mae': 1.0, 'mse_units': 9.0, 'mae_units': 3.0}
    """
    xp: Any = jnp if isinstance(forecasts, jax.Array) else np
    present = xp.isfinite(targets).astype(forecasts.dtype)
    counts = xp.maximum(present.sum(axis=(-2, -1)), 1)

    def mean(values: Any) -> Any:
        return (values * present).sum(axis=(-2, -1)) / counts

    errors = present[..., None] * (xp.nan_to_num(targets)[..., None] - forecasts)
    middle = quantiles.index(0.5) if quantiles else 0
    of_points = errors[..., middle]
    squared, absolute = of_points**2, abs(of_points)
    made = {"loss": mean(squared), "mae": mean(absolute)}
    if quantiles:
        pinball = pinball_losses(errors, quantiles)
        weights = _beside(level_weights(quantiles), errors)
        made["loss"] = mean(pinball.mean(axis=-1))
        made |= {"mse": mean(squared), "crps": mean(2 * (pinball * weights).sum(axis=-1))}
        sorted_errors = xp.sort(errors, axis=-1)[..., ::-1]  # levels may cross; they are read in their order
        for low, high in symmetric_pairs(quantiles):
            within = (sorted_errors[..., low] >= 0) & (sorted_errors[..., high] <= 0)
            percent = round(100 * (quantiles[high] - quantiles[low]))
            made[f"coverage_{percent}"] = mean(within.astype(forecasts.dtype))
    return {**made, "mse_units": mean(squared * units**2), "mae_units": mean(absolute * units)}
