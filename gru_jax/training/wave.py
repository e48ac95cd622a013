"""Members trained in lockstep, from their first step to a run directory for each."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gru_jax.config import Config
from gru_jax.tasks import SPLITS
from gru_jax.training.checkpoints import BEST, LATEST, Checkpoints
from gru_jax.training.environment import describe, peak_memory
from gru_jax.training.population import Population
from gru_jax.training.recorder import FlowRecorder
from gru_jax.training.rundir import FLOW_AXES, LIVE, LIVE_STEP, RunDir, write_json
from gru_jax.training.standing import Standing, TrainLog
from gru_jax.training.step import TrainState

CALL_SECONDS = 2.0  # aimed at for one call of the compiled program, all members together
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
    """

    def __init__(
        self, population: Population, rundir: RunDir, told: Callable[[Wave], None] = lambda wave: None
    ) -> None:
        self.population, self.rundir, self.told = population, rundir, told
        self.plan, self.lead = population.programs.plan, population.configs[0]
        self.standings = [MemberStanding() for _ in population.configs]
        self.logs = [TrainLog(self.plan.log_every) for _ in population.configs]
        self.flow = FlowRecorder(self.lead, self.plan, rundir, population.measure)
        self.checkpoints = Checkpoints(rundir.checkpoints, population.programs.devices[0], kinds=(LATEST,))
        self.step, self.seconds, self._call_steps = 0, 0.0, 1
        self.resumed = self.checkpoints.step() is not None
        self._restore()

    # Training

    def train(self, until: int | None = None) -> None:
        """Train all members that are going on to step `until`, or to their end."""
        stop = self.plan.steps if until is None else min(until, self.plan.steps)
        began, before = time.monotonic(), self.seconds
        while self.step < stop and self.going.any():
            self._advance(self._next_stop(stop))
            self.seconds = before + time.monotonic() - began
            self._record()
            if self.step % self.plan.eval_every == 0 or self.step == self.plan.steps:
                self._validate()

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
        host = {"step": self.step, "seconds": self.seconds, "members": [dataclasses.asdict(s) for s in self.standings]}
        self.checkpoints.save(
            LATEST, self.step, {name: self.population.to_host(of) for name, of in states.items()}, host
        )

    def close(self) -> None:
        """Release Orbax' threads."""
        self.checkpoints.close()

    def _restore(self) -> None:
        population = self.population
        if not self.resumed:
            self.state = population.initial()
            self.best = jax.tree.map(lambda a: a.copy(), self.state)
            self.rundir.path.mkdir(parents=True, exist_ok=True)
            self.rundir.rewind(-1)
            self._validate()
            return
        empty = population.empty()
        saved, host = self.checkpoints.restore(LATEST, {"last": empty, "best": empty})
        self.state, self.best = (population.from_host(saved[name]) for name in ("last", "best"))
        self.standings = [MemberStanding(**member) for member in host["members"]]
        self.step, self.seconds = host["step"], host["seconds"]
        self.rundir.rewind(self.step)
        self.flow.restore()
        self.told(self)

    def _next_stop(self, stop: int) -> int:
        marks = [every for every in (self.plan.eval_every, self.plan.flow_every) if every]
        return min(stop, *((self.step // every + 1) * every for every in marks))

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
            self.told(self)

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
        for line in self.rundir.read_metrics():
            lines[line.pop("member")].append(line)
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
        host = {key: value for key, value in dataclasses.asdict(self.standing).items() if key != "steps"}
        checkpoints = Checkpoints(self.rundir.checkpoints, self.population.programs.devices[0], self.config.train.keep)
        for kind, state in ((BEST, best), (LATEST, last)):
            checkpoints.save(kind, int(state.step), state._asdict(), host)
        checkpoints.close()


def _plain(summary: dict[str, Any]) -> dict[str, Any]:
    """The same with None for numbers that JSON does not have."""
    return json.loads(json.dumps(summary), parse_constant=lambda name: None)
