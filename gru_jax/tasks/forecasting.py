"""Forecasts: the next values of a recording from those before, cut into windows on the device."""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gru_jax.data.checks import Missing
from gru_jax.data.series import Series, SeriesOptions, number_columns, read_series
from gru_jax.data.times import CalendarFeature, Gaps
from gru_jax.errors import UsageError
from gru_jax.runtime.files import FileStamp, stamp_of
from gru_jax.settings import setting
from gru_jax.tasks.base import SPLITS, Batch, FromFiles
from gru_jax.tasks.facts import DataFacts
from gru_jax.tasks.forecast_baselines import ForecastBaseline, ForecastSettings, baseline_metrics, fit_baselines
from gru_jax.tasks.forecast_scores import forecast_metrics
from gru_jax.tasks.forecast_windows import (
    ORIGINS,
    VALUES,
    Columns,
    SplitWindows,
    facts_of_series,
    filled_rows,
    split_windows,
    windows_to_come,
)
from gru_jax.tasks.reading import read_numbers


@dataclasses.dataclass(frozen=True)
class Forecasting(FromFiles):
    """Forecast the next `horizon` steps of columns of a table from the `context` steps before.

    Windows are cut inside the compiled batch, from one array on the device. The file is split in time; forecasts of a
    split lie in it, and the context before them may reach into the split before. Numbers are brought to mean 0 and
    deviation 1 of the training rows, which the run keeps. A file is `.csv`, `.tsv`, `.txt`, `.parquet`, or packed
    (`.gz`), a row for each step.

    Attributes:
        targets: columns to forecast; None for all of numbers that are named nowhere else.
        inputs: other columns that are read, up to the last known step; None for none.
        known: columns known in advance, read of the step after each and of that a horizon later; None for none.
        calendar: what the calendar says of the step after each: hour, weekday, day (of the month), month, yearday;
            None for nothing.
        context: steps that are read.
        horizon: steps that are forecast.
        stride: steps from one training window to the next; those of validation and test begin at each step.
        first_rows: rows that are used, from the first; None for all.
        valid_part: rows after those of training to validate on; below 1 a share of all.
        test_part: the last rows, to test on; below 1 a share of all.
        scale: whether numbers are standardised.
        missing: what numbers that are missing are taken for: error, which refuses them; zero; mean, their column's in
            training; or mask, 0 beside an input for each column that is 1 where it is missing. Missing targets do not
            count; with `subtract_last` they are taken for the last value before where they are read.
        gaps: what is done where times go on by more than a step: error; skip, which takes the row for the next step; or
            fill, which puts missing rows between.
        season: steps after which things recur, for the seasonal naive forecast that stands beside; None for none.
        subtract_last: whether each window is relative to its last value.
        recursive: whether a network of one step is fed its own outputs; else its head gives all steps at once.
        highway: whether a linear map of each column's context is added to what the network says; Lai et al. 2018.
        separate: whether each column to forecast is an example by itself, for one network that all share.
        segment: how many steps stand side by side in one step of the network.
        quantiles: levels of the quantiles to forecast, 0.5 among them; None for a number, by squared errors.

    Examples:
        >>> from gru_jax.tasks import Forecast  # one of its subclasses
        >>> Forecast.context, Forecast.horizon, Forecast.recursive
        (96, 24, False)
    """

    targets: tuple[str, ...] | None = setting(None, kw_only=True)
    inputs: tuple[str, ...] | None = setting(None, kw_only=True)
    known: tuple[str, ...] | None = setting(None, kw_only=True)
    calendar: tuple[CalendarFeature, ...] | None = setting(None, kw_only=True)
    context: int = setting(96, low=2, high=10**6, kw_only=True)
    horizon: int = setting(24, low=1, high=10**5, kw_only=True)
    stride: int = setting(1, low=1, high=10**6, kw_only=True)
    first_rows: int | None = setting(None, low=4, high=10**9, kw_only=True)
    valid_part: float = setting(0.1, low=1e-6, high=1e9, kw_only=True)
    test_part: float = setting(0.2, low=1e-6, high=1e9, kw_only=True)
    scale: bool = setting(True, kw_only=True)
    missing: Missing = setting("error", kw_only=True)
    gaps: Gaps = setting("error", kw_only=True)
    season: int | None = setting(None, low=2, high=10**6, kw_only=True)
    subtract_last: bool = setting(False, kw_only=True)
    recursive: bool = setting(False, kw_only=True)
    highway: bool = setting(False, kw_only=True)
    separate: bool = setting(False, kw_only=True)
    segment: int = setting(1, low=1, high=10**5, kw_only=True)
    quantiles: tuple[float, ...] | None = setting(None, low=0.001, high=0.999, kw_only=True)

    time_columns: ClassVar[tuple[str, ...] | None] = None
    """The column of times, or several called year, month, day, hour, …; none where rows have no times."""
    header: ClassVar[bool] = True
    """Whether the first line of the file has the names of the columns."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_settings()

    def _check_settings(self) -> None:
        if self.folds is not None:
            raise UsageError(f"folds={self.folds}: windows overlap, and folds would share rows; allowed is none")
        levels = self.quantiles
        if levels is not None and (0.5 not in levels or list(levels) != sorted(set(levels))):
            raise UsageError(f"quantiles={','.join(map(str, levels))}: needed are levels that ascend, 0.5 among them")
        if self.context % self.segment:
            raise UsageError(f"segment={self.segment}: allowed are divisors of context={self.context}")
        if self.known and not self.recursive and self.context < self.horizon:
            raise UsageError(
                f"known={','.join(self.known)}: with context={self.context} not all of the next {self.horizon} steps "
                "are read; needed is a context as long as the horizon"
            )
        if self.recursive:
            wrong = {"inputs": bool(self.inputs), "quantiles": bool(levels), "segment": self.segment > 1}
            wrong["highway"] = self.highway
            for name in (name for name, is_wrong in wrong.items() if is_wrong):
                why = {"inputs": "nobody forecasts them", "quantiles": "one number is fed back"}
                raise UsageError(f"recursive=True: {name} cannot be, as {why.get(name, 'it goes from step to step')}")
        if self.season is not None and self.season > self.context:
            raise UsageError(f"season={self.season}: allowed are up to context={self.context}, from which it is read")
        if self.calendar and not self.time_columns:
            raise UsageError(f"calendar={','.join(self.calendar)}: rows have no times; needed are time_columns")
        if not self.time_columns and self.gaps != "error":
            raise UsageError(f"gaps={self.gaps}: without effect, rows have no times; needed are time_columns")
        if self.gaps == "fill" and self.missing == "error":
            raise UsageError("gaps=fill: rows put between are missing; task.missing says what they are taken for")
        if self.missing == "mean" and not self.scale and self.stored_facts is None:
            raise UsageError("missing=mean: with scale=false no means are measured; allowed are error, zero, mask")

    # Files

    @property
    @abc.abstractmethod
    def path(self) -> Path:
        """Of the file."""

    @property
    def series_options(self) -> SeriesOptions:
        """How the file is read."""
        return SeriesOptions(self.time_columns or (), self.gaps, self.header, self.first_rows)

    @property
    def columns(self) -> Columns:
        """Which columns are what; without a run's own facts, of the file."""
        targets = self.targets or (self.facts.targets if isinstance(self.stored_facts, DataFacts) else None)
        if targets is None:
            named = {*(self.inputs or ()), *(self.known or ())}
            targets = tuple(name for name in number_columns(self.path, self.series_options) if name not in named)
        beside = (self.inputs or (), self.known or (), self.calendar or ())
        return Columns(targets, *beside, self.horizon, self.recursive)

    def series(self) -> Series:
        """The recording in the file, looked at.

        Raises:
            UsageError: it is not usable.
        """
        return _checked_series(self, self.stamps())

    def stamps(self) -> tuple[FileStamp, ...]:
        """Of the file."""
        try:
            return (stamp_of(self.path),)
        except OSError as error:
            raise UsageError(f"{self.path}: cannot be read ({error.strerror})") from error

    def windows(self, split: str) -> SplitWindows:
        """The rows of a split, and where its windows are."""
        return _split(self, split, self.stamps())

    @property
    def facts(self) -> DataFacts:
        if isinstance(self.stored_facts, DataFacts):
            return self.stored_facts
        return _facts(self, self.stamps())

    # Sizes

    @property
    def columns_of_example(self) -> int:
        """O, of one example: the columns to forecast, or one."""
        return 1 if self.separate else len(self.facts.targets)

    @property
    def input_size(self) -> int:
        waves = 2 * len(self.calendar or ())
        beside = len(self.facts.features) - waves - len(self.facts.targets)
        numbers = self.columns_of_example + beside
        return self.segment * (numbers * (2 if self.missing == "mask" else 1) + waves)

    @property
    def output_size(self) -> int:
        return self.columns_of_example * (1 if self.recursive else self.horizon * len(self.quantiles or (0.5,)))

    @property
    def time(self) -> int:
        return self.context // self.segment

    @property
    def predicts_inputs(self) -> bool:  # type: ignore[override]
        return self.recursive

    @property
    def family(self) -> Literal["sequence", "forecaster"]:  # type: ignore[override]
        return "forecaster" if self.subtract_last or self.recursive or self.highway else "sequence"

    @property
    def family_options(self) -> Mapping[str, Any]:  # type: ignore[override]
        if self.family == "sequence":
            return {}
        return {
            "columns": self.columns_of_example,
            "horizon": self.horizon,
            "segment": self.segment,
            "subtract_last": self.subtract_last,
            "recursive": self.recursive,
            "highway": self.context if self.highway else 0,
        }

    def count(self, split: str) -> int:
        return self.facts.sizes[split]

    # Answers without a network

    @property
    def baseline(self) -> Mapping[str, float]:
        return next(iter(self.baselines.values()))

    @property
    def baselines(self) -> Mapping[str, Mapping[str, float]]:
        return _baselines(self, self.stamps())

    def fitted_baselines(self) -> Mapping[str, ForecastBaseline]:
        """Forecasts without a network, by name, which know the training rows alone."""
        return _fitted(self, self.stamps())

    # Batches

    def read(self, split: str) -> dict[str, np.ndarray]:
        windows = self.windows(split)
        return {VALUES: windows.values, ORIGINS: windows.origins}

    def examples(self, data: Mapping[str, Array], index: Int[Array, " B"]) -> Batch:
        count, (mean, deviation) = len(self.facts.targets), self._scales()
        window, column = (index // count, index % count) if self.separate else (index, None)
        steps = jnp.arange(1 - self.context, self.horizon + 1, dtype=jnp.int32)[None]
        rows = data[VALUES][data[ORIGINS][window][:, None] + steps]
        past, future = rows[:, : self.context], rows[:, self.context :]
        targets = self._of_column((future[..., :count] - mean[..., :count]) / deviation[..., :count], column)
        units = self._of_column(jnp.broadcast_to(deviation[..., :count], (len(index), 1, count)), column)
        inputs, known = self._inputs(past, column), None
        if self.recursive and len(self.facts.features) > count:
            known = self._inputs(future[:, :-1].at[..., :count].set(0.0), column)[..., self.columns_of_example :]
        weights = None if self.missing == "error" else jnp.isfinite(targets).astype(jnp.float32).mean(axis=(1, 2))
        # The first row of the targets has the units that errors are told in.
        packed = jnp.concatenate([units, targets], axis=1)
        xs = inputs.reshape(len(inputs), self.time, -1)
        return Batch(xs, packed, weights=weights, decoder_inputs=known)

    def _scales(self) -> tuple[Float[Array, "1 1 F"], Float[Array, "1 1 F"]]:
        """The mean and the deviation of each number of a row."""
        scale = self.facts.inputs_scale
        assert scale is not None
        return jnp.asarray([[scale.mean]], jnp.float32), jnp.asarray([[scale.deviation]], jnp.float32)

    def _of_column(self, rows: Float[Array, "B C F"], column: Int[Array, " B"] | None) -> Array:
        """Rows with, of the columns to forecast, one in each example; with all of them where that is None."""
        if column is None:
            return rows
        count = len(self.facts.targets)
        one = jnp.take_along_axis(rows[..., :count], column[:, None, None], axis=2)
        return jnp.concatenate([one, rows[..., count:]], axis=-1)

    def _inputs(self, rows: Float[Array, "B C F"], column: Int[Array, " B"] | None) -> Float[Array, "B C D"]:
        """Rows of the file as the network reads them."""
        mean, deviation = self._scales()
        filled, absent = filled_rows(rows, mean, self.missing, self.subtract_last * len(self.facts.targets))
        read = self._of_column((filled - mean) / deviation, column)
        if self.missing != "mask":
            return read
        numbers = absent[..., : absent.shape[2] - 2 * len(self.calendar or ())]
        return jnp.concatenate([read, self._of_column(numbers.astype(read.dtype), column)], axis=-1)

    # Metrics, and what a person reads

    def forecasts_of(self, outputs: Any) -> Any:
        """Outputs as forecasts `[B, H, O, Q]`, of standardised numbers."""
        return outputs.reshape(len(outputs), self.horizon, self.columns_of_example, len(self.quantiles or (0.5,)))

    def metrics(self, outputs: Array, batch: Batch) -> dict[str, Float[Array, " B"]]:
        packed = batch.targets.astype(outputs.dtype)
        return forecast_metrics(self.forecasts_of(outputs), packed[:, 1:], packed[:, :1], self.quantiles or ())

    def answers(self, outputs: Array, batch: Batch) -> tuple[Array, Array, Array]:
        middle = self.quantiles.index(0.5) if self.quantiles else 0
        forecasts, targets = self.forecasts_of(outputs)[..., middle].astype(jnp.float32), batch.targets[:, 1:]
        present = jnp.isfinite(targets)
        counts = present.all(axis=-1).astype(jnp.float32)
        return forecasts, jnp.where(present, targets, 0), counts / jnp.maximum(counts.sum(axis=1, keepdims=True), 1)

    def variables(self, batch: Batch) -> Mapping[str, Float[Array, "B T"]]:
        targets, shape = jnp.nan_to_num(batch.targets[:, 1:]), (len(batch.targets), self.time)
        ends = {"in 1 step": targets[:, 0, 0], f"in {self.horizon} steps": targets[:, -1, 0]}
        return {name: jnp.broadcast_to(value[:, None], shape) for name, value in ends.items()}

    def read_forecasts(self, forecasts: Float[np.ndarray, "N H O Q"]) -> Mapping[str, np.ndarray]:
        """Forecasts in the units of the file by name, `[N, H]`: of each column a number, or each of its quantiles."""
        facts, scale = self.facts, self.facts.targets_scale
        assert scale is not None
        values = np.asarray(forecasts, np.float64) * np.array(scale.deviation)[:, None] + np.array(scale.mean)[:, None]
        if not self.quantiles:
            return read_numbers(values[..., 0], facts.targets)
        values = np.sort(values, axis=-1)
        return {
            f"{name} {level:g}": values[:, :, i, j]
            for i, name in enumerate(facts.targets)
            for j, level in enumerate(self.quantiles)
        }

    def new_windows(self, path: Path) -> SplitWindows:
        """The last window of a file, whose forecasts lie beyond what is known; rows of columns that are known in
        advance may follow, in which those to forecast are missing.

        Raises:
            UsageError: it cannot be read, or has too few rows.
        """
        series = read_series(path, self.columns.read, dataclasses.replace(self.series_options, rows=None))
        return windows_to_come(series, self.columns, self.context, self.missing)

    def read_input(self, path: Path) -> Mapping[str, np.ndarray]:
        windows = self.new_windows(path)
        return {VALUES: windows.values, ORIGINS: windows.origins}

    def check_new(
        self, arrays: Mapping[str, np.ndarray], path: Path, place: Callable[..., str] | None = None
    ) -> Mapping[str, np.ndarray]:
        del arrays, place
        raise UsageError(f"{path}: this task forecasts a table, whose rows have times; experiments.predict reads one")

    def describe_data(self) -> list[str]:
        series, lines = self.series(), []
        every = "" if series.step is None else f", steps of {series.step}"
        for split in SPLITS:
            windows = self.windows(split)
            first, last = (windows.shown(row) for row in (windows.first_row, windows.last_row))
            lines.append(f"{split}: {self.size(split):,} windows, forecasts of {first} to {last}{every}")
        missing = series.check_finite(self.missing)
        lines.append(f"columns to forecast: {', '.join(self.facts.targets)}")
        return lines + [f"{missing:,} numbers are missing (task.missing={self.missing})"] * bool(missing)


@functools.lru_cache(maxsize=8)
def _checked_series(task: Forecasting, stamps: tuple[FileStamp, ...]) -> Series:
    del stamps
    series = read_series(task.path, task.columns.read, task.series_options)
    series.check_finite(task.missing)
    return series


@functools.lru_cache(maxsize=16)
def _split(task: Forecasting, split: str, stamps: tuple[FileStamp, ...]) -> SplitWindows:
    del stamps
    stride = task.stride if split == "train" else 1
    parts = (task.valid_part, task.test_part)
    return split_windows(task.series(), task.columns, split, parts, task.context, stride)


@functools.lru_cache(maxsize=16)
def _facts(task: Forecasting, stamps: tuple[FileStamp, ...]) -> DataFacts:
    del stamps
    factor = len(task.columns.targets) if task.separate else 1
    sizes = {split: len(task.windows(split).origins) * factor for split in SPLITS}
    return facts_of_series(task.windows("train"), task.columns, task.time, sizes, scales=task.scale)


@functools.lru_cache(maxsize=8)
def _fitted(task: Forecasting, stamps: tuple[FileStamp, ...]) -> Mapping[str, ForecastBaseline]:
    del stamps
    return fit_baselines(task.windows("train"), task.windows("valid"), task.facts, _settings(task))


@functools.lru_cache(maxsize=8)
def _baselines(task: Forecasting, stamps: tuple[FileStamp, ...]) -> Mapping[str, Mapping[str, float]]:
    del stamps
    return baseline_metrics(task.fitted_baselines(), task.windows("test"), task.facts, _settings(task))


def _settings(task: Forecasting) -> ForecastSettings:
    return ForecastSettings(task.context, task.season, task.quantiles or ())
