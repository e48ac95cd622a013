"""How fast a training goes."""

from __future__ import annotations

import time

LEAST_SECONDS = 1.0  # that a rate is measured over


class Pace:
    """Measures the steps per second of this process, without its first call, which compiles.

    Args:
        done: steps done before.
    """

    def __init__(self, done: int = 0) -> None:
        self.step = done
        self._first, self._start = done, time.monotonic()
        self._warm: tuple[int, float] | None = None  # after the first call

    def update(self, step: int) -> None:
        """Take note of how far training is."""
        if self._warm is None and step > self._first:
            self._warm = step, time.monotonic()
        self.step = step

    def skip(self, steps: int) -> None:
        """Count steps that an earlier process did."""
        self._first += steps
        self.step += steps
        self._warm = None

    @property
    def is_warm(self) -> bool:
        """Whether enough has been measured since the first call."""
        return self._warm is not None and time.monotonic() - self._warm[1] > LEAST_SECONDS

    def rate(self) -> float:
        """Steps per second of this process so far; without the first call, once there have been a few."""
        now, first, start = time.monotonic(), self._first, self._start
        if self._warm is not None and self.is_warm:
            first, start = self._warm
        return (self.step - first) / max(now - start, 1e-9)
