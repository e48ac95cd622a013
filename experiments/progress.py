"""Progress for people: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from gru_jax.config import plan
from gru_jax.runs.directory import RunDir
from gru_jax.runs.early_stopping import EarlyStopping, EndReason
from gru_jax.runs.loop import TrainingLoop
from gru_jax.runs.pace import Pace
from gru_jax.runs.population import PopulationRun
from gru_jax.studies.runner import StudyObserver
from gru_jax.studies.study import StudyMember

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
            left = f"  {(self.total - step) / rate:.0f} s left" if rate else ""
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


class StudyProgress(StudyObserver):
    """Adds up what the waves of this process tell of themselves: members done, alive and diverged, the best so far."""

    def __init__(self) -> None:
        self._bar: ProgressBar | None = None
        self._members: dict[str, list[EarlyStopping]] = {}  # by wave
        self._total, self._done, self._diverged, self._best = 0, 0, 0, math.nan

    def planned(self, goal: tuple[str, str], done: Sequence[Path], mine: Sequence[StudyMember]) -> None:
        """Count the members, and those that are done."""
        self._goal = goal
        for path in done:
            summary = RunDir(path).read_summary()
            self._diverged += summary["end_reason"] == EndReason.DIVERGED
            self._note(summary["best"]["valid"][self._goal[0]])
        self._total, self._done = len(done) + len(mine), len(done) - self._diverged
        steps = sum(plan(member.config).steps for member in mine)
        print(f"{self._total} members, {len(done)} of them done, {steps:,} steps to go", flush=True)
        self._bar = ProgressBar(steps, unit="member-step")

    def progressed(self, run: PopulationRun) -> None:
        """Take note of a wave, and show where the study is."""
        if self._bar is None:
            return
        name, is_new = run.rundir.path.name, run.rundir.path.name not in self._members
        before = 0 if is_new else self._steps(name, run)
        self._members[name] = [EarlyStopping(**vars(member)) for member in run.members]
        after = self._steps(name, run)
        if is_new and run.resumed:
            self._bar.skip(after)
            before = after
        for member in run.members:
            self._note(member.best_score)
        members = [member for of_wave in self._members.values() for member in of_wave]
        diverged = sum(member.end_reason == EndReason.DIVERGED for member in members)
        ended = sum(member.has_ended or member.steps >= run.plan.steps for member in members)
        counts = {
            "members": self._total,
            "done": self._done + ended - diverged,
            "alive": self._total - self._done - self._diverged - ended,
            "diverged": self._diverged + diverged,
            f"best_{self._goal[0]}": self._best,
        }
        self._bar.update(self._bar.step + after - before, counts)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.close()

    def _steps(self, name: str, run: PopulationRun) -> int:
        """Steps of a wave that need not be done any more."""
        return sum(run.plan.steps if member.has_ended else member.steps for member in self._members[name])

    def _note(self, score: float | None) -> None:
        if score is not None and not math.isnan(score):
            better = min if self._goal[1] == "min" else max
            self._best = score if math.isnan(self._best) else better(self._best, score)
