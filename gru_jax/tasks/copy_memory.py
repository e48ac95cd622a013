"""The copy memory task."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from gru_jax.settings import setting
from gru_jax.tasks.base import Batch, Generated

SYMBOLS = 8
ITEMS = 10  # symbols to remember
BLANK, DELIMITER = SYMBOLS, SYMBOLS + 1


@dataclasses.dataclass(frozen=True)
class CopyMemory(Generated):
    """Recall 10 symbols after a long pause.

    Of `length` + 20 steps, the first 10 show symbols out of 8, the next `length` - 1 are blank, then a delimiter asks
    for the symbols, which the last 10 outputs must repeat in order; every other output is blank. The loss is the
    cross-entropy over all steps. Hochreiter and Schmidhuber 1997; Arjovsky et al. 2016, arXiv:1511.06464, section 4.1.
    Without memory the best loss is 10 ln 8 / (length + 20).

    Attributes:
        length: steps from the last symbol to the delimiter (T in the papers), at least 1.

    Examples:
        >>> import jax.numpy as jnp
        >>> from gru_jax.tasks import CopyMemory, split_key
        >>> task = CopyMemory(20)
        >>> batch = task.batch({}, split_key("valid", 0), jnp.arange(4))
        >>> batch.xs.shape, sorted(task.baseline)
        ((4, 40, 10), ['loss', 'recall'])
    """

    readout: ClassVar[Literal["last", "mean", "every"]] = "every"

    length: int = setting(100, low=1, high=10**7)

    @property
    def input_size(self) -> int:
        return SYMBOLS + 2

    @property
    def output_size(self) -> int:
        return SYMBOLS + 1

    @property
    def time(self) -> int:
        return self.length + 2 * ITEMS

    @property
    def class_names(self) -> tuple[str, ...]:
        return (*map(str, range(SYMBOLS)), "blank")

    @property
    def baseline(self) -> Mapping[str, float]:
        return {"loss": ITEMS * math.log(SYMBOLS) / self.time, "recall": 1.0 / SYMBOLS}

    def example(self, key: PRNGKeyArray) -> Batch:
        items = jax.random.randint(key, (ITEMS,), 0, SYMBOLS)
        blanks = jnp.full((self.length - 1,), BLANK, items.dtype)
        pause = jnp.full((ITEMS,), BLANK, items.dtype)
        shown = jnp.concatenate([items, blanks, jnp.full((1,), DELIMITER, items.dtype), pause])
        wanted = jnp.concatenate([jnp.full((self.length + ITEMS,), BLANK, items.dtype), items])
        return Batch(jax.nn.one_hot(shown, self.input_size), wanted)

    def metrics(self, outputs: Array, batch: Batch) -> dict[str, Float[Array, " B"]]:
        losses = optax.softmax_cross_entropy_with_integer_labels(outputs, batch.targets)
        right = outputs[:, -ITEMS:].argmax(axis=-1) == batch.targets[:, -ITEMS:]
        return {"loss": losses.mean(axis=-1), "recall": right.mean(axis=-1, dtype=jnp.float32)}
