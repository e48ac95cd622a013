"""Which inputs a score hangs on: saliency, integrated gradients, occlusion.

A score is a function of the inputs of a network's first layer, `[B, T, D]`, that gives a number for each sequence of
its own inputs alone, `[B]`. These inputs are floats: those of the task, or what an embedding makes of its tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from gru_jax.errors import UsageError, at_least_one

Score = Callable[[Float[Array, "B T D"]], Float[Array, " B"]]
"""Each sequence's score by the inputs of the first layer."""
NODES = 8  # of the quadrature in each interval
MOST_INTERVALS = 256


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
        intervals: how many the path was cut into.

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
    quadrature with 8 nodes in each of 1, 2, 4, ... intervals, until all shares add up to within the tolerance.

    Args:
        score: of each sequence.
        xs: the inputs.
        baseline: inputs that say nothing; zeros if None.
        tolerance: allowed error, as a part of the difference, or of 1 where that is less.
        most_intervals: after which the error stays as it is, and is told.

    Cost: twice 8 forward and backward passes for each interval that was needed.

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
    way = xs - start
    difference = score(xs) - score(start)
    allowed = tolerance * jnp.maximum(jnp.abs(difference), 1.0)

    def shares(intervals: Int[Array, ""]) -> IntegratedGradients:
        values = way * _mean_gradient(score, start, way, intervals)
        error = jnp.abs(values.sum(axis=(1, 2)) - difference)
        return IntegratedGradients(values, difference, error, intervals)

    def goes_on(current: IntegratedGradients) -> Bool[Array, ""]:
        return (current.error > allowed).any() & (current.intervals < most)

    first = shares(jnp.ones((), jnp.int32))
    return jax.lax.while_loop(goes_on, lambda current: shares(2 * current.intervals), first)


def _mean_gradient(
    score: Score, start: Float[Array, "B T D"], way: Float[Array, "B T D"], intervals: Int[Array, ""]
) -> Float[Array, "B T D"]:
    """The mean of a score's gradient on the way from a start, by Gauss' quadrature in each of so many intervals."""
    nodes, weights = (jnp.asarray(0.5 * a, way.dtype) for a in np.polynomial.legendre.leggauss(NODES))
    count = intervals.astype(way.dtype)

    def add(number: Int[Array, ""], total: Array) -> Array:
        middle, node = (number // NODES).astype(way.dtype) + 0.5, number % NODES
        gradient = saliency(score, start + (middle + nodes[node]) / count * way)
        return total + weights[node] / count * gradient

    return jax.lax.fori_loop(jnp.zeros((), jnp.int32), intervals * NODES, add, jnp.zeros_like(way))


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
