"""How a study is run: its members by program, in waves that fit the memory, over all devices and processes."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from gru_jax.config import Config, changed_data, changed_sources, load, plan, training_program, unknown_sources
from gru_jax.errors import UsageError
from gru_jax.runs.directory import OTHER_SOURCE, UNKNOWN_SOURCE, RunDir
from gru_jax.runs.population import PopulationRun, lines_by_member
from gru_jax.runs.teacher import teacher_of
from gru_jax.runtime.devices import Device, choose_device, free_memory, precision, without_alarms
from gru_jax.runtime.files import Json, read_json
from gru_jax.runtime.locks import lock_directory
from gru_jax.runtime.preemption import StopRequested
from gru_jax.runtime.processes import barrier, is_multiprocess, on_main_process
from gru_jax.studies.directory import StudyDir, read_wave
from gru_jax.studies.study import Study, StudyMember
from gru_jax.tasks import Task
from gru_jax.tasks.base import ORDER, FromFiles
from gru_jax.tasks.loading import Splits, load_splits
from gru_jax.training.answers import check_scores
from gru_jax.training.carrying import TrainedParts
from gru_jax.training.network import build_model, check_monitor
from gru_jax.training.population import CompiledPopulation, MemberMapping, Population
from gru_jax.training.regularization import check_label_smoothing

logger = logging.getLogger(__name__)
MEMORY_SHARE = 0.8  # of the memory that is there, for a population


class RunnerOptions(NamedTuple):
    """With what a study is run. None of it changes results beyond their last bits.

    Attributes:
        mapping: how the members of a device share it.
        memory: bytes that a population may take on each device; None for most of what there is.
    """

    mapping: MemberMapping = "auto"
    memory: int | None = None


class StudyObserver:
    """Is told how a study goes; this one does nothing with it."""

    def planned(self, goal: tuple[str, str], done: Sequence[Path], mine: Sequence[StudyMember]) -> None:
        """Before the first wave: the metric that counts and its direction, the run directories of members that are
        done, and whom this process is to train or is in the middle of.
        """

    def progressed(self, run: PopulationRun) -> None:
        """After every call of a wave's compiled program."""


class StudyRunner:
    """Runs a study in its directory: its members by program, in waves that fit the memory.

    A wave is a population that is trained together, with a directory of its own until its members have theirs.

    Args:
        study: the study.
        path: its directory.
        options: with what.
        observer: who is told how it goes.
        stop_requested: whether it has been asked to end.
    """

    def __init__(
        self,
        study: Study,
        path: Path,
        options: RunnerOptions,
        observer: StudyObserver = StudyObserver(),  # noqa: B008
        stop_requested: StopRequested = lambda: False,
    ) -> None:
        self.study, self.directory, self.options, self.observer = study, StudyDir(path), options, observer
        self._stop_requested_here = stop_requested
        self.members = {member.id: member for member in study.members()}
        # Whether there are devices at all is found out later.
        self.process, self.processes = (jax.process_index(), jax.process_count()) if is_multiprocess() else (0, 1)
        self._compiled: dict[str, CompiledPopulation] = {}
        self._splits: dict[str, Splits] = {}
        self._open: PopulationRun | None = None
        self._halved: dict[str, str] = {}  # members that did not get beyond a rung, and why
        self._times_run = 0  # barriers have names of their own each time

    def run(self) -> None:
        """Train every member that has no directory yet.

        Raises:
            UsageError: the directory belongs to something else or is in use, a device or data are missing.
            PreemptedError: it was asked to end, and has saved where it is.
        """
        self._check()
        with contextlib.ExitStack() as stack:

            def enter() -> None:
                self.directory.inspect(self.study.base_config(), self._described_members())
                stack.enter_context(lock_directory(self.directory.path))

            on_main_process(enter)
            self._run()

    def _run(self) -> None:
        """Do all there is to do, in a directory that is held."""
        self._run_members()

    def _described_members(self) -> Json:
        return {m.id: {"labels": m.labels, "settings": m.settings} for m in self.members.values()}

    def _start(self) -> None:
        members = {"config": self.study.base_config(), "members": self._described_members()}
        self.directory.start({**self.study.to_dict(), **members})

    def _run_members(self) -> None:
        """Train the members that there are now."""
        on_main_process(self._start)
        self._barrier("start")
        waves = self._unfinished()
        waiting = {member for _, ids in waves for member in ids}
        settled = [name for name in self.members if name not in waiting]
        done = [self.directory.member(name) for name in settled if self.directory.is_done(name)]
        new = [self.members[name] for name in settled if not self.directory.is_done(name)]
        self._barrier("planned")
        mine, share = waves[self.process :: self.processes], new[self.process :: self.processes]
        begun = [self.members[name] for _, ids in mine for name in ids]
        self._tell_changed_sources(done, mine)
        self.observer.planned(next(iter(self.members.values())).config.goal, done, begun + share)
        mine += self._cut(share)
        self._train(mine)
        self._barrier("done")
        self._times_run += 1

    def _barrier(self, name: str) -> None:
        barrier(f"{name} {self._times_run}")

    def _tell_changed_sources(self, done: Sequence[Path], begun: Sequence[tuple[Path, Sequence[str]]]) -> None:
        """Say that members were made, or begun, with other code of a user's own than there is now."""
        stored = {path.name: read_json(path / "config.json") for path in done}
        for wave, _ in begun:
            stored |= read_wave(wave)
        now = {name: self.members[name].config.to_dict() for name in stored}
        changed = {name: changed_sources(config, now[name]) for name, config in stored.items()}
        unknown = {source for name, config in stored.items() for source in unknown_sources(config, now[name])}
        names = {source for sources in changed.values() for source in sources}
        if names:
            count = sum(map(bool, changed.values()))
            logger.warning(OTHER_SOURCE.format(f"{count} of the members were", ", ".join(sorted(names))))
        elif unknown:
            logger.warning(UNKNOWN_SOURCE.format(f"{len(stored)} members were", ", ".join(sorted(unknown))))

    def stop_requested(self) -> bool:
        """Whether a process of this study has been asked to end."""
        mark = self.directory.stop_mark
        if self._stop_requested_here() and self.processes > 1:
            mark.touch()
        return self._stop_requested_here() or (self.processes > 1 and mark.exists())

    def _check(self) -> None:
        """All that can be said before anything is written.

        Raises:
            UsageError: a device or data are missing, or halving falls between validations.
        """
        checked = set()
        for member in self.members.values():
            with run_context(member.config):
                splits = self._load_splits(member.config)
                if (monitored := (training_program(member.config), member.config.goal)) not in checked:
                    check_monitor(member.config, splits["valid"])
                    check_label_smoothing(member.config, splits["valid"])
                    TrainedParts(member.config, build_model(member.config))
                    checked.add(monitored)
                scored = member.config.task, member.config.train.metrics
                if member.config.train.metrics and scored not in checked:
                    check_scores(member.config, _of_fold(member.config.task, splits))
                    checked.add(scored)
        self._check_rungs(self._most_steps())

    def _unfinished(self) -> list[tuple[Path, list[str]]]:
        """Waves that an earlier process began, and their members."""
        waves = []
        for path in self.directory.waves():
            configs = read_wave(path)
            for name, config in configs.items():
                if changed := changed_data(config, load(config).to_dict()):
                    raise UsageError(
                        f"{path}: begun on other data, of {', '.join(changed)}; move it away to begin anew"
                    )
                # Those of axes that the study no longer has are here too.
                self.members.setdefault(name, StudyMember(name, {}, {}, load(config)))
            waves.append((path, list(configs)))
        return waves

    # Waves

    def _cut(self, members: Sequence[StudyMember]) -> list[tuple[Path, list[str]]]:
        """New waves of these members: one program each, and no more members than fit the memory."""
        groups: dict[str, list[StudyMember]] = {}
        for member in members:
            groups.setdefault(training_program(member.config), []).append(member)
        waves = []
        for group in groups.values():
            size, devices = self._fitting([member.config for member in group])
            count = -(-len(group) // size)
            for i in range(count):
                ids = [member.id for member in group[i::count]]
                # Devices take blocks of a wave: neighbours, which tend to end at the same time, go to different ones.
                ids = [member for k in range(devices) for member in ids[k::devices]]
                configs = {member: self.members[member].config.to_dict() for member in ids}
                waves.append((self.directory.new_wave(self.process, configs), ids))
            if count > 1:
                message = "%s members do not fit the memory together: %s waves of up to %s"
                logger.info(message, len(group), count, size)
        return waves

    def _fitting(self, configs: list[Config]) -> tuple[int, int]:
        """How many of these members fit the memory of the devices together, and how many devices there are."""
        with run_context(configs[0]) as devices:
            compiled = self._compiled_for(configs[0], devices)
            limit, size = self.options.memory or MEMORY_SHARE * free_memory(devices), len(configs)
            while size > 1:
                need = Population(compiled, configs[:size]).bytes_needed()
                if need <= limit:
                    break
                size = max(1, min(size - 1, int(size * limit / need)))
            return size, len(devices)

    def _compiled_for(self, config: Config, devices: Sequence[Device]) -> CompiledPopulation:
        """What is compiled for a config's like, once."""
        key = training_program(config)
        if key not in self._compiled:
            splits = self._load_splits(config)
            self._compiled[key] = CompiledPopulation(
                config, splits, devices, self.options.mapping, teacher=teacher_of(config)
            )
        return self._compiled[key]

    def _load_splits(self, config: Config) -> Splits:
        """The data of a config, read once for all that share them, whatever their folds."""
        key = json.dumps({k: v for k, v in config.to_dict()["task"].items() if k != "fold"})
        if key not in self._splits:
            self._splits[key] = load_splits(config.task, config.resident_mb, streams=False)
            for line in config.task.describe_data():
                logger.info(line)
        return self._splits[key]

    def _most_steps(self) -> int:
        """Steps of the longest training."""
        return max((plan(member.config).steps for member in self.members.values()), default=0)

    def _train(self, waves: list[tuple[Path, list[str]]]) -> None:
        """Train waves to each rung of the halving in turn, and to their end."""
        halving, most = self.study.halving, self._most_steps()
        self._check_rungs(most)  # again, with members that are here from before
        for rung in [*halving.rungs(most), None]:
            for path, ids in waves:
                with self._open_wave(path, ids) as wave:
                    wave.train(rung)
                    if rung is None:
                        paths = [self.directory.member(member) for member in ids]
                        wave.finish(paths, keep_networks=self.study.networks)
                if rung is None:
                    self._close_wave()  # a later one may have its path
                    self.directory.remove(path)
            if rung is not None:
                self._barrier(f"rung {rung}")
                self._halve(rung)
                self._barrier(f"decided {rung}")

    @contextlib.contextmanager
    def _open_wave(self, path: Path, ids: list[str]) -> Iterator[PopulationRun]:
        """A wave as it stands, open; one that stays the same stays open."""
        if self._open is not None and self._open.rundir.path != path.absolute():
            self._close_wave()
        configs = [self.members[member].config for member in ids]
        with run_context(configs[0]) as devices:
            if self._open is None:
                compiled = self._compiled_for(configs[0], devices)
                # A wave that is smaller by a few shares the compiled program of its like.
                most = compiled.rows(len(ids)) + len(devices)
                fitting = [rows for rows in compiled.compiled_rows() if len(ids) <= rows <= most]
                population = Population(compiled, configs, min(fitting, default=len(ids)))
                self._open = PopulationRun(population, RunDir(path), self.stop_requested, self.observer.progressed)
                for i, member in enumerate(ids):
                    if member in self._halved:
                        self._open.stop(i, self._halved[member])
            yield self._open

    def _close_wave(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    # Successive halving

    def _check_rungs(self, steps: int) -> None:
        halving = self.study.halving
        for member in self.members.values():
            every = plan(member.config).eval_every
            for rung in halving.rungs(steps):
                if rung % every and rung < plan(member.config).steps:
                    raise UsageError(
                        f"halving.first={halving.first}: there is no validation at the rung of step {rung}; "
                        f"allowed are multiples of {every}"
                    )

    def _halve(self, rung: int) -> None:
        """End the training of all members but the best at a rung. What is decided follows from the scores on disk."""
        ended = self.study.halving.decide(rung, self._curves(rung))
        self._halved |= {member: why for member, why in ended.items() if member not in self._halved}
        self._close_wave()  # opened again, a wave knows of it

    def _curves(self, rung: int) -> dict[str, dict[int, float]]:
        """By member its validation scores up to a rung, lower being better."""
        curves: dict[str, dict[int, float]] = {}

        def note(member: str, line: Json) -> None:
            if member in self.members and line["split"] == "valid" and line["step"] <= rung:
                name, direction = self.members[member].config.goal
                score = line[name] if direction == "min" else -line[name]
                curves.setdefault(member, {})[line["step"]] = score

        for path in self.directory.waves():
            ids = list(read_wave(path))
            for i, line in lines_by_member(RunDir(path), len(ids)):
                note(ids[i], line)
        for member in self.members:
            if self.directory.is_done(member):
                for line in RunDir(self.directory.member(member)).read_metrics():
                    note(member, line)
        return curves


@contextlib.contextmanager
def run_context(config: Config) -> Iterator[list[Device]]:
    """The precision that a config is to run in, while this lasts, and the devices of this process to run it on."""
    first = choose_device(config.platform)
    devices = jax.local_devices(backend=first.platform)
    with precision(config.dtype, config.matmul_precision), jax.default_device(devices[0]), without_alarms():
        yield devices


def _of_fold(task: Task, splits: Splits) -> Splits:
    """Splits that folds share, with the examples of a task's own."""
    return {
        name: {**arrays, ORDER: task.order(name)} if ORDER in arrays and isinstance(task, FromFiles) else arrays
        for name, arrays in splits.items()
    }
