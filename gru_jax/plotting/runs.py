"""How a run went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from gru_jax.plotting.style import BLUE, GREEN, ORANGE, OUTSIDE, draw_levels, figure, house_style

UNITS = {"loss": "loss", "accuracy": "accuracy", "recall": "recall accuracy"}
SPANNING = ("loss", "perplexity")
"""Metrics that fall over powers of ten."""


def plot_learning_curve(
    lines: Sequence[Mapping[str, object]], goal: str, baselines: Mapping[str, Mapping[str, float]]
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
                points = [(line["step"], line[name]) for line in lines if line["split"] == split and name in line]
                if points:
                    style, size = ("none", 10) if split == "test" else ("-", 3)
                    x, y = zip(*points, strict=True)
                    ax.plot(x, y, ls=style, color=colour, marker=marker, ms=size, lw=1.2, label=split)
            draw_levels(ax, {answer: metrics.get(name) for answer, metrics in baselines.items()})
            if name in SPANNING:
                ax.set_yscale("log")
            ax.set(xlabel="training step", ylabel=UNITS.get(name, name))
            ax.legend(**OUTSIDE)
    return picture


MOST_NUMBERED = 12  # classes up to which shares are written into the cells


def plot_confusion(counts: Float[np.ndarray, "K K"]) -> Figure:
    """Which share of the examples of each class is answered by which class.

    Args:
        counts: weight of examples by class (rows) and answer (columns).
    """
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    classes = range(len(counts))
    with house_style():
        picture, (ax,) = figure(1)
        image = ax.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
        for row in classes if len(counts) <= MOST_NUMBERED else ():
            for column in classes:
                share = shares[row, column]
                ax.text(
                    column, row, f"{share:.2f}", ha="center", va="center", color="white" if share > 0.5 else "black"
                )
        ax.set(xlabel="answered class", ylabel="class")
        if len(counts) <= MOST_NUMBERED:
            ax.set_xticks(classes)
            ax.set_yticks(classes)
        picture.colorbar(image, ax=ax, label="share of the class")
    return picture
