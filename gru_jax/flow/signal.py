"""How large states, gradients and updates are, and how much of a gradient is noise."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from gru_jax.dtypes import carry_dtype
from gru_jax.norms import euclidean_norm, power_of_two
from gru_jax.unroll.masking import where


class StateProfile(NamedTuple):
    """How large the states are at each step; NaN where no sequence has a valid step.

    Attributes:
        norm: ||h_t||, mean over the batch, `[T]`.
        variance: of h_t over batch and units, `[T]`.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from gru_jax import flow
        >>> flow.state_profile(jnp.full((4, 5, 9), 2.0)).norm.tolist()
        [6.0, 6.0, 6.0, 6.0, 6.0]
    """

    norm: Float[Array, " T"]
    variance: Float[Array, " T"]


def state_profile(hs: Float[Array, "B T H"], valid: Bool[Array, "B T"] | None = None) -> StateProfile:
    """Measure the norm and variance of the states at each step. Cost: three readings of the states.

    Glorot and Bengio 2010, AISTATS, section 4, over time instead of layers.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from gru_jax import flow
        >>> flow.state_profile(jnp.full((4, 5, 9), 2.0)).variance.tolist()
        [0.0, 0.0, 0.0, 0.0, 0.0]
    """
    valid = jnp.ones(hs.shape[:2], bool) if valid is None else valid
    hs = hs.astype(carry_dtype(hs.dtype))
    hs = where(valid, hs, jnp.zeros_like(hs))
    count = valid.sum(axis=0).astype(hs.dtype)
    safe = jnp.where(count > 0, count, jnp.nan)
    scale = power_of_two(jnp.abs(hs).max(axis=(0, 2), initial=0.0))
    scaled = hs / scale[None, :, None]
    mean = scaled.sum(axis=(0, 2)) / (safe * hs.shape[-1])
    spread = where(valid, jnp.square(scaled - mean[None, :, None]), jnp.zeros_like(hs))
    variance = scale * (scale * (spread.sum(axis=(0, 2)) / (safe * hs.shape[-1])))
    return StateProfile(euclidean_norm(hs).sum(axis=0) / safe, variance)


def signal_to_noise(gradients: PyTree) -> PyTree:
    """Estimate the signal-to-noise ratio of each parameter's gradient, from the gradients of single examples.

    ||G|| / sqrt(tr Sigma) from gradients `[B, ...]`, B at least 2: G is their expectation and Sigma their covariance,
    both estimated without bias: with the sample's mean g and its variance s^2 = sum ||g_i - g||^2 / (B - 1), ||G||^2 is
    ||g||^2 - s^2 / B. 0 where nothing but noise is seen. The gradient of a batch of B examples is off by 1 / (ratio
    sqrt(B)) of its length: below 1 / sqrt(B) it says little. McCandlish et al. 2018, arXiv:1812.06162, appendix A; the
    simple noise scale is the inverse square. Cost: three readings of the gradients; to have them apart takes a backward
    pass of every example.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from gru_jax import flow
        >>> ratio = flow.signal_to_noise({"w": jnp.array([[1.0], [-1.0], [1.0], [-1.0]])})
        >>> float(ratio["w"])  # nothing but noise
        0.0
    """

    def ratio(g: Array) -> Array:
        size, g = g.shape[0], g.astype(carry_dtype(g.dtype))
        g = g / power_of_two(jnp.abs(g).max(initial=0.0))
        mean = g.mean(axis=0, keepdims=True)
        noise = jnp.square(g - mean).sum() / max(size - 1, 1)
        signal = jnp.maximum(jnp.square(mean).sum() - noise / size, 0.0)
        return jnp.sqrt(signal / jnp.where((noise > 0) & (size > 1), noise, jnp.nan))

    return jax.tree.map(ratio, gradients)


def update_ratios(before: PyTree, after: PyTree) -> PyTree:
    """Divide the norm of each parameter's change by the norm of its value before.

    inf where the value was zero, NaN where nothing changed from zero. About 1e-3 is the usual rule of thumb for a
    healthy learning rate; You et al. 2017, arXiv:1708.03888, hold the inverse fixed. Cost: three readings of the
    parameters.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from gru_jax import flow
        >>> ratios = flow.update_ratios({"w": jnp.array([3.0, 4.0])}, {"w": jnp.array([3.0, 5.0])})
        >>> round(float(ratios["w"]), 3)
        0.2
    """

    def ratio(old: Array, new: Array) -> Array:
        old, new = (a.ravel().astype(carry_dtype(a.dtype)) for a in (old, new))
        return euclidean_norm(new - old) / euclidean_norm(old)

    return jax.tree.map(ratio, before, after)
