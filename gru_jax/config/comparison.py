"""What a config is known by, and how two of them differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from gru_jax.config.schema import DATA, NEUTRAL_KEYS, PROCESS_KEYS, SOURCES, Config
from gru_jax.settings import flatten


def fingerprint(config: Config) -> str:
    """A short name that follows from all that determines a run, but not from where its data lie.

    Examples:
        >>> from gru_jax.config import fingerprint, load
        >>> one, two = (load({"seed": seed, "train": {"steps": 10}}) for seed in (0, 1))
        >>> len(fingerprint(one)), fingerprint(one) == fingerprint(two)
        (12, False)
    """
    plain = config.to_dict()
    plain.pop(SOURCES, None)
    plain["task"].pop("data_dir", None)
    for key in PROCESS_KEYS:
        del plain[key]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def changed_sources(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The classes and functions of a user's own in two configs as dicts whose source is not the same.

    Examples:
        >>> from gru_jax.config import changed_sources
        >>> changed_sources({"sources": {"mine.py:Parity": "1f"}}, {"sources": {"mine.py:Parity": "a0"}})
        ['mine.py:Parity']
    """
    before, after = (side.get(SOURCES, {}) for side in (old, new))
    return [name for name in before if name in after and before[name] != after[name]]


def changed_data(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
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


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two configs as dicts, but for `NEUTRAL_KEYS`, as `"optimizer.lr was 0.1, is 0.2"`.

    Examples:
        >>> from gru_jax.config import differences, load
        >>> one, two = (load({"train": {"steps": 10}, "optimizer": {"lr": lr}}) for lr in (0.1, 0.2))
        >>> differences(one.to_dict(), two.to_dict())
        ['optimizer.lr was 0.1, is 0.2']
    """
    skipped = (SOURCES,) if DATA in old else (SOURCES, DATA)  # of older runs no data are known
    before, after = (flatten({k: v for k, v in side.items() if k not in skipped}) for side in (old, new))
    keys = [k for k in (*before, *(k for k in after if k not in before)) if k not in NEUTRAL_KEYS]
    absent = "absent"
    return [
        f"{k} was {before.get(k, absent)}, is {after.get(k, absent)}"
        for k in keys
        if before.get(k, absent) != after.get(k, absent)
    ]
