"""Whole units taken out of a network, which is then a smaller network and faster by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import PyTree

from gru_jax.errors import UsageError
from gru_jax.nn import CellPlace

HEAD, ATTENTION = "head", "attention"
INPUT_KERNELS, RECURRENT_KERNELS = "W", "U"


def prune_units(
    params: Mapping[str, Any], layers: Sequence[Sequence[CellPlace]], sizes: Sequence[int]
) -> dict[str, Any]:
    """The parameters of a network with fewer units in its layers: those that matter most stay, in their order.

    A unit matters by what reads it: the share that its row has of the squared norm of every kernel that multiplies its
    state, its own layer's, the next one's or the head's, added up. That is the magnitude criterion of structured
    pruning (Li et al. 2017, arXiv:1608.08710), on outgoing weights.

    Args:
        params: nested dicts, as of a `SequenceModel`.
        layers: where its cells are, bottom to top.
        sizes: units of each layer that stay.

    Raises:
        UsageError: there are more of them than the network has, of another number of layers, or no head that reads
            them alone.

    Examples:
        >>> import jax
        >>> from gru_jax import cells, nn
        >>> from gru_jax.deploy.pruning import prune_units
        >>> model = nn.functional(lambda rngs: nn.SequenceModel(cells.GRU(), 2, (8, 8), 3, rngs=rngs))
        >>> smaller = prune_units(model.init(jax.random.key(0)), model.layers, (4, 3))
        >>> smaller["stack"]["layer_1"]["weights"]["U"]["n"].shape, smaller["head"]["kernel"].shape
        ((3, 3), (3, 3))
    """
    units = [places[0].units for places in layers]
    if len(sizes) != len(units) or any(size > unit for size, unit in zip(sizes, units, strict=True)):
        raise UsageError(f"model.hidden={list(sizes)}: allowed are as many layers, of up to {units} units")
    if "kernel" not in params.get(HEAD, {}):
        raise UsageError("units: the network has no linear head of its own, whose inputs could go")
    if ATTENTION in params:
        raise UsageError("units: the readout attention maps states onto themselves; allowed are the other readouts")
    pruned, inputs = _copied(params), None  # the inputs of a layer that stay, None for all
    for number, (places, size) in enumerate(zip(layers, sizes, strict=True)):
        following = layers[number + 1] if number + 1 < len(layers) else None
        staying = [_most_important(params, place, following, size) for place in places]
        for place, kept in zip(places, staying, strict=True):
            _put(pruned, place.path, _cell_of(place.parameters(params), inputs, kept))
        inputs = np.concatenate([place.part * place.units + kept for place, kept in zip(places, staying, strict=True)])
    pruned[HEAD] = {**pruned[HEAD], "kernel": np.asarray(params[HEAD]["kernel"])[inputs]}
    return pruned


def _most_important(
    params: Mapping[str, Any], place: CellPlace, following: Sequence[CellPlace] | None, size: int
) -> np.ndarray:
    """The units of a cell that stay, `[size]`, in their order."""
    rows = slice(place.part * place.units, (place.part + 1) * place.units)
    above = [params[HEAD]["kernel"]] if following is None else [
        kernel for reader in following for kernel in reader.parameters(params)[INPUT_KERNELS].values()
    ]  # fmt: skip
    readers = [np.asarray(kernel)[rows] for kernel in above]
    readers += [np.asarray(kernel) for kernel in place.parameters(params).get(RECURRENT_KERNELS, {}).values()]
    importance = np.zeros(place.units)
    for kernel in readers:
        squares = np.square(kernel.astype(np.float64)).sum(axis=1)
        importance += squares / max(squares.sum(), np.finfo(float).tiny)
    return np.sort(np.argsort(-importance, kind="stable")[:size])


def _cell_of(params: Mapping[str, Any], inputs: np.ndarray | None, kept: np.ndarray) -> dict[str, Any]:
    """The parameters of a cell with some of its inputs and units."""

    def smaller(group: str, array: Any) -> np.ndarray:
        array = np.asarray(array)[..., kept]
        if array.ndim == 1:
            return array
        rows = inputs if group == INPUT_KERNELS else kept
        return array if rows is None else array[rows]

    return {group: {gate: smaller(group, a) for gate, a in by_gate.items()} for group, by_gate in params.items()}


def _copied(tree: PyTree) -> PyTree:
    return {name: _copied(part) for name, part in tree.items()} if isinstance(tree, Mapping) else tree


def _put(tree: dict[str, Any], path: Sequence[str], value: object) -> None:
    for name in path[:-1]:
        tree = tree[name]
    tree[path[-1]] = value
