"""Checks of types and shapes while tests run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jaxtyping


def check_types(packages: Sequence[str]) -> None:
    """Have all functions and classes of packages that are imported from now on check what they take and give.

    Functions inside of others do not: they are made anew at each call of the outer one, and so would their checks be,
    by compiling code, for a tenth of all tests' time.
    """
    jaxtyping.jaxtyped = check_outer_ones(jaxtyping.jaxtyped)  # as the hook's decorators call it
    jaxtyping.install_import_hook(packages, "beartype.beartype")


def check_outer_ones(jaxtyped: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator of the hook, `jaxtyped`, that leaves functions inside of others as they are."""

    def with_options(**options: Any) -> Callable[[Any], Any]:
        checked = jaxtyped(**options)
        return lambda thing: thing if "<locals>" in thing.__qualname__ else checked(thing)

    return with_options
