"""The settings that compiled programs take as values: changing one compiles nothing, and replicas may differ in it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from gru_jax.config import OF_THE_PROCESS, Config
from gru_jax.dtypes import carry_dtype
from gru_jax.initializers import Scheme

Numbers = Mapping[str, Mapping[str, Any]]
"""Values by section and name: Python numbers or traced scalars."""

SECTIONS = ("optimizer", "gradient", "model", "model.init")
DURATIONS = ("warmup_epochs",)  # these decide how many steps something lasts
SWITCHES = ("l1", "l2", "weight_decay", "noise", "omega", "detach", "dropout")
"""Settings that, at 0, leave out a part of the program."""
OF_THE_HOST = ("train.target", "train.patience")  # no program knows of them


def numbers_of(config: Config) -> dict[str, dict[str, np.floating]]:
    """All real-valued settings of the optimiser, the gradient, the dropout and the initialisation that are set, in the
    type of the parameters: a Python number would be of no type, and round otherwise than an array of many.
    """
    real = np.dtype(carry_dtype(config.dtype)).type
    return {name: {k: real(v) for k, v in floats(_section(config, name)).items()} for name in SECTIONS}


def floats(section: Any) -> dict[str, float]:
    """The real-valued settings of a section that are set, by name; those of single gates as `gates.<gate>.<name>`."""
    values = {field.name: getattr(section, field.name) for field in dataclasses.fields(section)}
    for gate, changes in values.pop("gates", {}).items():
        values |= {f"gates.{gate}.{name}": value for name, value in changes.items()}
    return {name: value for name, value in values.items() if isinstance(value, float) and name not in DURATIONS}


def with_numbers(scheme: Scheme, numbers: Mapping[str, Any]) -> Scheme:
    """An initialisation with these values, which may be traced, in place of its own; see `floats`."""
    gates = {gate: dict(changes) for gate, changes in scheme.gates.items()}
    own = {}
    for name, value in numbers.items():
        if name.startswith("gates."):
            _, gate, setting = name.split(".")
            gates[gate][setting] = value
        else:
            own[name] = value
    return dataclasses.replace(scheme, **own, gates=gates)


def training_program(config: Config) -> str:
    """What the compiled training depends on, as a text: configs that share it are replicas of one program.

    Seeds, numbers, folds and the initialisation do not count, but a part that is switched off does.
    """
    plain = config.to_dict()
    for key in ("seed", *OF_THE_PROCESS):
        del plain[key]
    del plain["model"]["init"]
    plain["task"].pop("fold", None)
    for name, numbers in numbers_of(config).items():
        if name != "model.init":
            section = plain[name]
            section |= {key: bool(value) if key in SWITCHES else "number" for key, value in numbers.items()}
    for key in OF_THE_HOST:
        section, name = key.split(".")
        del plain[section][name]
    return json.dumps(plain, sort_keys=True)


def initial_program(config: Config) -> str:
    """What the compiled initialisation depends on, as a text."""
    init = config.to_dict()["model"]["init"]
    for key in floats(config.model.init):
        *path, name = key.split(".")
        section = init
        for part in path:
            section = section[part]
        section[name] = "number"
    return json.dumps([training_program(config), init], sort_keys=True)


def _section(config: Config, name: str) -> Any:
    section: Any = config
    for part in name.split("."):
        section = getattr(section, part)
    return section
