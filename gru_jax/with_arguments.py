"""Functions and classes of a user's own with values for some of their arguments, as `{"name": sparse, "density": 0.3}`.

Such a section may stand in a config wherever the function alone may: a model family, an initialiser, a schedule, an
instrument. Its keys are those arguments that have a plain value as their default, which says what type they take.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Iterator, Mapping, Sequence
from types import NoneType
from typing import Any

import jax

from gru_jax.errors import UsageError, closest, listing
from gru_jax.user_code import Name, find, is_reference, reference
from gru_jax.values import Text, check_open_choice, is_none, literal, scalar_of, show_value, unpacked

PLAIN = (bool, int, float, str, NoneType)
"""Types of the defaults of those arguments that are settings."""


TRACED_ERRORS = (
    jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError, jax.errors.TracerIntegerConversionError,
)  # fmt: skip
"""What JAX raises where a traced number is needed as a number."""


@contextlib.contextmanager
def refusing_decisions(name: str) -> Iterator[None]:
    """Turn the error of a function that decides by one of its arguments that are traced into one line."""
    try:
        yield
    except TRACED_ERRORS as error:
        raise UsageError(
            f"{name}: it decides by the value of a real number, which is traced; allowed are decisions by whole "
            "numbers, texts and booleans"
        ) from error


class WithArguments:
    """A function or a class by its `gru_jax.user_code.reference`, called with these arguments beside what it is given.

    Examples:
        >>> import optax
        >>> from gru_jax.user_code import reference
        >>> from gru_jax.with_arguments import WithArguments
        >>> half = WithArguments(reference(optax.constant_schedule), {"value": 0.5})
        >>> half()(3)
        0.5
    """

    def __init__(self, name: str, arguments: Mapping[str, Any]) -> None:
        self.name = name
        self.arguments = dict(arguments)

    @property
    def thing(self) -> Any:
        """The function or class itself."""
        return find(self.name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        is_traced = any(isinstance(value, jax.Array) for value in self.arguments.values())
        with refusing_decisions(self.name) if is_traced else contextlib.nullcontext():
            return self.thing(*args, **kwargs, **self.arguments)

    def as_section(self) -> dict[str, Any]:
        """As it stands in a config."""
        return {"name": self.name, **self.arguments}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WithArguments) and (self.name, self.arguments) == (other.name, other.arguments)

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{key}={value!r}' for key, value in self.arguments.items())})"


def without_arguments(thing: Any) -> Any:
    """The function or class itself, of one with arguments; others as they are."""
    return thing.thing if isinstance(thing, WithArguments) else thing


def real_arguments(key: str, named: Any) -> dict[str, float]:
    """The real numbers among the arguments that the value of a key comes with, by dotted name."""
    arguments = named.arguments if isinstance(named, WithArguments) else {}
    return {f"{key}.{name}": value for name, value in arguments.items() if isinstance(value, float)}


def with_traced(named: Any, values: Mapping[str, Any], key: str) -> Any:
    """The value of a key with the numbers, which may be traced, that `values` has by the names of `real_arguments`."""
    if not isinstance(named, WithArguments):
        return named
    arguments = {name: values.get(f"{key}.{name}", value) for name, value in named.arguments.items()}
    return WithArguments(named.name, arguments)


def plain_arguments(thing: Any) -> dict[str, Any]:
    """The arguments of a function or a class that are settings, with their defaults; of a class none of its bases'.

    Examples:
        >>> import jax
        >>> from gru_jax.with_arguments import plain_arguments
        >>> def sparse(key, shape, dtype, density=0.2):
        ...     return jax.random.bernoulli(key, density, shape).astype(dtype)
        >>> plain_arguments(sparse)
        {'density': 0.2}
    """
    bases = thing.__mro__[1:] if isinstance(thing, type) else ()
    known = {name for base in bases for name in inspect.signature(base.__init__).parameters}
    parameters = inspect.signature(thing.__init__ if isinstance(thing, type) else thing).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in known and type(p.default) in PLAIN}


def has_arguments(value: Any) -> bool:
    """Whether what a user wrote for a key is, or has in it, a name with arguments."""
    return any(isinstance(_content(item), Mapping | functools.partial) for item in _items(value))


def names_with_arguments(path: str, value: Any, metadata: Mapping[str, Any], *, several: bool) -> Any:
    """What a user wrote where a function or a class of their own may stand; the name alone of what has no arguments.

    Args:
        path: the dotted name of the key, for messages.
        value: a name, a section with a `name`, a `functools.partial`, or several of them.
        metadata: of the key, see `gru_jax.settings.setting`.
        several: whether the key takes more than one.

    Raises:
        UsageError: one has no name, or an argument that is none, or of another type.
    """
    named = tuple(_with_arguments(path, item, metadata) for item in _items(value))
    if several:
        return named
    if len(named) != 1:
        raise UsageError(f"{path}={show_value(value)}: one is needed here")
    return named[0]


def _with_arguments(path: str, value: Any, metadata: Mapping[str, Any]) -> Name | WithArguments:
    written = _section_of(path, value)
    if "name" not in written:
        raise UsageError(f"{path}.name: missing; it says whose arguments {listing(written)} are")
    name = unpacked(written.pop("name"))
    name = name.value if isinstance(name, Text) else name
    check_open_choice(f"{path}.name", name, metadata["choices"], metadata)
    name = reference(name) if callable(name) else name
    arguments = plain_arguments(find(name)) if is_reference(name) else {}
    for key in written:
        if key not in arguments:
            allowed = f"has {listing(arguments)}" if arguments else "has no argument with a plain default"
            raise UsageError(f"{path}.{key}: no such key; {name} {allowed}{closest(key, arguments)}")
    if not written:
        return name
    typed = {key: _typed(f"{path}.{key}", item, arguments[key]) for key, item in written.items()}
    return WithArguments(name, {**arguments, **typed})


def _section_of(path: str, value: Any) -> dict[str, Any]:
    """A name with its arguments as a dict."""
    content = _content(value)
    if not isinstance(content, functools.partial):
        return dict(content) if isinstance(content, Mapping) else {"name": content}
    if content.args:
        raise UsageError(f"{path}={content!r}: its arguments need names, as in partial(FUNCTION, NAME=VALUE)")
    return {"name": content.func, **content.keywords}


def _items(value: Any) -> Sequence[Any]:
    return value if isinstance(value, Sequence) and not isinstance(value, str) else (value,)


def _content(value: Any) -> Any:
    """What was typed, where it is a dict, and what this module made, as one."""
    if isinstance(value, WithArguments):
        return value.as_section()
    return literal(value.value, None) if isinstance(value, Text) and value.value.startswith("{") else value


def _typed(path: str, value: Any, default: Any) -> Any:
    """A value of the type of a default; of a number, or None, where that is None."""
    if default is None:
        return None if is_none(value) else scalar_of(path, value, float)
    return scalar_of(path, value, type(default))
