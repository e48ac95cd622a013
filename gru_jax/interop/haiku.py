"""Weights from and to Haiku: the parameters of `hk.transform`, by module."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gru_jax.cells import GRU, LSTM, Cell, Elman
from gru_jax.errors import UsageError, check_choice
from gru_jax.interop.weights import Fused, Network, Weights, check_shapes, fuse, refuse, unfuse, weights_of

CELL, RNN = GRU("before", "write"), Elman("relu")
MODULE = re.compile(r"((?:.*/)?(?:gru|lstm|vanilla_rnn)(?:_(\d+))?)(?:/linear(?:_1)?)?")
LSTM_GATES = "info"
Names = Sequence[str | tuple[str, str]]


def from_haiku(params: Mapping[str, Mapping[str, Any]], names: Names | None = None) -> Weights:
    """The weights of `hk.GRU`, `hk.LSTM` or `hk.VanillaRNN` cores among the parameters of `hk.transform`.

    They are of `GRU("before", "write")`, `LSTM()`, `Elman("relu")`. Haiku adds 1 to the forget gate of an LSTM, which
    our bias then holds.

    Args:
        params: arrays by module and name.
        names: of each layer's module, bottom to top, as `"gru"`; or of the forward and the backward one,
            `("gru", "gru_1")`. By default all such modules, in the order of their numbers, each a layer.

    Raises:
        UsageError: there is no such module, or its arrays fit nowhere: they are listed with their shapes.

    Examples:
        >>> import numpy as np
        >>> from gru_jax import interop
        >>> params = {"gru": {"w_i": np.ones((2, 9)), "w_h": np.ones((3, 9)), "b": np.zeros(9)}}
        >>> interop.from_haiku(params).cell
        GRU(reset='before', update='write', output_gate=False, activation='tanh')
    """
    numbers = {match[1]: int(match[2] or 0) for match in map(MODULE.fullmatch, params) if match}
    if names is None:
        names = sorted(numbers, key=lambda name: numbers[name])
    directions = [(name,) if isinstance(name, str) else tuple(name) for name in names]
    if not directions:
        raise UsageError(f"weights of Haiku: no gru, lstm or vanilla_rnn among {', '.join(params) or 'nothing'}")
    for name in (name for layer in directions for name in layer):
        check_choice("names", name, numbers)
    cells, layers = [], []
    for layer in directions:
        parts = [_read(params, name) for name in layer]
        cells += [cell for cell, _ in parts]
        layers.append(tuple(arrays for _, arrays in parts))
    if len(set(cells)) > 1:
        raise UsageError(f"weights of Haiku: modules of several kinds, {', '.join(numbers)}; name those of one")
    return check_shapes(Weights(cells[0], tuple(layers)), "Haiku")


def to_haiku(network: Network | Weights, names: Names | None = None) -> dict[str, dict[str, np.ndarray]]:
    """A network's recurrent layers as parameters of Haiku, without its head.

    Args:
        network: a layer, a stack or a model of `gru_jax.nn`, or `Weights`.
        names: as those of `from_haiku`; by default `gru`, `gru_1`, …, forward before backward.

    Raises:
        UsageError: Haiku has no such cell.

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
    cells = [params for directions in weights.layers for params in directions]
    if names is None:
        base = {GRU: "gru", LSTM: "lstm", Elman: "vanilla_rnn"}[type(weights.cell)]
        names = [f"{base}_{i}" if i else base for i in range(len(cells))]
    flat = [name for layer in names for name in ((layer,) if isinstance(layer, str) else layer)]
    if len(flat) != len(cells):
        raise UsageError(f"names: {len(flat)} for {len(cells)} layers and directions")
    modules = {}
    for name, params in zip(flat, cells, strict=True):
        modules |= _write(weights.cell, params, name)
    return modules


def _read(params: Mapping[str, Mapping[str, Any]], name: str) -> tuple[Cell, Mapping[str, Any]]:
    """One core's cell and its parameters in our layout."""
    try:
        if name in params:
            w_i, w_h, b = (np.asarray(params[name][key]) for key in ("w_i", "w_h", "b"))
            return CELL, unfuse(CELL, Fused(w_i, w_h, b, np.zeros_like(b)), "zrn")
        first = {key: np.asarray(a) for key, a in params[f"{name}/linear"].items()}
        if f"{name}/linear_1" in params:
            second = {key: np.asarray(a) for key, a in params[f"{name}/linear_1"].items()}
            fused = Fused(first["w"], second["w"], first["b"], second.get("b", np.zeros_like(first["b"])))
            return RNN, unfuse(RNN, fused, "n")
        size = first["b"].size // 4
        kernel, recurrent = np.split(first["w"], [first["w"].shape[0] - size])
        arrays = unfuse(LSTM(), Fused(kernel, recurrent, first["b"], np.zeros_like(first["b"])), LSTM_GATES)
    except KeyError as error:
        raise UsageError(f"weights of Haiku: {name} has no {error}") from None
    return LSTM(), {**arrays, "b": {**arrays["b"], "f": arrays["b"]["f"] + 1}}


def _write(cell: Cell, params: Mapping[str, Any], name: str) -> dict[str, dict[str, np.ndarray]]:
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
