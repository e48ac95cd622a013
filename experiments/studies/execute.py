"""How a study is run: its members by program, in waves that fit the memory, over all devices and processes."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from experiments.studies.study import Member, Study
from gru_jax.config import Config, differences, load, plan
from gru_jax.errors import UsageError
from gru_jax.training.checkpoints import meet
from gru_jax.training.environment import Device, choose_device, precision
from gru_jax.training.loop import load_splits
from gru_jax.training.numbers import training_program
from gru_jax.training.population import Population, Programs
from gru_jax.training.rundir import RunDir, read_json, write_json
from gru_jax.training.wave import Wave

STUDY_FILE, MEMBERS, WAVES, WAVE_FILE = "study.json", "members", "waves", "wave.json"
SHARE = 0.8  # of the memory that is there, for a population


class Means(NamedTuple):
    """With what a study is run. None of it changes results beyond their last bits.

    Attributes:
        mapping: how the members of a device share it, see `Population`.
        memory: bytes that a population may take on each device; None for most of what there is.
    """

    mapping: str = "auto"
    memory: int | None = None


class Watcher:
    """Is told how a study goes, and does nothing with it."""

    def planned(self, goal: tuple[str, str], done: Sequence[Path], mine: Sequence[Member]) -> None:
        """Before the first wave: the metric that counts and its direction, the run directories of members that are
        done, and whom this process is to train or is in the middle of.
        """

    def told(self, wave: Wave) -> None:
        """After every call of a wave's compiled program."""


class Execution:
    """The running of a study in its directory.

    Args:
        study: the study.
        workdir: its directory.
        means: with what.
        watcher: who is told how it goes.
    """

    def __init__(self, study: Study, workdir: Path, means: Means, watcher: Watcher = Watcher()) -> None:  # noqa: B008
        self.study, self.workdir, self.means, self.watcher = study, workdir, means, watcher
        self.members = {member.id: member for member in study.members()}
        self.process, self.processes = jax.process_index(), jax.process_count()
        self._programs: dict[str, Programs] = {}
        self._open: Wave | None = None
        self._halved: dict[str, str] = {}  # members that did not get beyond a rung, and why

    def run(self) -> None:
        """Train every member that has no directory yet.

        Raises:
            UsageError: the directory belongs to something else, a device or data are missing.
        """
        if self.process == 0:
            self._start()
        meet("start")
        waves = self._unfinished()
        waiting = {member for _, ids in waves for member in ids}
        settled = [name for name in self.members if name not in waiting]
        done = [self.path(name) for name in settled if self.path(name).exists()]
        new = [self.members[name] for name in settled if not self.path(name).exists()]
        meet("planned")
        mine, share = waves[self.process :: self.processes], new[self.process :: self.processes]
        begun = [self.members[name] for _, ids in mine for name in ids]
        self.watcher.planned(next(iter(self.members.values())).config.task.goal, done, begun + share)
        mine += self._cut(share)
        self._train(mine)
        meet("done")

    def path(self, member: str) -> Path:
        """The run directory of a member."""
        return self.workdir / MEMBERS / member

    # The directory

    def _start(self) -> None:
        path, told = self.workdir / STUDY_FILE, self.study.to_dict()
        base = self.study.base_config()
        try:
            if path.exists():
                # What is varied does not belong to the base: only the rest has to be the same.
                before = read_json(path)
                varied = {key for member in self.members.values() for key in member.settings}
                varied |= {key for member in before["members"].values() for key in member["settings"]}
                changed = [text for text in differences(before["config"], base) if text.split(" ")[0] not in varied]
                if changed:
                    raise UsageError(
                        f"--workdir={self.workdir}: belongs to a study of another base: {'; '.join(changed)}"
                    )
            elif others := sorted(p.name for p in self.workdir.glob("*") if p.name != f"{STUDY_FILE}.tmp"):
                other = others[0]
                raise UsageError(
                    f"--workdir={self.workdir}: not a study's directory, it holds {other} and no {STUDY_FILE}; "
                    "allowed is a new or empty directory, or one of an earlier study"
                )
            self.workdir.mkdir(parents=True, exist_ok=True)
            members = {m.id: {"labels": m.labels, "settings": m.settings} for m in self.members.values()}
            write_json(path, {**told, "config": base, "members": members})
            (self.workdir / MEMBERS).mkdir(exist_ok=True)
            for wave in (self.workdir / WAVES).glob("*"):  # killed before they began, or after they ended
                begun = wave / WAVE_FILE
                if not begun.exists() or all(self.path(name).exists() for name in read_json(begun)):
                    shutil.rmtree(wave)
        except OSError as error:
            raise UsageError(f"--workdir={self.workdir}: cannot be used ({error.strerror})") from error

    def _unfinished(self) -> list[tuple[Path, list[str]]]:
        """Waves that an earlier process began, and their members."""
        found = []
        for path in sorted((self.workdir / WAVES).glob("*")):
            configs = read_json(path / WAVE_FILE)
            for name, config in configs.items():  # of axes that the study no longer has
                self.members.setdefault(name, Member(name, {}, {}, load(config)))
            found.append((path, list(configs)))
        return found

    # Waves

    def _cut(self, members: Sequence[Member]) -> list[tuple[Path, list[str]]]:
        """New waves of these members: one program each, and no more members than fit the memory."""
        groups: dict[str, list[Member]] = {}
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
                waves.append((self._new_wave(ids), ids))
            if count > 1:
                print(f"{len(group)} members do not fit the memory together: {count} waves of up to {size}", flush=True)
        return waves

    def _fitting(self, configs: list[Config]) -> tuple[int, int]:
        """How many of these members fit the memory of the devices together, and how many devices there are."""
        with surroundings(configs[0]) as devices:
            programs = self._programs_of(configs[0], devices)
            limit, size = self.means.memory or SHARE * free_memory(devices), len(configs)
            while size > 1:
                need = programs.bytes_needed(programs.rows(size))
                if need <= limit:
                    break
                size = max(1, min(size - 1, int(size * limit / need)))
            return size, len(devices)

    def _new_wave(self, ids: list[str]) -> Path:
        taken = [int(path.name.split("-")[1]) for path in (self.workdir / WAVES).glob(f"{self.process}-*")]
        path = self.workdir / WAVES / f"{self.process}-{max(taken, default=-1) + 1:04d}"
        path.mkdir(parents=True)
        write_json(path / WAVE_FILE, {member: self.members[member].config.to_dict() for member in ids})
        return path

    def _programs_of(self, lead: Config, devices: Sequence[Device]) -> Programs:
        """What is compiled for a config's like, once."""
        key = training_program(lead)
        if key not in self._programs:
            self._programs[key] = Programs(lead, load_splits(lead), devices, self.means.mapping)
        return self._programs[key]

    def _train(self, waves: list[tuple[Path, list[str]]]) -> None:
        """Train waves to each rung of the halving in turn, and to their end."""
        halving = self.study.halving
        most = max((plan(member.config).steps for member in self.members.values()), default=0)
        self._check_rungs(most)
        for rung in [*halving.rungs(most), None]:
            for path, ids in waves:
                with self._wave(path, ids) as wave:
                    wave.train(rung)
                    if rung is None:
                        wave.finish([self.path(member) for member in ids], keep_networks=self.study.networks)
                if rung is None:
                    shutil.rmtree(path)
            if rung is not None:
                meet(f"rung {rung}")
                self._halve(rung)
                meet(f"decided {rung}")

    @contextlib.contextmanager
    def _wave(self, path: Path, ids: list[str]) -> Iterator[Wave]:
        """A wave as it stands, open; one that stays the same stays open."""
        if self._open is not None and self._open.rundir.path != path.absolute():
            self._open.close()
            self._open = None
        configs = [self.members[member].config for member in ids]
        with surroundings(configs[0]) as devices:
            if self._open is None:
                programs = self._programs_of(configs[0], devices)
                # A wave that is smaller by a few shares the compiled program of its like.
                spare = len(devices)
                fitting = [
                    rows for rows in programs.compiled_rows() if len(ids) <= rows <= programs.rows(len(ids)) + spare
                ]
                population = Population(programs, configs, min(fitting, default=len(ids)))
                self._open = Wave(population, RunDir(path), self.watcher.told)
                for i, member in enumerate(ids):
                    if member in self._halved:
                        self._open.stop(i, self._halved[member])
            yield self._open

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
        scores = self._scores(rung)
        ranked = sorted(scores, key=lambda member: (scores[member], member))
        rank = {member: i + 1 for i, member in enumerate(ranked)}
        going_on = -(-len(ranked) // self.study.halving.eta)
        for member in ranked[going_on:]:
            self._halved[member] = f"halved at step {rung}: {rank[member]} of {len(ranked)}"
        if self._open is not None:
            self._open.close()  # opened again, a wave knows of it
            self._open = None

    def _scores(self, rung: int) -> dict[str, float]:
        """By member the validation score at a rung, lower being better, of those that came so far."""
        found: dict[str, float] = {}

        def note(member: str, line: Mapping[str, Any]) -> None:
            if member in self.members and line["split"] == "valid" and line["step"] == rung:
                name, direction = self.members[member].config.task.goal
                found[member] = line[name] if direction == "min" else -line[name]

        for path in (self.workdir / WAVES).glob("*"):
            ids = list(read_json(path / WAVE_FILE))
            for line in RunDir(path).read_metrics():
                note(ids[line["member"]], line)
        for member in self.members:
            if self.path(member).exists():
                for line in RunDir(self.path(member)).read_metrics():
                    note(member, line)
        return found


@contextlib.contextmanager
def surroundings(config: Config) -> Iterator[list[Device]]:
    """The precision and the devices of this process that a config is to run with."""
    first = choose_device(config)
    devices = jax.local_devices(backend=first.platform)
    with precision(config), jax.default_device(devices[0]):
        yield devices


def free_memory(devices: Sequence[Device]) -> float:
    """Bytes that each device has to give."""
    stats = devices[0].memory_stats() if devices[0].platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    told = Path("/proc/meminfo")
    if told.exists():
        lines = told.read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    else:
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return free / len(devices)
