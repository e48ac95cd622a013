"""The weights that a run starts from: of a file, or of another run."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gru_jax import interop
from gru_jax.cells import GRU
from gru_jax.config import Config, traced_hyperparameters
from gru_jax.config.checkpoint_names import CheckpointName
from gru_jax.deploy.pruning import prune_units
from gru_jax.deploy.storage import rounded
from gru_jax.errors import UsageError
from gru_jax.runs.checkpoints import Checkpoints
from gru_jax.runs.stored import open_run
from gru_jax.runtime.devices import choose_device, precision
from gru_jax.runtime.processes import log_once
from gru_jax.training.network import build_model
from gru_jax.training.step import Trainer

logger = logging.getLogger(__name__)


SHOWN = 4  # problems that are listed


def starting_weights(config: Config, *, tells: bool = True) -> dict[str, Any] | None:
    """The parameters that take the place of those drawn: of the file `model.weights`, or of the run `train.init_from`.

    None where neither is said.

    Raises:
        UsageError: there is no such file or run, or it does not hold this network; what fits nowhere is listed.
    """
    if config.model.weights is not None:
        source, params = f"model.weights={config.model.weights}", _params_of_file(config, config.model.weights, tells)
    elif config.train.init_from is not None:
        source = f"train.init_from={config.train.init_from}"
        params = _params_of_run(config.train.init_from, config)
    else:
        return None
    with precision(config.dtype, config.matmul_precision):  # float64 parameters exist in it alone
        drawn = jax.eval_shape(Trainer(config).init, config.seed, traced_hyperparameters(config)).params
        # A file may leave out a head, and what a model of a user's own has besides; they are drawn.
        may_miss = config.model.weights is not None
        return _fitting(source, params, {k: leaf for k, leaf in drawn.items() if k in params or not may_miss})


def starting_weights_of_members(configs: Sequence[Config]) -> list[dict[str, Any] | None]:
    """The same of each member of a population, which have one network: every source is read and checked once."""
    by_source: dict[tuple[str | None, ...], dict[str, Any] | None] = {}
    sources = [(config.model.weights, config.train.init_from, config.train.init_as) for config in configs]
    for config, source in zip(configs, sources, strict=True):
        if source not in by_source:
            by_source[source] = starting_weights(config)
    return [by_source[source] for source in sources]


def _params_of_file(config: Config, path: str, tells: bool) -> dict[str, Any]:
    """The parameters in a file with PyTorch's names, in the convention of a config's cell; maybe without a head."""
    cell = config.model.cell
    try:
        weights = interop.from_torch(path, dataclasses.replace(cell, update="keep") if isinstance(cell, GRU) else cell)
    except UsageError as error:
        raise UsageError(f"model.weights={path}: {error}") from None
    if weights.head is None and tells:
        log_once(logger, f"{path} has no head; it is drawn")
    return weights.with_update(getattr(cell, "update", "keep")).params


def _params_of_run(text: str, config: Config) -> dict[str, Any]:
    """The parameters of a checkpoint of another run, as NumPy arrays, as a config makes use of them."""
    try:
        params = params_of_checkpoint(text)
        if config.train.init_as == "exact":
            return params
        if config.train.init_as == "units":
            _, source = open_run(CheckpointName.parse(text).run)
            return prune_units(params, build_model(source).layers, config.model.hidden)
        return rounded(params, config.train.init_as)
    except UsageError as error:
        raise UsageError(f"train.init_from={text}: {error}") from error


def params_of_checkpoint(text: str) -> dict[str, Any]:
    """The parameters of a checkpoint, `RUN` or `RUN:best`, `RUN:latest`, `RUN:100`, as NumPy arrays.

    Raises:
        UsageError: there is no such run or checkpoint.
    """
    name = CheckpointName.parse(text)
    rundir, source = open_run(name.run)
    with precision(source.dtype, source.matmul_precision):
        shapes = jax.eval_shape(Trainer(source).init, 0, traced_hyperparameters(source))
    like = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), shapes.to_dict())
    checkpoints = Checkpoints(rundir.checkpoints, choose_device(source.platform), read_only=True)
    step = int(name.which) if name.which.isdecimal() else None
    kind = name.which if step is None else checkpoints.holding(step)
    return checkpoints.restore(kind, like, step)[0]["params"]


def _fitting(source: str, params: dict[str, Any], needed: dict[str, Any]) -> dict[str, Any]:
    """Parameters in the types of a network.

    Raises:
        UsageError: they are not those that it needs.
    """
    problems = _problems(_leaves_by_name(params), _leaves_by_name(needed))
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise UsageError(f"{source}: does not fit this network: {'; '.join(problems[:SHOWN])}{more}")
    return jax.tree.map(lambda a, leaf: jnp.asarray(a, leaf.dtype), params, needed)


def _leaves_by_name(params: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _problems(arrays: dict[str, Any], needed: dict[str, Any]) -> list[str]:
    """What is missing, what fits nowhere, what has another shape, and what would lose digits."""
    problems = [f"{name} {list(needed[name].shape)} is missing" for name in needed if name not in arrays]
    for name, array in arrays.items():
        if name not in needed:
            problems.append(f"{name} {list(array.shape)} fits nowhere")
        elif array.shape != needed[name].shape:
            problems.append(f"{name} is {list(array.shape)}, needed is {list(needed[name].shape)}")
        elif not np.can_cast(array.dtype, needed[name].dtype, "safe"):
            problems.append(f"{name} is {array.dtype}, which {needed[name].dtype} would round")
    return problems
