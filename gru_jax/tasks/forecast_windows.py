"""Windows of a recording: the rows that a network may read of it, and from where it forecasts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from gru_jax.data.checks import Missing, as_float32, check_finite, measure_features
from gru_jax.data.series import Series
from gru_jax.data.times import CalendarFeature, TimeStep, calendar_features, shown_time
from gru_jax.errors import UsageError, listing
from gru_jax.tasks.facts import DataFacts, FeatureScale

VALUES, ORIGINS = "values", "origins"
"""Among the arrays of a split: its rows `[M, F]`, and in them the last known row of each window, `[N]`."""


@dataclasses.dataclass(frozen=True)
class Columns:
    """Which columns of a recording are what.

    Attributes:
        targets: that are forecast.
        inputs: that are read beside them.
        known: that are known in advance.
        calendar: what the calendar says.
        horizon: steps that are forecast.
        recursive: whether one after the other.
    """

    targets: tuple[str, ...]
    inputs: tuple[str, ...]
    known: tuple[str, ...]
    calendar: tuple[CalendarFeature, ...]
    horizon: int
    recursive: bool

    def __post_init__(self) -> None:
        twice = [name for i, name in enumerate(self.read) if name in self.read[:i]]
        if twice:
            raise UsageError(f"targets={','.join(self.targets)}: column {twice[0]!r} is named twice, here or beside")
        if not self.targets:
            raise UsageError("targets=None: no column of numbers is left to forecast")

    @property
    def read(self) -> tuple[str, ...]:
        """Columns of the file."""
        return (*self.targets, *self.inputs, *self.known)

    @property
    def leads(self) -> tuple[int, ...]:
        """How many steps later what is known in advance is of."""
        return (1,) if self.recursive or self.horizon == 1 else (1, self.horizon)

    @property
    def features(self) -> tuple[str, ...]:
        """Names of all numbers of a row."""
        known = [f"{name} in {lead} step{'s' * (lead > 1)}" for lead in self.leads for name in self.known]
        waves = [f"{name} ({wave})" for name in self.calendar for wave in ("sine", "cosine")]
        return (*self.targets, *self.inputs, *known, *waves)

    def rows(self, values: Float[np.ndarray, "M K"], times: np.ndarray | None, step: TimeStep | None) -> np.ndarray:
        """All numbers of each row, `[M, F]`: columns of the file, what is known of later ones, and the calendar."""
        present = values[:, : len(self.targets) + len(self.inputs)]
        known, parts = values[:, present.shape[1] :], [present]
        for lead in self.leads if self.known else ():
            later = np.full(known.shape, np.nan)
            later[:-lead] = known[lead:]
            parts.append(later)
        if self.calendar and times is not None and step is not None:
            after = np.append(times[1:], step.after(times[-1], np.array([1])))
            parts.append(calendar_features(after, self.calendar))
        return as_float32(np.concatenate(parts, axis=1))


@dataclasses.dataclass(frozen=True, eq=False)
class SplitWindows:
    """The rows that the windows of a split stand in.

    Attributes:
        values: all numbers of them, `[M, F]`; as in the file, NaN where one is missing.
        origins: of each window, the last row that is known, `[N]`.
        horizon: H, rows after it that are forecast.
        times: of the rows, `[M]`; None without.
        first: the row of the file that the first one is, without those put between.
    """

    values: np.ndarray
    origins: np.ndarray
    horizon: int
    times: np.ndarray | None
    first: int

    @property
    def first_row(self) -> int:
        """The first that is forecast."""
        return int(self.origins[0]) + 1

    @property
    def last_row(self) -> int:
        """The last that is forecast."""
        return int(self.origins[-1]) + self.horizon

    def shown(self, row: int) -> str:
        """When a row is, or its number where there are no times."""
        return f"row {self.first + row}" if self.times is None else shown_time(self.times[row])

    def rows_to_come(self) -> np.ndarray:
        """The rows that are forecast, `[N, H]`."""
        return self.origins[:, None] + np.arange(1, self.horizon + 1)

    def targets(self, count: int) -> Float[np.ndarray, "N H O"]:
        """What becomes of the first so many columns."""
        return self.values[self.rows_to_come(), :count].astype(np.float64)


def split_sizes(count: int, valid_part: float, test_part: float) -> dict[str, int]:
    """Rows in each split of so many; parts below 1 are shares.

    Raises:
        UsageError: a number is not whole, or nothing is left to train on.

    Examples:
        >>> from gru_jax.tasks.forecast_windows import split_sizes
        >>> split_sizes(100, 0.1, 20.0)
        {'train': 70, 'valid': 10, 'test': 20}
    """
    sizes = {}
    for split, part in (("valid", valid_part), ("test", test_part)):
        if part >= 1 and part != round(part):
            raise UsageError(f"{split}_part={part:g}: allowed are shares below 1 and whole numbers of rows")
        sizes[split] = round(part * count) if part < 1 else int(part)
    if sum(sizes.values()) >= count:
        raise UsageError(
            f"valid_part={valid_part:g}: with test_part={test_part:g} nothing is left of {count} rows to train on"
        )
    return {"train": count - sum(sizes.values()), **sizes}


def split_windows(
    series: Series, columns: Columns, split: str, parts: tuple[float, float], context: int, stride: int
) -> SplitWindows:
    """The windows of a split: what they forecast lies in it, what they read may reach back.

    Args:
        series: the recording.
        columns: what its columns are.
        split: train, valid or test.
        parts: of the rows, for validation and test.
        context: steps that a window reads.
        stride: steps from a window to the next.

    Raises:
        UsageError: there are too few rows.
    """
    sizes = split_sizes(len(series), *parts)
    starts = {"train": context, "valid": sizes["train"], "test": sizes["train"] + sizes["valid"]}
    ends = {"train": sizes["train"], "valid": starts["test"], "test": len(series)}
    first, end = starts[split] - context, ends[split]
    count = end - starts[split] - columns.horizon + 1
    if first < 0 or count < 1:
        needed = context + columns.horizon if split == "train" else columns.horizon
        raise UsageError(
            f"{series.table.path}: of {len(series)} rows {sizes[split]} are for {split}; needed are {needed} or more, "
            f"and {context} before those of validation, with context={context} and horizon={columns.horizon}"
        )
    part = slice(first, end)
    times = None if series.times is None else series.times[part]
    values = columns.rows(series.values[part], times, series.step)
    origins = np.arange(context - 1, context - 1 + count, stride).astype(np.int32)
    return SplitWindows(values, origins, columns.horizon, times, first)


def windows_to_come(series: Series, columns: Columns, context: int, missing: Missing) -> SplitWindows:
    """The window behind whose last row no column to forecast is known.

    Raises:
        UsageError: there are too few rows, a number is missing, or what is known in advance is not there.
    """
    path, count, horizon = series.table.path, len(columns.targets), columns.horizon
    has_target = np.asarray(np.isfinite(series.values[:, :count]).any(axis=1))
    if not has_target.any():
        raise UsageError(f"{path}: has no value of {listing(columns.targets)}")
    origin = len(series) - 1 - int(np.argmax(has_target[::-1]))
    if origin + 1 < context:
        raise UsageError(f"{path}: has {origin + 1} rows with values; needed are the context={context} before")
    ahead = len(series) - 1 - origin
    if columns.known and ahead < horizon:
        raise UsageError(
            f"{path}: {listing(columns.known)} must be known {horizon} rows ahead, where {listing(columns.targets)} "
            f"are missing, and are {ahead}"
        )

    def check(rows: slice, names: slice) -> None:
        block = series.values[rows, names][:, None]
        start, shift = rows.start, names.start or 0
        check_finite([(0, block)], None, lambda row, _, column: series.place(start + row, shift + column), missing)

    check(slice(origin + 1 - context, origin + 1), slice(0, None))
    width = series.values.shape[1]
    if columns.known:
        check(slice(origin + 1, origin + 1 + horizon), slice(width - len(columns.known), None))
    values = np.full((context + horizon, width), np.nan)
    kept = series.values[origin + 1 - context : origin + 1 + horizon]
    values[: len(kept)] = kept
    values[context:, :count] = 0.0  # nobody compares forecasts with them
    times = None
    if series.times is not None and series.step is not None:
        later = series.step.after(series.times[origin], np.arange(1, horizon + 1))
        times = np.concatenate([series.times[origin + 1 - context : origin + 1], later])
    rows = columns.rows(values, times, series.step)
    return SplitWindows(rows, np.array([context - 1], np.int32), horizon, times, origin + 1 - context)


def facts_of_series(
    train: SplitWindows, columns: Columns, time: int, sizes: Mapping[str, int], *, scales: bool
) -> DataFacts:
    """What a run keeps of a recording: the names of its columns, and their means and deviations in training.

    Args:
        train: its training windows.
        columns: what its columns are.
        time: steps of the network.
        sizes: examples in each split.
        scales: whether numbers are standardised.
    """
    count, width = len(columns.targets), train.values.shape[1]
    numbers = width - 2 * len(columns.calendar)
    mean, deviation = np.zeros(width), np.ones(width)
    if scales:
        block = train.values[:, None, :numbers]
        mean[:numbers], deviation[:numbers] = measure_features([(0, block)], None, numbers)
    scale = FeatureScale(tuple(mean.tolist()), tuple(deviation.tolist()))
    return DataFacts(
        time=time,
        features=columns.features,
        per_step=False,
        codes=(),
        classes=(),
        targets=columns.targets,
        sizes=dict(sizes),
        inputs_scale=scale,
        targets_scale=FeatureScale(scale.mean[:count], scale.deviation[:count]),
    )


def filled_rows(
    rows: Float[Array, "B C F"], mean: Float[Array, "1 1 F"], missing: Missing, carried: int
) -> tuple[Float[Array, "B C F"], Bool[Array, "B C F"]]:
    """Rows in which nothing is missing, and where it was: zero, or the mean; of the first columns the last before it.

    Args:
        rows: as in the file.
        mean: of each column in training.
        missing: what is taken for it.
        carried: of how many columns the last value before is taken, or the mean where there is none.

    Examples:
        >>> import jax.numpy as jnp
        >>> from gru_jax.tasks.forecast_windows import filled_rows
        >>> rows = jnp.array([[[jnp.nan], [2.0], [jnp.nan]]])
        >>> filled_rows(rows, jnp.array([[[5.0]]]), "mean", 1)[0][0, :, 0].tolist()
        [5.0, 2.0, 2.0]
    """
    absent = jnp.isnan(rows)
    if missing == "error":
        return rows, absent
    filled = jnp.where(absent, jnp.zeros_like(mean) if missing == "zero" else mean, rows)
    if not carried:
        return filled, absent
    ahead = rows[..., :carried]
    latest = jnp.where(absent[..., :carried], -1, jnp.arange(rows.shape[1], dtype=jnp.int32)[None, :, None])
    latest = jax.lax.cummax(latest, axis=1)
    last = jnp.take_along_axis(ahead, jnp.maximum(latest, 0), axis=1)
    last = jnp.where(latest < 0, mean[..., :carried], last)
    return jnp.concatenate([last, filled[..., carried:]], axis=-1), absent
