"""What a network that reads a text may keep count of: where in a line it is, and whether within quotes or brackets."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gru_jax.data.vocabulary import Vocabulary

STRAIGHT, OPENING, CLOSING = '"', "\u201c\u00ab", "\u201d\u00bb"
BRACKETS, BACK = "([{", ")]}"
QUOTES, LINE, DEPTH = "within quotes", "position in line", "depth of brackets"


def text_variables(tokens: Int[Array, "B T"], texts: Sequence[str]) -> dict[str, Float[Array, "B T"]]:
    r"""What is so after each token, as far as its row shows; what never changes is left out.

    Args:
        tokens: of pieces of text, each of which counts from its own beginning.
        texts: of each token of the vocabulary.

    Examples:
        >>> import jax.numpy as jnp
        >>> from gru_jax.tasks.text_variables import text_variables
        >>> values = text_variables(jnp.array([[1, 0, 1, 2, 0]]), ["a", '"', "\n"])
        >>> {name: column.tolist() for name, column in values.items()}
        {'within quotes': [[1.0, 1.0, 0.0, 0.0, 0.0]], 'position in line': [[1.0, 2.0, 3.0, 0.0, 1.0]]}
    """

    def counted(of_text: Sequence[int]) -> Int[Array, "B T"]:
        return jnp.cumsum(jnp.asarray(np.array(of_text, np.int32))[tokens], axis=1)

    def count(text: str, signs: str) -> int:
        return sum(text.count(sign) for sign in signs)

    straight = counted([text.count(STRAIGHT) for text in texts]) % 2
    directed = counted([count(text, OPENING) - count(text, CLOSING) for text in texts])
    read = counted([len(text) for text in texts])
    rest = jnp.asarray(np.array([len(text.rpartition("\n")[2]) for text in texts], np.int32))[tokens]
    ends = jnp.asarray(np.array(["\n" in text for text in texts]))[tokens]
    line_began = jnp.maximum.accumulate(jnp.where(ends, read - rest, 0), axis=1)
    values = {
        QUOTES: (straight > 0) | (directed > 0),
        LINE: read - line_began,
        DEPTH: counted([count(text, BRACKETS) - count(text, BACK) for text in texts]),
    }
    return {
        name: value.astype(jnp.result_type(float))
        for name, value in values.items()
        if bool((value != value[0, 0]).any())
    }


def texts_of_tokens(vocabulary: Vocabulary) -> list[str]:
    """What stands in a text for each token by itself; of words with the space behind."""
    if vocabulary.kind != "words":
        return [vocabulary.decode([number]) for number in range(len(vocabulary))]
    texts = (vocabulary.decode([number]) for number in range(len(vocabulary)))
    return [text if text == "\n" else f"{text} " for text in texts]
