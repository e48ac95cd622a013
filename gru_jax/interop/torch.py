"""Weights from and to PyTorch: state dicts as arrays, and safetensors files with their names."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gru_jax.cells import GRU, LSTM, Cell, Elman
from gru_jax.errors import UsageError, check_choice, in_one_line, listing
from gru_jax.interop.weights import (
    COMMON,
    Fused,
    Network,
    Weights,
    as_array,
    by_layer,
    cell_of,
    check_mapping,
    check_shapes,
    fuse,
    refuse,
    unfuse,
    weights_of,
)

GATES = {GRU: "rzn", LSTM: "ifno", Elman: "n"}
NAME = re.compile(
    r"(?P<prefix>(?:.*\.)?)(?P<array>(?:weight|bias)_[ih]h|weight_hr)(?:_l(?P<layer>\d+)(?P<reverse>_reverse)?)?"
)
ARRAYS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
Key = tuple[int, bool]  # number of the layer, whether it runs backwards


def from_torch(
    weights: Mapping[str, Any] | str | os.PathLike[str], cell: Cell | None = None, *, head: str | None = None
) -> Weights:
    """The weights of `torch.nn.GRU`, `LSTM`, `RNN` (or their `…Cell`), and perhaps of one linear layer, the head.

    Names before `weight_ih_l0`, `rnn.` say, may be any. A layer's two biases become one where ours has one. Biases that
    are not there (`bias=False`) are zeros, the head's too.

    Args:
        weights: a state dict, of tensors or arrays by name, or a safetensors file.
        cell: to be taken for `GRU()`, `LSTM()`, `Elman()`: an RNN with `nonlinearity="relu"` is `Elman("relu")`.
        head: what is before the names of the head, `"fc."` say. To be given where the linear layer might as well be one
            before the recurrent module: where its shape fits both and it is neither behind it in the state dict
            (the names of a file have no order) nor called `head.`.

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
    is_file = isinstance(weights, str | os.PathLike)
    if is_file:
        weights = read_safetensors(weights)
    check_mapping(weights, "PyTorch", "are a state dict, module.state_dict(), or the path of a safetensors file")
    arrays = {name: as_array(value, name, "PyTorch") for name, value in weights.items()}
    cells, others = _recurrent_arrays(arrays)
    fused = _fused(cells)
    cell = cell_of(fused[0].recurrent, cell, "PyTorch")
    if cell not in COMMON:
        raise refuse("PyTorch", cell, "GRU(), LSTM(), Elman('tanh') and Elman('relu')")
    params = [unfuse(cell, one, GATES[type(cell)]) for one in fused]
    linear, prefix = _head(others, head)
    read = check_shapes(Weights(cell, by_layer(params, any(reverse for _, reverse in cells)), linear), "PyTorch")
    is_behind = not is_file and next(reversed(arrays)) in others
    if linear is not None and head is None and prefix != "head." and not is_behind:
        _check_is_head(read, prefix)
    return read


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

    Raises:
        UsageError: as `to_torch`; or the file cannot be written, its folder missing say.

    Examples:
        >>> import tempfile
        >>> from flax import nnx
        >>> from gru_jax import cells, interop, nn
        >>> path = f"{tempfile.mkdtemp()}/gru.safetensors"
        >>> interop.save_safetensors(nn.Stack(cells.GRU(), 2, (3,), rngs=nnx.Rngs(0)), path)
        >>> interop.from_torch(path).hidden_sizes
        (3,)
    """
    library, arrays = _safetensors(), to_torch(network, rnn, head)
    try:
        library.save_file(arrays, path)
    except Exception as error:  # its own class, which is no OSError, where the folder is missing
        raise UsageError(f"{path}: cannot be written: {in_one_line(error)}") from None


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise UsageError("safetensors: not installed; pip install 'gru_jax[safetensors]' brings it") from None
    return safetensors.numpy


def _recurrent_arrays(
    arrays: Mapping[str, np.ndarray],
) -> tuple[dict[Key, dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """The arrays of the recurrent layers, by layer and direction; and the others.

    Raises:
        UsageError: there are none, they are of several modules, or one is there twice.
    """
    cells: dict[Key, dict[str, np.ndarray]] = {}
    others, names = {}, {}
    for name, array in arrays.items():
        match = NAME.fullmatch(name)
        if match is None:
            others[name] = array
            continue
        if match["array"] == "weight_hr":
            raise UsageError(
                f"weights of PyTorch fit nowhere: {name} {list(array.shape)}, which an LSTM with proj_size has; "
                "no cell here projects its state"
            )
        key = (int(match["layer"] or 0), match["reverse"] is not None)
        names.setdefault(match["prefix"], {}).setdefault((key, match["array"]), []).append(name)
        cells.setdefault(key, {})[match["array"]] = array
    if not cells:
        raise UsageError(f"weights of PyTorch: none is named weight_ih_l0; there are {_listing(arrays)}")
    if len(names) > 1:
        raise UsageError(
            f"weights of PyTorch: of several recurrent modules, {listing(sorted(names))}; give those of one"
        )
    twice = [same for by_key in names.values() for same in by_key.values() if len(same) > 1]
    if twice:
        raise UsageError(f"weights of PyTorch: {' and '.join(twice[0])} are one array of one layer; give one of them")
    return cells, others


def _fused(cells: Mapping[Key, Mapping[str, np.ndarray]]) -> list[Fused]:
    """Every layer and direction in order; without biases (`bias=False`) they are zeros.

    Raises:
        UsageError: an array or a whole layer is missing, or a weight is no matrix.
    """
    numbers = sorted({number for number, _ in cells})
    if numbers != list(range(len(numbers))):
        raise UsageError(f"weights of PyTorch: layers {listing(numbers)}; they are numbered from 0 without a gap")
    bidirectional = any(reverse for _, reverse in cells)
    order = [(number, reverse) for number in numbers for reverse in (False, True)[: 1 + bidirectional]]
    has_biases = any({"bias_ih", "bias_hh"} & set(arrays) for arrays in cells.values())
    needed = ARRAYS if has_biases else ARRAYS[:2]
    missing = [f"{name}_{_suffix(key)}" for key in order for name in needed if name not in cells.get(key, {})]
    if missing:
        raise UsageError(f"weights of PyTorch: missing {listing(missing)}")
    wrong = {f"{name}_{_suffix(key)}": cells[key][name] for key in order for name in ARRAYS[:2]}
    wrong = {name: a for name, a in wrong.items() if a.ndim != 2}
    if wrong:
        raise UsageError(f"weights of PyTorch fit nowhere: {_listing(wrong)}; a weight has two axes")
    fused = []
    for key in order:
        arrays = cells[key]
        zeros = np.zeros(arrays["weight_hh"].shape[0], arrays["weight_hh"].dtype)
        biases = (arrays.get(name, zeros) for name in ARRAYS[2:])
        fused.append(Fused(arrays["weight_ih"].T, arrays["weight_hh"].T, *biases))
    return fused


def _head(others: Mapping[str, np.ndarray], head: str | None) -> tuple[dict[str, np.ndarray] | None, str]:
    """The linear layer among what is not recurrent, and what is before its names.

    Raises:
        UsageError: there is none of this name, or what is there is not one linear layer.
    """
    prefixes = [name.removesuffix("weight") for name in others if re.fullmatch(r"(?:.*\.)?weight", name)]
    if head is not None:
        check_choice("head", head, prefixes or [None])
    if not others:
        return None, ""
    prefix = prefixes[0] if prefixes else ""
    kernel = others.get(f"{prefix}weight")
    if kernel is None or kernel.ndim != 2 or not set(others) <= {f"{prefix}weight", f"{prefix}bias"}:
        raise UsageError(
            f"weights of PyTorch fit nowhere: {_listing(others)}; "
            "beside the recurrent module there may be one linear layer"
        )
    bias = others.get(f"{prefix}bias", np.zeros(kernel.shape[0], kernel.dtype))
    return {"kernel": kernel.T, "bias": bias}, prefix


def _check_is_head(weights: Weights, prefix: str) -> None:
    """Refuse a linear layer that might be the one before the recurrent module, into whose input it fits."""
    kernel = (weights.head or {})["kernel"]
    if kernel.shape[1] == weights.input_size:
        raise UsageError(
            f"weights of PyTorch: {prefix}weight {list(kernel.T.shape)} fits before the recurrent module and behind; "
            f"is it the head, say head={prefix!r}, or call it head."
        )


def _suffix(key: Key) -> str:
    return f"l{key[0]}{'_reverse' if key[1] else ''}"


def _listing(arrays: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {list(np.shape(a))}" for name, a in arrays.items()) or "nothing"
