"""Several runs in one picture; those that differ in their seed alone have one colour."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gru_jax.config import Config
from gru_jax.plotting import flow as flow_plots
from gru_jax.plotting.flow import HORIZON
from gru_jax.plotting.style import GREY, STYLE, cycle, figure
from gru_jax.runs.directory import RunDir

Line = tuple[np.ndarray, np.ndarray]


class Member(NamedTuple):
    """A run as it is compared.

    Attributes:
        name: its directory's.
        step: of the checkpoint that is looked at.
        config: its config.
        rundir: its directory.
        recorded: what the instruments recorded in training.
        records: what they measure at the checkpoint.
    """

    name: str
    step: int
    config: Config
    rundir: RunDir
    recorded: Mapping[str, np.ndarray]
    records: Mapping[str, np.ndarray]


def draw(members: Sequence[Member], out: Path, form: str) -> list[Path]:
    """Pictures of the adjoint profiles and spectra, and of what each run recorded in training."""
    with mpl.rc_context(STYLE):
        made = {"profiles": profiles(members), "spectra": spectra(members), "histories": histories(members)}
        for name, picture in made.items():
            if picture is not None:
                picture.savefig(out / f"{name}.{form}", facecolor="white")
    return [out / f"{name}.{form}" for name, picture in made.items() if picture is not None]


def groups(members: Sequence[Member]) -> dict[str, list[Member]]:
    """Members that differ in their seed alone, named by the first and the last of them."""
    together: list[list[Member]] = []
    for member in members:
        like = dataclasses.replace(member.config, seed=0)
        fitting = [of for of in together if dataclasses.replace(of[0].config, seed=0) == like]
        if fitting:
            fitting[0].append(member)
        else:
            together.append([member])
    named: dict[str, list[Member]] = {}
    for of in together:
        name = of[0].name if len(of) == 1 else f"{of[0].name} … {of[-1].name}"
        named[name if name not in named else f"{name} ({len(named) + 1})"] = of
    return named


def profiles(members: Sequence[Member]) -> Figure | None:
    """The adjoint profiles, one panel a layer."""
    return _by_layer(members, "adjoint/", flow_plots.profiles)


def spectra(members: Sequence[Member]) -> Figure | None:
    """The largest Lyapunov exponents by rank, one panel a layer."""

    def draw(ax: Axes, series: Mapping[str, Sequence[np.ndarray]]) -> None:
        for (label, rows), colour in zip(series.items(), cycle(len(series)), strict=True):
            for i, row in enumerate(rows):
                ax.plot(np.arange(1, len(row) + 1), row, color=colour, lw=1.2, label=None if i else label)
        ax.axhline(0.0, color=GREY, ls="--", lw=1)
        ax.set(xlabel="index i", ylabel=r"$\lambda_i$ (nats per step)")
        ax.legend(frameon=False, fontsize=8)

    return _by_layer(members, "lyapunov/", draw)


def _by_layer(members: Sequence[Member], prefix: str, draw: Callable[..., None]) -> Figure | None:
    """A panel for each layer with the members' last records of a kind, by group."""
    layers = _names([member.records for member in members], prefix)
    if not layers:
        return None
    picture, axes = figure(len(layers), width=5.2)
    for ax, layer in zip(axes, layers, strict=True):
        rows = {
            label: [member.records[layer][-1] for member in of if layer in member.records]
            for label, of in groups(members).items()
        }
        draw(ax, {label: of for label, of in rows.items() if of})
        ax.set_title(f"{layer.split('/', 1)[1]} · step {', '.join(map(str, sorted({m.step for m in members})))}")
    return picture


def histories(members: Sequence[Member]) -> Figure | None:
    """Validation score, largest exponents and gradient horizons over training, as far as the runs recorded them."""
    goal = members[0].config.task.goal[0]
    panels: list[tuple[Callable[[Member], Line | None], str, str]] = [
        (lambda member: _scores(member, goal), f"validation {goal}", "log" if goal == "loss" else "linear")
    ]
    recorded = [member.recorded for member in members]
    names = _names(recorded, "adjoint/") + _names(recorded, "lyapunov/")
    for layer in dict.fromkeys(name.split("/", 1)[1] for name in names):
        panels += [
            (lambda member, layer=layer: _exponents(member.recorded, layer),
             rf"{layer}: $\lambda_1$ (nats per step)", "symlog"),
            (lambda member, layer=layer: _horizons(member.recorded, layer),
             f"{layer}: gradient horizon, {HORIZON:.0%} (steps)", "log"),
        ]  # fmt: skip
    drawn = [panel for panel in panels if any(panel[0](member) is not None for member in members)]
    if not drawn:
        return None
    picture, axes = figure(len(drawn))
    for ax, (line_of, label, scale) in zip(axes, drawn, strict=True):
        _panel(ax, groups(members), line_of)
        ax.set_yscale(scale, **({"linthresh": 1e-3} if scale == "symlog" else {}))
        if scale == "symlog":
            ax.axhline(0.0, color=GREY, ls="--", lw=1)
        ax.set(xlabel="training step", ylabel=label)
    axes[0].legend(frameon=False, fontsize=8)
    return picture


def _panel(ax: Axes, named: Mapping[str, list[Member]], line_of: Callable[[Member], Line | None]) -> None:
    for (label, of), colour in zip(named.items(), cycle(len(named)), strict=True):
        for i, line in enumerate(line for line in map(line_of, of) if line is not None):
            ax.plot(*line, color=colour, lw=1.2, alpha=0.9, label=None if i else label)


def _scores(member: Member, goal: str) -> Line | None:
    points = [(line["step"], line[goal]) for line in member.rundir.read_metrics()
              if line["split"] == "valid" and goal in line]  # fmt: skip
    return tuple(np.array(points).T) if points else None


def _exponents(records: Mapping[str, np.ndarray], layer: str) -> Line | None:
    name = f"lyapunov/{layer}"
    return (records["step"], records[name][:, 0]) if name in records else None


def _horizons(records: Mapping[str, np.ndarray], layer: str) -> Line | None:
    """Horizons by step; those beyond the sequence are drawn at its length."""
    name = f"adjoint/{layer}"
    if name not in records:
        return None
    lags = flow_plots.horizons(records[name])
    return records["step"], np.where(np.isnan(lags), records[name].shape[1], lags)


def _names(records: Sequence[Mapping[str, np.ndarray]], prefix: str) -> list[str]:
    return list(dict.fromkeys(name for of in records for name in of if name.startswith(prefix)))
