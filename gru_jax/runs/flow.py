"""The gradient flow of a network: of a run's checkpoint, or freshly initialised."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gru_jax import flow
from gru_jax.config import Config, traced_hyperparameters
from gru_jax.errors import ArgumentError
from gru_jax.runs.checkpoints import BEST, LATEST
from gru_jax.runs.directory import RunDir
from gru_jax.runs.recorder import FlowRecorder
from gru_jax.runs.stored import restore_state
from gru_jax.runtime.devices import choose_device
from gru_jax.tasks import split_key
from gru_jax.training.instruments import build_instruments
from gru_jax.training.step import Trainer

INIT = "init"
DIGITS = 18  # of a step
Records = dict[str, np.ndarray]


def initial_params(config: Config) -> Any:
    """The parameters that a run of this config starts from."""
    return Trainer(config).init(config.seed, traced_hyperparameters(config)).params


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


def measure_network(config: Config, step: int, params: Any, out: Path) -> Records:
    """Measure all configured instruments on validation data; the records, as they are in `out/flow.npz`."""
    rundir = RunDir(out)
    recorder = FlowRecorder(config, Trainer(config).plan, rundir, compiled_instruments(config))
    recorder.record(step, params, end=True)
    out.mkdir(parents=True, exist_ok=True)
    recorder.write()
    return rundir.read_flow()


def describe_records(records: Mapping[str, np.ndarray]) -> list[str]:
    """The last record in words, a few lines for each layer."""
    lines = []
    for name in (key for key in records if key.startswith("adjoint/")):
        layer, profile = name.split("/", 1)[1], jnp.asarray(records[name][-1])
        lines += [f"{layer}:", f"  adjoint: {_describe_profile(profile)}"]
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
        values = records[name][-1]
        lines.append(f"{name.split('/', 1)[1]}: spectral radius of a step {values.min():.4f} to {values.max():.4f}")
    return lines


def _describe_profile(profile: jax.Array) -> str:
    def lag(value: jax.Array) -> str:
        return str(int(value)) if int(value) < len(profile) else f"beyond {len(profile) - 1}"

    exploded = int(flow.explosion(profile))
    explodes = "" if exploded == len(profile) else f"; exceeds 100x at lag {exploded}"
    return (
        f"falls to 1/e at lag {lag(flow.horizon(profile, float(np.exp(-1))))}, to 1% at lag "
        f"{lag(flow.horizon(profile, 0.01))}{explodes}; slope {float(flow.log_slope(profile)):.5f} nats per step"
    )
