"""What a decoder writes, against all that it could write."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments import cli
from gru_jax import nn
from gru_jax.cells import GRU
from gru_jax.errors import UsageError
from gru_jax.training.decoding import Search, beam_search, checked_search, greedy, write_targets

END, TOKENS, MOST = 0, 3, 4


def chain(seed):
    """Log-probabilities of each token after each, at each step; and the step of a decoder that they make."""
    table = jax.nn.log_softmax(2.0 * jax.random.normal(jax.random.key(seed), (MOST, TOKENS, TOKENS)))

    def step(tokens, numbers):
        return table[numbers, tokens], numbers + 1

    return np.asarray(table, np.float64), step


def all_sequences(table, alpha):
    """Every sequence with its log-probability, the best first, by the length penalty."""
    scored = []
    for length in range(1, MOST + 1):
        for tokens in itertools.product(range(TOKENS), repeat=length):
            if END in tokens[:-1] or (tokens[-1] != END and length < MOST):
                continue
            last = (END, *tokens[:-1])
            total = sum(table[t, a, b] for t, (a, b) in enumerate(zip(last, tokens, strict=True)))
            scored.append((total / ((5 + length) / 6) ** alpha, tokens, total))
    return sorted(scored, reverse=True)


@pytest.mark.parametrize("alpha", [0.0, 1.0, 3.0])
def test_a_wide_beam_comes_upon_the_best_of_all(alpha):
    widest = TOKENS**MOST
    search = jax.jit(lambda step_table: beam_search(
        lambda tokens, numbers: (step_table[numbers, tokens], numbers + 1), jnp.zeros(widest, jnp.int32), 1, END, MOST,
        widest, alpha,
    ))  # fmt: skip
    for seed in range(5):
        table, _ = chain(seed)
        (_, tokens, total), *_ = all_sequences(table, alpha)
        written = search(jnp.asarray(table, jnp.float32))
        assert written.tokens[0, : len(tokens)].tolist() == list(tokens)
        assert written.lengths.tolist() == [len(tokens)]
        np.testing.assert_allclose(written.log_probability[0], total, rtol=1e-5)


def test_a_longer_sequence_wins_by_the_penalty():
    """Of those chains at least one has another best sequence under the penalty, or the test above tests little."""
    best = [[all_sequences(chain(seed)[0], alpha)[0][1] for alpha in (0.0, 3.0)] for seed in range(5)]
    assert any(len(with_penalty) > len(without) for without, with_penalty in best)


SOURCES = jnp.array([[3, 1, 4, 1, 5], [2, 6, 0, 0, 0], [5, 3, 5, 0, 0]], jnp.int32)
LENGTHS = jnp.array([5, 2, 3])


@functools.cache
def written_by(width, attention="luong"):
    model = nn.EncoderDecoder(GRU(), 7, (6,), 5, embedding=4, attention=attention, bidirectional=True, rngs=nnx.Rngs(3))
    graph, state = nnx.split(model)
    sharper = jax.tree.map(lambda leaf: 3 * leaf, state)  # of small weights all tokens are about as likely
    write = jax.jit(lambda state: write_targets(nnx.merge(graph, state), SOURCES, LENGTHS, END, 6, Search(width, 0.7)))
    return nnx.merge(graph, sharper), write(sharper)


@pytest.mark.parametrize(("width", "attention"), [(1, "luong"), (3, "luong"), (1, "bahdanau"), (3, "bahdanau")])
def test_decoding_is_scoring(width, attention):
    """The log-probability of what was written, in a pass that reads it."""
    model, written = written_by(width, attention)
    late = jnp.concatenate([jnp.full((3, 1), END), written.tokens[:, :-1]], axis=1).astype(jnp.int32)
    outputs = model.trace(SOURCES, decoder_inputs=late, lengths=LENGTHS, decoder_lengths=written.lengths).outputs
    each = jnp.take_along_axis(jax.nn.log_softmax(outputs), written.tokens[..., None], axis=2)[..., 0]
    within = jnp.arange(6)[None] < written.lengths[:, None]
    np.testing.assert_allclose(written.log_probability, jnp.where(within, each, 0).sum(axis=1), rtol=1e-5)
    if width == 1:
        choices = jnp.where(within, outputs.argmax(axis=-1).astype(jnp.int32), END)
        np.testing.assert_array_equal(written.tokens, choices)


def test_a_beam_of_width_one_is_greedy():
    model, wanted = written_by(1)
    memory, _ = model.encode(SOURCES, LENGTHS)

    def step(tokens, carries):
        trace = model.decode(tokens[:, None], memory, carries)
        return jax.nn.log_softmax(trace.outputs[:, 0]), trace.carry

    got = jax.jit(lambda carries: beam_search(step, carries, 3, END, 6, 1, 0.7))(memory.carries)
    np.testing.assert_array_equal(got.tokens, wanted.tokens)
    np.testing.assert_array_equal(got.lengths, wanted.lengths)
    np.testing.assert_allclose(got.log_probability, wanted.log_probability, rtol=1e-6)
    assert (np.asarray(written_by(3)[1].log_probability) / ((5 + written_by(3)[1].lengths) / 6) ** 0.7
            >= np.asarray(wanted.log_probability) / ((5 + wanted.lengths) / 6) ** 0.7 - 1e-5).all()  # fmt: skip


def test_sequences_end_on_their_own():
    """One that is done waits for the others, and counts no more."""

    def step(tokens, numbers):
        ends = jnp.stack([numbers >= jnp.array([0, 2]), numbers < jnp.array([0, 2])], axis=1)
        return jnp.log(jnp.where(ends, 0.9, 0.1)), numbers + 1

    written = greedy(step, jnp.zeros(2, jnp.int32), 2, END, 8)
    assert written.tokens.tolist() == [[0] * 8, [1, 1, 0, 0, 0, 0, 0, 0]]
    assert written.lengths.tolist() == [1, 3]
    np.testing.assert_allclose(written.log_probability, [np.log(0.9), 3 * np.log(0.9)], rtol=1e-6)


@pytest.mark.parametrize(
    ("search", "message"),
    [
        (Search(0), "beam_size=0: allowed are"),
        (Search(2, -1.0), "length_penalty=-1.0"),
        (Search(2, float("nan")), "nan"),
    ],
)
def test_wrong_searches(search, message):
    with pytest.raises(UsageError, match=message):
        checked_search(search)


@pytest.mark.parametrize(("flag", "value"), [("beam_size", "abc"), ("beam_size", "2.5"), ("length_penalty", "long")])
def test_the_flag_that_is_wrong_is_named(flag, value):
    with pytest.raises(UsageError, match=f"^(--)?{flag}={value}: "):
        cli.parse_search({flag: value})
    assert cli.parse_search({"beam_size": "3"}) == Search(3, 1.0)
