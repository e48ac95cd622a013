"""Typed settings: from what a user wrote to a frozen, checked dataclass, and back.

A section of a config is a dataclass. Its annotations say which types are allowed and, where they are `Literal`, which
values; `setting` adds ranges, and choices that come from a registry; `resolve` turns a plain nested dict into it, or
says in one line what is wrong.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

from gru_jax.errors import UsageError, check_choice, closest, listing
from gru_jax.user_code import find, is_reference, reference
from gru_jax.values import (
    Text,
    check_open_choice,
    check_range,
    free_section_of,
    is_none,
    literal,
    missing_code,
    referenced_value,
    scalar_of,
    show_value,
    tuple_of,
    unpacked,
)
from gru_jax.with_arguments import as_section, has_arguments, names_with_arguments, without_arguments

Section = TypeVar("Section")


def setting(
    default: object,
    *,
    low: float | int | None = None,
    high: float | int | None = None,
    choices: Sequence[Any] | None = None,
    is_open: bool = False,
    filled: int | Collection[str] = (),
    refused: Mapping[str, str] | None = None,
    kw_only: bool = False,
) -> Any:
    """A dataclass field with the inclusive range or the choices that a config may give it.

    Choices are for the names of a registry; a fixed list of values is better said by a `Literal` annotation. Where they
    are open, a function of a user's own is allowed too, by itself or by its `gru_jax.user_code.reference`, and with
    arguments beside those that it is called with anyway, which `filled` counts or names (`gru_jax.with_arguments`).
    `refused` has the reason, for values that one may well expect among the choices.
    """
    metadata = {
        "low": low, "high": high, "choices": choices, "is_open": is_open, "filled": filled, "refused": refused
    }  # fmt: skip
    return dataclasses.field(default=default, metadata=metadata, kw_only=kw_only)


def check_values(section: Any) -> None:
    """Raise `UsageError` where a field of a dataclass is none of its choices, or a number out of its range.

    Choices are those of `setting` or of a `Literal`. Traced numbers have no value yet and pass.
    """
    check_fields(type(section))
    for field in dataclasses.fields(section):
        check_value(type(section), field, getattr(section, field.name))


def check_value(cls: type, field: dataclasses.Field[Any], value: Any, prefix: str = "") -> None:
    """Raise `UsageError` where a value for a field of a dataclass is none of its choices, or out of its range."""
    annotation = annotations_of(cls).get(field.name)
    choices = choices_of(annotation, field.metadata)
    if value is None and is_optional(annotation):
        return
    for item in value if isinstance(value, tuple) else (value,):
        if choices is not None:
            check_open_choice(f"{prefix}{field.name}", item, choices, field.metadata)
        else:
            check_number(field, item, prefix)


@functools.cache
def check_fields(cls: type) -> None:
    """Raise `UsageError` where a class annotates what is no field, since it is no dataclass like its base."""
    fields = {field.name for field in dataclasses.fields(cls)}
    annotated = inspect.get_annotations(cls)
    lost = [name for name, kind in annotated.items() if name not in fields and "ClassVar" not in str(kind)]
    if lost and "__dataclass_params__" not in vars(cls):
        raise UsageError(
            f"{cls.__name__}: {listing(lost)} is no setting of it; above the class is needed "
            "@dataclasses.dataclass(frozen=True)"
        )


def check_number(field: dataclasses.Field[Any], value: object, prefix: str = "") -> None:
    """Raise `UsageError` where a value is a number, not a traced one, and out of a field's range."""
    if isinstance(value, int | float):
        check_range(f"{prefix}{field.name}", value, field.metadata)


@functools.cache
def annotations_of(cls: type) -> Mapping[str, Any]:
    """The annotations of a class as types; none where they name what cannot be found, as a class of a user's may."""
    try:
        return typing.get_type_hints(cls)
    except NameError:
        return {}


def alternatives(annotation: object) -> tuple[Any, ...]:
    """The types that a union joins; another type is its own only alternative."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def is_optional(annotation: Any) -> bool:
    """Whether a type takes None."""
    return type(None) in alternatives(annotation)


def choices_of(annotation: Any, metadata: Mapping[str, Any]) -> Sequence[Any] | None:
    """The values that a field may take, or each item of it if it is a tuple; None where there is no list of them.

    A number beside words, as in `int | Literal["auto"]`, is in no list.
    """
    if metadata.get("choices") is not None:
        return metadata["choices"]
    kinds = alternatives(annotation)
    for kind in () if int in kinds else kinds:
        item = typing.get_args(kind)[0] if typing.get_origin(kind) is tuple else kind
        if typing.get_origin(item) is Literal:
            return typing.get_args(item)
    return None


Registries = Mapping[type, Mapping[str, type]]
"""For a base class, the classes that a section of this type can name by its key `name`. A class of a user's own is
named by itself or by its `reference`. A base class whose sections are made for something else, such as a function, has
`section_for(thing)`, which gives the class of the section, or None where it can make none.
"""


def resolve(cls: type[Section], values: Any, registries: Registries, path: str = "") -> Section:
    """Build a section from nested dicts.

    Args:
        cls: the dataclass, or a base class in `registries` whose key `name` picks one.
        values: keys to values, or a section as it is; missing ones take their defaults. Where a name picks the class,
            the name alone, or what it stands for, will do. Values may be `Text`.
        registries: the classes behind names.
        path: dotted name of the section, for messages.

    Raises:
        UsageError: an unknown key, a value of the wrong type, out of range or not among the choices.
    """
    if (isinstance(values, cls) or hasattr(values, "items")) and not isinstance(values, Mapping):
        values = to_dict(values, registries)
    if isinstance(values, Text):
        values = literal(values.value, values.value)
    values = as_section(values)
    if cls in registries and (isinstance(values, str) or callable(values)):
        values = {"name": values}
    if not isinstance(values, Mapping):
        raise UsageError(
            f"{path}={show_value(values)}: a section is needed here, with keys {listing(_keys(cls, registries))}"
            f"{getattr(cls, 'section_hint', '')}"
        )
    values, where = dict(values), path or "the config"
    if cls in registries:
        name = values.pop("name", next(iter(registries[cls])))
        name = unpacked(referenced_value(f"{path}.name", name))
        name = name.value if isinstance(name, Text) else name
        cls = _section_named(cls, name, registries[cls], f"{path}.name")
        name = name if isinstance(name, str) else reference(name)
        where = f"{path} {name!r}"
        if "name" in annotations_of(cls):
            values["name"] = name
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    annotations = {name: _kind(cls, field) for name, field in fields.items()}
    prefix = f"{path}." if path else ""
    for key in values:
        if key not in fields:
            allowed = listing(fields) or "none"
            raise UsageError(f"{prefix}{key}: no such key; {where} has {allowed}{closest(key, fields)}")
    kwargs = {k: _value(f"{prefix}{k}", v, annotations[k], fields[k].metadata, registries) for k, v in values.items()}
    for field in fields.values():
        if field.name not in kwargs and field.default is field.default_factory is dataclasses.MISSING:
            raise UsageError(f"{prefix}{field.name}: missing; {where} has no default for it")
    try:
        return cls(**kwargs)
    except UsageError as error:
        raise UsageError(f"{prefix}{error}") from error


def _section_named(base: type, name: Any, options: Mapping[str, type], path: str) -> type:
    """The class of a section by a registered name, by the reference of a user's own, or by that class itself."""
    thing = name
    if is_reference(name):
        thing = find(name)
        if thing is None:
            raise missing_code(path, name, options)
    elif isinstance(name, str):
        check_choice(path, name, options)
        return options[name]
    section_for: Any = getattr(base, "section_for", None)
    section = thing if section_for is None else section_for(thing)
    if not (isinstance(section, type) and issubclass(section, base)):
        kind = "a function" if section_for is not None else f"a subclass of {base.__module__}.{base.__name__}"
        raise UsageError(f"{path}={name!r}: allowed are {listing(options)}, or {kind}")
    if section_for is None and any(field.name == "name" for field in dataclasses.fields(section)):
        raise UsageError(f"{path}={name!r}: has a field called name, which is the key that it is chosen by")
    return section


def to_dict(section: Any, registries: Registries) -> Any:
    """The inverse of `resolve`: plain nested dicts, fit for JSON; classes and functions by their references."""
    if isinstance(section, Text):
        return section
    section = as_section(section)
    if getattr(section, "ndim", None) is not None:  # arrays and scalars of NumPy and JAX
        return section.tolist()
    if hasattr(section, "items") and not isinstance(section, Mapping):  # a ConfigDict
        follows = {"preserve_field_references": True} if hasattr(section, "get_ref") else {}
        section = dict(section.items(**follows))
    if dataclasses.is_dataclass(section) and not isinstance(section, type):
        fields = [field.name for field in dataclasses.fields(section) if field.init]
        plain = {name: to_dict(getattr(section, name), registries) for name in fields}
        for base, options in registries.items():
            if isinstance(section, base) and not hasattr(base, "section_for"):
                registered = [name for name, cls in options.items() if cls is type(section)]
                plain.pop("name", None)  # no class may have such a field, see `_section_named`
                plain = {"name": registered[0] if registered else reference(type(section)), **plain}
        return plain
    if isinstance(section, Mapping):
        return {k: to_dict(v, registries) for k, v in section.items()}
    if isinstance(section, tuple | list):
        return [to_dict(v, registries) for v in section]
    return reference(section) if callable(section) else section


def user_things(section: Any, registries: Registries) -> Iterator[Any]:
    """The classes and functions of a user's own that a section and those in it are made of."""
    for base, options in registries.items():
        if isinstance(section, base) and type(section) not in options.values():
            yield type(section).function if hasattr(base, "section_for") else type(section)
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            yield from user_things(value, registries)
        elif field.metadata.get("is_open") or isinstance(value, Mapping):
            named = flatten(value).values() if isinstance(value, Mapping) else value
            for item in named if isinstance(named, Iterable) and not isinstance(named, str) else (named,):
                thing = find(item) if is_reference(item) else without_arguments(item)
                if callable(thing):
                    yield thing


def flatten(plain: Mapping[str, object], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one dict of dotted names."""
    flat: dict[str, Any] = {}
    for key, value in plain.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _keys(cls: type, registries: Registries) -> list[str]:
    fields = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    return [*(["name"] if cls in registries and "name" not in fields else []), *fields]


def _kind(cls: type, field: dataclasses.Field[Any]) -> Any:
    """The type of a field; of its default where the annotation names what cannot be found."""
    return annotations_of(cls).get(field.name, type(field.default))


def _value(path: str, value: object, annotation: object, metadata: Mapping[str, Any], registries: Registries) -> Any:
    """What was given for one key, as the first type of its annotation that takes it."""
    value = referenced_value(path, value)
    if is_none(value) and is_optional(annotation):
        return None
    metadata = {**metadata, "choices": choices_of(annotation, metadata)}
    errors = []
    for kind in alternatives(annotation):
        try:
            if kind is not type(None) and typing.get_origin(kind) is not Callable:  # functions are texts, see `_scalar`
                return _value_of_type(path, value, kind, metadata, registries)
        except UsageError as error:
            errors.append(error)
    if not errors:
        raise UsageError(f"{path}: its annotation names what cannot be found, and its default is None")
    words = [word for kind in alternatives(annotation) for word in _words(kind)] if len(errors) > 1 else []
    raise UsageError(f"{errors[0]}, or {listing(words)}") if words else errors[0]


def _words(kind: Any) -> tuple[Any, ...]:
    return typing.get_args(kind) if typing.get_origin(kind) is Literal else ()


def _value_of_type(path: str, value: object, kind: Any, metadata: Mapping[str, Any], registries: Registries) -> Any:
    if (words := _words(kind)) and metadata["choices"] is None:  # beside a number, which alone has a range
        metadata = {"choices": words}
    if kind in registries or dataclasses.is_dataclass(kind):
        return resolve(typing.cast(type, kind), value, registries, path)
    value = unpacked(value)
    origin = typing.get_origin(kind) or kind
    if metadata.get("is_open") and has_arguments(value):
        return names_with_arguments(path, value, metadata, several=origin is tuple)
    if origin is tuple:
        return tuple_of(path, value, _plain_type(typing.get_args(kind)[0]), metadata)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return free_section_of(path, value)
    result = scalar_of(path, value, _plain_type(kind))
    check_range(path, result, metadata)
    return result


def _plain_type(kind: Any) -> type:
    """The type of the values of a `Literal` or of what a union begins with; another type itself."""
    kind = alternatives(kind)[0]
    return type(typing.get_args(kind)[0]) if typing.get_origin(kind) is Literal else kind
