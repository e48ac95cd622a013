"""Published recordings to forecast: electricity transformers, exchange rates, and four small ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from gru_jax.data.checks import Missing
from gru_jax.data.files import DataFile, locate
from gru_jax.data.times import Gaps
from gru_jax.settings import setting
from gru_jax.tasks.forecasting import Forecasting

ADDRESSES = "https://raw.githubusercontent.com/"
MONTH = 30 * 24
"""Hours of a month, as the usual split of ETTh1 counts them."""


@dataclasses.dataclass(frozen=True)
class ETTh1(Forecasting):
    """Forecast the load and the oil temperature of an electricity transformer, hour by hour.

    Seven columns over two years (Zhou et al. 2021, arXiv:2012.07436). By the usual split 12 months of 30 days are
    trained on, four validated and four tested on, and what follows is left out; errors are told of standardised
    numbers, mean over all columns.

    Examples:
        >>> from gru_jax.tasks import ETTh1
        >>> task = ETTh1(horizon=96)  # the file is read, or downloaded, where data are asked for
        >>> task.first_rows, task.valid_part, task.test_part
        (14400, 2880.0, 2880.0)
    """

    first_rows: int | None = setting(20 * MONTH, low=4, high=10**9, kw_only=True)
    valid_part: float = setting(4.0 * MONTH, low=1e-6, high=1e9, kw_only=True)
    test_part: float = setting(4.0 * MONTH, low=1e-6, high=1e9, kw_only=True)
    season: int | None = setting(24, low=2, high=10**6, kw_only=True)

    time_columns: ClassVar[tuple[str, ...]] = ("date",)

    @property
    def path(self) -> Path:
        return locate(
            _published("ett/ETTh1.csv", ETT_SHA256, "zhouhaoyi/ETDataset/main/ETT-small/ETTh1.csv"), self.data_dir
        )


ETT_SHA256 = "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066"
EXCHANGE_SHA256 = "6a4fbb561dcdee43f071a83badbeec9223a335552278348656738b556f1c2e9d"


@dataclasses.dataclass(frozen=True)
class ExchangeRates(Forecasting):
    """Forecast the exchange rates of eight countries, day by day from 1990 to 2016.

    Data of Lai et al. 2018, arXiv:1703.07015. The file has no dates. By the usual split the last fifth is tested on,
    and the tenth before validated on.

    Examples:
        >>> from gru_jax.tasks import ExchangeRates
        >>> ExchangeRates(horizon=7).test_part
        0.2
    """

    header: ClassVar[bool] = False

    @property
    def path(self) -> Path:
        name = "exchange_rate/exchange_rate.txt.gz"
        address = f"laiguokun/multivariate-time-series-data/master/{name}"
        return locate(_published(name, EXCHANGE_SHA256, address), self.data_dir)


SmallSeriesName = Literal["airline", "sunspots", "temperatures", "pollution"]


@dataclasses.dataclass(frozen=True)
class SmallFile:
    """A small recording.

    Attributes:
        name: of the file.
        sha256: of its content.
        time_columns: its columns of times.
        target: the column to forecast.
        season: steps after which things recur.
        gaps, missing: as it is read by default, see `Forecasting`.
    """

    name: str
    sha256: str
    time_columns: tuple[str, ...]
    target: str
    season: int
    gaps: Gaps = "error"
    missing: Missing = "error"


SMALL_FILES: Mapping[SmallSeriesName, SmallFile] = {
    "airline": SmallFile(
        "airline-passengers.csv",
        "8cb51be753a718d9be5d76d7e238cc224792754676adc21faa59e954b0201621",
        ("Month",),
        "Passengers",
        12,
    ),
    "sunspots": SmallFile(
        "monthly-sunspots.csv",
        "c4ec8cc57d9f6fb6ecdb3e1f37f25b6f4badd5124c55931052b0cd2fc3bc71f3",
        ("Month",),
        "Sunspots",
        132,
    ),
    "temperatures": SmallFile(
        "daily-min-temperatures.csv",
        "8b9de63ed6789492bf497625e7f9beb96a63d367b4b0a21754006f749fa5e5da",
        ("Date",),
        "Temp",
        365,
        gaps="fill",  # two days of leap years are missing
        missing="mean",
    ),
    "pollution": SmallFile(
        "pollution.csv",
        "892e9559205d16d32623135c127a3951c12e46ea1e0b3093e107ce89a9fd60e2",
        ("year", "month", "day", "hour"),
        "pm2.5",
        24,
        missing="mask",
    ),
}


@dataclasses.dataclass(frozen=True)
class SmallSeries(Forecasting):
    """Forecast a small recording that textbooks have.

    airline: passengers in thousands, 144 months from 1949 (Box and Jenkins 1976); sunspots: 2,820 months from 1749;
    temperatures: the lowest of each of 3,650 days in Melbourne from 1981; pollution: fine dust (PM2.5) in Beijing, of
    43,824 hours from 2010, of which 2,067 are missing, with the weather (Liang et al. 2015).

    Attributes:
        collection: which of the four recordings.
        season: steps after which things recur; None for those of the recording (12, 132, 365 and 24), where the context
            is as long.

    Examples:
        >>> from gru_jax.tasks import SmallSeries
        >>> SmallSeries("airline", context=24, horizon=12).season
        12
    """

    collection: SmallSeriesName = "airline"

    def __post_init__(self) -> None:
        file = SMALL_FILES.get(self.collection)
        if file is not None:
            self._fill_in(file)
        super().__post_init__()

    def _fill_in(self, file: SmallFile) -> None:
        """Settings that are left at the defaults of all forecasts become those of the recording."""
        changes: dict[str, Any] = {"time_columns": file.time_columns}
        if self.season is None and file.season <= self.context:
            changes["season"] = file.season
        if self.targets is None:
            changes["targets"] = (file.target,)
        if self.missing == "error":
            changes["missing"] = file.missing
        if self.gaps == "error":
            changes["gaps"] = file.gaps
        for name, value in changes.items():
            object.__setattr__(self, name, value)

    @property
    def path(self) -> Path:
        file = SMALL_FILES[self.collection]
        address = f"jbrownlee/Datasets/master/{file.name}"
        return locate(_published(f"small_forecasting/{file.name}", file.sha256, address), self.data_dir)


def _published(path: str, sha256: str, address: str) -> DataFile:
    return DataFile(path, sha256, ADDRESSES + address)
