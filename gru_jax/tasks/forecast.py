"""Forecasts of a table of one's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from gru_jax.data.files import data_root, files_by_name
from gru_jax.errors import UsageError
from gru_jax.settings import setting
from gru_jax.tasks.forecasting import Forecasting


@dataclasses.dataclass(frozen=True)
class Forecast(Forecasting):
    r"""Forecast columns of a table of one's own; the rest is as of `gru_jax.tasks.forecasting.Forecasting`.

    Attributes:
        file: below the data directory.
        time_columns: the column of times (2016-07-01 13:00:00, 2016-07-01 or 2016-07), or several called year, month,
            day, hour, minute, second; None where rows have no times, and are a step apart all the same.
        header: whether the first line of the file has the names of the columns; without they are column1, column2, ….

    Examples:
        >>> import pathlib, tempfile
        >>> from gru_jax.tasks import Forecast
        >>> folder = tempfile.TemporaryDirectory()
        >>> rows = [f"2020-01-{day:02},{day % 7}" for day in range(1, 31)]
        >>> _ = pathlib.Path(folder.name, "sales.csv").write_text("\n".join(["day,sold", *rows]))
        >>> options = {"time_columns": ("day",), "context": 4, "horizon": 2, "test_part": 7.0}
        >>> task = Forecast("sales.csv", data_dir=folder.name, **options)
        >>> task.facts.targets, [task.size(split) for split in ("train", "valid", "test")]
        (('sold',), [15, 2, 6])
        >>> folder.cleanup()
    """

    file: str = "series.csv"
    time_columns: tuple[str, ...] | None = setting(None, kw_only=True)  # type: ignore[misc]
    header: bool = setting(True, kw_only=True)  # type: ignore[misc]

    @property
    def path(self) -> Path:
        if self.file.startswith(("/", "~")) or ".." in self.file.split("/"):
            raise UsageError(f"file={self.file!r}: allowed is a file below the data directory")
        return data_root(self.data_dir) / self.file

    def data_files(self) -> Mapping[str, Path]:
        return files_by_name(self.data_dir, lambda: [self.path])
