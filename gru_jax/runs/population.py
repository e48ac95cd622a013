"""The training of a population, and a run directory for each of its members when it ends."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gru_jax.config import fingerprint
from gru_jax.config.checkpoint_names import BEST, LATEST
from gru_jax.errors import UsageError
from gru_jax.runs.checkpoints import Checkpoints
from gru_jax.runs.data_facts import keep_facts
from gru_jax.runs.directory import RunDir
from gru_jax.runs.early_stopping import CheckpointMetadata, EndReason
from gru_jax.runs.environment import describe_environment
from gru_jax.runs.loop import Evaluations, TrainingLoop
from gru_jax.runs.summary import summarise
from gru_jax.runs.transfer import write_listing_of_member
from gru_jax.runtime.devices import peak_memory
from gru_jax.runtime.files import Json, refuse_links, write_json
from gru_jax.runtime.preemption import StopRequested
from gru_jax.training.instruments import LIVE, LIVE_STEP, RECORD_AXES
from gru_jax.training.population import Population

KEPT = 2  # checkpoints: the one before the newest is for when that is damaged


class PopulationRun(TrainingLoop):
    """The training of a population, in a directory of its own until every member has its run directory.

    Args: as of `TrainingLoop`.
    """

    call_seconds = 2.0

    def __init__(
        self,
        population: Population,
        rundir: RunDir,
        stop_requested: StopRequested = lambda: False,
        on_progress: Callable[[Any], None] = lambda run: None,
    ) -> None:
        refuse_links(rundir.path)
        self.device = population.compiled.devices[0]
        owners = [fingerprint(config) for config in population.configs]
        checkpoints = Checkpoints(rundir.checkpoints, self.device, KEPT, keep_best=KEPT, fingerprint=owners)
        super().__init__(population, rundir, checkpoints, stop_requested, on_progress)
        self.restore()

    def stop(self, member: int, why: str) -> None:
        """End a member's training where it is, by successive halving, if it has not ended."""
        if self.going[member]:
            self.members[member].end(EndReason.HALVED, why)

    def close(self) -> None:
        """Release Orbax' threads."""
        self.checkpoints.close()

    def _diverged(self, member: int, what: str, split: str) -> None:
        self.members[member].end(EndReason.DIVERGED, f"diverged: {what}")

    def _line(self, member: int, split: str, step: int, metrics: Mapping[str, float]) -> Json:
        return {"member": int(member), "step": step, "split": split, **metrics, "time": round(time.time(), 3)}

    def finish(self, paths: Sequence[Path], *, keep_networks: bool) -> None:
        """Write a run directory for each member that has none.

        Args:
            paths: of the directories; one appears when it is complete.
            keep_networks: whether the last and the best network go there too, as checkpoints.
        """
        self.recorder.record(self.step, self.state.params, end=True)
        self.recorder.write()
        evaluations = self._evaluate_ends()
        for member, (final, best) in zip(self.members, evaluations, strict=True):
            numbers = [value for metrics in (*final.values(), *best.values()) for value in metrics.values()]
            if not member.has_ended and not np.isfinite(numbers).all():
                member.end(EndReason.DIVERGED, "diverged: a metric of its last or best network is not finite")
        lines: list[list[dict[str, Any]]] = [[] for _ in paths]
        for member, line in lines_by_member(self.rundir, len(paths)):
            lines[member].append(line)
        records, latest = self.rundir.read_flow(), self.population.to_host(self.state)
        for i, path in enumerate(paths):
            if path.exists():
                continue
            part = RunDir(path.with_name(f".{path.name}.tmp"))
            shutil.rmtree(part.path, ignore_errors=True)
            recorded = self._records_of(i, records)
            self._write_member(i, part, lines[i], recorded, evaluations[i])
            if keep_networks:
                last_and_best = (jax.tree.map(lambda a, i=i: a[i], states) for states in (latest, self.best))
                self._save_member(i, part, len(lines[i]), self._regular_recordings(recorded), *last_and_best)
            part.path.rename(path)

    def _write_member(
        self,
        i: int,
        rundir: RunDir,
        lines: Sequence[Json],
        records: Mapping[str, np.ndarray],
        evaluations: Evaluations,
    ) -> None:
        """Write all files of a member's run but its networks."""
        config, progress, compiled = self.population.configs[i], self.members[i], self.population.compiled
        env = {**describe_environment(self.config, self.device), "seed": config.seed}
        rundir.start(config.to_dict(), env)
        keep_facts(rundir, config)
        write_listing_of_member(self.rundir.path, i, rundir.path)
        seconds = self.seconds * progress.steps / (sum(member.steps for member in self.members) or 1)
        rate = {"steps_per_second": round(progress.steps / max(seconds, 1e-9), 3)}
        finite = {s: {k: v for k, v in m.items() if np.isfinite(v)} for s, m in evaluations.tested(progress)}
        now = round(time.time(), 3)
        rundir.append_metrics([{**line, **(rate if line["split"] == "train" else {})} for line in lines])
        rundir.append_metrics({"step": s, "split": "test", **metrics, "time": now} for s, metrics in finite.items())
        if records:
            rundir.write_flow(records)
        summary = summarise(
            config,
            progress,
            *evaluations,
            seconds=seconds,
            parameters=self.parameters,
            **peak_memory(self.device),
            population={
                "members": self.population.count,
                "mapping": compiled.mapping,
                "devices": len(compiled.devices),
            },
        )
        write_json(rundir.summary, summary)

    def _records_of(self, i: int, records: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What the instruments recorded of a member, up to its end: the last recording was made there."""
        ended, of_member = self.members[i].steps, {}
        steps = records.get("step", np.zeros(0, np.int64))  # with `flow.live` alone there is none
        rows = np.flatnonzero(steps <= ended)
        if len(rows) and steps[rows[-1]] != ended:
            rows = np.append(rows, len(steps) - 1)
        for name, values in records.items():
            if name in RECORD_AXES:
                of_member[name] = values
            elif name == LIVE_STEP:
                of_member[name] = values[values < ended]
            elif name.startswith(LIVE):
                of_member[name] = values[records[LIVE_STEP] < ended, i]
            elif name != "step":
                of_member[name] = values[rows, i]
        return {"step": np.minimum(steps[rows], ended), **of_member} if len(rows) else of_member

    def _regular_recordings(self, recorded: Mapping[str, np.ndarray]) -> int:
        """Recordings but for those that were made because the training ended."""
        steps, every = recorded.get("step", np.zeros(0, np.int64)), self.plan.flow_every
        return len(recorded.get(LIVE_STEP, ())) + (int((steps % every == 0).sum()) if every else 0)

    def _save_member(
        self, i: int, rundir: RunDir, metric_lines: int, recordings: int, latest: dict[str, Any], best: dict[str, Any]
    ) -> None:
        """Write a member's last and best network as checkpoints."""
        config, progress = self.population.configs[i], self.members[i]
        metadata = CheckpointMetadata(
            step=progress.steps,
            seconds=self.seconds,
            metric_lines=metric_lines,
            recordings=recordings,
            best_saved=progress.best_step,
            members=[progress],
            pending_metrics=[{}],
            data_position=None,
        )
        owner = fingerprint(config, of_any_length=True)
        checkpoints = Checkpoints(rundir.checkpoints, self.device, config.train.keep, fingerprint=owner)
        for kind, state in ((BEST, best), (LATEST, latest)):
            checkpoints.save(kind, int(state["step"]), state, dataclasses.asdict(metadata))
        checkpoints.close()


def lines_by_member(rundir: RunDir, count: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """The lines of a population's metrics, each with whose it is.

    Raises:
        UsageError: they are damaged.
    """
    for line in rundir.read_metrics():
        member = line.pop("member", None)
        if type(member) is not int or not 0 <= member < count:
            raise UsageError(f"{rundir.metrics}: damaged, a line is of member {member!r}; there are {count}")
        yield member, line
