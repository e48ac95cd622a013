"""Tasks whose targets are written token by token, by a decoder; and the generated ones: copy, reverse, sort."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from gru_jax.data.texts import load_text
from gru_jax.errors import UsageError
from gru_jax.settings import setting
from gru_jax.tasks.base import Batch, Generated, Task
from gru_jax.tasks.likeliest import is_likeliest
from gru_jax.tasks.text_scores import share_of_equal
from gru_jax.tasks.tokens import stacked_tokens

END_SYMBOL = 0
"""Of the generated tasks: ends sources and targets, and is what a decoder reads first."""


@dataclasses.dataclass(frozen=True)
class SequenceToSequence(Task):
    """A task whose targets are written token by token, by a decoder.

    A target ends with `end_token`, which is also what the decoder reads before its first token.

    Examples:
        >>> from gru_jax.tasks import TASKS
        >>> TASKS["reverse"]().family, TASKS["reverse"]().end_token
        ('encoder_decoder', 0)
    """

    readout: ClassVar = "every"
    reads_tokens: ClassVar[bool] = True
    family: ClassVar = "encoder_decoder"

    @property
    @abc.abstractmethod
    def end_token(self) -> int:
        """The token of the targets that ends them."""

    @abc.abstractmethod
    def text_of(self, tokens: Sequence[int]) -> str:
        """A target as people write it."""

    @abc.abstractmethod
    def source_tokens(self, text: str) -> Int[np.ndarray, " N"]:
        """A source as people write it, as the network reads it.

        Raises:
            UsageError: it is none.
        """

    def source_labels(self, tokens: Sequence[int]) -> list[str]:
        """Tokens of a source, each by itself, as a picture has them."""
        return [*map(str, tokens)]

    def target_labels(self, tokens: Sequence[int]) -> list[str]:
        """The same of a target."""
        return [*map(str, tokens)]

    def text_scores(self, written: Sequence[str], wanted: Sequence[str]) -> Mapping[str, float]:
        """Scores of texts that were written against targets as people write them."""
        return {"exact": share_of_equal(written, wanted)}

    def texts_of(self, rows: Int[np.ndarray, "N T"]) -> list[str]:
        """Targets, each up to its end, as people write them."""
        texts = []
        for row in rows.tolist():
            end = row.index(self.end_token) if self.end_token in row else len(row)
            texts.append(self.text_of(row[:end]))
        return texts

    def check_new(self, arrays: Any, path: Path, place: object = None) -> NoReturn:
        raise UsageError(f"{path}: this network reads texts, line by line; experiments.predict takes a file of them")

    def read_input(self, path: Path) -> Mapping[str, np.ndarray]:
        """The lines of a text file, each a source."""
        rows = []
        for number, line in enumerate(load_text(path).rstrip("\n").split("\n"), start=1):
            try:
                rows.append(self.source_tokens(line))
            except UsageError as error:
                raise UsageError(f"{path}: line {number}: {error}") from error
        return stacked_tokens(rows, max(self.time, *map(len, rows)))


def written_batch(
    xs: Int[Array, "B T"],
    lengths: Int[Array, " B"],
    targets: Int[Array, "B T"],
    target_lengths: Int[Array, " B"],
    end_token: int,
) -> Batch:
    """Sources with targets, of whose tokens those within their lengths count; the decoder reads them one late."""
    first = jnp.full_like(targets[:, :1], end_token)
    steps = jnp.arange(targets.shape[1], dtype=jnp.int32)
    mask = (steps[None, :] < target_lengths[:, None]).astype(jnp.float32)
    late = jnp.concatenate([first, targets[:, :-1]], axis=1)
    return Batch(xs, targets, lengths, mask, None, late, target_lengths)


def token_metrics(
    outputs: Float[Array, "B T V"], batch: Batch, smoothing: float = 0.0
) -> dict[str, Float[Array, " B"]]:
    """Means over the tokens of each target: cross-entropy in nats, and the share of tokens that are likeliest.

    With label smoothing, Szegedy et al. 2016, arXiv:1512.00567, the loss has a share `smoothing` of the mean of the
    cross-entropies of all tokens, and `nll` is without it.
    """
    mask = batch.mask
    assert mask is not None
    share = mask / jnp.maximum(mask.sum(axis=1, keepdims=True), 1)

    def mean(values: Float[Array, "B T"]) -> Float[Array, " B"]:
        return jnp.where(mask > 0, values * share.astype(values.dtype), 0).sum(axis=1)

    loss = optax.softmax_cross_entropy_with_integer_labels(outputs, batch.targets)
    right = is_likeliest(outputs, batch.targets).astype(jnp.float32)
    metrics = {"loss": mean(loss), "accuracy": mean(right)}
    if smoothing:
        of_all = -jax.nn.log_softmax(outputs).mean(axis=-1)
        metrics |= {"loss": mean((1 - smoothing) * loss + smoothing * of_all), "nll": metrics["loss"]}
    return metrics


@dataclasses.dataclass(frozen=True)
class Symbols(SequenceToSequence, Generated):
    """Write something that follows from a sequence of random symbols, of 1 to `length` of them.

    Lengths are drawn evenly, and symbols each by itself. As text, symbols are whole numbers from 1 with blanks between
    them. Every sequence counts the same. `exact` is the share of sequences all of whose tokens, the end included, are
    the likeliest ones after those that are right: then they are exactly what greedy decoding writes by itself.

    Attributes:
        length: symbols of the longest sequence.
        shortest: symbols of the shortest.
        symbols: how many different ones there are.

    Examples:
        >>> import jax.numpy as jnp
        >>> from gru_jax.tasks import Reverse, split_key
        >>> batch = Reverse(5, symbols=9).batch({}, split_key("valid", 0), jnp.arange(4))
        >>> batch.xs.shape, batch.targets.shape
        ((4, 6), (4, 6))
    """

    goal: ClassVar[tuple[str, str]] = ("exact", "max")

    length: int = setting(10, low=1, high=10**6)
    shortest: int = setting(1, low=1, high=10**6)
    symbols: int = setting(10, low=1, high=10**6)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shortest > self.length:
            raise UsageError(f"shortest={self.shortest}: allowed are 1 to {self.length}, the longest")

    @abc.abstractmethod
    def written(self, symbols: Int[Array, " T"], count: Int[Array, ""]) -> Int[Array, " T"]:
        """What is to be written of so many symbols at the beginning of these; whatever stands behind is not read."""

    @property
    def input_size(self) -> int:
        return self.symbols + 1

    @property
    def output_size(self) -> int:
        return self.symbols + 1

    @property
    def time(self) -> int:
        return self.length + 1

    @property
    def end_token(self) -> int:
        return END_SYMBOL

    @property
    def baseline(self) -> Mapping[str, float]:
        """Of who knows how long the target is, and nothing of its symbols."""
        lengths = np.arange(self.shortest, self.length + 1)
        return {
            "loss": float((lengths / (lengths + 1)).mean()) * math.log(self.symbols),
            "accuracy": float(((lengths / self.symbols + 1) / (lengths + 1)).mean()),
            "exact": float((1 / self.symbols ** lengths.astype(float)).mean()),
        }

    def example(self, key: PRNGKeyArray) -> Batch:
        length_key, symbols_key = jax.random.split(key)
        count = jax.random.randint(length_key, (), self.shortest, self.length + 1, jnp.int32)
        symbols = jax.random.randint(symbols_key, (self.time,), 1, self.symbols + 1, jnp.int32)
        source, target = (
            jnp.where(jnp.arange(self.time, dtype=jnp.int32) < count, tokens, END_SYMBOL)
            for tokens in (symbols, self.written(symbols, count))
        )
        one = written_batch(source[None], count[None] + 1, target[None], count[None] + 1, END_SYMBOL)
        return jax.tree.map(lambda a: a[0], one)

    def metrics(self, outputs: Array, batch: Batch) -> dict[str, Float[Array, " B"]]:
        metrics = token_metrics(outputs, batch)
        assert batch.mask is not None
        right = is_likeliest(outputs, batch.targets) | (batch.mask == 0)
        return {**metrics, "exact": right.all(axis=1).astype(jnp.float32)}

    def text_of(self, tokens: Sequence[int]) -> str:
        return " ".join(map(str, tokens))

    def source_labels(self, tokens: Sequence[int]) -> list[str]:
        return ["end" if token == END_SYMBOL else str(token) for token in tokens]

    def target_labels(self, tokens: Sequence[int]) -> list[str]:
        return self.source_labels(tokens)

    def source_tokens(self, text: str) -> Int[np.ndarray, " N"]:
        words = text.split()
        for word in words:
            if not (word.isdecimal() and 1 <= int(word) <= self.symbols):
                raise UsageError(f"{word!r} is no symbol; allowed are whole numbers from 1 to {self.symbols}")
        return np.array([*map(int, words), END_SYMBOL], np.int32)


@dataclasses.dataclass(frozen=True)
class Copy(Symbols):
    """Write a sequence of symbols as it is.

    Examples:
        >>> import jax.numpy as jnp
        >>> from gru_jax.tasks import Copy
        >>> Copy(3).written(jnp.array([3, 1, 2, 9]), jnp.array(3))[:3].tolist()
        [3, 1, 2]
    """

    def written(self, symbols: Int[Array, " T"], count: Int[Array, ""]) -> Int[Array, " T"]:
        return symbols


@dataclasses.dataclass(frozen=True)
class Reverse(Symbols):
    """Write a sequence of symbols backwards.

    Examples:
        >>> import jax.numpy as jnp
        >>> from gru_jax.tasks import Reverse
        >>> Reverse(3).written(jnp.array([3, 1, 2, 9]), jnp.array(3))[:3].tolist()
        [2, 1, 3]
    """

    def written(self, symbols: Int[Array, " T"], count: Int[Array, ""]) -> Int[Array, " T"]:
        return symbols[(count - 1 - jnp.arange(len(symbols), dtype=jnp.int32)) % len(symbols)]


@dataclasses.dataclass(frozen=True)
class Sort(Symbols):
    """Write the symbols of a sequence in their order.

    Examples:
        >>> import jax.numpy as jnp
        >>> from gru_jax.tasks import Sort
        >>> Sort(3).written(jnp.array([3, 1, 2, 9]), jnp.array(3))[:3].tolist()
        [1, 2, 3]
    """

    def written(self, symbols: Int[Array, " T"], count: Int[Array, ""]) -> Int[Array, " T"]:
        within = jnp.arange(len(symbols), dtype=jnp.int32) < count
        return jnp.sort(jnp.where(within, symbols, self.symbols + 1))
