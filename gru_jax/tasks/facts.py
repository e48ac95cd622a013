"""What a run has to know of its data to use the network without them: sizes, names of classes, means and deviations."""

from __future__ import annotations

import abc
import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from gru_jax.errors import UsageError
from gru_jax.settings import to_dict


@dataclasses.dataclass(frozen=True)
class FeatureScale:
    """The mean and the standard deviation of every feature, or of every number of a target, in training."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]


class Facts(abc.ABC):
    """What is known of the data of a task."""

    @abc.abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Plain nested dicts, which `from_json` reads."""

    @classmethod
    @abc.abstractmethod
    def from_json(cls, content: Any) -> Facts:
        """The inverse of `to_json`.

        Raises:
            UsageError: it is not from there.
        """


@dataclasses.dataclass(frozen=True)
class DataFacts(Facts):
    """What is known of sequences with targets.

    Attributes:
        time: steps of the longest sequence.
        features: of the inputs, by name; whatever has no name is called by its number.
        per_step: whether there is a target for each step.
        codes: of targets that are classes, the whole number that stands for each in the files; empty for others.
        classes: their names, in this order.
        targets: names of the numbers or labels of a target; of targets that are classes, one.
        sizes: examples in each split.
        inputs_scale: of the inputs, where the task needs it.
        targets_scale: of targets that are numbers, where the task needs it.
        are_labels: whether targets are labels, each there or not.
        fold_sizes: examples in each fold, where these are of whole groups.
        unlabelled: splits that have no targets.
    """

    time: int
    features: tuple[str, ...]
    per_step: bool
    codes: tuple[int, ...]
    classes: tuple[str, ...]
    targets: tuple[str, ...]
    sizes: Mapping[str, int]
    inputs_scale: FeatureScale | None = None
    targets_scale: FeatureScale | None = None
    are_labels: bool = False
    fold_sizes: tuple[int, ...] = ()
    unlabelled: tuple[str, ...] = ()

    @property
    def kind_of_targets(self) -> str:
        """What they are made of in arrays, as `gru_jax.data.arrays.kind_of_targets` says it."""
        return "whole numbers" if self.codes else "booleans" if self.are_labels else "floats"

    def to_json(self) -> dict[str, Any]:
        return to_dict(self, {})

    @classmethod
    def from_json(cls, content: Any) -> DataFacts:
        try:
            scales = {
                name: None if content[name] is None else FeatureScale(**{k: tuple(v) for k, v in content[name].items()})
                for name in ("inputs_scale", "targets_scale")
            }
            content = {
                "are_labels": False,
                "fold_sizes": [],
                "unlabelled": [],
                **content,
            }  # which earlier versions have not
            names = ("features", "codes", "classes", "targets", "fold_sizes", "unlabelled")
            facts = cls(**{**content, **{name: tuple(content[name]) for name in names}, **scales})
            if type(facts.time) is not int or not isinstance(facts.sizes, dict) or facts.to_json() != content:
                raise ValueError("not what is known of data")
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise UsageError(f"damaged, it does not say what is known of the data ({error})") from error
        return facts


_STORED: contextvars.ContextVar[Facts | None] = contextvars.ContextVar("stored facts", default=None)


@contextlib.contextmanager
def stored_facts(facts: Facts | None) -> Iterator[None]:
    """Tasks of files that are made while this lasts take these facts, and read no file for them."""
    token = _STORED.set(facts)
    try:
        yield
    finally:
        _STORED.reset(token)


def facts_in_use() -> Facts | None:
    """Those of `stored_facts`."""
    return _STORED.get()
