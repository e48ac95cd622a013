"""Looking at numbers before anything is trained on them: what is not finite, and where; means and deviations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Integer

from gru_jax.errors import UsageError

Missing = Literal["error", "zero", "mean", "mask"]
"""What an input that is NaN is taken for: it is refused, or is 0, or its feature's mean, or 0 beside an input that
says so."""

ROUNDING = 1e-12
"""Of a mean: by how much equal numbers of 64 bits may seem to differ from it."""
Block = tuple[int, np.ndarray]
"""The first of some rows, and their numbers `[N, T, D]`."""


class Statistics(NamedTuple):
    """Means and deviations of every feature, over the steps that count and are not missing.

    Attributes:
        mean: `[D]`, 0 where a feature has no number.
        deviation: `[D]`, the standard deviation, 1 where it is 0 but for rounding.
    """

    mean: Float[np.ndarray, " D"]
    deviation: Float[np.ndarray, " D"]


def usable_deviation(deviation: Float[np.ndarray, "*N"], mean: Float[np.ndarray, "*N"]) -> Float[np.ndarray, "*N"]:
    """Deviations to divide by: 1 in place of one that is 0, or no more than the rounding of numbers around a mean.

    Examples:
        >>> import numpy as np
        >>> from gru_jax.data.checks import usable_deviation
        >>> usable_deviation(np.array([2.0, 0.0, 1e-17]), np.array([1.0, 1.0, 0.1])).tolist()
        [2.0, 1.0, 1.0]
    """
    return np.where(deviation > ROUNDING * np.abs(mean), deviation, 1.0)


def as_float32(values: np.ndarray) -> np.ndarray:
    """Numbers in the type that a loss uses; those beyond its range are infinite.

    Examples:
        >>> import numpy as np
        >>> from gru_jax.data.checks import as_float32
        >>> as_float32(np.array([1.0, 1e39])).tolist()
        [1.0, inf]
    """
    with np.errstate(over="ignore"):  # what becomes infinite is refused
        return values.astype(np.float32, copy=False)


def check_finite(
    blocks: Iterable[Block],
    lengths: Integer[np.ndarray, " N"] | None,
    place: Callable[[int, int, int], str],
    missing: Missing = "error",
) -> int:
    """Refuse numbers that are not finite within the lengths of their rows, and count those that are missing.

    Args:
        blocks: of rows.
        lengths: of all rows; None where every step counts.
        place: says where a row, a step and a feature are.
        missing: whether NaN is refused.

    Raises:
        UsageError: the first number that is refused, and where it is.

    Examples:
        >>> import numpy as np
        >>> from gru_jax.data.checks import check_finite
        >>> xs = np.array([[[1.0], [np.nan]]])
        >>> check_finite([(0, xs)], np.array([1]), lambda row, step, feature: "xs.npy")
        0
        >>> check_finite([(0, xs * np.inf)], np.array([2]), lambda row, step, feature: f"xs.npy: row {row}", "zero")
        Traceback (most recent call last):
        gru_jax.errors.UsageError: xs.npy: row 0: holds inf; allowed are finite numbers of 32 bits
    """
    count = 0
    for first, block in blocks:
        used = as_float32(block) if block.dtype.kind == "f" else block
        if block.dtype.kind != "f" or _has_finite_sum(used):
            continue
        wrong = ~np.isfinite(used)
        if lengths is not None:
            wrong &= (np.arange(block.shape[1]) < lengths[first : first + len(block), None])[..., None]
        if missing != "error":
            absent = wrong & np.isnan(used)
            count += int(absent.sum())
            wrong &= ~absent
        if wrong.any():
            row, step, feature = (int(i) for i in np.argwhere(wrong)[0])
            value, where = block[row, step, feature], place(first + row, step, feature)
            hint = "; task.missing=zero, mean or mask takes it for a missing value" if np.isnan(value) else ""
            raise UsageError(f"{where}: holds {value}; allowed are finite numbers of 32 bits{hint}")
    return count


def _has_finite_sum(values: np.ndarray) -> bool:
    """Whether the sum is finite, and so every number; read once, without a copy. A sum may also overflow."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(np.add.reduce(values, axis=None)))


def measure_features(blocks: Iterable[Block], lengths: Integer[np.ndarray, " N"] | None, features: int) -> Statistics:
    """Means and deviations of every feature, block by block, by the formula of Chan, Golub and LeVeque (1979).

    Args:
        blocks: of rows.
        lengths: of all rows; None where every step counts.
        features: D.

    Examples:
        >>> import numpy as np
        >>> from gru_jax.data.checks import measure_features
        >>> xs = np.array([[[1.0], [3.0]], [[5.0], [np.nan]]])
        >>> measure_features([(0, xs[:1]), (1, xs[1:])], None, 1).mean.tolist()
        [3.0]
    """
    count, mean, squares = (np.zeros(features) for _ in range(3))
    for first, block in blocks:
        values = block.astype(np.float64).reshape(-1, features)
        counts = np.isfinite(values)
        if lengths is not None:
            within = np.arange(block.shape[1]) < lengths[first : first + len(block), None]
            counts &= within.reshape(-1, 1)
        here = counts.sum(axis=0)
        values = np.where(counts, values, 0)
        mean_here = values.sum(axis=0) / np.maximum(here, 1)
        squares_here = (np.where(counts, values - mean_here, 0) ** 2).sum(axis=0)
        total, shift = count + here, mean_here - mean
        share = here / np.maximum(total, 1)
        squares = squares + squares_here + shift**2 * count * share
        mean, count = mean + shift * share, total
    deviation = np.sqrt(squares / np.maximum(count, 1))
    return Statistics(mean, usable_deviation(deviation, mean))
