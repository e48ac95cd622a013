"""How the gradient of a loss travels back through time.

The adjoint of step t is dL/dh_t, through everything that follows t:

    a_T = dl_T/dh_T,    a_t = dl_t/dh_t + J_{t+1}^T a_{t+1},    J_t = dh_t/dh_{t-1}.

It is the gradient of the loss with respect to a zero perturbation of h_t, so that one backward pass gives all of them:
see the argument `perturbation` of `unroll`. Bengio et al. 1994, IEEE Transactions on Neural Networks 5(2); Pascanu et
al. 2013, arXiv:1211.5063, eq. 4 and 5.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gru_jax.dtypes import carry_dtype
from gru_jax.norms import euclidean_norm
from gru_jax.unroll import valid_steps

QUANTILES = (0.1, 0.5, 0.9)


class LagProfile(NamedTuple):
    """Adjoint norms against the lag from the end of the pass; NaN at lags that no sequence reaches.

    Attributes:
        mean: mean over the batch, `[T]`.
        quantiles: the `QUANTILES` over the batch, `[3, T]`.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from gru_jax import flow
        >>> profile = flow.lag_profile(jnp.array([[1.0, 2.0], [3.0, 6.0]]))
        >>> profile.mean.tolist(), profile.quantiles.shape
        ([4.0, 2.0], (3, 2))
    """

    mean: Float[Array, " T"]
    quantiles: Float[Array, "Q T"]


def adjoint_norms(adjoint: Float[Array, "*B H"]) -> Float[Array, "*B"]:
    """Euclidean norm ||a_t|| of dL/dh_t over the hidden units, `[..., H]` to `[...]`.

    Squares neither overflow nor underflow; inf and NaN stay; the derivative at 0 is 0. See `gru_jax.norms`.

    Cost: two readings of the adjoints, which a backward pass gives.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from gru_jax import flow
        >>> flow.adjoint_norms(jnp.array([[3.0, 4.0]])).tolist()
        [5.0]
    """
    return euclidean_norm(adjoint)


def to_unit_vectors(vectors: Float[Array, "*B S"]) -> tuple[Float[Array, "*B S"], Float[Array, "*B"]]:
    """Divide vectors by their norms; also the norms' logarithms. A zero vector stays, with the logarithm -inf."""
    norm = adjoint_norms(vectors)
    return vectors / jnp.where(norm > 0, norm, 1.0)[..., None], jnp.log(norm)


def by_lag(values: Float[Array, "B T"], lengths: Int[Array, " B"] | None = None) -> Float[Array, "B T"]:
    """Arrange values by lag instead of time: lag 0 is each sequence's last valid step; NaN before its first step.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from gru_jax import flow
        >>> flow.by_lag(jnp.array([[1.0, 2.0, 3.0]]), jnp.array([2])).tolist()
        [[2.0, 1.0, nan]]
    """
    time = values.shape[1]
    if lengths is None:
        return values[:, ::-1]
    step = jnp.minimum(lengths.astype(jnp.int32), time)[:, None] - 1 - jnp.arange(time, dtype=jnp.int32)[None, :]
    taken = jnp.take_along_axis(values, jnp.maximum(step, 0), axis=1) if time else values
    return jnp.where(step >= 0, taken, jnp.nan)


def lag_profile(
    norms: Float[Array, "B T"], lengths: Int[Array, " B"] | None = None, *, reverse: bool = False
) -> LagProfile:
    """Take the mean and quantiles over the batch of norms against lag from the end of the pass.

    Args:
        norms: norms by time step, see `adjoint_norms`.
        lengths: true lengths; all are T if None.
        reverse: the layer runs backwards, so that its pass ends at the first step.

    A sequence whose adjoint is not finite shows: it counts as inf, in the mean and in the quantiles.
    Cost: a sort of `B` numbers for each lag.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from gru_jax import flow
        >>> flow.lag_profile(jnp.array([[1.0, 2.0], [3.0, 6.0]])).mean.tolist()
        [4.0, 2.0]
    """
    # Both directions number lags from 0, so that what is reached is the same, and as many as there are valid steps.
    norms = norms.astype(carry_dtype(norms.dtype))
    batch, time = norms.shape
    valid = valid_steps(lengths, batch, time)
    reached = jnp.ones(norms.shape, bool) if valid is None else valid
    values = norms if reverse else by_lag(norms, lengths)
    values = jnp.where(reached, jnp.where(jnp.isnan(values), jnp.inf, values), jnp.nan)
    count = reached.sum(axis=0)
    total = jnp.where(reached, values, 0.0).sum(axis=0)
    mean = jnp.where(count > 0, total / jnp.maximum(count, 1).astype(norms.dtype), jnp.nan)
    quantiles = jnp.nanquantile(values, jnp.asarray(QUANTILES, norms.dtype), axis=0, method="lower")
    return LagProfile(mean, quantiles)


def horizon(profile: Float[Array, " T"], fraction: float) -> Int[Array, ""]:
    """Find the gradient horizon: the first lag, in steps, at which a profile is at or below `fraction` of its maximum.

    min {l : p(l) <= fraction max p}, behind the maximum. It counts from lag 0; T where the profile stays above, so that
    T means "beyond the sequence". What is not finite is neither maximum nor below it.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from gru_jax import flow
        >>> int(flow.horizon(jnp.array([1.0, 0.5, 0.2, 0.1]), 0.3))
        2
    """
    finite = jnp.isfinite(profile)
    known = jnp.where(finite, profile, -jnp.inf)
    peak = known.max(initial=-jnp.inf)
    behind = jax.lax.cummax(known) == peak
    return _first(finite & behind & (profile <= fraction * peak))


def explosion(profile: Float[Array, " T"], factor: float = 100.0) -> Int[Array, ""]:
    """Find the first lag at which a profile exceeds `factor` times its first value above zero, or is infinite.

    min {l : p(l) > factor p(0)}; T where it never does.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from gru_jax import flow
        >>> int(flow.explosion(jnp.array([1.0, 50.0, 150.0])))
        2
    """
    start = profile[_first(profile > 0)] if profile.shape[0] else jnp.zeros((), profile.dtype)
    return _first((profile > factor * start) | jnp.isinf(profile))


def log_slope(profile: Float[Array, " T"]) -> Float[Array, ""]:
    """Nats per step of lag by which a profile grows (or, negative, decays): least squares through ln profile.

    The s that minimises sum_l (ln p(l) - c - s l)^2. Lags at which the profile is zero, unknown or infinite are left
    out; NaN with fewer than two others. For long lags, one sequence and a loss of the last state this tends to the
    largest Lyapunov exponent (Engelken et al. 2023, Physical Review Research 5, 043044); for the mean over sequences
    that differ, to somewhat more.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from gru_jax import flow
        >>> round(float(flow.log_slope(jnp.exp(-0.5 * jnp.arange(6.0)))), 4)
        -0.5
    """
    profile = profile.astype(carry_dtype(profile.dtype))  # half precision cannot count the lags
    used = jnp.isfinite(profile) & (profile > 0)
    count = used.sum().astype(profile.dtype)
    lag = jnp.arange(profile.shape[0], dtype=profile.dtype)
    value = jnp.where(used, jnp.log(jnp.where(used, profile, 1.0)), 0.0)
    safe = jnp.where(count > 1, count, jnp.nan)
    offset = jnp.where(used, lag - jnp.where(used, lag, 0.0).sum() / safe, 0.0)
    return (offset * value).sum() / jnp.square(offset).sum()


def _first(hit: Bool[Array, " T"]) -> Int[Array, ""]:
    """The first index at which a mask holds; its length where it never does."""
    return jnp.where(hit.any(), jnp.argmax(hit), hit.shape[0]) if hit.shape[0] else jnp.zeros((), jnp.int32)
