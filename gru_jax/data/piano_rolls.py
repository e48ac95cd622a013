"""Piano rolls in MATLAB files, as Boulanger-Lewandowski, Bengio and Vincent published them (2012)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gru_jax.errors import UsageError, in_one_line, listing

NOTES = 88
LOWEST = 21
"""The MIDI number of the first column, the lowest key of a piano."""
SPLIT_NAMES = ("train", "valid", "test")


def read_piano_rolls(path: Path) -> dict[str, list[np.ndarray]]:
    """The pieces of a file by split, each `[T, 88]` of bytes: whether a key is down in a frame.

    Args:
        path: of a file with the cell arrays `traindata`, `validdata` and `testdata`.

    Raises:
        UsageError: it cannot be read, is cut short, or holds anything else.
    """
    from scipy.io import loadmat  # 0.1 s that only music needs

    try:
        content = loadmat(path)
    except Exception as error:  # SciPy raises whatever its parts do on damaged bytes
        raise UsageError(f"{path}: not a MATLAB file, or damaged ({in_one_line(error)[:100]})") from error
    pieces = {}
    for split in SPLIT_NAMES:
        name = f"{split}data"
        if name not in content:
            held = listing(key for key in content if not key.startswith("__")) or "nothing"
            raise UsageError(f"{path}: has {held}; needed are {listing(f'{s}data' for s in SPLIT_NAMES)}")
        cells = content[name]
        if cells.dtype != object or not cells.size:
            raise UsageError(f"{path}: {name} is {list(cells.shape)} of {cells.dtype}; needed are cells of piano rolls")
        pieces[split] = [_checked_roll(roll, f"{path}: {name}, piece {i}") for i, roll in enumerate(cells.ravel())]
    return pieces


def _checked_roll(roll: np.ndarray, where: str) -> np.ndarray:
    if roll.ndim != 2 or roll.shape[1] != NOTES or not len(roll) or roll.dtype.kind not in "biuf":
        raise UsageError(
            f"{where}: of shape {list(roll.shape)} and type {roll.dtype}; needed is [T, {NOTES}] of 0 and 1"
        )
    wrong = ~np.isin(roll, (0, 1))
    if wrong.any():
        step, column = (int(i) for i in np.argwhere(wrong)[0])
        raise UsageError(f"{where}: holds {roll[step, column]} at step {step}, column {column}; allowed are 0 and 1")
    return roll.astype(np.uint8)
