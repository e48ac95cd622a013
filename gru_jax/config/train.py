"""The section `train` of a config: how long a run trains, how often it is looked at, and what it starts from."""

from __future__ import annotations

import dataclasses
from typing import Literal

from gru_jax.settings import setting
from gru_jax.tasks.scores import Score

InitAs = Literal["exact", "units", "int8", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long and how often. Of each pair of `_steps` and `_epochs`, one at a time.

    Attributes:
        batch_size: sequences a step.
        steps: length of the training in steps; None where `epochs` gives it; 0 with `init_from` alone, for a network
            that is to be as it is.
        epochs: length of the training in passes over the training data; None where `steps` gives it.
        batch_by_length: whether the sequences of a batch are of similar length, so that little of it is padding, in
            which nothing is computed; for tasks of files with lengths. Each epoch is still in a random order, in which
            those of 50 batches at a time are sorted and the batches then shuffled.
        eval_steps: steps between validations, each of which saves a checkpoint too; None, without `eval_epochs`, for a
            twentieth of the training.
        eval_epochs: passes over the training data between validations; None where `eval_steps` decides.
        log_steps: steps between lines of training metrics; None for a tenth of the steps between validations.
        monitor: the validation metric that decides which network is best, of equal ones that with the lower loss; None
            for that of the task's goal.
        metrics: scores of all examples of a set together, in validation and test, None for none: balanced_accuracy, f1
            and roc_auc of classes, mae and r2 of numbers; see `gru_jax.tasks.scores`.
        direction: whether its least or its greatest value is best; None for what the task's goal says, min for loss.
        min_delta: by how much it must be better than at the last improvement to be one, for `patience` and for the
            schedule plateau; the network that is kept is the best, by however little.
        patience: validations, not steps, without improvement after which training stops; None for never.
        target: validation score at which training stops; None for never.
        keep: latest checkpoints kept (the best is kept besides); of a training that ends between two validations two at
            least, so that it can be prolonged.
        eval_batch_size: sequences at a time in evaluations; None for those of a part of a batch, `batch_size` over
            `accumulate`.
        call_steps: greatest number of steps per call of the compiled program.
        accumulate: parts of a batch whose gradients are computed one after the other and added up, in the memory of a
            part; its loss, gradient and metrics are those of the whole batch.
        skip_nonfinite: training steps in all that may be skipped because their loss, gradient, parameters or optimiser
            state are not finite; one more ends the run, as the first does with 0. A skipped step changes nothing but
            the number of steps.
        skip_nonfinite_in_a_row: of these, how many may come right after one another; None for all.
        init_from: a run whose network this one starts from, None for one that is drawn: its directory, or with a
            checkpoint `RUN:best`, `RUN:latest` or `RUN:100`. The optimiser starts anew.
        init_as: what is made of that network first: nothing (exact); units, which takes out those that matter least,
            until its layers have the sizes of `model.hidden`; int8 or bfloat16, which round its kernels to numbers that
            are stored so, for a run of 0 steps.

    Examples:
        >>> from gru_jax.config import load
        >>> config = load({"train": {"steps": 100, "batch_size": 32, "patience": 3}})
        >>> config.train.batch_size, config.train.patience
        (32, 3)
    """

    batch_size: int = setting(64, low=1, high=10**6)
    steps: int | None = setting(None, low=0, high=10**9)
    epochs: float | None = setting(None, low=1e-6, high=1e6)
    batch_by_length: bool = False
    eval_steps: int | None = setting(None, low=1, high=10**9)
    eval_epochs: float | None = setting(None, low=1e-6, high=1e6)
    log_steps: int | None = setting(None, low=1, high=10**9)
    monitor: str | None = None
    direction: Literal["min", "max"] | None = None
    metrics: tuple[Score, ...] | None = None
    min_delta: float = setting(0.0, low=0.0)
    patience: int | None = setting(None, low=1)
    target: float | None = None
    keep: int = setting(2, low=1, high=1000)
    eval_batch_size: int | None = setting(None, low=1, high=10**6)
    call_steps: int = setting(50, low=1, high=10**5)
    accumulate: int = setting(1, low=1, high=10**6)
    skip_nonfinite: int = setting(0, low=0, high=10**9)
    skip_nonfinite_in_a_row: int | None = setting(None, low=1, high=10**9)
    init_from: str | None = None
    init_as: InitAs = "exact"

    @property
    def part_size(self) -> int:
        """Sequences whose gradient is computed at a time."""
        return self.batch_size // self.accumulate
