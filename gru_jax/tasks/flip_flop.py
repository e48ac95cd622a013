"""The flip-flop task, whose solution is known: a stable state for each of its memories."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from gru_jax.settings import setting
from gru_jax.tasks.base import Batch, Generated
from gru_jax.tasks.reading import read_numbers


@dataclasses.dataclass(frozen=True)
class FlipFlop(Generated):
    """Hold the sign of the last pulse of each input.

    Each input is 0 but for pulses of +1 or -1, at the first step and then at random ones; each output is the sign of
    its input's last pulse, at every step. The loss is the mean squared error over all steps and outputs. Sussillo and
    Barak 2013, Neural Computation 25(3), section 4.1. What n bits can be is held by 2^n stable fixed points, with
    saddles between them. Without memory a bit is known where its pulse is: the best answer elsewhere is 0.

    Attributes:
        bits: inputs and outputs.
        length: steps.
        rate: the probability of a pulse at a step after the first, of each input.

    Examples:
        >>> import jax.numpy as jnp
        >>> from gru_jax.tasks import FlipFlop, split_key
        >>> task = FlipFlop(2, 20)
        >>> batch = task.batch({}, split_key("valid", 0), jnp.arange(4))
        >>> batch.xs.shape, batch.targets.shape, sorted(task.baseline)
        ((4, 20, 2), (4, 20, 2), ['accuracy', 'loss'])
    """

    readout: ClassVar[Literal["last", "mean", "every"]] = "every"

    bits: int = setting(3, low=1, high=1000)
    length: int = setting(100, low=2, high=10**7)
    rate: float = setting(0.1, low=1e-6, high=1.0)

    @property
    def input_size(self) -> int:
        return self.bits

    @property
    def output_size(self) -> int:
        return self.bits

    @property
    def time(self) -> int:
        return self.length

    @property
    def baseline(self) -> Mapping[str, float]:
        unknown = (1.0 - self.rate) * (self.length - 1) / self.length
        return {"loss": unknown, "accuracy": 1.0 - unknown / 2.0}

    def example(self, key: PRNGKeyArray) -> Batch:
        when_key, sign_key = jax.random.split(key)
        shape = (self.length, self.bits)
        pulses = jax.random.bernoulli(when_key, self.rate, shape).at[0].set(True)
        signs = jnp.where(jax.random.bernoulli(sign_key, 0.5, shape), 1.0, -1.0)
        last_pulse = jax.lax.cummax(jnp.where(pulses, jnp.arange(self.length)[:, None], 0), axis=0)
        return Batch(jnp.where(pulses, signs, 0.0), jnp.take_along_axis(signs, last_pulse, axis=0))

    def read_outputs(self, outputs: np.ndarray) -> Mapping[str, np.ndarray]:
        return read_numbers(outputs, [f"bit{i}" for i in range(self.bits)], "predicted ")

    def read_targets(self, targets: np.ndarray) -> Mapping[str, np.ndarray]:
        return read_numbers(targets, [f"bit{i}" for i in range(self.bits)])

    def metrics(self, outputs: Array, batch: Batch) -> dict[str, Float[Array, " B"]]:
        targets = batch.targets.astype(outputs.dtype)
        right = (outputs > 0) == (targets > 0)
        return {
            "loss": optax.squared_error(outputs, targets).mean(axis=(1, 2)),
            "accuracy": right.mean(axis=(1, 2), dtype=jnp.float32),
        }
