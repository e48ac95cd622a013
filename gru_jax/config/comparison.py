"""What a config is known by, and how two of them differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from gru_jax.config.schema import DATA, GROWING_KEYS, NEUTRAL_KEYS, SOURCES, Config
from gru_jax.runtime.files import Json
from gru_jax.settings import flatten
from gru_jax.user_code import NOTEBOOK, UNKNOWN


def fingerprint(config: Config, *, of_any_length: bool = False) -> str:
    """A short name that follows from all that determines a run, but not from where its data lie.

    Args:
        config: of the run.
        of_any_length: whether it is shared by runs that differ in nothing but when they end.

    Examples:
        >>> from gru_jax.config import fingerprint, load
        >>> one, two = (load({"seed": seed, "train": {"steps": 10}}) for seed in (0, 1))
        >>> len(fingerprint(one)), fingerprint(one) == fingerprint(two)
        (12, False)
    """
    plain = config.to_dict()
    plain.pop(SOURCES, None)
    for key in (*NEUTRAL_KEYS, *(GROWING_KEYS if of_any_length else ())):
        section, _, name = key.rpartition(".")
        (plain[section] if section else plain).pop(name, None)
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def changed_sources(old: Json, new: Json) -> list[str]:
    """The classes and functions of a user's own in two configs as dicts whose source is not the same.

    Examples:
        >>> from gru_jax.config import changed_sources
        >>> changed_sources({"sources": {"mine.py:Parity": "1f"}}, {"sources": {"mine.py:Parity": "a0"}})
        ['mine.py:Parity']
    """
    before, after = (side.get(SOURCES, {}) for side in (old, new))
    return [name for name in before if name in after and before[name] != after[name]]


def unknown_sources(old: Json, new: Json) -> list[str]:
    """The classes and functions of a user's own in a config as a dict of which it cannot be told if they changed.

    Their source could not be had, or a notebook defined them and a file does now.

    Examples:
        >>> from gru_jax.config import unknown_sources
        >>> unknown_sources({"sources": {"__main__:Parity": "unknown", "mine.py:Cell": "1f"}}, {})
        ['__main__:Parity']
    """
    before, after = (side.get(SOURCES, {}) for side in (old, new))
    return [
        name
        for name, digest in before.items()
        if digest == UNKNOWN or (name.startswith(f"{NOTEBOOK}:") and name not in after)
    ]


def varying_keys(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The keys in which configs as dicts differ, but for `NEUTRAL_KEYS`, each with its value in every config.

    It is None where a config does not have the key.

    Examples:
        >>> from gru_jax.config import load, varying_keys
        >>> configs = [load({"train": {"steps": 10}, "optimizer": {"lr": lr}}) for lr in (0.1, 0.2)]
        >>> varying_keys([config.to_dict() for config in configs])
        {'optimizer.lr': [0.1, 0.2]}
    """
    plain = [{k: v for k, v in flatten(config).items() if not k.startswith(f"{SOURCES}.")} for config in configs]
    keys = [key for key in dict.fromkeys(key for config in plain for key in config) if key not in NEUTRAL_KEYS]
    values = {key: [config.get(key) for config in plain] for key in keys}
    return {key: of_each for key, of_each in values.items() if any(value != of_each[0] for value in of_each)}


def changed_data(old: Json, new: Json) -> list[str]:
    """The files of data, in two configs as dicts, whose content is not the same.

    Examples:
        >>> from gru_jax.config import changed_data
        >>> changed_data({"data": {"a.npy": "sha256:1f", "b.npy": "sha256:2"}}, {"data": {"a.npy": "sha256:a0"}})
        ['a.npy', 'b.npy']
    """
    before, after = (side.get(DATA, {}) for side in (old, new))
    return [name for name in {**before, **after} if before and before.get(name) != after.get(name)]


def say_what_differs(changed: Sequence[str], what: str) -> str:
    """What a directory belongs to, of another config or base, or, where nothing but the data changed, on other data.

    Examples:
        >>> from gru_jax.config import say_what_differs
        >>> say_what_differs(["data.a.npy was sha256:1f, is sha256:a0"], "a run of another config")
        'a run on other data: a.npy was sha256:1f, is sha256:a0'
    """
    prefix = f"{DATA}."
    if all(text.startswith(prefix) for text in changed):
        files = "; ".join(text.removeprefix(prefix) for text in changed)
        return f"{what.partition(' of ')[0]} on other data: {files}"
    return f"{what}: {'; '.join(changed)}"


def differences(old: Mapping[str, object], new: Mapping[str, object], free: Collection[str] = ()) -> list[str]:
    """What differs between two configs as dicts, but for `NEUTRAL_KEYS` and those in `free`, as texts.

    Examples:
        >>> from gru_jax.config import differences, load
        >>> one, two = (load({"train": {"steps": 10}, "optimizer": {"lr": lr}}) for lr in (0.1, 0.2))
        >>> differences(one.to_dict(), two.to_dict())
        ['optimizer.lr was 0.1, is 0.2']
    """
    changes = flat_differences(old, new)
    return [f"{k} was {was}, is {now}" for k, (was, now) in changes.items() if k not in (*NEUTRAL_KEYS, *free)]


def flat_differences(old: Mapping[str, object], new: Mapping[str, object]) -> dict[str, tuple[Any, Any]]:
    """By dotted key, what is not the same in two configs as dicts: what it was and what it is, or `absent`.

    Examples:
        >>> from gru_jax.config import flat_differences
        >>> flat_differences({"train": {"steps": 10, "keep": 2}}, {"train": {"steps": 20, "keep": 2}})
        {'train.steps': (10, 20)}
    """
    skipped = (SOURCES,) if DATA in old else (SOURCES, DATA)  # of older runs no data are known
    before, after = (flatten({k: v for k, v in side.items() if k not in skipped}) for side in (old, new))
    absent = "absent"
    pairs = {k: (before.get(k, absent), after.get(k, absent)) for k in (*before, *after)}
    return {k: pair for k, pair in pairs.items() if pair[0] != pair[1]}
