"""Members trained in lockstep, from their first step to a run directory for each."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gru_jax.config import Config, identity
from gru_jax.errors import UsageError
from gru_jax.runs.checkpoints import BEST, LATEST, Checkpoints
from gru_jax.runs.directory import FLOW_AXES, LIVE, LIVE_STEP, RunDir
from gru_jax.runs.early_stopping import Standing, TrainLog, read_standing
from gru_jax.runs.recorder import FlowRecorder
from gru_jax.runtime.devices import describe, peak_memory
from gru_jax.runtime.files import no_links, write_json
from gru_jax.runtime.preemption import Asked, PreemptedError
from gru_jax.tasks import SPLITS
from gru_jax.training.population import Population
from gru_jax.training.step import TrainState

CALL_SECONDS = 2.0  # aimed at for one call of the compiled program, all members together
KEPT = 2  # checkpoints of a wave: the one before the newest is for when that is damaged
DIVERGED = "diverged"


@dataclasses.dataclass
class MemberStanding(Standing):
    """A member's standing.

    Attributes:
        steps: done.
    """

    steps: int = 0

    @property
    def diverged(self) -> bool:
        """Whether it ended in numbers that are not finite."""
        return self.stopped is not None and self.stopped.startswith(DIVERGED)


class Wave:
    """The training of a population, kept in a directory of its own until every member has its run directory.

    Args:
        population: the members, compiled.
        rundir: where the wave keeps its checkpoints and what it recorded.
        told: called with the wave after every call of the compiled program.
        asked: whether it has been asked to end; see `gru_jax.runtime.preemption`.
    """

    def __init__(
        self,
        population: Population,
        rundir: RunDir,
        told: Callable[[Wave], None] = lambda wave: None,
        asked: Asked = lambda: False,
    ) -> None:
        self.population, self.rundir, self.told, self.asked = population, rundir, told, asked
        self.plan, self.lead = population.programs.plan, population.configs[0]
        self.standings = [MemberStanding() for _ in population.configs]
        self.logs = [TrainLog(self.plan.log_every) for _ in population.configs]
        self.flow = FlowRecorder(self.lead, self.plan, rundir, population.measure)
        no_links(rundir.path)
        owners = [identity(config) for config in population.configs]
        device = population.programs.devices[0]
        self.checkpoints = Checkpoints(rundir.checkpoints, device, KEPT, kinds=(LATEST,), owner=owners)
        self.step, self.seconds, self._call_steps, self._saved = 0, 0.0, 1, -1
        self.resumed = False
        if not self._restore():
            self._start()

    # Training

    def train(self, until: int | None = None) -> None:
        """Train all members that are going on to step `until`, or to their end.

        Raises:
            PreemptedError: it was asked to end, and has saved where it is.
        """
        stop = self.plan.steps if until is None else min(until, self.plan.steps)
        self._began = time.monotonic() - self.seconds
        while self.step < stop and self.going.any():
            self._advance(min(stop, self.plan.next_stop(self.step)))
            self._record()
            if self.step % self.plan.eval_every == 0 or self.step == self.plan.steps:
                self._validate()
            self._end_if_asked()

    @property
    def going(self) -> np.ndarray:
        """Which members have not ended, `[R]`."""
        return np.array([s.stopped is None and s.steps < self.plan.steps for s in self.standings])

    def stop(self, member: int, why: str) -> None:
        """End a member's training where it is, if it has not ended."""
        if self.going[member]:
            self.standings[member].stopped = why

    def _save(self) -> None:
        """Save all there is."""
        self.flow.write()
        states = {"last": self.state, "best": self.best}
        host = {
            "step": self.step,
            "seconds": self.seconds,
            "members": [dataclasses.asdict(s) for s in self.standings],
            "logs": [log.to_host() for log in self.logs],
            "lines": self.rundir.lines,
            "recordings": self.flow.count,
        }
        self.checkpoints.save(
            LATEST, self.step, {name: self.population.to_host(of) for name, of in states.items()}, host
        )
        self._saved = self.step

    def _end_if_asked(self) -> None:
        if not self.asked() or not self.going.any():
            return
        if self.step != self._saved:
            self._save()
        raise PreemptedError(f"asked to end: step {self.step} of {self.plan.steps} is saved")

    def close(self) -> None:
        """Release Orbax' threads."""
        self.checkpoints.close()

    def _start(self) -> None:
        self.state = self.population.initial()
        self.best = jax.tree.map(lambda a: a.copy(), self.state)
        self.rundir.path.mkdir(parents=True, exist_ok=True)
        self.rundir.rewind(-1)
        self._began = time.monotonic()
        self._validate()

    def _restore(self) -> bool:
        """Take up the latest checkpoint that is whole; whether there is one."""
        population, empty = self.population, self.population.empty()
        found = self.checkpoints.newest(LATEST, {"last": empty, "best": empty}, self._read)
        if found is None:
            return False
        self.resumed = True
        self._saved, saved, host = found
        self.state, self.best = (population.from_host(saved[name]) for name in ("last", "best"))
        self.standings, self.logs = host["members"], host["logs"]
        self.step, self.seconds = host["step"], host["seconds"]
        self.rundir.rewind(self.step, host["lines"])
        self.flow.restore(host["recordings"])
        self.told(self)
        return True

    def _read(self, host: dict[str, Any]) -> dict[str, Any]:
        """What stands beside the states in a checkpoint; raises where it is not that."""
        count, every = self.population.count, self.plan.log_every
        host["members"] = [read_standing(MemberStanding, member) for member in host["members"]]
        host["logs"] = [TrainLog.from_host(every, pending) for pending in host["logs"]]
        host["seconds"] = float(host["seconds"])
        if not all(type(host[key]) is int for key in ("step", "lines", "recordings")):
            raise ValueError("step, lines and recordings are no numbers")
        if not len(host["members"]) == len(host["logs"]) == count:
            raise ValueError(f"it is not of {count} members")
        return host

    def _advance(self, stop: int) -> None:
        """Train to step `stop`, in calls of about `CALL_SECONDS`; members that end, end alone."""
        while self.step < stop and self.going.any():
            first, going = self.step, self.going
            count = min(self._call_steps, stop - first)
            started = time.monotonic()
            done = self.population.run(self.state, first, np.where(going, count, 0))
            self.state = done.state
            finished = np.asarray(done.state.step)[: self.population.count] - first
            per_step = (time.monotonic() - started) / count
            self._call_steps = int(np.clip(CALL_SECONDS / per_step, 1, self.lead.train.call_steps))
            self.step += count
            self.flow.record_live(first, count, {k: v.swapaxes(0, 1) for k, v in done.live.items()})
            lines = []
            for i in np.flatnonzero(going).tolist():
                lines += self._note(i, first, int(finished[i]), {k: v[i] for k, v in done.metrics.items()}, stop)
                if not done.finite[i]:
                    self.standings[i].stopped = f"{DIVERGED}: step {first + int(finished[i]) + 1} is not finite"
            self.rundir.append_metrics(lines)
            self.seconds = time.monotonic() - self._began
            self.told(self)
            if self.step < stop:  # where something is due, that comes first
                self._end_if_asked()

    def _note(self, i: int, first: int, count: int, metrics: dict[str, np.ndarray], stop: int) -> list[dict[str, Any]]:
        """Lines on a member's last `count` steps."""
        lines = []
        for offset in range(count):
            step = self.standings[i].steps = first + offset + 1
            means = self.logs[i].add(step, {k: v[offset] for k, v in metrics.items()}, last=step == stop)
            if means is not None:
                lines.append(self._line(i, "train", step, means))
        return lines

    def _line(self, i: int, split: str, step: int, metrics: dict[str, float]) -> dict[str, Any]:
        return {"member": int(i), "step": step, "split": split, **metrics, "time": round(time.time(), 3)}

    def _validate(self) -> None:
        """Evaluate those that are going on, compare with their best, save."""
        going = np.array([s.stopped is None for s in self.standings])
        better, lines = np.zeros(len(going), bool), []
        for i, metrics in enumerate(self.population.evaluate(self.state.params, "valid", going)):
            if metrics is None:
                continue
            if not np.isfinite(list(metrics.values())).all():
                self.standings[i].stopped = f"{DIVERGED}: validation at step {self.step} is not finite"
                continue
            better[i] = self.standings[i].judge(self.population.configs[i], self.step, metrics)
            lines.append(self._line(i, "valid", self.step, metrics))
        self.best = self.population.keep(better, self.state, self.best)
        self.rundir.append_metrics(lines)
        self._record()
        self._save()
        self.told(self)

    def _record(self, *, end: bool = False) -> None:
        self.flow.record(self.step, self.state.params, None, end=end)

    # Its end

    def finish(self, paths: Sequence[Path], *, keep_networks: bool) -> None:
        """Write a run directory for each member that has none.

        Args:
            paths: of the directories; one appears when it is complete.
            keep_networks: whether the last and the best network go there too, as checkpoints.
        """
        self._record(end=True)
        self.flow.write()
        total = sum(s.steps for s in self.standings) or 1
        evaluated = self._evaluate_all()
        lines: list[list[dict[str, Any]]] = [[] for _ in paths]
        for member, line in by_member(self.rundir, len(paths)):
            lines[member].append(line)
        records = self.rundir.read_flow()
        states = [TrainState(**self.population.to_host(state)) for state in (self.state, self.best)]
        env = describe(self.lead, self.population.programs.devices[0])
        for i, path in enumerate(paths):
            self.standings[i].seconds = self.seconds * self.standings[i].steps / total
            if path.exists():
                continue
            part = path.with_name(f".{path.name}.tmp")
            shutil.rmtree(part, ignore_errors=True)
            member = Member(RunDir(part), self.population.configs[i], self.standings[i], self.population)
            member.write(env, lines[i], member.records(records, i), *evaluated[i])
            if keep_networks:
                member.save(*jax.tree.map(lambda a, i=i: a[i], states))
            part.rename(path)

    def _evaluate_all(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """For each member the metrics of its last and of its best network, by split."""
        everyone = np.ones(self.population.count, bool)
        other = np.array([s.best_step != s.steps for s in self.standings])
        last, best = (
            {split: self.population.evaluate(params, split, which) for split in SPLITS[1:]}
            for params, which in ((self.state.params, everyone), (self.best.params, other))
        )
        final = [{split: last[split][i] for split in last} for i in range(len(everyone))]
        return [
            (final[i], {split: best[split][i] for split in best} if other[i] else final[i])
            for i in range(len(everyone))
        ]


def by_member(rundir: RunDir, count: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """The lines of a wave's metrics, each with whose it is.

    Raises:
        UsageError: they are damaged.
    """
    for line in rundir.read_metrics():
        member = line.pop("member", None)
        if type(member) is not int or not 0 <= member < count:
            raise UsageError(f"{rundir.metrics}: damaged, a line is of member {member!r}; there are {count}")
        yield member, line


class Member:
    """A member of a wave on its way into a run directory of its own.

    Args:
        rundir: the directory.
        config: its config.
        standing: its standing at the end.
        population: which it was a member of.
    """

    def __init__(self, rundir: RunDir, config: Config, standing: MemberStanding, population: Population) -> None:
        self.rundir, self.config, self.standing, self.population = rundir, config, standing, population

    def write(
        self,
        env: dict[str, Any],
        lines: list[dict[str, Any]],
        records: dict[str, np.ndarray],
        final: dict[str, Any],
        best: dict[str, Any],
    ) -> None:
        """Write all files of a run but its networks."""
        standing, population, device = self.standing, self.population, self.population.programs.devices[0]
        self.rundir.start(self.config.to_dict(), {**env, "seed": self.config.seed})
        rate = round(standing.steps / max(standing.seconds, 1e-9), 3)
        told = [{**line, "steps_per_second": rate} if line["split"] == "train" else line for line in lines]
        now = round(time.time(), 3)
        tested = {standing.best_step: best["test"], standing.steps: final["test"]}
        told += [
            {"step": step, "split": "test", **{k: v for k, v in metrics.items() if np.isfinite(v)}, "time": now}
            for step, metrics in sorted(tested.items())
        ]
        self.rundir.append_metrics(told)
        if records:
            self.rundir.write_flow(records)
        parameters = sum(leaf.size // leaf.shape[0] for leaf in jax.tree.leaves(population.empty()["params"]))
        summary = standing.summary(self.config, standing.steps, final, best, parameters)
        replicas = {
            "members": population.count,
            "mapping": population.programs.mapping,
            "devices": len(population.programs.devices),
        }
        write_json(self.rundir.summary, _plain({**summary, **peak_memory(device), "population": replicas}))

    def records(self, records: dict[str, np.ndarray], i: int) -> dict[str, np.ndarray]:
        """What the instruments recorded of this member, up to its end: the last recording was made there."""
        ended, own = self.standing.steps, {}
        steps = records.get("step", np.zeros(0, np.int64))  # with `flow.live` alone there is none
        rows = np.flatnonzero(steps <= ended)
        if len(rows) and steps[rows[-1]] != ended:
            rows = np.append(rows, len(steps) - 1)
        for name, values in records.items():
            if name in FLOW_AXES:
                own[name] = values
            elif name == LIVE_STEP:
                own[name] = values[values < ended]
            elif name.startswith(LIVE):
                own[name] = values[records[LIVE_STEP] < ended, i]
            elif name != "step":
                own[name] = values[rows, i]
        return {"step": np.minimum(steps[rows], ended), **own} if len(rows) else own

    def save(self, last: TrainState, best: TrainState) -> None:
        """Write the last and the best network as checkpoints."""
        standing = {key: value for key, value in dataclasses.asdict(self.standing).items() if key != "steps"}
        recordings = sum(len(v) for k, v in self.rundir.read_flow().items() if k in ("step", LIVE_STEP))
        host = {"standing": standing, "log": {}, "data": None, "lines": self.rundir.lines, "recordings": recordings}
        device, owner = self.population.programs.devices[0], identity(self.config)
        checkpoints = Checkpoints(self.rundir.checkpoints, device, self.config.train.keep, owner=owner)
        for kind, state in ((BEST, best), (LATEST, last)):
            checkpoints.save(kind, int(state.step), state._asdict(), host)
        checkpoints.close()


def _plain(summary: dict[str, Any]) -> dict[str, Any]:
    """The same with None for numbers that JSON does not have."""
    return json.loads(json.dumps(summary), parse_constant=lambda name: None)
