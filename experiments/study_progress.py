"""Progress of a study for people: members done, alive and diverged, the best so far, the time left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from experiments.progress import ProgressBar
from gru_jax.config import plan
from gru_jax.runs.directory import RunDir
from gru_jax.runs.early_stopping import EarlyStopping, EndReason
from gru_jax.runs.population import PopulationRun
from gru_jax.studies.runner import StudyObserver
from gru_jax.studies.study import StudyMember


class StudyProgress(StudyObserver):
    """Adds up what the waves of this process tell of themselves: members done, alive and diverged, the best so far."""

    def __init__(self) -> None:
        self._bar: ProgressBar | None = None
        self._members: dict[str, list[EarlyStopping]] = {}  # by wave
        self._total, self._done, self._diverged, self._best = 0, 0, 0, math.nan

    def planned(self, goal: tuple[str, str], done: Sequence[Path], mine: Sequence[StudyMember]) -> None:
        """Count the members, and those that are done: anew for every batch of a search."""
        self.close()
        self._goal, self._members, self._diverged = goal, {}, 0
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
