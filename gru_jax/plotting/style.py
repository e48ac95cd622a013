"""How all pictures look."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by all common kinds of colour vision.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"
SKY, PINK, YELLOW, BLACK = "#56B4E9", "#CC79A7", "#E69F00", "#000000"
SERIES = (BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, BLACK)
STYLE: Any = {"axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10, "savefig.dpi": 150}


def figure(panels: int, width: float = 4.6, columns: int = 3) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels, and their axes."""
    columns = min(panels, columns)
    rows = -(-panels // columns)
    made = Figure(figsize=(width * columns, 3.4 * rows), layout="constrained")
    FigureCanvasAgg(made)
    grid = made.subplots(rows, columns, squeeze=False).ravel()
    for spare in grid[panels:]:
        spare.remove()
    return made, list(grid[:panels])


def cycle(count: int) -> list[str]:
    """So many colours; after the last the first follows."""
    return [SERIES[i % len(SERIES)] for i in range(count)]
