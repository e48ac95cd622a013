"""Report on studies and runs: what can be concluded, in one page that opens anywhere.

usage: python -m experiments.report DIR [DIR ...] [--out DIR]

  DIR ...      directories of studies (experiments.ablate) or of runs; several are compared
  --out DIR    where the report goes; by default the first DIR

Writes report.html (self-contained), table.csv and table.parquet (a row for each member), and, of studies,
plots/overview and plots/effects as PNG and SVG.

examples:
  python -m experiments.report runs/init_lr
  python -m experiments.report runs/zeros runs/chrono --out runs/compared
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from experiments import cli
from gru_jax.errors import UsageError
from gru_jax.plotting import runs as plots
from gru_jax.runs.directory import RunDir
from gru_jax.runs.stored import open_run
from gru_jax.runtime.files import no_links, replace
from gru_jax.studies.directory import MEMBERS, STUDY_FILE
from gru_jax.studies.report import findings, page, pictures, table
from gru_jax.studies.study import alone, read_study

SOURCE = "study"  # the axis of several directories


def run(paths: Sequence[Path], out: Path | None = None) -> Path:
    """Write the report of directories, and return its path; for notebooks. Raises as `write` does."""
    return write(paths, out)[0]


def write(paths: Sequence[Path], out: Path | None = None) -> tuple[Path, list[str]]:
    """Write the report of directories, and return its path and what it says in words.

    Raises:
        UsageError: a directory is neither a study's nor a run's, or they have different goals.
    """
    paths = [Path(path).absolute() for path in paths]
    out = paths[0] if out is None else Path(out).absolute()
    frame, axes, members = gather(paths)
    summaries = (RunDir(path).read_summary() for path in members.values())
    goals = {summary["goal"][0]: summary for summary in summaries}
    if len(goals) > 1:
        raise UsageError(f"{', '.join(map(str, paths))}: different goals, {', '.join(goals)}; allowed are runs of one")
    goal, summary = next(iter(goals.items()))
    found = findings.find(frame, axes, summary["goal"])
    curves = {name: curve(path, goal) for name, path in members.items()}
    try:
        out.mkdir(parents=True, exist_ok=True)
        no_links(out)
        table.write(frame, out)
        _, config = open_run(members[found.best])
        baseline = summary["baseline"].get(goal)
        drawn = pictures.draw(frame, axes, found, curves, baseline, config, out / "plots")
        shown = {f"{path.stem.capitalize()}": path for path in drawn if path.suffix == ".png"}
        if len(members) == 1:
            only = open_run(next(iter(members.values())))
            shown |= {p.stem.replace("_", " ").capitalize(): p for p in plots.draw(*only)}
        title = ", ".join(path.name for path in paths)
        told = findings.sentences(found, frame)
        best = members[found.best]
        content = page.Content(title, told, commands(paths, best, found.best), frame, axes, found, curves, shown)
        report = out / "report.html"
        replace(report, page.render(content).encode())
    except OSError as error:
        raise UsageError(f"--out={out}: cannot be written ({error.strerror or error})") from error
    return report, told


def gather(paths: Sequence[Path]) -> tuple[pl.DataFrame, list[str], dict[str, Path]]:
    """The table of all directories, its axes, and the run directory of every member."""
    frames, axes, members = [], [], {}
    names = {path: path.name for path in paths}
    if len(set(names.values())) < len(paths):
        above = os.path.commonpath(paths)
        names = {path: os.path.relpath(path, above) for path in paths}
    for path in paths:
        frame, own = table.read(path)
        if not (path / STUDY_FILE).is_file():
            frame = frame.with_columns(pl.lit(names[path]).alias(table.ID))
        for name in frame[table.ID]:
            members[name] = path / MEMBERS / name if (path / STUDY_FILE).is_file() else path
        if len(paths) > 1:
            frame = frame.with_columns(pl.lit(names[path]).alias(SOURCE))
            own = [SOURCE, *own]
        frames.append(frame)
        axes += [axis for axis in own if axis not in axes]
    frame = frames[0] if len(frames) == 1 else pl.concat(frames, how="diagonal_relaxed")
    return frame, axes, members


def curve(path: Path, goal: str) -> dict[str, list[Any]]:
    """Steps and scores of a run's validations."""
    lines = [line for line in RunDir(path).read_metrics() if line["split"] == "valid" and goal in line]
    return {"step": [line["step"] for line in lines], "score": [line[goal] for line in lines]}


def commands(paths: Sequence[Path], best: Path, name: str) -> dict[str, str]:
    """Commands to copy: the best member alone, its gradient flow, the study again."""
    told = {}
    for path in paths:
        described = read_study(path / STUDY_FILE) if (path / STUDY_FILE).is_file() else None
        if described is not None and name in described["members"]:
            changes = {**described["changes"], **described["members"][name]["settings"]}
            told["The best member alone"] = alone(described["base"], changes)
    if RunDir(best).checkpoints.is_dir():
        told["What its gradients do"] = shlex.join(["python", "-m", "experiments.flow", "--workdir", str(best)])
    return told


def command(argv: Sequence[str]) -> int:
    """The command line."""
    names: list[str] = []
    rest = list(argv)
    while rest and not rest[0].startswith("--"):
        names.append(rest.pop(0))
    flags, _ = cli.parse(rest, ("out",))
    if not names:
        raise UsageError("a directory is missing; allowed are those of studies and runs, e.g. runs/init_lr")
    for name in names:
        if not Path(name).is_dir():
            raise UsageError(f"{name}: no such directory")
    path = run([Path(name) for name in names], Path(flags["out"]) if "out" in flags else None)
    print(f"report: {path}")
    return 0


def usage() -> str:
    """The text of --help."""
    return __doc__ or ""


if __name__ == "__main__":
    cli.main(command, usage)
