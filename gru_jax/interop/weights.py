"""The weights of a recurrent network as no library lays them out, and the fused arrays that most do."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import PyTree

from gru_jax.cells import GRU, LSTM, Cell, Elman, Params
from gru_jax.cells.gru import Update
from gru_jax.errors import UsageError, in_one_line, listing
from gru_jax.nn import Bidirectional, Recurrent, SequenceModel, Stack
from gru_jax.nn.models import Readout, TiedHead

GAINS = ("p", "s")
"""Of normalised products, which stay as they are where the sign of a kernel is turned: it goes through the norm."""

Network = Recurrent | Bidirectional | Stack | SequenceModel


class Fused(NamedTuple):
    """One cell's weights with its gates side by side: kernels `[D, k H]`, `[H, k H]`, biases `[k H]`.

    `bias` is added to the input's product and `recurrent_bias` to that of the state, which is zero where the two
    would be one bias written twice.

    Examples:
        >>> import jax
        >>> from gru_jax import cells, interop
        >>> fused = interop.fuse(cells.GRU().init(jax.random.key(0), 2, 3), "rzn")
        >>> fused.kernel.shape, fused.recurrent.shape, fused.bias.shape, fused.recurrent_bias.shape
        ((2, 9), (3, 9), (9,), (9,))
    """

    kernel: np.ndarray
    recurrent: np.ndarray
    bias: np.ndarray
    recurrent_bias: np.ndarray


def fuse(params: Params, gates: Sequence[str]) -> Fused:
    """A cell's parameters with these gates side by side, in this order.

    Examples:
        >>> import jax
        >>> from gru_jax import cells, interop
        >>> interop.fuse(cells.LSTM().init(jax.random.key(0), 2, 3), "ifno").kernel.shape
        (2, 12)
    """
    arrays = {group: {gate: np.asarray(a) for gate, a in by_gate.items()} for group, by_gate in params.items()}
    zeros = {gate: np.zeros_like(a) for gate, a in arrays["b"].items()}
    outer = {**zeros, **arrays.get("c", {})}
    groups = (arrays["W"], arrays["U"], arrays["b"], outer)
    return Fused(*(np.concatenate([group[gate] for gate in gates], axis=-1) for group in groups))


def unfuse(cell: Cell, fused: Fused, gates: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
    """The inverse of `fuse`; two biases become their sum where the cell has one for both.

    Examples:
        >>> import jax, numpy as np
        >>> from gru_jax import cells, interop
        >>> cell = cells.GRU()
        >>> params = cell.init(jax.random.key(0), 2, 3)
        >>> again = interop.unfuse(cell, interop.fuse(params, "zrn"), "zrn")
        >>> bool((again["U"]["n"] == params["U"]["n"]).all())
        True

    Raises:
        UsageError: a kernel has no two axes or a bias not one, or an array is not as wide as the recurrent kernel's
            height times the number of gates.
    """
    shapes = {name: np.shape(a) for name, a in fused._asdict().items()}
    wrong = [f"{name} {list(shape)}" for name, shape in shapes.items() if len(shape) != 2 - name.endswith("bias")]
    if wrong:
        raise UsageError(f"weights: needed are kernels of two axes and biases of one; not so {listing(wrong)}")
    width = len(gates) * fused.recurrent.shape[0]
    wrong = [f"{name} {list(shape)}" for name, shape in shapes.items() if shape[-1] != width]
    if wrong:
        raise UsageError(
            f"weights: needed are {width} columns, {len(gates)} gates of one size; not so {listing(wrong)}"
        )
    kernel, recurrent, bias, outer = (
        dict(zip(gates, np.split(np.asarray(a), len(gates), axis=-1), strict=True)) for a in fused
    )
    params = {
        "W": kernel,
        "b": {gate: bias[gate] if gate in cell.recurrent_biases else bias[gate] + outer[gate] for gate in gates},
        "U": recurrent,
        "c": {gate: outer[gate] for gate in cell.recurrent_biases},
    }
    return {group: by_gate for group, by_gate in params.items() if by_gate}


class Weights(NamedTuple):
    """The weights of a recurrent network: layers bottom to top, each of one or two directions, and perhaps a head.

    Attributes:
        cell: the cell of every layer.
        layers: for each layer the parameters of its cell, or of the forward and the backward one.
        head: `{"kernel": [W, O], "bias": [O]}` of a linear head, or None.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from gru_jax import cells, interop
        >>> cell = cells.GRU()
        >>> weights = interop.Weights(cell, ((cell.init(jax.random.key(0), 2, 3),),))
        >>> weights.stack()(jnp.ones((4, 5, 2))).shape
        (4, 5, 3)
    """

    cell: Cell
    layers: tuple[tuple[Params, ...], ...]
    head: Mapping[str, Any] | None = None

    @property
    def input_size(self) -> int:
        """D, the inputs of the first layer."""
        return self.layers[0][0]["W"]["n"].shape[0]

    @property
    def hidden_sizes(self) -> tuple[int, ...]:
        """H of each layer."""
        return tuple(directions[0]["b"]["n"].shape[0] for directions in self.layers)

    @property
    def bidirectional(self) -> bool:
        """Whether the layers have two directions."""
        return len(self.layers[0]) == 2

    @property
    def dtype(self) -> Any:
        """Type of the arrays."""
        return self.layers[0][0]["b"]["n"].dtype

    def astype(self, dtype: DTypeLike) -> Weights:
        """The same weights in another type."""
        layers, head = jax.tree.map(lambda a: np.asarray(a).astype(dtype), (self.layers, self.head))
        return Weights(self.cell, layers, head)

    @property
    def params(self) -> dict[str, Any]:
        """The plain dict of parameters that a `SequenceModel` with these weights has; without a head, what is there."""
        layers: dict[str, Any] = {}
        for number, directions in enumerate(self.layers):
            parts = [{"weights": dict(params)} for params in directions]
            layers[f"layer_{number}"] = parts[0] if len(parts) == 1 else {"forward": parts[0], "backward": parts[1]}
        return {"stack": layers, **({"head": dict(self.head)} if self.head is not None else {})}

    def with_update(self, update: Update) -> Weights:
        """The same network with the other convention of a GRU's update gate, whose sign is turned, exactly."""
        if not isinstance(self.cell, GRU) or self.cell.update == update:
            return self

        def turned(params: Params) -> Params:
            return {
                group: {gate: -a if gate == "z" and group not in GAINS else a for gate, a in by_gate.items()}
                for group, by_gate in params.items()
            }

        layers = tuple(tuple(map(turned, directions)) for directions in self.layers)
        return self._replace(cell=dataclasses.replace(self.cell, update=update), layers=layers)

    def stack(self, **kwargs: Any) -> Stack:
        """A `Stack` with these weights; `kwargs` are those of `Stack`.

        Raises:
            UsageError: the weights are of several types or of one that no layer has, or an argument contradicts them.
        """
        stack = Stack(self.cell, self.input_size, self.hidden_sizes, **self._options(kwargs))
        self._fill(stack)
        return stack

    def model(self, readout: Readout = "last", **kwargs: Any) -> SequenceModel:
        """A `SequenceModel` with these weights and their head; `kwargs` are those of `Stack`.

        Raises:
            UsageError: there is no head; or as `stack`.
        """
        if self.head is None:
            raise UsageError("weights: have no head, a linear layer of a kernel and a bias; use .stack()")
        output_size, options = self.head["bias"].shape[0], self._options(kwargs)
        model = SequenceModel(self.cell, self.input_size, self.hidden_sizes, output_size, readout=readout, **options)
        self._fill(model.stack)
        _set_arrays(model.head, self.head)
        return model

    def _options(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a `Stack` with these weights, beside its sizes."""
        if "param_dtype" in kwargs:
            raise UsageError(f"param_dtype: the weights are {self.dtype}; .astype changes that")
        if kwargs.get("bidirectional", self.bidirectional) != self.bidirectional:
            raise UsageError(
                f"bidirectional: the weights are of {'two directions' if self.bidirectional else 'one direction'}"
            )
        dtypes = sorted({str(a.dtype) for a in jax.tree.leaves((self.layers, self.head))})
        if len(dtypes) > 1:
            raise UsageError(f"weights: of several types, {listing(dtypes)}; .astype makes them one")
        if self.dtype not in (np.float32, np.float64):
            raise UsageError(f"weights: {self.dtype}; allowed are float32, float64; .astype('float32') makes them so")
        if self.dtype == np.float64 and not jax.config.read("jax_enable_x64"):
            raise UsageError(
                "weights: float64, which JAX has with jax_enable_x64 alone; .astype('float32') rounds them"
            )
        return {"bidirectional": self.bidirectional, "param_dtype": self.dtype, "rngs": nnx.Rngs(0), **kwargs}

    def _fill(self, stack: Stack) -> None:
        for layer, directions in zip(stack.layers, self.layers, strict=True):
            for recurrent, params in zip(_directions(layer), directions, strict=True):
                _set_arrays(recurrent.weights, params)


def _directions(layer: Recurrent | Bidirectional) -> tuple[Recurrent, ...]:
    return (layer.forward, layer.backward) if isinstance(layer, Bidirectional) else (layer,)


def _set_arrays(module: nnx.Module, arrays: Mapping[str, object]) -> None:
    state = nnx.state(module, nnx.Param)
    nnx.replace_by_pure_dict(state, jax.tree.map(jnp.asarray, dict(arrays)))
    nnx.update(module, state)


def weights_of(network: Network | Weights) -> Weights:
    """The weights of a layer, a stack or a model.

    Raises:
        UsageError: it is no network of ours, or a layer that runs backwards alone.

    Examples:
        >>> from flax import nnx
        >>> from gru_jax import cells, interop, nn
        >>> weights = interop.weights_of(nn.Stack(cells.LSTM(), 2, (3, 4), rngs=nnx.Rngs(0)))
        >>> weights.input_size, weights.hidden_sizes
        (2, (3, 4))
    """
    if isinstance(network, Weights):
        return network
    stack: Any = getattr(network, "stack", network) if isinstance(network, SequenceModel) else network
    layers = stack.layers if isinstance(stack, Stack) else (stack,)
    if not all(isinstance(layer, Recurrent | Bidirectional) for layer in layers):
        raise UsageError(
            f"network: {type(network).__name__}; allowed are Recurrent, Bidirectional, Stack and SequenceModel of "
            "gru_jax.nn, and Weights"
        )
    if any(isinstance(layer, Recurrent) and layer.reverse for layer in layers):
        raise UsageError("reverse=True: other libraries have a backward layer beside a forward one alone")
    head = None
    if isinstance(network, SequenceModel):
        _refuse_other_parts(network)
        head = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(network.head, nnx.Param)))
        if isinstance(network.head, TiedHead) and network.embed is not None:
            head["kernel"] = np.asarray(network.embed.embedding[...]).T
    params = tuple(
        tuple(jax.tree.map(np.asarray, recurrent.params) for recurrent in _directions(layer)) for layer in layers
    )
    return Weights(_directions(layers[0])[0].cell, params, head)


def _refuse_other_parts(network: SequenceModel) -> None:
    """Refuse a model with arrays beside its embedding, its stack and its head, which would be lost."""
    names = set(nnx.to_pure_dict(nnx.state(network, nnx.Param))) - {"embed", "stack", "head"}
    if names:
        raise UsageError(
            f"network: its {listing(sorted(map(str, names)))} have no place in weights; network.stack is without them"
        )


KINDS: dict[int, tuple[str, Cell]] = {1: ("RNN", Elman()), 3: ("GRU", GRU()), 4: ("LSTM", LSTM())}
"""Kinds of cells by how many gates are fused, with the cell of ours that libraries have by default."""
COMMON = (GRU(), LSTM(), Elman("tanh"), Elman("relu"))
"""The cells that PyTorch and Flax have."""


def cell_of(recurrent: np.ndarray, cell: Cell | None, library: str) -> Cell:
    """The cell that a fused recurrent kernel `[H, k H]` is of: the one that was given, if of its kind, or the default.

    Raises:
        UsageError: the library has no cell of so many gates, or the given one has another number.
    """
    rows, columns = recurrent.shape
    count = columns / rows if rows else 0
    if count not in KINDS:
        raise UsageError(
            f"weights: a recurrent kernel of {count:g} gates, {list(recurrent.shape)}; {library} has "
            f"{', '.join(f'{name} ({gates})' for gates, (name, _) in KINDS.items())}"
        )
    name, default = KINDS[int(count)]
    if cell is not None and not isinstance(cell, type(default)):
        raise UsageError(f"cell={cell}: these weights are of the kind {name} in {library}")
    return default if cell is None else cell


def check_shapes(weights: Weights, library: str) -> Weights:
    """The weights, if every array has the shape that the others give it.

    Raises:
        UsageError: one line that lists the arrays that fit nowhere, with their shapes.
    """
    sizes = weights.hidden_sizes
    factor = len(weights.layers[0])
    inputs = (weights.input_size, *(factor * size for size in sizes))
    wrong = []
    for number, (directions, size) in enumerate(zip(weights.layers, sizes, strict=True)):
        shapes = {"W": (inputs[number], size), "U": (size, size), "b": (size,), "c": (size,)}
        for direction, params in enumerate(directions):
            wrong += [
                f"{group}_{gate} of layer {number}, direction {direction}: {list(a.shape)} for {list(shapes[group])}"
                for group, by_gate in params.items()
                for gate, a in by_gate.items()
                if a.shape != shapes[group]
            ]
    if weights.head is not None:
        kernel, bias = weights.head["kernel"], weights.head["bias"]
        outputs = np.shape(kernel)[1] if np.ndim(kernel) == 2 else np.size(bias)
        head_shapes = {"kernel": (inputs[-1], outputs), "bias": (outputs,)}
        wrong += [
            f"{name} of the head: {list(np.shape(weights.head[name]))} for {list(shape)}"
            for name, shape in head_shapes.items()
            if np.shape(weights.head[name]) != shape
        ]
    if wrong:
        raise UsageError(f"weights of {library} fit nowhere: {'; '.join(wrong)}")
    return weights


def as_array(value: Any, name: str, library: str) -> np.ndarray:
    """A tensor or an array of any library as one of NumPy's, of the same type.

    Raises:
        UsageError: it is none, or not of numbers.
    """
    try:
        if hasattr(value, "detach"):  # a tensor of PyTorch, which may be a parameter and on a device
            value = value.detach().cpu()
            if str(value.dtype) == "torch.bfloat16":  # not known to NumPy alone; float32 holds each exactly
                value = np.asarray(value.float()).astype(jnp.bfloat16)
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"weights of {library}: {name} is not an array: {in_one_line(error)}") from None
    if not any(jnp.issubdtype(array.dtype, kind) for kind in (np.floating, np.integer)):
        raise UsageError(
            f"weights of {library}: {name} is a {type(value).__name__}; needed is an array of real numbers"
        )
    return array


def check_mapping(weights: PyTree, library: str, instead: str) -> None:
    """Refuse what is not a dict of arrays by name, a module above all.

    Raises:
        UsageError: one line that says what to pass instead.
    """
    if not isinstance(weights, Mapping) or not all(isinstance(name, str) for name in weights):
        raise UsageError(f"weights of {library}: {type(weights).__name__}; needed {instead}")


def refuse(library: str, cell: Cell, allowed: str) -> UsageError:
    """The error for a cell that a library does not have."""
    return UsageError(f"{library} has no {cell}; it has {allowed}")


def by_layer(items: Sequence[Any], bidirectional: bool) -> tuple[tuple[Any, ...], ...]:
    """The directions of each layer, from a flat sequence of all of them."""
    size = 2 if bidirectional else 1
    return tuple(tuple(items[i : i + size]) for i in range(0, len(items), size))
