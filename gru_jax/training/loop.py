"""The training of one run, from an empty or a started directory to its summary."""

from __future__ import annotations

import dataclasses
import time
from typing import Any, NoReturn

import jax
import numpy as np

from gru_jax.config import Config, plan
from gru_jax.tasks import SPLITS, split_key
from gru_jax.training import plots
from gru_jax.training.checkpoints import BEST, LATEST, Checkpoints
from gru_jax.training.diagnosis import NonFiniteError, explain
from gru_jax.training.environment import Device, peak_memory
from gru_jax.training.evaluation import build_evaluator
from gru_jax.training.instruments import build_instruments
from gru_jax.training.model import build_model
from gru_jax.training.numbers import numbers_of
from gru_jax.training.progress import Progress
from gru_jax.training.recorder import FlowRecorder
from gru_jax.training.rundir import RunDir, write_json
from gru_jax.training.standing import Standing, TrainLog
from gru_jax.training.step import Trainer, TrainState, batch_indices

CALL_SECONDS = 0.5  # aimed at for one call of the compiled program: short enough to show progress
Splits = dict[str, dict[str, np.ndarray]]


class Run:
    """One run in its directory.

    Args:
        config: the config.
        rundir: its directory, started.
        splits: the arrays of every split, from `Task.load`.
        device: where it takes place; JAX's default device must be the same.
    """

    def __init__(self, config: Config, rundir: RunDir, splits: Splits, device: Device) -> None:
        self.device = device
        self.config, self.rundir, self.plan, self.task = config, rundir, plan(config), config.task
        model = build_model(config)
        self.trainer = Trainer(config, self.plan, model)
        self.evaluate = build_evaluator(config, model)
        self.flow = FlowRecorder(
            config, self.plan, rundir, jax.jit(build_instruments(config, model, split_key("valid", 0)))
        )
        self.data = {split: jax.device_put(arrays) for split, arrays in splits.items()}
        self.indices = batch_indices(self.task, config.train.batch_size, config.seed)
        self.numbers = numbers_of(config)
        self.checkpoints = Checkpoints(rundir.checkpoints, device, config.train.keep)
        self.standing = Standing()
        self.log = TrainLog(self.plan.log_every)
        self.call_steps = 1

    # Start and end

    def train(self) -> dict[str, Any]:
        """Train to the end and write the summary, which is returned.

        Raises:
            NonFiniteError: a step was not finite.
        """
        began = time.monotonic()
        resumed = self._restore()
        print(f"{self.parameters:,} parameters, {self.plan.steps:,} steps", flush=True)
        self.progress = Progress(self.plan.steps, self.step)
        spent_before = self.standing.seconds
        try:
            if not resumed:
                self._validate()
            while self.step < self.plan.steps and self.standing.stopped is None:
                self._advance(self._next_stop())
                self.flow.record(self.step, self.state.params, self.data["valid"])
                if self.step % self.plan.eval_every == 0 or self.step == self.plan.steps:
                    self.standing.seconds = spent_before + time.monotonic() - began
                    self._validate()
            self.flow.record(self.step, self.state.params, self.data["valid"], end=True)
            self.flow.write()
        finally:
            self.progress.close()
        print(self.flow.overhead(time.monotonic() - began), flush=True)
        summary = self._summarise()
        self.checkpoints.close()
        write_json(self.rundir.summary, summary)
        return summary

    @property
    def step(self) -> int:
        """Steps done."""
        return int(self.state.step)

    @property
    def parameters(self) -> int:
        """Trained numbers in the network."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.state.params))

    def _restore(self) -> bool:
        """Take up the latest checkpoint, or start; whether there was one."""
        if self.checkpoints.step() is None:
            self.state = self.trainer.init(self.config.seed, self.numbers)
            self.rundir.rewind(-1)
            return False
        shapes = jax.eval_shape(self.trainer.init, self.config.seed, self.numbers)
        state, host = self.checkpoints.restore(LATEST, shapes._asdict())
        self.state = TrainState(**state)
        self.standing = Standing(**host)
        self.rundir.rewind(self.step)
        self.flow.restore()
        print(f"resuming at step {self.step} of {self.plan.steps}", flush=True)
        return True

    # Training

    def _next_stop(self) -> int:
        marks = [every for every in (self.plan.eval_every, self.plan.flow_every) if every]
        return min(self.plan.steps, *((self.step // every + 1) * every for every in marks))

    def _advance(self, stop: int) -> None:
        """Train to step `stop`, in calls of about `CALL_SECONDS`, writing a line every `log_every` steps."""
        size = self.config.train.call_steps
        while self.step < stop:
            first = self.step
            count = min(self.call_steps, stop - first)
            indices = np.zeros((size, self.config.train.batch_size), np.int32)
            indices[:count] = self.indices(first, count)
            started = time.monotonic()
            done = self.trainer.run(
                self.state, self.config.seed, self.numbers, self.data["train"], indices, np.int32(count)
            )
            self.state = done.state
            metrics = {k: np.asarray(v) for k, v in done.metrics.items()}  # waits for the device
            finished = self.step - first
            if finished:
                per_step = (time.monotonic() - started) / finished
                self.call_steps = int(np.clip(CALL_SECONDS / per_step, 1, size))
            self.flow.record_live(first, finished, {k: np.asarray(v) for k, v in done.live.items()})
            for offset in range(finished):
                self._note(first + offset + 1, {k: v[offset] for k, v in metrics.items()}, stop)
            if not bool(done.finite):
                self._stop_non_finite(indices[finished])

    def _note(self, step: int, metrics: dict[str, np.floating], stop: int) -> None:
        means = self.log.add(step, metrics, last=step == stop)
        if means is not None:
            self.progress.update(step, means)
            clock = {"time": round(time.time(), 3), "steps_per_second": round(self.progress.rate(), 3)}
            self.rundir.append_metrics([{"step": step, "split": "train", **means, **clock}])

    def _stop_non_finite(self, index: np.ndarray) -> NoReturn:
        """Say where the step after this one fails, on the batch with these indices."""
        batch = jax.jit(self.trainer.batch)(self.config.seed, self.data["train"], index)
        where = explain(self.trainer, self.state.params, batch)
        where = where or "all states and their gradients are finite, the parameters' gradient or update is not"
        raise NonFiniteError(f"step {self.step + 1} is not finite: {where}; {self._last_good()}")

    def _stop_invalid(self) -> NoReturn:
        """Say where the network as it is fails on validation data."""
        size, batch_size = self.task.size("valid") or 0, self.config.train.batch_size
        batches = jax.jit(lambda index: self.task.batch(self.data["valid"], split_key("valid", 0), index))
        for first in range(0, size, batch_size):
            index = np.minimum(np.arange(first, first + batch_size), size - 1).astype(np.int32)
            where = explain(self.trainer, self.state.params, batches(index))
            if where is not None:
                break
        else:
            where = "every state is finite, a metric is not"
        raise NonFiniteError(f"validation at step {self.step} is not finite: {where}; {self._last_good()}")

    def _last_good(self) -> str:
        saved = self.checkpoints.step()
        if saved is None:
            return "there is no checkpoint yet"
        return f"the last good checkpoint is of step {saved}, in {self.checkpoints.directory}"

    # Looking at it

    def _validate(self) -> None:
        """Evaluate, compare with the best, save: in the order that leaves every kill recoverable."""
        metrics = self.evaluate(self.state.params, "valid", self.data["valid"])
        if not np.isfinite(list(metrics.values())).all():
            self._stop_invalid()
        better = self.standing.judge(self.config, self.step, metrics)
        self.progress.update(self.step, {f"valid_{k}": v for k, v in metrics.items()})
        if self.step == 0:
            self.flow.record(0, self.state.params, self.data["valid"])
        self.rundir.append_metrics([{"step": self.step, "split": "valid", **metrics, "time": round(time.time(), 3)}])
        self.flow.write()
        host = dataclasses.asdict(self.standing)
        if better:
            self.checkpoints.save(BEST, self.step, self.state._asdict(), host)
        self.checkpoints.save(LATEST, self.step, self.state._asdict(), host)

    def _summarise(self) -> dict[str, Any]:
        last, steps = self.state, self.step
        final = {split: self.evaluate(last.params, split, self.data[split]) for split in SPLITS[1:]}
        best_step, best = self.standing.best_step, final
        if best_step != steps:
            params = self.checkpoints.restore(BEST, last._asdict())[0]["params"]
            best = {split: self.evaluate(params, split, self.data[split]) for split in SPLITS[1:]}
        lines = {best_step: best["test"], steps: final["test"]}
        self.rundir.append_metrics(
            [{"step": s, "split": "test", **m, "time": round(time.time(), 3)} for s, m in sorted(lines.items())]
        )
        plots.draw(self.rundir, self.config)
        summary = self.standing.summary(self.config, steps, final, best, self.parameters)
        return {**summary, **peak_memory(self.device)}


def load_splits(config: Config) -> Splits:
    """The arrays of every split.

    Raises:
        UsageError: data are missing or damaged.
    """
    return {split: config.task.load(split) for split in SPLITS}


__all__ = ["NonFiniteError", "Run", "load_splits"]
