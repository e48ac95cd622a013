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
from gru_jax.plotting.flow import horizons
from gru_jax.runs.directory import RunDir
from gru_jax.runs.population import DIVERGED
from gru_jax.runs.stored import open_run
from gru_jax.runtime.files import read_json, replace
from gru_jax.settings import literal
from gru_jax.studies.directory import MEMBERS, STUDY_FILE
from gru_jax.studies.study import read_study

ID, STATUS, STOPPED = "member", "status", "stopped"
INIT, FINAL = "init", "final"  # prefixes of what the instruments said at the first and the last recording

_slope = jax.jit(flow.log_slope)


def read(path: Path) -> tuple[pl.DataFrame, list[str]]:
    """The table of a study or of a single run, and the names of the columns that vary by design.

    Raises:
        UsageError: the directory is neither.
    """
    described_in = path / STUDY_FILE
    if described_in.is_file():
        described = read_study(described_in)["members"]
        found = {name: of for name, of in described.items() if (path / MEMBERS / name).is_dir()}
        if not found:
            raise UsageError(f"{path}: no member is done yet; experiments.ablate goes on with it")
        labels = dict.fromkeys(axis for of in found.values() for axis in of["labels"])
        axes = [axis for axis in labels if axis != ID]  # it might name another directory
        rows = [
            {ID: name, **{axis: _typed(of["labels"].get(axis)) for axis in axes}, **row(path / MEMBERS / name)}
            for name, of in found.items()
        ]
        return _frame(rows), axes
    rundir = RunDir(path)
    if not rundir.config.is_file():
        raise UsageError(f"{path}: neither a study's directory nor a run's, it has no {STUDY_FILE} and no config.json")
    if not rundir.summary.is_file():
        raise UsageError(f"{path}: not done yet; experiments.train goes on with it")
    config = read_json(rundir.config)
    return _frame([{ID: path.name, "seed": config["seed"], **row(path)}]), ["seed"]


def row(path: Path) -> dict[str, Any]:
    """What a run came to, without anything that two equal runs need not share."""
    rundir, config = open_run(path)
    summary = rundir.read_summary()
    stopped = summary["stopped"] or ""
    status = DIVERGED if stopped.startswith(DIVERGED) else "halved" if stopped.startswith("halved") else "done"
    told: dict[str, Any] = {STATUS: status, STOPPED: stopped, "steps": summary["steps"]}
    told["best_step"] = summary["best"]["step"]
    for which in ("best", "final"):
        for split in ("valid", "test"):
            told |= {f"{which}_{split}_{name}": _number(value) for name, value in summary[which][split].items()}
    told["parameters"] = summary["parameters"]
    records = rundir.read_flow()
    if "step" in records and len(records["step"]):
        try:
            for when, which in ((INIT, 0), (FINAL, -1)):
                told |= {f"{when}_{name}": of for name, of in readings(records, which, config.task.time).items()}
        except (IndexError, TypeError, ValueError) as error:
            raise UsageError(f"{rundir.flow}: damaged ({error})") from error
    return told


def readings(records: Mapping[str, np.ndarray], which: int, time: int) -> dict[str, float]:
    """Single numbers out of a recording: of every layer the gradient horizon in steps (the sequence's length where it
    is beyond), the slope of the log adjoint norm against lag in nats per step, the largest Lyapunov exponent in nats
    per step, and the median time scale of units in steps.
    """
    told: dict[str, float] = {}
    for name, values in records.items():
        kind, _, layer = name.partition("/")
        at = values[which] if kind in ("adjoint", "lyapunov", "time_scales") else None
        if at is None:
            continue
        if kind == "adjoint":
            lag = float(horizons(at[None])[0])
            told[f"horizon/{layer}"] = float(time) if math.isnan(lag) else lag
            told[f"slope/{layer}"] = float(_slope(jnp.asarray(at)))
        elif kind == "lyapunov":
            told[f"lambda_1/{layer}"] = float(at[0])
        else:
            told[f"time_scale/{layer}"] = float(np.nanmedian(at)) if np.isfinite(at).any() else math.nan
    return {name: told[name] for name in sorted(told)}


def write(frame: pl.DataFrame, path: Path) -> list[Path]:
    """Write `table.csv` and `table.parquet`."""
    made = [path / "table.csv", path / "table.parquet"]
    for to, by in zip(made, (frame.write_csv, frame.write_parquet), strict=True):
        content = io.BytesIO()
        by(content)
        replace(to, content.getvalue())
    return made


def _frame(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    names = list(dict.fromkeys(name for of in rows for name in of))
    columns = {}
    for name in names:
        values = [of.get(name) for of in rows]
        kinds = {type(value) for value in values if value is not None}
        if kinds == {int, float}:
            values = [None if value is None else float(value) for value in values]
        elif len(kinds) > 1:
            values = [None if value is None else str(value) for value in values]
        columns[name] = values
    return pl.DataFrame(columns, strict=False)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _typed(label: str | None) -> Any:
    """A label as the number or truth value that it is, or as text."""
    if label is None:
        return None
    value = literal({"true": "True", "false": "False"}.get(label, label), label)
    return value if isinstance(value, bool | int | float) else label
