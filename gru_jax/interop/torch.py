"""Weights from and to PyTorch: state dicts as arrays, and safetensors files with their names."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gru_jax.cells import GRU, LSTM, Cell, Elman
from gru_jax.errors import UsageError
from gru_jax.interop.weights import (
    COMMON,
    Fused,
    Network,
    Weights,
    by_layer,
    cell_of,
    check_shapes,
    fuse,
    refuse,
    unfuse,
    weights_of,
)

GATES = {GRU: "rzn", LSTM: "ifno", Elman: "n"}
NAME = re.compile(r"(?P<prefix>(?:.*\.)?)(?P<array>(?:weight|bias)_[ih]h)(?:_l(?P<layer>\d+)(?P<reverse>_reverse)?)?")
ARRAYS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
Key = tuple[int, bool]  # number of the layer, whether it runs backwards


def from_torch(weights: Mapping[str, Any] | str | os.PathLike[str], cell: Cell | None = None) -> Weights:
    """The weights of `torch.nn.GRU`, `LSTM`, `RNN` (or their `…Cell`), and perhaps of one linear layer, the head.

    Names before `weight_ih_l0`, `rnn.` say, may be any. A layer's two biases become one where ours has one.

    Args:
        weights: a state dict, of tensors or arrays by name, or a safetensors file.
        cell: to be taken for `GRU()`, `LSTM()`, `Elman()`: an RNN with `nonlinearity="relu"` is `Elman("relu")`.

    Raises:
        UsageError: something is missing, or fits nowhere: it is listed with its shape.

    Examples:
        >>> import jax.numpy as jnp, numpy as np
        >>> from gru_jax import interop
        >>> state_dict = {"rnn.weight_ih_l0": np.ones((9, 2)), "rnn.weight_hh_l0": np.ones((9, 3))}
        >>> state_dict |= {"rnn.bias_ih_l0": np.zeros(9), "rnn.bias_hh_l0": np.zeros(9)}
        >>> state_dict |= {"fc.weight": np.ones((1, 3)), "fc.bias": np.zeros(1)}
        >>> weights = interop.from_torch(state_dict).astype("float32")
        >>> weights.cell
        GRU(reset='after', update='keep', output_gate=False, activation='tanh')
        >>> weights.model(readout="last")(jnp.ones((4, 5, 2))).shape
        (4, 1)
    """
    arrays = read_safetensors(weights) if isinstance(weights, str | os.PathLike) else _as_arrays(weights)
    cells, others = _recurrent_arrays(arrays)
    last = max(layer for layer, _ in cells)
    bidirectional = (0, True) in cells
    order = [(layer, reverse) for layer in range(last + 1) for reverse in (False, True)[: 1 + bidirectional]]
    has_biases = any({"bias_ih", "bias_hh"} & set(arrays_of_cell) for arrays_of_cell in cells.values())
    needed = ARRAYS if has_biases else ARRAYS[:2]
    missing = [f"{name}_{_suffix(key)}" for key in order for name in needed if name not in cells.get(key, {})]
    if missing or set(cells) - set(order):
        raise UsageError(f"weights of PyTorch: missing {', '.join(missing or ['weight_ih_l0'])}")
    fused = [_fused(cells[key]) for key in order]
    cell = cell_of(fused[0], cell, "PyTorch")
    if cell not in COMMON:
        raise refuse("PyTorch", cell, "GRU(), LSTM(), Elman('tanh') and Elman('relu')")
    params = [unfuse(cell, one, GATES[type(cell)]) for one in fused]
    return check_shapes(Weights(cell, by_layer(params, bidirectional), _head(others)), "PyTorch")


def to_torch(network: Network | Weights, rnn: str = "", head: str = "head.") -> dict[str, np.ndarray]:
    """A network as a state dict of `torch.nn.GRU`, `LSTM` or `RNN`; a model's head as one of `torch.nn.Linear`.

    Args:
        network: a layer, a stack or a model of `gru_jax.nn`, or `Weights`.
        rnn: put before the names of the recurrent layers.
        head: put before those of the head.

    Raises:
        UsageError: PyTorch has no such cell, or its layers could not be of these sizes.

    Examples:
        >>> from flax import nnx
        >>> from gru_jax import cells, interop, nn
        >>> state_dict = interop.to_torch(nn.Stack(cells.GRU(), 2, (3, 3), rngs=nnx.Rngs(0)))
        >>> {name: array.shape for name, array in state_dict.items() if name.startswith("weight")}
        {'weight_ih_l0': (9, 2), 'weight_hh_l0': (9, 3), 'weight_ih_l1': (9, 3), 'weight_hh_l1': (9, 3)}
    """
    original = weights_of(network)
    weights = original.with_update("keep")
    if len(set(weights.hidden_sizes)) > 1:
        raise UsageError(f"PyTorch has layers of one size alone; these are of {weights.hidden_sizes}")
    if weights.cell not in COMMON:
        raise refuse("PyTorch", original.cell, "GRU with reset='after', LSTM, Elman with tanh or relu")
    state = {}
    for number, directions in enumerate(weights.layers):
        for reverse, params in enumerate(directions):
            kernel, recurrent, bias, outer = fuse(params, GATES[type(weights.cell)])
            arrays = zip(ARRAYS, (kernel.T, recurrent.T, bias, outer), strict=True)
            state |= {f"{rnn}{name}_{_suffix((number, bool(reverse)))}": np.ascontiguousarray(a) for name, a in arrays}
    if weights.head is not None:
        state[f"{head}weight"] = np.ascontiguousarray(np.asarray(weights.head["kernel"]).T)
        state[f"{head}bias"] = np.asarray(weights.head["bias"])
    return state


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file by name.

    Raises:
        UsageError: the file or the library is missing, or it is no such file.
    """
    library = _safetensors()
    if not Path(path).is_file():
        raise UsageError(f"{path}: no such file")
    try:
        return library.load_file(path)
    except Exception as error:  # whatever a damaged file makes it raise, its own classes among them
        raise UsageError(f"{path}: not a safetensors file: {error}") from None


def save_safetensors(
    network: Network | Weights, path: str | os.PathLike[str], rnn: str = "", head: str = "head."
) -> None:
    """Write a network as a safetensors file with PyTorch's names; the other arguments are those of `to_torch`.

    Examples:
        >>> import tempfile
        >>> from flax import nnx
        >>> from gru_jax import cells, interop, nn
        >>> path = f"{tempfile.mkdtemp()}/gru.safetensors"
        >>> interop.save_safetensors(nn.Stack(cells.GRU(), 2, (3,), rngs=nnx.Rngs(0)), path)
        >>> interop.from_torch(path).hidden_sizes
        (3,)
    """
    _safetensors().save_file(to_torch(network, rnn, head), path)


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise UsageError("safetensors: not installed; pip install 'gru_jax[safetensors]' brings it") from None
    return safetensors.numpy


def _as_arrays(weights: Mapping[str, Any]) -> dict[str, np.ndarray]:
    arrays = {}
    for name, value in weights.items():
        try:
            arrays[name] = np.asarray(value)
        except (TypeError, RuntimeError) as error:
            raise UsageError(f"{name}: not an array of NumPy's, nor to be made one: {error}") from None
    return arrays


def _recurrent_arrays(arrays: Mapping[str, np.ndarray]) -> tuple[dict[Key, dict[str, np.ndarray]], dict[str, Any]]:
    """The arrays of the recurrent layers, by layer and direction; and the others."""
    cells: dict[Key, dict[str, np.ndarray]] = {}
    others, prefixes = {}, set()
    for name, array in arrays.items():
        match = NAME.fullmatch(name)
        if match is None:
            others[name] = array
            continue
        prefixes.add(match["prefix"])
        key = (int(match["layer"] or 0), match["reverse"] is not None)
        cells.setdefault(key, {})[match["array"]] = array
    if not cells:
        raise UsageError(f"weights of PyTorch: none is named weight_ih_l0; there are {_listing(arrays)}")
    if len(prefixes) > 1:
        raise UsageError(
            f"weights of PyTorch: of several recurrent modules, {', '.join(sorted(prefixes))}; give those of one"
        )
    return cells, others


def _fused(arrays: Mapping[str, np.ndarray]) -> Fused:
    """One direction of a layer; without biases (`bias=False`) they are zeros."""
    zeros = np.zeros_like(arrays["weight_hh"][:, 0])
    kernel, recurrent = arrays["weight_ih"].T, arrays["weight_hh"].T
    return Fused(kernel, recurrent, arrays.get("bias_ih", zeros), arrays.get("bias_hh", zeros))


def _head(others: Mapping[str, np.ndarray]) -> dict[str, np.ndarray] | None:
    """The linear layer among what is not recurrent."""
    if not others:
        return None
    names = {name.rpartition(".")[2]: name for name in others}
    if len(others) != 2 or set(names) != {"weight", "bias"} or others[names["weight"]].ndim != 2:
        raise UsageError(
            f"weights of PyTorch fit nowhere: {_listing(others)}; "
            "beside the recurrent module there may be one linear layer"
        )
    return {"kernel": others[names["weight"]].T, "bias": others[names["bias"]]}


def _suffix(key: Key) -> str:
    return f"l{key[0]}{'_reverse' if key[1] else ''}"


def _listing(arrays: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {list(np.shape(a))}" for name, a in arrays.items()) or "nothing"
