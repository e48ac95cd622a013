"""What every key of a config means, as the docstrings of its dataclasses say."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Mapping
from typing import Any, NamedTuple

from gru_jax.config.schema import REGISTRIES, Config
from gru_jax.errors import UsageError, closest, listing
from gru_jax.settings import (
    Registries,
    alternatives,
    annotations_of,
    choices_of,
    is_optional,
    to_dict,
)
from gru_jax.values import describe_range

_ENTRY = re.compile(r" {4}(\w+(?:, \w+)*): (.*)")
_NAME = "which one; one of your own is given as itself, or on a command line as FILE.py:NAME"


class KeyExplanation(NamedTuple):
    """A key of a config.

    Attributes:
        key: its dotted name.
        default: its value where nobody gives one.
        allowed: which values it may have.
        text: what it means.
        is_optional: whether it may be None.
        is_named: whether what is allowed is a list of names.

    Examples:
        >>> from gru_jax.config import explain_keys
        >>> explained = explain_keys()["model.init.t_max"]
        >>> explained.allowed, explained.is_optional, explained.line.endswith("for the task's length")
        ('number from 1', True, True)
    """

    key: str
    default: object
    allowed: str
    text: str
    is_optional: bool
    is_named: bool

    @property
    def line(self) -> str:
        """What it means up to the first semicolon or the end of the sentence, and what None stands for."""
        first = re.split(r"(?<=[^.])[.;](?: |$)|:(?= )", self.text, maxsplit=1)[0]
        none = re.search(r"None,? [^.;]*", self.text)
        return first if none is None or none[0] in first else f"{first}; {none[0]}"


def explain_attributes(cls: type) -> dict[str, str]:
    """What the attributes of a class are, by name: the section `Attributes:` of its docstring and of its bases'.

    Examples:
        >>> from gru_jax.cells import GRU
        >>> from gru_jax.config.explanations import explain_attributes
        >>> explain_attributes(GRU)["output_gate"]
        'whether the candidate has a gate of its own.'
    """
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        _, _, section = inspect.cleandoc(vars(base).get("__doc__") or "").partition("\nAttributes:\n")
        names: list[str] = []
        for line in section.split("\n"):
            if line and not line.startswith(" "):
                break
            if (entry := _ENTRY.fullmatch(line)) is not None:
                names = entry[1].split(", ")
                texts |= dict.fromkeys(names, entry[2])
            elif names and line:
                texts |= {name: f"{texts[name]} {line.strip()}" for name in names}
    return texts


def explain_keys(
    section: Any = None, registries: Registries = REGISTRIES, prefix: str = ""
) -> dict[str, KeyExplanation]:
    """Every key of a section, those of sections in it too, by its dotted name; of a whole config if None.

    Examples:
        >>> from gru_jax.config import explain_keys
        >>> explain_keys()["train.patience"].text
        'validations, not steps, without improvement after which training stops; None for never.'
    """
    section = Config() if section is None else section
    cls, texts = type(section), explain_attributes(type(section))
    explained: dict[str, KeyExplanation] = {}
    for base, options in registries.items():
        if isinstance(section, base):
            name = to_dict(section, registries)["name"]
            explained[f"{prefix}name"] = KeyExplanation(f"{prefix}name", name, listing(options), _NAME, False, True)
    for field in dataclasses.fields(section):
        key, value = f"{prefix}{field.name}", getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            explained |= explain_keys(value, registries, f"{key}.")
        else:
            annotation = annotations_of(cls).get(field.name)
            allowed, is_named = describe_allowed(annotation, field.metadata)
            text = texts.get(field.name, "")
            explained[key] = KeyExplanation(key, value, allowed, text, is_optional(annotation), is_named)
    return explained


def describe_allowed(annotation: object, metadata: Mapping[str, Any]) -> tuple[str, bool]:
    """Which values a key may have, names or a kind of number with its range; and whether it is names."""
    names = choices_of(annotation, metadata)
    if names is not None and set(names) != {True, False}:
        return listing(names), True
    kind = alternatives(annotation)[0]
    several = typing.get_origin(kind) is tuple
    kind = typing.get_args(kind)[0] if several else kind
    word = {int: "whole number", float: "number", bool: "true or false", str: "text"}.get(kind, "section")
    low, high = metadata.get("low"), metadata.get("high")
    span = "" if low is None and high is None else f" {describe_range(low, high)}"
    return f"{word}{'s' * several}{span}", False


class OptionExplanation(NamedTuple):
    """One of the things that a section may be by its name: a task, a cell.

    Attributes:
        name: of it.
        text: what it is, in a sentence.
        keys: those that it has.

    Examples:
        >>> from gru_jax.config import explain_options
        >>> [option.name for option in explain_options()["model.cell"] if "model.cell.reset" in option.keys]
        ['gru', 'layer_norm_gru']
    """

    name: str
    text: str
    keys: Mapping[str, KeyExplanation]


def explain_options() -> dict[str, list[OptionExplanation]]:
    """The tasks and the cells, by the section that they stand for.

    Examples:
        >>> from gru_jax.config import explain_options
        >>> next(option.text for option in explain_options()["task"] if option.name == "adding")
        'Add the two marked numbers of a sequence.'
    """
    options: dict[str, list[OptionExplanation]] = {}
    for section, current in {"task": Config().task, "model.cell": Config().model.cell}.items():
        registry = next(classes for base, classes in REGISTRIES.items() if isinstance(current, base))
        options[section] = [
            OptionExplanation(name, first_sentence(cls), explain_keys(cls(), {}, f"{section}."))
            for name, cls in registry.items()
        ]
    return options


def first_sentence(cls: type) -> str:
    """The first line of a class's docstring, up to its full stop."""
    paragraph = " ".join(inspect.cleandoc(cls.__doc__ or "").partition("\n\n")[0].split())
    return re.split(r"(?<=[^.A-Z])\. ", paragraph, maxsplit=1)[0].rstrip(".") + "."


def keys_below(prefix: str) -> dict[str, KeyExplanation]:
    """The keys of a section of a config, or the key of that name.

    Raises:
        UsageError: there is none.

    Examples:
        >>> from gru_jax.config import keys_below
        >>> list(keys_below("train"))[:3]
        ['train.batch_size', 'train.steps', 'train.epochs']
    """
    explained = explain_keys()
    of_prefix = {key: one for key, one in explained.items() if key == prefix or key.startswith(f"{prefix}.")}
    for option in (option for options in explain_options().values() for option in options):
        if not of_prefix and prefix in option.keys:
            return {prefix: option.keys[prefix]}
    if not of_prefix:
        sections = dict.fromkeys(key.rpartition(".")[0] for key in explained if "." in key)
        names = [*sections, *explained]
        raise UsageError(f"{prefix}: no such section or key; there are {listing(sections)}{closest(prefix, names)}")
    return of_prefix
