"""Where the batches of a training come from: data on the device, or streamed from files by Grain."""

from __future__ import annotations

import abc
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from gru_jax.config import Config
from gru_jax.data.npy import Rows
from gru_jax.errors import UsageError
from gru_jax.runtime.processes import placed
from gru_jax.tasks import SPLITS, Task, split_key

AHEAD = 256 * 2**20  # bytes of batches that are read ahead, and that go to the device in one call
THREADS = 8
Splits = Mapping[str, Mapping[str, Any]]  # by split and name: arrays, or rows that are too many to be one
Fed = tuple[dict[str, Array], np.ndarray]


class Feed(abc.ABC):
    """Hands out the data of training steps, in their order.

    Attributes:
        most: steps at a time.
    """

    most: int

    @abc.abstractmethod
    def start(self, step: int, position: dict[str, Any] | None) -> None:
        """Go on after so many steps, where the data stood then at `position`."""

    @abc.abstractmethod
    def position(self) -> dict[str, Any] | None:
        """Where the data stand, as JSON."""

    @abc.abstractmethod
    def next(self, first: int, count: int) -> Fed:
        """The data of `count` steps, and the indices of each step's examples in them, `[most, B]`."""

    @abc.abstractmethod
    def again(self, step: int) -> Fed:
        """The data of one step, whenever that was."""


class Resident(Feed):
    """Data that stay on the device.

    Args:
        config: of the training.
        arrays: of its training split.
        sharding: where they go.
    """

    def __init__(self, config: Config, arrays: Mapping[str, np.ndarray], sharding: jax.sharding.Sharding) -> None:
        self.most = config.train.call_steps
        self._batch_size = config.train.batch_size
        self._data = placed(dict(arrays), sharding)
        self._indices = batch_indices(config.task, config.train.batch_size, config.seed)

    def start(self, step: int, position: dict[str, Any] | None) -> None:
        pass  # batches follow from the step

    def position(self) -> None:
        return None

    def next(self, first: int, count: int) -> Fed:
        indices = np.zeros((self.most, self._batch_size), np.int32)
        indices[:count] = self._indices(first, count)
        return self._data, indices

    def again(self, step: int) -> Fed:
        return self._data, self._indices(step, 1)


class Streamed(Feed):
    """Data that are read from files while the training goes on, by Grain, in the same batches as if they were resident.

    Args:
        config: of the training.
        steps: of the training.
        rows: of its training split.
        sharding: where batches go.

    Raises:
        UsageError: Grain is not installed.
    """

    def __init__(self, config: Config, steps: int, rows: Mapping[str, Rows], sharding: jax.sharding.Sharding) -> None:
        grain = _grain()
        batches = _Batches(config, steps, rows)
        size = config.train.batch_size * sum(array.nbytes // len(array) for array in rows.values())
        self.most = int(np.clip(AHEAD // size, 1, config.train.call_steps))
        self._batches, self._sharding, self._batch_size = batches, sharding, config.train.batch_size
        options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=int(np.clip(AHEAD // size, 1, 500)))
        self._iterator = iter(grain.MapDataset.source(batches).to_iter_dataset(options))

    def start(self, step: int, position: dict[str, Any] | None) -> None:
        # A run may have begun on data that were resident.
        self._iterator.set_state({**self._iterator.get_state(), "next_index": step} if position is None else position)

    def position(self) -> dict[str, Any]:
        return self._iterator.get_state()

    def next(self, first: int, count: int) -> Fed:
        read = [next(self._iterator) for _ in range(count)]
        if read[0][0] != first:
            raise UsageError(f"the data stand at step {read[0][0]} and the training at {first}: damaged checkpoint")
        read += read[-1:] * (self.most - count)
        return self._at_device([batch for _, batch in read])

    def again(self, step: int) -> Fed:
        return self._at_device([self._batches[step][1]])

    def _at_device(self, batches: list[dict[str, np.ndarray]]) -> Fed:
        data = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
        indices = np.arange(len(batches) * self._batch_size, dtype=np.int32).reshape(len(batches), self._batch_size)
        return placed(data, self._sharding), indices


class _Batches:
    """The batch of every step, for Grain, whose threads take them at random."""

    def __init__(self, config: Config, steps: int, rows: Mapping[str, Rows]) -> None:
        self._rows, self._steps, self._lock = rows, steps, threading.Lock()
        self._indices = batch_indices(config.task, config.train.batch_size, config.seed)

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> tuple[int, dict[str, np.ndarray]]:
        with self._lock:
            (index,) = self._indices(step, 1)
        return step, {name: rows.take(index) for name, rows in self._rows.items()}


def build_feed(config: Config, steps: int, data: Mapping[str, Any], sharding: jax.sharding.Sharding) -> Feed:
    """The feed of a training split, as `load_splits` gives it."""
    if any(isinstance(array, Rows) for array in data.values()):
        return Streamed(config, steps, data, sharding)
    return Resident(config, data, sharding)


def load_splits(config: Config, *, streams: bool = True) -> Splits:
    """The arrays of every split; rows in place of arrays for a training split of more than `resident_mb`.

    Args:
        config: the config.
        streams: whether rows are of use.

    Raises:
        UsageError: data are missing or damaged, or too large where rows are of no use.
    """
    rows = config.task.rows(SPLITS[0])
    megabytes = sum(array.nbytes for array in rows.values()) / 2**20
    large = megabytes > config.resident_mb
    if large and not streams:
        raise UsageError(
            f"resident_mb={config.resident_mb}: the training data take {megabytes:,.0f} MB and would be streamed, as "
            "they can be in single runs; members of a population each read in an order of their own"
        )
    if large:
        _grain()
    return {split: rows if large and split == SPLITS[0] else config.task.load(split) for split in SPLITS}


def _grain() -> Any:
    # It warns of what only its own worker processes would miss.
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        import grain
    except ImportError as error:
        missing = "grain, which streams data, is not installed; pip install 'gru_jax[stream]' brings it"
        raise UsageError(missing) from error
    return grain


def batch_indices(task: Task, batch_size: int, seed: int) -> Callable[[int, int], np.ndarray]:
    """The example indices of any steps: `indices(first, count) -> [count, B]`, a function of the seed and the step.

    Generated examples are numbered on and on. Files are read in a new random order each epoch, a last incomplete
    batch left out.
    """
    size = task.size("train")
    orders: dict[int, np.ndarray] = {}

    def order(epoch: int) -> np.ndarray:
        if epoch not in orders:
            while len(orders) > 1:
                orders.pop(min(orders))
            key = jax.random.fold_in(split_key("train", seed), epoch)
            orders[epoch] = np.asarray(jax.random.permutation(key, size), np.int32)  # type: ignore[arg-type]
        return orders[epoch]

    def indices(first: int, count: int) -> np.ndarray:
        steps = np.arange(first, first + count)
        if size is None:
            return (steps[:, None] * batch_size + np.arange(batch_size)[None, :]).astype(np.int32)
        per_epoch = size // batch_size
        rows = []
        for step in steps:
            epoch, within = divmod(int(step), per_epoch)
            rows.append(order(epoch)[within * batch_size : (within + 1) * batch_size])
        return np.stack(rows)

    return indices
