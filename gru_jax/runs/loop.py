"""The one loop that trains: a run by itself and the members of a population alike."""

from __future__ import annotations

import abc
import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from gru_jax.config.checkpoint_names import BEST, LATEST
from gru_jax.runs.checkpoints import Checkpoints
from gru_jax.runs.directory import RunDir
from gru_jax.runs.early_stopping import CheckpointMetadata, EarlyStopping, MetricWindow
from gru_jax.runs.pace import Pace
from gru_jax.runs.profiling import Profile
from gru_jax.runs.recorder import FlowRecorder
from gru_jax.runs.transfer import write_listings
from gru_jax.runs.weights import starting_points_of_members
from gru_jax.runtime.files import Json
from gru_jax.runtime.preemption import PreemptedError, StopRequested
from gru_jax.runtime.processes import log_once
from gru_jax.tasks import SPLITS
from gru_jax.training.population import Population
from gru_jax.training.skipping import SKIPPED

logger = logging.getLogger(__name__)


class Evaluations(NamedTuple):
    """A member's metrics by split, of its last and of its best network; none where a split has no targets."""

    final: dict[str, Any]
    best: dict[str, Any]

    def tested(self, progress: EarlyStopping) -> list[tuple[int, dict[str, float]]]:
        """The test metrics by step, in order, if there are any; one entry where the last network is the best."""
        of_step = {progress.best_step: self.best["test"], progress.steps: self.final["test"]}
        return sorted(of_step.items()) if self.best["test"] else []


class TrainingLoop(abc.ABC):
    """Trains members in lockstep: advances, validates, saves, and goes on where it was stopped.

    Args:
        population: the members; one of a run by itself.
        rundir: where metrics, records and checkpoints go.
        checkpoints: of the directory.
        stop_requested: whether it has been asked to end.
        on_progress: called with the loop after every call of the compiled program and every validation.
    """

    call_seconds: ClassVar[float]
    """Aimed at for one call of the compiled program, all members together."""

    def __init__(
        self,
        population: Population,
        rundir: RunDir,
        checkpoints: Checkpoints,
        stop_requested: StopRequested,
        on_progress: Callable[[Any], None],
    ) -> None:
        self.population, self.rundir, self.checkpoints = population, rundir, checkpoints
        self.stop_requested, self.on_progress = stop_requested, on_progress
        self.config, self.plan = population.configs[0], population.compiled.plan
        self.members = [EarlyStopping() for _ in population.configs]
        self.windows = [MetricWindow(self.plan.log_every) for _ in population.configs]
        self.recorder = FlowRecorder(self.config, self.plan, rundir, self._measure)
        self.feed, self.is_single = population.feed(), population.compiled.single
        self.profile = Profile(None, None)
        self.latest_metrics: dict[str, float] = {}
        self.step, self.seconds, self.resumed = 0, 0.0, False
        self._call_steps, self._saved, self._best_saved = 1, -1, -1

    @property
    def going(self) -> np.ndarray:
        """Which members are still training, `[R]`."""
        return np.array([not m.has_ended and m.steps < self.plan.steps for m in self.members])

    @property
    def parameters(self) -> int:
        """Trained numbers in the network of one member."""
        return sum(leaf.size // len(leaf) for leaf in jax.tree.leaves(self.state.params))

    def train(self, until: int | None = None) -> None:
        """Train all members that are going on to step `until`, or to their end.

        Raises:
            PreemptedError: it was asked to end, and has saved where it is.
        """
        stop = self.plan.steps if until is None else min(until, self.plan.steps)
        self._began = time.monotonic() - self.seconds
        self.pace = Pace(self.step)
        if self._saved < 0:
            self._validate()
        while self.step < stop and self.going.any():
            self._advance(min(stop, self.plan.next_stop(self.step)))
            self.recorder.record(self.step, self.state.params)
            if self.step % self.plan.eval_every == 0 or self.step == self.plan.steps:
                self._validate()
            self._stop_if_requested()

    # What a run by itself and a population do each in its own way

    @abc.abstractmethod
    def _line(self, member: int, split: str, step: int, metrics: Mapping[str, float]) -> Json:
        """A line of metrics."""

    @abc.abstractmethod
    def _diverged(self, member: int, what: str, split: str) -> None:
        """A member met a number that is not finite, in training or in validation."""

    def _measure(self, params: PyTree) -> Mapping[str, Any]:
        """The instruments' readings, as they are recorded."""
        readings = self.population.measure(params)
        return {name: value[0] for name, value in readings.items()} if self.is_single else readings

    def _write_lines(self, lines: Sequence[Json]) -> None:
        """Put lines of metrics on disk."""
        self.rundir.append_metrics(lines)

    def _on_main(self, work: Callable[[], Any]) -> Any:
        """Do something where the files are; members of a population are all in one process."""
        return work()

    def _from_main(self, tree: PyTree) -> PyTree:
        """Arrays that were read where the files are."""
        return tree

    # Training

    def _advance(self, stop: int) -> None:
        """Train to step `stop`, in calls of about `call_seconds`; members that end, end alone."""
        while self.step < stop and self.going.any():
            first, going = self.step, self.going
            self.profile.reached(first)
            count = min(self._call_steps, (self.profile.next_mark(first) or stop) - first, stop - first)
            started = time.monotonic()
            data, indices = self.feed.next(first, count)
            skipped = np.array([(m.num_skipped, m.num_skipped_in_a_row) for m in self.members], np.int32)
            result = self.population.train(self.state, data, indices, np.where(going, count, 0), skipped)
            self.state, self.step = result.state, first + count
            self.profile.reached(self.step)
            wanted = self.call_seconds * count / (time.monotonic() - started)
            self._call_steps = self._on_main(lambda: int(np.clip(wanted, 1, self.feed.most_steps)))  # noqa: B023
            self.recorder.record_live(
                first, count, {k: v[0] if self.is_single else v.swapaxes(0, 1) for k, v in result.live.items()}
            )
            finished = np.asarray(result.state.step) - first
            self.pace.update(self.step)
            lines = []
            for i in np.flatnonzero(going).tolist():
                metrics = {name: values[i] for name, values in result.metrics.items()}
                lines += self._training_lines(i, first, int(finished[i]), metrics, stop)
            self._write_lines(lines)
            self.seconds = time.monotonic() - self._began
            if self.is_single and self.members[0].num_skipped > skipped[0, 0]:
                log_once(logger, self.members[0].describe_skips(first, self.config))
            for i in np.flatnonzero(going & ~result.finite).tolist():
                self._diverged(i, self.members[i].describe_last_step(), "train")
            self.on_progress(self)
            if self.step < stop:  # where something is due, that comes first
                self._stop_if_requested()

    def _training_lines(
        self, member: int, first: int, count: int, metrics: Mapping[str, np.ndarray], stop: int
    ) -> list[dict[str, Any]]:
        """The lines that are due on a member's last `count` steps."""
        lines = []
        for offset in range(count):
            step = first + offset + 1
            of_step = {name: values[offset] for name, values in metrics.items()}
            self.members[member].count_step(is_skipped=bool(of_step.get(SKIPPED, False)))
            means = self.windows[member].add(step, of_step, last=step == stop)
            if means is not None:
                self.latest_metrics |= means
                lines.append(self._line(member, "train", step, means))
        return lines

    def _validate(self) -> None:
        """Evaluate, compare with the best, save: in the order that leaves every kill recoverable."""
        running = np.array([not member.has_ended for member in self.members])
        better, lines = np.zeros(len(running), bool), []
        evaluated = self.population.evaluate(self.state.params, "valid", running)
        self.seconds = time.monotonic() - self._began
        for i, metrics in enumerate(evaluated):
            if metrics is None:
                continue
            if not np.isfinite(list(metrics.values())).all():
                self._diverged(i, f"validation at step {self.step} is not finite", "valid")
                continue
            better[i] = self.members[i].update(self.population.configs[i], metrics)
            self.latest_metrics |= {f"valid_{name}": value for name, value in metrics.items()}
            lines.append(self._line(i, "valid", self.step, metrics))
        self._follow_plateaus()
        self.recorder.record(self.step, self.state.params)
        self._write_lines(lines)
        self._keep_best(better)
        self._save()
        self.on_progress(self)

    def _follow_plateaus(self) -> None:
        """Train on with the learning rates that validations have led to."""
        if self.config.optimizer.schedule == "plateau":
            pairs = zip(self.members, self.population.configs, strict=True)
            self.population.scale_learning_rates(np.array([member.rate_factor(config) for member, config in pairs]))

    def _evaluate_ends(self) -> list[Evaluations]:
        """The metrics of every member's last and best network."""
        everyone = np.ones(len(self.members), bool)
        other = np.array([member.best_step != member.steps for member in self.members])
        best_params = self.population.from_host(self.best).params if other.any() else None
        scored, none = self.config.task.scored_splits, {split: {} for split in SPLITS[1:]}
        final, best = (
            {split: self.population.evaluate(params, split, which) for split in scored if which.any()}
            for params, which in ((self.state.params, everyone), (best_params, other))
        )
        return [
            Evaluations(*({**none, **{s: m[s][i] for s in m}} for m in (final, best if is_other else final)))
            for i, is_other in enumerate(other)
        ]

    # Checkpoints

    def _keep_best(self, better: np.ndarray) -> None:
        """Keep the networks that were better in validation, and save them with the best of the others."""
        state = self.population.to_host(self.state)
        if self._best_saved < 0 or better.all():
            self.best = jax.tree.map(np.array, state)
        elif better.any():
            chosen = [better.reshape(-1, *[1] * (leaf.ndim - 1)) for leaf in jax.tree.leaves(state)]
            chosen = jax.tree.unflatten(jax.tree.structure(state), chosen)
            self.best = jax.tree.map(np.where, chosen, state, self.best)
        elif self.population.count == 1:
            return
        self._best_saved = self.step
        self._write(BEST, self.best)

    def _save(self) -> None:
        """Save where the training is."""
        self._write(LATEST, self.population.to_host(self.state))
        self._saved = self.step

    def _write(self, kind: str, state: dict[str, Any]) -> None:
        metadata = CheckpointMetadata(
            step=self.step,
            seconds=self.seconds,
            metric_lines=self.rundir.lines,
            recordings=self.recorder.count,
            best_saved=self._best_saved,
            members=self.members,
            pending_metrics=[window.pending for window in self.windows],
            data_position=self.feed.position(),
        )

        def write() -> None:
            self.rundir.check()
            self.recorder.write()
            self.checkpoints.save(kind, self.step, state, dataclasses.asdict(metadata))

        self._on_main(write)

    def _stop_if_requested(self) -> None:
        if not self.stop_requested() or not self.going.any():
            return
        if self.step != self._saved:
            self.seconds = time.monotonic() - self._began
            self._save()
        raise PreemptedError(f"asked to end: step {self.step} of {self.plan.steps} is saved")

    def restore(self) -> None:
        """Take up the latest checkpoint that is whole, or start."""
        like = self.population.empty()
        loaded: dict[str, Any] = {}

        def find() -> dict[str, Any] | None:
            metadata = self._find(like, loaded)
            self.rundir.rewind(-1 if metadata is None else metadata.step, metadata and metadata.metric_lines)
            if metadata is None:
                return None
            self.recorder.restore(metadata.recordings)
            return dataclasses.asdict(metadata)

        content = self._on_main(find)
        if content is None:
            starts = starting_points_of_members(self.population.configs)
            listings = [start.listing for start in starts]
            self._on_main(lambda: write_listings(self.rundir.path, listings, single=self.is_single))
            self.state = self.population.initial([start.weights for start in starts])
            self.feed.start(0, None)
            return
        metadata = CheckpointMetadata.from_json(content, len(self.members))
        self._take_up(metadata, self._from_main(loaded or {"latest": like, "best": like}))

    def _take_up(self, metadata: CheckpointMetadata, states: dict[str, Any]) -> None:
        self.state, self.best = self.population.from_host(states["latest"]), states["best"]
        self.step = self._saved = metadata.step
        self.seconds, self._best_saved, self.members = metadata.seconds, metadata.best_saved, metadata.members
        self.windows = [MetricWindow(self.plan.log_every, pending) for pending in metadata.pending_metrics]
        self.feed.start(self.step, metadata.data_position)
        self._follow_plateaus()
        self.resumed = True
        self.on_progress(self)

    def _find(self, like: dict[str, Any], loaded: dict[str, Any]) -> CheckpointMetadata | None:
        """The latest checkpoint that is whole and has the best networks beside it; its states go to `loaded`."""
        had_checkpoints, lost = bool(self.checkpoints.steps(LATEST)), "every checkpoint"

        def read(content: Json) -> CheckpointMetadata:
            return CheckpointMetadata.from_json(content, len(self.members))

        while (newest := self.checkpoints.newest(LATEST, like, read)) is not None:
            step, state, metadata = newest
            best = self._find_best(state, metadata, like)
            if best is not None:
                loaded.update(latest=state, best=best)
                return metadata
            lost = "the best network"
            kept = self.checkpoints.quarantine(LATEST, step)
            logger.warning("step %s: its best network is lost; kept as %s, the one before it is used", step, kept)
        if had_checkpoints:
            logger.warning("%s is lost: the training, which comes to the same again, begins anew", lost)
            for step in self.checkpoints.steps(BEST):
                self.checkpoints.quarantine(BEST, step)
        return None

    def _find_best(
        self, state: dict[str, Any], metadata: CheckpointMetadata, like: dict[str, Any]
    ) -> dict[str, Any] | None:
        """The best networks that go with a checkpoint, mended from their twin if they are damaged; None if lost."""
        was_replaced = any(step > metadata.step for step in self.checkpoints.steps(BEST))
        newest = self.checkpoints.newest(BEST, like)
        if newest is not None and (newest[0] == metadata.best_saved or newest[0] > metadata.step):
            return newest[1]
        if was_replaced and len(self.members) == 1:
            return state  # a better one took its place, and the step of that one will come again
        is_twin = all(member.best_step == metadata.best_saved for member in metadata.members)
        if is_twin and metadata.best_saved in self.checkpoints.steps(LATEST):
            twin, content = self.checkpoints.restore(LATEST, like, metadata.best_saved)
            self.checkpoints.save(BEST, metadata.best_saved, twin, content)
            return twin
        return None
