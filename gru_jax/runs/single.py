"""A run by itself, from an empty or a started directory to its summary."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import jax
import numpy as np
from jaxtyping import PyTree

from gru_jax.config import Config, fingerprint, plan
from gru_jax.errors import UsageError
from gru_jax.runs import pictures
from gru_jax.runs.checkpoints import Checkpoints
from gru_jax.runs.diagnosis import Failure, NonFiniteError, explain, explain_update, find_invalid_batch, keep_failure
from gru_jax.runs.directory import RunDir
from gru_jax.runs.loop import TrainingLoop
from gru_jax.runs.profiling import Profile
from gru_jax.runs.summary import summarise
from gru_jax.runs.teacher import teacher_of
from gru_jax.runs.writers import WRITERS, Writer
from gru_jax.runtime.devices import Device, devices_here, peak_memory
from gru_jax.runtime.files import Json, write_json
from gru_jax.runtime.preemption import StopRequested
from gru_jax.runtime.processes import (
    any_process,
    arrays_from_main_process,
    is_main_process,
    log_once,
    on_main_process,
)
from gru_jax.tasks.loading import Splits
from gru_jax.training.population import CompiledPopulation, Population

logger = logging.getLogger(__name__)


class SingleRun(TrainingLoop):
    """One run in its directory: a population of one, whose batches are split over all devices and processes.

    Args:
        config: the config.
        rundir: its directory, started.
        splits: its data.
        devices: where it takes place; JAX's default device must be the first.
        stop_requested: whether it has been asked to end.
        on_progress: see `TrainingLoop`.
    """

    call_seconds = 0.5  # short enough to show progress

    def __init__(
        self,
        config: Config,
        rundir: RunDir,
        splits: Splits,
        devices: Sequence[Device],
        stop_requested: StopRequested = lambda: False,
        on_progress: Callable[[Any], None] = lambda run: None,
    ) -> None:
        self.device, is_main, durations = devices_here(devices)[0], is_main_process(), plan(config)
        least_kept = 2 if durations.steps % durations.eval_every else 1  # see `gru_jax.runs.growth`
        checkpoints = Checkpoints(
            rundir.checkpoints,
            self.device,
            max(config.train.keep, least_kept),
            keep_best=least_kept,
            read_only=not is_main,
            fingerprint=fingerprint(config, of_any_length=True),
        )
        population = Population(
            CompiledPopulation(config, splits, devices, single=True, teacher=teacher_of(config)), [config]
        )
        super().__init__(population, rundir, checkpoints, lambda: any_process(stop_requested()), on_progress)
        self.writers: list[Writer] = []

    def train_to_the_end(self) -> Json:
        """Train, and write the summary, which is returned.

        Raises:
            NonFiniteError: a step was not finite.
            PreemptedError: it was asked to end, and has saved where it is.
        """
        with contextlib.ExitStack() as stack:
            self.restore()
            self.members[0].reconsider(self.config)
            if self.resumed:
                log_once(logger, f"resuming at step {self.step} of {self.plan.steps}")
            for name in (self.config.writers or ()) if is_main_process() else ():
                self.writers.append(WRITERS[name](self.rundir.path, self.config.to_dict(), self.step))
                stack.callback(self.writers[-1].close)
            log_once(logger, f"{self.parameters:,} parameters, {self.plan.steps:,} steps")
            self.profile = Profile(
                self.config.profile_steps, self.rundir.path / "profile" if is_main_process() else None
            )
            stack.callback(self.profile.close)
            self.train()
            self.recorder.record(self.step, self.state.params, end=True)
            self._on_main(self.recorder.write)
            self.profile.close()
            log_once(logger, self.recorder.overhead(time.monotonic() - self._began))
            summary = self._finish()
            self.checkpoints.close()
        self._on_main(lambda: write_json(self.rundir.summary, summary))
        return summary

    def _finish(self) -> Json:
        (evaluations,), progress = self._evaluate_ends(), self.members[0]
        for of_splits, step in ((evaluations.final, progress.steps), (evaluations.best, progress.best_step)):
            for split, metrics in of_splits.items():
                if not np.isfinite(list(metrics.values())).all():
                    state = self.state if step == progress.steps else self.population.from_host(self.best)
                    params = jax.tree.map(lambda leaf: leaf[0], state.params)
                    self._diverged(0, f"{split} of the network of step {step} is not finite", split, params)
        self._write_lines([self._line(0, "test", step, metrics) for step, metrics in evaluations.tested(progress)])
        self._on_main(self._draw)
        summary = summarise(
            self.config,
            progress,
            *evaluations,
            seconds=self.seconds,
            parameters=self.parameters,
            **peak_memory(self.device),
        )
        for writer in self.writers:
            writer.conclude(summary)
        return summary

    def _draw(self) -> None:  # nothing is told to other processes
        pictures.draw_pictures(self.rundir, self.config)

    def _line(self, member: int, split: str, step: int, metrics: Mapping[str, float]) -> Json:
        clock = {"time": round(time.time(), 3)}
        if split == "train":
            clock["steps_per_second"] = round(self.pace.rate(), 3)
        return {"step": step, "split": split, **metrics, **clock}

    def _write_lines(self, lines: Sequence[Json]) -> None:
        self._on_main(lambda: self.rundir.append_metrics(lines))
        for writer in self.writers:
            writer.write(lines)

    def _on_main(self, work: Callable[[], Any]) -> Any:
        return on_main_process(work)

    def _from_main(self, tree: PyTree) -> PyTree:
        return arrays_from_main_process(tree)

    def _diverged(self, member: int, what: str, split: str, params: PyTree = None) -> NoReturn:
        """Say where the network, or that of other parameters, is not finite, and keep all to look at it again.

        Raises:
            NonFiniteError: always.
        """
        compiled, trainer = self.population.compiled, self.population.compiled.trainer
        step, state = self.members[member].steps, jax.tree.map(lambda a: a[member], self.state)
        if params is None:
            params = state.training_params if split == "train" else state.params
        if split == "train":
            data, indices = self.feed.at(step)
            batch_of = jax.jit(trainer.batch, out_shardings=compiled.replicated)
            batch = batch_of(self.config.seed, dict(data), indices[member, 0])
        else:
            batch = find_invalid_batch(trainer, params, compiled.data[split], split)
        where = explain(trainer, params, batch)
        if where is None and split == "train":
            where = explain_update(trainer, state, self.config.seed, self.population.hyperparameters_of(member), batch)
        saved, kept = self.checkpoints.step(), True
        good = "there is no checkpoint yet" if saved is None else f"the last good checkpoint is of step {saved}"
        message = (
            f"{what}: {where or 'every state is finite, a metric is not'}; {good}, in {self.checkpoints.directory}"
        )
        failure = Failure(step, what, split, params, batch)
        try:
            self._on_main(lambda: keep_failure(self.checkpoints.directory, self.device, failure))
        except UsageError as error:  # a full disk; what was found matters more
            message, kept = f"{message}; its batch is not kept, {error}", False
        raise NonFiniteError(message, batch_kept=kept)
