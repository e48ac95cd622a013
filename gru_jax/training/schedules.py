"""Learning-rate schedules: which fraction of the learning rate each update has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from gru_jax.config import Config, OptimizerBase, Plan, Values, plan, traced_hyperparameters
from gru_jax.user_code import look_up
from gru_jax.with_arguments import with_traced

DECAYS: dict[str, Callable[[Plan, Values], optax.Schedule]] = {
    "constant": lambda durations, values: lambda count: jnp.ones_like(count, jnp.result_type(float)),
    "linear": lambda durations, values: lambda count: _between(count / durations.decay, values["final"]),
    "cosine": lambda durations, values: optax.cosine_decay_schedule(1.0, durations.decay, alpha=values["final"]),
    "exponential": lambda durations, values: lambda count: values["final"] ** (count / durations.decay),
    "step": lambda durations, values: lambda count: _drop(durations.drops, count + durations.peak, values["drop"]),
}
"""From 1 after no updates behind the peak to the end after `durations.decay` of them."""
DECAYS["one_cycle"] = DECAYS["cosine"]
DECAYS["plateau"] = DECAYS["constant"]  # the training loop lowers the rate itself, see `EarlyStopping.rate_factor`


def schedule_fraction(config: OptimizerBase, durations: Plan, values: Values) -> optax.Schedule:
    """The fraction of the learning rate that an update has, of the number of updates before it.

    Of N updates after a warm-up of W, the W-th is at the peak (without a warm-up the first of all), and the N-th at the
    end of the schedule.
    """
    peak = durations.peak
    if isinstance(config.schedule, str) and config.schedule in DECAYS:
        decay = DECAYS[config.schedule](durations, values)
    else:
        decay = look_up({}, with_traced(config.schedule, values, "schedule"))(durations.decay)

    def fraction(count: Any) -> Any:
        # The fraction of an int32 count is a float32 even in double precision, that of an int64 count is not.
        number = jnp.asarray(count, jnp.result_type(int)) + 1
        after = decay(jnp.maximum(number - peak, 0))
        if peak == 1:
            return after
        rise = number / peak
        if config.schedule == "one_cycle":
            rise = values["start"] + (1 - values["start"]) * (1 - jnp.cos(jnp.pi * (number - 1) / (peak - 1))) / 2
        return jnp.where(number < peak, rise, after)

    return fraction


def _between(way: Any, final: Any) -> Any:
    """From 1 to `final`, exactly at both ends."""
    return (1 - way) + final * way


def _drop(drops: tuple[int, ...], number: Any, factor: Any) -> Any:
    """The factor, once for each of these numbers of updates that came before the update of this number."""
    return jnp.prod(jnp.where(number > jnp.asarray(drops, number.dtype), factor, 1.0))


def learning_rate(config: OptimizerBase, durations: Plan, values: Values, count: ArrayLike) -> Float[Array, ""]:
    """The learning rate of the update that comes after so many."""
    with jax.numpy_dtype_promotion("standard"):  # as in the optimiser's update
        rate = values["lr"] * schedule_fraction(config, durations, values)(count)
        return jnp.asarray(rate, jnp.result_type(values["lr"]))


def learning_rates(config: Config, counts: Int[np.ndarray, " N"] | None = None) -> Float[np.ndarray, " N"]:
    """The learning rates of the updates of a training, as they follow from its config, plateaus not among it.

    Args:
        config: of the training.
        counts: for each update that is wanted, the number of those before it; None for all of them.

    Examples:
        >>> from gru_jax.config import load
        >>> from gru_jax.training.schedules import learning_rates
        >>> schedule = {"lr": 1.0, "schedule": "linear", "final": 0.5, "warmup_steps": 2}
        >>> learning_rates(load({"train": {"steps": 4}, "optimizer": schedule})).tolist()
        [0.5, 1.0, 0.75, 0.5]
    """
    durations, values = plan(config), traced_hyperparameters(config)["optimizer"]
    rates = jax.vmap(lambda count: learning_rate(config.optimizer, durations, values, count))
    counts = np.arange(durations.steps, dtype=np.int32) if counts is None else counts
    return np.asarray(jax.jit(rates)(counts))
