"""The tidy table of a study: a row for each member, the same bits however often it was stopped."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl

from gru_jax import flow
from gru_jax.errors import UsageError
from gru_jax.plotting.flow import horizons, source_of
from gru_jax.runs.directory import RunDir
from gru_jax.runs.early_stopping import EndReason
from gru_jax.runs.stored import open_run
from gru_jax.runtime.files import read_json, replace_file
from gru_jax.studies.directory import MEMBERS, STUDY_FILE
from gru_jax.studies.study import read_study_file
from gru_jax.values import literal

ID, STATUS, STOPPED = "member", "status", "stopped"
DONE = "done"  # the status of members that came to an end of their own; others have the reason of theirs
UNFINISHED = (EndReason.DIVERGED, EndReason.HALVED)
INIT, FINAL = "init", "final"  # prefixes of what the instruments said at the first and the last recording
CENSORED = "censored/"
"""Prefix of a column that says of which numbers of another one it is only known that they are as large or larger."""
HORIZON_SOURCE = "horizon_source"
"""Column that says whose gradient horizons and slopes are of, see `gru_jax.flow.sources`."""

_slope = jax.jit(flow.log_slope)


def read_table(path: Path) -> tuple[pl.DataFrame, list[str]]:
    """The table of a study or of a single run, and the names of the columns that vary by design.

    Raises:
        UsageError: the directory is neither.
    """
    study_file = path / STUDY_FILE
    if study_file.is_file():
        described = read_study_file(study_file)["members"]
        done = {name: member for name, member in described.items() if (path / MEMBERS / name).is_dir()}
        if not done:
            raise UsageError(f"{path}: no member is done yet; experiments.ablate goes on with it")
        labels = dict.fromkeys(axis for member in done.values() for axis in member["labels"])
        axes = [axis for axis in labels if axis != ID]  # it might name another directory
        rows = [
            {
                ID: name,
                **{axis: value_of_label(member["labels"].get(axis)) for axis in axes},
                **run_row(path / MEMBERS / name),
            }
            for name, member in done.items()
        ]
        return _frame(rows), axes
    rundir = RunDir(path)
    if not rundir.config.is_file():
        raise UsageError(f"{path}: neither a study's directory nor a run's, it has no {STUDY_FILE} and no config.json")
    if not rundir.summary.is_file():
        raise UsageError(f"{path}: not done yet; experiments.train goes on with it")
    config = read_json(rundir.config)
    return _frame([{ID: path.name, "seed": config["seed"], **run_row(path)}]), ["seed"]


def run_row(path: Path) -> dict[str, Any]:
    """What a run came to, without anything that two equal runs need not share."""
    rundir, _ = open_run(path, compares_source=False)
    summary = rundir.read_summary()
    status = summary["end_reason"] if summary["end_reason"] in UNFINISHED else DONE
    row: dict[str, Any] = {STATUS: status, STOPPED: summary["stopped"] or "", "steps": summary["steps"]}
    row["best_step"] = summary["best"]["step"]
    for which in ("best", "final"):
        for split in ("valid", "test"):
            row |= {f"{which}_{split}_{name}": _number(value) for name, value in summary[which][split].items()}
    row["parameters"] = summary["parameters"]
    records = rundir.read_flow()
    if "step" in records and len(records["step"]):
        if any(name.startswith("adjoint/") for name in records):
            row[HORIZON_SOURCE] = source_of(records)
        try:
            for when, which in ((INIT, 0), (FINAL, -1)):
                row |= {_named(when, name): value for name, value in single_readings(records, which).items()}
        except (IndexError, TypeError, ValueError) as error:
            raise UsageError(f"{rundir.flow}: damaged ({error})") from error
    return row


def single_readings(records: Mapping[str, np.ndarray], which: int) -> dict[str, float | bool]:
    """Single numbers out of a recording: of every layer the gradient horizon in steps (with `censored/horizon/<layer>`,
    whether it is only known to be that or more), the slope of the log adjoint norm against lag in nats per step, the
    largest Lyapunov exponent in nats per step, and the median time scale of units in steps.
    """
    numbers: dict[str, float | bool] = {}
    for name, values in records.items():
        kind, _, layer = name.partition("/")
        reading = values[which] if kind in ("adjoint", "lyapunov", "time_scales") else None
        if reading is None:
            continue
        if kind == "adjoint":
            (lag,), (is_censored,) = horizons(reading[None])
            numbers[f"horizon/{layer}"], numbers[f"{CENSORED}horizon/{layer}"] = float(lag), bool(is_censored)
            numbers[f"slope/{layer}"] = float(_slope(jnp.asarray(reading)))
        elif kind == "lyapunov":
            numbers[f"lambda_1/{layer}"] = float(reading[0])
        else:
            numbers[f"time_scale/{layer}"] = float(np.nanmedian(reading)) if np.isfinite(reading).any() else math.nan
    return {name: numbers[name] for name in sorted(numbers)}


def _named(when: str, name: str) -> str:
    """The column of a reading of the first or the last recording."""
    return f"{CENSORED}{when}_{name.removeprefix(CENSORED)}" if name.startswith(CENSORED) else f"{when}_{name}"


def write_table(frame: pl.DataFrame, path: Path) -> list[Path]:
    """Write `table.csv` and `table.parquet`."""
    made = [path / "table.csv", path / "table.parquet"]
    for target, write in zip(made, (frame.write_csv, frame.write_parquet), strict=True):
        content = io.BytesIO()
        write(content)
        replace_file(target, content.getvalue())
    return made


def _frame(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {}
    for name in names:
        values = [row.get(name) for row in rows]
        kinds = {type(value) for value in values if value is not None}
        if kinds == {int, float}:
            values = [None if value is None else float(value) for value in values]
        elif len(kinds) > 1:
            values = [None if value is None else str(value) for value in values]
        columns[name] = values
    return pl.DataFrame(columns, strict=False)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def value_of_label(label: str | None) -> Any:
    """A label as the number or truth value that it is, or as text."""
    if label is None:
        return None
    value = literal({"true": "True", "false": "False"}.get(label, label), label)
    return value if isinstance(value, bool | int | float) else label
