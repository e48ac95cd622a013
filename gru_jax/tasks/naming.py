"""What the inputs and outputs of a network are called: tokens, features, classes, targets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from gru_jax.data.vocabulary import Vocabulary
from gru_jax.tasks.base import FromFiles, Task
from gru_jax.tasks.facts import DataFacts
from gru_jax.tasks.text_facts import TextFacts, TranslationFacts

_NUMBERED = re.compile(r"(x|target|prediction)?\d*")  # names given where the data have none


class NumberNames(NamedTuple):
    """The names of numbers side by side.

    Attributes:
        what: they are, such as features or tokens (words).
        names: of each.

    Examples:
        >>> from gru_jax.tasks.naming import NumberNames
        >>> NumberNames("features", ("wind", "rain")).places_in(NumberNames("features", ("rain", "sun")))
        {1: 0}
    """

    what: str
    names: tuple[str, ...]

    def places_in(self, others: NumberNames) -> Mapping[int, int]:
        """Where those that others know too stand, here and there."""
        places = {name: place for place, name in enumerate(others.names)}
        return {here: places[name] for here, name in enumerate(self.names) if name in places}


def names_of_inputs(task: Task) -> NumberNames | None:
    """The tokens or features that a task's network reads; None where they have no names."""
    facts = task.facts if isinstance(task, FromFiles) else None
    if isinstance(facts, TextFacts):
        return _tokens(facts.vocabulary)
    if isinstance(facts, TranslationFacts):
        return _tokens(facts.source_vocabulary)
    return _named("features", facts.features) if isinstance(facts, DataFacts) else None


def names_of_outputs(task: Task) -> NumberNames | None:
    """The tokens, classes or targets that a task's network has outputs for; None where they have no names."""
    facts = task.facts if isinstance(task, FromFiles) else None
    if isinstance(facts, TranslationFacts):
        return _tokens(facts.target_vocabulary)
    if isinstance(facts, TextFacts) and not facts.classes:
        return _tokens(facts.vocabulary)
    if task.class_names:
        return _named("classes", task.class_names)
    if isinstance(facts, DataFacts) and len(facts.targets) == task.output_size:
        return _named("targets", facts.targets)
    return None


def _tokens(vocabulary: Vocabulary) -> NumberNames:
    names = vocabulary.tokens or tuple(map(str, range(len(vocabulary))))
    return NumberNames(f"tokens ({vocabulary.kind})", names)


def _named(what: str, names: tuple[str, ...]) -> NumberNames | None:
    """Names, unless they are but numbers, which in other data stand for something else."""
    return None if all(_NUMBERED.fullmatch(name) for name in names) else NumberNames(what, names)
