"""From what a user wrote to a config that is checked as a whole, before anything is compiled."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from gru_jax.cells import CELLS
from gru_jax.cells.base import check_equations
from gru_jax.config.distillation import DistillationConfig
from gru_jax.config.durations import plan
from gru_jax.config.flow import FlowConfig
from gru_jax.config.model import AUTO, ModelConfig
from gru_jax.config.optimizers import LEARNING_RATE, OptimizerBase, OptimizerConfig
from gru_jax.config.schema import DATA, REGISTRIES, SOURCES, Config
from gru_jax.deploy.storage import SMALL_TYPES
from gru_jax.errors import UsageError, listing
from gru_jax.flow.regularizers import check_constant_slopes
from gru_jax.flow.sources import SAMPLED, TOTAL
from gru_jax.initializers import Scheme
from gru_jax.nn.attention import Attention
from gru_jax.nn.encoder_decoder import EncoderDecoder
from gru_jax.nn.families import ENCODER_DECODER, FAMILIES, FORECASTER
from gru_jax.nn.forecaster import Forecaster
from gru_jax.settings import resolve, to_dict
from gru_jax.tasks.base import FromFiles
from gru_jax.tasks.scores import DIRECTIONS
from gru_jax.unroll.options import choose_method


def load(values: Config | ConfigDict | Mapping[str, Any]) -> Config:
    """A checked config from nested dicts, whose sections may be objects, or from a config as it was written in Python.

    Raises:
        UsageError: the first thing wrong with it, in one line.

    Examples:
        >>> from gru_jax.config import load
        >>> config = load({"task": {"name": "adding", "length": 50}, "train": {"steps": 10}})
        >>> config.task, config.model.readout
        (Adding(valid_size=1024, test_size=4096, length=50), 'last')
        >>> from gru_jax.config import Config, TrainConfig
        >>> from gru_jax.tasks import Adding
        >>> load(Config(task=Adding(50), train=TrainConfig(steps=10))) == config
        True
    """
    if isinstance(values, ConfigDict):
        values = to_dict(values, REGISTRIES)
    if isinstance(values, Mapping):
        values = {key: value for key, value in values.items() if key not in (SOURCES, DATA)}
    config = resolve(Config, values, REGISTRIES)
    model = config.model
    gates = {g: _gate_overrides(g, changes) for g, changes in model.init.gates.items()}
    t_max = float(config.task.time) if model.init.t_max is None else model.init.t_max
    init = dataclasses.replace(model.init, gates=gates, t_max=t_max)
    readout = config.task.readout if model.readout == AUTO else model.readout
    optimizer = config.optimizer
    if optimizer.weight_decay is None:
        optimizer = dataclasses.replace(optimizer, weight_decay=_default_decay(optimizer))
    family = config.task.family if model.family == AUTO else model.family
    model = dataclasses.replace(model, init=init, readout=readout, family=family)
    model = dataclasses.replace(model, attention=_attention(model))
    config = dataclasses.replace(config, model=model)
    model = dataclasses.replace(model, embedding=_embedding(config))
    config = dataclasses.replace(config, model=model, optimizer=optimizer, flow=_with_source(config.flow, readout))
    _check(config)
    plan(config)
    return config


def _embedding(config: Config) -> int | None:
    """Numbers for each token: those of the config, or as many as the layer has that reads, or shares, them."""
    model, task = config.model, config.task
    if not task.reads_tokens:
        for key in ("embedding", "tied"):
            if getattr(model, key):
                raise UsageError(f"model.{key}={getattr(model, key)}: without effect, this task's inputs are no tokens")
        return None
    if not model.tied:
        return model.hidden[0] if model.embedding is None else model.embedding
    decodes = task.family == ENCODER_DECODER  # the head then shares the embedding of the targets
    width, last = model.embedding, model.hidden[-1] * (2 if model.bidirectional and not decodes else 1)
    if width not in (None, last):
        raise UsageError(f"model.embedding={width}: allowed with model.tied is {last}, what the head reads")
    if task.input_size != task.output_size and not decodes:
        raise UsageError(
            f"model.tied=True: the head has {task.output_size} outputs, and there are {task.input_size} tokens; "
            "needed are as many"
        )
    return last


def _attention(model: ModelConfig) -> Attention:
    """What a decoder looks at its source through; none where there is no decoder."""
    family = model.family_class
    decodes = isinstance(family, type) and issubclass(family, EncoderDecoder)
    if model.attention == AUTO:
        return "luong" if decodes else "none"
    if model.attention != "none" and not decodes:
        raise UsageError(
            f"model.attention={model.attention!r}: without effect, this network has no decoder; allowed are auto, none"
        )
    return model.attention


def _check_family(config: Config) -> None:
    """Refuse a network that cannot learn the task: one with a decoder, where there is nothing to decode, …"""
    family = config.model.family_class
    if not isinstance(family, type):
        return  # building the network says what is wrong with it
    kinds = ((EncoderDecoder, ENCODER_DECODER), (Forecaster, FORECASTER))
    if any(issubclass(family, kind) != (config.task.family == name) for kind, name in kinds):
        raise UsageError(
            f"model.family={config.model.family}: this task needs another kind of network; allowed are auto, "
            f"{config.task.family}, or a subclass of gru_jax.nn.{FAMILIES[config.task.family].__name__}"
        )


def _check_sampling(config: Config) -> None:
    """Refuse scheduled sampling where nothing is sampled."""
    model = config.model
    if model.scheduled_sampling and config.task.family != ENCODER_DECODER:
        raise UsageError(
            f"model.scheduled_sampling={model.scheduled_sampling:g}: without effect, this network has no decoder; "
            "allowed is 0"
        )
    if model.sampling_schedule != "constant" and not model.scheduled_sampling:
        raise UsageError(
            f"model.sampling_schedule={model.sampling_schedule!r}: without effect; model.scheduled_sampling says to "
            "which probability"
        )


def _with_source(flow: FlowConfig, readout: str) -> FlowConfig:
    """What the instruments record, with the source of the adjoint profile that fits the readout."""
    if readout != "last":
        return dataclasses.replace(flow, source=SAMPLED) if flow.source == AUTO else flow
    if flow.source == SAMPLED:
        raise UsageError(f"flow.source={SAMPLED!r}: the loss reads the last state alone; allowed are auto, last, total")
    return dataclasses.replace(flow, source=TOTAL)


def _default_decay(optimizer: OptimizerBase) -> float:
    return 0.01 if isinstance(optimizer, OptimizerConfig) and optimizer.name == "adamw" else 0.0


def _gate_overrides(gate: str, changes: Any) -> dict[str, Any]:
    checked = resolve(Scheme, changes, REGISTRIES, f"model.init.gates.{gate}")
    return {name: getattr(checked, name) for name in changes}


def _check(config: Config) -> None:
    """What no single key can tell."""
    model, task, train = config.model, config.task, config.train
    if type(model.cell) not in CELLS.values():
        check_equations(model.cell, min(model.hidden))
    try:
        model.cell.check_scheme(model.init)
    except UsageError as error:
        raise UsageError(f"model.init.{error}") from error
    if model.dropout and len(model.hidden) < 2:
        raise UsageError(f"model.dropout={model.dropout:g}: without effect, it acts between layers and there is one")
    _check_optimizer(config.optimizer)
    if not (isinstance(task.goal, tuple) and len(task.goal) == 2 and task.goal[1] in ("min", "max")):
        raise UsageError(f"task.goal={task.goal!r}: allowed are a metric's name and min or max, as ('loss', 'min')")
    _check_monitor(config)
    if model.weights is not None and train.init_from is not None:
        raise UsageError(f"train.init_from={train.init_from}: together with model.weights; allowed is one of them")
    if task.predicts_inputs and model.bidirectional:
        raise UsageError("model.bidirectional=True: this task predicts its next input, which reading backwards shows")
    if task.is_stream and model.bidirectional:
        raise UsageError("model.bidirectional=True: this task reads on from piece to piece, and nothing backwards")
    if task.is_stream and config.train.metrics:
        metrics = ",".join(config.train.metrics)
        raise UsageError(f"train.metrics={metrics}: scores of whole sequences, and this task reads on; allowed is none")
    _check_start(config)
    if (task.readout == "every") != (model.readout == "every"):
        allowed = "every" if task.readout == "every" else "last, mean, max, attention"
        raise UsageError(f"model.readout={model.readout!r}: this task needs one of: {allowed}")
    _check_family(config)
    _check_sampling(config)
    _check_gradient(config)
    _check_regularization(config)
    _check_recursion(config)
    _check_sparsity(config)
    _check_distillation(config)
    _ = config.profile_steps
    _check_batches(config)


def _check_recursion(config: Config) -> None:
    """Refuse what would act on the steps that are read, and not on those that a forecast feeds back."""
    regularization = config.regularization
    if not getattr(config.task, "recursive", False):
        return
    if config.gradient.intervenes:
        raise UsageError(
            "gradient.truncate, detach and adjoint_clip: do not reach the steps that task.recursive feeds back; "
            "allowed is none of them"
        )
    if regularization.recurrent_dropout and regularization.recurrent_dropout_per == "step":
        raise UsageError(
            "regularization.recurrent_dropout_per=step: does not reach the steps that task.recursive feeds back; "
            "allowed is sequence"
        )


def _check_regularization(config: Config) -> None:
    regularization, task, cell = config.regularization, config.task, config.model.cell
    if regularization.ema is not None and regularization.swa_from is not None:
        raise UsageError(
            f"regularization.swa_from={regularization.swa_from}: together with regularization.ema; allowed is one of "
            "them"
        )
    if regularization.swa_from is not None and regularization.swa_from > (steps := plan(config).steps):
        raise UsageError(
            f"regularization.swa_from={regularization.swa_from}: allowed are up to {steps}, the length of the training"
        )
    if regularization.input_noise and task.reads_tokens:
        raise UsageError(
            f"regularization.input_noise={regularization.input_noise:g}: the inputs of this task are tokens; allowed "
            "is 0, and model.input_dropout drops numbers of their embedding"
        )
    if regularization.label_smoothing and getattr(task, "label_smoothing", 0):
        raise UsageError(
            f"regularization.label_smoothing={regularization.label_smoothing:g}: this task has task.label_smoothing; "
            "allowed is one of them"
        )
    for key in ("max_norm", "sparsity"):
        if (value := getattr(regularization, key)) and config.transfer.num_thaws:
            raise UsageError(
                f"regularization.{key}={value:g}: it would change what does not learn yet; allowed is none with "
                "transfer.thaw_steps or transfer.thaw_epochs"
            )
    if regularization.recurrent_dropout and config.gradient.omega:
        raise UsageError(
            f"regularization.recurrent_dropout={regularization.recurrent_dropout:g}: together with gradient.omega, "
            "whose Jacobians are those of the whole state; allowed is one of them"
        )
    for key in ("dropconnect", "recurrent_dropout", "orthogonality"):
        if getattr(regularization, key) and not cell.recurrent_gates:
            raise UsageError(
                f"regularization.{key}={getattr(regularization, key):g}: without effect, this cell has no recurrent "
                "kernels; allowed is 0"
            )


def _check_distillation(config: Config) -> None:
    distillation, unchanged = config.distillation, DistillationConfig()
    for name in ("weight", "temperature"):
        value = getattr(distillation, name)
        if distillation.teacher is None and value != getattr(unchanged, name):
            raise UsageError(f"distillation.{name}={value:g}: without effect; distillation.teacher says of which run")
    if distillation.teacher is not None and config.task.is_stream:
        raise UsageError(
            f"distillation.teacher={distillation.teacher}: this task reads on from piece to piece, and no teacher with "
            "it; allowed are tasks of separate sequences"
        )


def _check_sparsity(config: Config) -> None:
    chosen, steps = config.regularization, plan(config).steps
    until = f"regularization.sparsity_until={chosen.sparsity_until}"
    if not chosen.sparsity and chosen.sparsity_until != 1:
        raise UsageError(f"{until}: without effect; regularization.sparsity says how many weights go")
    if chosen.sparsity and chosen.averages:
        raise UsageError(
            f"regularization.sparsity={chosen.sparsity:g}: an average of networks has other zeros than they; allowed "
            "with regularization.ema=none and swa_from=none"
        )
    if chosen.sparse_from > steps:
        raise UsageError(f"{until}: allowed are up to {steps}, the length of the training")


def _check_batches(config: Config) -> None:
    train, task = config.train, config.task
    if train.batch_by_length and (not isinstance(task, FromFiles) or task.stored_facts is None):
        task.train_indices(train.batch_size, config.seed, by_length=True)  # which refuses tasks without lengths
    size = task.size("train")
    if train.batch_size % train.accumulate:
        raise UsageError(
            f"train.accumulate={train.accumulate}: as many equal parts train.batch_size={train.batch_size} has not; "
            "allowed are its divisors"
        )
    if isinstance(config.devices, int) and train.part_size % max(1, config.devices):
        parts = f" in train.accumulate={train.accumulate} parts" * (train.accumulate > 1)
        raise UsageError(
            f"devices={config.devices}: they cannot share train.batch_size={train.batch_size}{parts} evenly; "
            f"allowed are {'its divisors' if not parts else f'divisors of {train.part_size}'}"
        )
    if train.skip_nonfinite_in_a_row is not None and not train.skip_nonfinite:
        raise UsageError(
            f"train.skip_nonfinite_in_a_row={train.skip_nonfinite_in_a_row}: without effect; train.skip_nonfinite says "
            "how many may be skipped in all"
        )
    if size is not None and train.batch_size > size:
        raise UsageError(f"train.batch_size={train.batch_size}: allowed are up to {size}, the training examples")


def _check_start(config: Config) -> None:
    train = config.train
    if train.init_from is None:
        if train.init_as != "exact":
            raise UsageError(f"train.init_as={train.init_as!r}: without effect; train.init_from says of which run")
        if train.steps == 0:
            raise UsageError("train.steps=0: allowed are whole numbers from 1, or 0 with train.init_from")
    if config.transfer.parts is not None and (train.init_from is None or train.init_as != "exact"):
        needed = "train.init_from says of which run" if train.init_from is None else "allowed with train.init_as=exact"
        raise UsageError(f"transfer.parts={listing(config.transfer.parts)}: without effect; {needed}")
    if train.init_as == "units" and config.task.family == ENCODER_DECODER:
        raise UsageError("train.init_as='units': this network has a decoder; allowed are those without one")
    if train.init_as in SMALL_TYPES and train.steps != 0:
        raise UsageError(
            f"train.init_as={train.init_as!r}: training would change its numbers; allowed with train.steps=0 alone"
        )


def _check_monitor(config: Config) -> None:
    train = config.train
    if train.monitor in DIRECTIONS and train.monitor not in (train.metrics or ()):
        raise UsageError(f"train.monitor={train.monitor!r}: computed where train.metrics has it too")
    if train.direction is None and train.monitor not in (None, "loss", config.task.goal[0], *DIRECTIONS):
        raise UsageError(f"train.direction=None: needed with train.monitor={train.monitor!r}; allowed are min, max")


def _check_optimizer(optimizer: OptimizerBase) -> None:
    if isinstance(optimizer, OptimizerConfig) and optimizer.nesterov and optimizer.name != "momentum":
        raise UsageError(f"optimizer.nesterov=True: without effect on {optimizer.name}; allowed with momentum")
    decays_itself = LEARNING_RATE in optimizer.own_arguments
    if decays_itself and optimizer.weight_decay and "weight_decay" not in optimizer.own_arguments:
        raise UsageError(
            f"optimizer.weight_decay={optimizer.weight_decay:g}: without effect on an optimiser that takes the "
            "learning rate itself; allowed is an argument of its own of this name"
        )
    _check_schedule(optimizer)


def _check_schedule(optimizer: OptimizerBase) -> None:
    if optimizer.schedule == "exponential" and optimizer.final == 0:
        raise UsageError("optimizer.final=0.0: an exponential schedule never gets there; allowed are numbers above 0")
    drop_keys = [key for key in ("drop_steps", "drop_epochs") if getattr(optimizer, key) is not None]
    if optimizer.schedule == "step" and len(drop_keys) != 1:
        raise UsageError(
            "optimizer.schedule='step': needed is when the rate drops, by one of optimizer.drop_steps and "
            f"optimizer.drop_epochs; given are {listing(drop_keys) or 'none of them'}"
        )
    if optimizer.schedule != "step" and drop_keys:
        shown = listing(getattr(optimizer, drop_keys[0]))
        raise UsageError(f"optimizer.{drop_keys[0]}={shown}: without effect on this schedule; allowed with step")


def _check_gradient(config: Config) -> None:
    gradient, model = config.gradient, config.model
    if "parameters" in config.flow.instruments and not model.cell.affine:
        raise UsageError("flow.instruments='parameters': this cell's products are not affine; leave it out")
    state = min(model.hidden) * model.cell.carry_parts
    if gradient.floss > state:
        raise UsageError(
            f"gradient.floss={gradient.floss}: allowed are up to {state}, the numbers in the smallest state"
        )
    flosses = gradient.floss_before > 0 or gradient.floss_every is not None
    if flosses and not gradient.floss:
        raise UsageError("gradient.floss=0: no exponents to drive to zero; allowed are whole numbers from 1")
    if gradient.floss and not flosses:
        raise UsageError(
            f"gradient.floss={gradient.floss}: without effect; gradient.floss_before or gradient.floss_every says when"
        )
    _check_floss_transient(config)
    if gradient.omega and gradient.omega_slopes == "constant":
        try:
            check_constant_slopes(model.cell)
        except UsageError as error:
            raise UsageError(f"gradient.omega_{error}") from error
    try:
        choose_method(model.cell, model.method, intervenes=gradient.intervenes)
    except UsageError as error:
        raise UsageError(f"model.{error}") from error


def _check_floss_transient(config: Config) -> None:
    gradient = config.gradient
    time = min(gradient.floss_time, config.task.time)
    if gradient.floss and gradient.floss_transient >= time:
        raise UsageError(
            f"gradient.floss_transient={gradient.floss_transient}: allowed are 0 to {time - 1}, below the {time} steps "
            "that flossing follows"
        )
