"""A study as an object: its table, its best member, its pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from gru_jax.errors import UsageError, check_choice
from gru_jax.plotting.style import BLUE, OUTSIDE, figure, house_style
from gru_jax.runs.directory import RunDir
from gru_jax.runs.early_stopping import EndReason
from gru_jax.runs.run import Run
from gru_jax.studies.directory import MEMBERS, STUDY_FILE
from gru_jax.studies.report.findings import Findings, find_findings
from gru_jax.studies.report.paired import ComparisonRequest, compare_settings
from gru_jax.studies.report.pictures import logarithmic, value_colours
from gru_jax.studies.report.table import ID, STATUS, read_table
from gru_jax.studies.report.write import SOURCE, gather
from gru_jax.studies.unusable import find_unusable


class StudyResult:
    """A study in its directory, as far as its members are done; it may stand for its path.

    Args:
        path: of the directory.

    Attributes:
        path: of the directory.
        report: of its page, which `experiments.ablate` and `experiments.report` write.

    Examples:
        >>> import pathlib, tempfile
        >>> import gru_jax
        >>> from gru_jax.studies.runner import RunnerOptions, StudyRunner
        >>> from gru_jax.studies.study import load_study
        >>> folder = tempfile.TemporaryDirectory()
        >>> base = {"task": {"name": "adding", "length": 5, "test_size": 8}, "train": {"steps": 2, "batch_size": 4}}
        >>> study = load_study({"base": base, "axes": {"optimizer.lr": [0.01, 0.1]}})
        >>> StudyRunner(study, pathlib.Path(folder.name), RunnerOptions()).run()
        >>> study = gru_jax.open(folder.name)
        >>> study.table["optimizer.lr"].to_list(), study.best.config.train.steps
        ([0.01, 0.1], 2)
        >>> folder.cleanup()
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        self.report = self.path / "report.html"

    @staticmethod
    def is_at(path: str | os.PathLike[str]) -> bool:
        """Whether a directory is that of a study."""
        return (Path(path) / STUDY_FILE).is_file()

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"StudyResult({str(self.path)!r}, {self.table.height} members done)"

    @property
    def table(self) -> pl.DataFrame:
        """A row for each member that is done: its values on the axes, its scores, what the instruments said.

        Raises:
            UsageError: none is done.
        """
        return read_table(self.path)[0]

    @property
    def axes(self) -> list[str]:
        """The names of the columns that vary by design."""
        return read_table(self.path)[1]

    @property
    def findings(self) -> Findings:
        """What can be concluded: chosen on validation data, tested once."""
        table, axes = read_table(self.path)
        return find_findings(table, axes, self._goal(table))

    @property
    def best(self) -> Run:
        """The best member of the best combination of values, by validation.

        Raises:
            UsageError: every member diverged.
        """
        findings, unusable = self.findings, find_unusable({name: self._member(name) for name in self.table[ID]})
        if unusable:
            raise UsageError(f"{self.path}: {unusable.sentence}")
        return self.run(findings.best)

    def run(self, member: str) -> Run:
        """A member by its id, the column `member` of the table."""
        check_choice("member", member, self.table[ID])
        return Run(self._member(member))

    def plot(self, x: str, y: str | None = None, by: str | None = None) -> Figure:
        """A column of the table against another one: a point for each member that did not diverge, and a
        line through the medians.

        Args:
            x: name of a column, as a rule of an axis.
            y: name of a column of numbers; None for the validation score that decides.
            by: name of a column; each of its values has a colour.

        Raises:
            UsageError: there is no such column, or `y` has no numbers.
        """
        table, score = self.table, self.findings.score
        y = score if y is None else y
        for name, column in (("x", x), ("y", y), *([("by", by)] if by else [])):
            check_choice(name, column, table.columns)
        if not table[y].dtype.is_numeric():
            raise UsageError(f"y={y}: a column of numbers is needed")
        colours = value_colours(table, by) if by else {None: BLUE}
        if table[x].dtype.is_numeric():
            table = table.filter(pl.col(x).is_not_null())  # missing where the axis does not apply
        values = table[x].unique(maintain_order=True).to_list()
        with house_style():
            picture, (ax, *_) = figure(1)
            for value, colour in colours.items():
                part = table.filter(pl.col(by).eq_missing(pl.lit(value))) if by else table
                _draw_points(ax, part, x, y, values, colour, f"{value}" if by else None)
            ax.set(xlabel=x, ylabel=y)
            if not table[x].dtype.is_numeric():
                ax.set_xticks(range(len(values)), [str(value) for value in values])
            elif logarithmic(values):
                ax.set_xscale("log")
            if by:
                ax.legend(title=by, **OUTSIDE)
        return picture

    def compare(self, axis: str, values: Sequence[Any] = (), score: str | None = None) -> pl.DataFrame:
        """Values of an axis compared over seeds with the first of them: paired differences, their intervals, and how
        many seeds would settle it.

        Args:
            axis: name of a column that varies by design.
            values: of the axis, the one first that others are compared with; all if empty, and all others if it is one.
            score: a column of the table; None for the validation score that decides.

        Returns:
            see `gru_jax.studies.report.paired.compare_settings`.

        Raises:
            UsageError: there is no such axis, value or score, or no seed in common.
        """
        table, axes = read_table(self.path)
        request = ComparisonRequest(axis, [str(value) for value in values], score)
        return compare_settings(table, axes, self._goal(table), request)

    def compare_with(self, other: str | os.PathLike[str], score: str | None = None) -> pl.DataFrame:
        """Another study compared with this one over seeds: same seed, same values on all axes; see `compare`.

        Args:
            other: its directory, or its `StudyResult`.
            score: a column of both tables; None for the validation score that decides.

        Raises:
            UsageError: it is no study, or there is no seed in common.
        """
        table, axes, _ = gather([self.path, Path(other).absolute()])
        return compare_settings(table, axes, self._goal(read_table(self.path)[0]), ComparisonRequest(SOURCE, (), score))

    def _goal(self, table: pl.DataFrame) -> Sequence[str]:
        return RunDir(self._member(table[ID][0])).read_summary()["goal"]

    def _member(self, name: str) -> Path:
        return self.path / MEMBERS / name


def _draw_points(
    ax: Any, table: pl.DataFrame, x: str, y: str, values: Sequence[Any], colour: str, label: str | None
) -> None:
    """Draw the points of one colour, of members that did not diverge, and the line through their medians."""
    is_number = table[x].dtype.is_numeric()
    table = table.filter(pl.col(y).is_finite() & (pl.col(STATUS) != EndReason.DIVERGED))
    places = table[x].to_list() if is_number else [values.index(value) for value in table[x]]
    ax.plot(places, table[y], "o", color=colour, ms=3, alpha=0.5)
    order = sorted(set(places))
    medians = [np.median([v for place, v in zip(places, table[y], strict=True) if place == at]) for at in order]
    ax.plot(order, medians, "-" if is_number else "_", color=colour, lw=1.5, ms=12, label=label)
