"""Weights from and to the recurrent layers of Flax itself, linen's and NNX's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import PyTree

from gru_jax.cells import GRU, LSTM, Cell, Elman, Params
from gru_jax.cells.base import ACTIVATIONS
from gru_jax.errors import UsageError, listing
from gru_jax.interop.weights import (
    Fused,
    Network,
    Weights,
    as_array,
    check_mapping,
    check_shapes,
    fuse,
    refuse,
    unfuse,
    weights_of,
)

Tree = Mapping[str, Any]
Direction = tuple[Cell, Params]
NAMES = "GRU with reset='after' and without output gate, LSTM, Elman"
# Flax' names of gates, in the order in which it fuses them: the candidate of an LSTM is g.
GATES = {GRU: {"r": "r", "z": "z", "n": "n"}, LSTM: {"i": "i", "f": "f", "g": "n", "o": "o"}}
# Cells of NNX, with ours by their activation.
CELLS: dict[type, Mapping[str, Cell]] = {
    nnx.GRUCell: {"tanh": GRU(), "relu": GRU(activation="relu")},
    nnx.LSTMCell: {"tanh": LSTM()},
    nnx.OptimizedLSTMCell: {"tanh": LSTM()},
    nnx.SimpleCell: {"tanh": Elman(), "relu": Elman("relu"), "identity": Elman("identity")},
}
# Functions are compared by their values here, as `lambda x: x` and two libraries' relu have no name in common.
PROBE = np.concatenate([np.linspace(-8, 8, 65), [-1e4, -100, 100, 1e4]]).astype("float32")


def from_linen(layers: Tree | Sequence[Tree], cell: Cell | None = None) -> Weights:
    """The weights of `linen.RNN` or `linen.Bidirectional` layers of `GRUCell`, `LSTMCell` or `SimpleCell`.

    Args:
        layers: for each layer, bottom to top, its parameters: `{"cell": …}`, or `{"forward_rnn": …, "backward_rnn": …}`
            of both directions; with or without `"params"` around them.
        cell: to be taken for the default, as parameters do not tell `activation_fn`: a `SimpleCell` with `nn.relu` is
            `Elman("relu")`.

    Raises:
        UsageError: something is missing, or fits nowhere: it is listed.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from flax import linen
        >>> from gru_jax import interop
        >>> variables = linen.RNN(linen.GRUCell(3)).init(jax.random.key(0), jnp.ones((4, 5, 2)))
        >>> interop.from_linen(variables).stack()(jnp.ones((4, 5, 2))).shape
        (4, 5, 3)
    """
    if not isinstance(layers, Mapping | Sequence):
        raise UsageError(f"weights of linen: {type(layers).__name__}; needed are variables, as layer.init gives them")
    trees = [layers] if isinstance(layers, Mapping) else list(layers)
    return _weights("linen", [_read_tree("linen", tree, cell, _read_gates) for tree in trees])


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

    A module tells its cell, `Elman("relu")` from `activation_fn=nnx.relu` say, and one that computes anything that no
    cell of ours does is refused. `residual=True` of a `SimpleCell` is in the recurrent kernel, as U + I. `time_major`,
    `return_carry` and `dtype` are no part of weights: a layer here takes `[B, T, D]` and computes in the type of that.

    Args:
        layers: for each layer, bottom to top, the module or its parameters as a plain dict, in a list, an `nnx.List` or
            an `nnx.Sequential`; or one layer.
        cell: of plain dicts, to be taken for the default: a `SimpleCell` with `activation_fn=nnx.relu` is
            `Elman("relu")`.

    Raises:
        UsageError: something is missing, or fits nowhere: it is listed; a module runs backwards alone, has a
            `gate_fn`, an `activation_fn`, a `merge_fn` or a `carry_init` that ours do not have, or is of another class.

    Examples:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from gru_jax import interop
        >>> layer = nnx.RNN(nnx.GRUCell(2, 3, rngs=nnx.Rngs(0)))
        >>> interop.from_nnx(layer).stack()(jnp.ones((4, 5, 2))).shape
        (4, 5, 3)
    """
    if isinstance(layers, nnx.Sequential):
        layers = layers.layers
    if isinstance(layers, Mapping) or not isinstance(layers, Sequence):  # an nnx.List is a module and a sequence
        layers = [layers]
    return _weights(
        "NNX",
        [
            _read_module(layer, cell) if callable(layer) else _read_tree("NNX", layer, cell, _read_gates_or_dense)
            for layer in layers
        ],
    )


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


def _weights(library: str, layers: list[list[Direction]]) -> Weights:
    cells = list(dict.fromkeys(one for directions in layers for one, _ in directions))
    if len(cells) != 1 or len({len(directions) for directions in layers}) > 1:
        raise UsageError(
            f"weights of {library}: needed are layers of one cell and as many directions each; these are "
            + (listing(" and ".join(str(one) for one, _ in directions) for directions in layers) or "none")
        )
    params = tuple(tuple(arrays for _, arrays in directions) for directions in layers)
    return check_shapes(Weights(cells[0], params), library)


def _read_tree(
    library: str, tree: PyTree, cell: Cell | None, read: Callable[[str, Tree], Direction]
) -> list[Direction]:
    """Each direction of a layer, from its parameters as a dict."""
    check_mapping(tree, library, "are the parameters of a layer as a dict")
    tree = tree.get("params", tree)
    names = ("forward_rnn", "backward_rnn")
    parts = _only(library, tree, names) if names[0] in tree else [tree]
    arrays = [_only(library, part, ("cell",))[0] for part in parts]
    for by_module in arrays:
        check_mapping(by_module, library, "are the parameters of a cell as a dict")
    directions = [read(library, by_module) for by_module in arrays]
    for default, _ in directions:
        if cell is not None and (type(cell) is not type(default) or not _is_in_flax(cell)):
            raise UsageError(f"cell={cell}: these weights are of {default}")
    return [(cell or default, params) for default, params in directions]


def _read_module(layer: Any, cell: Cell | None) -> list[Direction]:
    """Each direction of a layer of NNX, if a cell of ours computes the same."""
    parts = [layer]
    if type(layer) is nnx.Bidirectional:
        parts = [layer.forward_rnn, layer.backward_rnn]  # which it runs forwards and backwards, whatever they say
        halves = np.split(PROBE[np.newaxis, :-1], 2, axis=-1)
        if not _gives(layer.merge_fn, PROBE[np.newaxis, :-1], *map(jnp.asarray, halves)):
            raise UsageError("weights of NNX: merge_fn; a layer here puts the outputs of both directions side by side")
    directions = []
    for part in parts:
        if type(part) is not nnx.RNN:
            raise UsageError(
                f"weights of NNX: {_name(part)}; allowed are nnx.RNN, nnx.Bidirectional of them, or parameters as dicts"
            )
        directions.append(_read_cell(part.cell))
    if type(layer) is nnx.RNN and layer.reverse:
        raise UsageError("weights of NNX: reverse=True; a stack here has a backward layer beside a forward one alone")
    for one, _ in directions:
        if cell not in (None, one):
            raise UsageError(f"cell={cell}: these weights are of {one}")
    return directions


def _read_cell(module: Any) -> Direction:
    """A cell of NNX, if one of ours computes the same."""
    if type(module) not in CELLS or any(
        isinstance(part, nnx.Module) and type(part) is not nnx.Linear for part in vars(module).values()
    ):
        classes = listing(f"nnx.{one.__name__}" for one in CELLS)
        raise UsageError(f"weights of NNX: {_name(module)}; allowed are {classes} as they are, or parameters as dicts")
    if hasattr(module, "gate_fn"):
        _activation(module, "gate_fn", {"sigmoid": jax.nn.sigmoid})
    cells = CELLS[type(module)]
    activation = _activation(module, "activation_fn", {name: ACTIVATIONS[name] for name in cells})
    if module.carry_init is not None and not _gives(
        lambda shape: module.carry_init(jax.random.key(0), shape, jnp.float32), np.zeros((2, 3), "float32"), (2, 3)
    ):
        raise UsageError("weights of NNX: carry_init; a carry here begins at zero")
    tree = nnx.to_pure_dict(nnx.state(module, nnx.Param))
    _, params = _read_gates_or_dense("NNX", tree)
    if getattr(module, "residual", False):
        recurrent = params["U"]["n"]
        params = {**params, "U": {"n": recurrent + np.eye(len(recurrent), dtype=recurrent.dtype)}}
    return cells[activation], params


def _activation(module: Any, attribute: str, allowed: Mapping[str, Callable[[Any], Any]]) -> str:
    """The name of a module's function, among those allowed."""
    function = getattr(module, attribute)
    for name, ours in allowed.items():
        if _gives(function, np.asarray(ours(jnp.asarray(PROBE))), jnp.asarray(PROBE)):
            return name
    raise UsageError(
        f"weights of NNX: {attribute}={_name(function)} of {type(module).__name__}; allowed are {listing(allowed)}"
    )


def _gives(function: Callable[..., Any], expected: np.ndarray, *args: Any) -> bool:
    """Whether a function of others gives these values."""
    try:
        values = np.asarray(function(*args))
    except Exception:  # whatever it raises, it does not
        return False
    return values.shape == expected.shape and np.allclose(values, expected, rtol=1e-5, atol=1e-6)


def _name(value: object) -> str:
    return getattr(value, "__name__", type(value).__name__)


def _only(library: str, tree: PyTree, names: Sequence[str], optional: Sequence[str] = ()) -> list[Any]:
    """The values of these names, if there are no others."""
    check_mapping(tree, library, f"is a dict of {listing(names)}")
    missing = [name for name in names if name not in tree]
    if missing:
        raise UsageError(f"weights of {library}: missing {listing(missing)}; there are {listing(tree) or 'none'}")
    others = [name for name in tree if name not in (*names, *optional)]
    if others:
        raise UsageError(f"weights of {library} fit nowhere: {listing(others)}; allowed are {listing(names)}")
    return [tree[name] for name in names]


def _is_in_flax(cell: Cell) -> bool:
    """Whether Flax has it: any activation has its place in `activation_fn`."""
    return type(cell) in (LSTM, Elman) or (type(cell) is GRU and cell == GRU(activation=cell.activation))


def _to_flax(
    library: str, network: Network | Weights, write: Callable[[Cell, Params], dict[str, Any]]
) -> list[dict[str, Any]]:
    original = weights_of(network)
    weights = original.with_update("keep")
    if not _is_in_flax(weights.cell):
        raise refuse(library, original.cell, NAMES)
    layers = []
    for directions in weights.layers:
        parts = [{"cell": write(weights.cell, params)} for params in directions]
        layers.append(parts[0] if len(parts) == 1 else {"forward_rnn": parts[0], "backward_rnn": parts[1]})
    return layers


def _read_gates(library: str, tree: Tree) -> Direction:
    """A cell whose gates have a module each: `ir`, `hr`, …, or `i` and `h`."""
    if "h" in tree:
        return Elman(), unfuse(Elman(), _pair(library, *_only(library, tree, ("i", "h"))), "n")
    tree = {"if" if name == "if_" else name: arrays for name, arrays in tree.items()}  # NNX has if_ for if
    cell: Cell = GRU() if "hn" in tree else LSTM()
    order = GATES[type(cell)]
    arrays = _only(library, tree, [f"{side}{name}" for side in "ih" for name in order])
    gates = [_pair(library, *pair) for pair in zip(arrays[: len(order)], arrays[len(order) :], strict=True)]
    shapes = dict.fromkeys(tuple(a.shape for a in gate) for gate in gates)
    if len(shapes) > 1:
        raise UsageError(
            f"weights of {library}: needed are gates of one size; these are "
            + listing(" and ".join(str(list(shape)) for shape in one[:2]) for one in shapes)
        )
    if [a.ndim for a in gates[0]] != [2, 2, 1, 1]:
        return cell, unfuse(cell, gates[0], list(order.values()))  # which says so
    fused = Fused(*(np.concatenate(parts, axis=-1) for parts in zip(*gates, strict=True)))
    return cell, unfuse(cell, fused, list(order.values()))


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


def _read_gates_or_dense(library: str, tree: Tree) -> Direction:
    """A cell as `_read_gates` has it, or one with two modules, `dense_i` and `dense_h`, with all gates side by side."""
    if "dense_h" not in tree:
        return _read_gates(library, tree)
    fused = _pair(library, *_only(library, tree, ("dense_i", "dense_h")))
    size, width = fused.recurrent.shape if fused.recurrent.ndim == 2 else (0, 0)
    cell: Cell = {size: Elman(), 3 * size: GRU()}.get(width, LSTM())
    order = ["n"] if isinstance(cell, Elman) else list(GATES[type(cell)].values())
    return cell, unfuse(cell, fused, order)


def _write_dense(cell: Cell, params: Params) -> dict[str, Any]:
    """The inverse of `_read_gates_or_dense` with two modules."""
    order = ["n"] if isinstance(cell, Elman) else list(GATES[type(cell)].values())
    kernel, recurrent, bias, outer = fuse(params, order)
    if outer.any():
        sizes = f"c_n {list(params['c']['n'].shape)}"
        raise UsageError(f"weights fit nowhere in NNX: {sizes}; its GRUCell lacks the candidate's recurrent bias")
    side = "dense_h" if isinstance(cell, LSTM) else "dense_i"
    tree: dict[str, Any] = {"dense_i": {"kernel": kernel}, "dense_h": {"kernel": recurrent}}
    tree[side]["bias"] = bias
    return tree


def _pair(library: str, inner: Any, outer: Any) -> Fused:
    """The kernels and biases of a module of the input and one of the state; a bias that is not there is zero."""
    kernel, recurrent = (
        as_array(_only(library, module, ("kernel",), ("bias",))[0], "kernel", library) for module in (inner, outer)
    )
    zeros = np.zeros(recurrent.shape[-1:], recurrent.dtype)
    biases = (as_array(module.get("bias", zeros), "bias", library) for module in (inner, outer))
    return Fused(kernel, recurrent, *biases)
