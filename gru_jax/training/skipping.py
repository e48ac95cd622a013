"""Training steps that are not finite and are skipped, and how many may be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from gru_jax.config import LEARNING_RATE, TrainConfig

SKIPPED = "skipped"
"""The metric that is 1 of a step that was skipped; where metrics are means over steps, their number."""


class Skips(NamedTuple):
    """How many steps a training has skipped, and how many it may; whole numbers, or arrays of them for each member.

    Attributes:
        in_all: skipped so far.
        in_a_row: of these, those after the last step that was finite.
        most_in_all, most_in_a_row: how many may be.

    Examples:
        >>> import numpy as np
        >>> from gru_jax.training.skipping import Skips
        >>> skips = Skips(*map(np.int32, (2, 1, 3, 2))).after(np.bool_(False))
        >>> int(skips.in_all), bool(skips.are_allowed), bool(skips.after(np.bool_(False)).are_allowed)
        (3, True, False)
    """

    in_all: Any
    in_a_row: Any
    most_in_all: Any
    most_in_a_row: Any

    @property
    def are_allowed(self) -> Bool[Array, ""]:
        """Whether there are not more of them than there may be."""
        return (self.in_all <= self.most_in_all) & (self.in_a_row <= self.most_in_a_row)

    def after(self, finite: Any) -> Skips:
        """What they are after a step that was finite, or was not."""
        one = jnp.where(finite, 0, 1).astype(jnp.int32)
        return self._replace(in_all=self.in_all + one, in_a_row=jnp.where(finite, 0, self.in_a_row + one))


def skips_of(trainings: Sequence[TrainConfig], counts: Int[np.ndarray, "R 2"]) -> Skips:
    """Those of members, `[R]`, that have skipped so many steps, in all and in a row."""
    most = [train.skip_nonfinite for train in trainings]
    in_a_row = [train.skip_nonfinite_in_a_row or train.skip_nonfinite for train in trainings]
    skipped = counts.astype(np.int32)
    return Skips(skipped[:, 0], skipped[:, 1], np.array(most, np.int32), np.array(in_a_row, np.int32))


def metrics_with_skips(metrics: dict[str, Array], finite: Bool[Array, ""], rate: Array) -> dict[str, Array]:
    """The metrics of a step that is skipped if it is not finite, with the rate of an update that others came before."""
    return {**metrics, LEARNING_RATE: rate, SKIPPED: jnp.where(finite, 0.0, 1.0).astype(metrics["loss"].dtype)}


def readings_with_skips(live: dict[str, Array], finite: Bool[Array, ""]) -> dict[str, Array]:
    """What a step measured of itself, not known where it is skipped."""
    return jax.tree.map(lambda a: jnp.where(finite, a, jnp.nan), live)
