"""What the host knows of a member in training: how far it is, how good, and why it ended; stored in checkpoints."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gru_jax.config import LEARNING_RATE, Config
from gru_jax.runtime.files import Json
from gru_jax.settings import resolve
from gru_jax.training.skipping import SKIPPED


class EndReason(enum.StrEnum):
    """Why a training ended before its last step."""

    TARGET = "target"
    PATIENCE = "patience"
    DIVERGED = "diverged"
    HALVED = "halved"


@dataclasses.dataclass
class EarlyStopping:
    """How far a member is, its best validation, and why it ended before its last step.

    Attributes:
        steps: done.
        best_step, best_score, best_loss: of the best validation.
        last_score: of the last one.
        improved_score: of the last one that was an improvement.
        num_bad_evals: validations since then.
        num_plateau_evals: of these, those since the learning rate was lowered.
        num_drops: times that it was lowered, with the schedule plateau.
        num_skipped, num_skipped_in_a_row: steps that were not finite and were skipped, in all, and since the last that
            was not.
        end_reason, end_message: why it ended, a value of `EndReason` and a text; None where it has not.
    """

    steps: int = 0
    best_step: int = 0
    best_score: float | None = None
    best_loss: float | None = None
    last_score: float | None = None
    improved_score: float | None = None
    num_bad_evals: int = 0
    num_plateau_evals: int = 0
    num_drops: int = 0
    num_skipped: int = 0
    num_skipped_in_a_row: int = 0
    end_reason: str | None = None
    end_message: str | None = None

    @property
    def has_ended(self) -> bool:
        """Whether it ended before its last step."""
        return self.end_reason is not None

    def rate_factor(self, config: Config) -> float:
        """What its plateaus have made of the learning rate, as a factor."""
        return max(config.optimizer.drop**self.num_drops, config.optimizer.final) if self.num_drops else 1.0

    def count_step(self, *, is_skipped: bool) -> None:
        """Take note of a training step."""
        self.steps += 1
        self.num_skipped += is_skipped
        self.num_skipped_in_a_row = self.num_skipped_in_a_row + 1 if is_skipped else 0

    def describe_skips(self, first: int, config: Config) -> str:
        """How many steps were skipped, the last of them after step `first`."""
        most = config.train.skip_nonfinite
        return f"after step {first}: not finite and skipped, {self.num_skipped} of {most} steps that may be so far"

    def describe_last_step(self) -> str:
        """That the step which comes next is not finite, and how many were skipped before."""
        skipped = f", after {self.num_skipped} that were skipped, {self.num_skipped_in_a_row} of them right before it"
        return f"step {self.steps + 1} is not finite{skipped if self.num_skipped else ''}"

    def end(self, reason: EndReason, message: str) -> None:
        """End it where it is."""
        self.end_reason, self.end_message = reason.value, message

    def update(self, config: Config, metrics: Mapping[str, float]) -> bool:
        """Take note of a validation, and of whether it ends the training; whether its network is the best so far."""
        name, direction = config.goal
        score, loss, sign = metrics[name], metrics["loss"], 1 if direction == "min" else -1
        sparse_from = config.regularization.sparse_from
        if self.best_score is not None and self.best_step < sparse_from <= self.steps:  # none of those before counts
            self.best_score = self.improved_score = None
        best = None if self.best_score is None else (sign * self.best_score, self.best_loss)
        is_better = best is None or (sign * score, loss) < best
        if is_better:
            self.best_step, self.best_score, self.best_loss = self.steps, score, loss
        if self.improved_score is None or sign * (self.improved_score - score) > config.train.min_delta:
            self.improved_score, self.num_bad_evals, self.num_plateau_evals = score, 0, 0
        else:
            self.num_bad_evals += 1
            self.num_plateau_evals += 1
        if config.optimizer.schedule == "plateau" and self.num_plateau_evals >= config.optimizer.plateau_patience:
            self.num_drops, self.num_plateau_evals = self.num_drops + 1, 0
        self.last_score = score
        self._end_if_due(config)
        return is_better

    def reconsider(self, config: Config) -> None:
        """Go on where what ended it is no reason any more: with a config that ends later, outside of its study."""
        if self.end_reason in (EndReason.TARGET, EndReason.PATIENCE, EndReason.HALVED):
            self.end_reason = self.end_message = None
            self._end_if_due(config)

    def _end_if_due(self, config: Config) -> None:
        """End it where its last validation says so."""
        score, train = self.last_score, config.train
        if score is None or self.steps < config.regularization.sparse_from:
            return
        reached = train.target is not None and (
            score <= train.target if config.goal[1] == "min" else score >= train.target
        )
        if reached:
            self.end(EndReason.TARGET, f"reached the target {train.target:g}")
        elif train.patience is not None and self.num_bad_evals >= train.patience:
            self.end(EndReason.PATIENCE, f"no improvement in {train.patience} validations")


class MetricWindow:
    """Means of the training metrics between lines of `metrics.jsonl`; `pending` is what came since the last line.

    The learning rate is that of a line's own step. Steps that were skipped are counted, and have no part in the means.
    """

    def __init__(self, every: int, pending: Mapping[str, Sequence[float]] | None = None) -> None:
        self.every = every
        self.pending = {str(name): [float(value) for value in values] for name, values in (pending or {}).items()}

    def add(self, step: int, metrics: Mapping[str, np.floating], *, last: bool) -> dict[str, float] | None:
        """Note the metrics of a step; the means since the last line where one is due, as it is at the last step."""
        is_skipped = bool(metrics.get(SKIPPED, False))
        for name, value in metrics.items():
            if not is_skipped or name in (SKIPPED, LEARNING_RATE):
                self.pending.setdefault(name, []).append(float(value))
        if step % self.every and not last:
            return None
        means = {name: float(np.mean(values, dtype=np.float64)) for name, values in sorted(self.pending.items())}
        if LEARNING_RATE in means:
            means[LEARNING_RATE] = self.pending[LEARNING_RATE][-1]
        if SKIPPED in means:
            means[SKIPPED] = sum(self.pending[SKIPPED])
        self.pending = {}
        return means


@dataclasses.dataclass
class CheckpointMetadata:
    """What is stored beside the states of a checkpoint, to go on after a kill.

    Attributes:
        step: steps done.
        seconds: spent training, over all processes.
        metric_lines, recordings: lines of metrics and recordings of the instruments on disk.
        best_saved: the step at which the best networks were saved.
        data_position: where the data stand.
        members, pending_metrics: how far each member is, and its metrics since its last line.
    """

    step: int
    seconds: float
    metric_lines: int
    recordings: int
    best_saved: int
    data_position: dict[str, Any] | None
    members: list[EarlyStopping]
    pending_metrics: list[dict[str, list[float]]]

    @classmethod
    def from_json(cls, content: Json, count: int) -> CheckpointMetadata:
        """The inverse of `dataclasses.asdict`, of so many members.

        Raises:
            ValueError, TypeError, KeyError: it is not from there.
        """
        members = [resolve(EarlyStopping, member, {}, "member") for member in content["members"]]
        pending = [MetricWindow(1, values).pending for values in content["pending_metrics"]]
        made = cls(**{**content, "members": members, "pending_metrics": pending})
        whole = (made.step, made.metric_lines, made.recordings, made.best_saved)
        fits = all(type(number) is int for number in whole) and isinstance(made.data_position, dict | None)
        if not fits or not len(members) == len(pending) == count or dataclasses.asdict(made) != content:
            raise ValueError(f"its metadata are not those of {count} members")
        return made
