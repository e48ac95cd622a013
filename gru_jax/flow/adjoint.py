"""How the gradient of a loss travels back through time.

The adjoint of step t is dL/dh_t, through everything that follows t. It is the gradient of the loss with respect to
a zero perturbation of h_t, so that one backward pass gives all of them: see the argument `perturbation` of `unroll`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

QUANTILES = (0.1, 0.5, 0.9)


class LagProfile(NamedTuple):
    """Adjoint norms against the lag from the end of the sequence; NaN at lags that no sequence reaches.

    Attributes:
        mean: mean over the batch, `[T]`.
        quantiles: the `QUANTILES` over the batch, `[3, T]`.
    """

    mean: Float[Array, " T"]
    quantiles: Float[Array, "Q T"]


def adjoint_norms(adjoint: Float[Array, "B T H"]) -> Float[Array, "B T"]:
    """Euclidean norm of dL/dh_t over the hidden units, safe from overflow and underflow of the squares."""
    largest = jnp.abs(adjoint).max(axis=-1, initial=0.0)
    scale = jnp.where(largest > 0, largest, 1.0)
    return largest * jnp.sqrt(jnp.square(adjoint / scale[..., None]).sum(axis=-1))


def by_lag(values: Float[Array, "B T"], lengths: Int[Array, " B"] | None = None) -> Float[Array, "B T"]:
    """Values against lag rather than time: lag 0 is each sequence's last valid step; NaN before its first step."""
    time = values.shape[1]
    if lengths is None:
        return values[:, ::-1]
    step = lengths.astype(jnp.int32)[:, None] - 1 - jnp.arange(time, dtype=jnp.int32)[None, :]
    taken = jnp.take_along_axis(values, jnp.maximum(step, 0), axis=1) if time else values
    return jnp.where(step >= 0, taken, jnp.nan)


def lag_profile(norms: Float[Array, "B T"], quantiles: Sequence[float] = QUANTILES) -> LagProfile:
    """Mean and quantiles over the batch of norms that stand by lag."""
    levels = jnp.asarray(quantiles, norms.dtype)
    return LagProfile(jnp.nanmean(norms, axis=0), jnp.nanquantile(norms, levels, axis=0))


def horizon(profile: Float[Array, " T"], fraction: float) -> Int[Array, ""]:
    """The gradient horizon: the first lag, in steps, at which a profile is at or below `fraction` of its maximum.

    It counts from lag 0; T where the profile stays above, so that T means "beyond the sequence".
    """
    below = profile <= fraction * jnp.nanmax(profile)
    after_peak = jnp.arange(profile.shape[0]) >= jnp.nanargmax(profile)
    hit = below & after_peak
    return jnp.where(hit.any(), jnp.argmax(hit), profile.shape[0])
