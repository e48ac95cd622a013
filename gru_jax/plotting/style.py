"""How all pictures look."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

# Okabe and Ito's colours, told apart by all common kinds of colour vision.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"
SKY, PINK, YELLOW, BLACK = "#56B4E9", "#CC79A7", "#E69F00", "#000000"
SERIES = (BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, BLACK)
OUTSIDE: dict[str, Any] = {
    "frameon": False, "fontsize": 8, "loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "borderaxespad": 0.2,
    "alignment": "left",
}  # fmt: skip
"""Of a legend: beside its axes, where it hides nothing."""
UNDER: dict[str, Any] = {
    "frameon": False, "fontsize": 8, "loc": "upper center", "bbox_to_anchor": (0.5, -0.18), "ncols": 2
}  # fmt: skip
"""Of a legend: under its axes, where a colour bar stands beside them."""
UNDER_A_LEGEND = 0.75
"""Inches that a panel's title and what stands under its axes take, so that these are as tall as the legend beside."""
DASHES: tuple[Any, ...] = ("--", ":", "-.", (0, (9, 2, 2, 2, 2, 2)))
STYLE: Any = {"axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10, "savefig.dpi": 150}


class Picture(Figure):
    """A figure that notebooks show by themselves, whether or not pyplot was imported before, and whose legends fit."""

    def savefig(self, fname: Any, **kwargs: Any) -> None:
        """Save it, with rows of panels as tall as their legends need."""
        legends = [legend for ax in self.axes if (legend := ax.get_legend()) is not None]
        tallest = max((legend.get_window_extent().height / self.dpi for legend in legends), default=0.0)
        rows = max((place.get_gridspec().nrows for ax in self.axes if (place := ax.get_subplotspec())), default=1)
        self.set_figheight(max(self.get_figheight(), rows * (tallest + UNDER_A_LEGEND)))
        super().savefig(fname, **kwargs)

    def _repr_png_(self) -> bytes:
        image = BytesIO()
        with house_style():
            self.savefig(image, format="png", facecolor="white")
        return image.getvalue()


def figure(panels: int, width: float = 5.2, columns: int = 3) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels, and their axes."""
    columns = min(panels, columns)
    rows = -(-panels // columns)
    made = Picture(figsize=(width * columns, 3.4 * rows), layout="constrained")
    FigureCanvasAgg(made)
    grid = made.subplots(rows, columns, squeeze=False).ravel()
    for spare in grid[panels:]:
        spare.remove()
    return made, list(grid[:panels])


@contextmanager
def house_style(**changes: Any) -> Iterator[None]:
    """Draw in the style of all pictures while this lasts, with changes of matplotlib's settings."""
    settings: dict[Any, Any] = {**STYLE, **changes}
    with mpl.rc_context(settings):
        yield


def save_figures(
    figures: Mapping[str, Figure], folder: Path, formats: tuple[str, ...] = ("png",), **options: Any
) -> list[Path]:
    """Save figures by name into a folder, in each of some formats, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, picture in figures.items():
        for form in formats:
            paths.append(folder / f"{name}.{form}")
            with house_style():
                picture.savefig(paths[-1], facecolor="white", **options)
    return paths


def cycle(count: int) -> list[str]:
    """So many colours; after the last the first follows."""
    return [SERIES[i % len(SERIES)] for i in range(count)]


def draw_levels(ax: Axes, levels: Mapping[str, float | None]) -> None:
    """A horizontal line at each level that is known, the first dashed, with its name in the legend."""
    known = {name: level for name, level in levels.items() if level is not None}
    for i, (name, level) in enumerate(known.items()):
        ax.axhline(level, color=GREY, ls=DASHES[i % len(DASHES)], lw=1, label=name)


def logarithmic_y(ax: Axes) -> None:
    """A logarithmic axis of values with a few labels, within a decade too, and none beside each other over many."""
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    if high / low < 100:
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    else:
        ax.yaxis.set_major_locator(LogLocator(numticks=7))
