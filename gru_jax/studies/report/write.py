"""The report on studies and runs: what can be concluded, in one page that opens anywhere, and the table."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from gru_jax.config import varying_keys
from gru_jax.errors import ArgumentError, UsageError
from gru_jax.runs.directory import RunDir
from gru_jax.runs.early_stopping import EndReason
from gru_jax.runs.pictures import draw_pictures
from gru_jax.runs.stored import open_run
from gru_jax.runs.summary import baselines_of
from gru_jax.runtime.files import read_json, refuse_links, replace_file
from gru_jax.studies.directory import MEMBERS, STUDY_FILE
from gru_jax.studies.report.findings import find_findings
from gru_jax.studies.report.page import PageContent, render_page
from gru_jax.studies.report.paired import ComparisonRequest, compare_settings
from gru_jax.studies.report.pictures import draw_report_pictures
from gru_jax.studies.report.sentences import describe_baselines, describe_compared, describe_findings
from gru_jax.studies.report.table import ID, read_table, write_table
from gru_jax.studies.study import read_study_file
from gru_jax.studies.unusable import find_unusable

SOURCE = "study"  # the axis of several directories
COMPARISON = "comparison.csv"


class BestMember(NamedTuple):
    """The best member of a report.

    Attributes:
        path: its run directory.
        base: the config file of its study's base, as on a command line; None where there is none.
        changes: what it and its study change of the base, by key, as typed.
    """

    path: Path
    base: str | None
    changes: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Report:
    """A report that was written: where its page is, and what it says in words.

    Attributes:
        path: of the page, `report.html`.
        sentences: the findings.
        diverged: where every member diverged, the run directory of the one that came furthest.
    """

    path: Path
    sentences: tuple[str, ...]
    diverged: Path | None = None

    def __fspath__(self) -> str:
        return str(self.path)


def write_report(
    paths: Sequence[Path],
    out: Path | None = None,
    commands_for: Callable[[BestMember], Mapping[str, str]] = lambda best: {},
    request: ComparisonRequest | None = None,
) -> Report:
    """Write the report of directories of studies or runs.

    Args:
        paths: directories of studies or runs.
        out: where it goes; the first of them if None.
        commands_for: commands to copy, by what they do, for the best member.
        request: settings that are compared over seeds; None for the studies, if there are several, where they share
            seeds.

    Raises:
        UsageError: a directory is neither a study's nor a run's, or they have different goals; or what is to be
            compared cannot be.
    """
    paths = [Path(path).absolute() for path in paths]
    out = paths[0] if out is None else Path(out).absolute()
    frame, axes, members = gather(paths)
    summaries = [RunDir(path).read_summary() for path in members.values()]
    goals = {summary["goal"][0]: summary for summary in summaries}
    if len(goals) > 1:
        raise UsageError(f"{', '.join(map(str, paths))}: different goals, {', '.join(goals)}; allowed are runs of one")
    goal, summary = next(iter(goals.items()))
    findings = find_findings(frame, axes, summary["goal"])
    compared = _compare(paths, frame, axes, summary["goal"], request)
    curves = {name: validation_curve(path, goal) for name, path in members.items()}
    try:
        out.mkdir(parents=True, exist_ok=True)
        refuse_links(out)
        write_table(frame, out)
        if compared is not None:
            replace_file(out / COMPARISON, compared.write_csv().encode())
        best = _best_member(paths, members[findings.best])
        _, config = open_run(best.path)
        of_best = RunDir(best.path).read_summary()
        drawn = draw_report_pictures(frame, axes, findings, curves, baselines_of(of_best, goal), config, out / "plots")
        shown = {f"{path.stem.capitalize()}": path for path in drawn if path.suffix == ".png"}
        if len(members) == 1:
            only = open_run(next(iter(members.values())), compares_source=False)
            shown |= {p.stem.replace("_", " ").capitalize(): p for p in draw_pictures(*only)}
        title = ", ".join(path.name for path in paths)
        reached_target = sum(summary["end_reason"] == EndReason.TARGET for summary in summaries)
        unusable = find_unusable(members)
        outcome = [unusable.sentence] if unusable else describe_findings(findings, frame, reached_target)
        sentences = [*describe_differences(paths), *outcome]
        sentences += describe_compared(compared) if compared is not None else []
        sentences += describe_baselines(of_best, findings.tested)
        content = PageContent(
            title, sentences, dict(commands_for(best)), frame, axes, findings, curves, shown, compared
        )
        report = out / "report.html"
        replace_file(report, render_page(content).encode())
    except OSError as error:
        raise ArgumentError(f"out={out}: cannot be written ({error.strerror or error})") from error
    return Report(report, tuple(sentences), unusable and unusable.furthest)


def gather(paths: Sequence[Path]) -> tuple[pl.DataFrame, list[str], dict[str, Path]]:
    """The table of all directories, its axes, and the run directory of every member.

    Where members of two studies share an id, all are called by study and id: `study/id`.
    """
    tables, axes, members = [], [], {}
    names = {path: path.name for path in paths}
    if len(set(names.values())) < len(paths):
        above = os.path.commonpath(paths)
        names = {path: os.path.relpath(path, above) for path in paths}
    for path in paths:
        frame, axes_here = read_table(path)
        is_study = (path / STUDY_FILE).is_file()
        if not is_study:
            frame = frame.with_columns(pl.lit(names[path]).alias(ID))
        if len(paths) > 1:
            frame = frame.with_columns(pl.lit(names[path]).alias(SOURCE))
            axes_here = [SOURCE, *axes_here]
        tables.append((frame, [path / MEMBERS / name if is_study else path for name in frame[ID]]))
        axes += [axis for axis in axes_here if axis not in axes]
    ids = [name for frame, _ in tables for name in frame[ID]]
    if len(set(ids)) < len(ids):
        tables = [(frame.with_columns(pl.concat_str(SOURCE, ID, separator="/").alias(ID)), at) for frame, at in tables]
    for frame, directories in tables:
        members |= dict(zip(frame[ID], directories, strict=True))
    frames = [frame for frame, _ in tables]
    frame = frames[0] if len(frames) == 1 else pl.concat(frames, how="diagonal_relaxed")
    return frame, axes, members


def _compare(
    paths: Sequence[Path],
    frame: pl.DataFrame,
    axes: Sequence[str],
    goal: Sequence[str],
    request: ComparisonRequest | None,
) -> pl.DataFrame | None:
    """What is asked for, compared; of several studies these, where nothing is asked for and they share seeds."""
    if request is not None:
        return compare_settings(frame, axes, goal, request)
    if len(paths) < 2 or not all((path / STUDY_FILE).is_file() for path in paths):
        return None
    try:
        return compare_settings(frame, axes, goal, ComparisonRequest(SOURCE))
    except UsageError:
        return None


def describe_differences(paths: Sequence[Path]) -> list[str]:
    """In what several runs differ, a key with its values and whose they are; nothing of one, or of studies."""
    if len(paths) < 2 or any((path / STUDY_FILE).is_file() for path in paths):
        return []
    names = [path.name for path in paths]
    names = names if len(set(names)) == len(names) else [str(path) for path in paths]
    parts = []
    for key, values in varying_keys([read_json(RunDir(path).config) for path in paths]).items():
        whose: dict[str, list[str]] = {}
        for name, value in zip(names, values, strict=True):
            whose.setdefault("none" if value is None else str(value), []).append(name)
        parts.append(f"{key}: " + ", ".join(f"{value} ({', '.join(of_value)})" for value, of_value in whose.items()))
    return [f"The runs differ in {'; '.join(parts)}." if parts else "The configs of the runs do not differ."]


def validation_curve(path: Path, goal: str) -> dict[str, list[Any]]:
    """Steps and scores of a run's validations."""
    lines = [line for line in RunDir(path).read_metrics() if line["split"] == "valid" and goal in line]
    return {"step": [line["step"] for line in lines], "score": [line[goal] for line in lines]}


def _best_member(paths: Sequence[Path], path: Path) -> BestMember:
    for study in (study for study in paths if path.parent == study / MEMBERS):
        described = read_study_file(study / STUDY_FILE)
        changes = {**described["changes"], **described["members"][path.name]["settings"]}
        return BestMember(path, described["base"] if isinstance(described["base"], str) else None, changes)
    return BestMember(path, None, {})
