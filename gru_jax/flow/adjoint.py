"""How the gradient of a loss travels back through time.

The adjoint of step t is dL/dh_t, through everything that follows t. It is the gradient of the loss with respect to
a zero perturbation of h_t, so that one backward pass gives all of them: see the argument `perturbation` of `unroll`.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gru_jax.unroll import valid_steps

QUANTILES = (0.1, 0.5, 0.9)


class LagProfile(NamedTuple):
    """Adjoint norms against the lag from the end of the pass; NaN at lags that no sequence reaches.

    Attributes:
        mean: mean over the batch, `[T]`.
        quantiles: the `QUANTILES` over the batch, `[3, T]`.
    """

    mean: Float[Array, " T"]
    quantiles: Float[Array, "Q T"]


def adjoint_norms(adjoint: Float[Array, "B T H"]) -> Float[Array, "B T"]:
    """Euclidean norm of dL/dh_t over the hidden units; squares neither overflow nor underflow, inf and NaN stay."""
    largest = jnp.abs(adjoint).max(axis=-1, initial=0.0)
    # A power of two is exact; the bounds keep it and its reciprocal normal numbers.
    bound = jnp.finfo(adjoint.dtype).maxexp - 3
    exponent = jnp.clip(jnp.frexp(largest)[1], -bound, bound)
    scale = jnp.ldexp(jnp.ones_like(largest), exponent)
    return scale * jnp.sqrt(jnp.square(adjoint / scale[..., None]).sum(axis=-1))


def by_lag(values: Float[Array, "B T"], lengths: Int[Array, " B"] | None = None) -> Float[Array, "B T"]:
    """Values against lag rather than time: lag 0 is each sequence's last valid step; NaN before its first step."""
    time = values.shape[1]
    if lengths is None:
        return values[:, ::-1]
    step = lengths.astype(jnp.int32)[:, None] - 1 - jnp.arange(time, dtype=jnp.int32)[None, :]
    taken = jnp.take_along_axis(values, jnp.maximum(step, 0), axis=1) if time else values
    return jnp.where(step >= 0, taken, jnp.nan)


def lag_profile(
    norms: Float[Array, "B T"], lengths: Int[Array, " B"] | None = None, *, reverse: bool = False
) -> LagProfile:
    """Mean and quantiles over the batch of norms against lag from the end of the pass.

    Args:
        norms: norms by time step, see `adjoint_norms`.
        lengths: true lengths; all are T if None.
        reverse: the layer runs backwards, so that its pass ends at the first step.

    A sequence whose adjoint is not finite shows: it makes the mean inf or NaN, and counts as inf in the quantiles.
    """
    # Both directions number lags from 0, so that what is reached is the same, and as many as there are valid steps.
    valid = valid_steps(lengths, *norms.shape)
    reached = jnp.ones(norms.shape, bool) if valid is None else valid
    values = norms if reverse else by_lag(norms, lengths)
    count = reached.sum(axis=0)
    total = jnp.where(reached, values, 0.0).sum(axis=0)
    mean = jnp.where(count > 0, total / jnp.maximum(count, 1).astype(norms.dtype), jnp.nan)
    ordered = jnp.where(reached, jnp.where(jnp.isnan(values), jnp.inf, values), jnp.nan)
    quantiles = jnp.nanquantile(ordered, jnp.asarray(QUANTILES, norms.dtype), axis=0, method="lower")
    return LagProfile(mean, quantiles)


def horizon(profile: Float[Array, " T"], fraction: float) -> Int[Array, ""]:
    """The gradient horizon: the first lag, in steps, at which a profile is at or below `fraction` of its maximum.

    It counts from lag 0; T where the profile stays above, so that T means "beyond the sequence".
    """
    below = profile <= fraction * jnp.nanmax(profile)
    after_peak = jnp.arange(profile.shape[0]) >= jnp.nanargmax(profile)
    hit = below & after_peak
    return jnp.where(hit.any(), jnp.argmax(hit), profile.shape[0])
