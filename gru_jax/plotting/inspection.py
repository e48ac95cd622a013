"""Pictures of the inside of a network, on light and on dark pages."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gru_jax.flow.fixed_points import SADDLE, SLOW_POINT, STABLE, FixedPoints
from gru_jax.plotting.style import BLUE, GREEN, GREY, ORANGE, OUTSIDE, SKY, cycle, figure, house_style, logarithmic_y

INK = "#1b1c1d"
"""The colour of texts and axes, for which a page puts its own."""
ON_ANY_PAGE: dict[str, Any] = {
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.facecolor": "none", "figure.facecolor": "none", "savefig.facecolor": "none", "font.size": 9,
}  # fmt: skip
MOST_LABELS, LABEL_LENGTH, LABEL_FONT = 110, 14, "DejaVu Sans Mono"  # which comes with matplotlib
SIGNS = {"\n": "\u21b5", "\t": "\u21e5", "\r": "\u240d"}
UNDRAWABLE = "\N{REPLACEMENT CHARACTER}"
FEW_FEATURES = 4  # up to which inputs are drawn as lines
MOST_LINES = 12  # trajectories that are drawn among fixed points
MARKS = {SLOW_POINT: ("d", GREEN), STABLE: ("o", BLUE), SADDLE: ("X", ORANGE)}
PAIRS = ((0, 1), (0, 2), (1, 2))


def inline_svg(picture: Figure, name: str) -> str:
    """A picture as SVG to stand in a page, whose colour of text it takes."""
    stream = io.StringIO()
    with house_style(**ON_ANY_PAGE, **{"svg.hashsalt": name}):
        picture.savefig(stream, format="svg", facecolor="none", metadata={"Date": None}, dpi=100)
    svg = stream.getvalue()
    return svg[svg.index("<svg") :].replace(INK, "currentColor")


def plot_attributions(
    xs: Float[np.ndarray, "N T D"],
    values: Float[np.ndarray, "N T D"],
    falls: Float[np.ndarray, "N M"],
    width: int,
    within: Bool[np.ndarray, "N T"],
    titles: Sequence[str],
) -> Figure:
    """Example inputs, coloured by what each contributes to the output, and under each what hiding a stretch costs.

    Args:
        xs: inputs.
        values: integrated gradients.
        falls: of occlusion.
        width: steps of a stretch of it.
        within: True at the steps that count.
        titles: of each example.
    """
    count, _, features = xs.shape
    with house_style(**ON_ANY_PAGE):
        picture, _ = figure(1, width=10.4)
        picture.clear()
        height = 1.6 if features <= FEW_FEATURES else min(3.2, 1.0 + 0.04 * features)
        picture.set_size_inches(10.4, count * (height + 1.15))
        ratios = [height, 0.55] * count
        axes = picture.subplots(2 * count, 1, height_ratios=ratios, squeeze=False)[:, 0]
        for i, title in enumerate(titles):
            steps = int(within[i].sum())
            upper, lower = axes[2 * i], axes[2 * i + 1]
            draw = _draw_lines if features <= FEW_FEATURES else _draw_grid
            draw(picture, upper, xs[i, :steps], values[i, :steps])
            upper.set_title(title, loc="left")
            starts = np.arange(falls.shape[1]) * width - 0.5  # a step reaches half a step to both sides
            lower.bar(starts, falls[i], width=width, align="edge", color=np.where(falls[i] > 0, ORANGE, BLUE))
            lower.axhline(0.0, color=GREY, lw=0.5)
            lower.set(xlim=(-0.5, steps - 0.5), ylabel="hidden", xlabel="step" if i == count - 1 else "")
    return picture


def _draw_lines(picture: Figure, ax: Axes, xs: Float[np.ndarray, "T D"], values: Float[np.ndarray, "T D"]) -> None:
    """Few features as lines, whose points are coloured and sized by attribution."""
    limit = np.abs(values).max() or 1.0
    steps, marks = np.arange(len(xs)), None
    for feature in range(xs.shape[1]):
        ax.plot(steps, xs[:, feature], color=GREY, lw=0.6, alpha=0.7)
        size = 4 + 60 * np.abs(values[:, feature]) / limit
        marks = ax.scatter(
            steps, xs[:, feature], c=values[:, feature], s=size, cmap="RdBu_r", vmin=-limit, vmax=limit,
            edgecolors=GREY, linewidths=0.4, zorder=3,
        )  # fmt: skip
    if marks is not None:
        picture.colorbar(marks, ax=ax, label="contribution", pad=0.01)
    ax.set(xlim=(-0.5, len(xs) - 0.5), ylabel="input", xticklabels=[])


def _draw_grid(picture: Figure, ax: Axes, xs: Float[np.ndarray, "T D"], values: Float[np.ndarray, "T D"]) -> None:
    """Many features as a map of attribution over the inputs, which stand in grey beneath."""
    limit = np.abs(values).max() or 1.0
    extent = (-0.5, len(xs) - 0.5, xs.shape[1] - 0.5, -0.5)
    ax.imshow(xs.T, aspect="auto", cmap="Greys", extent=extent, interpolation="nearest")
    strength = np.clip(np.abs(values.T) / limit, 0.0, 1.0) ** 0.5
    image = ax.imshow(
        values.T, aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit, alpha=strength, extent=extent,
        interpolation="nearest",
    )  # fmt: skip
    bar = picture.colorbar(image, ax=ax, label="contribution", pad=0.01)
    bar.solids.set_alpha(1.0)  # pyright: ignore[reportOptionalMemberAccess]
    ax.set(ylabel="feature", xticklabels=[])


def plot_traces(
    xs: Float[np.ndarray, "T D"],
    states: Float[np.ndarray, "T H"],
    gates: Mapping[str, Float[np.ndarray, "T H"]],
    labels: Sequence[str] | None = None,
) -> Figure:
    """What one sequence does to the units of a cell: its inputs, the hidden states and every gate, step by step.

    Units are ordered by when they move most.

    Args:
        xs: inputs.
        states: of the units.
        gates: by name.
        labels: of each step, as the token that is read, which stand in place of the inputs; None for the inputs.
    """
    time = np.arange(len(states))[:, None]
    change = np.abs(np.diff(states, axis=0, prepend=states[:1])) ** 2
    order = np.argsort((time * change).sum(axis=0) / np.maximum(change.sum(axis=0), 1e-30), kind="stable")
    maps = {"h": (states[:, order], "RdBu_r")}
    maps |= {name: (value[:, order], "RdBu_r" if value.min() < 0 else "viridis") for name, value in gates.items()}
    with house_style(**ON_ANY_PAGE):
        picture, _ = figure(1, width=10.4)
        picture.clear()
        picture.set_size_inches(10.4, 1.3 + 1.5 * len(maps))
        height = 0.8 if labels is None or max(map(len, labels), default=0) > 1 else 0.2
        axes = picture.subplots(1 + len(maps), 1, sharex=True, height_ratios=[height, *[1.0] * len(maps)])
        if labels is not None:
            _write_labels(axes[0], labels)
        elif xs.shape[1] <= FEW_FEATURES:
            for feature, colour in enumerate(cycle(xs.shape[1])):
                axes[0].plot(xs[:, feature], color=colour, lw=0.9)
        else:
            axes[0].imshow(xs.T, aspect="auto", cmap="Greys", interpolation="nearest")
        axes[0].set_ylabel("" if labels is not None else "input")
        for ax, (name, (value, colours)) in zip(axes[1:], maps.items(), strict=True):
            limit = max(float(np.abs(value).max()), 1e-6)
            low, high = (-limit, limit) if colours == "RdBu_r" else (0.0, max(1.0, limit))
            image = ax.imshow(value.T, aspect="auto", cmap=colours, vmin=low, vmax=high, interpolation="nearest")
            picture.colorbar(image, ax=ax, pad=0.01)
            ax.set_ylabel(f"{name}, units")
        axes[-1].set_xlabel("step")
    return picture


def _write_labels(ax: Axes, labels: Sequence[str]) -> None:
    """Tokens above the steps at which they are read, upright where all of them are single signs."""
    font = font_manager.get_font(font_manager.findfont(LABEL_FONT))
    single = max(map(len, labels)) <= 1
    for step, label in enumerate(labels):
        signs = (SIGNS.get(sign, sign) for sign in (label if single else label.strip() or label)[:LABEL_LENGTH])
        shown = "".join(sign if font.get_char_index(ord(sign)) else UNDRAWABLE for sign in signs)
        ax.text(
            step, 0.0, shown, ha="center", va="bottom", rotation=0 if single else 90, fontsize=6, family=LABEL_FONT,
            parse_math=False,
        )  # fmt: skip
    ax.set_axis_off()


def plot_fixed_points(
    points: FixedPoints,
    ends: Mapping[int, tuple[int, int]],
    trajectories: Float[np.ndarray, "N T S"],
    within: Bool[np.ndarray, "N T"],
    axes: Float[np.ndarray, "P S"],
    shares: Float[np.ndarray, " P"],
) -> Figure:
    """Fixed and slow points among trajectories, on pairs of principal components of the states.

    Args:
        points: the points.
        ends: by the number of a saddle, the stable points that it leads to.
        trajectories: states after every step.
        within: True at the steps that count.
        axes: principal components, at most three.
        shares: of the states' variance along each.
    """
    pairs = [pair for pair in PAIRS if max(pair) < len(axes)] or [(0, 0)]
    mean = trajectories[within].mean(axis=0)
    at = (points.states - mean) @ axes.T
    ways = [((states[steps] - mean) @ axes.T) for states, steps in zip(trajectories, within, strict=True)]
    with house_style(**ON_ANY_PAGE):
        picture, panels = figure(len(pairs), width=10.4 / len(pairs))
        for ax, (x, y) in zip(panels, pairs, strict=True):
            for way in ways[:MOST_LINES]:
                ax.plot(way[:, x], way[:, y], color=SKY, lw=0.6, alpha=0.6, zorder=1)
            for saddle, stable in ends.items():
                for end in stable:
                    if end >= 0:
                        ax.plot(*at[[saddle, end]][:, [x, y]].T, color=ORANGE, lw=0.8, ls=":", zorder=2)
            for kind, (mark, colour) in MARKS.items():
                chosen = np.array([k == kind for k in points.kinds], bool)
                if chosen.any():
                    label = f"{chosen.sum()} {kind}"
                    ax.scatter(
                        at[chosen, x], at[chosen, y], marker=mark, s=22 if kind == SLOW_POINT else 45, c=colour,
                        edgecolors="white", linewidths=0.5, zorder=3, label=label,
                    )  # fmt: skip
            ax.set(xlabel=f"component {x + 1} ({shares[x]:.0%})", ylabel=f"component {y + 1} ({shares[y]:.0%})")
        if len(points.states):
            panels[-1].legend(**OUTSIDE)
    return picture


def plot_eigenvalues(points: FixedPoints) -> Figure:
    """The eigenvalues at each kind of points in the complex plane, and every point's longest time constants."""
    with house_style(**ON_ANY_PAGE):
        picture, (plane, times) = figure(2, width=5.2)
        circle = np.exp(2j * np.pi * np.linspace(0.0, 1.0, 200))
        plane.plot(np.real(circle), np.imag(circle), color=GREY, lw=0.8)
        for kind, (mark, colour) in MARKS.items():
            chosen = points.of_kind(kind)
            if not len(chosen.states):
                continue
            values = chosen.eigenvalues.ravel()
            plane.scatter(
                np.real(values), np.imag(values), marker=mark, s=12, c=colour, alpha=0.5, linewidths=0, label=kind
            )
            constants = np.sort(np.clip(chosen.time_constants, 1e-2, 1e6), axis=1)[:, ::-1]
            times.plot(np.arange(1, constants.shape[1] + 1), constants.T, color=colour, lw=0.7, alpha=0.5)
        plane.set(xlabel="real part", ylabel="imaginary part", aspect="equal")
        plane.legend(**OUTSIDE)
        times.set(xlabel="direction, slowest first", ylabel="time constant (steps)")
        logarithmic_y(times)
    return picture


def plot_probes(
    steps: Sequence[int],
    scores: Mapping[str, Float[np.ndarray, " N"]],
    control: Mapping[str, Float[np.ndarray, " N"]],
) -> Figure:
    """How much of each variable a linear probe reads off the states at some steps, and of shuffled ones (dashed)."""
    with house_style(**ON_ANY_PAGE):
        picture, (ax,) = figure(1, width=8.0)
        for (name, values), colour in zip(scores.items(), cycle(len(scores)), strict=True):
            ax.plot(steps, np.clip(values, -0.5, 1.0), color=colour, lw=1.5, label=name)
            ax.plot(steps, np.clip(control[name], -0.5, 1.0), color=colour, lw=0.8, ls="--")
        ax.axhline(0.0, color=GREY, lw=0.5)
        ax.set(xlabel="step", ylabel=r"$R^2$ on other sequences", ylim=(-0.55, 1.05))
        ax.set_title("dashed: shuffled", loc="right", fontsize=8)
        ax.legend(**OUTSIDE)
    return picture


def plot_similarity(names: Sequence[str], matrices: Mapping[str, Float[np.ndarray, "M M"]]) -> Figure:
    """How alike each two representations are, a panel for each measure."""
    with house_style(**ON_ANY_PAGE):
        picture, axes = figure(len(matrices), width=5.2)
        for ax, (measure, matrix) in zip(axes, matrices.items(), strict=True):
            image = ax.imshow(matrix, cmap="viridis", vmin=0.0, vmax=1.0)
            for (row, column), value in np.ndenumerate(matrix):
                ax.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8,
                        color="black" if value > 0.6 else "white")  # fmt: skip
            ax.set_xticks(range(len(names)), names, rotation=30, ha="right")
            ax.set_yticks(range(len(names)), names)
            ax.set_title(measure)
            picture.colorbar(image, ax=ax, shrink=0.8)
    return picture
