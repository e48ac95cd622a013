"""The pictures of `experiments.bench`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.bench.measure import Shape
from gru_jax.plotting.runs import STYLE

# Okabe and Ito's colours, one for each contender whoever else is there.
COLOURS = {
    "gru_jax": "#000000", "gru_jax boundaries": "#777777", "torch": "#D55E00", "linen": "#0072B2", "nnx": "#56B4E9",
    "haiku": "#009E73", "keras": "#CC79A7", "equinox": "#E69F00",
}  # fmt: skip
PLAIN = "{x:g}"  # powers as exponents need fonts that not every machine has
TICKS = (0.1, 0.2, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20, 50, 100)
AXES = {"time": "steps T", "batch": "batch B", "hidden": "hidden units H"}


def ratios(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Each contender's time over ours, a line for each shape."""
    with mpl.rc_context(STYLE):
        figure = _figure(7.0, 1.4 + 0.28 * len(rows))
        axes = figure.subplots()
        for name in rows[0]["contenders"]:
            ours = name == "gru_jax"
            axes.plot(
                [row["contenders"][name]["ratio"] for row in rows], range(len(rows)), ls="", color=COLOURS[name],
                marker="|" if ours else "o", ms=12 if ours else 5, label=name,
            )  # fmt: skip
        axes.axvline(1.0, color=COLOURS["gru_jax"], lw=0.8)
        axes.set_xscale("log")
        axes.set_yticks(range(len(rows)), [str(Shape(**row["shape"])) for row in rows], fontsize=8)
        axes.invert_yaxis()
        axes.set_xlabel("time of a training step over ours")
        axes.set_ylabel("T,B,D,H")
        axes.margins(y=0.5 / max(len(rows), 2))
        low, high = axes.get_xlim()
        axes.set_xticks([tick for tick in TICKS if low <= tick <= high])
        axes.set_xticks([], minor=True)
        axes.xaxis.set_major_formatter(PLAIN)
        axes.grid(axis="x", color="#EEEEEE")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
        figure.savefig(path, facecolor="white", bbox_inches="tight")


def scaling(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Time and memory against T, B and H, the others at their most common value."""
    shapes = [Shape(**row["shape"]) for row in rows]
    base = Shape(*(max(set(column), key=column.count) for column in zip(*shapes, strict=True)))
    with mpl.rc_context(STYLE):
        figure = _figure(10.0, 6.0)
        grid = figure.subplots(2, len(AXES), sharey="row")
        for column, (field, label) in enumerate(AXES.items()):
            here = [row for row, shape in zip(rows, shapes, strict=True)
                    if shape._replace(**{field: 0}) == base._replace(**{field: 0})]  # fmt: skip
            here.sort(key=lambda row, field=field: row["shape"][field])
            for key, ax in zip(("median_ms", "temp_bytes"), grid[:, column], strict=True):
                for name in rows[0]["contenders"]:
                    points = [(row["shape"][field], row["contenders"][name][key]) for row in here]
                    points = [(x, y if key == "median_ms" else y / 1e6) for x, y in points if y is not None]
                    if points:
                        ax.plot(*zip(*points, strict=True), marker="o", ms=3, color=COLOURS[name], label=name)
                ax.set_xscale("log", base=2)
                ax.set_yscale("log")
                ax.set_xticks([row["shape"][field] for row in here])
                ax.xaxis.set_major_formatter(PLAIN)
                ax.yaxis.set_major_formatter(PLAIN)
                ax.set_xlabel(label)
            sizes = zip("TBDH", base._fields, base, strict=True)
            rest = ", ".join(f"{letter}={n}" for letter, name, n in sizes if name != field)
            grid[0, column].set_title(rest)
        grid[0, 0].set_ylabel("training step, ms")
        grid[1, 0].set_ylabel("temporary memory, MB")
        grid[0, -1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
        figure.savefig(path, facecolor="white", bbox_inches="tight")


def long(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Time per step and peak memory against length."""
    with mpl.rc_context(STYLE):
        figure = _figure(7.0, 3.0)
        lengths = [row["time"] for row in rows]
        columns = (("microseconds_per_step", 1.0, "time per step, us"), ("host_peak_bytes", 1e6, "peak memory, MB"))
        for ax, (key, unit, label) in zip(figure.subplots(1, 2), columns, strict=True):
            ax.plot(lengths, [row[key] / unit for row in rows], marker="o", color=COLOURS["gru_jax"])
            ax.set_xscale("log")
            ax.set_xticks(lengths)
            ax.xaxis.set_major_formatter(PLAIN)
            ax.set_ylim(bottom=0)
            ax.set_xlabel("steps T")
            ax.set_ylabel(label)
        figure.savefig(path, facecolor="white", bbox_inches="tight")


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
