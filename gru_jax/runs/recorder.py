"""What the gradient-flow instruments recorded in a run, and the file it goes to."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from gru_jax.config import Config, Plan
from gru_jax.errors import UsageError
from gru_jax.flow.adjoint import QUANTILES
from gru_jax.flow.instruments import Options
from gru_jax.runs.directory import RunDir
from gru_jax.training.instruments import LIVE, LIVE_STEP, RECORD_AXES

logger = logging.getLogger(__name__)
Measure = Callable[[Any], Mapping[str, Any]]


class FlowRecorder:
    """Readings by name, a row for each recorded step; those of the training step itself have steps of their own.

    Args:
        config: the config.
        plan: its durations.
        rundir: the run's directory.
        measure: the compiled instruments, as a function of the parameters.
    """

    def __init__(self, config: Config, plan: Plan, rundir: RunDir, measure: Measure) -> None:
        self.config, self.plan, self.rundir, self.measure = config, plan, rundir, measure
        self.readings: dict[str, list[np.ndarray]] = {}
        self.seconds: list[float] = []  # of each recording in this process; the first one compiles

    @property
    def count(self) -> int:
        """Recordings so far, those of training steps among them."""
        return sum(len(self.readings.get(name, [])) for name in ("step", LIVE_STEP))

    def restore(self, count: int) -> None:
        """Take up what an earlier process recorded, which were so many; that some are lost is said."""
        self.readings = {k: list(v) for k, v in self.rundir.read_flow().items() if k not in RECORD_AXES}
        if self.count < count:
            logger.warning(
                "%s: %s of %s recordings are there, the others are lost", self.rundir.flow, self.count, count
            )

    def record(self, step: int, params: PyTree, *, end: bool = False) -> None:
        """Measure after `step` steps, if a recording is due there, as it is at the end, and not yet made."""
        every, made = self.plan.flow_every, self.readings.get("step", [])
        if not every or (step % every and not end) or (made and made[-1] == step):
            return
        began = time.monotonic()
        readings = jax.device_get(self.measure(params))
        self._add({"step": np.int64(step), **readings})
        self.seconds.append(time.monotonic() - began)

    def record_live(self, first: int, count: int, readings: Mapping[str, np.ndarray]) -> None:
        """Keep what `count` training steps from `first` on measured of themselves, a row each, where it is due."""
        for i in range(count if readings else 0):
            if (first + i) % self.config.flow.live == 0:
                rows = {f"{LIVE}{name}": value[i] for name, value in readings.items()}
                self._add({LIVE_STEP: np.int64(first + i), **rows})

    def arrays(self) -> dict[str, np.ndarray]:
        """All recordings, as they stand in the run's file."""
        arrays = {name: np.stack(values) for name, values in self.readings.items() if values}
        return {**arrays, **dict(zip(RECORD_AXES, self._axes(), strict=True))}

    def write(self) -> None:
        """Replace the run's file, if there is anything to tell."""
        if self.readings:
            self.rundir.write_flow(self.arrays())

    def overhead(self, training_seconds: float) -> str:
        """A line on what the recordings of this process cost."""
        total = sum(self.seconds)
        share = total / max(training_seconds, 1e-9)
        count = f"{len(self.seconds)} recording{'s' if len(self.seconds) != 1 else ''}"
        return f"gradient flow: {count}, {total:.1f} s with compilation, {share:.1%} of the run"

    def _add(self, row: Mapping[str, object]) -> None:
        for name, value in row.items():
            array = np.asarray(value)
            if np.iscomplexobj(array):
                raise UsageError(f"flow.instruments: {name} is complex; needed are real numbers")
            half = array.dtype.kind not in "biuf"  # bfloat16, which NumPy's files do not know
            self.readings.setdefault(name, []).append(array.astype(np.float32) if half else array)

    def _axes(self) -> tuple[np.ndarray, ...]:
        bins = next((v[0].shape[-1] for k, v in self.readings.items() if k.startswith("gates/")), 0)
        options = Options(matrices=self.config.flow.matrices)
        time = self.config.task.time
        edges = np.linspace(0.0, 1.0, bins + 1)
        matrices = np.asarray(options.times(time))
        return np.arange(time), np.asarray(QUANTILES), edges, matrices, np.asarray(self.config.flow.source)
