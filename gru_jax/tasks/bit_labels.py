"""A label for every step of a random string of bits, by rules that are known."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from gru_jax.errors import UsageError
from gru_jax.settings import setting
from gru_jax.tasks.base import Batch, Generated
from gru_jax.tasks.labels import answers_of_labels, label_metrics, read_labels


@dataclasses.dataclass(frozen=True)
class BitLabels(Generated):
    """Say at every step whether a rule holds of the bits so far; a subclass has the rule.

    The input is +1 or -1 at each step, for bits 1 and 0. The loss is the mean binary cross-entropy over the steps for
    which all bits that the rule needs were shown. Chance: ln 2.

    Attributes:
        length: steps of the longest sequence.
        shortest: steps of the shortest one, where lengths are random; None where all are the same.

    Examples:
        >>> import jax.numpy as jnp
        >>> from gru_jax.tasks import Parity, split_key  # one of its subclasses
        >>> batch = Parity(20, shortest=10).batch({}, split_key("valid", 0), jnp.arange(4))
        >>> batch.xs.shape, batch.targets.shape, bool((batch.lengths >= 10).all())
        ((4, 20, 1), (4, 20), True)
    """

    readout: ClassVar[Literal["last", "mean", "every"]] = "every"

    length: int = setting(100, low=2, high=10**7)
    shortest: int | None = setting(None, low=1, high=10**7, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shortest is not None and not self.first_step < self.shortest <= self.length:
            raise UsageError(
                f"shortest={self.shortest}: allowed are {self.first_step + 1} to length={self.length}, as the first "
                f"{self.first_step} steps do not count"
            )
        if self.length <= self.first_step:
            raise UsageError(f"length={self.length}: allowed are numbers above {self.first_step}, the steps before any")

    @property
    @abc.abstractmethod
    def first_step(self) -> int:
        """The first step that counts."""

    @abc.abstractmethod
    def labels(self, bits: Bool[Array, " T"]) -> Bool[Array, " T"]:
        """The right answer at each step."""

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
        bits_key, length_key = jax.random.split(key)
        bits = jax.random.bernoulli(bits_key, 0.5, (self.length,))
        xs = 2.0 * bits.astype(jnp.result_type(float))[:, None] - 1.0
        steps, length = jnp.arange(self.length), None
        counts = steps >= self.first_step
        if self.shortest is not None:
            length = jax.random.randint(length_key, (), self.shortest, self.length + 1)
            counts &= steps < length
        return Batch(xs, self.labels(bits), length, counts.astype(xs.dtype))

    def read_outputs(self, outputs: np.ndarray) -> Mapping[str, np.ndarray]:
        return read_labels(outputs, ["prediction"])

    def metrics(self, outputs: Array, batch: Batch) -> dict[str, Float[Array, " B"]]:
        share = _shares(batch).astype(outputs.dtype)
        values = label_metrics(outputs, batch.targets[..., None])
        return {name: (value * share.astype(value.dtype)).sum(axis=1) for name, value in values.items()}

    def answers(self, outputs: Array, batch: Batch) -> tuple[Array, Array, Array]:
        return answers_of_labels(outputs, batch.targets[..., None], _shares(batch))


@dataclasses.dataclass(frozen=True)
class Parity(BitLabels):
    """Say at every step whether the number of ones among the last `bits` bits is odd.

    One bit more or less changes the answer, so that it follows from no part of them.

    Attributes:
        bits: how many count.

    Examples:
        >>> import jax.numpy as jnp
        >>> from gru_jax.tasks import Parity
        >>> Parity(bits=2).labels(jnp.array([True, True, False, False])).tolist()
        [True, False, True, False]
    """

    bits: int = setting(3, low=2, high=10**6)

    @property
    def first_step(self) -> int:
        return self.bits - 1

    def labels(self, bits: Bool[Array, " T"]) -> Bool[Array, " T"]:
        ones = jnp.cumsum(bits.astype(jnp.int32))
        before = jnp.concatenate([jnp.zeros(self.bits, jnp.int32), ones])[: len(bits)]
        return (ones - before) % 2 == 1


@dataclasses.dataclass(frozen=True)
class DelayedXOR(BitLabels):
    """Say at every step whether the bit differs from that of `delay` steps before.

    So many bits are held at any time, and each is compared rather than repeated.

    Attributes:
        delay: steps between the two bits.

    Examples:
        >>> import jax.numpy as jnp
        >>> from gru_jax.tasks import DelayedXOR
        >>> DelayedXOR(delay=2).labels(jnp.array([True, True, False, True])).tolist()
        [True, True, True, False]
    """

    delay: int = setting(5, low=1, high=10**6)

    @property
    def first_step(self) -> int:
        return self.delay

    def labels(self, bits: Bool[Array, " T"]) -> Bool[Array, " T"]:
        return bits ^ jnp.concatenate([jnp.zeros(self.delay, bool), bits])[: len(bits)]


def _shares(batch: Batch) -> Float[Array, "B T"]:
    """The share of each step that counts in its sequence, whose steps are 1 in all."""
    assert batch.mask is not None
    return batch.mask / batch.mask.sum(axis=1, keepdims=True)
