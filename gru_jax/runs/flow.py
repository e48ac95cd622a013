"""The gradient flow of a network: of a run's checkpoint, or freshly initialised."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from matplotlib.figure import Figure

from gru_jax import flow
from gru_jax.config import FLOW_INSTRUMENTS, Config, load, traced_hyperparameters
from gru_jax.config.checkpoint_names import BEST, LATEST
from gru_jax.errors import ArgumentError, check_choice
from gru_jax.plotting.flow import plot_records, profile_text, source_of
from gru_jax.runs.data_facts import check_same_data
from gru_jax.runs.directory import RunDir
from gru_jax.runs.recorder import FlowRecorder
from gru_jax.runs.stored import open_run, restore_state
from gru_jax.runs.weights import starting_point
from gru_jax.runtime.devices import choose_device, precision, without_alarms
from gru_jax.tasks import split_key
from gru_jax.training.instruments import LIVE, LIVE_STEP, RECORD_AXES, build_instruments
from gru_jax.training.step import Trainer
from gru_jax.user_code import Name

INIT = "init"
DIGITS = 18  # of a step
Records = dict[str, np.ndarray]


def initial_params(config: Config) -> Any:
    """The parameters that a run of this config starts from."""
    return Trainer(config).init(config.seed, traced_hyperparameters(config), starting_point(config).weights).params


def params_of_run(rundir: RunDir, config: Config, step: str = LATEST) -> tuple[int, Any]:
    """The step and the parameters of a run's checkpoint, or of its start.

    Args:
        rundir: of the run.
        config: its config.
        step: best, latest, init or a whole number.

    Raises:
        UsageError: there is no such checkpoint.
    """
    if step == INIT:
        return 0, initial_params(config)
    if step not in (BEST, LATEST) and not (step.isdecimal() and len(step) <= DIGITS):
        raise ArgumentError(f"step={step}: allowed are {BEST}, {LATEST}, {INIT} or a step")
    number = int(step) if step.isdecimal() else None
    kind = BEST if step == BEST else LATEST
    state = restore_state(rundir, config, choose_device(config.platform), kind, number)
    return int(state.step), state.params


def compiled_instruments(config: Config) -> Callable[[Any], Mapping[str, Any]]:
    """The configured instruments on validation data, compiled, as a function of the parameters."""
    data = jax.device_put(config.task.load("valid"))
    measure = jax.jit(build_instruments(config, Trainer(config).model, split_key("valid", 0)))
    return lambda params: measure(params, data)


@dataclasses.dataclass(frozen=True)
class NetworkFlow:
    """The gradient flow of a network at one moment.

    Attributes:
        config: of the network.
        step: of the training; 0 for a network as it is initialised.
        records: what the instruments measured, as the arrays of a run's `flow.npz`, with one recording.
    """

    config: Config
    step: int
    records: Records

    @property
    def table(self) -> pl.DataFrame:
        """A row for each number, as of `gru_jax.runs.run.Run.flow`."""
        return table_of_records(self.records)

    def describe(self) -> list[str]:
        """It in words, a few lines for each layer."""
        return describe_records(self.records, reads_many=self.config.model.readout != "last")

    def plot(self, name: str = "gradient_flow") -> Figure:
        """One of its pictures, which notebooks show: `gradient_flow`, `gates`, `lyapunov`, ….

        Raises:
            UsageError: nothing was measured for a picture of that name.
        """
        drawn = plot_records(self.records, self.config.model)
        check_choice("name", name, drawn)
        return drawn[name]


def measure_network(
    config: Config, rundir: RunDir | None = None, step: str = LATEST, out: Path | None = None
) -> NetworkFlow:
    """Measure all configured instruments on validation data.

    Args:
        config: of the network.
        rundir: of the run that trained it; None for the network as it is initialised.
        step: of the run, see `params_of_run`.
        out: where the records go too, as `flow.npz`; None for nowhere.
    """
    if rundir is not None:
        check_same_data(rundir, config)
    device = choose_device(config.platform)
    with precision(config.dtype, config.matmul_precision), jax.default_device(device), without_alarms():
        reached, params = (0, initial_params(config)) if rundir is None else params_of_run(rundir, config, step)
        recorder = FlowRecorder(
            config, Trainer(config).plan, RunDir("." if out is None else out), compiled_instruments(config)
        )
        recorder.record(reached, params, end=True)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        recorder.write()
    return NetworkFlow(config, reached, recorder.arrays())


def measure_flow(
    what: str | os.PathLike[str] | Config | Mapping[str, Any],
    step: str | int = LATEST,
    instruments: Sequence[Name] | None = None,
) -> NetworkFlow:
    """Measure the gradient flow of a run's network, or of one as it is initialised.

    Args:
        what: a run or its directory, or the config of a network that is not trained.
        step: of a run: best, latest, init or a step.
        instruments: names of instruments, or functions of your own; None for all that fit the cell.

    Raises:
        UsageError: there is no such run, checkpoint or instrument, or data are missing.
    """
    is_run = isinstance(what, str | os.PathLike)
    rundir, config = open_run(what) if is_run else (None, load(what))
    wanted = fitting_instruments(config) if instruments is None else instruments
    config = load({**config.to_dict(), "flow": {**config.to_dict()["flow"], "instruments": wanted, "every": 1}})
    return measure_network(config, rundir, str(step))


def fitting_instruments(config: Config, names: Sequence[str] = FLOW_INSTRUMENTS) -> list[str]:
    """The instruments that can look at the cell of a config."""
    return [name for name in names if name != "parameters" or config.model.cell.affine]


def table_of_records(records: Mapping[str, np.ndarray]) -> pl.DataFrame:
    """The arrays of a `flow.npz` as a table, a row for each number.

    Its columns are `step`; `reading`, as `adjoint/layer_0`; `index` into what a recording consists of, flat, which for
    adjoints is the lag; `value`; and, of adjoints, `source`, whose gradient they are: total, sampled or last.
    """
    schema = {"step": pl.Int64, "reading": pl.String, "index": pl.Int64, "value": pl.Float64, "source": pl.String}
    tables = [pl.DataFrame(schema=schema)]
    for reading, values in records.items():
        if reading in (*RECORD_AXES, "step", LIVE_STEP):
            continue
        steps = records[LIVE_STEP if reading.startswith(LIVE) else "step"]
        flat = values.reshape(len(steps), -1)
        rows, columns = np.indices(flat.shape).reshape(2, -1)
        source = source_of(records) if reading.removeprefix(LIVE).startswith("adjoint") else None
        content = {"step": steps[rows], "reading": [reading] * flat.size, "index": columns, "value": flat.ravel(),
                   "source": [source] * flat.size}  # fmt: skip
        tables.append(pl.DataFrame(content).cast(schema))  # type: ignore[arg-type]
    return pl.concat(tables)


def describe_records(records: Mapping[str, np.ndarray], *, reads_many: bool = False) -> list[str]:
    """The last record in words, a few lines a layer, of a network whose loss reads many steps or the last one."""
    lines = []
    for name in (key for key in records if key.startswith("adjoint/")):
        layer, profile = name.split("/", 1)[1], jnp.asarray(records[name][-1])
        short = profile_text(layer, source_of(records)).short or "whole loss" * reads_many
        lines += [f"{layer}:", f"  adjoint{f' ({short})' * bool(short)}: {_describe_profile(profile)}"]
    for name in (key for key in records if key.startswith("lyapunov/")):
        values, time = records[name][-1], len(records["lag"])
        condition = (values[0] - values[-1]) * time / np.log(10)
        lines.append(
            f"{name.split('/', 1)[1]}: Lyapunov exponents {', '.join(f'{v:.4f}' for v in values[:4])} ... "
            f"{values[-1]:.4f} nats per step; condition over {time} steps 10^{condition:.1f} in these directions"
        )
    for name in (key for key in records if key.startswith("time_scales/")):
        low, middle, high = np.quantile(records[name][-1], [0.1, 0.5, 0.9])
        lines.append(f"{name.split('/', 1)[1]}: time scales of units {low:.3g}, {middle:.3g}, {high:.3g} steps "
                     "(quantiles 0.1, 0.5, 0.9)")  # fmt: skip
    for name in (key for key in records if key.startswith("spectral_radius/")):
        radii = records[name][-1]
        radii = radii[np.isfinite(radii)]  # where no sequence has a step there is none
        if radii.size:
            lines.append(f"{name.split('/', 1)[1]}: spectral radius of a step {radii.min():.4f} to {radii.max():.4f}")
    return lines


def _describe_profile(profile: jax.Array) -> str:
    reached = int((~jnp.isnan(profile)).sum())

    def lag(value: jax.Array) -> str:
        return str(int(value)) if int(value) < len(profile) else f"≥ {reached}"

    exploded = int(flow.explosion(profile))
    explodes = "" if exploded == len(profile) else f"; exceeds 100x at lag {exploded}"
    return (
        f"falls to 1/e at lag {lag(flow.horizon(profile, float(np.exp(-1))))}, to 1% at lag "
        f"{lag(flow.horizon(profile, 0.01))}{explodes}; slope {float(flow.log_slope(profile)):.5f} nats per step"
    )
