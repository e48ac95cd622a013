"""What a linear map can read off states: ridge regression in closed form, over time, beside a control."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from gru_jax.dtypes import in_single_precision
from gru_jax.errors import UsageError
from gru_jax.norms import rounding_of

ORDERS = 8  # of the control
FEWEST_SEQUENCES = 4
"""Two to fit a probe to, and two to test it on."""


class LinearProbe(NamedTuple):
    """A linear map from states to what is read off them.

    Attributes:
        weights: `[H, K]`.
        bias: `[K]`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from gru_jax import inspect
        >>> states = jnp.array([[0.0], [1.0], [2.0]])
        >>> probe = inspect.fit_probe(states, 3.0 * states + 1.0, ridge=0.0)
        >>> [round(value, 3) for value in probe.read(states).ravel().tolist()]
        [1.0, 4.0, 7.0]
    """

    weights: Float[Array, "H K"]
    bias: Float[Array, " K"]

    def read(self, states: Float[Array, "*N H"]) -> Float[Array, "*N K"]:
        """What the probe reads off states."""
        values = states @ self.weights
        return values + self.bias.reshape((1,) * (values.ndim - 1) + self.bias.shape)


class ProbeProfile(NamedTuple):
    """How well variables can be read off states at every step, on sequences that the probe was not fitted to.

    Attributes:
        scores: R^2, the part of each variable's variance that is read, `[T, K]`: 1 for all, 0 for none, below 0 where
            the mean would be better. NaN where it does not vary.
        control: the same of probes that were fitted to the variables of other sequences, `[T, K]`.

    Examples:
        >>> import jax
        >>> from gru_jax import inspect
        >>> states = jax.random.normal(jax.random.key(0), (400, 5, 3))
        >>> profile = inspect.probe_over_time(states, states[..., :1] + states[..., 1:2])
        >>> profile.scores.round(2).ravel().tolist(), bool((profile.control < 0.2).all())
        ([1.0, 1.0, 1.0, 1.0, 1.0], True)
    """

    scores: Float[Array, "T K"]
    control: Float[Array, "T K"]


class UnitScores(NamedTuple):
    """How well variables can be read off single units, and off all of them, on sequences that nothing was fitted to.

    In the control each sequence has the variables of another one: what the step alone tells, and luck.

    Attributes:
        scores: R^2 of each unit by itself, `[H, K]`.
        control: the greatest of any unit in the control, `[K]`.
        together: R^2 of a linear probe of all units, `[K]`.
        control_together: the same in the control, `[K]`.

    Examples:
        >>> import jax
        >>> from gru_jax import inspect
        >>> states = jax.random.normal(jax.random.key(0), (40, 5, 3))
        >>> inspect.probe_units(states, 2.0 * states[..., 1:2]).scores.argmax(axis=0).tolist()
        [1]
    """

    scores: Float[Array, "H K"]
    control: Float[Array, " K"]
    together: Float[Array, " K"]
    control_together: Float[Array, " K"]


def fit_probe(
    states: Float[Array, "N H"],
    targets: Float[Array, "N K"],
    *,
    ridge: float = 1e-3,
    counts: Bool[Array, " N"] | None = None,
) -> LinearProbe:
    """Fit a linear map from states to targets by ridge regression, in closed form.

    (X^T X + lambda I)^-1 X^T Y of centred X and Y, with lambda the ridge times the mean of the eigenvalues of X^T X, so
    that it does not hang on the scale of the states or on how many there are. Alain and Bengio 2016, arXiv:1610.01644.

    Args:
        states: of which is read.
        targets: what is read.
        ridge: how strongly weights are kept small; 0 for least squares.
        counts: the rows that count; all of them if None.

    Cost: the solution of H linear equations.

    Raises:
        UsageError: not as many targets as states.

    Examples:
        >>> import jax
        >>> from gru_jax import inspect
        >>> states = jax.random.normal(jax.random.key(0), (50, 3))
        >>> weights = inspect.fit_probe(states, states[:, :1] - 2.0 * states[:, 1:2]).weights
        >>> [round(weight, 1) + 0.0 for weight in weights.ravel().tolist()]
        [1.0, -2.0, 0.0]
    """
    if targets.ndim != 2 or len(targets) != len(states):
        raise UsageError(f"targets have shape {list(targets.shape)}: needed is [{len(states)}, K]")
    states = in_single_precision(states)
    weight = (jnp.ones(len(states), bool) if counts is None else counts).astype(states.dtype)
    (x, x_mean), (y, y_mean) = (_centred(a, weight) for a in (states, targets.astype(states.dtype)))
    gram = x.T @ x
    penalty = ridge * jnp.trace(gram) / gram.shape[0]
    trace = jnp.trace(gram)
    tiny = jnp.finfo(gram.dtype).eps * jnp.where(trace > 0, trace, 1.0)  # for units that never move
    eye = jnp.eye(gram.shape[0], dtype=gram.dtype)
    weights = jax.scipy.linalg.solve(gram + (penalty + tiny) * eye, x.T @ y, assume_a="pos")
    return LinearProbe(weights, y_mean - x_mean @ weights)


def r_squared(
    read: Float[Array, "N K"], targets: Float[Array, "N K"], counts: Bool[Array, " N"] | None = None
) -> Float[Array, " K"]:
    """The part of each target's variance that is read, 1 - sum (y - read)^2 / sum (y - mean y)^2; NaN where it is 0.

    Cost: two sums.

    Examples:
        >>> import jax.numpy as jnp
        >>> from gru_jax import inspect
        >>> y = jnp.array([[0.0], [1.0], [2.0]])
        >>> inspect.r_squared(y, y).tolist(), inspect.r_squared(jnp.ones((3, 1)), y).tolist()
        ([1.0], [0.0])
    """
    read = in_single_precision(read)
    weight = (jnp.ones(len(targets), bool) if counts is None else counts).astype(read.dtype)
    targets = targets.astype(read.dtype)
    variance = _sum_of_squares(targets, weight)
    missed = jnp.where(weight[:, None] > 0, jnp.square(targets - read), 0.0).sum(axis=0)
    return jnp.where(variance > 0, 1.0 - missed / jnp.where(variance > 0, variance, 1.0), jnp.nan)


def probe_over_time(
    states: Float[Array, "B T H"],
    targets: Float[Array, "B T K"],
    *,
    valid: Bool[Array, "B T"] | None = None,
    ridge: float = 1e-3,
    key: PRNGKeyArray | None = None,
) -> ProbeProfile:
    """Fit a probe of its own at every step, on every other sequence, and test it on those between.

    The control is fitted to the same variables of other sequences, in a random order: what it reads is luck, of which
    it is the mean over eight orders. Hewitt and Liang 2019, arXiv:1909.03368.

    Args:
        states: of which is read.
        targets: variables, at every step.
        valid: the steps that count; all of them if None.
        ridge: as of `fit_probe`.
        key: of the control's orders; a fixed key if None.

    Cost: at every step that of two probes, `fit_probe`.

    Raises:
        UsageError: variables of another size, or fewer than four sequences.

    Examples:
        >>> import jax
        >>> from gru_jax import inspect
        >>> states = jax.random.normal(jax.random.key(0), (40, 2, 3))
        >>> inspect.probe_over_time(states, states[..., :1]).scores.round(2).tolist()
        [[1.0], [1.0]]
    """
    _check_variables(states, targets)
    states = in_single_precision(states)
    batch, time, _ = states.shape
    counts = jnp.ones((batch, time), bool) if valid is None else valid
    keys = jax.random.split(jax.random.key(0) if key is None else key, ORDERS)
    orders = [jax.random.permutation(k, (batch + 1) // 2) for k in keys]
    fitted_to = jnp.concatenate([targets[::2], *(targets[::2][order] for order in orders)], axis=-1)

    def of_step(states: Array, targets: Array, fitted_to: Array, counts: Array) -> tuple[Array, Array]:
        probes = fit_probe(states[::2], fitted_to, ridge=ridge, counts=counts[::2])
        read, wanted = probes.read(states[1::2]), jnp.tile(targets[1::2], (1, 1 + ORDERS))
        scores = r_squared(read, wanted, counts[1::2]).reshape(1 + ORDERS, -1)
        return scores[0], scores[1:].mean(axis=0)

    return ProbeProfile(*jax.vmap(of_step, in_axes=1)(states, targets, fitted_to, counts))


def probe_units(
    states: Float[Array, "B T H"],
    targets: Float[Array, "B T K"],
    *,
    valid: Bool[Array, "B T"] | None = None,
    key: PRNGKeyArray | None = None,
) -> UnitScores:
    """Look for units that track a variable by themselves, as Karpathy et al. 2015, arXiv:1506.02078, with a control.

    A line through (state, variable) is fitted for each unit at all steps of every other sequence, and tested on those
    between; and so is one linear probe, `fit_probe`, of all units. The control does the same where sequences have each
    other's variables, in eight random orders, and is their mean.

    Args:
        states: of the units.
        targets: variables, at every step.
        valid: the steps that count; all of them if None.
        key: of the control's orders; a fixed key if None.

    Cost: products of `[K, B T]` and `[B T, H]`, nine times, and `fit_probe` of `B T / 2` states.

    Raises:
        UsageError: variables of another size, or fewer than four sequences.

    Examples:
        >>> import jax
        >>> from gru_jax import inspect
        >>> states = jax.random.normal(jax.random.key(0), (40, 5, 3))
        >>> tracking = inspect.probe_units(states, 2.0 * states[..., 1:2])
        >>> tracking.scores.round(1).ravel().tolist()[1], tracking.together.round(1).tolist()
        (1.0, [1.0])
    """
    _check_variables(states, targets)
    states = in_single_precision(states)
    counts = jnp.ones(states.shape[:2], bool) if valid is None else valid

    def rows(values: Array, start: int) -> Array:
        return values[start::2].reshape(-1, *values.shape[2:])

    def of_order(targets: Float[Array, "B T K"]) -> Float[Array, "H K"]:
        fit, test = (rows(counts, start).astype(states.dtype) for start in (0, 1))
        (x, x_mean), (y, y_mean) = (_centred(rows(a, 0), fit) for a in (states, targets.astype(states.dtype)))
        squares = jnp.square(x).sum(axis=0)
        slopes = jnp.where(squares[:, None] > 0, x.T @ y / jnp.where(squares > 0, squares, 1.0)[:, None], 0.0)
        x, y = rows(states, 1) - x_mean[None], rows(targets, 1).astype(states.dtype) - y_mean[None]
        x, y = (jnp.where(test[:, None] > 0, a, 0.0) for a in (x, y))
        total = _sum_of_squares(rows(targets, 1).astype(states.dtype), test)
        missed = jnp.square(y).sum(axis=0)[None] - 2.0 * slopes * (x.T @ y)
        missed += jnp.square(slopes) * jnp.square(x).sum(axis=0)[:, None]
        return jnp.where(total > 0, 1.0 - missed / jnp.where(total > 0, total, 1.0)[None], jnp.nan)

    keys = jax.random.split(jax.random.key(0) if key is None else key, ORDERS)
    shuffled = [targets[jax.random.permutation(k, len(targets))] for k in keys]
    control = jnp.stack([of_order(other).max(axis=0) for other in shuffled]).mean(axis=0)
    together = _pooled_scores(states, jnp.concatenate([targets, *shuffled], axis=-1), counts)
    together = together.reshape(1 + ORDERS, targets.shape[-1])
    return UnitScores(of_order(targets), control, together[0], together[1:].mean(axis=0))


def _pooled_scores(
    states: Float[Array, "B T H"], targets: Float[Array, "B T K"], counts: Bool[Array, "B T"]
) -> Float[Array, " K"]:
    """R^2 of one linear probe for all steps, fitted to every other sequence, on those between."""
    (x, y, fit), (new_x, new_y, test) = (
        [a[start::2].reshape(-1, *a.shape[2:]) for a in (states, targets, counts)] for start in (0, 1)
    )
    return r_squared(fit_probe(x, y, counts=fit).read(new_x), new_y, test)


def _check_variables(states: Float[Array, "B T H"], targets: Array) -> None:
    """Refuse variables of another size, and too few sequences."""
    batch, time, _ = states.shape
    if targets.ndim != 3 or targets.shape[:2] != (batch, time):
        raise UsageError(f"targets have shape {list(targets.shape)}: needed is [{batch}, {time}, K]")
    if batch < FEWEST_SEQUENCES:
        needed = f"needed are {FEWEST_SEQUENCES}, two to fit a probe to and two to test it on"
        raise UsageError(f"states have {batch} sequences: {needed}")


def _sum_of_squares(values: Float[Array, "N K"], weight: Float[Array, " N"]) -> Float[Array, " K"]:
    """The sum of squared distances from the mean, 0 where values differ by no more than their rounding."""
    centred, _ = _centred(values, weight)
    rounding = rounding_of(jnp.where(weight[:, None] > 0, values, 0.0), axis=0)
    total = jnp.square(centred).sum(axis=0)
    return jnp.where(total > weight.sum() * jnp.square(rounding), total, 0.0)


def _centred(values: Float[Array, "N K"], weight: Float[Array, " N"]) -> tuple[Float[Array, "N K"], Float[Array, " K"]]:
    """Values less their mean, zero where they do not count; and the mean."""
    counted = jnp.where(weight[:, None] > 0, values, 0.0)
    mean = counted.sum(axis=0) / jnp.maximum(weight.sum(), 1.0)
    return jnp.where(weight[:, None] > 0, values - mean[None], 0.0), mean
