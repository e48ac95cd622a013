"""The training step as a pure function, and many of them in one call."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from gru_jax import flow
from gru_jax.config import Config, Plan
from gru_jax.config.hyperparameters import Numbers, with_numbers
from gru_jax.nn import Functional, Trace
from gru_jax.tasks import Batch, split_key
from gru_jax.training.gradient import flossed, interventions, needs_adjoints, penalty_gradient
from gru_jax.training.layers import by_name, directions, layer_names, zero_perturbations
from gru_jax.training.optimizer import build_optimizer

# Beside the splits of `gru_jax.tasks`, which take the small numbers.
INIT_STREAM, DROPOUT_STREAM, FLOSS_STREAM, DETACH_STREAM = 101, 102, 104, 105
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
        live: what each step measured of itself, `[K, ...]`, see `Trainer.step`.
        finite: False if the step after `state.step` gave a loss, a gradient or an update that is not finite.
    """

    state: TrainState
    metrics: dict[str, Any]
    live: dict[str, Any]
    finite: Any


def forward(
    config: Config, model: Functional, params: dict[str, Any], batch: Batch, **kwargs: Any
) -> tuple[Trace, dict[str, Array]]:
    """Run the network on a batch in the configured type; the trace, and each example's metrics `[B]`."""
    trace = model.apply(params, batch.xs.astype(config.dtype), lengths=batch.lengths, **kwargs)
    return trace, config.task.metrics(trace.outputs, batch)


def _stream(seed: Any, number: int) -> PRNGKeyArray:
    return jax.random.fold_in(jax.random.key(seed), number)


def adjoint_profiles(config: Config, batch: Batch, sent: tuple[Any, ...]) -> dict[str, Array]:
    """||dL/dh_t|| against lag, mean over the batch, by layer, where `sent` are gradients of the batch's mean loss."""
    size, profiles = batch.xs.shape[0], {}
    for layer, adjoint in zip(layer_names(config), sent, strict=True):
        for name, parts, reverse in directions(config, layer, adjoint):
            norms = size * flow.adjoint_norms(parts[0])
            profiles[f"adjoint/{name}"] = flow.lag_profile(norms, batch.lengths, reverse=reverse).mean
    return profiles


class Trainer:
    """The compiled training of a config. Pure but for holding the compiled programs.

    Args:
        config: the config.
        plan: its durations.
        model: its network.
        mesh: of one axis, over whose devices each batch is split; None for one device.
    """

    def __init__(self, config: Config, plan: Plan, model: Functional, mesh: Mesh | None = None) -> None:
        self.config, self.plan, self.model, self.mesh = config, plan, model, mesh
        self.init = jax.jit(self._init)
        everywhere = None if mesh is None else NamedSharding(mesh, PartitionSpec())
        self.run = jax.jit(self.steps, donate_argnums=0, out_shardings=everywhere)

    def _optimizer(self, numbers: Numbers, seed: Any) -> optax.GradientTransformation:
        return build_optimizer(self.config.optimizer, self.plan.steps, self.plan.warmup, numbers["optimizer"], seed)

    def _init(self, seed: Any, numbers: Numbers) -> TrainState:
        scheme = with_numbers(self.config.model.init, numbers["model.init"])
        params = self.model.init(_stream(seed, INIT_STREAM), scheme=scheme)
        params = flossed(self.config, params, _stream(seed, FLOSS_STREAM), numbers["gradient"])
        return TrainState(jnp.zeros((), jnp.int32), params, self._optimizer(numbers, seed).init(params))

    def loss(self, params: Any, perturbations: Any, batch: Batch, **kwargs: Any) -> tuple[Array, tuple[Any, Trace]]:
        """Mean loss of a batch, the means of all metrics, and the pass."""
        trace, metrics = forward(self.config, self.model, params, batch, perturbations=perturbations, **kwargs)
        means = {name: value.mean() for name, value in metrics.items()}
        return means["loss"], (means, trace)

    def batch(self, seed: Any, data: Data, index: Int[Array, " B"]) -> Batch:
        """The training examples with these indices."""
        return self._split(self.config.task.batch(data, split_key("train", seed), index))

    def _split(self, batch: Batch) -> Batch:
        """The same, over the devices. What follows is one program, which XLA parts accordingly."""
        if self.mesh is None:
            return batch
        return jax.lax.with_sharding_constraint(batch, NamedSharding(self.mesh, PartitionSpec(*self.mesh.axis_names)))

    def _whole(self, state: TrainState) -> TrainState:
        """The same, on every device."""
        if self.mesh is None:
            return state
        return jax.lax.with_sharding_constraint(state, NamedSharding(self.mesh, PartitionSpec()))

    def step(
        self, state: TrainState, seed: Any, numbers: Numbers, data: Data, index: Int[Array, " B"]
    ) -> tuple[TrainState, dict[str, Array], dict[str, Array], Bool[Array, ""]]:
        """One step.

        Returns:
            The next state; the metrics before it; with `flow.live`, each layer's adjoint profile `[T]` and each
            parameter's ratio of update to value, else nothing; and whether all of it is finite.
        """
        config = self.config
        with jax.named_scope("batch"):
            batch = self.batch(seed, data, index)
        dropout_key, detach_key = (
            jax.random.fold_in(_stream(seed, stream), state.step) for stream in (DROPOUT_STREAM, DETACH_STREAM)
        )
        probes = None
        if config.flow.live or needs_adjoints(config.gradient):
            probes = zero_perturbations(config, batch)
        (loss, (metrics, trace)), (grads, sent) = jax.value_and_grad(self.loss, argnums=(0, 1), has_aux=True)(
            state.params,
            probes,
            batch,
            dropout_key=dropout_key if config.model.dropout else None,
            dropout=numbers["model"]["dropout"],
            interventions=interventions(
                config, detach_key, batch.xs.shape[:2], numbers["gradient"], 1 / batch.xs.shape[0]
            ),
        )
        inputs = tuple(layer.inputs for layer in trace.layers)
        with jax.named_scope("penalty"):
            penalty = penalty_gradient(config, state.params, inputs, sent, batch, state.step, numbers["gradient"])
        if penalty is not None:
            grads = jax.tree.map(jnp.add, grads, penalty)
        with jax.named_scope("update"):
            updates, opt_state = self._optimizer(numbers, seed).update(grads, state.opt_state, state.params)
        grad_norm = optax.tree.norm(grads)
        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        finite &= jnp.stack([jnp.isfinite(update).all() for update in jax.tree.leaves(updates)]).all()
        params: Any = optax.apply_updates(state.params, updates)
        metrics["grad_norm"] = grad_norm
        if config.optimizer.clip_norm is not None:
            metrics["clipped"] = (grad_norm > numbers["optimizer"]["clip_norm"]).astype(grad_norm.dtype)
        live: dict[str, Array] = {}
        if config.flow.live:
            live |= adjoint_profiles(config, batch, sent)
            ratios = flow.update_ratios(state.params, params)
            live |= {f"update_ratio/{name}": ratio for name, ratio in by_name(ratios).items()}
        return self._whole(TrainState(state.step + 1, params, opt_state)), metrics, live, finite

    def steps(
        self, state: TrainState, seed: Any, numbers: Numbers, data: Data, indices: Int[Array, "K B"], count: Any
    ) -> Steps:
        # The number of steps is a value, so that calls of any length are one program and give the same bits.
        def body(carry: tuple[Any, TrainState, Any, Array]) -> tuple[Any, ...]:
            i, state, history, _ = carry
            new, *told, finite = self.step(state, seed, numbers, data, indices[i])
            state = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, state)
            history = jax.tree.map(lambda rows, row: rows.at[i].set(row), history, told)
            return i + 1, state, history, finite

        def going(carry: tuple[Any, ...]) -> Array:
            return (carry[0] < count) & carry[3]

        told = list(jax.eval_shape(self.step, state, seed, numbers, data, indices[0])[1:3])
        history = jax.tree.map(lambda leaf: jnp.zeros((indices.shape[0], *leaf.shape), leaf.dtype), told)
        start = (jnp.zeros((), jnp.int32), state, history, jnp.ones((), bool))
        _, state, history, finite = jax.lax.while_loop(going, body, start)
        metrics, live = history
        return Steps(state, metrics, live, finite)
