"""The optimiser's section of a config: the schedule, what is done to gradients, and the optimiser itself."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, Literal, get_args

from gru_jax.errors import UsageError
from gru_jax.settings import setting
from gru_jax.user_code import Name, reference
from gru_jax.with_arguments import parameters_of, plain_arguments

OptimizerName = Literal["adam", "adamw", "sgd", "momentum", "rmsprop", "adagrad", "lion"]
OPTIMIZERS = get_args(OptimizerName)
Schedule = Literal["constant", "linear", "cosine", "exponential", "step", "one_cycle", "plateau"]
SCHEDULES = get_args(Schedule)
LEARNING_RATE = "learning_rate"
"""The argument of an optimiser of a user's own that the schedule is given to; and the metric of a step's rate."""


@dataclasses.dataclass(frozen=True)
class OptimizerBase:
    """What is done to gradients before an optimiser, in this order: clip by value, clip by norm, noise, L1 and L2; and
    the learning rate.

    Attributes:
        lr: learning rate, the peak of the schedule.
        schedule: what the learning rate does after the warm-up. constant; linear, cosine or exponential, from `lr` at
            the last update of the warm-up to `lr * final` at the last of the training; step, times `drop` at some
            updates; one_cycle, along a cosine from `lr * start` up to `lr`, which takes the warm-up, and down to
            `lr * final` (Smith and Topin 2017, arXiv:1708.07120); plateau, times `drop` where validations are no
            better; or a function of the number of updates after the warm-up that gives an `optax.Schedule`, the
            fraction of `lr` after 0 to so many of them, or a section with such a function as its `name` and values
            for its other arguments.
        final: fraction of `lr` at the end; with plateau the least.
        start: fraction of `lr` at the first update, of one_cycle.
        drop: factor, of step and plateau.
        drop_steps: numbers of updates after which step multiplies; None for none, or where `drop_epochs` gives them.
        drop_epochs: the same in passes over the training data; None for none, or where `drop_steps` gives them.
        plateau_patience: validations without improvement, see `train.patience`, after which plateau multiplies.
        warmup_steps: updates of a linear warm-up, whose n-th of W has the rate `lr * n / W`; None for none (with
            one_cycle, for three tenths of the training), or where `warmup_epochs` gives it.
        warmup_epochs: the same in passes over the training data; None for none, or where `warmup_steps` gives it.
        clip_norm: greatest global norm of the gradient; None for no clipping.
        clip_value: greatest absolute value of each entry; None for no clipping.
        l1: factor of sum |w| over the kernels in the loss's gradient.
        l2: factor of sum w^2 / 2 over the kernels in the loss's gradient.
        weight_decay: decoupled decay of the kernels, times the learning rate, with any optimiser; None for 1/100 with
            adamw and 0 with the others.
        noise: variance of Gaussian noise on every entry of the clipped gradient; Neelakantan et al. 2015,
            arXiv:1511.06807.
        noise_decay: exponent with which it falls over steps t, as `noise / (1 + t)^noise_decay`.

    Examples:
        >>> from gru_jax.config import load
        >>> config = load({"train": {"steps": 10}, "optimizer": {"lr": 0.1, "schedule": "cosine", "warmup_steps": 5}})
        >>> config.optimizer.schedule, config.optimizer.final
        ('cosine', 0.01)
    """

    function: ClassVar[Callable[..., Any] | None] = None
    """Of a user's own, that makes the optimiser of this section."""
    section_hint: ClassVar[str] = "; an optimiser of optax is its function, e.g. {'name': optax.adam, 'lr': 0.001}"
    own_arguments: ClassVar[tuple[str, ...]] = ()
    """Those that `function` is given."""

    lr: float = setting(1e-3, low=0.0)
    schedule: Name = setting("constant", choices=SCHEDULES, is_open=True, filled=1)
    final: float = setting(0.01, low=0.0, high=1.0)
    start: float = setting(0.04, low=0.0, high=1.0)
    drop: float = setting(0.1, low=0.0, high=1.0)
    drop_steps: tuple[int, ...] | None = setting(None, low=1, high=10**9)
    drop_epochs: tuple[float, ...] | None = setting(None, low=1e-6, high=1e6)
    plateau_patience: int = setting(5, low=1)
    warmup_steps: int | None = setting(None, low=0)
    warmup_epochs: float | None = setting(None, low=0.0, high=1e6)
    clip_norm: float | None = setting(1.0, low=1e-30)
    clip_value: float | None = setting(None, low=1e-30)
    l1: float = setting(0.0, low=0.0)
    l2: float = setting(0.0, low=0.0)
    weight_decay: float | None = setting(None, low=0.0)
    noise: float = setting(0.0, low=0.0)
    noise_decay: float = setting(0.55, low=0.0)

    @classmethod
    def section_for(cls, function: Any) -> type[OptimizerBase] | None:
        """The section of an optimiser of a user's own, with a key for each of its arguments that has a plain value."""
        return _section_of_function(function) if callable(function) else None


@dataclasses.dataclass(frozen=True)
class OptimizerConfig(OptimizerBase):
    """A built-in optimiser; in its place may stand a function that gives an `optax.GradientTransformation`.

    Arguments of such a function that have a default are the keys of its section, beside those of `OptimizerBase`. If it
    takes a `learning_rate`, that is the schedule, and its updates are used as they are; else they are directions, as
    those of `optax.scale_by_adam`, which are scaled by minus the learning rate.

    Attributes:
        name: which optimiser; a function of optax, or of your own, may stand in place of the section.
        momentum: of momentum, the share of the last update that goes on.
        nesterov: of momentum, whether it looks ahead.
        b1: of adam and adamw, the decay of the mean gradient; of lion, that of the mean that gives the update's sign.
        b2: of adam and adamw, the decay of the mean square; of lion, that of the mean gradient that is kept.
        eps: of adam and adamw, what is added to the root of the mean square; of rmsprop and adagrad, what is added
            under the root, to the mean or the sum of squares.
        decay: of rmsprop, that of the mean square.

    Examples:
        >>> from gru_jax.config import load
        >>> config = load({"train": {"steps": 10}, "optimizer": {"name": "adamw", "lr": 0.003}})
        >>> config.optimizer.name, config.optimizer.weight_decay
        ('adamw', 0.01)
        >>> import optax
        >>> config = load({"train": {"steps": 10}, "optimizer": {"name": optax.adabelief, "eps_root": 1e-8}})
        >>> config.optimizer.name, config.optimizer.b1, config.optimizer.eps_root
        ('optax._src.alias:adabelief', 0.9, 1e-08)
    """

    name: OptimizerName = "adam"
    momentum: float = setting(0.9, low=0.0, high=1.0)
    nesterov: bool = False
    b1: float = setting(0.9, low=0.0, high=1.0)
    b2: float = setting(0.999, low=0.0, high=1.0)
    eps: float = setting(1e-8, low=0.0)
    decay: float = setting(0.9, low=0.0, high=1.0)


@functools.cache
def _section_of_function(function: Callable[..., Any]) -> type[OptimizerBase]:
    name = reference(function)
    common = {field.name for field in dataclasses.fields(OptimizerBase)} - {"weight_decay"} | {"name"}
    taken = parameters_of(function)
    for argument in taken:
        if argument in common:
            raise UsageError(
                f"optimizer.name={name}: its argument {argument} is called like a key that every optimiser has; "
                "allowed is another name"
            )
    arguments = plain_arguments(f"optimizer.name={name}", function, filled=(LEARNING_RATE,))
    fields = [(key, float | None if value is None else type(value), value) for key, value in arguments.items()]
    own_arguments = [key for key in taken if key in arguments or key == LEARNING_RATE]
    return dataclasses.make_dataclass(
        f"OptimizerConfig({name})",
        [("name", str, name), *fields],
        bases=(OptimizerBase,),
        frozen=True,
        namespace={"function": staticmethod(function), "own_arguments": tuple(own_arguments)},
    )
