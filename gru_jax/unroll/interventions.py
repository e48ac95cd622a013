"""What may be done to the gradient on its way back through time. The forward pass never changes."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from gru_jax.cells import Carry, Cell
from gru_jax.cells.base import carry_from_leaves, carry_leaves
from gru_jax.norms import power_of_two


class Intervention(NamedTuple):
    """Changes of the backward recursion; with any of them gradients are no longer those of the loss.

    Forward-mode differentiation is not available under clipping, which is not the derivative of anything.

    Attributes:
        clip: greatest norm of what a step sends back to the state before it, J_t^T dL/ds_t, for each sequence: what is
            longer is scaled down, so that one steep place cannot blow up all that lies before it. What the loss itself
            sends to a state comes on top. A number, or one for each sequence, `[B]`; None for no clipping. At single
            steps of backpropagation as Graves 2013, arXiv:1308.0850, p. 11; by the norm as Pascanu et al. 2013,
            arXiv:1211.5063, section 3.2.
        detach: `[B, T]`, True where no gradient passes from step t to the hidden state before it. An LSTM's cell state
            stays connected: h-detach, Kanuparthi et al. 2019, arXiv:1810.03023, draws the mask at random.
        truncate: K: no gradient passes to the carry before the steps K, 2 K, ..., in the order of processing, while
            the carry goes on: truncated backpropagation through time, Williams and Peng 1990, Neural Computation 2(4).
            None for no truncation.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import gru_jax
        >>> cell = gru_jax.cells.GRU()
        >>> params = cell.init(jax.random.key(0), 2, 3)
        >>> xs = jax.random.normal(jax.random.key(1), (4, 5, 2))
        >>> clipped = gru_jax.Intervention(clip=1.0)
        >>> gru_jax.unroll(cell, params, xs, intervention=clipped).hs.shape
        (4, 5, 3)
    """

    clip: float | Float[Array, " *B"] | None = None
    detach: Bool[Array, "B T"] | None = None
    truncate: int | None = None

    @property
    def idle(self) -> bool:
        """Whether it changes nothing."""
        return self.clip is None and self.detach is None and self.truncate is None


NONE = Intervention()


class Stops(NamedTuple):
    """Where gradients stop, time-major.

    Attributes:
        hidden: at the hidden state before a step.
        carry: at every part of the carry before a step.
    """

    hidden: Bool[Array, "T B"] | None
    carry: Bool[Array, " T *B"] | None


def find_stops(intervention: Intervention, time: int, valid: Bool[Array, "T B"] | None, reverse: bool) -> Stops:
    """The steps before which gradients stop; truncation counts no steps in the padding."""
    hidden = None if intervention.detach is None else intervention.detach.swapaxes(0, 1)
    if intervention.truncate is None:
        return Stops(hidden, None)
    counted = jnp.ones(time, jnp.int32) if valid is None else valid.astype(jnp.int32)
    number = jax.lax.cumsum(counted, axis=0, reverse=reverse) - 1
    return Stops(hidden, (number % intervention.truncate == 0) & (number > 0))


def intervene(cell: Cell, before: Carry, stops: Stops, clip: float | Float[Array, " *B"] | None) -> Carry:
    """The carry itself, whose gradient is stopped or clipped on its way back."""
    if stops.carry is not None:
        stop = stops.carry[..., None]
        before = jax.tree.map(lambda a: jnp.where(stop, jax.lax.stop_gradient(a), a), before)
    if stops.hidden is not None:
        h = cell.hidden(before)
        before = cell.with_hidden(before, jnp.where(stops.hidden[..., None], jax.lax.stop_gradient(h), h))
    if clip is None:
        return before
    greatest_norm = jnp.asarray(clip, cell.hidden(before).dtype)
    return carry_from_leaves(cell, _clip_on_the_way_back(greatest_norm, carry_leaves(before)))


@jax.custom_vjp
def _clip_on_the_way_back(greatest_norm: ArrayLike, leaves: tuple[Array, ...]) -> tuple[Array, ...]:
    del greatest_norm
    return leaves


def _clip_cotangents(greatest_norm: ArrayLike, cts: tuple[Float[Array, "B H"], ...]) -> tuple[Array, tuple[Array, ...]]:
    largest = functools.reduce(jnp.maximum, [jnp.abs(ct).max(axis=-1) for ct in cts])
    scale = power_of_two(largest)  # the norm itself may lie beyond the range
    near_one = [ct * (1.0 / scale)[..., None] for ct in cts]
    norm = jnp.sqrt(sum(jnp.square(ct).sum(axis=-1) for ct in near_one))
    clips = (norm > greatest_norm / scale)[..., None]
    factor = (greatest_norm / jnp.where(norm > 0, norm, 1.0))[..., None]
    clipped = [jnp.where(clips, part * factor, ct) for part, ct in zip(near_one, cts, strict=True)]
    return jnp.zeros_like(greatest_norm), tuple(clipped)


_clip_on_the_way_back.defvjp(lambda greatest_norm, leaves: (leaves, greatest_norm), _clip_cotangents)
