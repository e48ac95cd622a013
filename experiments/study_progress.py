"""Progress of a study for people: members done, alive and diverged, the best so far, the time left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from experiments.progress import Progress
from gru_jax.config import plan
from gru_jax.runs.directory import RunDir
from gru_jax.runs.population import DIVERGED, MemberStanding, Wave
from gru_jax.studies.runner import Watcher
from gru_jax.studies.study import Member


class StudyProgress(Watcher):
    """Adds up what the waves of this process tell of themselves."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._standings: dict[str, list[MemberStanding]] = {}  # by wave
        self._total, self._done, self._diverged, self._best = 0, 0, 0, math.nan

    def planned(self, goal: tuple[str, str], done: Sequence[Path], mine: Sequence[Member]) -> None:
        """Count the members, and those that are done."""
        self._goal = goal
        for path in done:
            summary = RunDir(path).read_summary()
            self._diverged += (summary["stopped"] or "").startswith(DIVERGED)
            self._note(summary["best"]["valid"][self._goal[0]])
        self._total, self._done = len(done) + len(mine), len(done) - self._diverged
        steps = sum(plan(member.config).steps for member in mine)
        print(f"{self._total} members, {len(done)} of them done, {steps:,} steps to go", flush=True)
        self._progress = Progress(steps, unit="member-step")

    def told(self, wave: Wave) -> None:
        """Take note of a wave, and show where the study is."""
        if self._progress is None:
            return
        name, new = wave.rundir.path.name, wave.rundir.path.name not in self._standings
        before = 0 if new else self._steps(name, wave)
        self._standings[name] = [MemberStanding(**vars(standing)) for standing in wave.standings]
        after = self._steps(name, wave)
        if new and wave.resumed:
            self._progress.skip(after)
            before = after
        for standing in wave.standings:
            self._note(standing.best_score)
        standings = [standing for of in self._standings.values() for standing in of]
        diverged = sum(standing.diverged for standing in standings)
        ended = sum(s.stopped is not None or s.steps >= wave.plan.steps for s in standings)
        shown = {
            "members": self._total,
            "done": self._done + ended - diverged,
            "alive": self._total - self._done - self._diverged - ended,
            "diverged": self._diverged + diverged,
            f"best_{self._goal[0]}": self._best,
        }
        self._progress.update(self._progress.step + after - before, shown)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._progress is not None:
            self._progress.close()

    def _steps(self, name: str, wave: Wave) -> int:
        """Steps of a wave that need not be done any more."""
        return sum(wave.plan.steps if s.stopped is not None else s.steps for s in self._standings[name])

    def _note(self, score: float | None) -> None:
        if score is not None and not math.isnan(score):
            better = min if self._goal[1] == "min" else max
            self._best = score if math.isnan(self._best) else better(self._best, score)
