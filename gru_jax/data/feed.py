"""Where the batches of a training come from: data on the device, or streamed from files by Grain."""

from __future__ import annotations

import abc
import logging
import threading
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from gru_jax.data.batching import StepIndices
from gru_jax.data.npy import Rows
from gru_jax.errors import UsageError, import_extra
from gru_jax.runtime.processes import replicate

READ_AHEAD_BYTES = 256 * 2**20  # of batches that are read ahead, and that go to the device in one call
READER_THREADS = 8
Fed = tuple[Mapping[str, Array], np.ndarray]
"""Data on the device, and for each member and step the indices of its examples in them, `[R, K, B]`."""


class Feed(abc.ABC):
    """Hands out the data of training steps, in their order.

    Attributes:
        most_steps: greatest number of steps at a time, K.
    """

    most_steps: int

    @abc.abstractmethod
    def start(self, step: int, position: dict[str, Any] | None) -> None:
        """Go on after so many steps, where the data stood then at `position`."""

    @abc.abstractmethod
    def position(self) -> dict[str, Any] | None:
        """Where the data stand, as JSON."""

    @abc.abstractmethod
    def next(self, first: int, count: int) -> Fed:
        """The data of `count` steps from step `first` on; indices behind them are of no step."""

    @abc.abstractmethod
    def at(self, step: int) -> Fed:
        """The data of one step, whenever that was."""


class ResidentFeed(Feed):
    """Hands out data that stay on the device.

    Args:
        data: of the training split.
        indices: for each member, which examples it sees; equal ones are asked once.
        batch_size: examples of a step.
        most_steps: greatest number of steps at a time.
    """

    def __init__(
        self, data: Mapping[str, Array], indices: Sequence[StepIndices], batch_size: int, most_steps: int
    ) -> None:
        self.most_steps = most_steps
        self._data, self._indices, self._batch_size = data, indices, batch_size

    def start(self, step: int, position: dict[str, Any] | None) -> None:
        pass  # batches follow from the step

    def position(self) -> None:
        return None

    def next(self, first: int, count: int) -> Fed:
        return self._data, self._filled(first, count, self.most_steps)

    def at(self, step: int) -> Fed:
        return self._data, self._filled(step, 1, 1)

    def _filled(self, first: int, count: int, rows: int) -> np.ndarray:
        made = {indices: indices(first, count) for indices in set(self._indices)}
        filled = np.zeros((len(self._indices), rows, self._batch_size), np.int32)
        for member, indices in enumerate(self._indices):
            filled[member, :count] = made[indices]
        return filled


class StreamedFeed(Feed):
    """Reads data from files by Grain while a run trains, in the same batches as if they stayed on the device.

    Args:
        rows: of the training split.
        indices: which examples each step sees.
        steps: of the training.
        batch_size: examples of a step.
        most_steps: greatest number of steps at a time.
        sharding: where batches go.

    Raises:
        UsageError: Grain is not installed.
    """

    def __init__(
        self,
        rows: Mapping[str, Rows],
        indices: StepIndices,
        steps: int,
        batch_size: int,
        most_steps: int,
        sharding: jax.sharding.Sharding,
    ) -> None:
        grain = import_grain()
        batch_bytes = batch_size * sum(array.nbytes // len(array) for array in rows.values())
        ahead = READ_AHEAD_BYTES // batch_bytes
        self.most_steps = int(np.clip(ahead, 1, most_steps))
        self._batches, self._sharding, self._batch_size = _BatchSource(rows, indices, steps), sharding, batch_size
        options = grain.ReadOptions(num_threads=READER_THREADS, prefetch_buffer_size=int(np.clip(ahead, 1, 500)))
        self._iterator = iter(grain.MapDataset.source(self._batches).to_iter_dataset(options))

    def start(self, step: int, position: dict[str, Any] | None) -> None:
        # A run may have begun on data that stayed on the device.
        self._iterator.set_state({**self._iterator.get_state(), "next_index": step} if position is None else position)

    def position(self) -> dict[str, Any]:
        return self._iterator.get_state()

    def next(self, first: int, count: int) -> Fed:
        batches = [next(self._iterator) for _ in range(count)]
        if batches[0][0] != first:
            raise UsageError(f"the data stand at step {batches[0][0]} and the training at {first}: damaged checkpoint")
        batches += batches[-1:] * (self.most_steps - count)
        return self._on_device([batch for _, batch in batches])

    def at(self, step: int) -> Fed:
        return self._on_device([self._batches[step][1]])

    def _on_device(self, batches: list[dict[str, np.ndarray]]) -> Fed:
        data = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
        indices = np.arange(len(batches) * self._batch_size, dtype=np.int32).reshape(1, len(batches), self._batch_size)
        return replicate(data, self._sharding), indices


class _BatchSource:
    """The batch of every step, for Grain, whose threads take them at random."""

    def __init__(self, rows: Mapping[str, Rows], indices: StepIndices, steps: int) -> None:
        self._rows, self._indices, self._steps, self._lock = rows, indices, steps, threading.Lock()

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> tuple[int, dict[str, np.ndarray]]:
        with self._lock:
            (index,) = self._indices(step, 1)
        return step, {name: rows.take(index) for name, rows in self._rows.items()}


def import_grain() -> ModuleType:
    """Grain, which streams data.

    Raises:
        UsageError: it is not installed.
    """
    # It warns of what only its own worker processes would miss.
    logging.getLogger("absl").setLevel(logging.ERROR)
    return import_extra("stream", "grain, which streams data,", "grain")
