"""What a decoder writes: token by token the likeliest, or the likeliest sequence that a beam comes upon."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Int, PyTree

from gru_jax.config import Config
from gru_jax.errors import ArgumentError
from gru_jax.nn import EncoderDecoder, Functional
from gru_jax.nn.attention import SourceMemory
from gru_jax.tasks import SequenceToSequence
from gru_jax.training.prediction import index_batches
from gru_jax.training.splitting import on_mesh, over_rows

DecoderStep = Callable[[Int[Array, " N"], Any], tuple[Float[Array, "N V"], Any]]
"""The log-probability of every token after these, and what is carried on, of sequences side by side."""


class Search(NamedTuple):
    """How sequences are looked for.

    Attributes:
        beam_size: hypotheses that are kept at each step; 1 is greedy.
        length_penalty: alpha, by which longer ones are preferred: hypotheses are ranked by their log-probability over
            `((5 + tokens) / 6) ** alpha`, Wu et al. 2016, arXiv:1609.08144; 0 for the log-probability itself.
    """

    beam_size: int = 1
    length_penalty: float = 1.0


class Written(NamedTuple):
    """Sequences that a decoder wrote.

    Attributes:
        tokens: each filled up with the token that ends it, `[B, N]`.
        log_probability: of each, its end included, `[B]`.
        lengths: tokens of each, its end included, `[B]`; N where it did not come to an end.
    """

    tokens: Any
    log_probability: Array | np.ndarray
    lengths: Array | np.ndarray


def checked_search(search: Search) -> Search:
    """Refuse a search that is none.

    Raises:
        ArgumentError: a number is out of range.
    """
    if search.beam_size < 1:
        raise ArgumentError(f"beam_size={search.beam_size}: allowed are whole numbers from 1")
    if not 0 <= search.length_penalty < np.inf:
        raise ArgumentError(f"length_penalty={search.length_penalty}: allowed are numbers from 0")
    return search


def greedy(step: DecoderStep, carries: PyTree, batch: int, end_token: int, most: int) -> Written:
    """Write the likeliest token after those that stand there, up to the end or `most` tokens.

    Args:
        step: what may come next.
        carries: before the first step, of `batch` sequences.
        batch: how many sequences.
        end_token: ends a sequence, and is read before its first token.
        most: tokens of the longest, its end included.

    Examples:
        >>> import jax.numpy as jnp
        >>> from gru_jax.training.decoding import greedy
        >>> step = lambda tokens, count: (jnp.log(jnp.where(count[:, None] < 2, jnp.array([0.2, 0.8]), 0.5)), count + 1)
        >>> greedy(step, jnp.zeros(1), 1, 0, 5).tokens.tolist()
        [[1, 1, 0, 0, 0]]
    """

    def body(state: tuple[Any, ...]) -> tuple[Any, ...]:
        number, last, carries, done, rows, total = state
        log_probs, carries = step(last, carries)
        token = jnp.where(done, end_token, log_probs.argmax(axis=-1)).astype(jnp.int32)
        gain = jnp.take_along_axis(log_probs, token[:, None], axis=1)[:, 0]
        rows = jax.lax.dynamic_update_index_in_dim(rows, token, number, axis=1)
        return number + 1, token, carries, done | (token == end_token), rows, total + jnp.where(done, 0, gain)

    first = jnp.full(batch, end_token, jnp.int32)
    total = jnp.zeros(batch, jax.eval_shape(step, first, carries)[0].dtype)
    rows, nothing_done = jnp.full((batch, most), end_token, jnp.int32), jnp.zeros(batch, bool)
    start = (jnp.zeros((), jnp.int32), first, carries, nothing_done, rows, total)
    *_, rows, total = jax.lax.while_loop(lambda state: (state[0] < most) & ~state[3].all(), body, start)
    return Written(rows, total, _lengths(rows, end_token))


def beam_search(
    step: DecoderStep, carries: PyTree, batch: int, end_token: int, most: int, width: int, alpha: ArrayLike
) -> Written:
    """The best sequence that a beam comes upon: at each step the best `width` of all that go on from those before.

    Those that have come to their end stay among them as long as they are. A beam as wide as there are sequences comes
    upon all of them.

    Args:
        step: what may come next, of `batch * width` sequences.
        carries: before the first step, of `batch * width` sequences, those of one beam side by side.
        batch: how many beams.
        end_token, most: as of `greedy`.
        width: hypotheses of each beam.
        alpha: the length penalty, see `Search`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from gru_jax.training.decoding import beam_search
        >>> step = lambda tokens, count: (jnp.log(jnp.where(count[:, None] < 2, jnp.array([0.2, 0.8]), 0.5)), count + 1)
        >>> beam_search(step, jnp.zeros(3), 1, 0, 5, 3, 0.0).tokens.tolist()
        [[1, 1, 0, 0, 0]]
    """

    def body(state: tuple[Any, ...]) -> tuple[Any, ...]:
        number, last, carries, done, rows, total, counts = state
        log_probs, carries = step(last.reshape(-1), carries)
        log_probs = log_probs.reshape(batch, width, -1)
        tokens = log_probs.shape[-1]
        stays = jnp.where(jnp.arange(tokens) == end_token, 0.0, -jnp.inf).astype(log_probs.dtype)
        totals = total[..., None] + jnp.where(done[..., None], stays[None, None], log_probs)
        counts = counts + (~done).astype(jnp.int32)
        ranks = totals / _penalty(counts, alpha, totals.dtype)[..., None]
        chosen = jax.lax.top_k(ranks.reshape(batch, -1), width)[1]
        parent, token = chosen // tokens, (chosen % tokens).astype(jnp.int32)
        total = jnp.take_along_axis(totals.reshape(batch, -1), chosen, axis=1)
        done, counts = (jnp.take_along_axis(a, parent, axis=1) for a in (done, counts))
        rows = jnp.take_along_axis(rows, parent[..., None], axis=1)
        rows = jax.lax.dynamic_update_index_in_dim(rows, token, number, axis=2)
        places = (jnp.arange(batch, dtype=parent.dtype)[:, None] * width + parent).reshape(-1)
        carries = jax.tree.map(lambda a: a[places], carries)
        return number + 1, token, carries, done | (token == end_token), rows, total, counts

    first, shape = jnp.full((batch, width), end_token, jnp.int32), (batch, width)
    dtype = jax.eval_shape(step, first.reshape(-1), carries)[0].dtype
    only_one = jnp.broadcast_to(jnp.where(jnp.arange(width) == 0, 0.0, -jnp.inf).astype(dtype)[None], shape)
    rows, number = jnp.full((*shape, most), end_token, jnp.int32), jnp.zeros((), jnp.int32)
    start = (number, first, carries, jnp.zeros(shape, bool), rows, only_one, jnp.zeros(shape, jnp.int32))
    *_, rows, total, _ = jax.lax.while_loop(lambda state: (state[0] < most) & ~state[3].all(), body, start)
    return Written(rows[:, 0], total[:, 0], _lengths(rows[:, 0], end_token))  # the best stands first


def _penalty(counts: Int[Array, "B K"], alpha: ArrayLike, dtype: DTypeLike) -> Float[Array, "B K"]:
    return jnp.power((5.0 + counts.astype(dtype)) / 6.0, jnp.asarray(alpha, dtype))


def _lengths(rows: Int[Array, "B N"], end_token: int) -> Int[Array, " B"]:
    ends = rows == end_token
    return jnp.where(ends.any(axis=1), ends.argmax(axis=1) + 1, rows.shape[1]).astype(jnp.int32)


def write_targets(
    decoder: EncoderDecoder,
    xs: Int[Array, "B T"],
    lengths: Int[Array, " B"] | None,
    end_token: int,
    most: int,
    search: Search,
) -> Written:
    """What a network writes for sources, inside a compiled program; of `search` the length penalty may be traced."""
    memory, _ = decoder.encode(xs, lengths)
    batch, width = xs.shape[0], search.beam_size

    def step_with(memory: SourceMemory) -> DecoderStep:
        def step(tokens: Int[Array, " N"], carries: PyTree) -> tuple[Float[Array, "N V"], Any]:
            trace = decoder.decode(tokens[:, None], memory, carries)
            return jax.nn.log_softmax(trace.outputs[:, 0]), trace.carry

        return step

    if width == 1:
        return greedy(step_with(memory), memory.carries, batch, end_token, most)
    repeated = jax.tree.map(lambda a: jnp.repeat(a, width, axis=0), memory)
    return beam_search(step_with(repeated), repeated.carries, batch, end_token, most, width, search.length_penalty)


def attention_of(
    model: Functional,
    params: PyTree,
    xs: Int[np.ndarray, "B T"],
    lengths: Int[np.ndarray, " B"],
    tokens: Int[np.ndarray, "B N"],
    end_token: int,
) -> Float[np.ndarray, "B N T"]:
    """How much a decoder looks at each step of its source for each token of a target.

    Args:
        model: the network, which has attention.
        params: its parameters.
        xs: the sources.
        lengths: theirs.
        tokens: the targets.
        end_token: ends them, and is read before the first token.
    """

    @jax.jit
    def weights(params: PyTree, xs: Array, lengths: Array, tokens: Array) -> Array:
        decoder = model.module(params)
        assert isinstance(decoder, EncoderDecoder)
        memory, _ = decoder.encode(xs, lengths)
        read = jnp.concatenate([jnp.full_like(tokens[:, :1], end_token), tokens[:, :-1]], axis=1)
        states = decoder.decode(read, memory, memory.carries).layers[-1].unrolled.hs
        return decoder.source_attention.weights(states.astype(decoder.param_dtype), memory)

    return np.asarray(weights(params, xs, lengths, tokens))


def write_all(
    config: Config,
    model: Functional,
    params: PyTree,
    xs: Int[np.ndarray, "N T"],
    lengths: Int[np.ndarray, " N"],
    search: Search,
    mesh: Mesh | None = None,
) -> Written:
    """What a network writes for sources, batch by batch, as NumPy arrays; at most as many tokens as sources may have.

    Args:
        config: of the network.
        model: the network.
        params: its parameters.
        xs: the sources.
        lengths: theirs.
        search: how targets are looked for.
        mesh: whose devices share each batch; None for one.
    """
    task = config.task
    assert isinstance(task, SequenceToSequence)
    most, end_token = max(task.time, xs.shape[1]), task.end_token

    def of_device(shared: tuple[PyTree, PyTree], rows: tuple[PyTree, PyTree]) -> tuple[None, Written]:
        params, alpha = shared
        decoder = model.module(params)
        assert isinstance(decoder, EncoderDecoder)
        return None, write_targets(decoder, *rows, end_token, most, search._replace(length_penalty=alpha))

    program, parts = jax.jit(functools.partial(over_rows, of_device, mesh)), []
    shared = on_mesh((params, np.float32(search.length_penalty)), mesh)
    for index, count in index_batches(config, len(xs), mesh):
        rows = np.minimum(index, len(xs) - 1)
        written = jax.device_get(program(shared, (xs[rows], lengths[rows]))[1])
        parts.append(Written(*(part[:count] for part in written)))
    return Written(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
