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
        vocabulary: of the training text.
        tokens: how many each split has.
    """

    vocabulary: Vocabulary
    tokens: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        return {"vocabulary": self.vocabulary.to_json(), "tokens": dict(self.tokens)}

    @classmethod
    def from_json(cls, content: Any) -> TextFacts:
        try:
            facts = cls(Vocabulary.from_json(content["vocabulary"]), dict(content["tokens"]))
            if not all(type(count) is int for count in facts.tokens.values()):
                raise ValueError("numbers of tokens that are none")
        except (TypeError, KeyError, ValueError) as error:
            raise UsageError(f"damaged, it does not say what is known of the texts ({error})") from error
        return facts
