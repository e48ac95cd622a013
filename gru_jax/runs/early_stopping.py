"""What the host knows of a network in training, beside its numbers: how far it is, how good, and whether to stop."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from gru_jax.config import Config


@dataclasses.dataclass
class Standing:
    """What must be remembered to go on after a kill; stored with every checkpoint.

    Attributes:
        best_step, best_score: of the best validation.
        stale: validations since then.
        seconds: spent training, over all processes.
        stopped: why training ended before its last step.
    """

    best_step: int = 0
    best_score: float | None = None
    stale: int = 0
    seconds: float = 0.0
    stopped: str | None = None

    def judge(self, config: Config, step: int, metrics: Mapping[str, float]) -> bool:
        """Take note of a validation, and of whether it ends the training; whether it is the best so far."""
        name, direction = config.task.goal
        score, best, train = metrics[name], self.best_score, config.train
        better = best is None or (score < best if direction == "min" else score > best)
        if better:
            self.best_step, self.best_score, self.stale = step, score, 0
        else:
            self.stale += 1
        if train.target is not None and (score <= train.target if direction == "min" else score >= train.target):
            self.stopped = f"reached the target {train.target:g}"
        elif train.patience is not None and self.stale >= train.patience:
            self.stopped = f"no improvement in {train.patience} validations"
        return better

    def summary(
        self, config: Config, steps: int, final: Mapping[str, Any], best: Mapping[str, Any], parameters: int
    ) -> dict[str, Any]:
        """The content of `summary.json`, but for the memory.

        Args:
            config: the config.
            steps: done.
            final, best: metrics of the last and of the best network, by split.
            parameters: trained numbers.
        """
        return {
            "goal": list(config.task.goal),
            "baseline": dict(config.task.baseline),
            "final": {"step": steps, **final},
            "best": {"step": self.best_step, **best},
            "steps": steps,
            "stopped": self.stopped,
            "seconds": round(self.seconds, 3),
            "steps_per_second": round(steps / max(self.seconds, 1e-9), 3),
            "parameters": parameters,
        }


AnyStanding = TypeVar("AnyStanding", bound=Standing)


def read_standing(kind: type[AnyStanding], fields: Mapping[str, Any]) -> AnyStanding:
    """The inverse of `dataclasses.asdict`.

    Raises:
        TypeError, ValueError: it is not from there.
    """
    made = kind(**fields)
    kinds = {"best_score": (int, float, type(None)), "stopped": (str, type(None)), "seconds": (int, float)}
    for name, value in fields.items():
        if not isinstance(value, kinds.get(name, int)):
            raise ValueError(f"{name} is {value!r}")
    return made


class TrainLog:
    """Means of the training metrics between lines of `metrics.jsonl`.

    Args:
        every: steps between lines.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self._pending: dict[str, list[Any]] = {}

    def add(self, step: int, metrics: Mapping[str, np.floating], *, last: bool) -> dict[str, float] | None:
        """Note the metrics of a step; the means since the last line where one is due, as it is at the last step."""
        for name, value in metrics.items():
            self._pending.setdefault(name, []).append(value)
        if step % self.every and not last:
            return None
        means = {name: float(np.mean(values, dtype=np.float64)) for name, values in sorted(self._pending.items())}
        self._pending.clear()
        return means

    def to_host(self) -> dict[str, list[float]]:
        """What was noted since the last line, as JSON."""
        return {name: [float(value) for value in values] for name, values in self._pending.items()}

    @classmethod
    def from_host(cls, every: int, pending: Mapping[str, Sequence[float]]) -> TrainLog:
        """The inverse of `to_host`."""
        log = cls(every)
        log._pending = {str(name): [float(value) for value in values] for name, values in pending.items()}
        return log
