"""A model for classification and regression of sequences, and its split into pure functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from gru_jax.cells import Cell
from gru_jax.dtypes import carry_dtype
from gru_jax.errors import check_choice
from gru_jax.nn.layers import LayerTrace, Stack

READOUTS = ("last", "mean", "every")


class Trace(NamedTuple):
    """A forward pass: the outputs, and what every layer read and gave."""

    outputs: Array
    layers: tuple[LayerTrace, ...]


class SequenceModel(nnx.Module):
    """A recurrent stack with a linear head.

    Args:
        cell: the cell of every layer.
        input_size: D.
        hidden_sizes: H of each layer, bottom to top.
        output_size: O, classes or targets.
        readout: what the head sees: the `"last"` valid state, the `"mean"` over valid states, or `"every"` state.
        rngs: the stream `params` is drawn from.
        kwargs: of `Stack`.
    """

    def __init__(
        self,
        cell: Cell,
        input_size: int,
        hidden_sizes: tuple[int, ...],
        output_size: int,
        *,
        readout: str = "last",
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
        **kwargs: Any,
    ) -> None:
        check_choice("readout", readout, READOUTS)
        self.readout = readout
        self.param_dtype = param_dtype
        self.stack: Stack = Stack(cell, input_size, hidden_sizes, param_dtype=param_dtype, rngs=rngs, **kwargs)
        self.head: nnx.Linear = nnx.Linear(self.stack.output_size, output_size, param_dtype=param_dtype, rngs=rngs)

    def __call__(self, xs: Float[Array, "B T D"], **kwargs: Any) -> Array:
        """Outputs `[B, O]`, or `[B, T, O]` for `readout="every"`, in the type of the parameters."""
        return self.trace(xs, **kwargs).outputs

    def trace(self, xs: Float[Array, "B T D"], *, lengths: Int[Array, " B"] | None = None, **kwargs: Any) -> Trace:
        """The outputs with every layer's inputs and results; arguments as in `Stack`."""
        layers = self.stack(xs, lengths=lengths, **kwargs)
        features = self._read(layers[-1], lengths)
        return Trace(self.head(features.astype(self.param_dtype)), layers)

    def _read(self, top: LayerTrace, lengths: Int[Array, " B"] | None) -> Array:
        hs = top.unrolled.hs
        if self.readout == "every":
            return hs
        if self.readout == "mean":
            time, wide = hs.shape[1], carry_dtype(hs.dtype)
            count = jnp.full(hs.shape[0], time) if lengths is None else jnp.clip(lengths, 0, time)
            return hs.astype(wide).sum(axis=1) / jnp.maximum(count, 1).astype(wide)[:, None]
        return self.stack.layers[-1].final_state(top.unrolled)


class Functional(NamedTuple):
    """A model as pure functions of a plain dict of parameters.

    Attributes:
        init: `init(key, **kwargs) -> params`, drawn anew; `kwargs` go to `build`.
        apply: `apply(params, xs, **kwargs) -> Trace`.
    """

    init: Callable[..., dict[str, Any]]
    apply: Callable[..., Trace]


def functional(build: Callable[..., SequenceModel]) -> Functional:
    """Split the model that `build(rngs, **kwargs)` makes into pure functions, once."""

    def init(key: PRNGKeyArray, **kwargs: Any) -> dict[str, Any]:
        return nnx.to_pure_dict(nnx.state(build(nnx.Rngs(params=key), **kwargs), nnx.Param))

    shapes = nnx.eval_shape(lambda: build(nnx.Rngs(params=jax.random.key(0))))
    graph, state = nnx.split(shapes, nnx.Param)

    def apply(params: dict[str, Any], xs: Array, **kwargs: Any) -> Trace:
        filled = jax.tree.map(lambda leaf: leaf, state)  # a copy: the state itself stays abstract
        nnx.replace_by_pure_dict(filled, params)
        return nnx.merge(graph, filled).trace(xs, **kwargs)

    return Functional(init, apply)
