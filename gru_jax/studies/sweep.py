"""How the gradient flow at initialisation moves with one setting."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gru_jax import flow
from gru_jax.cells import GRU
from gru_jax.config import Config, override
from gru_jax.errors import ArgumentError, check_argument, listing
from gru_jax.flow import theory
from gru_jax.flow.sources import TOTAL
from gru_jax.plotting.flow import at_least, draw_profiles, draw_ranks, horizons, profile_text
from gru_jax.plotting.style import BLUE, GREY, ORANGE, OUTSIDE, figure, house_style, save_figures
from gru_jax.runs.flow import compiled_instruments, initial_params
from gru_jax.runtime.devices import choose_device, precision, without_alarms
from gru_jax.settings import flatten
from gru_jax.training.network import build_model
from gru_jax.user_code import is_reference

TASK, ZEROS = "task", "zeros"
GAIN = "model.init.recurrent_scale"
SWEPT = ("adjoint", "lyapunov")  # instruments
MOST = 200  # values of a sweep
PROFILES = 5  # adjoint profiles that are drawn of them
CENSORED = "horizon_is_censored"  # kind of reading: whether the horizon is only known to be as large or larger
Readings = dict[str, np.ndarray]


def parse_sweep(text: str, config: Config) -> tuple[str, list[str]]:
    """The key of a sweep and its values, as they would be typed: `KEY=LOW:HIGH:COUNT` or `KEY=a,b,c`.

    Raises:
        UsageError: neither, or no such key.
    """
    key, equals, listed = text.partition("=")
    key = key.removeprefix("config.")
    if not equals or not listed:
        raise ArgumentError(f"sweep={text}: allowed are KEY=LOW:HIGH:COUNT and KEY=a,b,c")
    flat = flatten(config.to_dict())
    if not key.startswith("model.init.gates.") and not is_reference(flat.get(key.rpartition(".")[0])):
        check_argument("sweep", key, flat)
    if ":" not in listed:
        return key, listed.split(",")
    try:
        low, high, count = listed.split(":")
        values = np.linspace(float(low), float(high), min(int(count), MOST + 1))
    except ValueError:
        values = np.empty(0)
    if not 2 <= len(values) <= MOST or not np.isfinite(values).all():
        raise ArgumentError(
            f"sweep={text}: allowed are KEY=LOW:HIGH:COUNT, with two numbers and a count from 2 to {MOST}"
        )
    return key, [f"{value:.10g}" for value in values]


def sweep_setting(
    config: Config,
    text: str,
    source: str,
    out: Path,
    form: str,
    on_value: Callable[[str], None] = lambda line: None,
) -> Path:
    """Measure at every value, save `sweep.npz` and draw.

    Args:
        config: the config.
        text: what to sweep, see `parse_sweep`.
        source: `"task"`, the task's validation data, or `"zeros"`, the first layer's cell at rest.
        out: where results go.
        form: of the picture.
        on_value: called with a line on each value as soon as it is measured.
    """
    check_argument("input", source, (TASK, ZEROS))
    key, values = parse_sweep(text, config)
    configs = [override(_without(config.to_dict(), key), {key: value}) for value in values]
    rows: list[Readings] = []
    measure: Callable[[Any], Readings] | None = None
    for i, (value, swept) in enumerate(zip(values, configs, strict=True)):
        device = choose_device(swept.platform)
        with precision(swept.dtype, swept.matmul_precision), jax.default_device(device), without_alarms():
            if measure is None or _program(swept) != _program(configs[i - 1]):
                measure = _autonomous(swept) if source == ZEROS else _on_task(swept)
            rows.append(measure(initial_params(swept)))
        on_value(f"{key}={value}: {_describe_row(rows[-1])}")
    names = [name for name in rows[0] if all(name in row for row in rows)]
    records = {name: _stacked([row[name] for row in rows]) for name in names}
    out.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(out / "sweep.npz", key=key, values=np.array(values), **records)  # type: ignore[arg-type]
    edge = stability_edge(config, key) if source == ZEROS else None
    picture = plot_sweep(key, values, records, edge, configs[0].flow.source)
    return save_figures({"sweep": picture}, out, (form,))[0]


def _stacked(rows: list[np.ndarray]) -> np.ndarray:
    """Arrays as rows of one; behind shorter ones, of sequences or states of other sizes, NaN."""
    longest = max(row.shape[-1:] for row in rows)
    widths = [[(0, 0)] * (row.ndim - 1) + [(0, longest[0] - row.shape[-1])] if row.ndim else [] for row in rows]
    return np.stack([np.pad(row, width, constant_values=np.nan) if width else row
                     for row, width in zip(rows, widths, strict=True)])  # fmt: skip


def _without(values: dict[str, Any], key: str) -> dict[str, Any]:
    """The config as it is or, where the key is the name of a task or cell, without the settings of the one it has."""
    *sections, last = key.split(".")
    if last == "name":
        inner = values
        for section in sections[:-1]:
            inner = inner[section]
        inner[sections[-1]] = {}
    return values


def _program(config: Config) -> Config:
    """The config without what only decides about initial values: equal ones are measured by the same program."""
    return dataclasses.replace(config, model=dataclasses.replace(config.model, init=Config().model.init))


def _on_task(config: Config) -> Callable[[Any], Readings]:
    names = tuple(name for name in config.flow.instruments if name in SWEPT)
    if not names:
        raise ArgumentError(
            f"instruments={','.join(map(str, config.flow.instruments))}: a sweep takes {listing(SWEPT)}"
        )
    config = dataclasses.replace(config, flow=dataclasses.replace(config.flow, instruments=names))
    instruments = compiled_instruments(config)

    def measure(params: PyTree) -> Readings:
        readings = dict(jax.device_get(instruments(params)))
        for name in [name for name in readings if name.startswith("adjoint/")]:
            layer = name.removeprefix("adjoint/")
            (lag,), (is_censored,) = horizons(readings[name][None])
            readings[f"horizon/{layer}"], readings[f"{CENSORED}/{layer}"] = np.asarray(lag), np.asarray(is_censored)
            readings[f"slope/{layer}"] = np.asarray(flow.log_slope(jnp.asarray(readings[name])))
        return readings

    return measure


def _autonomous(config: Config) -> Callable[[Any], Readings]:
    time, cell, options = config.task.time, config.model.cell, config.flow
    if config.model.bidirectional:
        raise ArgumentError(f"input={ZEROS}: allowed for networks of one direction")
    xs = jnp.zeros((1, time, config.input_width), config.dtype)
    place = build_model(config).layers[0][0]

    @jax.jit
    def measure(params: PyTree) -> dict[str, Any]:
        k = min(options.exponents, cell.carry_parts * place.units)
        spectrum = flow.lyapunov_spectrum(
            cell, place.parameters(params), xs, k=k, every=options.interval, warmup=time // 4
        )
        return {f"lyapunov/{place.name}": spectrum.exponents[0]}

    return lambda params: jax.device_get(measure(params))


def stability_edge(config: Config, key: str = GAIN) -> float | None:
    """Where theory has the edge of stability of the resting cell, if a sweep of this key crosses it."""
    model = config.model
    cell = model.cell
    fits = type(cell) is GRU and cell.reset == "after" and cell.activation == "tanh" and not cell.output_gate
    gaussian = key == GAIN and model.init.recurrent == "fan_in_normal" and not model.init.gates
    if not fits or not gaussian or model.init.bias != "zeros":
        return None
    return float(theory.edge_of_stability(0.0))


def plot_sweep(key: str, values: list[str], records: Readings, edge: float | None, source: str = TOTAL) -> Figure:
    """Exponents, gradient horizons and adjoint profiles of every layer, and where theory has the edge of stability."""
    names = [name for kind in ("lyapunov/", "horizon/", "adjoint/") for name in records if name.startswith(kind)]
    numbers = _numbers(values)
    x, line = (np.arange(len(values), dtype=float), "none") if numbers is None else (numbers, "-")
    with house_style():
        picture, axes = figure(len(names), columns=3)
        for ax, name in zip(axes, names, strict=True):
            kind, layer = name.split("/", 1)
            if kind == "adjoint":
                shown = np.unique(np.linspace(0, len(values) - 1, min(len(values), PROFILES)).astype(int))
                draw_profiles(ax, {values[i]: [records[name][i]] for i in shown}, profile_text(name, source))
                ax.set_title(f"{layer} · {key.split('.')[-1]}")
                continue
            if kind == "lyapunov":
                draw_ranks(ax, x, records[name], line)
                ax.axhline(0.0, color=GREY, ls="--", lw=1)
                if edge is not None:
                    label = f"edge of stability in theory, {edge:.3g}"
                    ax.axvline(edge, color=ORANGE, ls="--", lw=1.2, label=label)
                    ax.legend(**OUTSIDE)
                title = f"{layer} · {records[name].shape[1]} largest exponents"
                ax.set(ylabel=r"$\lambda_i$ (nats per step)", title=title)
            else:
                _draw_horizons(ax, x, records[name], records[f"{CENSORED}/{layer}"], line)
                short = profile_text(layer, source).short
                ax.set(title=f"{layer} · {short}" if short else layer, ylim=(0, None))
            ax.set_xlabel(key)
            if numbers is None:
                ax.set_xticks(x, values)
    return picture


def _draw_horizons(ax: Axes, x: np.ndarray, lags: np.ndarray, is_censored: np.ndarray, line: str) -> None:
    """Gradient horizons; those that are only known to be as large or larger have marks of their own."""
    is_censored = is_censored.astype(bool)
    ax.plot(x, lags, ls=line, color=BLUE, lw=1.5)
    ax.plot(x[~is_censored], lags[~is_censored], "o", color=BLUE, ms=4)
    ax.set_ylabel("gradient horizon, 1 % (steps)")
    if is_censored.any():
        ax.plot(x[is_censored], lags[is_censored], "^", color=ORANGE, ms=6, label=at_least(lags[is_censored]))
        ax.legend(**OUTSIDE)


def _numbers(values: list[str]) -> np.ndarray | None:
    try:
        return np.array([float(value) for value in values])
    except ValueError:
        return None


def _describe_row(row: Readings) -> str:
    parts = []
    for name, value in row.items():
        kind, layer = name.split("/", 1)
        if kind == "lyapunov":
            parts.append(f"{layer} lambda_1 {value[0]:.5f}, lambda_{len(value)} {value[-1]:.5f}")
        elif kind == "horizon":
            parts.append(f"1% horizon {'≥ ' if row[f'{CENSORED}/{layer}'] else ''}{int(value)}")
        elif kind == "slope":
            parts.append(f"slope {float(value):.5f} nats per step")
    return "; ".join(parts)
