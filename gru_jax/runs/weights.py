"""The weights of a file that a run starts from."""

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
from gru_jax.errors import UsageError
from gru_jax.runtime.devices import precision
from gru_jax.runtime.processes import log_once
from gru_jax.training.step import Trainer

logger = logging.getLogger(__name__)


SHOWN = 4  # problems that are listed


def starting_weights(config: Config, *, tells: bool = True) -> dict[str, Any] | None:
    """The parameters in the file that `model.weights` names, which take the place of those drawn; None without one.

    Raises:
        UsageError: there is no such file, or it does not hold this network; what fits nowhere is listed.
    """
    path, cell = config.model.weights, config.model.cell
    if path is None:
        return None
    try:
        weights = interop.from_torch(path, dataclasses.replace(cell, update="keep") if isinstance(cell, GRU) else cell)
    except UsageError as error:
        raise UsageError(f"model.weights={path}: {error}") from None
    weights = weights.with_update(getattr(cell, "update", "keep"))
    if weights.head is None and tells:
        log_once(logger, f"{path} has no head; it is drawn")
    with precision(config.dtype, config.matmul_precision):  # float64 parameters exist in it alone
        params = jax.eval_shape(Trainer(config).init, config.seed, traced_hyperparameters(config)).params
        needed = {name: params[name] for name in weights.params}
        problems = _problems(_leaves_by_name(weights.params), _leaves_by_name(needed))
        if problems:
            more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
            raise UsageError(f"model.weights={path}: does not fit this network: {'; '.join(problems[:SHOWN])}{more}")
        return jax.tree.map(lambda a, leaf: jnp.asarray(a, leaf.dtype), weights.params, needed)


def starting_weights_of_members(configs: Sequence[Config]) -> list[dict[str, Any] | None]:
    """The same of each member of a population, which have one network: every file is read and checked once."""
    by_path: dict[str | None, dict[str, Any] | None] = {}
    for config in configs:
        if config.model.weights not in by_path:
            by_path[config.model.weights] = starting_weights(config)
    return [by_path[config.model.weights] for config in configs]


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
