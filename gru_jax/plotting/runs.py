"""The pictures of a run."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from gru_jax.config import Config
from gru_jax.plotting import flow as flow_plots
from gru_jax.plotting.style import BLUE, GREEN, GREY, ORANGE, STYLE, figure
from gru_jax.runs.directory import RunDir

UNITS = {"loss": "loss", "accuracy": "accuracy", "recall": "recall accuracy"}


def draw(rundir: RunDir, config: Config) -> list[Path]:
    """Draw all pictures of a run into its `plots/` and return their paths."""
    rundir.plots.mkdir(exist_ok=True)
    drawn = []
    with mpl.rc_context(STYLE):
        pictures = {"learning_curve": learning_curve(rundir, config), **flow_plots.pictures(rundir.read_flow(), config)}
        for name, picture in pictures.items():
            path = rundir.plots / f"{name}.png"
            picture.savefig(path, facecolor="white")
            drawn.append(path)
    return drawn


def learning_curve(rundir: RunDir, config: Config) -> Figure:
    """Loss, and the task's goal if that is another metric, against steps; with the memoryless level."""
    lines = rundir.read_metrics()
    names = list(dict.fromkeys(["loss", config.task.goal[0], *config.task.baseline]))
    picture, axes = figure(len(names))
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
    return picture
