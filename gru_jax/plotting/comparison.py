"""Several runs in one picture; those that differ in their seed alone have one colour."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gru_jax.config import Config
from gru_jax.plotting.flow import HORIZON, PROFILE_TEXTS, draw_profiles, horizons, profile_text, source_of
from gru_jax.plotting.style import GREY, OUTSIDE, cycle, figure, house_style

ADJOINT = "adjoint/"


class Line(NamedTuple):
    """Points of a curve, and which of them are only known to lie at their value or above."""

    x: np.ndarray
    y: np.ndarray
    censored: np.ndarray | None = None


class ComparedRun(NamedTuple):
    """A run as it is compared.

    Attributes:
        name: of the run.
        step: of the checkpoint that is looked at.
        config: its config.
        lines: of metrics.
        recorded: what the instruments recorded in training.
        records: what they measure at the checkpoint.
    """

    name: str
    step: int
    config: Config
    lines: Sequence[Mapping[str, object]]
    recorded: Mapping[str, np.ndarray]
    records: Mapping[str, np.ndarray]


def plot_comparison(runs: Sequence[ComparedRun]) -> dict[str, Figure]:
    """Adjoint profiles, spectra, and what each run recorded in training, as far as they are known."""
    with house_style():
        drawn = {"profiles": plot_profiles(runs), "spectra": plot_spectra(runs), "histories": plot_histories(runs)}
    return {name: picture for name, picture in drawn.items() if picture is not None}


def group_by_seed(runs: Sequence[ComparedRun]) -> dict[str, list[ComparedRun]]:
    """Runs that differ in their seed alone, named by the first and the last of them."""
    groups: list[list[ComparedRun]] = []
    for run in runs:
        like = dataclasses.replace(run.config, seed=0)
        fitting = [group for group in groups if dataclasses.replace(group[0].config, seed=0) == like]
        if fitting:
            fitting[0].append(run)
        else:
            groups.append([run])
    named: dict[str, list[ComparedRun]] = {}
    for group in groups:
        name = group[0].name if len(group) == 1 else f"{group[0].name} … {group[-1].name}"
        named[name if name not in named else f"{name} ({len(named) + 1})"] = group
    return named


def plot_profiles(runs: Sequence[ComparedRun]) -> Figure | None:
    """The adjoint profiles, one panel a layer."""
    source = source_of(runs[0].records)
    return _by_layer(runs, ADJOINT, lambda ax, series, layer: draw_profiles(ax, series, profile_text(layer, source)))


def plot_spectra(runs: Sequence[ComparedRun]) -> Figure | None:
    """The largest Lyapunov exponents by rank, one panel a layer."""

    def draw(ax: Axes, series: Mapping[str, Sequence[np.ndarray]], _: str) -> None:
        for (label, rows), colour in zip(series.items(), cycle(len(series)), strict=True):
            for i, row in enumerate(rows):
                ax.plot(np.arange(1, len(row) + 1), row, color=colour, lw=1.2, label=None if i else label)
        ax.axhline(0.0, color=GREY, ls="--", lw=1)
        ax.set(xlabel="index i", ylabel=r"$\lambda_i$ (nats per step)")
        ax.legend(**OUTSIDE)

    return _by_layer(runs, "lyapunov/", draw)


def _by_layer(runs: Sequence[ComparedRun], prefix: str, draw: Callable[..., None]) -> Figure | None:
    """A panel for each layer with the runs' last records of a kind, by group."""
    layers = _names([run.records for run in runs], prefix)
    if not layers:
        return None
    shorts = filter(None, dict.fromkeys(PROFILE_TEXTS[source_of(run.records)].short for run in runs))
    of_what = "".join(f" · {short}" for short in shorts) if prefix == ADJOINT else ""
    picture, axes = figure(len(layers), width=5.2)
    for ax, layer in zip(axes, layers, strict=True):
        rows = {
            label: [run.records[layer][-1] for run in group if layer in run.records]
            for label, group in group_by_seed(runs).items()
        }
        draw(ax, {label: values for label, values in rows.items() if values}, layer)
        steps = ", ".join(map(str, sorted({run.step for run in runs})))
        ax.set_title(f"{layer.split('/', 1)[1]} · step {steps}{of_what}")
    return picture


def plot_histories(runs: Sequence[ComparedRun]) -> Figure | None:
    """Validation score, largest exponents and gradient horizons over training, as far as the runs recorded them."""
    goal = runs[0].config.goal[0]
    panels: list[tuple[Callable[[ComparedRun], Line | None], str, str]] = [
        (lambda run: _scores(run, goal), f"validation {goal}", "log" if goal == "loss" else "linear")
    ]
    recorded = [run.recorded for run in runs]
    names = _names(recorded, ADJOINT) + _names(recorded, "lyapunov/")
    sources = filter(None, dict.fromkeys(PROFILE_TEXTS[source_of(records)].short for records in recorded))
    note = "".join(f"{short}, " for short in sources)
    for layer in dict.fromkeys(name.split("/", 1)[1] for name in names):
        panels += [
            (lambda run, layer=layer: _exponents(run.recorded, layer),
             rf"{layer}: $\lambda_1$ (nats per step)", "symlog"),
            (lambda run, layer=layer: _horizons(run.recorded, layer),
             f"{layer}: gradient horizon, {HORIZON:.0%} (steps)\n{note}▲ or more", "log"),
        ]  # fmt: skip
    drawn = [panel for panel in panels if any(panel[0](run) is not None for run in runs)]
    if not drawn:
        return None
    picture, axes = figure(len(drawn))
    for ax, (line_of, label, scale) in zip(axes, drawn, strict=True):
        _panel(ax, group_by_seed(runs), line_of)
        ax.set_yscale(scale, **({"linthresh": 1e-3} if scale == "symlog" else {}))
        if scale == "symlog":
            ax.axhline(0.0, color=GREY, ls="--", lw=1)
        ax.set(xlabel="training step", ylabel=label)
    axes[-1].legend(*axes[0].get_legend_handles_labels(), **OUTSIDE)
    return picture


def _panel(ax: Axes, named: Mapping[str, list[ComparedRun]], line_of: Callable[[ComparedRun], Line | None]) -> None:
    for (label, group), colour in zip(named.items(), cycle(len(named)), strict=True):
        for i, line in enumerate(line for line in map(line_of, group) if line is not None):
            draw_line(ax, line, colour, None if i else label)


def draw_line(ax: Axes, line: Line, colour: str, label: str | None = None) -> None:
    """A curve, with a triangle on every point that lies at its value or above."""
    ax.plot(line.x, line.y, color=colour, lw=1.2, alpha=0.9, label=label)
    if line.censored is not None and line.censored.any():
        ax.plot(line.x[line.censored], line.y[line.censored], "^", color=colour, ms=4, mec="white")


def _scores(run: ComparedRun, goal: str) -> Line | None:
    points = [(line["step"], line[goal]) for line in run.lines
              if line["split"] == "valid" and goal in line]  # fmt: skip
    return Line(*np.array(points).T) if points else None


def _exponents(records: Mapping[str, np.ndarray], layer: str) -> Line | None:
    name = f"lyapunov/{layer}"
    return Line(records["step"], records[name][:, 0]) if name in records else None


def _horizons(records: Mapping[str, np.ndarray], layer: str) -> Line | None:
    """Horizons by step; censored ones lie at what is drawn or above."""
    name = f"{ADJOINT}{layer}"
    if name not in records:
        return None
    return Line(records["step"], *horizons(records[name]))


def _names(records: Sequence[Mapping[str, np.ndarray]], prefix: str) -> list[str]:
    return list(dict.fromkeys(name for of_run in records for name in of_run if name.startswith(prefix)))
