"""What a user wrote for one key of a config: as a value of the type that its section asks for, or one line of error."""

from __future__ import annotations

import ast
import dataclasses
import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gru_jax.errors import ArgumentError, UsageError, check_choice, listing
from gru_jax.user_code import find, is_reference, reference


@dataclasses.dataclass(frozen=True)
class Text:
    """A value as typed on a command line, whose type the section decides."""

    value: str


def missing_code(name: str, value: str, choices: Iterable[Any]) -> ArgumentError:
    """What to say of a reference to what the user has not given."""
    return ArgumentError(
        f"code: missing; {name}={value} is not loaded, give the file that defines it; built in are {listing(choices)}"
    )


def check_open_choice(name: str, value: Any, choices: Sequence[Any], metadata: Mapping[str, Any]) -> None:
    """Raise `UsageError` where a value is none of the choices, nor, where they are open, a function of a user's own."""
    if metadata.get("is_open") and (callable(value) or is_reference(value)):
        if is_reference(value) and find(value) is None:
            raise missing_code(name, value, choices)
        return
    refused = metadata.get("refused")
    if refused and isinstance(value, str) and value in refused:
        raise UsageError(f"{name}={value!r}: {refused[value]}; allowed are {listing(choices)}")
    check_choice(name, value, choices)


def scalar_of(path: str, value: Any, kind: type) -> Any:
    """A single value of this type.

    Raises:
        UsageError: it stands for none.
    """
    typed = isinstance(value, Text)
    raw: Any = value.value if isinstance(value, Text) else value
    if kind is str and callable(raw):
        return reference(raw)
    if kind is str and isinstance(raw, str):
        return raw
    if kind is bool:
        if typed and raw.lower() in ("true", "false"):
            return raw.lower() == "true"
        if isinstance(raw, bool):
            return raw
        raise UsageError(f"{path}={show_value(value)}: allowed are true, false")
    try:
        if kind is int and (typed or (isinstance(raw, numbers.Integral) and not isinstance(raw, bool))):
            return int(raw)
        if kind is float and (typed or (isinstance(raw, numbers.Real) and not isinstance(raw, bool))):
            number = float(raw)
            if math.isfinite(number):
                return number
    except (ValueError, OverflowError):
        pass
    wanted = {int: "a whole number", float: "a finite number", str: "a text"}
    if kind not in wanted:
        raise UsageError(
            f"{path}: its type is {kind}; allowed in a section are int, float, str, bool, tuples of one of them, "
            "dataclasses and mappings, and None beside them"
        )
    raise UsageError(f"{path}={show_value(value)}: {wanted[kind]} is needed here")


def tuple_of(path: str, value: Any, kind: type, metadata: Mapping[str, Any]) -> tuple[Any, ...]:
    """One or several values of this type.

    Raises:
        UsageError: one of them stands for none, or is out of its range.
    """
    raw = value
    if isinstance(value, Text):
        raw = tuple(value.value.split(",")) if kind is str else literal(value.value, None)
    if isinstance(raw, kind) or callable(raw):
        raw = (raw,)
    if not isinstance(raw, Sequence) or isinstance(raw, str) or not raw:
        wanted = "names are needed here, e.g. a or a,b" if kind is str else "whole numbers are needed here, e.g. 128,64"
        raise UsageError(f"{path}={show_value(value)}: {wanted}")
    items = tuple(scalar_of(path, item, kind) for item in raw)
    for item in items:
        check_range(path, item, metadata)
    return items


def free_section_of(path: str, value: Any) -> dict[str, Any]:
    """A section with keys of the user's own, whose typed values are read as Python literals or text."""
    if not isinstance(value, Mapping):
        raise UsageError(f"{path}={show_value(value)}: a section is needed here")

    def plain(item: Any) -> Any:
        if isinstance(item, Mapping):
            return {k: plain(v) for k, v in item.items()}
        if not isinstance(item, Text):
            return item
        return literal(item.value, item.value)

    return plain(value)


def literal(text: str, otherwise: Any) -> Any:
    """A Python literal, or `otherwise` if `text` is none."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return otherwise


def check_range(path: str, value: Any, metadata: Mapping[str, Any]) -> None:
    """Raise `UsageError` where a value is none of its choices or out of its range."""
    low, high, choices = (metadata.get(key) for key in ("low", "high", "choices"))
    if choices is not None:
        check_open_choice(path, value, choices, metadata)
    if (low is not None and not value >= low) or (high is not None and not value <= high):  # NaN is in no range
        span = f"from {low:g}" if high is None else f"up to {high:g}" if low is None else f"from {low:g} to {high:g}"
        raise UsageError(f"{path}={value!r}: allowed are numbers {span}")


def show_value(value: Any) -> str:
    """A value as the user wrote it, for messages."""
    return value.value if isinstance(value, Text) else repr(value)
