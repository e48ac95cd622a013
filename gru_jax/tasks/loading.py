"""The data of a task, split by split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gru_jax.data.feed import import_grain
from gru_jax.errors import UsageError
from gru_jax.tasks.base import SPLITS, Task

Splits = Mapping[str, Mapping[str, Any]]
"""By split and name: arrays, or `gru_jax.data.npy.Rows` of a file that is too large to stay on the device."""


def load_splits(task: Task, resident_mb: int, *, streams: bool = True) -> Splits:
    """Load every split of a task; rows in place of arrays for a training split of more than `resident_mb` megabytes.

    Args:
        task: the task.
        resident_mb: megabytes of training data that may stay on the device.
        streams: whether rows are of use.

    Raises:
        UsageError: data are missing or damaged, or too large where rows are of no use.

    Examples:
        >>> from gru_jax.tasks import Adding
        >>> from gru_jax.tasks.loading import load_splits
        >>> load_splits(Adding(20), resident_mb=1)  # a generated task has no data
        {'train': {}, 'valid': {}, 'test': {}}
    """
    rows = task.rows(SPLITS[0])
    megabytes = sum(array.nbytes for array in rows.values()) / 2**20
    is_large = megabytes > resident_mb
    if is_large and not streams:
        raise UsageError(
            f"resident_mb={resident_mb}: the training data take {megabytes:,.0f} MB and would be streamed, as "
            "they can be in single runs; members of a population each read in an order of their own"
        )
    if is_large:
        import_grain()
        task.check_rows(SPLITS[0])
    return {split: rows if is_large and split == SPLITS[0] else task.load(split) for split in SPLITS}
