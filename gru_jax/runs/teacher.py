"""The network of another run that a run learns from."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from gru_jax.config import Config
from gru_jax.errors import UsageError
from gru_jax.runs.weights import read_network
from gru_jax.tasks.base import FromFiles
from gru_jax.tasks.facts import DataFacts
from gru_jax.tasks.forecasting import Forecasting
from gru_jax.tasks.text_facts import TextFacts, TranslationFacts
from gru_jax.training.distillation import Teacher
from gru_jax.training.network import build_model


def teacher_of(config: Config) -> Teacher | None:
    """The network that a config's training learns from; None where it learns from its task alone.

    Raises:
        UsageError: there is no such run or checkpoint, or it is of another task.
    """
    if not config.distillation.is_on or config.distillation.teacher is None:
        return None
    text = config.distillation.teacher
    try:
        stored = read_network(text)
        ours, theirs = _says(config), _says(stored.config)
        for name, wanted in ours.items():
            if theirs[name] != wanted:
                shown = "" if name.startswith("vocabulary") else f": {theirs[name]}, needed is {wanted}"
                raise UsageError(f"its network differs in {name}{shown}")
    except UsageError as error:
        raise UsageError(f"distillation.teacher={text}: {error}") from error
    return Teacher(build_model(stored.config), jax.tree.map(np.asarray, stored.params))


def _says(config: Config) -> dict[str, Any]:
    """What must be alike in a network and its teacher."""
    task = config.task
    facts = task.facts if isinstance(task, FromFiles) else None
    return {
        "inputs": task.input_size,
        "outputs": task.output_size,
        "classes": list(task.class_names),
        "kind of network": task.family,
        "readout at each step": config.model.readout == "every",
        "vocabulary": facts.vocabulary if isinstance(facts, TextFacts) else None,
        "vocabulary of sources": facts.source_vocabulary if isinstance(facts, TranslationFacts) else None,
        "vocabulary of targets": facts.target_vocabulary if isinstance(facts, TranslationFacts) else None,
        "names of inputs": list(facts.features) if isinstance(facts, DataFacts) else None,
        "names of targets": list(facts.targets) if isinstance(facts, DataFacts) else None,
        "steps of the highway": task.context if isinstance(task, Forecasting) and task.highway else None,
        "double precision": config.dtype == "float64",
    }
