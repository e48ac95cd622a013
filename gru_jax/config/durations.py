"""How long everything in a run lasts, in steps."""

from __future__ import annotations

import dataclasses
import itertools

from gru_jax.config.schema import Config
from gru_jax.errors import UsageError

ONE_CYCLE_RISE = 0.3  # of the training
MAX_EXAMPLES = 2**31 - 1  # an example's index is an int32


@dataclasses.dataclass(frozen=True)
class Plan:
    """All durations of a run, in steps.

    Attributes:
        steps, steps_per_epoch: of the training; no epochs where examples are generated without end.
        eval_every, log_every, flow_every: steps between validations, lines of metrics, recordings.
        warmup, drops: updates with a rising learning rate; numbers of updates after which it drops.
        thaws: steps after which levels of the network learn too, from the top down; traced hyperparameters.

    Examples:
        >>> from gru_jax.config import load, plan
        >>> lasting = plan(load({"train": {"steps": 100, "eval_steps": 30}, "flow": {"every": 50}}))
        >>> lasting.next_stop(0), lasting.next_stop(30), lasting.next_stop(90)
        (30, 50, 100)
    """

    steps: int
    steps_per_epoch: int | None
    eval_every: int
    log_every: int
    flow_every: int
    warmup: int
    drops: tuple[int, ...] = ()
    thaws: tuple[int, ...] = ()

    @property
    def peak(self) -> int:
        """The number of the first update that has the learning rate itself: the last of the warm-up."""
        return max(1, self.warmup)

    @property
    def decay(self) -> int:
        """The updates after it."""
        return max(1, self.steps - self.peak)

    def next_stop(self, step: int) -> int:
        """The first step after `step` at which something is due: a validation, a recording, or the end."""
        marks = [every for every in (self.eval_every, self.flow_every) if every]
        return min(self.steps, *((step // every + 1) * every for every in marks))


def plan(config: Config) -> Plan:
    """Resolve all durations.

    Raises:
        UsageError: a duration given twice, missing, or in epochs of an endless task.

    Examples:
        >>> from gru_jax.config import load, plan
        >>> plan(load({"task": {"name": "mnist"}, "train": {"epochs": 2, "batch_size": 100}})).steps
        1100
    """
    size = config.task.size("train")
    per_epoch = None if size is None else size // config.train.batch_size
    train = config.train

    def steps_of(name: str, steps: int | None, epochs: float | None, default: int | None) -> int:
        if steps is not None and epochs is not None:
            raise UsageError(f"{name}steps={steps} and {name}epochs={epochs:g}: allowed is one of them")
        if epochs is not None:
            if per_epoch is None:
                raise UsageError(f"{name}epochs={epochs:g}: this task is generated without end; allowed is {name}steps")
            return round(epochs * per_epoch)
        if steps is None and default is None:
            raise UsageError(f"{name}steps: missing; allowed is a whole number, or {name}epochs for a task of files")
        return steps if steps is not None else default or 0

    steps = steps_of("train.", train.steps, train.epochs, None)
    steps = steps if train.steps == 0 else max(1, steps)
    eval_every = max(1, steps_of("train.eval_", train.eval_steps, train.eval_epochs, -(-steps // 20)))
    optimizer = config.optimizer
    usual_warmup = round(ONE_CYCLE_RISE * steps) if optimizer.schedule == "one_cycle" else 0
    warmup = steps_of("optimizer.warmup_", optimizer.warmup_steps, optimizer.warmup_epochs, usual_warmup)
    drops = [
        steps_of("optimizer.drop_", *pair, None)
        for pair in itertools.zip_longest(optimizer.drop_steps or (), optimizer.drop_epochs or ())
    ]
    thawing = itertools.zip_longest(config.transfer.thaw_steps or (), config.transfer.thaw_epochs or ())
    thaws = [steps_of("transfer.thaw_", *pair, None) for pair in thawing]
    if warmup > steps:
        raise UsageError(f"optimizer.warmup_steps={warmup}: allowed are up to {steps}, the length of the training")
    if steps * train.batch_size > MAX_EXAMPLES:
        raise UsageError(
            f"train.steps={steps}: with train.batch_size={train.batch_size}, allowed are up to "
            f"{MAX_EXAMPLES // train.batch_size}"
        )
    log_every = train.log_steps or -(-eval_every // 10)
    flow_every = max(1, -(-steps // 2)) if config.flow.every is None else config.flow.every
    return Plan(steps, per_epoch, eval_every, log_every, flow_every, warmup, tuple(drops), tuple(thaws))
