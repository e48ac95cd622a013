"""How alike two networks, layers or seeds represent the same examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jax.scipy.stats import rankdata
from jaxtyping import Array, Float

from gru_jax.dtypes import in_single_precision
from gru_jax.errors import UsageError
from gru_jax.norms import rounding_of


def linear_cka(one: Float[Array, "N P"], other: Float[Array, "N Q"]) -> Float[Array, ""]:
    """Linear centred kernel alignment of two representations of the same examples: 1 for alike, 0 for unrelated.

    ||Y^T X||_F^2 / (||X^T X||_F ||Y^T Y||_F) of centred X and Y. It does not change where a representation is rotated,
    scaled or shifted. Kornblith et al. 2019, arXiv:1905.00414, eq. 4. Use many more examples than units: of a few,
    unrelated representations seem alike. NaN where one of them does not vary.

    Cost: a product of `[P, N]` and `[N, Q]`.

    Examples:
        >>> import jax
        >>> from gru_jax import inspect
        >>> one = jax.random.normal(jax.random.key(0), (100, 3))
        >>> round(float(inspect.linear_cka(one, -2.0 * one[:, ::-1] + 1.0)), 4)
        1.0
    """
    _check_pair(one, other)
    x, y = (_centred(in_single_precision(a)) for a in (one, other.astype(one.dtype)))
    x, y = (a / jnp.where(jnp.abs(a).max() > 0, jnp.abs(a).max(), 1.0) for a in (x, y))
    norms = [jnp.sqrt(jnp.square(a.T @ a).sum()) for a in (x, y)]
    return jnp.square(y.T @ x).sum() / (norms[0] * norms[1])


def _centred(values: Float[Array, "N P"]) -> Float[Array, "N P"]:
    """Values less their mean; zero where they differ from it by no more than their rounding."""
    centred = values - values.mean(axis=0, keepdims=True)
    return jnp.where(jnp.abs(centred).max(axis=0) <= rounding_of(values, axis=0), 0.0, centred)


def dissimilarities(states: Float[Array, "N P"]) -> Float[Array, " M"]:
    """1 - Pearson's correlation of the representations of each two examples, M = N (N - 1) / 2 pairs.

    The upper triangle of a representational dissimilarity matrix: Kriegeskorte et al. 2008, Frontiers in Systems
    Neuroscience 2:4. Cost: a product of `[N, P]` and `[P, N]`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from gru_jax import inspect
        >>> inspect.dissimilarities(jnp.array([[0.0, 1.0], [0.0, 2.0], [3.0, 0.0]])).round(4).tolist()
        [0.0, 2.0, 2.0]
    """
    states = in_single_precision(states)
    x = states - states.mean(axis=1, keepdims=True)
    norms = jnp.sqrt(jnp.square(x).sum(axis=1, keepdims=True))
    x = x / jnp.where(norms > 0, norms, 1.0)
    rows, columns = jnp.triu_indices(len(states), 1)
    return 1.0 - (x @ x.T)[rows, columns]


def representational_similarity(one: Float[Array, "N P"], other: Float[Array, "N Q"]) -> Float[Array, ""]:
    """Spearman's correlation of the dissimilarities of all pairs of examples in two representations of them.

    1 where they order the pairs alike. NaN where all pairs of one are as far from each other.

    Cost: `dissimilarities` of both, and the ranks of N (N - 1) / 2 numbers.

    Examples:
        >>> import jax
        >>> from gru_jax import inspect
        >>> one = jax.random.normal(jax.random.key(0), (30, 5))
        >>> round(float(inspect.representational_similarity(one, one[:, ::-1])), 4)
        1.0
    """
    _check_pair(one, other)
    ranks = [rankdata(dissimilarities(a)) for a in (one, other.astype(one.dtype))]
    x, y = (r - r.mean() for r in ranks)
    return (x * y).sum() / jnp.sqrt(jnp.square(x).sum() * jnp.square(y).sum())


def similarity_matrix(
    representations: Sequence[Float[Array, "N _"]],
    measure: Callable[[Array, Array], Array] = linear_cka,
) -> Float[Array, "M M"]:
    """How alike each two of several representations of the same examples are, by `linear_cka` or another measure.

    Cost: that of the measure for each pair.

    Examples:
        >>> import jax
        >>> from gru_jax import inspect
        >>> one, other = (jax.random.normal(jax.random.key(i), (500, 2)) for i in range(2))
        >>> inspect.similarity_matrix([one, one, other]).round(1).tolist()
        [[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    return jnp.stack([jnp.stack([measure(one, other) for other in representations]) for one in representations])


def _check_pair(one: Array, other: Array) -> None:
    if one.ndim != 2 or other.ndim != 2 or len(one) != len(other) or len(one) < 2:
        raise UsageError(
            f"representations have shapes {list(one.shape)} and {list(other.shape)}: needed are [N, P] and [N, Q] of "
            "the same N examples, at least 2"
        )
