"""The delayed memory task."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from gru_jax.errors import UsageError
from gru_jax.settings import setting
from gru_jax.tasks.base import Batch, Generated


@dataclasses.dataclass(frozen=True)
class DelayedMemory(Generated):
    """Repeat a random sequence of signs after a delay.

    The input is +1 or -1 at each step, and from step `delay` on the output must be the sign shown `delay` steps before,
    so that so many signs are held at any time. The loss is the mean cross-entropy over these steps. The delayed copy
    of Engelken 2023, arXiv:2312.17306, with signs rather than bits of 0 and 1. Chance: ln 2.

    Attributes:
        delay: steps between a sign and its repetition, at least 1.
        length: steps, more than the delay.

    Examples:
        >>> import jax.numpy as jnp
        >>> from gru_jax.tasks import DelayedMemory, split_key
        >>> task = DelayedMemory(3, 20)
        >>> batch = task.batch({}, split_key("valid", 0), jnp.arange(4))
        >>> batch.xs.shape, sorted(task.baseline)
        ((4, 20, 1), ['accuracy', 'loss'])
    """

    readout: ClassVar[Literal["last", "mean", "every"]] = "every"

    delay: int = setting(20, low=1, high=10**7)
    length: int = setting(100, low=2, high=10**7)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.length <= self.delay:
            raise UsageError(f"length={self.length}: allowed are numbers above delay={self.delay}")

    @property
    def input_size(self) -> int:
        return 1

    @property
    def output_size(self) -> int:
        return 1

    @property
    def time(self) -> int:
        return self.length

    @property
    def baseline(self) -> Mapping[str, float]:
        return {"loss": math.log(2), "accuracy": 0.5}

    def example(self, key: PRNGKeyArray) -> Batch:
        shown = jax.random.bernoulli(key, 0.5, (self.length,))
        return Batch(2.0 * shown.astype(jnp.result_type(float))[:, None] - 1.0, shown[: self.length - self.delay])

    def read_outputs(self, outputs: np.ndarray) -> Mapping[str, np.ndarray]:
        logits = np.asarray(outputs[..., 0], np.float64)
        return {"prediction": np.where(logits > 0, 1, -1), "p(+1)": 1 / (1 + np.exp(-np.clip(logits, -700, 700)))}

    def read_targets(self, targets: np.ndarray) -> Mapping[str, np.ndarray]:
        padded = np.pad(2 * targets.astype(int) - 1, [(0, 0), (self.delay, 0)])
        return {"target": padded}  # 0 where there is none yet

    def variables(self, batch: Batch) -> Mapping[str, Float[Array, "B T"]]:
        signs, lags = batch.xs[..., 0], (self.delay // 2, self.delay, 2 * self.delay)
        return {
            f"sign {lag} steps before": jnp.pad(signs, [(0, 0), (lag, 0)])[:, : self.length]
            for lag in lags
            if lag < self.length
        }

    def metrics(self, outputs: Array, batch: Batch) -> dict[str, Float[Array, " B"]]:
        logits = outputs[:, self.delay :, 0]
        losses = optax.sigmoid_binary_cross_entropy(logits, batch.targets.astype(logits.dtype))
        right = (logits > 0) == batch.targets
        return {"loss": losses.mean(axis=-1), "accuracy": right.mean(axis=-1, dtype=jnp.float32)}
