"""What a user wrote for one key of a config: as a value of the type that its section asks for, or one line of error."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import math
import numbers
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from gru_jax.errors import ArgumentError, UsageError, check_choice, in_one_line, listing
from gru_jax.user_code import NOTEBOOK, find, is_reference, reference

NONES = ("none", "null")
BOOLEANS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
MOST_DIGITS = 30  # of a whole number that is written with a fraction or an exponent


@dataclasses.dataclass(frozen=True)
class Text:
    """A value as typed on a command line, whose type the section decides."""

    value: str


def is_none(value: Any) -> bool:
    """Whether a value is none, as Python, JSON or YAML write it."""
    return value is None or (isinstance(value, Text) and value.value.lower() in NONES)


def split_list(text: str) -> list[str]:
    r"""The items of a list with commas; one that has a comma in it is written with a backslash before that.

    Examples:
        >>> from gru_jax.values import split_list
        >>> split_list(r"runs/a,runs/lr=0\,1")
        ['runs/a', 'runs/lr=0,1']
    """
    return [item.replace("\\,", ",") for item in re.split(r"(?<!\\),", text)]


def join_list(items: Iterable[str]) -> str:
    """The inverse of `split_list`."""
    return ",".join(item.replace(",", "\\,") for item in items)


def is_cell_of_a_reference(value: Any) -> bool:
    """Whether a value is a reference of ml_collections, which other values of a config may follow."""
    return hasattr(value, "get") and hasattr(value, "get_type") and not hasattr(value, "items")  # as a ConfigDict has


def referenced_value(path: str, value: Any, *, needed: bool = True) -> Any:
    """What a reference of ml_collections stands for; other values, dicts and lists of them with all that is in them.

    Args:
        path: of the value, for messages.
        value: what may be one, or hold some.
        needed: whether it is an error where one has no value; else that is None.

    Raises:
        UsageError: it is required and nobody gave it.
    """
    if isinstance(value, Mapping):
        return {k: referenced_value(f"{path}.{k}" if path else str(k), v, needed=needed) for k, v in value.items()}
    if type(value) in (list, tuple):  # not those with fields of their own, as optimisers of optax are
        return type(value)(referenced_value(path, item, needed=needed) for item in value)
    if not is_cell_of_a_reference(value):
        return value
    try:
        return value.get()
    except Exception as error:  # of a library that this room does not import, or of a function of a user's own
        if not needed:
            return None
        if type(error).__name__ != "RequiredValueError":
            raise UsageError(f"{path}: {type(error).__name__}: {in_one_line(error)}") from error
        raise UsageError(f"{path}: missing; the config requires a value of type {value.get_type().__name__}") from error


def follow_text(value: Any, text: str) -> None:
    """Give a reference the value that was typed for it, so that those that follow it see it."""
    if is_cell_of_a_reference(value):
        kind = value.get_type()
        typed = literal(text, text)
        with contextlib.suppress(UsageError):  # its section says what is wrong
            typed = scalar_of("", Text(text), kind) if kind in (int, float, bool, str) else typed
            value.set(None if is_none(Text(text)) else typed, type_safe=False)


def unpacked(value: Any) -> Any:
    """The Python value that an array or a scalar of NumPy or JAX stands for; other values as they are."""
    if getattr(value, "ndim", None) is None:
        return value
    return value.item() if value.size == 1 else value.tolist()


def missing_code(name: str, value: str, choices: Iterable[Any]) -> ArgumentError:
    """What to say of a reference to what the user has not given."""
    where, _, path = value.partition(":")
    if where == NOTEBOOK:
        return ArgumentError(
            f"code: missing; {name}={value} was defined in a notebook or at a prompt: run that cell here, or give a "
            f"file that defines {path}"
        )
    return ArgumentError(
        f"code: missing; {name}={value} is not loaded, give the file that defines it; built in are {listing(choices)}"
    )


def check_open_choice(name: str, value: object, choices: Sequence[Any], metadata: Mapping[str, Any]) -> None:
    """Raise `UsageError` where a value is none of the choices, nor, where they are open, a function of a user's own."""
    if metadata.get("is_open") and (callable(value) or is_reference(value)):
        if is_reference(value) and find(value) is None:
            raise missing_code(name, value, choices)
        return
    refused = metadata.get("refused")
    if refused and isinstance(value, str) and value in refused:
        raise UsageError(f"{name}={value!r}: {refused[value]}; allowed are {listing(choices)}")
    check_choice(name, value, choices)


def scalar_of(path: str, value: object, kind: type) -> Any:
    """A single value of this type.

    Raises:
        UsageError: it stands for none.
    """
    typed = isinstance(value, Text)
    raw: Any = value.value if isinstance(value, Text) else unpacked(value)
    if kind is str and callable(raw):
        return reference(raw)
    if kind is str and isinstance(raw, os.PathLike):
        return os.fspath(raw)
    if kind is str and isinstance(raw, str):
        return raw
    if kind is bool:
        if typed and raw.lower() in BOOLEANS:
            return BOOLEANS[raw.lower()]
        if isinstance(raw, numbers.Integral) and raw in (0, 1):
            return bool(raw)
        raise UsageError(f"{path}={show_value(value)}: allowed are true, false")
    try:
        if kind is int and (typed or (isinstance(raw, numbers.Real) and not isinstance(raw, bool))):
            whole = _whole_number(raw)
            if whole is not None:
                return whole
        if kind is float and (typed or (isinstance(raw, numbers.Real) and not isinstance(raw, bool))):
            number = float(raw)
            if math.isfinite(number):
                return number
    except (ValueError, OverflowError, InvalidOperation):
        pass
    wanted = {int: "a whole number", float: "a finite number", str: "a text"}
    if kind not in wanted:
        raise UsageError(
            f"{path}: its type is {kind}; allowed in a section are int, float, str, bool, tuples of one of them, "
            "dataclasses and mappings, and None beside them"
        )
    raise UsageError(f"{path}={show_value(value)}: {wanted[kind]} is needed here")


def _whole_number(raw: Any) -> int | None:
    """A whole number, which may be written as 1e3 or 1000.0; None where it is none.

    Raises:
        ValueError, OverflowError: it is none either.
    """
    if not isinstance(raw, str):
        return int(raw) if raw == int(raw) else None
    try:
        return int(raw)
    except ValueError:
        number = Decimal(raw.replace("_", ""))
        is_whole = number.is_finite() and number.adjusted() < MOST_DIGITS and number == number.to_integral_value()
        return int(number) if is_whole else None


def tuple_of(path: str, value: object, kind: type, metadata: Mapping[str, Any]) -> tuple[Any, ...]:
    """One or several values of this type.

    Raises:
        UsageError: one of them stands for none, or is out of its range.
    """
    raw = value
    if isinstance(value, Text):
        raw = tuple(split_list(value.value)) if kind is str else literal(value.value, None)
    is_one = isinstance(raw, kind) or callable(raw) or (kind is not str and isinstance(raw, numbers.Real))
    raw = (raw,) if is_one else raw
    if not isinstance(raw, Sequence) or isinstance(raw, str) or not raw:
        examples = {str: "names are needed here, e.g. a or a,b", int: "whole numbers are needed here, e.g. 128,64"}
        wanted = examples.get(kind, "numbers are needed here, e.g. 0.5,2")
        raise UsageError(f"{path}={show_value(value)}: {wanted}")
    items = tuple(scalar_of(path, item, kind) for item in raw)
    for item in items:
        check_range(path, item, metadata)
    return items


def free_section_of(path: str, value: object) -> dict[str, Any]:
    """A section with keys of the user's own, whose typed values are read as Python literals or text."""
    if isinstance(value, Text):
        value = literal(value.value, value)
    if not isinstance(value, Mapping):
        raise UsageError(f"{path}={show_value(value)}: a section is needed here")

    def plain(item: object) -> Any:
        if isinstance(item, Mapping):
            return {k: plain(v) for k, v in item.items()}
        if not isinstance(item, Text):
            return unpacked(item)
        return literal(item.value, item.value)

    return plain(value)


def literal(text: str, otherwise: Any) -> Any:
    """A Python literal, or `otherwise` if `text` is none."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return otherwise


def check_range(path: str, value: object, metadata: Mapping[str, Any]) -> None:
    """Raise `UsageError` where a value is none of its choices or out of its range."""
    low, high, choices = (metadata.get(key) for key in ("low", "high", "choices"))
    if choices is not None:
        check_open_choice(path, value, choices, metadata)
    if (low is not None and not value >= low) or (high is not None and not value <= high):  # NaN is in no range
        raise UsageError(f"{path}={value!r}: allowed are numbers {describe_range(low, high)}")


def describe_range(low: float | int | None, high: float | int | None) -> str:
    """A range of numbers in words, one end of which may be open."""
    ends = (("from", low), ("to" if low is not None else "up to", high))
    return " ".join(f"{word} {end:.10g}" for word, end in ends if end is not None)


def show_value(value: object) -> str:
    """A value as the user wrote it, for messages."""
    return value.value if isinstance(value, Text) else repr(value)
