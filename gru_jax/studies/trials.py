"""The trials of a search: asked for in batches, kept as an Optuna study in a journal file."""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gru_jax.errors import UsageError, import_extra, in_one_line
from gru_jax.settings import flatten
from gru_jax.studies.axes import CMAES, REPEATS, TPE, Axis, Point, holds, points_of, with_axes
from gru_jax.studies.search_space import check_search, distribution_of, param_at, suggest, unit_of, value_of
from gru_jax.studies.study import Study

JOURNAL = "optuna.journal"
NAME = "search"
"""The name of the study in its journal."""
BATCH = "batch"  # of a trial, the number of the first of its batch
RETRIES = 100  # for a sample that fulfils the condition on members and was not asked for before
STARTUP = 8  # trials at least that are random before densities are estimated
SPREAD = 0.25  # of the first generation, as a share of each range; Hansen's recommendation, arXiv:1604.00772


class TrialResult(NamedTuple):
    """What a trial came to.

    Attributes:
        value: its score, not NaN.
        scores: by step, its validations.
        is_pruned: whether it did not get beyond a rung.
    """

    value: float
    scores: Mapping[int, float]
    is_pruned: bool


class SearchTrials:
    """The trials of a search, in the journal of its directory.

    What is asked for next follows from the trials that are finished, the seed, and how many they are: a process that is
    killed and started again asks for the same.

    Args:
        folder: the directory of the study, which this process alone writes to.
        study: what varies, and how samples are chosen.
        direction: of the score, min or max.

    Raises:
        UsageError: Optuna is not installed, the axes are not those of the search so far, or not for this method.
    """

    def __init__(self, folder: Path, study: Study, direction: str) -> None:
        self.study, self.direction = study, direction
        self.base = with_axes(study.axes, flatten(study.base_config()), study.where)
        check_search(study)
        self._optuna = import_for(study.sampling.method, "optuna")
        path = folder / JOURNAL
        _mend(path)
        try:
            with self._quiet():
                journal = self._optuna.storages.journal.JournalFileBackend(str(path))
                self._storage = self._optuna.storages.JournalStorage(journal)
                names = [study.study_name for study in self._storage.get_all_studies()]
                if NAME not in names:
                    self._storage.create_new_study([self._direction], NAME)
                self._id = self._storage.get_study_id_from_name(NAME)
                self._check_kept(path)
        except (KeyError, ValueError, TypeError, AttributeError, AssertionError) as error:
            raise UsageError(f"{path}: damaged ({in_one_line(error)})") from error

    @property
    def trials(self) -> list[Any]:
        """All trials so far, as Optuna has them."""
        return self._storage.get_all_trials(self._id, deepcopy=False)

    def begin_batch(self) -> None:
        """See that all samples of the batch are asked for that comes next or was begun; none where all are."""
        sampling, trials = self.study.sampling, self.trials
        begun = [trial for trial in trials if not trial.state.is_finished()]
        start = begun[0].user_attrs[BATCH] if begun else len(trials)
        size = min(sampling.batch, sampling.count - start)
        if start + size <= len(trials):
            return
        seed = int(np.random.SeedSequence([sampling.seed, start]).generate_state(1)[0])
        with self._quiet():
            ask = self._ask_tpe if sampling.method == TPE else self._ask_cmaes
            batch = ask(trials[:start], size, seed)
            for params in batch[len(trials) - start :]:
                distributions = {axis.name: distribution_of(axis) for axis in self._searched if axis.name in params}
                running = self._optuna.trial.create_trial(
                    state=self._optuna.trial.TrialState.RUNNING,
                    params=params,
                    distributions=distributions,
                    user_attrs={BATCH: start},
                )
                self._storage.create_new_trial(self._id, template_trial=running)  # one line of the journal

    def begun(self) -> dict[int, list[Point]]:
        """By number, the points of the trials that are not finished: one for each seed and fold."""
        return {trial.number: self.points_of(trial.params) for trial in self.trials if not trial.state.is_finished()}

    def points(self) -> list[Point]:
        """The points of all trials."""
        return list(itertools.chain.from_iterable(self.points_of(trial.params) for trial in self.trials))

    def points_of(self, params: Mapping[str, Any]) -> list[Point]:
        """The points of a trial: one for each seed and fold."""
        chosen = {axis.name: value_of(axis, params[axis.name]) for axis in self._searched if axis.name in params}
        held = [axis for axis in self.study.axes if axis.name in chosen or axis.name in REPEATS]
        return points_of(held, chosen, self.base, self.study.where)

    def tell(self, number: int, result: TrialResult) -> None:
        """Finish a trial."""
        states = self._optuna.trial.TrialState
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(self._id, number)
        for step, score in result.scores.items():
            self._storage.set_trial_intermediate_value(trial_id, step, score)
        state = states.PRUNED if result.is_pruned else states.COMPLETE
        self._storage.set_trial_state_values(trial_id, state, [result.value])

    def is_whole(self) -> bool:
        """Whether as many trials as were wanted are finished."""
        trials = self.trials
        return len(trials) >= self.study.sampling.count and all(trial.state.is_finished() for trial in trials)

    @property
    def _searched(self) -> list[Axis]:
        return [axis for axis in self.study.axes if axis.name not in REPEATS]

    @property
    def _direction(self) -> Any:
        directions = self._optuna.study.StudyDirection
        return directions.MINIMIZE if self.direction == "min" else directions.MAXIMIZE

    @contextlib.contextmanager
    def _quiet(self) -> Iterator[None]:
        """Optuna without its messages, and without its warnings of what may change in a later version."""
        before = self._optuna.logging.get_verbosity()
        self._optuna.logging.set_verbosity(self._optuna.logging.WARNING)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", category=self._optuna.exceptions.ExperimentalWarning)
                warnings.filterwarnings("ignore", category=FutureWarning)
                yield
        finally:
            self._optuna.logging.set_verbosity(before)

    def _check_kept(self, path: Path) -> None:
        """That the trials in the journal are of these axes.

        Raises:
            UsageError: they are not.
        """
        if self._storage.get_study_directions(self._id) != [self._direction]:
            raise UsageError(f"{path}: of a search for another score; allowed is its own directory")
        now = {axis.name: distribution_of(axis) for axis in self._searched}
        for trial in self.trials:
            if not isinstance(trial.user_attrs.get(BATCH), int):
                raise UsageError(f"{path}: damaged, trial {trial.number} is of no batch")
            for name, distribution in trial.distributions.items():
                if now.get(name) != distribution:
                    have = now.get(name, "none")
                    raise UsageError(
                        f"axes.{name}: {path} is of a search over {distribution}, and here is {have}; allowed are the "
                        "same axes, or a new directory"
                    )

    def _ask_tpe(self, finished: Sequence[Any], size: int, seed: int) -> list[dict[str, Any]]:
        """A batch by a tree-structured Parzen estimator.

        Trials of the batch that were asked for before count as bad ones (constant liar), so that a batch spreads.
        Bergstra et al. 2011, Algorithms for hyper-parameter optimization.
        """
        startup = max(STARTUP, self.study.sampling.batch)
        sampler = self._optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=startup, multivariate=True, constant_liar=True
        )
        direction = "minimize" if self.direction == "min" else "maximize"
        search = self._optuna.create_study(direction=direction, sampler=sampler)
        search.add_trials(finished)
        seen, samples = {_key(trial.params) for trial in finished}, []
        for _ in range(size):
            for tried in range(RETRIES):
                trial = search.ask()
                params = self._suggest(trial)
                is_usable = bool(self.points_of(params))
                if is_usable and (_key(params) not in seen or tried == RETRIES - 1):
                    break
                search.tell(trial, state=self._optuna.trial.TrialState.FAIL)
            else:
                raise self._never_usable()
            seen.add(_key(params))
            samples.append(params)
        return samples

    def _suggest(self, trial: Any) -> dict[str, Any]:
        """Have a trial take a value on every axis that it has."""
        params: dict[str, Any] = {}
        settings = dict(self.base)
        for axis in self.study.axes:
            condition = self.study.where.get(axis.name)
            if condition is not None and not holds(condition, settings):
                continue
            if axis.name in REPEATS:
                value = axis.values[0]
            else:
                params[axis.name] = suggest(trial, axis)
                value = value_of(axis, params[axis.name])
            settings |= {axis.name: value.label, **value.settings}
        return params

    def _ask_cmaes(self, finished: Sequence[Any], size: int, seed: int) -> list[dict[str, Any]]:
        """A batch, which is a generation, by the covariance matrix adaptation evolution strategy.

        What it knows is built up again from the generations that are finished: nothing but trials is kept.
        Hansen and Ostermeier 2001, Evolutionary Computation 9, 159-195.
        """
        axes, batch = self._searched, self.study.sampling.batch
        strategy = import_for(CMAES, "cmaes").CMA(
            mean=np.full(len(axes), 0.5),
            sigma=SPREAD,
            bounds=np.tile([0.0, 1.0], (len(axes), 1)),
            population_size=batch,
            seed=seed,
        )
        sign = 1.0 if self.direction == "min" else -1.0
        generations = [list(trials) for _, trials in itertools.groupby(finished, lambda trial: trial.user_attrs[BATCH])]
        sizes = [len(trials) for trials in generations]
        usual = max(sizes, default=batch)
        if usual > batch or (usual < batch and sizes.count(usual) > 1):
            raise UsageError(f"sampling.batch={batch}: the search was begun with {usual}, which it must keep")
        for trials in generations:
            if len(trials) == batch:  # others ended at a count that was no multiple
                units = [np.array([unit_of(axis, trial.params[axis.name]) for axis in axes]) for trial in trials]
                strategy.tell([(unit, sign * trial.value) for unit, trial in zip(units, trials, strict=True)])
        samples = []
        for _ in range(size):
            for _ in range(RETRIES):
                units = np.clip(strategy.ask(), 0.0, 1.0)
                params = {axis.name: param_at(axis, float(unit)) for axis, unit in zip(axes, units, strict=True)}
                if self.points_of(params):
                    break
            else:
                raise self._never_usable()
            samples.append(params)
        return samples

    def _never_usable(self) -> UsageError:
        condition = self.study.where.get("*", "")
        return UsageError(f"where.*={condition}: none of {RETRIES} samples fulfils it; allowed is one that many do")


def import_for(method: str, module: str) -> Any:
    """A module that a method of search needs.

    Raises:
        UsageError: it is not installed.
    """
    more, version = (("optuna.storages.journal",), " 4 or later") if module == "optuna" else ((), "")
    return import_extra("search", f"sampling.method={method}: {module}{version}", module, *more)


def _key(params: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(params.items()))


def _mend(path: Path) -> None:
    """Clear away what a process that was killed left: half a line at the end of the journal, and Optuna's lock.

    Raises:
        UsageError: it is a link, through which another file would be written.
    """
    if path.is_symlink():
        raise UsageError(f"{path}: a link; allowed is a file of the study's own")
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    if path.exists():
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with path.open("r+b") as file:
                file.truncate(whole)
