"""A study as it is described: a base config, axes, and how to choose; and the members that follow from them."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gru_jax.config import (
    NEUTRAL_KEYS,
    PROCESS_KEYS,
    REGISTRIES,
    Config,
    fingerprint,
    override,
    read_config_file,
    split_spec,
)
from gru_jax.errors import ArgumentError, UsageError, check_argument, check_choice, listing
from gru_jax.runtime.files import Json, read_json
from gru_jax.settings import flatten, resolve, setting, to_dict
from gru_jax.studies import axes
from gru_jax.studies.halving import Halving
from gru_jax.values import Text, referenced_value

SECTIONS = ("config", "axes", "where", "sampling", "halving")
NOTHING: Mapping[str, str] = types.MappingProxyType({})
_ID = re.compile("[0-9a-f]{12}")
STUDY_KEYS = ("base", "config", "axes", "where", "zip", "sampling", "halving", "networks")


logger = logging.getLogger("gru_jax")


class NoAxesError(ArgumentError):
    """A study without anything that varies."""


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How members are chosen among those that the axes span.

    Attributes:
        method: grid, or random or sobol samples; or a search that learns from scores, tpe or cmaes, see
            `gru_jax.studies.search`.
        count, seed: of the samples.
        batch: samples that a search asks for at a time, before it knows their scores.
    """

    method: axes.SamplingMethod = "grid"
    count: int = setting(0, low=0, high=axes.MOST)
    seed: int = setting(0, low=0, high=2**31 - 1)
    batch: int = setting(8, low=1, high=axes.MOST)

    @property
    def is_search(self) -> bool:
        """Whether samples follow from the scores of those before them."""
        return self.method in axes.SEARCHES


class StudyMember(NamedTuple):
    """A member of a study.

    Attributes:
        id: made of its config, so that equal members of two studies have one directory.
        labels: its value on each axis.
        settings: what it changes of the base config, as typed.
        config: its config.
    """

    id: str
    labels: dict[str, str]
    settings: dict[str, str]
    config: Config


@dataclasses.dataclass(frozen=True)
class Study:
    """A study.

    Attributes:
        base: the config file of the base, as on a command line; or the base itself, as nested dicts.
        changes: of the study to the base config, by key, as typed.
        axes: what varies.
        where, sampling, halving: see `gru_jax.studies.axes.span_axes`, `Sampling`, `Halving`.
        networks: whether the last and best networks of every member are kept.
        points: what a search has asked for so far, in place of what the axes span; None if it is no search.
    """

    base: str | Mapping[str, Any]
    changes: dict[str, str]
    axes: list[axes.Axis]
    where: dict[str, str]
    sampling: Sampling
    halving: Halving
    networks: bool
    points: Sequence[axes.Point] | None = None

    def base_values(self) -> Mapping[str, Any]:
        """What the base says, without the study's changes."""
        return read_config_file(self.base) if isinstance(self.base, str) else self.base

    def base_config(self) -> Json:
        """The base with the study's changes, as nested dicts."""
        return override(self.base_values(), self.changes).to_dict()

    def members(self) -> list[StudyMember]:
        """All members, in the order of the axes.

        Raises:
            UsageError: a value does not fit its key, or nothing is left.
        """
        base, sampling, values = self.base_config(), self.sampling, self.base_values()
        members: dict[str, StudyMember] = {}
        points = self.points
        if points is None:
            how = sampling.method, sampling.count, sampling.seed
            points = axes.span_axes(self.axes, flatten(base), self.where, *how)
        for point in points:
            member = self.member_of(point, values)
            twin = members.setdefault(member.id, member)
            if twin.labels != member.labels:
                labels = [" ".join(f"{axis}={text}" for axis, text in one.labels.items()) for one in (twin, member)]
                logger.warning("axes: %s is the same as %s, which stands for both", *reversed(labels))
            idle = [key for key in NEUTRAL_KEYS if twin.settings.get(key) != member.settings.get(key)]
            if idle:
                raise UsageError(f"axes: {idle[0]} changes no result; allowed are keys that tell members apart")
        if not members and self.points is None:
            raise UsageError(f"axes: no member is left; where={self.where}")
        for key in PROCESS_KEYS:
            if base[key] != Config().to_dict()[key]:
                raise UsageError(f"config.{key}={base[key]}: without effect in a study; it is for single runs")
        goals = sorted({" ".join(member.config.goal) for member in members.values()})
        if len(goals) > 1:
            raise UsageError(f"axes: members have different goals, {', '.join(goals)}; allowed is one in a study")
        return list(members.values())

    def member_of(self, point: axes.Point, values: Mapping[str, Any]) -> StudyMember:
        """The member at a point.

        Args:
            point: a point that axes span.
            values: what the base says, as `base_values` gives it.
        """
        config = override(values, {**self.changes, **point.settings})
        return StudyMember(fingerprint(config), point.labels, point.settings, config)

    def to_dict(self) -> Json:
        """The content of `study.json`, without its members."""
        return {
            "base": referenced_value("base", self.base, needed=False),
            "changes": self.changes,
            "axes": {axis.name: axis.span or [value.label for value in axis.values] for axis in self.axes},
            "where": self.where,
            "sampling": dataclasses.asdict(self.sampling),
            "halving": dataclasses.asdict(self.halving),
            "networks": self.networks,
        }


def check_members(path: Path, content: Mapping[str, object]) -> dict[str, Any]:
    """What a file of a study says of its members, by their ids, once it is sure that they are ids.

    Raises:
        UsageError: it is damaged. A name that is no id might lead out of the study's directory.
    """
    for name, described in content.items():
        if not _ID.fullmatch(name) or not isinstance(described, dict):
            raise UsageError(f"{path}: damaged, {name!r} is no member's id")
    return dict(content)


def read_study_file(path: Path) -> Json:
    """The content of a `study.json`.

    Raises:
        UsageError: it is damaged.
    """
    content = read_json(path)
    for key, kind in {"base": str | dict, "changes": dict, "config": dict, "members": dict}.items():
        if not isinstance(content.get(key), kind):
            raise UsageError(f"{path}: damaged, it has no {key}")
    for member in check_members(path, content["members"]).values():
        for key in ("labels", "settings"):
            texts = member.get(key)
            if not isinstance(texts, dict) or not all(_is_text(text) for pair in texts.items() for text in pair):
                raise UsageError(f"{path}: damaged, a member has no {key}")
    return content


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value == value.encode(errors="replace").decode()


def load_study(
    spec: str | Mapping[str, Any],
    overrides: Mapping[str, str] = NOTHING,
    varied: Mapping[str, str] = NOTHING,
    extra: Mapping[str, str] = NOTHING,
) -> Study:
    """The study of a file, which may also be the config of a single run, with changes from a command line.

    Args:
        spec: `FILE.py[:ARG]`, or what such a file returns, where the base may be a config.
        overrides: of the base config.
        varied: axes, in place of those of the same name in the file.
        extra: `zip`, and keys of `sampling` and `halving` as `sampling.count`.

    Raises:
        UsageError: whatever is wrong.
    """
    content: Json = read_config_file(spec) if isinstance(spec, str) else dict(to_dict(spec, REGISTRIES))
    source = spec if isinstance(spec, str) else "a study"
    if "axes" in content:
        content = {k: v if k == "base" else referenced_value(k, v) for k, v in content.items()}
    if "axes" not in content:
        content = {"base": None if isinstance(spec, str) else content}
    for key, value in content.items():
        check_argument(f"config={source}: key", key, STUDY_KEYS)
        if key in SECTIONS and not isinstance(value, Mapping):
            raise ArgumentError(f"config={source}: {key}={value!r}: a dict is needed here")
    if "base" not in content:
        raise ArgumentError(f"config={source}: no base; allowed is the config file of a run, relative to this one")
    base: str | Mapping[str, Any] = source if content["base"] is None else content["base"]
    if isinstance(base, str) and content["base"] is not None:
        base = _beside(source, base)
    changes = {key: axes.as_typed(value) for key, value in flatten(content.get("config", {})).items()}
    values = {**dict(content.get("axes", {})), **varied}
    if not values:
        raise NoAxesError(f"config={source}: a study needs axes")
    for name in values:
        if name in axes.COLUMNS or name.startswith(axes.COLUMN_KINDS):
            taken = f"{listing(axes.COLUMNS)} and what begins with {listing(axes.COLUMN_KINDS)}"
            raise ArgumentError(f"config={source}: axes.{name}: a column of the table; allowed are all but {taken}")
    parsed = [axes.parse_axis(name, value) for name, value in values.items()]
    pairs = [tuple(names) for names in content.get("zip", ())]
    pairs += [tuple(names.split(",")) for names in extra.get("zip", "").split(";") if names]
    for names in pairs:
        parsed = axes.zip_axes(parsed, names)
    sections = {"sampling": Sampling, "halving": Halving}
    resolved: dict[str, Any] = {
        name: resolve(cls, {**content.get(name, {}), **_section(extra, name)}, {}, name)
        for name, cls in sections.items()
    }
    networks = extra.get("networks", str(content.get("networks", True))).lower()
    check_choice("networks", networks, ("true", "false"))
    where = {str(name): str(condition) for name, condition in content.get("where", {}).items()}
    return Study(base, {**changes, **overrides}, parsed, where, networks=networks == "true", **resolved)


def _section(extra: Mapping[str, str], name: str) -> dict[str, Any]:
    return {key.removeprefix(f"{name}."): Text(value) for key, value in extra.items() if key.startswith(f"{name}.")}


def _beside(spec: str, base: str) -> str:
    """A path that a study file gives, which is relative to that file."""
    path, argument = split_spec(base)
    beside = os.path.normpath(Path(split_spec(spec)[0]).parent / path)
    return beside if argument is None else f"{beside}:{argument}"
