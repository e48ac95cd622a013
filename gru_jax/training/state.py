"""What training steps change, draw and give: parameters, the optimiser's state, random numbers, what steps report."""

from __future__ import annotations

import enum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Int, PRNGKeyArray, PyTree

from gru_jax.config import RegularizationConfig, Values
from gru_jax.training.streams import Streams


@enum.unique
class RandomStream(enum.IntEnum):
    """What a run draws random numbers for, each from keys of its own; the small numbers are the splits of a task."""

    INIT = 101
    DROPOUT = 102
    GRADIENT_NOISE = 103
    FLOSSING = 104
    DETACH = 105
    REGULARIZATION = 106
    SAMPLING = 107


def stream_key(seed: ArrayLike, stream: RandomStream, step: ArrayLike | None = None) -> PRNGKeyArray:
    """The key of a use of random numbers in a run of this seed, at a step if it draws anew at each."""
    key = jax.random.fold_in(jax.random.key(seed), stream)
    return key if step is None else jax.random.fold_in(key, step)


class Iterate(NamedTuple):
    """Where the training of a network stands that is itself an average over steps.

    Attributes:
        params: what the next step starts from.
        averaged: networks in the average.
    """

    params: dict[str, Any]
    averaged: Int[Array, ""]


class TrainState(NamedTuple):
    """What a step changes.

    Attributes:
        step: steps done.
        params: of the network, which is evaluated and kept.
        opt_state: optax's.
        streams: where a task of one long sequence stands in it; else nothing.
        iterate: where that network is an average over steps, what the next step starts from; else nothing.
    """

    step: Int[Array, ""]
    params: dict[str, Any]
    opt_state: PyTree
    streams: Streams | tuple[()] = ()
    iterate: Iterate | tuple[()] = ()

    def to_dict(self) -> dict[str, Any]:
        """Its parts by name, those alone that hold anything, as checkpoints have them."""
        optional = ("streams", "iterate")
        return {name: part for name, part in self._asdict().items() if name not in optional or part}

    @property
    def training_params(self) -> dict[str, Any]:
        """The parameters that the next step starts from."""
        return self.iterate.params if isinstance(self.iterate, Iterate) else self.params


class StepReport(NamedTuple):
    """What a step says of itself.

    Attributes:
        metrics: of the network before the step, by name.
        live: with `flow.live`, each layer's adjoint profile `[T]` and each parameter's ratio of update to value.
    """

    metrics: dict[str, Array]
    live: dict[str, Array]


class Update(NamedTuple):
    """What a step makes of a batch, before it is taken.

    Attributes:
        loss: of the batch.
        metrics: their means, by name.
        grads: of the loss and the penalties, in the parameters that learn.
        lengths: of the sequences that each layer read.
        adjoints: of the loss, for every layer, where something needs them.
        carries: every layer's carry after the last step, where the next batch goes on from it.
        updates: what is added to these.
        opt_state: the optimiser's next state.
    """

    loss: Array
    metrics: dict[str, Array]
    grads: PyTree
    lengths: tuple[Any, ...]
    adjoints: PyTree
    carries: PyTree
    updates: PyTree
    opt_state: PyTree


class StepsResult(NamedTuple):
    """The outcome of several steps in one call.

    Attributes:
        state: after the last good step.
        metrics: of each step by name, `[K]`; meaningful where a step was done.
        live: what each step measured of itself, `[K, ...]`, see `StepReport`.
        finite: False if the step after `state.step` gave a loss, a gradient, a parameter or a state of the optimiser
            that is not finite, and could not be skipped.
    """

    state: TrainState
    metrics: dict[str, Any]
    live: dict[str, Any]
    finite: Array


def start_average(config: RegularizationConfig, params: PyTree) -> Iterate | tuple[()]:
    """What an average over steps begins with: the initial network is not in it; nothing where there is no average."""
    return Iterate(params, jnp.zeros((), jnp.int32)) if config.averages else ()


def average_with(
    config: RegularizationConfig, values: Values, state: TrainState, params: PyTree
) -> tuple[Any, Iterate | tuple[()]]:
    """The network that is evaluated after a step, and what the next step starts from.

    The n-th network of the average counts with

        w_n = (1 - d) / (1 - d^n)  (ema),  1 / n  (swa_from),    mean_n = mean_{n-1} + w_n (params_n - mean_{n-1}),

    so that the moving average is that of Adam, Kingma and Ba 2015, arXiv:1412.6980, section 3, without a share of the
    initial network; and of the equal average each has the same share.

    Args:
        config: says which average, if any.
        values: hyperparameters of the section `regularization`.
        state: before the step.
        params: after it.
    """
    if not isinstance(state.iterate, Iterate):
        return params, ()
    if config.ema is not None:
        count, missing = state.iterate.averaged + 1, 1.0 - values["ema"]
        weight = missing / -jnp.expm1(count.astype(missing.dtype) * jnp.log1p(-missing))
    else:
        begins = values["swa_from"].astype(jnp.int32)
        count = jnp.where(state.step + 1 >= begins, state.iterate.averaged + 1, 0)
        weight = 1.0 / jnp.maximum(count, 1).astype(values["swa_from"].dtype)

    def mean(average: Array, new: Array) -> Array:
        return jnp.where(count <= 1, new, average + weight.astype(new.dtype) * (new - average))

    return jax.tree.map(mean, state.params, params), Iterate(params, count)


def all_finite(tree: PyTree, before: PyTree = None) -> Bool[Array, ""]:
    """Whether all floating numbers of a tree are finite, those apart that were not finite `before`.

    Optimisers may begin with inf, as for the least loss so far. An average of squares that overflows makes all later
    updates zero, which are finite.
    """

    def holds(leaf: Array, old: Array | None = None) -> Bool[Array, ""]:
        finite = jnp.isfinite(leaf)
        return (finite if old is None else finite | ~jnp.isfinite(old)).all()

    trees = (tree,) if before is None else (tree, before)
    pairs = [pair for pair in zip(*map(jax.tree.leaves, trees), strict=True) if is_inexact(pair[0])]
    return jnp.stack([jnp.ones((), bool), *(holds(*pair) for pair in pairs)]).all()


def is_inexact(leaf: Array | np.ndarray) -> bool:
    """Whether an array is of floating numbers, rather than of counts or random bits."""
    return jnp.issubdtype(leaf.dtype, jnp.inexact)
