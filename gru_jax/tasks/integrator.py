"""The integrator task, whose solution is known: a line of states that stand still, or nearly."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from gru_jax.settings import setting
from gru_jax.tasks.base import Batch, Generated


@dataclasses.dataclass(frozen=True)
class Integrator(Generated):
    """Add up the input.

    The input is Gaussian noise of variance 1 / `length`, and the output at every step the sum of it so far, of
    variance 1 at the end. The loss is the mean squared error over all steps. The input of Mante et al. 2013, Nature
    503, without its context: what a trained network holds lies on a line attractor, states along one line that stand
    nearly still without input. Without memory the best answer is the input itself.

    Attributes:
        length: steps.

    Examples:
        >>> import jax.numpy as jnp
        >>> from gru_jax.tasks import Integrator, split_key
        >>> task = Integrator(20)
        >>> batch = task.batch({}, split_key("valid", 0), jnp.arange(4))
        >>> batch.xs.shape, bool(jnp.allclose(batch.targets[:, -1], batch.xs.sum(axis=(1, 2)), atol=1e-5))
        ((4, 20, 1), True)
    """

    readout: ClassVar[Literal["last", "mean", "every"]] = "every"

    length: int = setting(100, low=2, high=10**7)

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
        return {"loss": (self.length - 1) / (2.0 * self.length)}

    def example(self, key: PRNGKeyArray) -> Batch:
        xs = jax.random.normal(key, (self.length,)) / self.length**0.5
        return Batch(xs[:, None], jnp.cumsum(xs))

    def metrics(self, outputs: Array, batch: Batch) -> dict[str, Float[Array, " B"]]:
        targets = batch.targets.astype(outputs.dtype)
        return {"loss": optax.squared_error(outputs[..., 0], targets).mean(axis=1)}
