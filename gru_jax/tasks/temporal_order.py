"""The temporal order problem."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from gru_jax.settings import setting
from gru_jax.tasks.base import Batch, Generated, classification

DISTRACTORS = 4  # a, b, c, d are symbols 0 to 3
X, START, END = 4, 6, 7  # Y is 5


@dataclasses.dataclass(frozen=True)
class TemporalOrder(Generated):
    """Tell in which order two symbols came, among distractors.

    A sequence starts with E, ends with B and has `length` to 1.1 `length` steps. Between them stand random symbols
    from a, b, c, d, but for two that are X or Y, one at a step in the second tenth of `length` and one in the sixth.
    The four classes are XX, XY, YX, YY. Task 6a of Hochreiter and Schmidhuber 1997, which has `length` = 100.
    Chance is 1/4.

    Attributes:
        length: least number of steps, at least 20.

    Examples:
        >>> import jax.numpy as jnp
        >>> from gru_jax.tasks import TemporalOrder, split_key
        >>> task = TemporalOrder(20)
        >>> batch = task.batch({}, split_key("valid", 0), jnp.arange(4))
        >>> batch.xs.shape, sorted(task.baseline)
        ((4, 22, 8), ['accuracy', 'loss'])
    """

    goal: ClassVar[tuple[str, str]] = ("accuracy", "max")

    length: int = setting(100, low=20, high=10**7)

    @property
    def input_size(self) -> int:
        return DISTRACTORS + 4

    @property
    def output_size(self) -> int:
        return 4

    @property
    def time(self) -> int:
        return self.length + self.length // 10

    @property
    def class_names(self) -> tuple[str, ...]:
        return ("XX", "XY", "YX", "YY")

    @property
    def baseline(self) -> Mapping[str, float]:
        return {"accuracy": 0.25, "loss": math.log(4)}

    def example(self, key: PRNGKeyArray) -> Batch:
        noise_key, length_key, first_key, second_key, class_key = jax.random.split(key, 5)
        tenth = self.length // 10
        length = jax.random.randint(length_key, (), self.length, self.time + 1)
        first = jax.random.randint(first_key, (), tenth, 2 * tenth + 1)
        second = jax.random.randint(second_key, (), 5 * tenth, 6 * tenth + 1)
        label = jax.random.randint(class_key, (), 0, 4)
        steps = jnp.arange(self.time)
        symbols = jax.random.randint(noise_key, (self.time,), 0, DISTRACTORS)
        symbols = jnp.where(steps == first, X + label // 2, symbols)
        symbols = jnp.where(steps == second, X + label % 2, symbols)
        symbols = jnp.where(steps == 0, START, symbols)
        symbols = jnp.where(steps == length - 1, END, symbols)
        return Batch(jax.nn.one_hot(symbols, self.input_size), label, length)

    def metrics(self, outputs: Array, batch: Batch) -> dict[str, Float[Array, " B"]]:
        return classification(outputs, batch.targets)
