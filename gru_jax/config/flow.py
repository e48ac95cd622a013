"""The section `flow` of a config: what the gradient-flow instruments record."""

from __future__ import annotations

import dataclasses
from typing import Literal

from gru_jax.flow.instruments import INSTRUMENTS, Options
from gru_jax.flow.sources import GradientSource
from gru_jax.settings import setting
from gru_jax.user_code import Name

NOISE = "noise"
FLOW_INSTRUMENTS = (*INSTRUMENTS, NOISE)


@dataclasses.dataclass(frozen=True)
class FlowConfig:
    """What the gradient-flow instruments record.

    Attributes:
        every: steps between recordings, 0 for none; None for one at the start, the middle and the end.
        instruments: which instruments are recorded, see `gru_jax.flow.instruments`; noise is the gradient's
            signal-to-noise ratio.
        source: whose gradient the adjoint profile follows: that of the whole loss (total), of single steps' losses, one
            of each sequence, evenly spaced (sampled), or of the last step's loss (last). Of a loss that reads many
            steps, the total says how many losses lie behind a step, not how far each reaches. auto is sampled where the
            loss reads many steps, else total.
        batch_size: held-out validation sequences that the instruments see.
        sequences: of these, how many are followed with Jacobians, by the instruments jacobian and lyapunov.
        exponents: Lyapunov exponents, largest first; at most as many as a state has numbers.
        interval: steps between the QR decompositions that Lyapunov exponents are made of.
        matrices: time steps at which Jacobians are formed, evenly over the sequence.
        live: training steps between recordings of the adjoint profile on the step's own batch, and of the size of
            updates; 0 for none. With source total the profile comes out of the step's own backward pass, else out of
            one more, of two sequences of the batch, without dropout.

    Examples:
        >>> from gru_jax.config import load
        >>> config = load({"train": {"steps": 10}, "flow": {"every": 5, "instruments": ("adjoint", "lyapunov")}})
        >>> config.flow.every, config.flow.instruments
        (5, ('adjoint', 'lyapunov'))
    """

    every: int | None = setting(None, low=0, high=10**9)
    instruments: tuple[Name, ...] = setting(("adjoint", "gates"), choices=FLOW_INSTRUMENTS, is_open=True, filled=2)
    source: Literal["auto", GradientSource] = "auto"
    batch_size: int = setting(32, low=1, high=10**5)
    sequences: int = setting(Options().sequences, low=1, high=10**5)
    exponents: int = setting(Options().exponents, low=1, high=10**5)
    interval: int = setting(Options().interval, low=1, high=10**6)
    matrices: int = setting(Options().matrices, low=1, high=10**6)
    live: int = setting(0, low=0, high=10**9)
