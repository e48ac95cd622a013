"""Errors of use: one line that names what came, what is allowed and the closest match."""

from __future__ import annotations

import difflib
import importlib
import operator
from collections.abc import Iterable
from types import ModuleType
from typing import Any


class UsageError(ValueError):
    """Bad input from a user (config, data, directory). The command line prints it as one line and exits with 2."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows: the one line, without the way to it through the library."""
        return [f"{type(self).__name__}: {self}"]


class ArgumentError(UsageError):
    """Bad input whose message begins with the name of an argument; commands write it as their flag, `--name`."""


def closest(value: object, allowed: Iterable[object]) -> str:
    """`"; did you mean 'x'?"` for the allowed value most like `value`, or an empty string."""
    matches = difflib.get_close_matches(str(value), [str(a) for a in allowed], n=1, cutoff=0.5)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def import_extra(extra: str, library: str, module: str, *more: str) -> ModuleType:
    """A module of a library that comes with an extra.

    Args:
        extra: which.
        library: what it is, as the message begins.
        module: its name.
        more: modules that have to be imported besides.

    Raises:
        UsageError: it is not installed.

    Examples:
        >>> from gru_jax.errors import import_extra
        >>> import_extra("text", "a library", "no_such_library")
        Traceback (most recent call last):
        ...
        gru_jax.errors.UsageError: a library is not installed; pip install 'gru_jax[text]' brings it
    """
    try:
        imported = importlib.import_module(module)
        for name in more:
            importlib.import_module(name)
    except ImportError as error:
        raise UsageError(f"{library} is not installed; pip install 'gru_jax[{extra}]' brings it") from error
    return imported


def listing(allowed: Iterable[object]) -> str:
    """The allowed values as one readable line."""
    return ", ".join(str(a) for a in allowed)


def check_choice(name: str, value: object, allowed: Iterable[Any]) -> None:
    """Raise `UsageError` unless `value` is one of `allowed`."""
    options = list(allowed)
    if value not in options:
        raise UsageError(f"{name}={value!r}: allowed are {listing(options)}{closest(value, options)}")


def check_argument(name: str, value: object, allowed: Iterable[Any]) -> None:
    """Raise `ArgumentError` unless the argument of this name is one of `allowed`."""
    try:
        check_choice(name, value, allowed)
    except UsageError as error:
        raise ArgumentError(str(error)) from None


def at_least_one(name: str, value: Any) -> int:
    """Check that an argument is a whole number from 1, and return it as an int.

    Raises:
        UsageError: not a whole number from 1.
    """
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise UsageError(f"{name}={value!r}: allowed are whole numbers from 1")
    return number


def in_one_line(message: object) -> str:
    """A text without line breaks."""
    return " ".join(str(message).split())
