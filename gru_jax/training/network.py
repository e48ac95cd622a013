"""The network of a config as pure functions, and the ways through its cells that training and instruments take."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from gru_jax.cells import Carry, Params
from gru_jax.cells.base import carry_from_leaves
from gru_jax.config import Config, ModelConfig, Values, naming_traced_numbers
from gru_jax.config.model import AUTO
from gru_jax.dtypes import carry_dtype
from gru_jax.errors import UsageError, check_choice
from gru_jax.flow.trajectory import Trajectory
from gru_jax.initializers import Scheme
from gru_jax.nn import CellPlace, Functional, LayerInputs, SequenceModel, Trace, functional
from gru_jax.nn.families import FAMILIES
from gru_jax.nn.models import Readout
from gru_jax.nn.stack import DropoutRates
from gru_jax.tasks import Batch, split_key
from gru_jax.training.large_heads import mean_loss_over_outputs, over_outputs


def build_model(config: Config) -> Functional:
    """Split the network of a config into pure functions."""
    model, task = config.model, config.task
    family = model.family_class
    if not (isinstance(family, type) and issubclass(family, SequenceModel)):
        raise UsageError(
            f"model.family={model.family}: allowed are {', '.join(FAMILIES)}, or a subclass of SequenceModel"
        )
    readout = cast("Readout", model.readout)  # a checked config has no auto

    def build(rngs: nnx.Rngs, scheme: Scheme = model.init, **initial: Any) -> SequenceModel:
        return family(
            model.cell,
            task.input_size,
            model.hidden,
            task.output_size,
            readout=readout,
            bidirectional=model.bidirectional,
            dropout=model.dropout,
            **{**_options_in_use(config), **initial, **model.family_arguments},
            scheme=scheme,
            method=model.method,
            chunk=model.chunk,
            keep=model.keep,
            param_dtype=carry_dtype(config.dtype),
            rngs=rngs,
        )

    return functional(build)


def _options_in_use(config: Config) -> dict[str, Any]:
    """Arguments of a model that differ from its own defaults, which a family of a user's own may not know."""
    model, options = config.model, dict[str, Any](config.task.family_options)
    for name in ("input_dropout", "output_dropout", "tied"):
        if getattr(model, name):
            options[name] = getattr(model, name)
    if model.attention not in (AUTO, "none"):
        options["attention"] = model.attention
    if config.task.reads_tokens:
        options |= {"embedding": model.embedding, "compute_dtype": config.dtype, **initial_values(config, vars(model))}
    return options


def initial_values(config: Config, values: Values) -> dict[str, Any]:
    """Of the values of the section `model`, those that arguments of a model's initialisation are."""
    return {"embedding_scale": values["embedding_scale"]} if config.task.reads_tokens else {}


def dropout_rates(model: ModelConfig, values: Values) -> dict[str, Any]:
    """The argument `dropout` of a model, with traced values of those probabilities that are not zero."""
    if not (model.input_dropout or model.output_dropout):
        return {"dropout": values["dropout"]}
    names = ("dropout", "input_dropout", "output_dropout")
    return {"dropout": DropoutRates(*(values[name] if getattr(model, name) else 0.0 for name in names))}


def draw_batch(config: Config, data: Mapping[str, Array], key: PRNGKeyArray, index: Int[Array, " B"]) -> Batch:
    """The examples of a config's task with these indices."""
    task = config.task
    with naming_traced_numbers(task):
        batch = task.batch(data, key, index)
    time = max(task.time, batch.xs.shape[1]) if task.held_out_may_be_longer else task.time
    needed = (time,) if task.reads_tokens else (time, task.input_size)
    if batch.xs.shape[1:] != needed:
        wanted = f"time is {time}" if task.reads_tokens else f"time and input_size are {time} and {task.input_size}"
        raise UsageError(
            f"task: {type(task).__name__} gives sequences of shape {list(batch.xs.shape[1:])}; its {wanted}"
        )
    if task.reads_tokens and not jnp.issubdtype(batch.xs.dtype, jnp.integer):
        raise UsageError(
            f"task: {type(task).__name__} gives inputs of type {batch.xs.dtype}; with reads_tokens = True, allowed are "
            "whole numbers"
        )
    return batch


def run_network(
    config: Config, model: Functional, params: PyTree, batch: Batch, **kwargs: Any
) -> tuple[Trace, dict[str, Array]]:
    """Run the network on a batch in the configured type; the trace, and each example's metrics `[B]`."""
    trace = _trace_of(config, model, params, batch, **kwargs)
    with naming_traced_numbers(config.task):
        return trace, over_outputs(functools.partial(_metrics_of, config), model, params, trace, batch)


def run_for_loss(
    config: Config, model: Functional, params: PyTree, batch: Batch, **kwargs: Any
) -> tuple[Trace, Float[Array, ""], dict[str, Array]]:
    """As `run_network`, with the mean loss, whose gradient may be taken; that of the metrics where outputs are few."""
    trace, metrics_of = _trace_of(config, model, params, batch, **kwargs), functools.partial(_metrics_of, config)
    with naming_traced_numbers(config.task):
        loss, metrics = mean_loss_over_outputs(metrics_of, mean_over_examples, model, params, trace, batch)
    return trace, loss, metrics


def _trace_of(config: Config, model: Functional, params: PyTree, batch: Batch, **kwargs: Any) -> Trace:
    xs = batch.xs if config.task.reads_tokens else batch.xs.astype(config.dtype)
    if batch.decoder_inputs is not None:
        kwargs |= {"decoder_inputs": batch.decoder_inputs, "decoder_lengths": batch.decoder_lengths}
    return model.apply(params, xs, lengths=batch.lengths, **kwargs)


def _metrics_of(config: Config, outputs: Array, batch: Batch) -> dict[str, Array]:
    """A task's metrics, where they are what is needed of them."""
    metrics = config.task.metrics(outputs, batch)
    for name in ("loss", config.task.goal[0]):
        check_choice(f"task: {type(config.task).__name__}.metrics: needed", name, metrics)
    check_choice("train.monitor", config.goal[0], [*metrics, *(config.train.metrics or ())])
    for name, value in metrics.items():
        if value.shape != batch.xs.shape[:1]:
            raise UsageError(
                f"task: {type(config.task).__name__}.metrics gives {name} of shape {list(value.shape)}; needed is a "
                f"number for each example, [{batch.xs.shape[0]}]"
            )
    return metrics


def total_weight(batch: Batch) -> Array | None:
    """What all examples of a batch weigh, above zero; None where each counts the same."""
    if batch.weights is None:
        return None
    total = batch.weights.sum()
    return jnp.where(total > 0, total, 1)


def shares(batch: Batch, size: int, total: Array | None) -> Any:
    """The share of each of these examples in the mean over a batch of so many, with such a total weight."""
    return 1 / size if batch.weights is None or total is None else batch.weights / total


def mean_over_examples(values: Float[Array, " B"], batch: Batch) -> Float[Array, ""]:
    """The mean of what each example has, by the weights of the examples."""
    total = total_weight(batch)
    if batch.weights is None or total is None:
        return values.mean()
    weights = batch.weights.astype(values.dtype)
    return jnp.where(weights > 0, weights * values, 0).sum() / total.astype(values.dtype)


def check_monitor(config: Config, data: Mapping[str, Any]) -> None:
    """Raise `UsageError` where the metric that `train.monitor` names is none of the task's on such data."""
    if config.train.monitor is not None:
        trace_on_example(config, data, lambda trace, batch: ())


def trace_on_example(config: Config, data: Mapping[str, Any], then: Callable[[Trace, Batch], PyTree]) -> None:
    """Trace a new network on one example of validation data, and what is done with it then; nothing is computed."""

    def passed(data: PyTree) -> PyTree:
        model = build_model(config)
        batch = draw_batch(config, data, split_key("valid", 0), jnp.zeros(1, jnp.int32))
        trace, metrics = run_network(config, model, model.init(jax.random.key(0)), batch)
        return metrics, then(trace, batch)

    jax.eval_shape(passed, {name: jax.ShapeDtypeStruct(a.shape, a.dtype) for name, a in data.items()})


def zero_perturbations(config: Config, model: Functional, batch: Batch) -> tuple[tuple[Array, ...], ...]:
    """Zeros for every part of every layer's carry at every step: what adjoints are gradients with respect to."""
    dtype = carry_dtype(config.dtype)

    def of_layer(places: tuple[CellPlace, ...]) -> tuple[Array, ...]:
        shape = (*batch.xs.shape[:2], sum(place.units for place in places))
        return tuple(jnp.zeros(shape, dtype) for _ in range(places[0].cell.carry_parts))

    return tuple(map(of_layer, model.layers))


def carry_adjoint(place: CellPlace, of_layer: PyTree) -> Carry:
    """A cell's share of the adjoints of its layer's states, those of every part of the carry, as a carry."""
    return carry_from_leaves(place.cell, place.states(of_layer))


def cell_trajectories(
    model: Functional,
    params: PyTree,
    inputs: Sequence[LayerInputs],
    adjoints: Sequence[Any],
) -> Iterator[tuple[CellPlace, Params, Trajectory, Any]]:
    """Go through every cell of the network: its place, its parameters, its trajectory, and the adjoint of its carry.

    Args:
        model: the network.
        params: its parameters.
        inputs: of every layer.
        adjoints: for every layer, those of every part of the carry; None where there are none.
    """
    for number, place in model.cells:
        adjoint = None if adjoints[number] is None else carry_adjoint(place, adjoints[number])
        xs, carry0, lengths = inputs[number]
        trajectory = Trajectory(xs, place.carry(carry0), lengths=lengths, reverse=place.reverse)
        yield place, place.parameters(params), trajectory, adjoint


def leaves_by_path(tree: PyTree) -> dict[str, Array]:
    """The leaves of nested dicts by path, `a/b/c`."""
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}
