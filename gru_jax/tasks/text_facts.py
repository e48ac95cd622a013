"""What a run keeps of its texts: the vocabulary, and how long they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from gru_jax.data.vocabulary import Vocabulary
from gru_jax.errors import UsageError
from gru_jax.tasks.facts import Facts


@dataclasses.dataclass(frozen=True)
class TextFacts(Facts):
    """What is known of texts.

    Attributes:
        vocabulary: of the training texts.
        tokens: how many each split has.
        texts: how many each split has, where they are texts with labels.
        longest: tokens of the longest.
        classes: the labels that there are.
    """

    vocabulary: Vocabulary
    tokens: Mapping[str, int]
    texts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    longest: int = 0
    classes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {**plain, "vocabulary": self.vocabulary.to_json(), "classes": list(self.classes)}

    @classmethod
    def from_json(cls, content: Any) -> TextFacts:
        try:
            changes = {"vocabulary": Vocabulary.from_json(content["vocabulary"]), "classes": tuple(content["classes"])}
            facts = cls(**{**content, **changes})
            if not all(type(n) is int for n in (*facts.tokens.values(), *facts.texts.values(), facts.longest)):
                raise ValueError("numbers that are none")
        except (TypeError, KeyError, ValueError) as error:
            raise UsageError(f"damaged, it does not say what is known of the texts ({error})") from error
        return facts
