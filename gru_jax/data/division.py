"""Which examples of a file are held out, where there is no file for them, and which are in one fold."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Integer, Shaped

from gru_jax.errors import UsageError

HELD_OUT_SEED = 2012
"""Draws what is held out, and generated validation and test sets: the same for every run, whatever its seed."""
DivideBy = Literal["random", "stratified", "group", "time"]
"""How examples are held out, or divided into folds: at random, at random within every class, whole groups at random, or
in their order, the last ones or one stretch after the other."""


def held_out(
    count: int,
    fraction: float,
    by: DivideBy,
    seed: int,
    *,
    classes: Shaped[np.ndarray, " N"] | None = None,
    groups: Shaped[np.ndarray, " N"] | None = None,
) -> Integer[np.ndarray, " M"]:
    """The rows that are held out of so many, in their order.

    Args:
        count: of all rows.
        fraction: of them that is held out, at least one row; of whole groups, as many as come nearest to it.
        by: how.
        seed: draws them.
        classes: of every row, which a stratified division needs.
        groups: of every row, which a division by group needs.

    Raises:
        UsageError: classes or groups are missing, or no row would be left.

    Examples:
        >>> import numpy as np
        >>> from gru_jax.data.division import held_out
        >>> held_out(10, 0.2, "time", 0).tolist()
        [8, 9]
        >>> held_out(4, 0.5, "group", 0, groups=np.array(["a", "b", "b", "a"])).tolist() in ([0, 3], [1, 2])
        True
    """
    wanted = max(1, round(count * fraction))
    if wanted >= count:
        raise UsageError(f"fraction={fraction:g}: of {count} examples none is left; needed are more of them")
    random = np.random.default_rng(seed)
    if by == "time":
        return np.arange(count - wanted, count)
    if by == "random":
        return np.sort(random.permutation(count)[:wanted])
    member = _members(by, classes, groups)
    return _stratified(member, wanted, random) if by == "stratified" else _whole_groups(member, wanted, random)


def fold_numbers(
    count: int,
    folds: int,
    by: DivideBy,
    seed: int,
    *,
    classes: Shaped[np.ndarray, " N"] | None = None,
    groups: Shaped[np.ndarray, " N"] | None = None,
) -> Integer[np.ndarray, " N"]:
    """The fold, from 0, that each of so many rows is in.

    Folds by chance have one size, and the rows that are left over are in none, -1. All others are of every row: of each
    class, and of all rows, folds have the same number but for 1; of whole groups, the largest come first, each into the
    fold that has the fewest rows.

    Args:
        count: of all rows.
        folds: how many there are, 2 to `count`.
        by: how they are divided.
        seed: draws them.
        classes: of every row, which stratified folds need.
        groups: of every row, which folds of groups need.

    Raises:
        UsageError: classes or groups are missing, or there are fewer groups than folds.

    Examples:
        >>> import numpy as np
        >>> from gru_jax.data.division import fold_numbers
        >>> fold_numbers(5, 2, "time", 0).tolist()
        [0, 0, 0, 1, 1]
        >>> kinds = np.array(["a", "b", "b", "a"])
        >>> numbers = fold_numbers(4, 2, "stratified", 0, classes=kinds)
        >>> [sorted(kinds[numbers == fold].tolist()) for fold in (0, 1)]
        [['a', 'b'], ['a', 'b']]
    """
    random = np.random.default_rng(seed)
    if by == "time":
        return np.sort(np.arange(count) % folds)
    order, numbers = random.permutation(count), np.empty(count, np.int64)
    if by == "random":
        numbers[order] = np.arange(count) // (count // folds)
        return np.where(numbers < folds, numbers, -1)
    member = _members(by, classes, groups)
    if by == "stratified":  # dealt out class by class, each going on with the fold that comes next
        numbers[order[np.argsort(member[order], kind="stable")]] = np.arange(count) % folds
        return numbers
    sizes = np.bincount(member)
    if len(sizes) < folds:
        raise UsageError(f"folds={folds}: there are {len(sizes)} groups; needed are as many, or more")
    shuffled = random.permutation(len(sizes))
    fold_of_group, rows = np.empty(len(sizes), np.int64), np.zeros(folds, np.int64)
    for group in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        fold_of_group[group] = np.argmin(rows)
        rows[fold_of_group[group]] += sizes[group]
    return fold_of_group[member]


def fold_sizes(count: int, folds: int, by: DivideBy) -> tuple[int, ...] | None:
    """Rows in each fold of `fold_numbers`; None for groups, on whose sizes they depend.

    Examples:
        >>> from gru_jax.data.division import fold_sizes
        >>> fold_sizes(5, 2, "random"), fold_sizes(5, 2, "stratified")
        ((2, 2), (3, 2))
    """
    if by == "group":
        return None
    left_over = 0 if by == "random" else count % folds
    return tuple(count // folds + (fold < left_over) for fold in range(folds))


def _members(by: DivideBy, classes: np.ndarray | None, groups: np.ndarray | None) -> np.ndarray:
    """The number of the class or the group that each row is of."""
    labels = classes if by == "stratified" else groups
    if labels is None:
        needed = "a class for each sequence" if by == "stratified" else "groups of sequences"
        raise UsageError(f"divide_by={by}: needed is {needed}, and there is none")
    return np.unique(labels, return_inverse=True)[1]


def _stratified(member: np.ndarray, wanted: int, random: np.random.Generator) -> np.ndarray:
    """So many rows, of each class the same share."""
    order, sizes = random.permutation(len(member)), np.bincount(member)
    # Row n of a class's N is n/N of the way through it: the rows that come first are the same share of each.
    way = np.empty(len(member))
    for code, size in enumerate(sizes):
        way[order[member[order] == code]] = (np.arange(size) + 0.5) / size
    return np.sort(order[np.argsort(way[order], kind="stable")][:wanted])


def _whole_groups(member: np.ndarray, wanted: int, random: np.random.Generator) -> np.ndarray:
    """The rows of some groups, nearly so many, but not of all groups."""
    sizes, chosen, total = np.bincount(member), [], 0
    if len(sizes) < 2:
        raise UsageError("divide_by=group: there is one group; needed are two or more")
    for group in random.permutation(len(sizes))[:-1]:
        if not chosen or abs(total + sizes[group] - wanted) < abs(total - wanted):
            chosen.append(group)
            total += sizes[group]
    return np.flatnonzero(np.isin(member, chosen))
