"""Weights from and to Keras 3: what `get_weights` gives and `set_weights` takes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from gru_jax.cells import GRU, LSTM, Cell, Elman
from gru_jax.cells.gru import Reset
from gru_jax.errors import UsageError, listing
from gru_jax.interop.weights import (
    Fused,
    Network,
    Weights,
    as_array,
    by_layer,
    cell_of,
    check_shapes,
    fuse,
    refuse,
    unfuse,
    weights_of,
)

GATES = {GRU: "zrn", LSTM: "ifno", Elman: "n"}


Direction = tuple[np.ndarray, ...]  # kernel, recurrent kernel and perhaps bias, of a layer and direction
Reading = tuple[list[Direction], list[np.ndarray]]  # of all layers, each followed by its backward one; and the head


def from_keras(
    weights: Sequence[Any],
    cell: Cell | None = None,
    *,
    bidirectional: bool = False,
    use_bias: bool | None = None,
) -> Weights:
    """The weights of `keras.layers.GRU`, `LSTM` or `SimpleRNN` layers, and perhaps of one `Dense` layer, the head.

    A GRU with one bias, which Keras has with `reset_after=False`, is `GRU(reset="before")`; with two, `GRU()`. Biases
    that are not there (`use_bias=False`) are zeros. What arrays do not tell is to be said by the arguments, activations
    too.

    Args:
        weights: `get_weights()` of a layer or of a model of such layers: kernel, recurrent kernel, bias of each.
        cell: to be taken for the default; a `SimpleRNN` with `activation="relu"` is `Elman("relu")`. To be given for a
            GRU without bias, which does not tell `reset_after`.
        bidirectional: whether the layers are `Bidirectional` ones. Of as many inputs as units, such a layer has the
            shapes of two plain ones.
        use_bias: whether the recurrent layers have biases. To be given where the arrays fit both ways, as those of two
            units may.

    Raises:
        UsageError: something is missing, or fits nowhere: it is listed with its shape; the arrays can be read in more
            than one way; the layers have several conventions of the reset gate, or another one than `cell`.

    Examples:
        >>> import numpy as np
        >>> from gru_jax import interop
        >>> weights = interop.from_keras([np.ones((2, 9)), np.ones((3, 9)), np.zeros((2, 9))])
        >>> weights.cell.reset, weights.hidden_sizes
        ('after', (3,))
    """
    if not isinstance(weights, Sequence):
        raise UsageError(f"weights of Keras: {type(weights).__name__}; needed is a list, layer.get_weights()")
    arrays = [as_array(a, f"array {number}", "Keras") for number, a in enumerate(weights)]
    directions, rest = _read(arrays, bidirectional, use_bias)
    cell = _cell(directions, cell)
    params = []
    for kernel, recurrent, *biases in directions:
        zeros = np.zeros_like(recurrent[0])
        inner, outer = biases[0] if biases and biases[0].ndim == 2 else (*biases, zeros, zeros)[:2]
        params.append(unfuse(cell, Fused(kernel, recurrent, inner, outer), GATES[type(cell)]))
    head = {"kernel": rest[0], "bias": (*rest, np.zeros_like(rest[0][0]))[1]} if rest else None
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


def _cell(directions: list[Direction], cell: Cell | None) -> Cell:
    """The cell that the layers are of, by their kernels and, of a GRU, the rows of their biases.

    Raises:
        UsageError: Keras has no such cell, the layers are of several, or of another than `cell`.
    """
    chosen = _checked(cell_of(directions[0][1], cell, "Keras"))
    if not isinstance(chosen, GRU):
        return chosen
    if chosen.update != "keep":
        raise UsageError(f"cell={chosen}: Keras' update gate keeps, update='keep'; .with_update('write') turns it then")
    rows = {bias[0].ndim if bias else 0 for _, _, *bias in directions}
    if cell is None and 0 in rows:
        raise UsageError(
            "weights of Keras: a GRU without bias does not tell reset_after; say cell=GRU('after') if it is True, "
            "cell=GRU('before') if it is False"
        )
    resets: dict[int, Reset] = {1: "before", 2: "after"}
    if {1, 2} <= rows:
        raise UsageError(
            "weights of Keras: layers with one row of biases, reset_after=False, and with two, True; "
            "a network here has one cell"
        )
    for count in rows - {0}:
        if cell is None:
            return GRU(resets[count])
        if chosen.reset != resets[count]:
            raise UsageError(
                f"cell={chosen}: these weights have {count} {'row' if count == 1 else 'rows'} of biases, "
                f"reset={resets[count]!r}"
            )
    return chosen


def _read(arrays: list[np.ndarray], bidirectional: bool, use_bias: bool | None) -> Reading:
    """The arrays as layers and a head.

    Raises:
        UsageError: there is no way to read them so, or more than one.
    """
    if len(arrays) > 1 and arrays[1].ndim == 2:
        cell_of(arrays[1], None, "Keras")  # no kernel of so many gates
    readings = _readings(arrays, 1 + bidirectional, use_bias)
    if len(readings) > 1:
        raise UsageError(
            "weights of Keras: they fit with biases of the recurrent layers and without, "
            f"{_shapes(arrays)}; say use_bias=True or use_bias=False"
        )
    if not readings:
        others = {f"bidirectional={not bidirectional}": (2 - bidirectional, use_bias)}
        if use_bias is not None:
            others["use_bias left out"] = (1 + bidirectional, None)
        fitting = [name for name, how in others.items() if _readings(arrays, *how)]
        raise UsageError(
            f"weights of Keras fit nowhere: {_shapes(arrays)}; needed are kernel, recurrent kernel and bias of "
            "each layer and direction, all of one kind, then at most the kernel and bias of one Dense layer"
            + (f"; they fit with {listing(fitting)}" if fitting else "")
        )
    return readings[0]


def _readings(arrays: list[np.ndarray], directions: int, use_bias: bool | None) -> list[Reading]:
    """Two ways, if there are, to read arrays as layers that fit onto one another and then perhaps a Dense one."""

    @functools.cache  # many ways lead to the same rest, as where every array is of one shape
    def rest_from(start: int, inputs: int | None, gates: int) -> list[Reading]:
        rest = arrays[start:]
        readings: list[Reading] = [([], rest)] if inputs is not None and _is_head(rest, inputs) else []
        for with_bias in (True, False) if use_bias is None else (use_bias,):
            count = 2 + with_bias
            parts = [tuple(rest[i : i + count]) for i in range(0, directions * count, count)]
            shapes = [[a.shape for a in part] for part in parts]
            size = _size(shapes[0], inputs, gates, with_bias)
            if size and all(other == shapes[0] for other in shapes):
                behind = rest_from(start + directions * count, directions * size, rest[0].shape[1] // size)
                readings += [([*parts, *layers], head) for layers, head in behind]
        return readings[:2]

    return rest_from(0, None, 0)


def _size(shapes: list[tuple[int, ...]], inputs: int | None, gates: int, with_bias: bool) -> int:
    """H of the layer whose arrays have these shapes; 0 if they are of none."""
    if len(shapes) != 2 + with_bias or len(shapes[0]) != 2 or len(shapes[1]) != 2:
        return 0
    (rows, width), (size, other), *bias = shapes
    gates = gates or (width // size if size else 0)
    biases = ([(width,)], [(2, width)]) if gates == 3 else ([(width,)],)  # a GRU alone may have two rows
    fits = (inputs is None or rows == inputs) and width == other == gates * size
    return size if fits and (not bias or bias in biases) else 0


def _is_head(arrays: list[np.ndarray], inputs: int) -> bool:
    """Whether they are the kernel of a Dense layer of so many inputs, and perhaps its bias; or nothing at all."""
    shapes = [a.shape for a in arrays]
    is_kernel = bool(shapes) and len(shapes[0]) == 2 and shapes[0][0] == inputs
    return not shapes or (is_kernel and shapes[1:] in ([], [shapes[0][1:]]))


def _shapes(arrays: list[np.ndarray]) -> str:
    return listing(list(a.shape) for a in arrays) or "nothing"
