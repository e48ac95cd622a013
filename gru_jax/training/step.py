"""The training step as a pure function, and many of them in one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from gru_jax.config import Config, Plan
from gru_jax.nn import Functional, Trace
from gru_jax.tasks import Batch, Task, split_key
from gru_jax.training.optimizer import Numbers, build_optimizer

INIT_STREAM, DROPOUT_STREAM = 101, 102  # beside the splits of `gru_jax.tasks`, which take the small numbers
Data = dict[str, Array]


class TrainState(NamedTuple):
    """What a step changes.

    Attributes:
        step: steps done.
        params: of the network.
        opt_state: optax's.
    """

    step: Int[Array, ""]
    params: dict[str, Any]
    opt_state: Any


class Steps(NamedTuple):
    """The outcome of several steps in one call.

    Attributes:
        state: after the last good step.
        metrics: of each step by name, `[K]`; meaningful where a step was done.
        finite: False if the step after `state.step` gave a loss, a gradient or an update that is not finite.
    """

    state: TrainState
    metrics: dict[str, Array]
    finite: Bool[Array, ""]


def forward(
    config: Config, model: Functional, params: dict[str, Any], batch: Batch, **kwargs: Any
) -> tuple[Trace, dict[str, Array]]:
    """Run the network on a batch in the configured type; the trace, and each example's metrics `[B]`."""
    trace = model.apply(params, batch.xs.astype(config.dtype), lengths=batch.lengths, **kwargs)
    return trace, config.task.metrics(trace.outputs, batch)


class Trainer:
    """The compiled training of a config. Pure but for holding the compiled programs.

    Args:
        config: the config.
        plan: its durations.
        model: its network.
    """

    def __init__(self, config: Config, plan: Plan, model: Functional) -> None:
        self.config, self.plan, self.model = config, plan, model
        self.init = jax.jit(self._init)
        self.run = jax.jit(self._run, donate_argnums=0)

    def _optimizer(self, numbers: Numbers) -> optax.GradientTransformation:
        return build_optimizer(self.config.optimizer, self.plan.steps, self.plan.warmup, numbers)

    def _init(self, seed: Any, numbers: Numbers) -> TrainState:
        params = self.model.init(jax.random.fold_in(jax.random.key(seed), INIT_STREAM))
        return TrainState(jnp.zeros((), jnp.int32), params, self._optimizer(numbers).init(params))

    def loss(self, params: Any, batch: Batch, dropout_key: PRNGKeyArray | None) -> tuple[Array, dict[str, Array]]:
        """Mean loss of a batch, and the means of all metrics."""
        _, metrics = forward(self.config, self.model, params, batch, dropout_key=dropout_key)
        means = {name: value.mean() for name, value in metrics.items()}
        return means["loss"], means

    def batch(self, seed: Any, data: Data, index: Int[Array, " B"]) -> Batch:
        """The training examples with these indices."""
        return self.config.task.batch(data, split_key("train", seed), index)

    def step(
        self, state: TrainState, seed: Any, numbers: Numbers, data: Data, index: Int[Array, " B"]
    ) -> tuple[TrainState, dict[str, Array], Bool[Array, ""]]:
        """One step: the next state, the metrics before it, and whether all of it is finite."""
        dropout_key = None
        if self.config.model.dropout:
            stream = jax.random.fold_in(jax.random.key(seed), DROPOUT_STREAM)
            dropout_key = jax.random.fold_in(stream, state.step)
        batch = self.batch(seed, data, index)
        (loss, metrics), grads = jax.value_and_grad(self.loss, has_aux=True)(state.params, batch, dropout_key)
        updates, opt_state = self._optimizer(numbers).update(grads, state.opt_state, state.params)
        grad_norm = optax.tree.norm(grads)
        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        finite &= jnp.stack([jnp.isfinite(update).all() for update in jax.tree.leaves(updates)]).all()
        params: Any = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, opt_state), {**metrics, "grad_norm": grad_norm}, finite

    def _run(
        self, state: TrainState, seed: Any, numbers: Numbers, data: Data, indices: Int[Array, "K B"], count: Any
    ) -> Steps:
        # The number of steps is a value, so that calls of any length are one program and give the same bits.
        def body(carry: tuple[Any, TrainState, dict[str, Array], Array]) -> tuple[Any, ...]:
            i, state, history, _ = carry
            new, metrics, finite = self.step(state, seed, numbers, data, indices[i])
            state = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, state)
            history = {name: history[name].at[i].set(value) for name, value in metrics.items()}
            return i + 1, state, history, finite

        def going(carry: tuple[Any, ...]) -> Array:
            return (carry[0] < count) & carry[3]

        shapes = jax.eval_shape(self.step, state, seed, numbers, data, indices[0])[1]
        history = {name: jnp.zeros(indices.shape[:1], leaf.dtype) for name, leaf in shapes.items()}
        start = (jnp.zeros((), jnp.int32), state, history, jnp.ones((), bool))
        _, state, history, finite = jax.lax.while_loop(going, body, start)
        return Steps(state, history, finite)


def batch_indices(task: Task, batch_size: int, seed: int) -> Callable[[int, int], np.ndarray]:
    """The example indices of any steps: `indices(first, count) -> [count, B]`, a function of the seed and the step.

    Generated examples are numbered on and on. Files are read in a new random order each epoch, a last incomplete
    batch left out.
    """
    size = task.size("train")
    orders: dict[int, np.ndarray] = {}

    def order(epoch: int) -> np.ndarray:
        if epoch not in orders:
            while len(orders) > 1:
                orders.pop(min(orders))
            key = jax.random.fold_in(split_key("train", seed), epoch)
            orders[epoch] = np.asarray(jax.random.permutation(key, size), np.int32)  # type: ignore[arg-type]
        return orders[epoch]

    def indices(first: int, count: int) -> np.ndarray:
        steps = np.arange(first, first + count)
        if size is None:
            return (steps[:, None] * batch_size + np.arange(batch_size)[None, :]).astype(np.int32)
        per_epoch = size // batch_size
        rows = []
        for step in steps:
            epoch, within = divmod(int(step), per_epoch)
            rows.append(order(epoch)[within * batch_size : (within + 1) * batch_size])
        return np.stack(rows)

    return indices
