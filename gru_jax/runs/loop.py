"""The training of one run, from an empty or a started directory to its summary."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import time
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from experiments.progress import Progress
from gru_jax.config import Config, identity, plan
from gru_jax.config.hyperparameters import numbers_of
from gru_jax.data.feed import Splits, build_feed
from gru_jax.errors import UsageError
from gru_jax.plotting import runs as plots
from gru_jax.runs.checkpoints import BEST, LATEST, Checkpoints
from gru_jax.runs.diagnosis import NonFiniteError, explain, keep_failure
from gru_jax.runs.directory import RunDir
from gru_jax.runs.early_stopping import Standing, TrainLog, read_standing
from gru_jax.runs.profiling import Profile
from gru_jax.runs.recorder import FlowRecorder
from gru_jax.runs.writers import WRITERS, Writer
from gru_jax.runtime.devices import Device, devices_here, peak_memory
from gru_jax.runtime.files import write_json
from gru_jax.runtime.preemption import Asked, PreemptedError
from gru_jax.runtime.processes import anywhere, arrays_of_lead, by_lead, leads, placed, say
from gru_jax.tasks import SPLITS, Batch, split_key
from gru_jax.training.evaluation import build_evaluator
from gru_jax.training.instruments import build_instruments
from gru_jax.training.model import build_model
from gru_jax.training.step import Trainer, TrainState

CALL_SECONDS = 0.5  # aimed at for one call of the compiled program: short enough to show progress


class Run:
    """One run in its directory.

    Args:
        config: the config.
        rundir: its directory, started.
        splits: the arrays of every split, from `Task.load`.
        devices: where it takes place; JAX's default device must be the first.
        asked: whether it has been asked to end; see `gru_jax.runtime.preemption`.
    """

    def __init__(
        self, config: Config, rundir: RunDir, splits: Splits, devices: Sequence[Device], asked: Asked = lambda: False
    ) -> None:
        self.device = devices_here(devices)[0]
        self.asked = lambda: anywhere(asked())
        mesh = Mesh(np.array(devices), ("batch",)) if len(devices) > 1 else None
        self.everywhere = SingleDeviceSharding(devices[0]) if mesh is None else NamedSharding(mesh, PartitionSpec())
        self.config, self.rundir, self.plan, self.task = config, rundir, plan(config), config.task
        model = build_model(config)
        self.trainer = Trainer(config, self.plan, model, mesh)
        self.evaluate = build_evaluator(config, model)
        self.flow = FlowRecorder(
            config, self.plan, rundir, jax.jit(build_instruments(config, model, split_key("valid", 0)))
        )
        self.data = {split: placed(dict(splits[split]), self.everywhere) for split in SPLITS[1:]}
        self.feed = build_feed(config, self.plan.steps, splits["train"], self.everywhere)
        self.numbers = numbers_of(config)
        owner = identity(config)
        self.checkpoints = Checkpoints(
            rundir.checkpoints, self.device, config.train.keep, read_only=not leads(), owner=owner
        )
        self.standing = Standing()
        self.log = TrainLog(self.plan.log_every)
        self.writers: list[Writer] = []
        self.profile = Profile(config.profiled, rundir.path / "profile" if leads() else None)
        self.call_steps, self._saved = 1, -1

    # Start and end

    def train(self) -> dict[str, Any]:
        """Train to the end and write the summary, which is returned.

        Raises:
            NonFiniteError: a step was not finite.
            PreemptedError: it was asked to end, and has saved where it is.
        """
        with contextlib.ExitStack() as stack:
            resumed = self._restore()
            for name in (self.config.writers or ()) if leads() else ():
                writer = WRITERS[name](self.rundir.path, self.config.to_dict(), self.step)
                self.writers.append(writer)
                stack.callback(writer.close)
            self._train(resumed)
            summary = self._summarise()
            self.checkpoints.close()
        by_lead(lambda: write_json(self.rundir.summary, summary))
        return summary

    def _train(self, resumed: bool) -> None:
        say(f"{self.parameters:,} parameters, {self.plan.steps:,} steps")
        self.progress = Progress(self.plan.steps, self.step, shown=leads())
        self._began = time.monotonic() - self.standing.seconds
        try:
            self.profile.reached(self.step)
            if not resumed:
                self._validate()
            while self.step < self.plan.steps and self.standing.stopped is None:
                self._advance(self.plan.next_stop(self.step))
                self.flow.record(self.step, self.state.params, self.data["valid"])
                if self.step % self.plan.eval_every == 0 or self.step == self.plan.steps:
                    self._validate()
                self._end_if_asked()
            self.flow.record(self.step, self.state.params, self.data["valid"], end=True)
            by_lead(self.flow.write)
        finally:
            self.progress.close()
            self.profile.close()
        say(self.flow.overhead(time.monotonic() - self._began))

    @property
    def step(self) -> int:
        """Steps done."""
        return int(self.state.step)

    @property
    def parameters(self) -> int:
        """Trained numbers in the network."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.state.params))

    def _restore(self) -> bool:
        """Take up the latest checkpoint that is whole, or start; whether there was one."""
        like = jax.eval_shape(self.trainer.init, self.config.seed, self.numbers)._asdict()
        loaded: dict[str, Any] = {}

        def find() -> tuple[int, dict[str, Any]] | None:
            found = self._found(like)
            if found is None:
                self.rundir.rewind(-1)
                return None
            step, state, host = found
            loaded.update(state)
            self.rundir.rewind(step, host["lines"])
            self.flow.restore(host["recordings"])
            return step, host

        found = by_lead(find)
        if found is None:
            self.state = placed(self.trainer.init(self.config.seed, self.numbers), self.everywhere)
            self.feed.start(0, None)
            return False
        self._saved, host = found
        self.state = placed(TrainState(**arrays_of_lead(loaded or like)), self.everywhere)
        self.standing = read_standing(Standing, host["standing"])
        self.log = TrainLog.from_host(self.plan.log_every, host["log"])
        self.feed.start(self.step, host["data"])
        say(f"resuming at step {self.step} of {self.plan.steps}")
        return True

    def _found(self, like: dict[str, Any]) -> tuple[int, dict[str, Any], dict[str, Any]] | None:
        """The latest checkpoint that is whole and has the best network beside it."""
        began = bool(self.checkpoints.steps(LATEST))
        found = self.checkpoints.newest(LATEST, like, _host)
        if found is not None and self._best_is_there(found[0], found[2]["standing"]["best_step"], like):
            return found
        if began:
            lost = "every checkpoint" if found is None else "the best network"
            say(f"{lost} is lost: the training, which comes to the same again, begins anew")
            for which in (LATEST, BEST):
                for step in self.checkpoints.steps(which):
                    self.checkpoints.set_aside(which, step)
        return None

    def _best_is_there(self, latest: int, best: int, like: dict[str, Any]) -> bool:
        """Whether the best network up to the step `latest` is whole, or will be made; mended from its twin if not."""
        if any(step > latest for step in self.checkpoints.steps(BEST)):
            return True  # it took the place of the one before, and its step will come again
        found = self.checkpoints.newest(BEST, like)
        if found is not None and found[0] == best:
            return True
        for step in self.checkpoints.steps(LATEST):
            if step == best:
                state, host = self.checkpoints.restore(LATEST, like, step)
                self.checkpoints.save(BEST, step, state, host)
                return True
        return False

    def _save(self) -> None:
        """Save where the training is."""
        self._write(LATEST)
        self._saved = self.step

    def _write(self, which: str) -> None:
        step, state, host = self.step, self.state._asdict(), self._host()

        def write() -> None:
            self.rundir.check()
            self.flow.write()
            self.checkpoints.save(which, step, state, host)

        by_lead(write)

    def _host(self) -> dict[str, Any]:
        return {
            "standing": dataclasses.asdict(self.standing),
            "log": self.log.to_host(),
            "data": self.feed.position(),
            "lines": self.rundir.lines,
            "recordings": self.flow.count,
        }

    def _end_if_asked(self) -> None:
        if not self.asked() or self.step == self.plan.steps or self.standing.stopped is not None:
            return
        if self.step != self._saved:
            self.standing.seconds = time.monotonic() - self._began
            self._save()
        raise PreemptedError(f"asked to end: step {self.step} of {self.plan.steps} is saved")

    # Training

    def _advance(self, stop: int) -> None:
        """Train to step `stop`, in calls of about `CALL_SECONDS`, writing a line every `log_every` steps."""
        size = self.feed.most
        while self.step < stop:
            first = self.step
            count = min(self.call_steps, (self.profile.next_mark(first) or stop) - first, stop - first)
            started = time.monotonic()
            data, indices = self.feed.next(first, count)
            done = self.trainer.run(self.state, self.config.seed, self.numbers, data, indices, np.int32(count))
            self.state = done.state
            self.profile.reached(self.step)
            metrics = {k: np.asarray(v) for k, v in done.metrics.items()}  # waits for the device
            finished = self.step - first
            if finished:
                per_step = (time.monotonic() - started) / finished
                self.call_steps = by_lead(lambda: int(np.clip(CALL_SECONDS / per_step, 1, size)))  # noqa: B023
            self.flow.record_live(first, finished, {k: np.asarray(v) for k, v in done.live.items()})
            for offset in range(finished):
                self._note(first + offset + 1, {k: v[offset] for k, v in metrics.items()}, stop)
            if not bool(done.finite):
                self._stop_non_finite()
            if self.step < stop:  # where something is due, that comes first
                self._end_if_asked()

    def _note(self, step: int, metrics: dict[str, np.floating], stop: int) -> None:
        means = self.log.add(step, metrics, last=step == stop)
        if means is not None:
            self.progress.update(step, means)
            clock = {"time": round(time.time(), 3), "steps_per_second": round(self.progress.rate(), 3)}
            self._append([{"step": step, "split": "train", **means, **clock}])

    def _append(self, lines: Sequence[Mapping[str, Any]]) -> None:
        by_lead(lambda: self.rundir.append_metrics(lines))
        for writer in self.writers:
            writer.write(lines)

    def _stop_non_finite(self) -> NoReturn:
        """Say where the step after this one fails."""
        data, indices = self.feed.again(self.step)
        batch = jax.jit(self.trainer.batch, out_shardings=self.everywhere)(self.config.seed, data, indices[0])
        where = explain(self.trainer, self.state.params, batch)
        where = where or "all states and their gradients are finite, the parameters' gradient or update is not"
        self._stop(f"step {self.step + 1} is not finite", "train", where, batch)

    def _stop_invalid(self) -> NoReturn:
        """Say where the network as it is fails on validation data."""
        size, batch_size = self.task.size("valid") or 0, self.config.train.batch_size
        batches = jax.jit(lambda index: self.task.batch(self.data["valid"], split_key("valid", 0), index))

        def at(first: int) -> tuple[Batch, str | None]:
            batch = batches(np.minimum(np.arange(first, first + batch_size), size - 1).astype(np.int32))
            return batch, explain(self.trainer, self.state.params, batch)

        first = next((first for first in range(0, size, batch_size) if at(first)[1]), 0)
        batch, where = at(first)
        where = where or "every state is finite, a metric is not"
        self._stop(f"validation at step {self.step} is not finite", "valid", where, batch)

    def _stop(self, what: str, split: str, where: str, batch: Batch) -> NoReturn:
        """End, with all that is needed to look at it again."""
        directory, saved = self.checkpoints.directory, self.checkpoints.step()
        step, params = self.step, self.state.params
        found = {"split": split, "what": what}
        replay = shlex.join(["python", "-m", "experiments.replay", "--workdir", str(self.rundir.path)])
        told = f"{replay} runs its batch again"
        try:
            by_lead(lambda: keep_failure(directory, self.device, step, params, batch, found))
        except UsageError as error:  # a full disk; what was found matters more
            told = f"its batch is not kept, {error}"
        good = "there is no checkpoint yet" if saved is None else f"the last good checkpoint is of step {saved}"
        raise NonFiniteError(f"{what}: {where}; {good}, in {directory}; {told}")

    # Looking at it

    def _validate(self) -> None:
        """Evaluate, compare with the best, save: in the order that leaves every kill recoverable."""
        metrics = self.evaluate(self.state.params, "valid", self.data["valid"])
        self.standing.seconds = time.monotonic() - self._began
        if not np.isfinite(list(metrics.values())).all():
            self._stop_invalid()
        better = self.standing.judge(self.config, self.step, metrics)
        self.progress.update(self.step, {f"valid_{k}": v for k, v in metrics.items()})
        if self.step == 0:
            self.flow.record(0, self.state.params, self.data["valid"])
        self._append([{"step": self.step, "split": "valid", **metrics, "time": round(time.time(), 3)}])
        if better:
            self._write(BEST)
        self._save()

    def _best(self) -> dict[str, Any]:
        """The parameters that were best in validation."""
        like, loaded = self.state._asdict(), {}
        by_lead(lambda: loaded.update(self.checkpoints.restore(BEST, like)[0]))
        return placed(arrays_of_lead(loaded or like)["params"], self.everywhere)

    def _draw(self) -> None:
        plots.draw(self.rundir, self.config)

    def _summarise(self) -> dict[str, Any]:
        last, steps = self.state, self.step
        final = {split: self.evaluate(last.params, split, self.data[split]) for split in SPLITS[1:]}
        best_step, best = self.standing.best_step, final
        if best_step != steps:
            params = self._best()
            best = {split: self.evaluate(params, split, self.data[split]) for split in SPLITS[1:]}
        lines = {best_step: best["test"], steps: final["test"]}
        self._append(
            [{"step": s, "split": "test", **m, "time": round(time.time(), 3)} for s, m in sorted(lines.items())]
        )
        by_lead(self._draw)
        summary = self.standing.summary(self.config, steps, final, best, self.parameters)
        return {**summary, **peak_memory(self.device)}


def _host(host: dict[str, Any]) -> dict[str, Any]:
    """What stands beside the state in a checkpoint, once it is sure that it can be used."""
    read_standing(Standing, host["standing"])
    TrainLog.from_host(1, host["log"])
    if not all(type(host[key]) is int for key in ("lines", "recordings")):
        raise ValueError("lines and recordings are no numbers")
    if not isinstance(host["data"], dict | None):
        raise ValueError("data is no position")
    return host


__all__ = ["NonFiniteError", "Run"]
