"""Pictures of forecasts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure

from gru_jax.plotting.style import BLUE, DASHES, GREY, ORANGE, OUTSIDE, UNDER, cycle, figure, house_style


class ForecastPanel(NamedTuple):
    """A forecast beside what became of it.

    Attributes:
        name: of the column.
        origin: when, or from which row, it was made.
        steps: after the origin, `[C + H]`; up to 0 those that were read.
        values: what was and what became, `[C + H]`; NaN where it is missing.
        forecast: of the H steps.
        low, high: bounds of a band around it, `[H]`.
        band: what the band is.
    """

    name: str
    origin: str
    steps: Int[np.ndarray, " N"]
    values: Float[np.ndarray, " N"]
    forecast: Float[np.ndarray, " H"]
    low: Float[np.ndarray, " H"]
    high: Float[np.ndarray, " H"]
    band: str


def plot_forecasts(panels: Sequence[ForecastPanel]) -> Figure:
    """Forecasts with bands, each beside the values before it and those that came.

    Args:
        panels: one for each forecast.
    """
    with house_style():
        picture, axes = figure(len(panels), columns=2)
        for ax, panel in zip(axes, panels, strict=True):
            ahead = panel.steps > 0
            style = {"marker": "o", "ms": 3.5} if ahead.sum() == 1 else {}
            ax.fill_between(panel.steps[ahead], panel.low, panel.high, color=ORANGE, alpha=0.25, lw=0, label=panel.band)
            ax.plot(panel.steps, panel.values, color=BLUE, lw=1.2, label="recording")
            ax.plot(panel.steps[ahead], panel.forecast, color=ORANGE, lw=1.4, label="forecast", **style)
            ax.axvline(0, color=GREY, lw=0.8, ls=":")
            ax.set(xlabel=f"steps after {panel.origin}", ylabel=panel.name)
        if panels:
            handles, labels = axes[0].get_legend_handles_labels()
            picture.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return picture


def plot_error_by_horizon(errors: Mapping[str, Float[np.ndarray, " H"]], metric: str) -> Figure:
    """The error at each step of the horizon, of a network and of forecasts without one.

    Args:
        errors: by name, the network's first.
        metric: what they are.
    """
    with house_style():
        picture, (ax,) = figure(1, width=7.6)
        lines = ["-", *(DASHES[i % len(DASHES)] for i in range(len(errors) - 1))]
        for (name, values), colour, line in zip(errors.items(), cycle(len(errors)), lines, strict=True):
            width, marker = (1.8, "o" if len(values) < 40 else "") if line == "-" else (1.1, "")
            steps = np.arange(1, len(values) + 1)
            ax.plot(steps, values, color=colour, lw=width, ls=line, marker=marker, ms=3, label=name)
        ax.set(xlabel="step of the horizon", ylabel=f"{metric}, standardised", ylim=(0, None))
        ax.legend(**OUTSIDE)
    return picture


def plot_error_by_origin(origins: Sequence[str], errors: Mapping[str, Float[np.ndarray, " N"]], metric: str) -> Figure:
    """The error of the forecasts from each origin, one after the other.

    Args:
        origins: their times, or rows.
        errors: by name, the network's first.
        metric: what they are.
    """
    with house_style():
        picture, (ax,) = figure(1, width=9.0)
        for (name, values), colour in zip(errors.items(), (ORANGE, GREY), strict=False):
            ax.plot(np.arange(len(values)), values, color=colour, lw=1.0, label=name)
        ticks = np.unique(np.linspace(0, len(origins) - 1, 5).astype(int))
        ax.set_xticks(ticks, [str(origins[tick]) for tick in ticks], fontsize=8)
        ax.set(xlabel="forecast from", ylabel=f"{metric}, standardised", ylim=(0, None))
        ax.legend(**UNDER)
    return picture
