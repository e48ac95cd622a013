"""A search: members are asked for in batches, each of which learns from the scores of those before it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gru_jax.config import override
from gru_jax.runs.directory import RunDir
from gru_jax.runs.early_stopping import EndReason
from gru_jax.runtime.preemption import StopRequested
from gru_jax.runtime.processes import on_main_process
from gru_jax.settings import flatten
from gru_jax.studies.axes import CMAES, RANDOM, TPE, Point, span_axes
from gru_jax.studies.directory import STUDY_FILE
from gru_jax.studies.runner import RunnerOptions, StudyObserver, StudyRunner
from gru_jax.studies.search_space import check_search
from gru_jax.studies.study import Study
from gru_jax.studies.trials import SearchTrials, TrialResult, import_for

MODULES = {TPE: ("optuna",), CMAES: ("optuna", "cmaes")}
PROBES = 8  # samples that are looked at before anything is written


class SearchRunner(StudyRunner):
    """Runs a search in its directory: a batch of samples is trained as any study is, and tells what to ask for next.

    A sample is repeated over all seeds and folds; its score is the median of their best validation scores, as the
    report has it. Programs and data stay from batch to batch. Which member ends at a rung is decided among all members
    of all batches so far.

    Args: as of `StudyRunner`.
    """

    def __init__(
        self,
        study: Study,
        path: Path,
        options: RunnerOptions,
        observer: StudyObserver = StudyObserver(),  # noqa: B008
        stop_requested: StopRequested = lambda: False,
    ) -> None:
        super().__init__(dataclasses.replace(study, points=()), path, options, observer, stop_requested)
        self._direction = ""  # of the score, once it has been looked at

    def _check(self) -> None:
        """All that can be said before anything is written, by a few samples."""
        study, base = self.study, flatten(self.study.base_config())
        check_search(study)
        for module in MODULES[study.sampling.method]:
            import_for(study.sampling.method, module)
        self._take(span_axes(study.axes, base, study.where, RANDOM, PROBES, study.sampling.seed))
        super()._check()
        first = next(iter(self.members.values()), None)  # none, where a condition holds for few samples
        config = override(study.base_values(), study.changes) if first is None else first.config
        self._direction = config.goal[1]
        self._take([])

    def _run(self) -> None:
        on_main_process(self._begin)
        is_whole = False
        while not is_whole:
            points = on_main_process(self._ask)
            self._take([Point(labels, settings) for labels, settings in points])
            self._run_members()
            is_whole = on_main_process(self._tell)

    def _begin(self) -> None:
        """Have the directory be a study's before anything else is in it."""
        if not (self.directory.path / STUDY_FILE).exists():
            self._start()

    def _take(self, points: Sequence[Point]) -> None:
        """Go on with these points in place of those before."""
        self.study = dataclasses.replace(self.study, points=tuple(points))
        self.members = {member.id: member for member in self.study.members()}
        self._halved = {}

    def _ask(self) -> list[Any]:
        """All points so far, with those of the batch that is next."""
        trials = self._trials()
        trials.begin_batch()
        return [[point.labels, point.settings] for point in trials.points()]

    def _tell(self) -> bool:
        """Finish the trials whose members are done; whether the search is."""
        trials, values = self._trials(), self.study.base_values()
        for number, points in trials.begun().items():
            members = [self.directory.member(self.study.member_of(point, values).id) for point in points]
            trials.tell(number, result_of(members))
        return trials.is_whole()

    def _trials(self) -> SearchTrials:
        return SearchTrials(self.directory.path, self.study, self._direction)


def result_of(members: Sequence[Path]) -> TrialResult:
    """What a sample came to: the median over its members, of which those that diverged are worse than all others.

    Args:
        members: their run directories.
    """
    bests, halved, by_step = [], 0, {}
    for path in members:
        rundir = RunDir(path)
        summary = rundir.read_summary()
        (goal, direction), reason = summary["goal"], summary["end_reason"]
        score, worst = summary["best"]["valid"].get(goal), np.inf if direction == "min" else -np.inf
        is_lost = reason == EndReason.DIVERGED or score is None or np.isnan(score)
        bests.append(worst if is_lost else score)
        halved += reason == EndReason.HALVED
        for step, value in _validations(rundir, goal).items():
            by_step.setdefault(step, []).append(value)
    scores = {step: float(np.median(of_step)) for step, of_step in sorted(by_step.items())}
    return TrialResult(float(np.median(bests)), scores, is_pruned=2 * halved > len(members))


def _validations(rundir: RunDir, goal: str) -> Mapping[int, float]:
    lines = [line for line in rundir.read_metrics() if line["split"] == "valid" and goal in line]
    return {line["step"]: line[goal] for line in lines if np.isfinite(line[goal])}


def runner_of(
    study: Study,
    path: Path,
    options: RunnerOptions,
    observer: StudyObserver = StudyObserver(),  # noqa: B008
    stop_requested: StopRequested = lambda: False,
) -> StudyRunner:
    """What runs a study: a `SearchRunner` where its samples follow from scores, a `StudyRunner` elsewhere.

    Args: as of `StudyRunner`.
    """
    runner = SearchRunner if study.sampling.is_search else StudyRunner
    return runner(study, path, options, observer, stop_requested)
