"""Typed settings: from what a user wrote to a frozen, checked dataclass, and back.

A section of a config is a dataclass. Its annotations say which types are allowed and, where they are `Literal`, which
values; `setting` adds ranges, and choices that come from a registry; `resolve` turns a plain nested dict into it, or
says in one line what is wrong.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import math
import numbers
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

from gru_jax.errors import UsageError, check_choice, closest, listing

Section = TypeVar("Section")


def setting(
    default: Any,
    *,
    low: float | int | None = None,
    high: float | int | None = None,
    choices: Sequence[Any] | None = None,
    kw_only: bool = False,
) -> Any:
    """A dataclass field with the inclusive range or the choices that a config may give it.

    Choices are for the names of a registry; a fixed list of values is better said by a `Literal` annotation.
    """
    metadata = {"low": low, "high": high, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata, kw_only=kw_only)


def check_choices(section: Any) -> None:
    """Raise `UsageError` where a field of a dataclass is none of its choices, those of `setting` or of a `Literal`."""
    annotations = _annotations(type(section))
    for field in dataclasses.fields(section):
        choices, value = _choices(annotations.get(field.name), field.metadata), getattr(section, field.name)
        if choices is None or (value is None and _is_optional(annotations.get(field.name))):
            continue
        for item in value if isinstance(value, tuple) else (value,):
            check_choice(field.name, item, choices)


@functools.cache
def _annotations(cls: type) -> Mapping[str, Any]:
    """The annotations of a class as types; none where they name what cannot be found, as a class of a user's may."""
    try:
        return typing.get_type_hints(cls)
    except NameError:
        return {}


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    """The types that a union joins; another type is its own only alternative."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _is_optional(annotation: Any) -> bool:
    return type(None) in _alternatives(annotation)


def _choices(annotation: Any, metadata: Mapping[str, Any]) -> Sequence[Any] | None:
    """The values that a field may take, or each item of it if it is a tuple; None where there is no list of them."""
    if metadata.get("choices") is not None:
        return metadata["choices"]
    for kind in _alternatives(annotation):
        item = typing.get_args(kind)[0] if typing.get_origin(kind) is tuple else kind
        if typing.get_origin(item) is Literal:
            return typing.get_args(item)
    return None


@dataclasses.dataclass(frozen=True)
class Text:
    """A value as typed on a command line, whose type the section decides."""

    value: str


Registries = Mapping[type, Mapping[str, type]]
"""For a base class, the classes that a section of this type can name by its key `name`."""


def resolve(cls: type[Section], values: Any, registries: Registries, path: str = "") -> Section:
    """Build a section from nested dicts.

    Args:
        cls: the dataclass, or a base class in `registries` whose key `name` picks one.
        values: keys to values; missing ones take their defaults. Values may be `Text`.
        registries: the classes behind names.
        path: dotted name of the section, for messages.

    Raises:
        UsageError: an unknown key, a value of the wrong type, out of range or not among the choices.
    """
    if not isinstance(values, Mapping):
        raise UsageError(
            f"{path}={_show(values)}: a section is needed here, with keys {listing(_keys(cls, registries))}"
        )
    values = dict(values)
    if cls in registries:
        options = registries[cls]
        name = values.pop("name", next(iter(options)))
        name = name.value if isinstance(name, Text) else name
        check_choice(f"{path}.name", name, options)
        cls = options[name]
        where = f"{path} {name!r}"
    else:
        where = path or "the config"
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    annotations = typing.get_type_hints(cls)
    prefix = f"{path}." if path else ""
    for key in values:
        if key not in fields:
            allowed = listing(fields) or "none"
            raise UsageError(f"{prefix}{key}: no such key; {where} has {allowed}{closest(key, fields)}")
    kwargs = {k: _value(f"{prefix}{k}", v, annotations[k], fields[k].metadata, registries) for k, v in values.items()}
    try:
        return cls(**kwargs)
    except UsageError as error:
        raise UsageError(f"{prefix}{error}") from error


def to_dict(section: Any, registries: Registries) -> Any:
    """The inverse of `resolve`: plain nested dicts, fit for JSON."""
    if dataclasses.is_dataclass(section):
        plain = {f.name: to_dict(getattr(section, f.name), registries) for f in dataclasses.fields(section)}
        for base, options in registries.items():
            if isinstance(section, base):
                name = next(name for name, cls in options.items() if cls is type(section))
                plain = {"name": name, **plain}
        return plain
    if isinstance(section, Mapping):
        return {k: to_dict(v, registries) for k, v in section.items()}
    if isinstance(section, tuple):
        return [to_dict(v, registries) for v in section]
    return section


def describe_settings(section: Any, registries: Registries, prefix: str = "") -> dict[str, tuple[Any, str]]:
    """Every key of a section by dotted name: its value, and what is allowed where that is a list of names."""
    keys: dict[str, tuple[Any, str]] = {}
    for base, options in registries.items():
        if isinstance(section, base):
            keys[f"{prefix}name"] = (to_dict(section, registries)["name"], listing(options))
    annotations = _annotations(type(section))
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            keys |= describe_settings(value, registries, f"{prefix}{field.name}.")
        else:
            choices = _choices(annotations.get(field.name), field.metadata)
            keys[prefix + field.name] = (value, listing(choices or ()))
    return keys


def flatten(plain: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one dict of dotted names."""
    flat: dict[str, Any] = {}
    for key, value in plain.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _keys(cls: type, registries: Registries) -> list[str]:
    named = ["name"] if cls in registries else []
    return named + [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]


def _show(value: Any) -> str:
    return value.value if isinstance(value, Text) else repr(value)


def _value(path: str, value: Any, annotation: Any, metadata: Mapping[str, Any], registries: Registries) -> Any:
    """What was given for one key, as its annotation wants it."""
    is_none = value is None or (isinstance(value, Text) and value.value.lower() == "none")
    if is_none and _is_optional(annotation):
        return None
    kind = next(kind for kind in _alternatives(annotation) if kind is not type(None))
    metadata = {**metadata, "choices": _choices(annotation, metadata)}
    if kind in registries or dataclasses.is_dataclass(kind):
        return resolve(typing.cast(type, kind), value, registries, path)
    origin = typing.get_origin(kind) or kind
    if origin is tuple:
        return _several(path, value, _plain_type(typing.get_args(kind)[0]), metadata)
    if origin is not Literal and issubclass(origin, Mapping):
        return _free_section(path, value)
    result = _scalar(path, value, _plain_type(kind))
    _check_range(path, result, metadata)
    return result


def _plain_type(kind: Any) -> type:
    """The type of the values of a `Literal`; another type itself."""
    return type(typing.get_args(kind)[0]) if typing.get_origin(kind) is Literal else kind


def _scalar(path: str, value: Any, kind: type) -> Any:
    typed = isinstance(value, Text)
    raw: Any = value.value if isinstance(value, Text) else value
    if kind is str and isinstance(raw, str):
        return raw
    if kind is bool:
        if typed and raw.lower() in ("true", "false"):
            return raw.lower() == "true"
        if isinstance(raw, bool):
            return raw
        raise UsageError(f"{path}={_show(value)}: allowed are true, false")
    try:
        if kind is int and (typed or (isinstance(raw, numbers.Integral) and not isinstance(raw, bool))):
            return int(raw)
        if kind is float and (typed or (isinstance(raw, numbers.Real) and not isinstance(raw, bool))):
            number = float(raw)
            if math.isfinite(number):
                return number
    except (ValueError, OverflowError):
        pass
    name = {int: "a whole number", float: "a finite number", str: "a text"}[kind]
    raise UsageError(f"{path}={_show(value)}: {name} is needed here")


def _several(path: str, value: Any, kind: type, metadata: Mapping[str, Any]) -> tuple[Any, ...]:
    raw = value
    if isinstance(value, Text):
        raw = tuple(value.value.split(",")) if kind is str else literal(value.value, None)
    if isinstance(raw, kind):
        raw = (raw,)
    if not isinstance(raw, Sequence) or isinstance(raw, str) or not raw:
        wanted = "names are needed here, e.g. a or a,b" if kind is str else "whole numbers are needed here, e.g. 128,64"
        raise UsageError(f"{path}={_show(value)}: {wanted}")
    items = tuple(_scalar(path, item, kind) for item in raw)
    for item in items:
        _check_range(path, item, metadata)
    return items


def _free_section(path: str, value: Any) -> dict[str, Any]:
    """A section with keys of the user's own, whose typed values are read as Python literals or text."""
    if not isinstance(value, Mapping):
        raise UsageError(f"{path}={_show(value)}: a section is needed here")

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


def _check_range(path: str, value: Any, metadata: Mapping[str, Any]) -> None:
    low, high, choices = (metadata.get(key) for key in ("low", "high", "choices"))
    if choices is not None:
        check_choice(path, value, choices)
    if (low is not None and value < low) or (high is not None and value > high):
        span = f"from {low:g}" if high is None else f"up to {high:g}" if low is None else f"from {low:g} to {high:g}"
        raise UsageError(f"{path}={value!r}: allowed are numbers {span}")
