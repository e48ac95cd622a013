"""The adding problem."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from gru_jax.settings import setting
from gru_jax.tasks.base import Batch, Generated


@dataclasses.dataclass(frozen=True)
class Adding(Generated):
    """Add the two marked numbers of a sequence.

    Each step shows a number from U(0, 1) and a marker, which is 1 at one step of the first half and at one of the
    second. The target is the sum of the marked numbers; the loss is its squared error. Hochreiter and Schmidhuber
    1997, in the form of Le et al. 2015, arXiv:1504.00941. Always answering 1 gives the variance of the sum, 1/6.

    Attributes:
        length: steps of a sequence, at least 2.

    Examples:
        >>> import jax.numpy as jnp
        >>> from gru_jax.tasks import Adding, split_key
        >>> task = Adding(20)
        >>> batch = task.batch({}, split_key("valid", 0), jnp.arange(4))
        >>> batch.xs.shape, bool(jnp.allclose(batch.targets, batch.xs.prod(axis=-1).sum(axis=-1)))
        ((4, 20, 2), True)
    """

    length: int = setting(200, low=2, high=10**7)

    @property
    def input_size(self) -> int:
        return 2

    @property
    def output_size(self) -> int:
        return 1

    @property
    def time(self) -> int:
        return self.length

    @property
    def baseline(self) -> Mapping[str, float]:
        return {"loss": 1.0 / 6.0}

    def example(self, key: PRNGKeyArray) -> Batch:
        numbers_key, first_key, second_key = jax.random.split(key, 3)
        half = self.length // 2
        numbers = jax.random.uniform(numbers_key, (self.length,))
        first = jax.random.randint(first_key, (), 0, half)
        second = jax.random.randint(second_key, (), half, self.length)
        steps = jnp.arange(self.length)
        marked = ((steps == first) | (steps == second)).astype(numbers.dtype)
        return Batch(jnp.stack([numbers, marked], axis=-1), (numbers * marked).sum())

    def variables(self, batch: Batch) -> Mapping[str, Float[Array, "B T"]]:
        marked = batch.xs.prod(axis=-1)
        half = self.length // 2
        shown = {"first number": marked[:, :half], "second number": marked[:, half:]}
        spread = {name: jnp.broadcast_to(x.sum(axis=1, keepdims=True), marked.shape) for name, x in shown.items()}
        return {**spread, "sum so far": jnp.cumsum(marked, axis=1)}

    def metrics(self, outputs: Array, batch: Batch) -> dict[str, Float[Array, " B"]]:
        return {"loss": optax.squared_error(outputs[:, 0], batch.targets.astype(outputs.dtype))}
