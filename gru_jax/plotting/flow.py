"""Pictures of what the gradient-flow instruments recorded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gru_jax import flow
from gru_jax.config import ModelConfig
from gru_jax.flow.sources import LAST, SAMPLED, TOTAL
from gru_jax.plotting.style import BLUE, GREEN, GREY, ORANGE, OUTSIDE, cycle, figure, house_style, logarithmic_y
from gru_jax.training.instruments import LIVE, LIVE_STEP, SOURCE

Records = Mapping[str, np.ndarray]
HORIZON = 0.01  # fraction of the peak at which the drawn gradient horizon lies
DECADES = 12  # of a logarithmic scale; what is smaller is not drawn
FAINTEST = 1e-4  # of a row's peak in a heat map; what is smaller has the lowest colour
MARKED = 40  # recordings whose horizons are marked one by one
FEW = 4  # recordings that are drawn as lines rather than as a heat map
HOW_TO_READ = "A row is a recording: bright where gradient arrives, dark where it has died on its way."
EVERY_STEP = "The loss reads many steps: at a lag, the gradients of all later losses have added up."


class ProfileText(NamedTuple):
    """How an adjoint profile is labelled: its norm, its lag, and whose gradient it follows, in short and in a line."""

    norm: str
    lag: str
    short: str
    note: str


_SINGLE = r"mean $\|\partial L_t/\partial s_{t-k}\|$", "lag $k$ from the step whose loss it is (steps)"
PROFILE_TEXTS = {
    TOTAL: ProfileText(r"mean $\|\partial L/\partial s_t\|$", "lag from the end of the pass (steps)", "", ""),
    SAMPLED: ProfileText(
        *_SINGLE, "losses of sampled steps", "Each gradient is of one step's loss; steps are sampled."
    ),
    LAST: ProfileText(*_SINGLE, "loss of the last step", "Each gradient is of the last step's loss alone."),
}
"""By source, see `gru_jax.flow.sources`."""
OF_SOURCES = {
    "none": "In the encoder it is looked at from the end of the pass over the source, where alone it comes in.",
    "attention": "In the encoder it is looked at from the end of the pass over the source, at each of whose steps "
    "attention lets it in.",
}
"""What is said of an encoder's cells, without attention and with it."""


def profile_text(layer: str, source: str) -> ProfileText:
    """How the adjoint profile of a layer of this name is labelled, or of a reading `adjoint/<layer>`."""
    text = PROFILE_TEXTS[source]
    if source == TOTAL or not is_encoder(layer):
        return text
    norm, lag = (
        r"mean $\|\partial L_t/\partial s_{S-k}\|$",
        "lag $k$ from the end $S$ of the pass over the source (steps)",
    )
    return text._replace(norm=norm, lag=lag, short=f"{text.short}, from the end of the pass over the source")


def is_encoder(layer: str) -> bool:
    """Whether a layer, or a reading of it, is of an encoder, whose steps no loss reads."""
    return layer.rpartition("/")[2].startswith("encoder.")


def plot_records(records: Records, model: ModelConfig) -> dict[str, Figure]:
    """All pictures that can be drawn of a run's records, by file name, with what theory says of its network."""
    drawn = {}
    with house_style():
        for name, (kind, plot) in PICTURES.items():
            if any(key.startswith(f"{kind}/") for key in records):
                drawn[name] = plot(records)
                if name == "time_scales":
                    _predict_time_scales(drawn[name], records, model)
                if plot in (plot_gradient_flow, plot_live_gradient_flow):
                    note = PROFILE_TEXTS[source_of(records)].note or EVERY_STEP * (model.readout != "last")
                    of_source = OF_SOURCES["none" if model.attention == "none" else "attention"]
                    if source_of(records) != TOTAL and any(map(is_encoder, records)):
                        note += f"\n{of_source}"
                    drawn[name].supxlabel(note, fontsize=8)
    return drawn


def plot_gradient_flow(records: Records) -> Figure:
    """Adjoint norm over lag and training step, one panel a layer, with the gradient horizon."""
    return _adjoints(records, "adjoint/", records["step"])


def plot_live_gradient_flow(records: Records) -> Figure:
    """The same of the training steps' own batches."""
    return _adjoints(records, f"{LIVE}adjoint/", records[LIVE_STEP])


def source_of(records: Records) -> str:
    """Whose gradient the adjoint profiles of a run follow; all of it where the records do not say."""
    return str(records[SOURCE]) if SOURCE in records else TOTAL


def draw_profiles(
    ax: Axes, series: Mapping[str, Sequence[np.ndarray]], text: ProfileText = PROFILE_TEXTS[TOTAL]
) -> None:
    """Overlay adjoint profiles `[T]`, those of one label in one colour, each with a mark at its horizon, or at its end
    where that lies beyond.
    """
    finite = [p[np.isfinite(p)].max(initial=0.0) for rows in series.values() for p in rows]
    top = max(finite, default=0.0) or 1.0
    marked, limits = False, set()
    for (label, rows), colour in zip(series.items(), cycle(len(series)), strict=True):
        for i, profile in enumerate(rows):
            shown = np.where(profile >= top * 10.0**-DECADES, profile, np.nan)
            ax.plot(shown, color=colour, lw=1.5 if len(rows) == 1 else 1.0, label=None if i else label)
            (lag,), (is_censored,) = horizons(profile[None])
            at = int(lag) - is_censored
            if lag and not np.isnan(shown[at]):
                ax.plot(at, shown[at], ">" if is_censored else "o", color=colour, ms=6, mec="white", clip_on=False)
                marked |= not is_censored
                limits |= {int(lag)} if is_censored else set()
    ax.set(xlabel=text.lag, ylabel=text.norm)
    logarithmic_y(ax)
    said = f"● horizon ({HORIZON:.0%} of the peak)\n" if marked else ""
    said += f"▶ horizon {at_least(limits)}" if limits else ""
    ax.legend(title=said.strip() or None, title_fontsize=8, **OUTSIDE)


def plot_gate_histograms(records: Records) -> Figure:
    """Distribution of every gate's values at the first and the last recording."""
    names = _names(records, "gates/")
    picture, axes = figure(len(names), width=3.4, columns=4)
    edges = records["gate_edges"]
    for ax, name in zip(axes, names, strict=True):
        _before_and_after(ax, records[name] / np.diff(edges), edges, records["step"])
        logarithmic_y(ax)
        ax.set(xlabel="gate value", ylabel="density", title=_title(name), xlim=(0, 1))
        ax.legend(**OUTSIDE)
    return picture


def plot_time_scales(records: Records) -> Figure:
    """Units by time scale of their memory gate, at the first and the last recording."""
    names = _names(records, "time_scales/")
    picture, axes = figure(len(names))
    for ax, name in zip(axes, names, strict=True):
        values = np.clip(records[name], 1e-2, 1e6)
        known = values[~np.isnan(values)]
        edges = np.geomspace(known.min(initial=1e6) * 0.9, known.max(initial=1e-2) * 1.1, 31)
        counts = np.stack([np.histogram(row[~np.isnan(row)], edges)[0] for row in values])
        _before_and_after(ax, counts, edges, records["step"])
        longest = len(records["lag"])
        ax.axvline(longest, color=ORANGE, ls="--", lw=1, label=f"the sequence, {longest} steps")
        ax.set_xscale("log")
        ax.set(xlabel=r"time scale $-1/\langle\ln z\rangle$ (steps)", ylabel="units", title=_title(name))
        ax.legend(**OUTSIDE)
    return picture


def _before_and_after(ax: Axes, rows: np.ndarray, edges: np.ndarray, steps: np.ndarray) -> None:
    """Histograms of the first recording, filled, and of the last, if it is another."""
    ax.stairs(rows[0], edges, color=GREY, fill=True, alpha=0.45, label=f"step {steps[0]}")
    if len(rows) > 1:
        ax.stairs(rows[-1], edges, color=BLUE, lw=1.5, label=f"step {steps[-1]}")


def _predict_time_scales(picture: Figure, records: Records, model: ModelConfig) -> None:
    """Draw what the initialisation of the memory gate's bias alone gives, where there is a closed form."""
    cell = model.cell
    if cell.memory is None:
        return
    scheme = model.init.gate(cell.memory.gate)
    for ax, name in zip(picture.axes, _names(records, "time_scales/"), strict=True):
        units = records[name].shape[-1]
        if scheme.gate_bias == "chrono" and scheme.t_max is not None:
            histogram: Any = ax.patches[0]
            edges = np.asarray(histogram.get_data().edges)
            below = np.asarray(flow.theory.chrono_time_scales(jnp.asarray(edges), scheme.t_min, scheme.t_max))
            ax.stairs(units * np.diff(below), edges, color=GREEN, lw=1.2, ls=":", label="chrono biases, in theory")
        elif scheme.gate_bias in ("zeros", "constant"):
            logit = scheme.gate_value if scheme.gate_bias == "constant" else 0.0
            rest = float(flow.theory.retention_time(logit))
            ax.axvline(rest, color=GREEN, ls=":", lw=1.2, label=f"{scheme.gate_bias}, in theory")
        ax.legend(**OUTSIDE)


def plot_lyapunov(records: Records) -> Figure:
    """The largest Lyapunov exponents over training or, of one recording, over their index; shades or bars are one
    standard deviation over sequences.
    """
    names = _names(records, "lyapunov/")
    picture, axes = figure(len(names))
    for ax, name in zip(axes, names, strict=True):
        values, spread = records[name], records[name.replace("lyapunov/", "lyapunov_deviation/")]
        count = values.shape[1]
        title = f"{_title(name)} · {count} largest exponents" if count > 1 else f"{_title(name)} · largest exponent"
        if len(values) == 1:  # over its index: there is no training to be seen
            index = np.arange(1, count + 1)
            ax.errorbar(index, values[0], spread[0], color=BLUE, lw=1.2, marker="o", ms=3, elinewidth=0.8)
            ax.set(xlabel="index $i$", title=f"{title}\nstep {records['step'][0]}; bars: deviation over sequences")
            ax.set_xlim(0.5, count + 0.5)
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        else:
            draw_ranks(ax, records["step"], values)
            ax.fill_between(records["step"], values[:, 0] - spread[:, 0], values[:, 0] + spread[:, 0],
                            color=BLUE, alpha=0.25, lw=0)  # fmt: skip
            ax.set(xlabel="training step", title=title)
        ax.axhline(0.0, color=GREY, ls="--", lw=1)
        ax.set_ylabel(r"$\lambda_i$ (nats per step)")
    return picture


def draw_ranks(ax: Axes, x: np.ndarray, values: np.ndarray, line: str = "-") -> None:
    """A line for each column of `[N, k]`, from dark for the first to light for the last."""
    shades = np.linspace(1.0, 0.25, values.shape[1])
    for i in range(values.shape[1]):
        ax.plot(x, values[:, i], ls=line, color=BLUE, alpha=shades[i], lw=1.2, marker="o", ms=3)


def plot_gradient_shares(records: Records) -> Figure:
    """How much of each gate's gradient each time step contributes, at the last recording, summed from the first."""
    layers = list(dict.fromkeys(name.split("/")[1] for name in _names(records, "gradient_share/")))
    picture, axes = figure(len(layers))
    for ax, layer in zip(axes, layers, strict=True):
        names = _names(records, f"gradient_share/{layer}/")
        for name, colour in zip(names, cycle(len(names)), strict=True):
            share = records[name][-1]
            total = share.sum()
            ax.plot(np.cumsum(share) / (total if total > 0 else 1.0), color=colour, lw=1.5, label=name.split("/")[-1])
        ax.set(xlabel="time step", ylabel=r"$\sum_{s\leq t} \langle g_s, g\rangle / \|g\|^2$",
               title=f"{layer} · step {records['step'][-1]}")  # fmt: skip
        ax.legend(title="gate", **OUTSIDE)
    return picture


def plot_states(records: Records) -> Figure:
    """Norm of the states over time at every recording, first to last from light to dark."""
    names = _names(records, "state_norm/")
    picture, axes = figure(len(names))
    for ax, name in zip(axes, names, strict=True):
        _lines(ax, np.arange(records[name].shape[1]), records[name], records["step"])
        ax.set(xlabel="time step", ylabel=r"mean $\|h_t\|$", title=_title(name))
    return picture


def plot_singular_values(records: Records) -> Figure:
    """Singular values of the step's Jacobian, a line for each time step it was formed at, at the last recording."""
    names = _names(records, "singular_values/")
    picture, axes = figure(len(names))
    for ax, name in zip(axes, names, strict=True):
        values = records[name][-1]
        _lines(ax, np.arange(1, values.shape[1] + 1), values, records["jacobian_time"], "t")
        ax.axhline(1.0, color=GREY, ls="--", lw=1)
        ax.set(xlabel="index", ylabel=r"singular value of $\partial s_t/\partial s_{t-1}$",
               title=f"{_title(name)} · step {records['step'][-1]}")  # fmt: skip
    return picture


PICTURES: dict[str, tuple[str, Callable[[Records], Figure]]] = {
    "gradient_flow": ("adjoint", plot_gradient_flow),
    "live_gradient_flow": (f"{LIVE}adjoint", plot_live_gradient_flow),
    "gates": ("gates", plot_gate_histograms),
    "time_scales": ("time_scales", plot_time_scales),
    "lyapunov": ("lyapunov", plot_lyapunov),
    "gradient_shares": ("gradient_share", plot_gradient_shares),
    "states": ("state_norm", plot_states),
    "singular_values": ("singular_values", plot_singular_values),
}
"""Each picture by file name, with the kind of record that it draws."""


def _adjoints(records: Records, prefix: str, steps: np.ndarray) -> Figure:
    names = _names(records, prefix)
    picture, axes = figure(len(names), width=5.2)
    for ax, name in zip(axes, names, strict=True):
        text = profile_text(name, source_of(records))
        if len(steps) <= FEW:
            rows = {f"step {step}": [row] for step, row in zip(steps, records[name], strict=True)}
            draw_profiles(ax, rows, text)
            ax.set_title(_title(name))
        else:
            draw_heat_map(picture, ax, records["lag"], steps, records[name], _title(name), text)
    if len(steps) > FEW:
        picture.suptitle(HOW_TO_READ, fontsize=8)
    return picture


def draw_heat_map(
    picture: Figure,
    ax: Axes,
    lag: np.ndarray,
    steps: np.ndarray,
    norms: np.ndarray,
    title: str,
    text: ProfileText,
) -> None:
    """Adjoint norms `[N, T]` over lag and training step, each row relative to its peak, with the horizon drawn in."""
    peak = np.nanmax(norms, axis=1, keepdims=True, initial=0.0, where=np.isfinite(norms))
    relative = np.clip(norms / np.where(peak > 0, peak, 1.0), FAINTEST, 1.0)
    # One row of cells per recording, as high as all others: recordings need not be evenly spaced.
    rows = np.arange(len(steps))
    mesh = ax.pcolormesh(
        lag, rows, relative, norm=LogNorm(FAINTEST, 1.0), cmap="cividis", shading="nearest", rasterized=True
    )
    lags, is_censored = horizons(norms)
    beyond = is_censored & (lags > 0) & ~np.isinf(norms).any(axis=1)
    if not is_censored.all():
        dot, within = "o" if len(steps) <= MARKED else "", np.where(is_censored, np.nan, lags)
        ax.plot(within, rows, color="white", lw=3, marker=dot, ms=5)
        ax.plot(within, rows, color=ORANGE, lw=1.5, marker=dot, ms=3)
        title += f"\norange: horizon, {HORIZON:.0%} of the peak"
    if beyond.any():
        ax.plot(lags[beyond] - 1, rows[beyond], ">", color=ORANGE, mec="white", ms=5, clip_on=False)
        limits = at_least(lags[beyond])
        title += f"; ▶ {limits}" if not is_censored.all() else f"\n▶ horizon {limits}"
    shown = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), 8)).astype(int))
    ax.set_yticks(shown, [str(s) for s in steps[shown]])
    ax.set(xlabel=text.lag, ylabel="training step", title=title)
    picture.colorbar(mesh, ax=ax, label=f"{text.norm}, of the row's peak", extend="min")


def _lines(ax: Axes, x: np.ndarray, rows: np.ndarray, numbers: np.ndarray, what: str = "step") -> None:
    """Rows from light to dark, the first and the last named."""
    shades = np.linspace(0.25, 1.0, len(rows))
    for i, (row, number) in enumerate(zip(rows, numbers, strict=True)):
        ends = i in (0, len(rows) - 1)
        ax.plot(x, row, color=BLUE, alpha=shades[i], lw=1.2, label=f"{what} {number}" if ends else None)
    ax.legend(**OUTSIDE)


def horizons(norms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The gradient horizon of each row `[N]`, and whether it is censored: not measured, only known to be that or more.

    Where a profile stays above `HORIZON` of its peak, the horizon is as many lags as it has, or more.
    """
    peak = np.where(np.isfinite(norms), norms, 0.0).max(axis=1, keepdims=True, initial=0.0)
    relative = norms / np.where(peak > 0, peak, 1.0)  # in the range of float32
    lags = np.asarray(_horizons(jnp.asarray(relative)))
    is_censored = lags == norms.shape[1]
    return np.where(is_censored, (~np.isnan(norms)).sum(axis=1), lags).astype(float), is_censored


def at_least(limits: Collection[Any]) -> str:
    """How censored horizons are written: `≥ 200`, or a range of such limits."""
    low, high = int(min(limits)), int(max(limits))
    return f"≥ {low}" if low == high else f"≥ {low} … {high}"


_horizons = jax.jit(jax.vmap(lambda profile: flow.horizon(profile, HORIZON)))


def _names(records: Records, prefix: str) -> list[str]:
    return [name for name in records if name.startswith(prefix)]


def _title(name: str) -> str:
    return " · ".join(name.removeprefix(LIVE).split("/")[1:])
