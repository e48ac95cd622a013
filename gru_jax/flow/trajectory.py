"""What the instruments share: a pass through time, and the state of a cell as one vector.

The state vector s is the carry's parts side by side, S numbers: H for most cells, h and c (2 H) for the LSTM.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gru_jax.cells import Carry, Cell, Gates, Params
from gru_jax.cells.base import carry_from_leaves, carry_leaves
from gru_jax.dtypes import in_machine_order
from gru_jax.errors import UsageError
from gru_jax.unroll import start_carry, valid_steps
from gru_jax.unroll.arguments import check_inputs, checked_mask, reset_state
from gru_jax.unroll.masking import StepInputs, advance, entering, steps_of
from gru_jax.unroll.reference import scan_steps
from gru_jax.unroll.sharding import vary_alike


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """A pass of a cell through time, by what determines it: the arguments of `gru_jax.unroll` of the same names.

    A pytree, but for its direction. Where a trajectory is asked for, the inputs alone will do.

    Attributes:
        xs: inputs, `[B, T, D]`.
        carry0: the carry before the first step; zeros if None.
        lengths: true length of each sequence; T if None.
        mask: True at the steps that count, `[B, T]`; all of them if None.
        resets: True where the carry is set anew before a step, `[B, T]`; nowhere if None.
        reset_carry: the carry that a reset sets; zeros if None.
        reverse: whether it begins at the last step.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import gru_jax
        >>> cell = gru_jax.cells.GRU()
        >>> params = cell.init(jax.random.key(0), 2, 3)
        >>> xs = jax.random.normal(jax.random.key(1), (4, 5, 2))
        >>> from gru_jax import flow
        >>> along = flow.Trajectory(xs, lengths=jnp.array([5, 3, 1, 2]))
        >>> flow.gate_values(cell, params, along)["z"].shape
        (4, 5, 3)
    """

    xs: Float[Array, "B T D"]
    carry0: Carry | None = None
    lengths: Int[Array, " B"] | None = None
    mask: Bool[Array, "B T"] | None = None
    resets: Bool[Array, "B T"] | None = None
    reset_carry: Carry | None = None
    reverse: bool = False


jax.tree_util.register_dataclass(
    Trajectory,
    data_fields=["xs", "carry0", "lengths", "mask", "resets", "reset_carry"],
    meta_fields=["reverse"],
)

TrajectoryLike = Trajectory | Float[Array, "B T D"]
"""A trajectory, or its inputs alone."""


class PreparedTrajectory(NamedTuple):
    """A trajectory whose arguments are checked, with time as the first axis.

    Attributes:
        steps: what is read at each step, time-major.
        carry0: the carry before the first.
        reset_carry: the carry that a reset sets; zeros if None.
        reverse: whether it begins at the last step.
    """

    steps: StepInputs
    carry0: Carry
    reset_carry: Carry | None
    reverse: bool


def prepare_trajectory(cell: Cell, params: Params, along: TrajectoryLike) -> PreparedTrajectory:
    """Check a trajectory and make it ready for a scan over time.

    Raises:
        UsageError: something in it with the wrong rank, size or type.
    """
    if not isinstance(along, Trajectory):
        along = Trajectory(along)
    xs = jnp.asarray(in_machine_order(along.xs))
    check_inputs(cell, params, xs)
    batch, time = xs.shape[:2]
    valid = valid_steps(along.lengths, batch, time, along.mask)
    resets = checked_mask("resets", along.resets, batch, time)
    steps = steps_of(xs, valid, resets)
    carry0 = start_carry(cell, params, along.carry0, xs)
    fresh = reset_state(cell, params, along.reset_carry, resets, xs)
    carry0, fresh = vary_alike((carry0, fresh), params, steps)
    return PreparedTrajectory(steps, carry0, fresh, along.reverse)


def carries_before(cell: Cell, params: Params, trajectory: PreparedTrajectory) -> Carry:
    """The carry before every step, resets not yet made, each part `[T, B, H]`; in the padding it stands still."""
    steps, carry0, reset_carry, reverse = trajectory

    def observe(carry: Carry, gates: Gates, valid: Bool[Array, " B"] | None) -> Carry:
        del gates, valid
        return carry

    _, after = scan_steps(cell, params, steps, carry0, observe, reset_carry=reset_carry, reverse=reverse)

    def shift(after: Array, first: Array) -> Array:
        if reverse:
            return jnp.concatenate([after, first[None]])[1:]
        return jnp.concatenate([first[None], after])[:-1]

    return jax.tree.map(shift, after, carry0)


def carries_entering(cell: Cell, params: Params, trajectory: PreparedTrajectory) -> Carry:
    """The carry that every step starts from, resets made, each part `[T, B, H]`."""
    before = carries_before(cell, params, trajectory)
    return entering(cell, before, trajectory.steps.resets, trajectory.reset_carry)


def transition(
    cell: Cell, params: Params, step: StepInputs, reset_carry: Carry | None = None
) -> Callable[[Carry], Carry]:
    """Make one step a function of the carry before it; the identity where the step does not count."""

    def equations(before: Carry) -> tuple[Carry, Gates]:
        return cell.step_with_gates(params, before, step.xs)

    return lambda carry: advance(cell, step, carry, equations, reset_carry)[0]


def linearise_step(
    cell: Cell, params: Params, step: StepInputs, carry: Carry, reset_carry: Carry | None = None
) -> tuple[Carry, Callable[[Array], Array]]:
    """The carry after a step, and its Jacobian as a map of vectors `[K, B, S] -> [K, B, S]`."""
    after, push = jax.linearize(transition(cell, params, step, reset_carry), carry)
    return after, lambda vectors: to_vector(jax.vmap(push)(to_carry(cell, vectors)))


def to_vector(carry: Carry) -> Float[Array, "*B S"]:
    """Put the parts of a carry side by side, as one state vector.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from gru_jax import flow
        >>> flow.to_vector((jnp.ones((4, 3)), jnp.ones((4, 3)))).shape
        (4, 6)
    """
    leaves = carry_leaves(carry)
    return leaves[0] if len(leaves) == 1 else jnp.concatenate(leaves, axis=-1)


def to_carry(cell: Cell, vector: Float[Array, "*B S"]) -> Carry:
    """Take a state vector apart into the parts of a carry, the inverse of `to_vector`.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import gru_jax
        >>> from gru_jax import flow
        >>> h, c = flow.to_carry(gru_jax.cells.LSTM(), jnp.ones((4, 6)))
        >>> h.shape, c.shape
        ((4, 3), (4, 3))
    """
    return carry_from_leaves(cell, jnp.split(vector, cell.carry_parts, axis=-1))


def vectors_per_sequence(vectors: Float[Array, "..."], carry: Carry) -> Float[Array, "K B S"]:
    """Lay out vectors `[K, S]`, the same for all sequences, or `[B, K, S]`, as `[K, B, S]` in the carry's type.

    Raises:
        UsageError: another shape.
    """
    state = to_vector(carry)
    batch, size = state.shape
    vectors = jnp.asarray(vectors, state.dtype)
    if vectors.ndim == 2 and vectors.shape[1] == size:
        return vary_alike(jnp.broadcast_to(vectors[:, None], (vectors.shape[0], batch, size)), state)
    if vectors.ndim == 3 and vectors.shape[::2] == (batch, size):
        return vary_alike(vectors.swapaxes(0, 1), state)
    raise UsageError(f"vectors has shape {vectors.shape}: allowed are [K, {size}] and [{batch}, K, {size}]")
