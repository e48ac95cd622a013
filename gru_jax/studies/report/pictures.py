"""The report's pictures as PNG and SVG, for papers and pages."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, SymLogNorm
from matplotlib.figure import Figure

from gru_jax.config import Config
from gru_jax.plotting.flow import PROFILE_TEXTS, at_least
from gru_jax.plotting.style import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    OUTSIDE,
    UNDER,
    cycle,
    draw_levels,
    figure,
    house_style,
    save_figures,
)
from gru_jax.studies.axes import REPEATS
from gru_jax.studies.report.findings import DIVERGED, Findings
from gru_jax.studies.report.sentences import counted
from gru_jax.studies.report.table import CENSORED, HORIZON_SOURCE, INIT, STATUS
from gru_jax.studies.sweep import GAIN, stability_edge

SVG: Any = {"svg.hashsalt": "gru_jax"}  # the same picture is the same file
TITLE_WIDTH, LABEL_WIDTH, TICK_WIDTH = 46, 26, 14  # characters of a line in a title, a legend, a name of a tick
NONE = "(none)"  # a value that a member has not, as on the page
Curves = Mapping[str, Mapping[str, Sequence[Any]]]


def draw_report_pictures(
    frame: pl.DataFrame,
    axes: Sequence[str],
    findings: Findings,
    curves: Curves,
    baselines: Mapping[str, float],
    config: Config,
    out: Path,
) -> list[Path]:
    """Draw what the table allows into `out`: `overview` of the first two axes, `effects` of all, and the `phase`
    diagram over recurrent gain and another number.

    Args:
        frame, axes: the table, see `gru_jax.studies.report.table.read`.
        findings: what was found in it.
        curves: by member, steps and scores of the validations.
        baselines: scores of answers that need no network, by name.
        config: of any member.
        out: the folder.
    """
    varied = [axis for axis in axes if axis not in REPEATS and frame[axis].n_unique() > 1]
    made: dict[str, Figure] = {}
    with house_style(**SVG):
        if varied:
            made["overview"] = plot_overview(frame, varied, findings, curves, baselines)
            made["effects"] = plot_effects(findings, varied, baselines)
            exponent = next((name for name in frame.columns if name.startswith(f"{INIT}_lambda_1")), None)
            numeric = [axis for axis in varied if axis != GAIN and frame[axis].dtype.is_numeric()]
            if GAIN in varied and numeric and exponent is not None:
                made["phase"] = plot_phase_diagram(frame, numeric[0], exponent, findings, stability_edge(config))
        png = save_figures(made, out)
        svg = save_figures(made, out, ("svg",), metadata={"Date": None})
    return [path for pair in zip(png, svg, strict=True) for path in pair]


def plot_overview(
    frame: pl.DataFrame, varied: Sequence[str], findings: Findings, curves: Curves, baselines: Mapping[str, float]
) -> Figure:
    """The score over the first two axes, learning curves of the best combinations, and the score against what the
    instruments said before training.
    """
    reading = next((name for name in findings.correlations if "lambda_1" in name), None)
    reading = reading or next((name for name in findings.correlations if "horizon" in name), None)
    panels = (len(varied) > 1) + 1 + (reading is not None)
    picture, axes = figure(panels, width=5.4)
    rest = list(axes)
    if len(varied) > 1:
        draw_score_map(picture, rest.pop(0), frame, varied, findings)
    draw_learning_curves(rest.pop(0), frame, findings, curves, baselines)
    if reading is not None:
        draw_scatter(rest.pop(0), frame, reading, varied, findings, baselines)
    return picture


def plot_phase_diagram(
    frame: pl.DataFrame, other: str, exponent: str, findings: Findings, theory: float | None
) -> Figure:
    """The largest Lyapunov exponent before training, and the score, over recurrent gain and another number; with the
    line on which the exponent is zero, measured and, of the cell at rest, in theory.
    """
    picture, axes = figure(2, width=5.4)
    xs, ys = levels(frame, GAIN), levels(frame, other)
    grids = []
    for name in (exponent, findings.score):
        values = frame.filter(pl.col(STATUS) != DIVERGED).group_by(GAIN, other).agg(pl.col(name).median())
        medians = {(x, y): value for x, y, value in values.iter_rows()}
        grids.append(np.array([[medians.get((x, y), np.nan) for x in xs] for y in ys], float))
    limit = np.nanmax(np.abs(grids[0]))
    norms = [SymLogNorm(0.01, vmin=-limit, vmax=limit), LogNorm() if logarithmic(grids[1]) else None]
    labels = [r"$\lambda_1$ before training (nats per step)", f"median {_pretty(findings.score)}"]
    for ax, grid, norm, colours, label in zip(axes, grids, norms, ("PuOr_r", "cividis"), labels, strict=True):
        mesh = ax.pcolormesh(xs, ys, grid, cmap=colours, norm=norm, shading="nearest")
        picture.colorbar(mesh, ax=ax, label=label)
        write_numbers(ax, mesh, xs, ys, [[compact(v) for v in row] for row in grid])
        if min(len(xs), len(ys)) > 1 and np.nanmin(grids[0]) < 0 < np.nanmax(grids[0]):
            ax.contour(xs, ys, grids[0], levels=[0.0], colors="black", linewidths=1.5)
            ax.plot([], [], color="black", lw=1.5, label=r"$\lambda_1 = 0$, measured")
        if theory is not None:
            ax.axvline(theory, color=ORANGE, ls="--", lw=1.5, label=f"edge at rest in theory, {theory:.3g}")
        ax.set(xlabel=GAIN, ylabel=other)
        ax.legend(**UNDER)
    return picture


def draw_score_map(picture: Figure, ax: Axes, frame: pl.DataFrame, varied: Sequence[str], findings: Findings) -> None:
    """Median score of members that did not diverge, over two axes in colours and numbers, and the share that did."""
    across, up = _shorter_up(frame, varied[0], varied[1])
    xs, ys = levels(frame, across), levels(frame, up)
    values, texts = np.full((len(ys), len(xs)), np.nan), [[""] * len(xs) for _ in ys]
    rows, columns = ({value: i for i, value in enumerate(levels_of)} for levels_of in (ys, xs))
    for (x, y), cell in frame.drop_nulls([across, up]).group_by(across, up):
        i, j = rows[y], columns[x]
        alive = cell.filter(pl.col(STATUS) != DIVERGED)[findings.score].drop_nulls().to_numpy()
        values[i, j] = np.median(alive) if len(alive) else np.nan
        lost = cell.height - len(cell.filter(pl.col(STATUS) != DIVERGED))
        shown = [compact(values[i, j])] * bool(len(alive)) + [f"{lost}/{cell.height} ×"] * bool(lost)
        texts[i][j] = "\n".join(shown)
    mesh = ax.pcolormesh(np.arange(len(xs)), np.arange(len(ys)), values, cmap="cividis",
                         norm=LogNorm() if logarithmic(values) else None, shading="nearest")  # fmt: skip
    picture.colorbar(mesh, ax=ax, label=f"median {_pretty(findings.score)}")
    write_numbers(ax, mesh, np.arange(len(xs)), np.arange(len(ys)), texts)
    _name_ticks(ax, xs)
    ax.set_yticks(range(len(ys)), [_wrapped(_short(y), LABEL_WIDTH) for y in ys])
    ax.set(xlabel=across, ylabel=up)
    lost = frame.filter(pl.col(STATUS) == DIVERGED).height
    ax.set_title(f"{counted(frame.height, 'member')}, {lost} diverged" + " (×)" * bool(lost))


def compact(number: float) -> str:
    """A number in up to six characters, as a cell of a heat map has them; nothing of one that is not finite.

    Examples:
        >>> from gru_jax.studies.report.pictures import compact
        >>> compact(0.8875), compact(0.000477), compact(12.0)
        ('0.887', '4.8e-4', '12')
    """
    text = f"{number:.3g}" if np.isfinite(number) else ""
    if len(text) > 6:
        digits, _, exponent = f"{number:.1e}".partition("e")
        text = f"{digits}e{int(exponent)}"
    return text


def write_numbers(ax: Axes, mesh: Any, xs: Any, ys: Any, texts: Sequence[Sequence[str]]) -> None:
    """Write a text into each cell of a heat map, dark on light and light on dark, as large as the cells allow."""
    longest = max((len(line) for row in texts for text in row for line in text.split("\n")), default=1)
    size = float(np.clip(300.0 / max(1, len(xs)) / max(longest, 3), 4.0, 8.0))
    mesh.update_scalarmappable()
    colours = np.broadcast_to(mesh.get_facecolors(), (len(xs) * len(ys), 4)).reshape(len(ys), len(xs), 4)
    for y, row, of_row in zip(ys, texts, colours, strict=True):
        for x, text, (red, green, blue, opaque) in zip(xs, row, of_row, strict=True):
            is_dark = opaque > 0 and 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            ax.text(x, y, text, ha="center", va="center", fontsize=size, color="white" if is_dark else "black")


def draw_learning_curves(
    ax: Axes, frame: pl.DataFrame, findings: Findings, curves: Curves, baselines: Mapping[str, float], most: int = 7
) -> None:
    """Median and quartiles of the validation score of the best combinations, of each value of the first axis one."""
    chosen, seen = [], set()
    first = _shorter_up(frame, *findings.axes[:2])[1] if len(findings.axes) > 1 else findings.axes[0]
    for effect in findings.combinations:
        value = effect.value[findings.axes.index(first)]
        if value not in seen and len(chosen) < most:
            seen.add(value)
            chosen.append(effect)
    drawn: list[float] = []
    colours = value_colours(frame, first)
    for effect in chosen:
        part, colour = frame, colours[effect.value[findings.axes.index(first)]]
        for axis, value in zip(findings.axes, effect.value, strict=True):
            part = part.filter(pl.col(axis).is_null() if value is None else pl.col(axis) == value)
        of_members = [curves[member] for member in part["member"] if member in curves]
        steps = sorted({step for curve in of_members for step in curve["step"]})
        rows = [dict(zip(curve["step"], curve["score"], strict=True)) for curve in of_members]
        at = [[row[step] for row in rows if step in row] for step in steps]
        low, mid, high = (np.array([np.quantile(values, q) for values in at]) for q in (0.25, 0.5, 0.75))
        label = _wrapped(", ".join(_short(v) for v in effect.value if v is not None) or NONE, LABEL_WIDTH)
        ax.plot(steps, mid, color=colour, lw=1.5, label=label)
        ax.fill_between(steps, low, high, color=colour, alpha=0.2, lw=0)
        drawn += list(mid)
    draw_levels(ax, baselines)
    ax.set(xlabel="training step", ylabel=_pretty(findings.score.removeprefix("best_")))
    if logarithmic(np.array(drawn)):
        ax.set_yscale("log")
    ax.set_title(_wrapped(f"best for each {first}; median and quartiles", TITLE_WIDTH))
    ax.legend(**OUTSIDE)


def draw_scatter(
    ax: Axes,
    frame: pl.DataFrame,
    reading: str,
    varied: Sequence[str],
    findings: Findings,
    baselines: Mapping[str, float],
) -> None:
    """The score of every member against a reading of the instruments, coloured by an axis."""
    by = _shorter_up(frame, varied[0], varied[1])[1] if len(varied) > 1 else varied[0]
    flag = f"{CENSORED}{reading}"
    alive = frame.filter(pl.col(STATUS) != DIVERGED)
    is_censored = pl.col(flag).fill_null(False) if flag in frame.columns else pl.lit(False)
    for value, colour in value_colours(frame, by).items():
        part = alive.filter(pl.col(by).eq_missing(pl.lit(value)))
        for marker, shown in (("o", part.filter(~is_censored)), (">", part.filter(is_censored))):
            ax.plot(shown[reading], shown[findings.score], marker, ms=4, alpha=0.7, color=colour)
        ax.plot([], [], "o", ms=4, color=colour, label=_wrapped(NONE if value is None else _short(value), LABEL_WIDTH))
    limits = alive.filter(is_censored)[reading].drop_nulls()
    if len(limits):
        ax.plot([], [], ">", ms=4, color=GREY, label=at_least(limits.to_list()))
    correlation = findings.correlations[reading]
    if logarithmic(frame[findings.score].drop_nulls().to_numpy()):
        ax.set_yscale("log")
    draw_levels(ax, baselines)
    among = f" within each {', '.join(correlation.within)}" if correlation.within else ""
    title = _wrapped(f"rank correlation {correlation.rho:.2f}{among}", TITLE_WIDTH)
    sources = frame[HORIZON_SOURCE].drop_nulls().unique().to_list() if HORIZON_SOURCE in frame.columns else []
    of_what = [PROFILE_TEXTS[source].short for source in sources] if "lambda" not in reading else []
    xlabel = ", ".join([_pretty(reading), *filter(None, of_what)])
    ax.set(xlabel=_wrapped(xlabel, TITLE_WIDTH), ylabel=_pretty(findings.score), title=title)
    count_coinciding(ax, alive[reading].to_numpy(), alive[findings.score].to_numpy())
    ax.legend(title=_wrapped(by, LABEL_WIDTH), title_fontsize=8, **OUTSIDE)


def count_coinciding(ax: Axes, x: np.ndarray, y: np.ndarray, near: float = 2.0) -> None:
    """Write beside marks that lie on top of each other, to so many points, how many they are."""
    ax.margins(x=0.1)
    ax.autoscale_view()
    values = np.stack([x, y], axis=1).astype(float)
    values = values[np.isfinite(values).all(axis=1)]
    points = ax.transData.transform(values) * 72.0 / ax.get_figure(root=True).dpi  # type: ignore[union-attr]
    heaps: list[list[int]] = []
    for i, place in enumerate(points):
        heap = next((heap for heap in heaps if np.abs(points[heap[0]] - place).max() <= near), None)
        if heap is None:
            heaps.append([i])
        else:
            heap.append(i)
    for heap in heaps:
        if len(heap) > 1:
            ax.annotate(f"{len(heap)}×", values[heap[0]], (3, 3), textcoords="offset points", fontsize=7, color=BLACK)


def plot_effects(findings: Findings, varied: Sequence[str], baselines: Mapping[str, float]) -> Figure:
    """The median score at every value of every axis, with its interval and how often that covers the true median."""
    picture, axes = figure(len(varied), width=4.8)
    for ax, axis in zip(axes, varied, strict=True):
        of_axis = findings.effects[axis]
        y = np.array([effect.median for effect in of_axis])
        spread = np.array([[e.median - e.low for e in of_axis], [e.high - e.median for e in of_axis]]).clip(min=0)
        shown = np.isfinite(y)
        ax.errorbar(np.flatnonzero(shown), y[shown], np.where(np.isfinite(spread), spread, 0)[:, shown], fmt="o",
                    color=BLUE, capsize=3)  # fmt: skip
        is_open = np.isinf(spread) & shown
        for edge, i in np.argwhere(is_open):
            ax.annotate(
                "", (i, edge), (i, y[i]), ("data", "axes fraction"), "data", {"arrowstyle": "->", "color": BLUE}
            )
        draw_levels(ax, baselines)
        if logarithmic(y):
            ax.set_yscale("log")
        _name_ticks(ax, [effect.value[0] for effect in of_axis])
        *others, most = sorted({effect.members for effect in of_axis})
        each = ", ".join(map(str, others)) + " or " * bool(others) + counted(most, "member")
        covered = sorted({f"{100 * effect.coverage:.0f} %" for effect in of_axis if effect.coverage})
        bars = f"bars cover {', '.join(covered)}" if covered else "no bars of one repeat"
        bars += "; arrows are open to members that diverged" if is_open.any() else ""
        title = _wrapped(f"{each} a value, {bars}", TITLE_WIDTH)
        ax.set(xlabel=axis, ylabel=f"median {_pretty(findings.score)}", title=title)
        ax.margins(x=0.1, y=0.25 if is_open.any() else None)  # room for an arrow
    if baselines:
        axes[-1].legend(**OUTSIDE)
    return picture


def _name_ticks(ax: Axes, values: Sequence[Any]) -> None:
    """Name the places 0, 1, …; names that would run into each other are turned, and end at their place."""
    names = [_wrapped(_short(value), TICK_WIDTH) for value in values]
    width = len(names) * max(len(line) for name in names for line in name.split("\n"))
    turned: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    ax.set_xticks(range(len(names)), names, **(turned if width > 32 else {}))


def _wrapped(text: str, width: int) -> str:
    return textwrap.fill(text, width, break_long_words=False)


def levels(frame: pl.DataFrame, axis: str) -> list[Any]:
    """The values of a column: numbers in their order, names as they come."""
    values = frame[axis].drop_nulls().unique(maintain_order=True).to_list()
    return sorted(values) if frame[axis].dtype.is_numeric() else values


def value_colours(frame: pl.DataFrame, column: str) -> dict[Any, str]:
    """The colour of each value of a column, the same in all pictures of a table and on the report's page."""
    values = [*levels(frame, column), *([None] if frame[column].null_count() else [])]
    return dict(zip(values, cycle(len(values)), strict=True))


def logarithmic(values: Any) -> bool:
    """Whether numbers are better drawn on a logarithmic scale."""
    finite = np.asarray(values, float)
    finite = finite[np.isfinite(finite)]
    return bool(finite.size > 1 and finite.min() > 0 and finite.max() / finite.min() > 10)


def _shorter_up(frame: pl.DataFrame, one: str, two: str) -> tuple[str, str]:
    """Two axes: numbers across, names up."""
    numeric = [frame[axis].dtype.is_numeric() for axis in (one, two)]
    return (two, one) if numeric[1] and not numeric[0] else (one, two)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _pretty(name: str) -> str:
    words = {f"{INIT}_": "before training: ", "best_valid_": "best validation ", "valid_": "validation ",
             "lambda_1/": "λ₁ (nats per step), ", "horizon/": "gradient horizon (steps), "}  # fmt: skip
    for short, long in words.items():
        name = name.replace(short, long)
    return name
