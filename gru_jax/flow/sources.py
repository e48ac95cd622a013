"""Where a gradient begins: the steps whose losses are followed back, one of each sequence.

Where a loss reads every state, dL/dh_t sums up what came from all later steps' losses: against the lag from the end it
says how many losses lie behind a step, and nothing about how far each of them reaches. The gradient dL_t/ds_{t-k} of
the loss of one step t does. Sequences do not mix, so that one backward pass follows one step of each.
"""

from __future__ import annotations

import functools
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gru_jax.dtypes import carry_dtype
from gru_jax.flow.adjoint import QUANTILES, LagProfile
from gru_jax.unroll import valid_steps

GradientSource = Literal["last", "sampled", "total"]
"""Whose gradient is followed: of the last step's loss, of single steps' losses, or of all of them together."""
GRADIENT_SOURCES = get_args(GradientSource)
LAST, SAMPLED, TOTAL = GRADIENT_SOURCES


def choose_steps(reads: Bool[Array, "B T"], source: str, *, reverse: bool = False) -> Bool[Array, "B T"]:
    """Mark one step of each sequence among those that a loss reads; none where it reads none.

    Args:
        reads: the steps that the loss reads.
        source: `"last"`, or `"sampled"`: evenly spaced over the batch, up to the last one of its last sequence.
        reverse: the pass goes against time, so that its last step is the first.

    Examples:
        >>> import jax.numpy as jnp
        >>> from gru_jax.flow.sources import choose_steps
        >>> choose_steps(jnp.ones((2, 4), bool), "sampled").astype(int).tolist()
        [[0, 1, 0, 0], [0, 0, 0, 1]]
    """
    batch, count = reads.shape[0], reads.sum(axis=1, dtype=jnp.int32)
    rank = count if source == LAST else (jnp.arange(1, batch + 1, dtype=jnp.int32) * count + batch - 1) // batch
    number = jnp.cumsum(reads, axis=1, dtype=jnp.int32)  # from 1
    return reads & (number == (count + 1 - rank if reverse else rank)[:, None])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def from_single_steps(
    source: str, reverse: bool, hs: Float[Array, "B T H"], marks: Float[Array, "B T"]
) -> Float[Array, "B T H"]:
    """Give back states as they are; on its way back, let the gradient through at one step of each sequence alone.

    That is one of the steps at which there is a gradient; see `choose_steps`.

    Args:
        source, reverse: as of `choose_steps`.
        hs: states as the loss reads them.
        marks: zeros, whose gradient is 1 at the step that was chosen and 0 elsewhere.

    Cost: a reading of the states and of their gradient.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from gru_jax import flow
        >>> loss = lambda hs, marks: flow.from_single_steps("last", False, hs, marks)[:, :2].sum()
        >>> sent, chosen = jax.grad(loss, (0, 1))(jnp.ones((1, 3, 2)), jnp.zeros((1, 3)))
        >>> sent.tolist(), chosen.tolist()
        ([[[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]]], [[0.0, 1.0, 0.0]])
    """
    del source, reverse, marks
    return hs


def _forward(source: str, reverse: bool, hs: Array, marks: Array) -> tuple[Array, Array]:
    return from_single_steps(source, reverse, hs, marks), marks


def _backward(source: str, reverse: bool, marks: Array, sent: Float[Array, "B T H"]) -> tuple[Array, Array]:
    chosen = choose_steps((sent != 0).any(axis=-1), source, reverse=reverse)
    return jnp.where(chosen[..., None], sent, jnp.zeros_like(sent)), chosen.astype(marks.dtype)


from_single_steps.defvjp(_forward, _backward)


def source_profile(
    norms: Float[Array, "B T"],
    chosen: Bool[Array, "B T"],
    lengths: Int[Array, " B"] | None = None,
    *,
    reverse: bool = False,
) -> LagProfile:
    """Take the mean and quantiles over the batch of norms against the lag from each sequence's own step.

    From one lag to the next the mean changes as it does among the sequences that reach both: one whose step is near the
    beginning of the sequence ends there, and does not bend the mean by leaving it. NaN at lags that none reaches.

    Args:
        norms: ||dL_t/ds_{t-k}|| by time step, see `adjoint_norms`.
        chosen: True at the step t of each sequence; a sequence without one does not count.
        lengths: true lengths; all are T if None.
        reverse: the layer runs backwards, so that earlier in its pass is later in time.

    A sequence whose adjoint is not finite shows: it counts as inf, in the mean and in the quantiles.
    Cost: a sort of `B` numbers for each lag.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from gru_jax import flow
        >>> norms = jnp.array([[8.0, 0.0, 0.0], [1.0, 2.0, 4.0]])
        >>> chosen = jnp.array([[True, False, False], [False, False, True]])
        >>> flow.source_profile(norms, chosen).mean.tolist()  # halves with each step
        [6.0, 3.0, 1.5]
    """
    norms = norms.astype(carry_dtype(norms.dtype))
    batch, time = norms.shape
    valid = valid_steps(lengths, batch, time)
    valid = jnp.ones(norms.shape, bool) if valid is None else valid
    if reverse:
        norms, chosen, valid = (a[:, ::-1] for a in (norms, chosen, valid))
    start, lag = jnp.argmax(chosen, axis=1), jnp.arange(time)
    step = start[:, None] - lag[None, :]
    at = jnp.maximum(step, 0)
    reached = (step >= 0) & jnp.take_along_axis(valid, at, axis=1) & chosen.any(axis=1)[:, None]
    values = jnp.take_along_axis(norms, at, axis=1)
    values = jnp.where(reached, jnp.where(jnp.isnan(values), jnp.inf, values), jnp.nan)
    quantiles = jnp.nanquantile(values, jnp.asarray(QUANTILES, norms.dtype), axis=0, method="lower")
    return LagProfile(_chained_mean(values, reached), quantiles)


def _chained_mean(values: Float[Array, "B T"], reached: Bool[Array, "B T"]) -> Float[Array, " T"]:
    """The mean at lag 0, times the growth from each lag to the next among the sequences that reach both."""
    known, count = jnp.where(reached, values, 0.0), reached.sum(axis=0)
    # Logarithms: what a thousand steps leave of a gradient may lie below all that floats hold.
    total = jnp.log(known.sum(axis=0))
    plain = total - jnp.log(jnp.maximum(count, 1).astype(values.dtype))
    before = jnp.log(jnp.where(reached[:, 1:], known[:, :-1], 0.0).sum(axis=0))
    # Nothing can be said of the growth from or to zero or infinity: there the mean begins anew.
    growth = jnp.concatenate([jnp.zeros_like(plain[:1]), total[1:] - before])
    linked = jnp.concatenate([jnp.zeros(1, bool), jnp.isfinite(before)]) & jnp.isfinite(growth)
    grown = jax.lax.cumsum(jnp.where(linked, growth, 0.0))
    lag = jnp.arange(values.shape[1])
    begun = jax.lax.cummax(jnp.where(linked, 0, lag))
    mean = jnp.exp(jnp.where(linked, plain[begun] + grown - grown[begun], plain))
    return jnp.where(count > 0, mean, jnp.nan)
