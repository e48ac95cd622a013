"""The instruments by name, each a function of one pass of a cell: a new instrument is one function here.

An instrument returns arrays by name, `(kind,)` or `(kind, gate)`; a run records them as `kind/<layer>/<gate>`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gru_jax.cells import Carry, Cell, Params
from gru_jax.flow.adjoint import LagProfile, adjoint_norms, lag_profile
from gru_jax.flow.gates import CANDIDATE, gate_histograms, gate_values, saturation, time_scales
from gru_jax.flow.jacobian import dense_jacobians, singular_values, spectral_radius
from gru_jax.flow.lyapunov import lyapunov_spectrum
from gru_jax.flow.parameters import parameter_profile
from gru_jax.flow.signal import state_profile
from gru_jax.flow.sources import source_profile
from gru_jax.flow.trajectory import Trajectory, to_vector
from gru_jax.unroll import unroll, valid_steps

Readings = dict[tuple[str, ...], Array]
"""What an instrument measured, by `(kind,)` or `(kind, gate)`."""


class SourceAdjoint(NamedTuple):
    """What the loss of one step of each sequence sent back.

    Attributes:
        adjoint: dL_t/ds, every part of the carry `[B, T, H]`.
        chosen: True at the step t of each sequence.
    """

    adjoint: Carry
    chosen: Bool[Array, "B T"]


class Pass(NamedTuple):
    """A pass of a cell over a batch, and what the loss sent back through it.

    Attributes:
        cell: the cell.
        params: its parameters.
        along: its trajectory.
        adjoint: dL/ds_t of each sequence's own loss, every part of the carry `[B, T, H]`.
        source: the adjoint of single steps' losses, where the loss reads many steps and these are followed; else None.
    """

    cell: Cell
    params: Params
    along: Trajectory
    adjoint: Carry
    source: SourceAdjoint | None = None

    @property
    def valid(self) -> Bool[Array, "B T"] | None:
        """False in the padding."""
        batch, time = self.along.xs.shape[:2]
        return valid_steps(self.along.lengths, batch, time, self.along.mask)

    def first(self, sequences: int) -> Pass:
        """The first few sequences alone."""
        along, adjoint = jax.tree.map(lambda a: a[:sequences], (self.along, self.adjoint))
        return self._replace(along=along, adjoint=adjoint)


class Options(NamedTuple):
    """What the costlier instruments look at.

    Attributes:
        sequences: how many of the batch are followed with Jacobians.
        exponents: Lyapunov exponents, largest first; at most as many as a state has numbers.
        interval: steps between QR decompositions.
        matrices: time steps at which Jacobians are formed, evenly over the sequence.
    """

    sequences: int = 4
    exponents: int = 10
    interval: int = 1
    matrices: int = 8

    def times(self, time: int) -> list[int]:
        """The time steps at which Jacobians are formed."""
        count = min(self.matrices, time)
        return [(2 * i + 1) * time // (2 * count) for i in range(count)]


def adjoint(batch_pass: Pass, options: Options) -> Readings:
    """The norm of the adjoint of the whole carry, ||dL/ds||, against the lag from the end of the pass or, where single
    steps' losses are followed, from the step whose loss it is.

    Mean `[T]` and quantiles `[3, T]` over the batch.
    """
    del options
    along, source = batch_pass.along, batch_pass.source
    adjoint, chosen = (batch_pass.adjoint, None) if source is None else source
    profile = adjoint_profile(adjoint, along.lengths, chosen, reverse=along.reverse)
    return {("adjoint",): profile.mean, ("adjoint_quantiles",): profile.quantiles}


def adjoint_profile(
    adjoint: Carry, lengths: Int[Array, " B"] | None, chosen: Bool[Array, "B T"] | None = None, *, reverse: bool = False
) -> LagProfile:
    """The profile of the norm of an adjoint over all parts of the carry: most of an LSTM's gradient is in its cell.

    Where it is of single steps' losses, `chosen` is True at each sequence's step.
    """
    norms = adjoint_norms(to_vector(adjoint))
    if chosen is None:
        return lag_profile(norms, lengths, reverse=reverse)
    return source_profile(norms, chosen, lengths, reverse=reverse)


def parameters(batch_pass: Pass, options: Options) -> Readings:
    """Each gate's share of its gradient's norm by time step, `[T]`; see `parameter_profile`."""
    del options
    profile = parameter_profile(batch_pass.cell, batch_pass.params, batch_pass.along, batch_pass.adjoint)
    readings: Readings = {("gradient_share", gate): share for gate, share in profile.shares.items()}
    return readings | {("gradient_norm", gate): norms.mean(axis=0) for gate, norms in profile.norms.items()}


def gates(batch_pass: Pass, options: Options) -> Readings:
    """Histograms of every gate `[50]`, fractions of saturated values `[2]`, and each unit's time scale `[H]`."""
    del options
    values = gate_values(batch_pass.cell, batch_pass.params, batch_pass.along)
    readings: Readings = {("gates", name): value for name, value in gate_histograms(values, batch_pass.valid).items()}
    bounded = {name: value for name, value in values.items() if name != CANDIDATE or _bounded(batch_pass.cell)}
    readings |= {("saturation", name): value for name, value in saturation(bounded, batch_pass.valid).items()}
    scales = time_scales(batch_pass.cell, values, batch_pass.valid)
    return readings if scales is None else readings | {("time_scales",): scales}


def states(batch_pass: Pass, options: Options) -> Readings:
    """Norm and variance of the states by time step, `[T]`."""
    del options
    along = batch_pass.along
    hs = unroll(
        batch_pass.cell, batch_pass.params, along.xs, along.carry0,
        lengths=along.lengths, mask=along.mask, resets=along.resets, reset_carry=along.reset_carry,
        reverse=along.reverse,
    ).hs  # fmt: skip
    profile = state_profile(hs.astype(batch_pass.cell.hidden(batch_pass.adjoint).dtype), batch_pass.valid)
    return {("state_norm",): profile.norm, ("state_variance",): profile.variance}


def jacobian(batch_pass: Pass, options: Options) -> Readings:
    """Singular values `[N, S]` and spectral radius `[N]` of J_t at N time steps, means over the sequences.

    NaN at a time step that none of the sequences reaches.
    """
    followed = batch_pass.first(options.sequences)
    times = jnp.asarray(options.times(batch_pass.along.xs.shape[1]), jnp.int32)
    matrices = dense_jacobians(followed.cell, followed.params, followed.along, at=times)
    counted = jnp.ones(matrices.shape[:2], bool) if followed.valid is None else followed.valid[:, times]
    return {
        ("singular_values",): _mean(singular_values(matrices), counted),
        ("spectral_radius",): _mean(spectral_radius(matrices), counted),
    }


def lyapunov(batch_pass: Pass, options: Options) -> Readings:
    """The largest Lyapunov exponents, mean and standard deviation over the sequences, `[k]`, nats per step.

    Sequences of no steps have none and do not count.
    """
    followed = batch_pass.first(options.sequences)
    k = min(options.exponents, to_vector(followed.adjoint).shape[-1])
    spectrum = lyapunov_spectrum(followed.cell, followed.params, followed.along, k=k, every=options.interval)
    counted = spectrum.steps.sum(axis=1) > 0
    mean = _mean(spectrum.exponents, counted)
    return {
        ("lyapunov",): mean,
        ("lyapunov_deviation",): jnp.sqrt(_mean(jnp.square(spectrum.exponents - mean[None]), counted)),
    }


def _mean(values: Float[Array, " B *N"], counted: Bool[Array, "..."]) -> Float[Array, " *N"]:
    """The mean over the sequences that are counted, a mask of the first axis or the first two; NaN of none."""
    mask = jnp.broadcast_to(jnp.expand_dims(counted, tuple(range(counted.ndim, values.ndim))), values.shape)
    count = mask.sum(axis=0).astype(values.dtype)
    return jnp.where(mask, values, 0.0).sum(axis=0) / jnp.where(count > 0, count, jnp.nan)


def _bounded(cell: Cell) -> bool:
    """Whether the candidate is a tanh."""
    return getattr(cell, "activation", "tanh") == "tanh"


INSTRUMENTS: dict[str, Callable[[Pass, Options], Readings]] = {
    "adjoint": adjoint,
    "parameters": parameters,
    "gates": gates,
    "states": states,
    "jacobian": jacobian,
    "lyapunov": lyapunov,
}
