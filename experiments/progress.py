"""Progress for people: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 5.0
LEAST_SECONDS = 1.0  # that a rate is measured over


class Progress:
    """Shows the steps done, their rate and the current metrics.

    Args:
        total: steps of the run.
        done: steps done before.
        unit: what is counted.
        shown: whether anything is shown at all.
    """

    def __init__(self, total: int, done: int = 0, unit: str = "step", shown: bool = True) -> None:
        self.total, self.step, self.unit = total, done, unit
        self._first, self._start = done, time.monotonic()
        self._warm: tuple[int, float] | None = None  # after the first call, which compiles
        self._last_line = self._start
        self._metrics: dict[str, float | int] = {}
        on_terminal = shown and sys.stderr.isatty()
        self._shown = shown
        self._bar = tqdm(total=total, initial=done, unit=unit, dynamic_ncols=True) if on_terminal else None

    def rate(self) -> float:
        """Steps per second of this process so far; without the first call, once there have been a few."""
        now, first, start = time.monotonic(), self._first, self._start
        if self._warm is not None and now - self._warm[1] > LEAST_SECONDS:
            first, start = self._warm
        return (self.step - first) / max(now - start, 1e-9)

    def skip(self, steps: int) -> None:
        """Count steps that an earlier process did."""
        self._first += steps
        self.step += steps
        self._warm = None
        if self._bar is not None:
            self._bar.initial += steps
            self._bar.update(steps)

    def update(self, step: int, metrics: Mapping[str, float | int]) -> None:
        """Tell how far training is, and metrics that are new."""
        self._metrics.update(metrics)
        if self._warm is None and step > self._first:
            self._warm = step, time.monotonic()
        if self._bar is not None:
            self._bar.set_postfix({k: f"{v:.4g}" for k, v in self._metrics.items()}, refresh=False)
            self._bar.update(step - self.step)
            self.step = step
            return
        self.step = step
        now = time.monotonic()
        if self._shown and now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            numbers = "  ".join(f"{k} {v:.4g}" for k, v in self._metrics.items())
            rate = self.rate()
            left = f"  {(self.total - step) / rate:.0f} s left" if rate else ""
            print(f"{self.unit} {step}/{self.total}  {rate:.1f} {self.unit}s/s{left}  {numbers}", flush=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.close()
