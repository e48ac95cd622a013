"""Traced hyperparameters: settings that compiled programs take as values.

Changing one compiles nothing, and the members of a population may differ in it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from gru_jax.config.durations import plan
from gru_jax.config.schema import PROCESS_KEYS, SOURCES, Config
from gru_jax.config.transfer import RATES
from gru_jax.dtypes import carry_dtype
from gru_jax.errors import UsageError
from gru_jax.initializers import Scheme
from gru_jax.tasks import SPLITS, Task
from gru_jax.with_arguments import TRACED_ERRORS, real_arguments, with_traced

Values = Mapping[str, Any]
"""The hyperparameters of a section by their names: Python numbers or traced scalars."""

Hyperparameters = Mapping[str, Values]
"""Values by section."""

SECTIONS = ("task", "optimizer", "gradient", "regularization", "model", "model.init", "transfer", "distillation")
THAWS = "thaw_"
DURATIONS = ("warmup_epochs",)  # these decide how many steps something lasts
SWITCHES = (
    "l1", "l2", "weight_decay", "noise", "omega", "detach", "dropout", "input_dropout", "output_dropout",
    "label_smoothing", "activation", "temporal_activation", "input_noise", "weight_noise", "dropconnect",
    "recurrent_dropout", "sparsity", "orthogonality", "scheduled_sampling", "weight",
)  # fmt: skip
"""Settings that, at 0, leave out a part of the program."""
HOST_KEYS = (
    "train.monitor", "train.direction", "train.min_delta", "train.target", "train.patience",
    "optimizer.plateau_patience", "model.weights", "train.init_from", "train.batch_by_length", "transfer.parts",
)  # fmt: skip
"""Keys that no program knows of."""


def traced_hyperparameters(config: Config) -> dict[str, dict[str, np.floating]]:
    """All real numbers of the task, the optimiser, the gradient, regularisation, dropout and the initialisation.

    They have the type of the parameters: a Python number would have none, and round otherwise than an array of many.

    Examples:
        >>> from gru_jax.config import load, traced_hyperparameters
        >>> config = load({"train": {"steps": 1}, "optimizer": {"lr": 0.5}})
        >>> float(traced_hyperparameters(config)["optimizer"]["lr"])
        0.5
    """
    real = np.dtype(carry_dtype(config.dtype)).type
    return {
        section: {name: real(value) for name, value in _traced_settings(config, section).items()}
        for section in SECTIONS
    }


def _traced_settings(config: Config, section: str) -> dict[str, float]:
    if section == "task" and not config.task.traces_numbers:
        return {}
    values = real_settings(_section(config, section))
    if section == "model":  # a network is built with the arguments of its family, which are no values of its programs
        values = {name: value for name, value in values.items() if "." not in name}
    if section == "transfer":
        values |= {f"{RATES}.{part}": factor for part, factor in config.transfer.rate_by_part.items()}
        values |= {f"{THAWS}{i}": float(step) for i, step in enumerate(plan(config).thaws)}
    return values


def real_settings(section: Any) -> dict[str, float]:
    """The real numbers among the settings of a section, by name; those of single gates as `gates.<gate>.<name>`.

    Beside them are the whole numbers in the section's `traced_counts`.

    Examples:
        >>> from gru_jax.config import OptimizerConfig, real_settings
        >>> real_settings(OptimizerConfig(lr=0.5))["lr"]
        0.5
    """
    values = {field.name: getattr(section, field.name) for field in dataclasses.fields(section)}
    gates = values.pop("gates", None)
    for gate, changes in gates.items() if isinstance(gates, Mapping) else ():
        values |= {f"gates.{gate}.{name}": value for name, value in changes.items()}
    for name, value in list(values.items()):
        values |= real_arguments(name, value)
    counts = {name: float(values[name]) for name in getattr(section, "traced_counts", ()) if values[name] is not None}
    real = {name: value for name, value in values.items() if isinstance(value, float) and name not in DURATIONS}
    return {**real, **counts}


def with_values(scheme: Scheme, values: Values) -> Scheme:
    """An initialisation with these values, which may be traced, in place of its own; see `real_settings`.

    Examples:
        >>> from gru_jax import Scheme
        >>> from gru_jax.config import with_values
        >>> with_values(Scheme(), {"recurrent_scale": 2.0}).recurrent_scale
        2.0
    """
    names = [field.name for field in dataclasses.fields(scheme) if field.name != "gates"]
    gates = {
        gate: {name: _traced(value, values, f"gates.{gate}.{name}") for name, value in changes.items()}
        for gate, changes in scheme.gates.items()
    }
    changes = {name: _traced(getattr(scheme, name), values, name) for name in names}
    return dataclasses.replace(scheme, **changes, gates=gates)


def _traced(value: object, values: Values, key: str) -> Any:
    return values[key] if key in values else with_traced(value, values, key)


def with_task_values(config: Config, values: Values) -> Config:
    """A config whose task has these values, which may be traced, in place of its own real numbers.

    Examples:
        >>> from gru_jax.config import load, with_task_values
        >>> config = load({"train": {"steps": 1}})
        >>> with_task_values(config, {}) is config  # the adding problem has no real numbers
        True
    """
    if not values:
        return config
    with naming_traced_numbers(config.task):
        return dataclasses.replace(config, task=dataclasses.replace(config.task, **values))


@contextlib.contextmanager
def naming_traced_numbers(task: Task) -> Iterator[None]:
    """Turn the error of a task that decides or counts by one of its real numbers, which are traced, into one line.

    Examples:
        >>> from gru_jax.config import naming_traced_numbers
        >>> from gru_jax.tasks import Adding
        >>> with naming_traced_numbers(Adding(20)) as _:
        ...     pass
    """
    try:
        yield
    except TRACED_ERRORS as error:
        names = list(real_settings(task)) if task.traces_numbers else []
        names = names or [f.name for f in dataclasses.fields(task) if isinstance(getattr(task, f.name), jax.Array)]
        if not names:
            raise
        raise UsageError(
            f"task: {type(task).__name__} decides or counts by one of its real numbers ({', '.join(names)}), which are "
            "traced; whole numbers, texts and booleans are allowed for that, or traces_numbers = False in the class"
        ) from error


def training_program(config: Config) -> str:
    """Text that is equal for two configs exactly if one compiled training serves both.

    Seeds, traced hyperparameters, folds and the initialisation do not count, but a part that is switched off does.

    Examples:
        >>> from gru_jax.config import load, training_program
        >>> one, two = (load({"train": {"steps": 1}, "optimizer": {"lr": lr}}) for lr in (0.1, 0.2))
        >>> training_program(one) == training_program(two)
        True
    """
    plain = config.to_dict()
    for key in ("seed", *PROCESS_KEYS, SOURCES):
        plain.pop(key, None)
    del plain["model"]["init"]
    plain["task"].pop("fold", None)
    plain["transfer"] |= {RATES: None, "thaw_steps": None, "thaw_epochs": None}  # in their place are traced values
    for name, values in traced_hyperparameters(config).items():
        if name != "model.init":
            for key, value in values.items():
                _put(plain[name], key, bool(value) if key in SWITCHES else "number")
    for key in HOST_KEYS:
        section, name = key.split(".")
        del plain[section][name]
    plain["train"]["skip_nonfinite"] = config.train.skip_nonfinite > 0  # the limits are values
    del plain["train"]["skip_nonfinite_in_a_row"]
    task = config.task  # of a user's own, it may make these of its real numbers
    plain["sizes"] = [task.time, task.input_size, task.output_size, *(task.size(split) for split in SPLITS)]
    return json.dumps(plain, sort_keys=True)


def initial_program(config: Config) -> str:
    """Text that is equal for two configs exactly if one compiled initialisation serves both.

    Examples:
        >>> from gru_jax.config import initial_program, load
        >>> one, two = (load({"train": {"steps": 1}, "model": {"init": {"recurrent_scale": s}}}) for s in (1.0, 2.0))
        >>> initial_program(one) == initial_program(two)
        True
    """
    init = config.to_dict()["model"]["init"]
    for key in real_settings(config.model.init):
        _put(init, key, "number")
    return json.dumps([training_program(config), init], sort_keys=True)


def _put(section: dict[str, Any], key: str, value: object) -> None:
    """Give a dotted key of a section, where it has the sections before the last name, a value."""
    first, dot, rest = key.partition(".")
    if dot and isinstance(section.get(first), dict):
        _put(section[first], rest, value)
    else:
        section[key] = value


def _section(config: Config, name: str) -> Any:
    section: object = config
    for part in name.split("."):
        section = getattr(section, part)
    return section
