"""Progress for people: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from tqdm import tqdm

from gru_jax.runs.loop import TrainingLoop
from gru_jax.runs.pace import Pace

SECONDS_BETWEEN_LINES = 5.0


class ProgressBar:
    """Shows the steps done, their rate and the current metrics.

    Args:
        total: steps in all.
        done: steps done before.
        unit: what is counted.
        shown: whether anything is shown at all.
    """

    def __init__(self, total: int, done: int = 0, unit: str = "step", shown: bool = True) -> None:
        self.total, self.unit, self.pace = total, unit, Pace(done)
        self._last_line = time.monotonic()
        self._metrics: dict[str, float | int] = {}
        self._shown = shown
        on_terminal = shown and sys.stderr.isatty()
        self._bar = tqdm(total=total, initial=done, unit=unit, dynamic_ncols=True) if on_terminal else None

    @property
    def step(self) -> int:
        """Steps done."""
        return self.pace.step

    def skip(self, steps: int) -> None:
        """Count steps that an earlier process did."""
        self.pace.skip(steps)
        if self._bar is not None:
            self._bar.initial += steps
            self._bar.update(steps)

    def update(self, step: int, metrics: Mapping[str, float | int]) -> None:
        """Tell how far training is, and metrics that are new."""
        self._metrics.update(metrics)
        if self._bar is not None:
            self._bar.set_postfix({k: f"{v:.4g}" for k, v in self._metrics.items()}, refresh=False)
            self._bar.update(step - self.step)
        self.pace.update(step)
        now = time.monotonic()
        if self._bar is None and self._shown and now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            numbers = "  ".join(f"{k} {v:.4g}" for k, v in self._metrics.items())
            rate = self.pace.rate()
            left = f"  {(self.total - step) / rate:.0f} s left" if rate and self.pace.is_warm else ""
            print(f"{self.unit} {step}/{self.total}  {rate:.1f} {self.unit}s/s{left}  {numbers}", flush=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.close()


class RunProgress:
    """Shows how a run goes.

    Args:
        shown: whether anything is shown at all.
    """

    def __init__(self, shown: bool = True) -> None:
        self._shown = shown
        self._bar: ProgressBar | None = None

    def __call__(self, run: TrainingLoop) -> None:
        """Take note of where a run is."""
        if self._bar is None:
            self._bar = ProgressBar(run.plan.steps, run.step, shown=self._shown)
        self._bar.update(run.step, run.latest_metrics)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.close()
