"""Texts that a run's network goes on with."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import cast

import jax
import numpy as np
from jaxtyping import Int

from gru_jax.config.checkpoint_names import BEST
from gru_jax.data.vocabulary import Vocabulary
from gru_jax.errors import ArgumentError, check_argument
from gru_jax.runs.stored import CHECKPOINT_KINDS, CheckpointKind, open_run, restore_state
from gru_jax.runtime.devices import choose_device, precision
from gru_jax.tasks import LanguageModel
from gru_jax.training.network import build_model
from gru_jax.training.sampling import Drawing, build_step
from gru_jax.training.streams import start_streams

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
MOST_BYTES = 4  # of a character in UTF-8


class TextSampler:
    """A language model of a run that goes on with texts. The run's data are not needed.

    Args:
        workdir: of the run.
        checkpoint: which of its networks.

    Attributes:
        vocabulary: of the run.

    Raises:
        UsageError: there is no such run or checkpoint, or it is of another task.
    """

    def __init__(self, workdir: str | os.PathLike[str], checkpoint: str = BEST) -> None:
        check_argument("checkpoint", checkpoint, CHECKPOINT_KINDS)
        rundir, self._config = open_run(workdir)
        task = self._config.task
        if not isinstance(task, LanguageModel):
            raise ArgumentError(f"workdir={workdir}: its task is {type(task).__name__}; allowed are language models")
        self.vocabulary: Vocabulary = task.facts.vocabulary
        self._device, self._model = choose_device(self._config.platform), build_model(self._config)
        with precision(self._config.dtype, self._config.matmul_precision):
            self._params = restore_state(rundir, self._config, self._device, cast("CheckpointKind", checkpoint)).params
        self._step = build_step(self._model)

    def tokens(
        self, prompt: str, length: int, count: int = 1, how: Drawing | None = None, seed: int = 0
    ) -> Iterator[Int[np.ndarray, " count"]]:
        """Token by token what follows a prompt, of so many texts side by side; see `sample_texts`."""
        how = _checked(Drawing() if how is None else how, length, count)
        read = self.vocabulary.encode(prompt)
        if not len(read):
            raise ArgumentError(f"prompt={prompt!r}: has no token; needed is one or more")
        with precision(self._config.dtype, self._config.matmul_precision), jax.default_device(self._device):
            keys = jax.random.split(jax.random.key(seed), count)
            carries = start_streams(self._model, count, self._config.dtype).carries
            tokens = np.full(count, read[0], np.int32)
            for number in range(len(read) + length - 1):
                drawn, carries = self._step(self._params, carries, tokens, keys, np.int32(number), how)
                is_drawn = number + 1 >= len(read)
                tokens = np.asarray(drawn) if is_drawn else np.full(count, read[number + 1], np.int32)
                if is_drawn:
                    yield tokens

    def between(self, prompt: str, text: str) -> str:
        """What stands between a prompt and the text that follows it: a blank between words, else nothing."""
        is_inside = bool(prompt and text) and not (prompt[-1].isspace() or text[0].isspace())
        return " " if self.vocabulary.kind == "words" and is_inside else ""

    def pieces(self, tokens: Iterable[int]) -> Iterator[str]:
        """The text of tokens, piece by piece as they come; bytes that are no character yet wait for those to come."""
        numbers, shown = list[int](), ""
        for token in tokens:
            numbers.append(int(token))
            text = self.vocabulary.decode(numbers)
            if not text.endswith(REPLACEMENT) or text[:-MOST_BYTES].endswith(REPLACEMENT):
                yield text[len(shown) :]
                shown = text
        yield self.vocabulary.decode(numbers)[len(shown) :]


def sample_texts(
    workdir: str | os.PathLike[str],
    prompt: str = "\n",
    length: int = 500,
    count: int = 1,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    checkpoint: str = BEST,
) -> list[str]:
    """Texts that a language model goes on with, without the prompt.

    Args:
        workdir: of the run; its data are not needed.
        prompt: what the network reads first.
        length: tokens to draw.
        count: how many texts, side by side.
        temperature: what scores are divided by; 0 for the likeliest token each time.
        top_k: only so many of the likeliest tokens are drawn; 0 for all.
        top_p: only the likeliest tokens that together have this probability are drawn; 1 for all.
        seed: what they are drawn by; each text has a stream of its own.
        checkpoint: which of the run's networks.

    Raises:
        UsageError: there is no such run or checkpoint, it is of another task, or an argument is out of range.
    """
    sampler = TextSampler(workdir, checkpoint)
    rows = np.stack(list(sampler.tokens(prompt, length, count, Drawing(temperature, top_k, top_p), seed)), axis=1)
    return [sampler.vocabulary.decode(row) for row in rows]


def _checked(how: Drawing, length: int, count: int) -> Drawing:
    """How tokens are drawn, as numbers of the types that the compiled step takes.

    Raises:
        ArgumentError: something is out of range.
    """
    for name, value in (("length", length), ("count", count)):
        if value < 1:
            raise ArgumentError(f"{name}={value}: allowed are whole numbers from 1")
    if not 0 <= how.temperature < np.inf:
        raise ArgumentError(f"temperature={how.temperature}: allowed are numbers from 0")
    if how.top_k < 0:
        raise ArgumentError(f"top_k={how.top_k}: allowed are whole numbers from 0, which stands for all")
    if not 0 < how.top_p <= 1:
        raise ArgumentError(f"top_p={how.top_p}: allowed are numbers above 0 and up to 1")
    return Drawing(np.float32(how.temperature), np.int32(min(how.top_k, 2**31 - 1)), np.float32(how.top_p))
