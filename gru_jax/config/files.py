"""Config files, which are Python, and changes of single keys by their dotted names."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from gru_jax.config.loading import load
from gru_jax.config.schema import REGISTRIES, Config
from gru_jax.errors import ArgumentError, UsageError, closest, listing
from gru_jax.settings import flatten, to_dict
from gru_jax.user_code import describe_error, import_file, is_reference
from gru_jax.values import Text, follow_text, is_none, literal


def split_spec(spec: str) -> tuple[str, str | None]:
    """The path of a config file `path.py` or `path.py:arg`, and its argument; None where it has none.

    Examples:
        >>> from gru_jax.config import split_spec
        >>> split_spec("runs/10:30/adding.py:200"), split_spec("adding.py")
        (('runs/10:30/adding.py', '200'), ('adding.py', None))
    """
    path, ending, argument = spec.partition(".py:")
    if ending:
        return f"{path}.py", argument
    if spec.endswith(".py"):  # of a folder with a colon
        return spec, None
    path, colon, argument = spec.partition(":")
    return path, argument if colon else None


def load_config(spec: str, overrides: Mapping[str, str] | None = None) -> Config:
    r"""The checked config of a file `path.py` or `path.py:arg`, with overrides by dotted name.

    Raises:
        UsageError: whatever is wrong with the file or with a key, in one line.

    Examples:
        >>> import pathlib, tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = pathlib.Path(folder.name, "tiny.py")
        >>> _ = path.write_text("def get_config():\n    return {'train': {'steps': 10}}\n")
        >>> from gru_jax.config import load_config
        >>> load_config(str(path), {"train.batch_size": "8"}).train.batch_size
        8
        >>> folder.cleanup()
    """
    return override(read_config_file(spec), overrides or {})


def override(values: ConfigDict | Mapping[str, Any], overrides: Mapping[str, str]) -> Config:
    """The checked config of nested dicts, with overrides by dotted name, as typed on a command line.

    Raises:
        UsageError: whatever is wrong with a key, in one line.

    Examples:
        >>> from gru_jax.config import override
        >>> config = override({"train": {"steps": 1}}, {"optimizer.lr": "0.5", "model.hidden": "3,2"})
        >>> config.optimizer.lr, config.model.hidden
        (0.5, (3, 2))
    """
    values = copy.deepcopy(dict(to_dict(values, REGISTRIES)))  # with its references, some of which get values
    known = [*flatten(Config().to_dict()), *flatten(values)]
    for key, text in sorted(overrides.items(), key=lambda item: item[0].count(".")):  # sections before what is in them
        _override(values, key, text, overrides, known)
    return load(values)


def read_config_file(spec: str) -> dict[str, Any]:
    r"""What `get_config` of a config file returns, as nested dicts, in which references of ml_collections are left.

    Raises:
        UsageError: there is no such file, or it raises something, or returns no dict.

    Examples:
        >>> import pathlib, tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = pathlib.Path(folder.name, "tiny.py")
        >>> _ = path.write_text("def get_config():\n    return {'train': {'steps': 10}}\n")
        >>> from gru_jax.config import read_config_file
        >>> read_config_file(str(path))
        {'train': {'steps': 10}}
        >>> folder.cleanup()
    """
    name, argument = split_spec(spec)
    path = Path(name)
    if not path.is_file():
        folder = path.parent
        present = sorted(str(p) for p in folder.glob("*.py")) if folder.is_dir() else []
        allowed = f"; there are {listing(present)}{closest(name, present)}" if present else ""
        raise ArgumentError(f"config={name}: no such file{allowed}")
    arguments = [] if argument is None else [argument]
    module = import_file(path, "config")
    try:
        get_config = module.get_config
        inspect.signature(get_config).bind(*arguments)
        config = get_config(*arguments)
    except UsageError:
        raise
    except Exception as error:  # whatever a user's file may raise
        raise ArgumentError(f"config={spec}: {describe_error(path, error)}") from error
    if not isinstance(config, ConfigDict | Mapping):
        raise ArgumentError(f"config={spec}: get_config returned a {type(config).__name__}; allowed is a ConfigDict")
    return to_dict(config, REGISTRIES)


def _opened_section(value: object, key: str, last: str, known: Sequence[str]) -> Any:
    """What stands for a section, as that: one that was typed, and the name of what has keys of its own."""
    text = value.value if isinstance(value, Text) else value
    if not isinstance(text, str):
        return value
    if isinstance(typed := literal(text, None), dict):
        return typed
    has_keys = f"{key}.name" in known or is_reference(text) or last == "name"
    return {"name": value} if has_keys else value


def _override(values: dict[str, Any], key: str, text: str, overrides: Mapping[str, str], known: Sequence[str]) -> None:
    *sections, last = key.split(".")
    section: Any = values
    for i, name in enumerate(sections):
        section[name] = _opened_section(section.setdefault(name, {}), ".".join(sections[: i + 1]), last, known)
        section = section[name]
        if not isinstance(section, dict):
            raise ArgumentError(f"config.{key}={text}: {name} is no section{closest(key, known)}")
    if not sections and last not in {k.split(".")[0] for k in known}:
        same_name = [k for k in known if k.split(".")[-1] == last]
        hint = f"; did you mean {same_name[0]!r}?" if same_name else closest(key, known)
        raise ArgumentError(f"config.{key}={text}: no such key{hint}")
    follow_text(section.get(last), text)
    section[last] = Text(text)
    # A duration in the other unit that the file gave is replaced, one that the command line gave is a contradiction.
    twin = last.replace("steps", "epochs") if "steps" in last else last.replace("epochs", "steps")
    both = {".".join([*sections, name]) for name in (last, twin)}
    if twin != last and both <= set(known) and not both <= set(overrides) and not is_none(Text(text)):
        section.pop(twin, None)
