"""The values of the bench's flags: read from text, and refused in one line where they make no sense."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from experiments.bench.measure import Shape
from experiments.bench.peers import PEERS
from experiments.bench.train import CONFIGS
from experiments.bench.unroll import LOSSES, TABLE, grid_shapes
from gru_jax.errors import UsageError, check_choice
from gru_jax.values import Text, check_range, scalar_of


def parse_flag(flag: str, text: str) -> Any:
    """The value of a flag, by its name without dashes.

    Raises:
        UsageError: the text stands for no value of this flag.

    Examples:
        >>> parse_flag("steps", "10,200")
        [10, 200]
    """
    return PARSERS[flag](f"--{flag}", text)


def parse_shapes(flag: str, text: str) -> list[Shape]:
    """The shapes that `table` or `grid` stand for, or those written as `T,B,D,H` and joined by colons."""
    if text == "table":
        return list(TABLE)
    if text == "grid":
        return grid_shapes()
    return [Shape(*sizes) for sizes in parse_sizes(flag, text, ("T", "B", "D", "H"), "table, grid, or ")]


def parse_sizes(
    flag: str, text: str, names: Sequence[str] = ("T", "B", "H"), other_values: str = ""
) -> list[tuple[int, ...]]:
    """Groups of whole numbers, joined by commas within a group and by colons between groups."""
    try:
        groups = [tuple(int(number) for number in group.split(",")) for group in text.split(":")]
    except ValueError:
        groups = []
    if not groups or any(len(group) != len(names) or min(group) < 1 for group in groups):
        wanted = ",".join(names)
        raise UsageError(
            f"{flag}={text}: allowed are {other_values}whole numbers from 1, {wanted}, several joined by ':'"
        )
    return groups


def parse_loss(flag: str, text: str) -> str:
    """Which states the loss is of."""
    check_choice(flag, text, LOSSES)
    return text


def parse_peers(flag: str, text: str) -> list[str]:
    """Names of libraries, joined by commas."""
    names = text.split(",")
    for name in names:
        check_choice(flag, name, PEERS)
    return names


def parse_count(flag: str, text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"{flag}={text}: allowed are whole numbers from 1")
    return int(text)


def parse_counts(flag: str, text: str) -> list[int]:
    """Whole numbers from 1, joined by commas."""
    return [parse_count(flag, part) for part in text.split(",")]


def parse_seconds(flag: str, text: str) -> float:
    """A number from 0."""
    seconds = scalar_of(flag, Text(text), float)
    check_range(flag, seconds, {"low": 0})
    return seconds


def parse_configs(flag: str, text: str) -> list[str]:
    """Names of configs, joined by commas."""
    names = text.split(",")
    for name in names:
        check_choice(flag, name, CONFIGS)
    return names


def parse_widths(flag: str, text: str) -> list[tuple[int, ...]]:
    """Pairs of features and units."""
    return parse_sizes(flag, text, ("D", "H"))


PARSERS: dict[str, Callable[[str, str], Any]] = {
    "shapes": parse_shapes,
    "sizes": parse_sizes,
    "widths": parse_widths,
    "configs": parse_configs,
    "devices": parse_count,
    "loss": parse_loss,
    "peers": parse_peers,
    "repeats": parse_count,
    "seconds": parse_seconds,
    "runs": parse_count,
    "trials": parse_count,
    "steps": parse_counts,
    "members": parse_counts,
}
