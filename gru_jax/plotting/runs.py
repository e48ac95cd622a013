"""How a run went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from gru_jax.plotting.style import BLUE, GREEN, GREY, ORANGE, OUTSIDE, figure, house_style

UNITS = {"loss": "loss", "accuracy": "accuracy", "recall": "recall accuracy"}


def plot_learning_curve(lines: Sequence[Mapping[str, Any]], goal: str, baseline: Mapping[str, float]) -> Figure:
    """Loss, and the task's goal if that is another metric, against steps; with the memoryless level.

    Args:
        lines: of metrics, each with `step` and `split`.
        goal: name of the metric that decides.
        baseline: metrics of the best predictor without memory.
    """
    names = list(dict.fromkeys(["loss", goal, *baseline]))
    with house_style():
        picture, axes = figure(len(names))
        for ax, name in zip(axes, names, strict=True):
            for split, colour, marker in (("train", BLUE, ""), ("valid", ORANGE, "o"), ("test", GREEN, "*")):
                points = [(line["step"], line[name]) for line in lines if line["split"] == split]
                if points:
                    style, size = ("none", 10) if split == "test" else ("-", 3)
                    x, y = zip(*points, strict=True)
                    ax.plot(x, y, ls=style, color=colour, marker=marker, ms=size, lw=1.2, label=split)
            if name in baseline:
                ax.axhline(baseline[name], color=GREY, ls="--", lw=1, label="memoryless or chance")
            if name == "loss":
                ax.set_yscale("log")
            ax.set(xlabel="training step", ylabel=UNITS.get(name, name))
            ax.legend(**OUTSIDE)
    return picture
