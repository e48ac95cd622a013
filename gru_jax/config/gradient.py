"""The section `gradient` of a config: what is done to gradients on their way back through time."""

from __future__ import annotations

import dataclasses

from gru_jax.flow.regularizers import Slopes
from gru_jax.settings import setting


@dataclasses.dataclass(frozen=True)
class GradientConfig:
    """What is done to gradients on their way back through time, and penalties on how they flow.

    Attributes:
        adjoint_clip: greatest norm of what a step sends back to the state before it, for each sequence's own loss, in
            every layer; see `gru_jax.Intervention`. None for no clipping.
        truncate: steps after which gradients stop there; None for never.
        detach: probability with which each step's gradient to the hidden state before it is stopped.
        omega: factor of Pascanu's regulariser; see `gru_jax.flow.vanishing_penalty`.
        omega_slopes: whether the slopes in the Jacobians are constant to its gradient, as in the paper, or
            differentiated.
        floss: Lyapunov exponents that gradient flossing drives to zero, by the sum of their squares; see
            `gru_jax.flow.flossing_penalty`.
        floss_before: steps of Adam on that penalty before the training, on Gaussian inputs.
        floss_every: steps of the training between those that add the penalty's gradient; None for no flossing while it
            lasts.
        floss_weight: factor of the penalty during the training.
        floss_lr: learning rate of flossing before the training.
        floss_time: steps of the sequences that flossing follows.
        floss_sequences: how many sequences flossing follows.
        floss_transient: of these steps, how many at the beginning the exponents leave out.

    Examples:
        >>> from gru_jax.config import load
        >>> config = load({"train": {"steps": 10}, "gradient": {"adjoint_clip": 1.0}})
        >>> config.gradient.intervenes
        True
    """

    adjoint_clip: float | None = setting(None, low=1e-30)
    truncate: int | None = setting(None, low=1, high=10**9)
    detach: float = setting(0.0, low=0.0, high=1.0)
    omega: float = setting(0.0, low=0.0)
    omega_slopes: Slopes = "constant"
    floss: int = setting(0, low=0, high=10**5)
    floss_before: int = setting(0, low=0, high=10**6)
    floss_every: int | None = setting(None, low=1, high=10**9)
    floss_weight: float = setting(1.0, low=0.0)
    floss_lr: float = setting(1e-3, low=0.0)
    floss_time: int = setting(100, low=2, high=10**6)
    floss_sequences: int = setting(4, low=1, high=10**5)
    floss_transient: int = setting(0, low=0, high=10**6)

    @property
    def intervenes(self) -> bool:
        """Whether anything is done in the backward recursion itself."""
        return self.adjoint_clip is not None or self.truncate is not None or self.detach > 0
