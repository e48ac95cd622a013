"""How a run went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from gru_jax.plotting.style import BLUE, GREEN, ORANGE, OUTSIDE, draw_levels, figure, house_style

UNITS = {"loss": "loss", "accuracy": "accuracy", "recall": "recall accuracy"}


def plot_learning_curve(
    lines: Sequence[Mapping[str, Any]], goal: str, baselines: Mapping[str, Mapping[str, float]]
) -> Figure:
    """Loss, and the task's goal if that is another metric, against steps; with the levels of answers without a network.

    Args:
        lines: of metrics, each with `step` and `split`.
        goal: name of the metric that decides.
        baselines: metrics of answers that need no network, by name.
    """
    names = list(dict.fromkeys(["loss", goal, *(name for metrics in baselines.values() for name in metrics)]))
    with house_style():
        picture, axes = figure(len(names))
        for ax, name in zip(axes, names, strict=True):
            for split, colour, marker in (("train", BLUE, ""), ("valid", ORANGE, "o"), ("test", GREEN, "*")):
                points = [(line["step"], line[name]) for line in lines if line["split"] == split]
                if points:
                    style, size = ("none", 10) if split == "test" else ("-", 3)
                    x, y = zip(*points, strict=True)
                    ax.plot(x, y, ls=style, color=colour, marker=marker, ms=size, lw=1.2, label=split)
            draw_levels(ax, {answer: metrics.get(name) for answer, metrics in baselines.items()})
            if name == "loss":
                ax.set_yscale("log")
            ax.set(xlabel="training step", ylabel=UNITS.get(name, name))
            ax.legend(**OUTSIDE)
    return picture
