"""The pictures of all measurements, from their rows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from experiments.bench.flow import TRAINING_STEP
from experiments.bench.measure import Row, Shape
from experiments.bench.search import best_by_method
from experiments.bench.unroll import BOUNDARIES, OURS
from gru_jax.plotting.style import BLACK, BLUE, GREEN, GREY, ORANGE, OUTSIDE, PINK, SKY, STYLE, YELLOW, figure

# One for each contender, whoever else is there.
COLOURS = {
    OURS: BLACK, BOUNDARIES: GREY, "torch": ORANGE, "linen": BLUE, "nnx": SKY, "haiku": GREEN, "keras": PINK,
    "equinox": YELLOW,
}  # fmt: skip
PLAIN_NUMBERS = "{x:g}"  # powers as exponents need fonts that not every machine has
TICKS = (0.1, 0.2, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20, 50, 100)
AXES = {"time": "steps T", "batch": "batch B", "hidden": "hidden units H"}


@contextlib.contextmanager
def saved_panels(path: Path, width: float, height: float, panels: int = 1) -> Iterator[list[Axes]]:
    """The axes of a picture, in rows of at most three, which is saved once they are drawn into."""
    with mpl.rc_context(STYLE):
        picture, axes = figure(panels)
        picture.set_size_inches(width, height)
        yield axes
        picture.savefig(path, facecolor="white")


def plot_ratios(rows: Sequence[Row], path: Path) -> None:
    """Each contender's time over ours, a line for each shape; some were measured on one device alone."""
    with saved_panels(path, 7.0, 1.4 + 0.28 * len(rows)) as (ax,):
        for name in dict.fromkeys(name for row in rows for name in row["contenders"]):
            ratios = {i: row["contenders"][name]["ratio"] for i, row in enumerate(rows) if name in row["contenders"]}
            library = name.split(" on ")[0]
            ours, several = library == OURS, library != name
            ax.plot(
                list(ratios.values()), list(ratios), ls="", color=COLOURS[library],
                marker="|" if ours else "o", ms=12 if ours else 5, label=name,
                fillstyle="none" if several else "full",
            )  # fmt: skip
        ax.axvline(1.0, color=COLOURS[OURS], lw=0.8)
        ax.set_xscale("log")
        ax.set_yticks(range(len(rows)), [str(Shape(**row["shape"])) for row in rows], fontsize=8)
        ax.invert_yaxis()
        ax.set_xlabel("time of a training step over ours")
        ax.set_ylabel("T,B,D,H")
        ax.margins(y=0.5 / max(len(rows), 2))
        low, high = ax.get_xlim()
        ax.set_xticks([tick for tick in TICKS if low <= tick <= high])
        ax.set_xticks([], minor=True)
        ax.xaxis.set_major_formatter(PLAIN_NUMBERS)
        ax.grid(axis="x", color="#EEEEEE")
        ax.legend(**OUTSIDE)


def plot_scaling(rows: Sequence[Row], path: Path) -> None:
    """Time and memory against T, B and H, the others at their most common value."""
    shapes = [Shape(**row["shape"]) for row in rows]
    base = Shape(*(max(set(column), key=column.count) for column in zip(*shapes, strict=True)))
    with saved_panels(path, 10.0, 6.0, 2 * len(AXES)) as axes:
        upper, lower = axes[: len(AXES)], axes[len(AXES) :]
        for panels, label in ((upper, "training step, ms"), (lower, "temporary memory, MB")):
            panels[0].set_ylabel(label)
            for ax in panels[1:]:
                ax.sharey(panels[0])
                ax.tick_params(axis="y", which="both", labelleft=False)
        for field, label, *column in zip(AXES, AXES.values(), upper, lower, strict=True):
            swept = [row for row, shape in zip(rows, shapes, strict=True)
                     if shape._replace(**{field: 0}) == base._replace(**{field: 0})]  # fmt: skip
            swept.sort(key=lambda row, field=field: row["shape"][field])
            for key, unit, ax in zip(("median_ms", "temp_bytes"), (1.0, 1e6), column, strict=True):
                _plot_sweep(ax, swept, field, key, unit)
                ax.set_xlabel(label)
            sizes = zip("TBDH", base._fields, base, strict=True)
            column[0].set_title(", ".join(f"{letter}={n}" for letter, name, n in sizes if name != field))
        upper[-1].legend(**OUTSIDE)


def _plot_sweep(ax: Axes, rows: Sequence[Row], field: str, key: str, unit: float) -> None:
    for name in rows[0]["contenders"]:
        points = [(row["shape"][field], row["contenders"][name][key]) for row in rows]
        points = [(x, y / unit) for x, y in points if y is not None]
        if points:
            ax.plot(*zip(*points, strict=True), marker="o", ms=3, color=COLOURS[name], label=name)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks([row["shape"][field] for row in rows])
    ax.xaxis.set_major_formatter(PLAIN_NUMBERS)
    ax.yaxis.set_major_formatter(PLAIN_NUMBERS)


def plot_lengths(rows: Sequence[Row], path: Path) -> None:
    """Time per step and peak memory against length."""
    lengths = [row["time"] for row in rows]
    columns = (("microseconds_per_step", 1.0, "time per step, us"), ("host_peak_bytes", 1e6, "peak memory, MB"))
    with saved_panels(path, 7.0, 3.0, len(columns)) as axes:
        for ax, (key, unit, label) in zip(axes, columns, strict=True):
            ax.plot(lengths, [row[key] / unit for row in rows], marker="o", color=COLOURS[OURS])
            ax.set_xscale("log")
            ax.set_xticks(lengths)
            ax.xaxis.set_major_formatter(PLAIN_NUMBERS)
            ax.set_ylim(bottom=0)
            ax.set_xlabel("steps T")
            ax.set_ylabel(label)


def plot_costs(rows: Sequence[Row], path: Path) -> None:
    """What each instrument costs in training steps, a bar for each size."""
    names = [name for name in rows[0]["costs"] if name != TRAINING_STEP]
    height = 0.8 / len(rows)
    with saved_panels(path, 7.0, 1.4 + 0.4 * len(names)) as (ax,):
        for i, row in enumerate(rows):
            label = f"T,B,H = {row['time']},{row['batch']},{row['hidden']}"
            places = np.arange(len(names)) + (i - (len(rows) - 1) / 2) * height
            ax.barh(places, [row["costs"][name]["steps"] for name in names], height, label=label)
        ax.set_yticks(np.arange(len(names)), names)
        ax.invert_yaxis()
        ax.set(xlabel="cost in training steps", xscale="log")
        ax.axvline(1.0, color="black", lw=1, ls="--")
        ax.legend(frameon=False, fontsize=8)


def plot_population(rows: Sequence[Row], path: Path) -> None:
    """A member's throughput over that of a run alone, against the number of members."""
    populations = [row for row in rows if "member_ms" in row]
    sizes = [row["members"] for row in populations]
    with saved_panels(path, 5.0, 3.4) as (ax,):
        ax.plot(sizes, [row["ratio"] for row in populations], marker="o")
        ax.axhline(1.0, color="black", lw=1, ls="--", label="a run alone")
        ax.set(xlabel="members", ylabel="throughput of a member", xscale="log", ylim=(0, None))
        ax.set_xticks(sizes, [str(size) for size in sizes])
        ax.legend(frameon=False)


def plot_training(rows: Sequence[Row], path: Path) -> None:
    """Training steps a second of every contender, a panel for each config."""
    with saved_panels(path, 8.0, 2.6, len(rows)) as axes:
        for ax, row in zip(axes, rows, strict=True):
            _plot_bars(ax, row["steps_per_second"], "{:.1f}")
            ax.set(xlabel="training steps a second", title=row["config"])


def plot_latency(rows: Sequence[Row], path: Path) -> None:
    """A step at batch 1 of every contender, a panel for each width."""
    with saved_panels(path, 8.0, 4.5, len(rows)) as axes:
        for ax, row in zip(axes, rows, strict=True):
            _plot_bars(ax, row["microseconds"], "{:.0f}")
            ax.set(xlabel="microseconds a step", title=f"D,H = {row['features']},{row['hidden']}", xscale="log")


def _plot_bars(ax: Axes, values: Mapping[str, float], label: str) -> None:
    bars = ax.barh(list(values), list(values.values()))
    ax.bar_label(bars, [label.format(value) for value in values.values()], padding=3)
    ax.invert_yaxis()
    ax.margins(x=0.2)


def plot_start(rows: Sequence[Row], path: Path) -> None:
    """A bar for each thing that is waited for."""
    with saved_panels(path, 8.0, 3.0) as (ax,):
        bars = ax.barh([row["what"] for row in rows], [row["seconds"] for row in rows])
        ax.bar_label(bars, [f"{row['seconds']:.2f}" for row in rows], padding=3)
        ax.set_xlabel("seconds")
        ax.margins(x=0.1)


def plot_searches(rows: Sequence[Row], path: Path) -> None:
    """The best loss that each search found, by task and method."""
    bests = best_by_method(rows)
    with saved_panels(path, 9.0, 3.0, len(bests)) as axes:
        for ax, (task, by_method) in zip(axes, bests.items(), strict=True):
            for place, losses in enumerate(by_method.values()):
                ax.plot([place] * len(losses), losses, "o", color=BLUE, ms=4, alpha=0.6)
                ax.plot([place - 0.2, place + 0.2], [np.median(losses)] * 2, "-", color=ORANGE)
            ax.set_xticks(range(len(by_method)), list(by_method))
            ax.set(title=task, ylabel="best validation loss", yscale="log")
