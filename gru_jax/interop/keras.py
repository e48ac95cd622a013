"""Weights from and to Keras 3: what `get_weights` gives and `set_weights` takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gru_jax.cells import GRU, LSTM, Cell, Elman
from gru_jax.errors import UsageError, listing
from gru_jax.interop.weights import (
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

GATES = {GRU: "zrn", LSTM: "ifno", Elman: "n"}


def from_keras(weights: Sequence[Any], cell: Cell | None = None, *, bidirectional: bool = False) -> Weights:
    """The weights of `keras.layers.GRU`, `LSTM` or `SimpleRNN` layers, and perhaps of one `Dense` layer, the head.

    A GRU with one bias, which Keras has with `reset_after=False`, is `GRU(reset="before")`; with two, `GRU()`.

    Args:
        weights: `get_weights()` of a layer or of a model of such layers: kernel, recurrent kernel, bias of each.
        cell: to be taken for the default; a `SimpleRNN` with `activation="relu"` is `Elman("relu")`.
        bidirectional: whether the layers are `Bidirectional` ones.

    Raises:
        UsageError: something is missing, or fits nowhere: it is listed with its shape.

    Examples:
        >>> import numpy as np
        >>> from gru_jax import interop
        >>> weights = interop.from_keras([np.ones((2, 9)), np.ones((3, 9)), np.zeros((2, 9))])
        >>> weights.cell.reset, weights.hidden_sizes
        ('after', (3,))
    """
    layers, rest = _split([np.asarray(a) for a in weights])
    head = {"kernel": rest[0], "bias": rest[1]} if len(rest) == 2 and rest[0].ndim == 2 else None
    if not layers or (rest and head is None) or (bidirectional and len(layers) % 2):
        shapes = listing(list(np.shape(a)) for a in (rest or weights))
        raise UsageError(
            f"weights of Keras fit nowhere: {shapes or 'nothing'}; needed are kernel, recurrent kernel and bias of "
            "each layer and direction, then at most the kernel and bias of one Dense layer"
        )
    fused = []
    for kernel, recurrent, bias in layers:
        zeros = np.zeros_like(recurrent[0])
        inner, outer = (zeros, zeros) if bias is None else bias if bias.ndim == 2 else (bias, zeros)
        fused.append(Fused(kernel, recurrent, inner, outer))
    first_bias, default = layers[0][2], cell_of(fused[0], cell, "Keras")
    if cell is None and isinstance(default, GRU) and first_bias is not None and first_bias.ndim == 1:
        default = GRU("before")
    cell = _checked(default)
    params = [unfuse(cell, one, GATES[type(cell)]) for one in fused]
    return check_shapes(Weights(cell, by_layer(params, bidirectional), head), "Keras")


def to_keras(network: Network | Weights) -> list[np.ndarray]:
    """A network as `set_weights` of Keras takes it: kernel, recurrent kernel, bias of each layer; the head.

    Args:
        network: a layer, a stack or a model of `gru_jax.nn`, or `Weights`.

    Raises:
        UsageError: Keras has no such cell.

    Examples:
        >>> from flax import nnx
        >>> from gru_jax import cells, interop, nn
        >>> layer = nn.Recurrent(cells.GRU(reset="before"), 2, 3, rngs=nnx.Rngs(0))
        >>> [array.shape for array in interop.to_keras(layer)]
        [(2, 9), (3, 9), (9,)]
    """
    weights = weights_of(network)
    cell = _checked(weights.cell)
    arrays = []
    for directions in weights.with_update("keep").layers:
        for params in directions:
            kernel, recurrent, bias, outer = fuse(params, GATES[type(cell)])
            has_two = isinstance(cell, GRU) and cell.reset == "after"
            arrays += [kernel, recurrent, np.stack([bias, outer]) if has_two else bias]
    if weights.head is not None:
        arrays += [np.asarray(weights.head["kernel"]), np.asarray(weights.head["bias"])]
    return arrays


def _checked(cell: Cell) -> Cell:
    """The cell, if Keras has it: any activation has its place, an output gate has none."""
    if type(cell) not in GATES or getattr(cell, "output_gate", False):
        raise refuse("Keras", cell, "GRU without output gate, LSTM, Elman")
    return cell


def _split(arrays: list[np.ndarray]) -> tuple[list[tuple[np.ndarray, np.ndarray, np.ndarray | None]], list[np.ndarray]]:
    """Kernel, recurrent kernel and bias, if there is one, of each recurrent layer; and what follows."""
    layers = []
    while len(arrays) >= 2 and arrays[1].ndim == 2 and arrays[0].shape[-1] == arrays[1].shape[-1]:
        kernel, recurrent, *arrays = arrays
        width = kernel.shape[1]
        bias = arrays.pop(0) if arrays and arrays[0].shape in ((width,), (2, width)) else None
        layers.append((kernel, recurrent, bias))
    return layers, arrays
