"""Times of the rows of a recording: read, checked, gone on with, and what a calendar says of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from gru_jax.data.tables import Table
from gru_jax.errors import UsageError, listing

Gaps = Literal["error", "skip", "fill"]
"""What is done where times go on by more than a step: refused, taken for the next step, or filled with missing rows."""
CalendarFeature = Literal["hour", "weekday", "day", "month", "yearday"]
"""What a calendar says of a time, as sine and cosine of its share of a day, a week, a month or a year."""

PARTS = ("year", "month", "day", "hour", "minute", "second")
"""Columns that make up a time, where no single one does."""
ISO = "dates as 2016-07-01, 2016-07 or 2016-07-01 13:00:00"
_DATE = re.compile(r"\d{4}(-.*)?", re.DOTALL)
"""What a time begins with: NumPy takes a number of any length for a year, and words for today."""
NAMES_OF_SECONDS = {86400: "day", 3600: "hour", 60: "minute", 1: "second"}


class TimeStep(NamedTuple):
    """From one row to the next: so many months, or so many seconds.

    Examples:
        >>> from gru_jax.data.times import TimeStep
        >>> str(TimeStep(0, 3600)), str(TimeStep(3, 0))
        ('1 hour', '3 months')
    """

    months: int
    seconds: int

    def after(self, time: np.datetime64, steps: Int[np.ndarray, " N"]) -> np.ndarray:
        """The times so many steps after one, `[N]`."""
        if not self.months:
            return time + (self.seconds * np.asarray(steps, np.int64)).astype("timedelta64[s]")
        month = time.astype("datetime64[M]")
        months = (np.asarray(steps, np.int64) * self.months).astype("timedelta64[M]")
        later = (month + months).astype("datetime64[s]")
        return later + (time - month.astype("datetime64[s]"))

    def __str__(self) -> str:
        count, name = self.months, "month"
        if not self.months:
            unit = next(unit for unit in NAMES_OF_SECONDS if self.seconds % unit == 0)
            count, name = self.seconds // unit, NAMES_OF_SECONDS[unit]
        return f"{count} {name}{'s' * (count != 1)}"


def read_times(table: Table, columns: Sequence[str]) -> np.ndarray:
    r"""The times of all rows, `[N]` to the second.

    Args:
        table: of the rows.
        columns: the one that holds dates by ISO 8601, or several called year, month, day, hour, minute, second.

    Raises:
        UsageError: there is no such column, or a cell is no time.

    Examples:
        >>> import pathlib, tempfile
        >>> from gru_jax.data.tables import open_table
        >>> from gru_jax.data.times import read_times
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = pathlib.Path(folder.name, "a.csv")
        >>> _ = path.write_text("month,x\n1949-01,1\n1949-02,2\n")
        >>> read_times(open_table(path), ["month"]).astype("datetime64[M]").tolist()
        [datetime.date(1949, 1, 1), datetime.date(1949, 2, 1)]
        >>> folder.cleanup()
    """
    table.check_columns(columns, "time column")
    if len(columns) > 1:
        return _joined_parts(table, columns)
    texts = np.char.replace(np.char.rstrip(table.texts(columns[0]), "Z"), "/", "-")
    try:
        if all(map(_DATE.fullmatch, texts)):
            return texts.astype("datetime64[s]")
    except ValueError:
        pass
    row = next(row for row, text in enumerate(texts) if not _is_time(text))
    came = f"{str(texts[row])[:50]!r} is no time; allowed are {ISO}" if texts[row] else "has no time"
    raise UsageError(f"{table.place(row, columns[0])}: {came}")


def _is_time(text: str) -> bool:
    if not _DATE.fullmatch(text):
        return False
    try:
        np.datetime64(text, "s")
    except ValueError:
        return False
    return True


def _joined_parts(table: Table, columns: Sequence[str]) -> np.ndarray:
    if tuple(columns) != PARTS[: len(columns)]:
        raise UsageError(f"time_columns={','.join(columns)}: allowed is a column, or several called {listing(PARTS)}")
    parts = {name: table.numbers(name) for name in columns}
    lowest = {"month": 1, "day": 1}
    most = {"year": 9999, "month": 12, "day": 31, "hour": 23, "minute": 59, "second": 59}
    for name, values in parts.items():
        wrong = ~((values >= lowest.get(name, 0)) & (values <= most[name]) & (values == np.round(values)))
        if wrong.any():
            row = int(np.argmax(wrong))
            allowed = f"allowed are whole numbers from {lowest.get(name, 0)} to {most[name]}"
            raise UsageError(f"{table.place(row, name)}: holds {values[row]:g}; {allowed}")
    count = len(parts["year"])
    whole = {name: parts.get(name, np.full(count, float(lowest.get(name, 0)))).astype(np.int64) for name in PARTS}
    months = (whole["year"] - 1970) * 12 + whole["month"] - 1
    days = months.astype("datetime64[M]").astype("datetime64[D]") + (whole["day"] - 1).astype("timedelta64[D]")
    wrong = days.astype("datetime64[M]") != months.astype("datetime64[M]")
    if wrong.any():
        row = int(np.argmax(wrong))
        raise UsageError(f"{table.place(row, 'day')}: holds {whole['day'][row]}, which that month has not")
    seconds = whole["hour"] * 3600 + whole["minute"] * 60 + whole["second"]
    return days.astype("datetime64[s]") + seconds.astype("timedelta64[s]")


def find_step(times: np.ndarray, table: Table) -> TimeStep:
    """The step from row to row that most of them take.

    Raises:
        UsageError: times do not ascend, or there are fewer than two.
    """
    if len(times) < 2:
        raise UsageError(f"{table.path}: has {len(times)} rows; needed are two or more, to know the step of time")
    falls = np.flatnonzero(np.diff(times) <= np.timedelta64(0, "s"))
    if falls.size:
        row = int(falls[0]) + 1
        raise UsageError(
            f"{table.place(row)}: {shown_time(times[row])} follows {shown_time(times[row - 1])}; needed are times that "
            "ascend"
        )
    months = times.astype("datetime64[M]")
    if len(np.unique(times - months.astype("datetime64[s]"))) == 1:  # the same moment of every month
        return TimeStep(_most_common(np.diff(months).astype(np.int64)), 0)
    return TimeStep(0, _most_common(np.diff(times).astype(np.int64)))


def _most_common(values: np.ndarray) -> int:
    distinct, counts = np.unique(values, return_counts=True)
    return int(distinct[np.argmax(counts)])


def steps_from_first(times: np.ndarray, step: TimeStep, gaps: Gaps, table: Table) -> np.ndarray:
    """How many steps after the first one each row is, `[N]`.

    Args:
        times: of the rows, which ascend.
        step: that most of them take.
        gaps: whether a longer step is refused, or taken for one, or kept.
        table: of the rows.

    Raises:
        UsageError: a step is longer where that is refused, or no multiple of the step.
    """
    numbers = np.arange(len(times))
    if gaps == "skip":
        return numbers
    if step.months:
        taken = np.diff(times.astype("datetime64[M]")).astype(np.int64) / step.months
    else:
        taken = np.diff(times).astype(np.int64) / step.seconds
    allowed = taken == np.round(taken) if gaps == "fill" else taken == 1
    if not allowed.all():
        row = int(np.argmin(allowed)) + 1
        hint = "task.gaps=skip takes it for the next step"
        if gaps == "error":
            hint += ", fill puts missing rows between"
        raise UsageError(
            f"{table.place(row)}: {shown_time(times[row])} follows {shown_time(times[row - 1])}, where the step is "
            f"{step}; {hint}"
        )
    return np.concatenate([[0], np.cumsum(np.round(taken).astype(np.int64))])


def calendar_features(times: np.ndarray, features: Sequence[CalendarFeature]) -> Float[np.ndarray, "N F"]:
    """Sine and cosine of each feature of a calendar, `[N, 2 F]`.

    Args:
        times: `[N]`.
        features: which.

    Examples:
        >>> import numpy as np
        >>> from gru_jax.data.times import calendar_features
        >>> calendar_features(np.array(["2016-07-01 06:00"], "datetime64[s]"), ["hour"]).round(6).tolist()
        [[1.0, 0.0]]
    """
    days = times.astype("datetime64[D]")
    months, years = times.astype("datetime64[M]"), times.astype("datetime64[Y]")
    next_years = (years + np.timedelta64(1, "Y")).astype("datetime64[D]")
    whole_year = (next_years - years.astype("datetime64[D]")).astype(np.int64)
    shares = {
        "hour": (times - days).astype("timedelta64[s]").astype(np.int64) / 86400,
        "weekday": (days.astype(np.int64) + 3) % 7 / 7,  # the first day of 1970 was a Thursday
        "day": (days - months.astype("datetime64[D]")).astype(np.int64) / 31,
        "month": months.astype(np.int64) % 12 / 12,
        "yearday": (days - years.astype("datetime64[D]")).astype(np.int64) / whole_year,
    }
    columns = [wave(2 * np.pi * shares[name]) for name in features for wave in (np.sin, np.cos)]
    return np.stack(columns, axis=1) if columns else np.zeros((len(times), 0))


def shown_time(time: np.datetime64) -> str:
    """A time as people write it, without the parts that are 0 of all times of day."""
    text = str(time.astype("datetime64[s]")).replace("T", " ")
    return text.removesuffix(" 00:00:00")
