"""Which examples of a file are held out, where there is no file for them."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Integer, Shaped

from gru_jax.errors import UsageError

DivideBy = Literal["random", "stratified", "group", "time"]
"""How examples are held out: at random, at random within every class, whole groups at random, or the last ones."""


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
    labels = classes if by == "stratified" else groups
    if labels is None:
        needed = "a class for each sequence" if by == "stratified" else "groups of sequences"
        raise UsageError(f"divide_by={by}: needed is {needed}, and there is none")
    _, member = np.unique(labels, return_inverse=True)
    return _stratified(member, wanted, random) if by == "stratified" else _whole_groups(member, wanted, random)


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
