"""The training step as a pure function, and many of them in one call."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Int, PyTree

from gru_jax import flow
from gru_jax.config import LEARNING_RATE, Config, Hyperparameters, Values, plan, with_task_values, with_values
from gru_jax.nn import Trace
from gru_jax.norms import global_norm
from gru_jax.tasks import Batch, split_key
from gru_jax.training.carrying import TrainedParts, with_weights
from gru_jax.training.distillation import Teacher, with_teacher
from gru_jax.training.gradient import (
    detach_masks,
    floss_before_training,
    interventions,
    needs_adjoints,
    needs_inputs,
    penalty_gradient,
)
from gru_jax.training.network import (
    build_model,
    draw_batch,
    dropout_rates,
    initial_values,
    leaves_by_path,
    mean_over_examples,
    run_for_loss,
    shares,
    total_weight,
    zero_perturbations,
)
from gru_jax.training.optimizer import build_optimizer, norm_to_clip
from gru_jax.training.regularization import (
    orthogonality_gradient,
    perturbed_weights,
    recurrent_masks,
    regularised_loss,
    with_bounded_columns,
    with_input_noise,
)
from gru_jax.training.scheduled_sampling import OwnTokens, draw_own_tokens, with_own_tokens
from gru_jax.training.schedules import learning_rate
from gru_jax.training.skipping import Skips, metrics_with_skips, readings_with_skips
from gru_jax.training.sources import follows_single_steps, live_profiles
from gru_jax.training.sparsity import with_sparse_kernels
from gru_jax.training.splitting import BATCH_AXIS, in_parts, laid_out, over_rows
from gru_jax.training.state import (
    RandomStream,
    StepReport,
    StepsResult,
    TrainState,
    Update,
    all_finite,
    average_with,
    start_average,
    stream_key,
)
from gru_jax.training.streams import Streams, carries_into, start_streams

Data = dict[str, Array]


class BatchRows(NamedTuple):
    """What a step reads for each sequence of its batch.

    Attributes:
        batch: the batch.
        dropout_keys: a key for each, `[B]`; None where nothing is random.
        noise_keys: a key for each, by which regularisation draws, `[B]`; None where it draws nothing of a sequence.
        detached: for each layer, where its gradient does not pass, `[B, T]`; None without.
        carry0: each layer's carry before the first step; None for that of a new sequence.
        sampled: where a decoder reads its own tokens; None where it reads the targets alone.
    """

    batch: Batch
    dropout_keys: PyTree
    noise_keys: PyTree
    detached: Any
    carry0: PyTree
    sampled: OwnTokens | None


class Trainer:
    """The training of a config as pure functions, compiled.

    Args:
        config: the config.
        mesh: over the devices of its axis `batch` each batch is split; None for one device.
        teacher: the network of `distillation.teacher`, which steps need.

    Attributes:
        plan: the durations of the training.
        model: its network.
        parts: which parts of it learn, when and how fast.
        init: `init(seed, hyperparameters, weights=None) -> TrainState`, compiled; weights replace those drawn.
        run: `steps`, compiled; it takes the state's memory.
    """

    def __init__(self, config: Config, mesh: Mesh | None = None, teacher: Teacher | None = None) -> None:
        self.config, self.plan, self.model, self.mesh = config, plan(config), build_model(config), mesh
        self.parts = TrainedParts(config, self.model)
        self.teacher, self.distillation = teacher, None
        self.init = jax.jit(self._init)
        self.run = jax.jit(self.steps, donate_argnums=0)

    def _optimizer(
        self, hyperparameters: Hyperparameters, seed: ArrayLike, step: ArrayLike
    ) -> optax.GradientTransformation:
        values = hyperparameters["optimizer"]
        build = functools.partial(build_optimizer, self.config.optimizer, self.plan, values, seed)
        return self.parts.optimizer(build, step, hyperparameters["transfer"])

    def _init(
        self, seed: ArrayLike, hyperparameters: Hyperparameters, weights: Mapping[str, Any] | None = None
    ) -> TrainState:
        scheme = with_values(self.config.model.init, hyperparameters["model.init"])
        initial = initial_values(self.config, hyperparameters["model"])
        params = with_weights(
            self.model.init(stream_key(seed, RandomStream.INIT), scheme=scheme, **initial), weights or {}
        )
        key, whole = stream_key(seed, RandomStream.FLOSSING), functools.partial(self.parts.whole, params)
        values, trained = hyperparameters["gradient"], self.parts.trained(params)
        trained = floss_before_training(self.config, self.model, trained, key, values, whole)
        step, params, streams = jnp.zeros((), jnp.int32), whole(trained), ()
        opt_state = self._optimizer(hyperparameters, seed, step).init(trained)
        if self.config.task.is_stream:
            streams = start_streams(self.model, self.config.train.batch_size, self.config.dtype)
        iterate = start_average(self.config.regularization, params)
        return TrainState(step, params, opt_state, streams, iterate)

    def loss(
        self, params: PyTree, perturbations: PyTree, batch: Batch, **kwargs: Any
    ) -> tuple[Array, tuple[Any, Trace]]:
        """Mean loss of a batch, the means of all metrics, and the pass."""
        trace, loss, metrics = run_for_loss(
            self.config, self.model, params, batch, perturbations=perturbations, **kwargs
        )
        means = {n: loss if n == "loss" else mean_over_examples(value, batch) for n, value in metrics.items()}
        loss, means = with_teacher(self.config, self.teacher, self.distillation, trace.outputs, batch, means)
        return loss, (means, trace)

    def batch(self, seed: ArrayLike, data: Data, index: Int[Array, " B"]) -> Batch:
        """The training examples with these indices, split over the devices."""
        batch = draw_batch(self.config, data, split_key("train", seed), index)
        return laid_out(batch, self.mesh, PartitionSpec(BATCH_AXIS))

    def _on_every_device(self, tree: PyTree) -> PyTree:
        return laid_out(tree, self.mesh, PartitionSpec())

    def step(
        self, state: TrainState, seed: ArrayLike, hyperparameters: Hyperparameters, data: Data, index: Int[Array, " B"]
    ) -> tuple[TrainState, StepReport, Bool[Array, ""]]:
        """One step: the next state, what the step says of itself, and whether all of it is finite."""
        return self._with_task(hyperparameters)._step(state, seed, hyperparameters, data, index)

    def _with_task(self, hyperparameters: Hyperparameters) -> Trainer:
        """The same with the traced hyperparameters of the task and the loss."""
        trainer = copy.copy(self)
        trainer.config = with_task_values(self.config, hyperparameters["task"])
        trainer.distillation = hyperparameters["distillation"] if self.config.distillation.is_on else None
        return trainer

    def _step(
        self, state: TrainState, seed: ArrayLike, hyperparameters: Hyperparameters, data: Data, index: Int[Array, " B"]
    ) -> tuple[TrainState, StepReport, Bool[Array, ""]]:
        with jax.named_scope("batch"):
            batch = self.batch(seed, data, index)
        carry0 = None
        if self.config.task.is_stream:
            index, streams = laid_out((index, state.streams), self.mesh, PartitionSpec(BATCH_AXIS))
            carry0 = carries_into(self.model, streams, index)
        update = self.update(state, seed, hyperparameters, batch, carry0)
        params = self.apply_updates(state, update, hyperparameters)
        finite = jnp.isfinite(update.loss) & all_finite(update.grads) & all_finite(params)
        finite &= all_finite(update.opt_state, state.opt_state)
        report = self._report(state, seed, hyperparameters, batch, update, params)
        evaluated, iterate = average_with(self.config.regularization, hyperparameters["regularization"], state, params)
        new_state = TrainState(state.step + 1, evaluated, update.opt_state, iterate=iterate)
        new_state = self._on_every_device(new_state)
        if carry0 is not None:
            new_state = new_state._replace(streams=Streams(index, update.carries))
        return new_state, report, finite

    def update(
        self, state: TrainState, seed: ArrayLike, hyperparameters: Hyperparameters, batch: Batch, carry0: PyTree = None
    ) -> Update:
        """The loss of a batch, its gradients with those of the penalties, and what the optimiser makes of them.

        Its sequences begin with the carries of every layer in `carry0`, if they go on from something.
        """
        config, values = self.config, hyperparameters["regularization"]
        seen, pull = state.training_params, None
        trained = self.parts.trained(seen)
        if config.regularization.perturbs_weights:  # the gradient in what the step sees goes back to these
            seen, pull = self._perturbed(state, seed, trained, values)
        metrics, grads, inputs, lengths, adjoints, carries = self._gradient(
            seen, state.step, seed, hyperparameters, batch, carry0
        )
        with jax.named_scope("penalty"):
            penalty = penalty_gradient(
                config, self.model, self.parts.trained(seen), inputs, adjoints, state.step, hyperparameters["gradient"],
                self._on_every_device, functools.partial(self.parts.whole, seen),
            )  # fmt: skip
            straight = orthogonality_gradient(config, self.model, state.training_params, values)
        grads = grads if penalty is None else jax.tree.map(jnp.add, grads, penalty)
        grads = grads if pull is None else pull(grads)[0]
        grads = grads if straight is None else jax.tree.map(jnp.add, grads, self.parts.trained(straight))
        with jax.named_scope("update"):
            grads = self.parts.held_back(grads, state.step, hyperparameters["transfer"])
            optimizer = self._optimizer(hyperparameters, seed, state.step)
            updates, opt_state = optimizer.update(grads, state.opt_state, trained)
        return Update(metrics["loss"], metrics, grads, lengths, adjoints, carries, updates, opt_state)

    def apply_updates(self, state: TrainState, update: Update, hyperparameters: Hyperparameters) -> PyTree:
        """The parameters after an update, from which the next step starts."""
        start, regularization = state.training_params, self.config.regularization
        before, values = self.parts.trained(start), hyperparameters["regularization"]
        trained: PyTree = with_bounded_columns(regularization, optax.apply_updates(before, update.updates), values)
        return self.parts.whole(start, with_sparse_kernels(regularization, before, trained, state.step, values))

    def _perturbed(self, state: TrainState, seed: ArrayLike, trained: PyTree, values: Values) -> tuple[PyTree, PyTree]:
        """The parameters that a step sees, and what takes a gradient in those that learn back to them."""
        key = stream_key(seed, RandomStream.REGULARIZATION, state.step)

        def perturbed(trained: PyTree) -> tuple[PyTree, PyTree]:
            params = self.parts.whole(state.training_params, trained)
            params = perturbed_weights(self.config, self.model, params, key, values)
            return self.parts.trained(params), params

        _, pull, seen = jax.vjp(perturbed, trained, has_aux=True)
        return seen, pull

    def _report(
        self,
        state: TrainState,
        seed: ArrayLike,
        hyperparameters: Hyperparameters,
        batch: Batch,
        update: Update,
        params: PyTree,
    ) -> StepReport:
        config, grad_norm, values = self.config, global_norm(update.grads), hyperparameters["optimizer"]
        rate = learning_rate(config.optimizer, self.plan, values, state.step)
        metrics, live = {**update.metrics, "grad_norm": grad_norm, LEARNING_RATE: rate}, {}
        if config.optimizer.clip_norm is not None:
            clipped = norm_to_clip(config.optimizer, update.grads, values) > values["clip_norm"]
            metrics["clipped"] = clipped.astype(grad_norm.dtype)
        if config.flow.live:
            key = stream_key(seed, RandomStream.DETACH, state.step)
            values = hyperparameters["gradient"]
            profiles = live_profiles(
                config, self.model, state.training_params, batch, update.adjoints, values, key, update.lengths
            )
            live.update(profiles)
            ratios = leaves_by_path(flow.update_ratios(state.training_params, params))
            live.update({f"update_ratio/{name}": ratio for name, ratio in ratios.items()})
        return StepReport(metrics, live)

    def _gradient(
        self,
        params: PyTree,
        step: ArrayLike,
        seed: ArrayLike,
        hyperparameters: Hyperparameters,
        batch: Batch,
        carry0: PyTree,
    ) -> tuple[dict[str, Array], Any, Any, Any, Any, Any]:
        """Means of the metrics, the loss's gradients in what learns, and every layer's inputs, their lengths, its
        adjoints and its carry after the last step.
        """
        size, time = batch.xs.shape[:2]
        dropout_key, detach_key = (
            stream_key(seed, stream, step) for stream in (RandomStream.DROPOUT, RandomStream.DETACH)
        )
        # A key for each sequence, and masks of the whole batch, so that it is the same batch on any number of devices.
        of_each = jax.vmap(jax.random.fold_in, (None, 0))
        keys, noise_keys = of_each(dropout_key, jnp.arange(size)) if self.model.is_random else None, None
        if self.config.regularization.draws_of_each:
            noise_key = stream_key(seed, RandomStream.REGULARIZATION, step)
            noise_keys = of_each(noise_key, jnp.arange(size))
        detached = detach_masks(self.config, self.model, detach_key, (size, time), hyperparameters["gradient"])
        sampled = draw_own_tokens(self.config, seed, step, self.plan.steps, size, hyperparameters["model"])
        work = in_parts(functools.partial(self._gradient_of_rows, size), self.config.train.accumulate)
        shared = (params, hyperparameters, total_weight(batch))
        rows = BatchRows(batch, keys, noise_keys, detached, carry0, sampled)
        sums, of_rows = over_rows(work, self.mesh, shared, rows)
        return *sums, *of_rows

    def _gradient_of_rows(
        self, size: int, shared: tuple[Any, Hyperparameters, Any], rows: BatchRows
    ) -> tuple[PyTree, PyTree]:
        """What some sequences of a batch add to the metrics and gradients; their own inputs, adjoints and carries.

        The batch has `size` sequences, and `shared` are the parameters, the hyperparameters and its total weight.
        """
        (params, hyperparameters, total), batch = shared, rows.batch
        trainer, of_each = self._with_task(hyperparameters), shares(batch, size, total)
        share = batch.xs.shape[0] * of_each if total is None else of_each.sum()
        config, perturbations, values = trainer.config, None, hyperparameters["regularization"]
        batch = with_input_noise(
            config, with_own_tokens(self.model, params, batch, rows.sampled), rows.noise_keys, values
        )
        if needs_adjoints(config.gradient) or (config.flow.live and not follows_single_steps(config)):
            perturbations = zero_perturbations(config, self.model, batch)

        def share_of_loss(trained: PyTree, perturbations: PyTree) -> tuple[Array, tuple[dict[str, Array], Trace]]:
            loss, of_pass = trainer.loss(
                self.parts.whole(params, trained),
                perturbations,
                batch,
                dropout_key=rows.dropout_keys,
                **dropout_rates(config.model, hyperparameters["model"]),
                interventions=interventions(config, self.model, rows.detached, hyperparameters["gradient"], of_each),
                **recurrent_masks(config, self.model, batch, rows.noise_keys, values),
                **({} if rows.carry0 is None else {"carry0": rows.carry0}),
            )
            return share * regularised_loss(config, loss, of_pass[1], batch, values), of_pass

        gradients = jax.grad(share_of_loss, argnums=(0, 1), has_aux=True)
        (grads, adjoints), (metrics, trace) = gradients(self.parts.trained(params), perturbations)
        metrics = {name: share * mean for name, mean in metrics.items()}
        is_read = config.train.accumulate == 1 or needs_inputs(config.gradient)  # else parts would keep all of them
        inputs = tuple(layer.read for layer in trace.layers) if is_read else None
        carries = () if rows.carry0 is None else trace.carry
        lengths = tuple(layer.lengths for layer in trace.layers)
        return (metrics, grads), (inputs, lengths, adjoints, carries)

    def steps(
        self,
        state: TrainState,
        seed: ArrayLike,
        hyperparameters: Hyperparameters,
        data: Data,
        indices: Int[Array, "K B"],
        count: ArrayLike,
        skips: Skips | None = None,
    ) -> StepsResult:
        """Take the first `count` of K steps, up to one that is not finite, which changes nothing.

        With `skips` it is skipped, if there have not been too many, which changes the number of steps alone.
        """
        take = functools.partial(self._step_or_skip, seed, hyperparameters, data)

        # The number of steps is a value, so that calls of any length are one program and give the same bits.
        def body(carry: tuple[Any, TrainState, Any, Skips | None, Array]) -> tuple[Any, ...]:
            i, state, history, skips, _ = carry
            state, skips, report, succeeds = take(state, skips, indices[i])
            history = jax.tree.map(lambda rows, row: rows.at[i].set(row), history, report)
            return i + 1, state, history, skips, succeeds

        def goes_on(carry: tuple[Any, ...]) -> Array:
            return (carry[0] < count) & carry[4]

        report = jax.eval_shape(take, state, skips, indices[0])[2]
        history = jax.tree.map(lambda leaf: jnp.zeros((indices.shape[0], *leaf.shape), leaf.dtype), report)
        start = (jnp.zeros((), jnp.int32), state, history, skips, jnp.ones((), bool))
        _, state, history, _, finite = jax.lax.while_loop(goes_on, body, start)
        return StepsResult(state, history.metrics, history.live, finite)

    def _step_or_skip(
        self,
        seed: ArrayLike,
        hyperparameters: Hyperparameters,
        data: Data,
        state: TrainState,
        skips: Skips | None,
        index: Int[Array, " B"],
    ) -> tuple[TrainState, Skips | None, StepReport, Bool[Array, ""]]:
        """What a step leaves behind, and whether the training goes on."""
        new, report, finite = self.step(state, seed, hyperparameters, data, index)
        chosen = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, state)
        if skips is None:
            return chosen, None, report, finite
        rates, updates = hyperparameters["optimizer"], state.step - skips.in_all
        rate = learning_rate(self.config.optimizer, self.plan, rates, updates)
        report = StepReport(metrics_with_skips(report.metrics, finite, rate), readings_with_skips(report.live, finite))
        skips = skips.after(finite)
        is_skipped = ~finite & skips.are_allowed
        return chosen._replace(step=chosen.step + is_skipped.astype(jnp.int32)), skips, report, finite | is_skipped
