"""The weights that a run starts from: of a file, or of another run."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from gru_jax import interop
from gru_jax.cells import GRU, Params
from gru_jax.config import Config, traced_hyperparameters
from gru_jax.config.checkpoint_names import CheckpointName
from gru_jax.deploy.pruning import prune_units
from gru_jax.deploy.storage import rounded
from gru_jax.errors import UsageError
from gru_jax.runs.checkpoints import Checkpoints
from gru_jax.runs.stored import open_run
from gru_jax.runs.transfer import NetworkView, TakenPart, TransferListing, carry_over, check_same_network
from gru_jax.runtime.devices import choose_device, precision
from gru_jax.runtime.processes import log_once
from gru_jax.training.network import build_model
from gru_jax.training.step import Trainer

logger = logging.getLogger(__name__)


SHOWN = 4  # problems that are listed


class StartingPoint(NamedTuple):
    """What a run starts from.

    Attributes:
        weights: the parameters that take the place of those drawn; None where all are.
        listing: what was taken of another run, if anything.
    """

    weights: dict[str, Any] | None = None
    listing: TransferListing | None = None


def starting_point(config: Config, *, tells: bool = True) -> StartingPoint:
    """The parameters that take the place of those drawn: of the file `model.weights`, or of the run `train.init_from`.

    Raises:
        UsageError: there is no such file or run, or it does not hold this network; what fits nowhere is listed.
    """
    if config.model.weights is None and config.train.init_from is None:
        return StartingPoint()
    with precision(config.dtype, config.matmul_precision):  # float64 parameters exist in it alone
        trainer = Trainer(config)
        drawn = jax.eval_shape(trainer.init, config.seed, traced_hyperparameters(config)).params
        if config.model.weights is not None:
            source, params = (
                f"model.weights={config.model.weights}",
                _params_of_file(config, config.model.weights, tells),
            )
            # A file may leave out a head, and what a model of a user's own has besides; they are drawn.
            return StartingPoint(_fitting(source, params, {k: leaf for k, leaf in drawn.items() if k in params}))
        start = _start_from_run(config, NetworkView.of(config, drawn, trainer.model.layers))
    for line in start.listing.lines() if tells and start.listing is not None else ():
        log_once(logger, line)
    return start


def starting_points_of_members(configs: Sequence[Config]) -> list[StartingPoint]:
    """The same of each member of a population, which have one network: every source is read and checked once."""
    by_source: dict[Any, StartingPoint] = {}
    points = []
    for config in configs:
        task = json.dumps(config.to_dict()["task"]) if config.train.init_from is not None else ""  # has the names
        train, model = config.train, config.model
        source = (model.weights, train.init_from, train.init_as, config.transfer.parts, task)
        if source not in by_source:
            by_source[source] = starting_point(config)
        points.append(by_source[source])
    return points


def _start_from_run(config: Config, target: NetworkView) -> StartingPoint:
    """The parameters of another run that take the place of those drawn of a network."""
    text = f"train.init_from={config.train.init_from}"
    source, step, params = _network_of_run(str(config.train.init_from), config)
    try:
        if config.transfer.parts is None:
            check_same_network(source, target)
        else:
            weights, taken = carry_over(source, target)
            new, left = (
                tuple(part for part in view.parts.paths if part not in used)
                for view, used in ((target, set(taken)), (source, {part.other for part in taken.values()}))
            )
            return StartingPoint(weights, TransferListing(str(config.train.init_from), step, taken, new, left))
    except UsageError as error:
        raise UsageError(f"{text}: {error}") from error
    try:
        weights = _fitting(text, params, dict(target.params))
    except UsageError as error:
        raise UsageError(f"{error}; transfer.parts names parts to be taken alone") from None
    taken = {part: TakenPart(part) for part in target.parts.paths}
    return StartingPoint(weights, TransferListing(str(config.train.init_from), step, taken))


def _params_of_file(config: Config, path: str, tells: bool) -> Params:
    """The parameters in a file with PyTorch's names, in the convention of a config's cell; maybe without a head."""
    cell = config.model.cell
    try:
        weights = interop.from_torch(path, dataclasses.replace(cell, update="keep") if isinstance(cell, GRU) else cell)
    except UsageError as error:
        raise UsageError(f"model.weights={path}: {error}") from None
    if weights.head is None and tells:
        log_once(logger, f"{path} has no head; it is drawn")
    return weights.with_update(getattr(cell, "update", "keep")).params


def _network_of_run(text: str, config: Config) -> tuple[NetworkView, int | None, Params]:
    """The network of a checkpoint of another run, its step, and its parameters as a config makes use of them."""
    try:
        stored = read_network(text)
        params, layers = stored.params, build_model(stored.config).layers
        view = NetworkView.of(stored.config, params, layers)
        if config.train.init_as == "units":
            params = prune_units(params, layers, config.model.hidden)
        elif config.train.init_as != "exact":
            params = rounded(params, config.train.init_as)
        return view, stored.step, params
    except UsageError as error:
        raise UsageError(f"train.init_from={text}: {error}") from error


class StoredNetwork(NamedTuple):
    """The network of a checkpoint.

    Attributes:
        config: of its run.
        params: as NumPy arrays.
        step: that it was saved at.
    """

    config: Config
    params: Params
    step: int | None


def read_network(text: str) -> StoredNetwork:
    """The network of a checkpoint, `RUN` or `RUN:best`, `RUN:latest`, `RUN:100`.

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
    state, metadata = checkpoints.restore(kind, like, step)
    return StoredNetwork(source, state["params"], metadata.get("step", step))


def _fitting(source: str, params: Params, needed: Params) -> dict[str, Any]:
    """Parameters in the types of a network.

    Raises:
        UsageError: they are not those that it needs.
    """
    problems = _problems(_leaves_by_name(params), _leaves_by_name(needed))
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise UsageError(f"{source}: does not fit this network: {'; '.join(problems[:SHOWN])}{more}")
    return jax.tree.map(lambda a, leaf: jnp.asarray(a, leaf.dtype), params, needed)


def _leaves_by_name(params: PyTree) -> dict[str, Any]:
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
