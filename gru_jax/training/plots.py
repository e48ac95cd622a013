"""The pictures of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from gru_jax import flow
from gru_jax.config import Config
from gru_jax.training.rundir import RunDir

# Okabe and Ito's colours, told apart by all common kinds of colour vision.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"
UNITS = {"loss": "loss", "accuracy": "accuracy", "recall": "recall accuracy"}
HORIZON = 0.01  # fraction of the peak at which the drawn gradient horizon lies
DECADES = 12  # of the colour scale; what is smaller has the lowest colour
STYLE: Any = {"axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10, "savefig.dpi": 150}


def draw(rundir: RunDir, config: Config) -> list[Path]:
    """Draw all pictures of a run into its `plots/` and return their paths."""
    rundir.plots.mkdir(exist_ok=True)
    drawn = []
    with mpl.rc_context(STYLE):
        pictures = {"learning_curve.png": learning_curve(rundir, config)}
        records = rundir.read_flow()
        if records:
            pictures["gradient_flow.png"] = gradient_flow(records)
            if any(name.startswith("gates/") for name in records):
                pictures["gates.png"] = gate_histograms(records)
        for name, figure in pictures.items():
            path = rundir.plots / name
            figure.savefig(path, facecolor="white")
            drawn.append(path)
    return drawn


def learning_curve(rundir: RunDir, config: Config) -> Figure:
    """Loss, and the task's goal if that is another metric, against steps; with the memoryless level."""
    lines = rundir.read_metrics()
    names = list(dict.fromkeys(["loss", config.task.goal[0], *config.task.baseline]))
    figure, axes = _figure(len(names))
    for ax, name in zip(axes, names, strict=True):
        for split, colour, marker in (("train", BLUE, ""), ("valid", ORANGE, "o"), ("test", GREEN, "*")):
            points = [(line["step"], line[name]) for line in lines if line["split"] == split]
            if points:
                style, size = ("none", 10) if split == "test" else ("-", 3)
                ax.plot(*zip(*points, strict=True), ls=style, color=colour, marker=marker, ms=size, lw=1.2, label=split)
        if name in config.task.baseline:
            ax.axhline(config.task.baseline[name], color=GREY, ls="--", lw=1, label="memoryless or chance")
        if name == "loss":
            ax.set_yscale("log")
        ax.set(xlabel="training step", ylabel=UNITS.get(name, name))
        ax.legend(frameon=False)
    return figure


def gradient_flow(records: Mapping[str, np.ndarray]) -> Figure:
    """Heat map of the adjoint norm over training step and lag, one panel a layer, with the gradient horizon."""
    names = [name for name in records if name.startswith("adjoint/")]
    figure, axes = _figure(len(names), width=5.2)
    steps, lag = records["step"], records["lag"]
    for ax, name in zip(axes, names, strict=True):
        norms = records[name]
        top = np.nanmax(norms, initial=0.0, where=np.isfinite(norms))
        top = top if top > 0 else 1.0
        positive = norms[np.isfinite(norms) & (norms > 0)]
        low = max(positive.min() if positive.size else top, top * 10.0**-DECADES)
        norm = LogNorm(low * 0.999, top)
        # One row of cells per recording, as high as all others: recordings need not be evenly spaced.
        rows = np.arange(len(steps))
        mesh = ax.pcolormesh(lag, rows, np.maximum(norms, low), norm=norm, cmap="cividis", shading="nearest")
        horizons, title = _horizons(norms), _title(name)
        if np.isnan(horizons).all():
            title += f" · horizon ({HORIZON:.0%} of the peak) beyond the sequence"
        else:
            ax.plot(horizons, rows, color="white", lw=3, marker="o", ms=5)
            label = f"horizon ({HORIZON:.0%} of the peak)"
            ax.plot(horizons, rows, color=ORANGE, lw=1.5, marker="o", ms=3, label=label)
            ax.legend(loc="upper right", framealpha=0.9)
        shown = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), 8)).astype(int))
        ax.set_yticks(shown, [str(s) for s in steps[shown]])
        ax.set(xlabel="lag from the end of the pass (steps)", ylabel="training step", title=title)
        figure.colorbar(mesh, ax=ax, label=r"mean $\|\partial L/\partial h_t\|$")
    return figure


def gate_histograms(records: Mapping[str, np.ndarray]) -> Figure:
    """Distribution of every gate's values at the first and the last recording."""
    names = [name for name in records if name.startswith("gates/")]
    figure, axes = _figure(len(names), width=3.4, columns=4)
    edges = records["gate_edges"]
    for ax, name in zip(axes, names, strict=True):
        for row, colour in ((0, GREY), (-1, BLUE)):
            density = records[name][row] / np.diff(edges)
            ax.stairs(density, edges, color=colour, fill=row == 0, alpha=0.45 if row == 0 else 1.0, lw=1.5,
                      label=f"step {records['step'][row]}")  # fmt: skip
        ax.set_yscale("log")
        ax.set(xlabel="gate value", ylabel="density", title=_title(name), xlim=(0, 1))
        ax.legend(frameon=False)
    return figure


def _horizons(norms: np.ndarray) -> np.ndarray:
    """The gradient horizon of each row; NaN where it lies beyond the sequence."""
    lags = np.asarray(jax.vmap(lambda profile: flow.horizon(profile, HORIZON))(jnp.asarray(norms)))
    return np.where(lags < norms.shape[1], lags, np.nan)


def _title(name: str) -> str:
    return " · ".join(name.split("/")[1:])


def _figure(panels: int, width: float = 4.6, columns: int = 3) -> tuple[Figure, list[Axes]]:
    columns = min(panels, columns)
    rows = -(-panels // columns)
    figure = Figure(figsize=(width * columns, 3.4 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for spare in grid[panels:]:
        spare.remove()
    return figure, list(grid[:panels])
