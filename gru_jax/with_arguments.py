"""Functions and classes of a user's own with values for some of their arguments, as `{"name": sparse, "density": 0.3}`.

Such a section may stand in a config wherever the function alone may: a model family, an initialiser, a schedule, an
instrument. Its keys are those arguments that have a plain value as their default, which says what type they take.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import NoneType
from typing import Any

import jax

from gru_jax.errors import UsageError, closest, listing
from gru_jax.user_code import Name, find, is_reference, reference
from gru_jax.values import Text, check_open_choice, is_none, literal, scalar_of, show_value, unpacked

PLAIN = (bool, int, float, str, NoneType)
"""Types of the defaults of those arguments that are settings."""
_INFINITE = (float("inf"), float("-inf"))  # defaults that no config can say
_COLLECTING = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
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
        if not any(isinstance(value, jax.Array) for value in self.arguments.values()):
            return self.thing(*args, **kwargs, **self.arguments)
        with refusing_decisions(repr(self)):
            result = self.thing(*args, **kwargs, **self.arguments)
        return refusing_decisions(repr(self))(result) if callable(result) else result  # a schedule gives a function

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WithArguments) and (self.name, self.arguments) == (other.name, other.arguments)

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        written = [key if isinstance(value, jax.Array) else f"{key}={value!r}" for key, value in self.arguments.items()]
        return f"{self.name}({', '.join(written)})"


def without_arguments(thing: object) -> Any:
    """The function or class itself, of one with arguments; others as they are."""
    return thing.thing if isinstance(thing, WithArguments) else thing


def real_arguments(key: str, named: object) -> dict[str, float]:
    """The real numbers among the arguments that the value of a key comes with, by dotted name."""
    arguments = named.arguments if isinstance(named, WithArguments) else {}
    return {f"{key}.{name}": value for name, value in arguments.items() if isinstance(value, float)}


def with_traced(named: object, values: Mapping[str, Any], key: str) -> Any:
    """The value of a key with the numbers, which may be traced, that `values` has by the names of `real_arguments`."""
    if not isinstance(named, WithArguments):
        return named
    arguments = {name: values.get(f"{key}.{name}", value) for name, value in named.arguments.items()}
    return WithArguments(named.name, arguments)


def parameters_of(*things: Any) -> dict[str, inspect.Parameter]:
    """What functions take, and classes: beside what their own `__init__` names, what it hands on to their bases.

    Raises:
        UsageError: one does not say what it takes.
    """
    taken: dict[str, inspect.Parameter] = {}
    for thing in things:
        classes = thing.__mro__[:-1] if isinstance(thing, type) else ()
        for function in [vars(one)["__init__"] for one in classes if "__init__" in vars(one)] if classes else [thing]:
            try:
                parameters = inspect.signature(function).parameters
            except ValueError as error:
                message = f"{thing!r}: does not say what it takes; allowed is what def or class defines"
                raise UsageError(message) from error
            taken = {**parameters, **taken}
            if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
                break
    return taken


def plain_arguments(name: str, thing: object, filled: int | Collection[str]) -> dict[str, Any]:
    """The arguments of a function or a class that are settings, with their defaults.

    Args:
        name: of it, for messages.
        thing: it.
        filled: arguments that it is called with anyway: so many at the beginning, or those of these names.

    Raises:
        UsageError: it needs others too, or has an argument called name.

    Examples:
        >>> import jax
        >>> from gru_jax.with_arguments import plain_arguments
        >>> def sparse(key, shape, dtype, density=0.2):
        ...     return jax.random.bernoulli(key, density, shape).astype(dtype)
        >>> plain_arguments("sparse", sparse, filled=3)
        {'density': 0.2}
    """
    taken = parameters_of(thing)
    known = list(taken)[:filled] if isinstance(filled, int) else filled
    rest = {key: p for key, p in taken.items() if key not in known and key != "self" and p.kind not in _COLLECTING}
    needed = [key for key, parameter in rest.items() if parameter.default is parameter.empty]
    if needed:
        others = f"the first {filled}" if isinstance(filled, int) else listing(filled)
        raise UsageError(f"{name}: its argument {needed[0]} needs a default, as all but {others} do")
    if "name" in rest:
        raise UsageError(f"{name}: has an argument called name, which is the key that it is chosen by")
    return {key: p.default for key, p in rest.items() if type(p.default) in PLAIN and p.default not in _INFINITE}


def as_section(value: object) -> Any:
    """A name with arguments, or a `functools.partial` of keywords, as it stands in a config; others as they are."""
    if isinstance(value, WithArguments):
        return {"name": value.name, **value.arguments}
    if isinstance(value, functools.partial) and not value.args:
        return {"name": value.func, **value.keywords}
    return value


def has_arguments(value: object) -> bool:
    """Whether what a user wrote for a key is, or has in it, a name with arguments."""
    return any(isinstance(_content(item), Mapping | functools.partial) for item in _items(value))


def names_with_arguments(path: str, value: object, metadata: Mapping[str, Any], *, several: bool) -> Any:
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


def _with_arguments(path: str, value: object, metadata: Mapping[str, Any]) -> Name | WithArguments:
    content = _content(value)
    if isinstance(content, functools.partial):
        raise UsageError(f"{path}={content!r}: its arguments need names, as in partial(FUNCTION, NAME=VALUE)")
    written = dict(content) if isinstance(content, Mapping) else {"name": content}
    if "name" not in written:
        what = f"; it says whose arguments {listing(written)} are" if written else ""
        raise UsageError(f"{path}.name: missing{what}")
    name = unpacked(written.pop("name"))
    name = name.value if isinstance(name, Text) else name
    check_open_choice(f"{path}.name", name, metadata["choices"], metadata)
    name = reference(name) if callable(name) else name
    if not written:
        return name
    is_own = is_reference(name)
    arguments = plain_arguments(f"{path}.name={name}", find(name), metadata["filled"]) if is_own else {}
    for key in written:
        if key not in arguments:
            allowed = f"has {listing(arguments)}" if arguments else "has no argument of its own with a plain default"
            raise UsageError(f"{path}.{key}: no such key; {name} {allowed}{closest(key, arguments)}")
    return WithArguments(name, {key: _typed(f"{path}.{key}", item, arguments[key]) for key, item in written.items()})


def _items(value: object) -> Sequence[Any]:
    return value if isinstance(value, Sequence) and not isinstance(value, str) else (value,)


def _content(value: Any) -> Any:
    """What was typed, where it is a dict; and what stands for one, as that."""
    if isinstance(value, Text):
        return literal(value.value, value) if value.value.startswith("{") else value
    if hasattr(value, "items") and not isinstance(value, Mapping):  # a ConfigDict
        return dict(value.items())
    return as_section(value)


def _typed(path: str, value: object, default: object) -> Any:
    """A value of the type of a default; of a number, or None, where that is None."""
    kind = float if default is None else type(default)
    if isinstance(value, str) and kind is not str:  # of a section that was typed as a whole
        value = Text(value)
    return None if default is None and is_none(value) else scalar_of(path, value, kind)
