"""Weights from and to Haiku: the parameters of `hk.transform`, by module."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gru_jax.cells import GRU, LSTM, Cell, Elman, Params
from gru_jax.errors import UsageError, check_choice, listing
from gru_jax.interop.weights import (
    Fused,
    Network,
    Weights,
    as_array,
    by_layer,
    check_mapping,
    check_shapes,
    fuse,
    refuse,
    unfuse,
    weights_of,
)

CELL, RNN = GRU("before", "write"), Elman("relu")
MODULE = re.compile(r"(?P<parent>(?:.*/)?)(?:gru|lstm|vanilla_rnn)(?:_(?P<number>\d+))?")
GRU_ARRAYS = ("w_i", "w_h", "b")
LSTM_GATES = "info"
Names = Sequence[str | Sequence[str]]


def from_haiku(params: Mapping[str, Mapping[str, Any]], names: Names | None = None) -> Weights:
    """The weights of `hk.GRU`, `hk.LSTM` or `hk.VanillaRNN` cores among the parameters of `hk.transform`.

    They are of `GRU("before", "write")`, `LSTM()`, `Elman("relu")`. Haiku adds 1 to the forget gate of an LSTM, which
    our bias then holds.

    Args:
        params: arrays by module and name.
        names: of each layer's module, bottom to top, as `"gru"`; or of the forward and the backward one,
            `("gru", "gru_1")`. By default all modules with Haiku's own names and one parent, in the order of their
            numbers, each a layer.

    Raises:
        UsageError: there is no such module, or its arrays fit nowhere: they are listed with their shapes; without
            `names`, there are modules of several parents or with names of your own.

    Examples:
        >>> import numpy as np
        >>> from gru_jax import interop
        >>> params = {"gru": {"w_i": np.ones((2, 9)), "w_h": np.ones((3, 9)), "b": np.zeros(9)}}
        >>> interop.from_haiku(params).cell
        GRU(reset='before', update='write', output_gate=False, activation='tanh')
    """
    check_mapping(params, "Haiku", "are parameters by module and name, as hk.transform's init gives them")
    for module in params:
        check_mapping(params[module], "Haiku", f"are the arrays of {module} by name")
    cores = _cores(params)
    if not cores:
        raise UsageError(f"weights of Haiku: no gru, lstm or vanilla_rnn among {listing(params) or 'nothing'}")
    directions = _directions(_in_order(cores) if names is None else names)
    cells, layers = [], []
    for layer in directions:
        for name in layer:
            check_choice("names", name, cores)
        parts = [_read(params, name) for name in layer]
        cells += [cell for cell, _ in parts]
        layers.append(tuple(arrays for _, arrays in parts))
    if len(set(cells)) > 1:
        modules = listing(name for layer in directions for name in layer)
        raise UsageError(f"weights of Haiku: modules of several kinds, {modules}; name those of one")
    return check_shapes(Weights(cells[0], tuple(layers)), "Haiku")


def to_haiku(network: Network | Weights, names: Names | None = None) -> dict[str, dict[str, np.ndarray]]:
    """A network's recurrent layers as parameters of Haiku, without its head.

    Args:
        network: a layer, a stack or a model of `gru_jax.nn`, or `Weights`.
        names: as those of `from_haiku`; by default `gru`, `gru_1`, …, forward before backward.

    Raises:
        UsageError: Haiku has no such cell, or the names are not one for each layer and direction, all different.

    Examples:
        >>> from flax import nnx
        >>> from gru_jax import cells, interop, nn
        >>> params = interop.to_haiku(nn.Stack(cells.GRU(reset="before"), 2, (3, 4), rngs=nnx.Rngs(0)))
        >>> {module: arrays["w_h"].shape for module, arrays in params.items()}
        {'gru': (3, 9), 'gru_1': (4, 12)}
    """
    original = weights_of(network)
    weights = original.with_update("write")
    if weights.cell not in (CELL, LSTM(), RNN):
        raise refuse("Haiku", original.cell, "GRU with reset='before', LSTM, Elman with relu")
    if names is None:
        base = {GRU: "gru", LSTM: "lstm", Elman: "vanilla_rnn"}[type(weights.cell)]
        flat = [f"{base}_{i}" if i else base for i in range(len(weights.layers) * len(weights.layers[0]))]
        names = by_layer(flat, weights.bidirectional)
    directions = _directions(names)
    counts = [[len(layer) for layer in layers] for layers in (directions, weights.layers)]
    if counts[0] != counts[1]:
        raise UsageError(
            f"names: of {len(counts[0])} layers with {listing(counts[0])} directions; "
            f"the network has {len(counts[1])} with {listing(counts[1])}"
        )
    modules = {}
    for layer, parts in zip(directions, weights.layers, strict=True):
        for name, params in zip(layer, parts, strict=True):
            arrays = _write(weights.cell, params, name)
            if arrays.keys() & modules.keys():
                raise UsageError(f"names: {name!r} is there twice; every layer and direction has a module of its own")
            modules |= arrays
    return modules


def _cores(params: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The modules that may be recurrent cores: those with the arrays of a GRU, and those of one or two linear ones."""
    cores = [name for name in params if set(GRU_ARRAYS) <= set(params[name]) or MODULE.fullmatch(name)]
    for name in params:
        parent = name.removesuffix("/linear")
        inner = {other for other in params if other.startswith(f"{parent}/")}
        if parent != name and inner <= {name, f"{name}_1"} and _is_core(params, parent):
            cores.append(parent)
    return cores


def _is_core(params: Mapping[str, Mapping[str, Any]], name: str) -> bool:
    """Whether the linear modules in a module are those of a `VanillaRNN`, `[D, H]` and `[H, H]`, or `[D + H, 4 H]`."""
    if MODULE.fullmatch(name):
        return True  # where they do not fit it is said how
    inner, outer = (np.shape(params.get(f"{name}/{linear}", {}).get("w", 0.0)) for linear in ("linear", "linear_1"))
    if len(outer) == 2:
        return outer[0] == outer[1] == inner[-1]
    return len(inner) == 2 and inner[1] % 4 == 0 and inner[0] > inner[1] // 4


def _in_order(cores: Sequence[str]) -> list[str]:
    """The modules by their numbers, if their names tell an order.

    Raises:
        UsageError: they are of several parents, or not all have Haiku's own names.
    """
    matches = {name: MODULE.fullmatch(name) for name in cores}
    parents = {match["parent"] if match else name for name, match in matches.items()}
    if len(parents) > 1 or None in matches.values():
        raise UsageError(
            f"weights of Haiku: the names {listing(cores)} do not tell the order of layers; say names=[…] of those "
            "that are layers, bottom to top"
        )
    return sorted(cores, key=lambda name: int(name.rpartition("_")[2]) if name[-1].isdigit() else 0)


def _directions(names: Any) -> list[tuple[str, ...]]:
    """The names of every layer's modules, the forward one first.

    Raises:
        UsageError: there are none, or a layer's are neither one nor two.
    """
    listed = [names] if isinstance(names, str) else names
    directions = [(layer,) if isinstance(layer, str) else layer for layer in listed]
    for layer in directions:
        is_pair = isinstance(layer, Sequence) and 1 <= len(layer) <= 2
        if not is_pair or not all(isinstance(name, str) and name for name in layer):
            raise UsageError(f"names: {layer!r}; a layer is a module's name, or those of a forward and a backward one")
    if not directions or len({len(layer) for layer in directions}) > 1:
        raise UsageError(f"names={names!r}: needed are layers, of as many directions each")
    return [tuple(layer) for layer in directions]


def _read(params: Mapping[str, Mapping[str, Any]], name: str) -> tuple[Cell, Mapping[str, Any]]:
    """One core's cell and its parameters in our layout."""
    if name in params:
        w_i, w_h, b = _arrays(params, name, GRU_ARRAYS)
        return CELL, unfuse(CELL, Fused(w_i, w_h, b, np.zeros_like(b)), "zrn")
    kernel, bias = _arrays(params, f"{name}/linear", ("w", "b"))
    if f"{name}/linear_1" in params:
        has_bias = "b" in params[f"{name}/linear_1"]
        recurrent, *biases = _arrays(params, f"{name}/linear_1", ("w", "b")[: 1 + has_bias])
        return RNN, unfuse(RNN, Fused(kernel, recurrent, bias, *biases or (np.zeros_like(bias),)), "n")
    inputs = kernel.shape[0] - bias.size // 4 if kernel.ndim == 2 else 0
    if inputs < 1:
        raise UsageError(f"weights of Haiku: {name}/linear fits no LSTM: w {list(kernel.shape)}, b {list(bias.shape)}")
    fused = Fused(kernel[:inputs], kernel[inputs:], bias, np.zeros_like(bias))
    arrays = unfuse(LSTM(), fused, LSTM_GATES)
    return LSTM(), {**arrays, "b": {**arrays["b"], "f": arrays["b"]["f"] + 1}}


def _arrays(params: Mapping[str, Mapping[str, Any]], module: str, names: Sequence[str]) -> list[np.ndarray]:
    """A module's arrays, if it has these and no others."""
    if set(params[module]) != set(names):
        raise UsageError(
            f"weights of Haiku: {module} has {listing(params[module]) or 'nothing'}; needed are {listing(names)}"
        )
    return [as_array(params[module][name], f"{name} of {module}", "Haiku") for name in names]


def _write(cell: Cell, params: Params, name: str) -> dict[str, dict[str, np.ndarray]]:
    """One direction of a layer as Haiku's modules."""
    if isinstance(cell, LSTM):
        bias = {**params["b"], "f": params["b"]["f"] - 1}
        kernel, recurrent, bias, _ = fuse({**params, "b": bias}, LSTM_GATES)
        return {f"{name}/linear": {"w": np.concatenate([kernel, recurrent]), "b": bias}}
    if cell == RNN:
        kernel, recurrent, bias, outer = fuse(params, "n")
        return {f"{name}/linear": {"w": kernel, "b": bias}, f"{name}/linear_1": {"w": recurrent, "b": outer}}
    kernel, recurrent, bias, _ = fuse(params, "zrn")
    return {name: {"w_i": kernel, "w_h": recurrent, "b": bias}}
