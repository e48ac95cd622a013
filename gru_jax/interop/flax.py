"""Weights from and to the recurrent layers of Flax itself, linen's and NNX's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from flax import nnx

from gru_jax.cells import GRU, LSTM, Cell, Elman, Params
from gru_jax.errors import UsageError
from gru_jax.interop.weights import COMMON, Fused, Network, Weights, check_shapes, fuse, refuse, unfuse, weights_of

Tree = Mapping[str, Any]
NAMES = "GRU with reset='after', LSTM, Elman with tanh or relu"
# Flax' names of gates, in the order in which it fuses them: the candidate of an LSTM is g.
GATES = {GRU: {"r": "r", "z": "z", "n": "n"}, LSTM: {"i": "i", "f": "f", "g": "n", "o": "o"}}


def from_linen(layers: Tree | Sequence[Tree], cell: Cell | None = None) -> Weights:
    """The weights of `linen.RNN` or `linen.Bidirectional` layers of `GRUCell`, `LSTMCell` or `SimpleCell`.

    Args:
        layers: for each layer, bottom to top, its parameters: `{"cell": …}`, or `{"forward_rnn": …, "backward_rnn": …}`
            of both directions; with or without `"params"` around them.
        cell: to be taken for the default; a `SimpleCell` with `activation_fn=nn.relu` is `Elman("relu")`.

    Raises:
        UsageError: something is missing, or fits nowhere: it is listed with its shape.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from flax import linen
        >>> from gru_jax import interop
        >>> variables = linen.RNN(linen.GRUCell(3)).init(jax.random.key(0), jnp.ones((4, 5, 2)))
        >>> interop.from_linen(variables).stack()(jnp.ones((4, 5, 2))).shape
        (4, 5, 3)
    """
    return _from_flax("linen", layers, cell, _read_gates)


def to_linen(network: Network | Weights) -> list[dict[str, Any]]:
    """A network's recurrent layers as linen's variables, one dict for each layer, without its head.

    Args:
        network: a layer, a stack or a model of `gru_jax.nn`, or `Weights`.

    Raises:
        UsageError: linen has no such cell.

    Examples:
        >>> import jax.numpy as jnp
        >>> from flax import linen, nnx
        >>> from gru_jax import cells, interop, nn
        >>> (variables,) = interop.to_linen(nn.Recurrent(cells.GRU(), 2, 3, rngs=nnx.Rngs(0)))
        >>> linen.RNN(linen.GRUCell(3)).apply(variables, jnp.ones((4, 5, 2))).shape
        (4, 5, 3)
    """
    return [{"params": layer} for layer in _to_flax("linen", network, _write_gates)]


def from_nnx(layers: Any, cell: Cell | None = None) -> Weights:
    """The weights of `nnx.RNN` or `nnx.Bidirectional` layers of NNX's own cells, `OptimizedLSTMCell` among them.

    Args:
        layers: for each layer, bottom to top, the module or its parameters as a plain dict; or one layer.
        cell: to be taken for the default; a `SimpleCell` with `activation_fn=nnx.relu` is `Elman("relu")`.

    Raises:
        UsageError: something is missing, or fits nowhere: it is listed with its shape.

    Examples:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from gru_jax import interop
        >>> layer = nnx.RNN(nnx.GRUCell(2, 3, rngs=nnx.Rngs(0)))
        >>> interop.from_nnx(layer).stack()(jnp.ones((4, 5, 2))).shape
        (4, 5, 3)
    """
    one = isinstance(layers, nnx.Module | Mapping)
    trees = [
        nnx.to_pure_dict(nnx.state(layer, nnx.Param)) if isinstance(layer, nnx.Module) else layer
        for layer in ([layers] if one else layers)
    ]
    return _from_flax("NNX", trees, cell, lambda tree: _read_dense(tree) if "dense_h" in tree else _read_gates(tree))


def to_nnx(network: Network | Weights, *, optimized_lstm: bool = False) -> list[dict[str, Any]]:
    """A network's recurrent layers as plain dicts of NNX's parameters, one for each layer, without its head.

    `nnx.replace_by_pure_dict(state, dict)` and `nnx.update(layer, state)` put one into an `nnx.RNN`.

    Args:
        network: a layer, a stack or a model of `gru_jax.nn`, or `Weights`.
        optimized_lstm: an LSTM as `nnx.OptimizedLSTMCell` instead of `nnx.LSTMCell`.

    Raises:
        UsageError: NNX has no such cell: its GRU lacks the candidate's recurrent bias, which then must be zero.

    Examples:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from gru_jax import cells, interop, nn
        >>> (arrays,) = interop.to_nnx(nn.Recurrent(cells.GRU(), 2, 3, rngs=nnx.Rngs(0)))
        >>> layer = nnx.RNN(nnx.GRUCell(2, 3, rngs=nnx.Rngs(1)))
        >>> state = nnx.state(layer, nnx.Param)
        >>> nnx.replace_by_pure_dict(state, arrays)
        >>> nnx.update(layer, state)
        >>> layer(jnp.ones((4, 5, 2))).shape
        (4, 5, 3)
    """

    def write(cell: Cell, params: Params) -> dict[str, Any]:
        if isinstance(cell, LSTM) and not optimized_lstm:
            return {"if_" if name == "if" else name: arrays for name, arrays in _write_gates(cell, params).items()}
        return _write_dense(cell, params)

    return _to_flax("NNX", network, write)


def _from_flax(library: str, layers: Any, cell: Cell | None, read: Callable[[Tree], tuple[Cell, Params]]) -> Weights:
    trees = [layers] if isinstance(layers, Mapping) else list(layers)
    cells, params = [], []
    for tree in trees:
        tree = tree.get("params", tree)
        parts = [tree["forward_rnn"], tree["backward_rnn"]] if "forward_rnn" in tree else [tree]
        try:
            directions = [read(part["cell"]) for part in parts]
        except KeyError as error:
            raise UsageError(f"weights of {library}: {error} is missing; there are {', '.join(tree)}") from None
        cells += [one for one, _ in directions]
        params.append(tuple(arrays for _, arrays in directions))
    if not trees or len(set(cells)) > 1 or len({len(directions) for directions in params}) > 1:
        raise UsageError(f"weights of {library}: needed are layers of one cell and as many directions each")
    if cell is not None and (cell not in COMMON or type(cell) is not type(cells[0])):
        raise UsageError(f"cell={cell}: these weights are of {cells[0]}")
    return check_shapes(Weights(cells[0] if cell is None else cell, tuple(params)), library)


def _to_flax(
    library: str, network: Network | Weights, write: Callable[[Cell, Params], dict[str, Any]]
) -> list[dict[str, Any]]:
    original = weights_of(network)
    weights = original.with_update("keep")
    if weights.cell not in COMMON:
        raise refuse(library, original.cell, NAMES)
    layers = []
    for directions in weights.layers:
        parts = [{"cell": write(weights.cell, params)} for params in directions]
        layers.append(parts[0] if len(parts) == 1 else {"forward_rnn": parts[0], "backward_rnn": parts[1]})
    return layers


def _read_gates(tree: Tree) -> tuple[Cell, Params]:
    """A cell whose gates have a module each: `ir`, `hr`, …, or `i` and `h`."""
    if "h" in tree:
        return Elman(), unfuse(Elman(), _pair(tree["i"], tree["h"]), "n")
    tree = {name.rstrip("_"): arrays for name, arrays in tree.items()}  # NNX has if_ for if
    cell: Cell = GRU() if "hn" in tree else LSTM()
    gates = [_pair(tree[f"i{name}"], tree[f"h{name}"]) for name in GATES[type(cell)]]
    fused = Fused(*(np.concatenate(arrays, axis=-1) for arrays in zip(*gates, strict=True)))
    return cell, unfuse(cell, fused, list(GATES[type(cell)].values()))


def _write_gates(cell: Cell, params: Params) -> dict[str, Any]:
    """The inverse of `_read_gates`: a GRU has its biases on the input's side, an LSTM on the state's."""
    if isinstance(cell, Elman):
        return {"i": {"kernel": params["W"]["n"], "bias": params["b"]["n"]}, "h": {"kernel": params["U"]["n"]}}
    tree: dict[str, Any] = {}
    for name, gate in GATES[type(cell)].items():
        tree[f"i{name}"], tree[f"h{name}"] = {"kernel": params["W"][gate]}, {"kernel": params["U"][gate]}
        tree[f"h{name}" if isinstance(cell, LSTM) else f"i{name}"]["bias"] = params["b"][gate]
        if gate in cell.recurrent_biases:
            tree[f"h{name}"]["bias"] = params["c"][gate]
    return tree


def _read_dense(tree: Tree) -> tuple[Cell, Params]:
    """A cell with two modules, `dense_i` and `dense_h`, that have all gates side by side."""
    fused = _pair(tree["dense_i"], tree["dense_h"])
    size, width = fused.recurrent.shape
    cell: Cell = {size: Elman(), 3 * size: GRU()}.get(width, LSTM())
    order = ["n"] if isinstance(cell, Elman) else list(GATES[type(cell)].values())
    return cell, unfuse(cell, fused, order)


def _write_dense(cell: Cell, params: Params) -> dict[str, Any]:
    """The inverse of `_read_dense`."""
    order = ["n"] if isinstance(cell, Elman) else list(GATES[type(cell)].values())
    kernel, recurrent, bias, outer = fuse(params, order)
    if outer.any():
        sizes = f"c_n {list(params['c']['n'].shape)}"
        raise UsageError(f"weights fit nowhere in NNX: {sizes}; its GRUCell lacks the candidate's recurrent bias")
    side = "dense_h" if isinstance(cell, LSTM) else "dense_i"
    tree: dict[str, Any] = {"dense_i": {"kernel": kernel}, "dense_h": {"kernel": recurrent}}
    tree[side]["bias"] = bias
    return tree


def _pair(inner: Tree, outer: Tree) -> Fused:
    """The kernels and biases of a module of the input and one of the state; a bias that is not there is zero."""
    kernel, recurrent = np.asarray(inner["kernel"]), np.asarray(outer["kernel"])
    zeros = np.zeros_like(recurrent[0])
    return Fused(kernel, recurrent, np.asarray(inner.get("bias", zeros)), np.asarray(outer.get("bias", zeros)))
