"""A trace of some training steps, for xprof and Perfetto."""

from __future__ import annotations

import logging
from pathlib import Path

import jax

logger = logging.getLogger(__name__)


class Profile:
    """Traces the steps from `first` to `last`, both counted from 1, into a directory; nothing without them.

    A run that is resumed after `first` traces nothing.

    Args:
        steps: the first and the last step, or None.
        directory: where the trace goes, as `plugins/profile/<time>/`; None where another process traces.
    """

    def __init__(self, steps: tuple[int, int] | None, directory: Path | None) -> None:
        self._marks = [] if steps is None else [steps[0] - 1, steps[1]]
        self._directory, self._running = directory, False

    def next_mark(self, step: int) -> int | None:
        """The step after which tracing begins or ends next."""
        return next((mark for mark in self._marks if mark > step), None)

    def reached(self, step: int) -> None:
        """Begin or end the trace, if this is where; `step` steps are done."""
        if not self._marks or self._directory is None:
            return
        if step == self._marks[0] and not self._running:
            jax.profiler.start_trace(str(self._directory))
            self._running = True
        elif step >= self._marks[1]:
            self.close()

    def close(self) -> None:
        """End the trace, if it is on."""
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
            logger.info("trace of training steps: %s", self._directory)
