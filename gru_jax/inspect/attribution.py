"""Which inputs a score hangs on: saliency, integrated gradients, occlusion.

A score is a function of the inputs of a network's first layer, `[B, T, D]`, that gives a number for each sequence of
its own inputs alone, `[B]`. These inputs are floats: those of the task, or what an embedding makes of its tokens.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from gru_jax.errors import UsageError, at_least_one, listing

Score = Callable[[Float[Array, "B T D"]], Float[Array, " B"]]
"""Each sequence's score by the inputs of the first layer."""
NODES = 8  # of the quadrature on each piece of the way
FIRST_PIECES = 8
MOST_INTERVALS = 512
NARROWEST = {jnp.dtype("float32"): 18, jnp.dtype("float64"): 48}
"""How often a piece is halved at most, by the type: narrower ones rounding does not tell apart."""
LEAST_ALLOWANCE = 1.0 / 16.0  # of the allowed error, for a piece however narrow


def saliency(score: Score, xs: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    """The gradient of each sequence's score with respect to its inputs. Simonyan et al. 2014, arXiv:1312.6034.

    Cost: a forward and a backward pass.

    Examples:
        >>> import jax.numpy as jnp
        >>> from gru_jax import inspect
        >>> inspect.saliency(lambda xs: (xs**2).sum(axis=(1, 2)), jnp.full((1, 3, 1), 2.0)).ravel().tolist()
        [4.0, 4.0, 4.0]
    """
    return jax.grad(lambda xs: score(xs).sum())(xs)


class IntegratedGradients(NamedTuple):
    """Integrated gradients, and how complete they are.

    Attributes:
        values: each input's share of the difference between the score and that of the baseline, `[B, T, D]`.
        difference: the difference, `[B]`.
        error: by how much the shares miss it, |sum of the values - difference|, `[B]`.
        jumped: the height of the jumps on the way that were shared out by the gradient's direction, `[B]`.
        intervals: on how many pieces of the way the gradient was taken.

    Examples:
        >>> import jax.numpy as jnp
        >>> from gru_jax import inspect
        >>> shares = inspect.integrated_gradients(lambda xs: xs.sum(axis=(1, 2)), jnp.ones((1, 3, 1)))
        >>> shares.difference.tolist(), bool(shares.error[0] < 1e-5)
        ([3.0], True)
    """

    values: Float[Array, "B T D"]
    difference: Float[Array, " B"]
    error: Float[Array, " B"]
    jumped: Float[Array, " B"]
    intervals: Int[Array, ""]


def integrated_gradients(
    score: Score,
    xs: Float[Array, "B T D"],
    baseline: Float[Array, "#B #T D"] | None = None,
    *,
    tolerance: float = 1e-4,
    most_intervals: int = MOST_INTERVALS,
) -> IntegratedGradients:
    """Share out the difference between each score and that of a baseline among the inputs.

    (x_i - b_i) times the mean of the score's gradient on the straight way from the baseline b to x: Sundararajan et al.
    2017, arXiv:1703.01365, eq. 1. The shares add up to the difference (completeness). The mean is taken by Gauss'
    quadrature with 8 nodes, and a piece of the way on which it misses the change of the score is halved, again and
    again. A network that decides between memories jumps on the way, over less than rounding tells apart: there the
    gradient's direction beside the jump is scaled to its height; in double precision it is seen from nearer.

    Args:
        score: of each sequence.
        xs: the inputs.
        baseline: inputs that say nothing; zeros if None.
        tolerance: allowed error, as a part of the difference, or of 1 where that is less.
        most_intervals: after which the error stays as it is, and is told.

    Cost: 9 forward and 8 backward passes for each piece, side by side.

    Raises:
        UsageError: a baseline of another size.

    Examples:
        >>> import jax.numpy as jnp
        >>> from gru_jax import inspect
        >>> score = lambda xs: xs[:, 0, 0] * xs[:, 1, 0]  # 2 * 3, shared alike
        >>> shares = inspect.integrated_gradients(score, jnp.array([[[2.0], [3.0]]]))
        >>> [round(value, 3) for value in shares.values.ravel().tolist()]
        [3.0, 3.0]
    """
    most = at_least_one("most_intervals", most_intervals)
    start = _baseline(xs, baseline)
    if xs.dtype not in NARROWEST:
        raise UsageError(f"xs is {xs.dtype}: gradients are added up in {listing(map(str, NARROWEST))}")
    way = xs - start
    first = _begin(score, start, way)
    difference = first.scores[:, 0, 1] - first.scores[:, FIRST_PIECES - 1, 0]
    allowed = tolerance * jnp.maximum(jnp.abs(difference), 1.0)
    piece_of = functools.partial(_integrate_piece, score, start, way)

    def halve(pending: _Pending) -> _Pending:
        return _next_pieces(pending, piece_of(pending), allowed, most)

    last = jax.lax.while_loop(lambda pending: (pending.depth > 0).any(), halve, first)
    error = jnp.abs(last.values.sum(axis=(1, 2)) - difference)
    return IntegratedGradients(last.values, difference, error, last.jumped, last.pieces)


class _Pending(NamedTuple):
    """Pieces of each sequence's way that are not integrated yet, `[B, K]`, the topmost first; and what is.

    A piece is where it begins and ends, from 0 to 1, with the score at both.
    """

    places: Float[Array, "B K 2"]
    scores: Float[Array, "B K 2"]
    depth: Int[Array, " B"]
    values: Float[Array, "B T D"]
    jumped: Float[Array, " B"]
    pieces: Int[Array, ""]


class _Piece(NamedTuple):
    """The topmost piece of each sequence, integrated."""

    places: Float[Array, "B 2"]
    scores: Float[Array, "B 2"]
    shares: Float[Array, "B T D"]
    middle_score: Float[Array, " B"]


def _begin(score: Score, start: Float[Array, "B T D"], way: Float[Array, "B T D"]) -> _Pending:
    """The way in a few pieces: on the whole of it two jumps could hide from each other."""
    size, most_depth = len(start), NARROWEST[jnp.dtype(start.dtype)] + FIRST_PIECES
    parts = jnp.linspace(1.0, 0.0, FIRST_PIECES + 1, dtype=start.dtype)
    scores = jax.lax.map(lambda part: score(start + part * way), parts).astype(start.dtype)
    ends = jnp.broadcast_to(parts[:, None], scores.shape)
    places, at_ends = (jnp.stack([a[1:].T, a[:-1].T], axis=-1) for a in (ends, scores))
    spare = [(0, 0), (0, most_depth - FIRST_PIECES), (0, 0)]
    return _Pending(
        jnp.pad(places, spare),
        jnp.pad(at_ends, spare),
        jnp.full(size, FIRST_PIECES, jnp.int32),
        jnp.zeros_like(start),
        jnp.zeros(size, start.dtype),
        jnp.zeros((), jnp.int32),
    )


def _integrate_piece(score: Score, start: Array, way: Array, pending: _Pending) -> _Piece:
    """Integrate the gradient over each sequence's topmost piece, and take the score in its middle."""
    nodes, weights = (0.5 * a for a in np.polynomial.legendre.leggauss(NODES))
    inside = jnp.asarray(np.append(0.5 + nodes, 0.5), way.dtype)
    row, top = jnp.arange(len(start)), jnp.maximum(pending.depth - 1, 0)
    places, scores = pending.places[row, top], pending.scores[row, top]
    width = places[:, 1] - places[:, 0]

    def at(part: Float[Array, ""]) -> tuple[Array, Array]:
        xs = start + (places[:, 0] + part * width)[:, None, None] * way
        values, back = jax.vjp(score, xs)
        return values, back(jnp.ones_like(values))[0]

    values, gradients = jax.vmap(at)(inside)
    gradient = jnp.tensordot(jnp.asarray(weights, way.dtype), gradients[:NODES], axes=1)
    return _Piece(places, scores, width[:, None, None] * gradient * way, values[-1].astype(way.dtype))


def _next_pieces(pending: _Pending, piece: _Piece, allowed: Float[Array, " B"], most: int) -> _Pending:
    """Take the topmost pieces that add up, and put the halves of the others in their place."""
    row, top = jnp.arange(len(pending.depth)), jnp.maximum(pending.depth - 1, 0)
    width, change = piece.places[:, 1] - piece.places[:, 0], piece.scores[:, 1] - piece.scores[:, 0]
    total = piece.shares.sum(axis=(1, 2))
    adds_up = jnp.abs(total - change) <= allowed * jnp.maximum(width, LEAST_ALLOWANCE)
    is_narrowest = width <= 2.0 ** -NARROWEST[jnp.dtype(width.dtype)]
    is_taken = adds_up | is_narrowest | (pending.pieces >= most)
    is_jump = is_narrowest & ~adds_up & (jnp.abs(total) > jnp.finfo(total.dtype).tiny)
    scale = jnp.where(is_jump, change / jnp.where(is_jump, total, 1.0), 1.0)
    counts = is_taken & (pending.depth > 0)
    values = pending.values + jnp.where(counts[:, None, None], scale[:, None, None] * piece.shares, 0.0)
    middle = 0.5 * (piece.places[:, 0] + piece.places[:, 1])

    def halved(stack: Array, ends: Array, middle: Array) -> Array:
        upper, lower = jnp.stack([middle, ends[:, 1]], axis=1), jnp.stack([ends[:, 0], middle], axis=1)
        return stack.at[row, top].set(upper).at[row, top + 1].set(lower, mode="drop")

    return _Pending(
        halved(pending.places, piece.places, middle),
        halved(pending.scores, piece.scores, piece.middle_score),
        jnp.where(pending.depth > 0, pending.depth + jnp.where(is_taken, -1, 1), 0),
        values,
        pending.jumped + jnp.where(counts & is_jump, jnp.abs(change), 0.0),
        pending.pieces + 1,
    )


def occlusion(
    score: Score, xs: Float[Array, "B T D"], baseline: Float[Array, "#B #T D"] | None = None, *, width: int = 1
) -> Float[Array, "B N"]:
    """How much each score falls where a stretch of steps is replaced by the baseline.

    Zeiler and Fergus 2014, arXiv:1311.2901, section 4.2, over time.

    Args:
        score: of each sequence.
        xs: the inputs.
        baseline: inputs that say nothing; zeros if None.
        width: steps of a stretch; stretch number n begins at step n * width.

    Cost: a forward pass for each stretch.

    Raises:
        UsageError: a baseline of another size.

    Examples:
        >>> import jax.numpy as jnp
        >>> from gru_jax import inspect
        >>> inspect.occlusion(lambda xs: xs.sum(axis=(1, 2)), jnp.ones((1, 5, 1)), width=2).tolist()
        [[2.0, 2.0, 1.0]]
    """
    at_least_one("width", width)
    start, time = _baseline(xs, baseline), xs.shape[1]
    whole, stretch = score(xs), jnp.arange(time) // width

    def fall(number: Int[Array, ""]) -> Float[Array, " B"]:
        hidden = (stretch == number)[None, :, None]
        return whole - score(jnp.where(hidden, start, xs))

    return jax.lax.map(fall, jnp.arange(-(-time // width))).T


def share_of_steps(values: Float[Array, "B T D"], steps: Bool[Array, "B T"]) -> Float[Array, " B"]:
    """The part of all attribution, by its absolute value, that some steps carry, those that are True. Cost: a sum.

    Examples:
        >>> import jax.numpy as jnp
        >>> from gru_jax import inspect
        >>> inspect.share_of_steps(jnp.array([[[1.0], [-3.0]]]), jnp.array([[False, True]])).tolist()
        [0.75]
    """
    by_step = jnp.abs(values).sum(axis=2)
    total = by_step.sum(axis=1)
    return jnp.where(steps, by_step, 0.0).sum(axis=1) / jnp.where(total > 0, total, 1.0)


def _baseline(xs: Float[Array, "B T D"], baseline: Float[Array, "#B #T D"] | None) -> Float[Array, "B T D"]:
    """The baseline of every sequence and step."""
    if not jnp.issubdtype(xs.dtype, jnp.floating) or xs.ndim != 3:
        raise UsageError(f"xs is {xs.dtype}{list(xs.shape)}: attributed is to floats of the first layer, [B, T, D]")
    if baseline is None:
        return jnp.zeros_like(xs)
    fits = baseline.ndim == 3 and all(b in (1, x) for b, x in zip(baseline.shape, xs.shape, strict=True))
    if not fits:
        raise UsageError(
            f"baseline has shape {list(baseline.shape)}: allowed are sizes that spread over {list(xs.shape)}"
        )
    return jnp.broadcast_to(baseline.astype(xs.dtype), xs.shape)
