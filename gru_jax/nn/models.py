"""Models: networks from a sequence of inputs to outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, assert_never, get_args

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from gru_jax.cells import Cell
from gru_jax.dtypes import carry_dtype
from gru_jax.errors import at_least_one, check_choice
from gru_jax.nn.layers import CellPlace
from gru_jax.nn.stack import LayerTrace, Stack, StackTrace
from gru_jax.unroll import valid_steps

Readout = Literal["last", "mean", "every"]
READOUTS = get_args(Readout)


class Trace(NamedTuple):
    """A forward pass: the outputs, and what every layer read and gave.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> from gru_jax import cells, nn
        >>> model = nn.SequenceModel(cells.GRU(), 2, (3,), 10, rngs=nnx.Rngs(0))
        >>> trace = model.trace(jnp.ones((4, 5, 2)))
        >>> trace.outputs.shape, len(trace.layers)
        ((4, 10), 1)
    """

    outputs: Array
    layers: StackTrace

    @property
    def carry(self) -> tuple[Any, ...]:
        """The last carry of every layer, from which a model goes on with what follows (`carry0`)."""
        return self.layers.carry


class SequenceModel(nnx.Module):
    """A recurrent stack with a linear head; a model family of a user's own is a subclass.

    Args:
        cell: the cell of every layer.
        input_size: D.
        hidden_sizes: H of each layer, bottom to top.
        output_size: O, classes or targets.
        readout: what the head sees: the `"last"` valid state, the `"mean"` over valid states, or `"every"` state.
        rngs: streams `params` and, for dropout, `dropout`.
        kwargs: of `Stack`.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> from gru_jax import cells, nn
        >>> model = nn.SequenceModel(cells.GRU(), 2, (3,), 10, readout="mean", rngs=nnx.Rngs(0))
        >>> model(jnp.ones((4, 5, 2))).shape
        (4, 10)
        >>> outputs, carry = model(jnp.ones((4, 5, 2)), return_state=True)
    """

    def __init__(
        self,
        cell: Cell,
        input_size: int,
        hidden_sizes: tuple[int, ...],
        output_size: int,
        *,
        readout: Readout = "last",
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
        **kwargs: Any,
    ) -> None:
        check_choice("readout", readout, READOUTS)
        self.readout: Readout = readout
        self.param_dtype = param_dtype
        self.stack: Stack = Stack(cell, input_size, hidden_sizes, param_dtype=param_dtype, rngs=rngs, **kwargs)
        outputs = at_least_one("output_size", output_size)
        self.head: nnx.Linear = nnx.Linear(self.stack.output_size, outputs, param_dtype=param_dtype, rngs=rngs)

    def __call__(
        self,
        xs: Float[Array, "B T D"],
        carry0: Sequence[Any] | None = None,
        *,
        return_state: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Outputs `[B, O]`, or `[B, T, O]` for `readout="every"`, in the type of the parameters.

        With `return_state`, they and every layer's last carry, as a pair. The other arguments are those of `Stack`.
        """
        trace = self.trace(xs, carry0=carry0, **kwargs)
        return (trace.outputs, trace.carry) if return_state else trace.outputs

    def trace(
        self,
        xs: Float[Array, "B T D"],
        carry0: Sequence[Any] | None = None,
        *,
        lengths: Int[Array, " B"] | None = None,
        mask: Bool[Array, "B T"] | None = None,
        on_read: Callable[[Array], Array] | None = None,
        **kwargs: Any,
    ) -> Trace:
        """The outputs with every layer's inputs and results; arguments as in `Stack`.

        `on_read` is applied to the top states `[B, T, H]` before a readout of several of them: what it does to their
        gradient is done to each step's share alone, before it enters the recurrence.
        """
        layers = self.stack.trace(xs, carry0, lengths=lengths, mask=mask, **kwargs)
        features = self._read(layers[-1], lengths, mask, on_read or (lambda hs: hs))
        return Trace(self.head(features.astype(self.param_dtype)), layers)

    def cell_places(self) -> tuple[tuple[CellPlace, ...], ...]:
        """Where every cell stands, for each layer from bottom to top one or, with both directions, two."""
        return tuple(
            tuple(place.inside("stack", name) for place in layer.cell_places(name))
            for name, layer in zip(self.stack.names, self.stack.layers, strict=True)
        )

    def _read(
        self,
        top: LayerTrace,
        lengths: Int[Array, " B"] | None,
        mask: Bool[Array, "B T"] | None,
        on_read: Callable[[Array], Array],
    ) -> Array:
        if self.readout == "last":
            return self.stack.layers[-1].final_state(top.unrolled)
        hs = on_read(top.unrolled.hs)
        if self.readout == "every":
            return hs
        if self.readout == "mean":
            (batch, time, _), wide = hs.shape, carry_dtype(hs.dtype)
            valid = valid_steps(lengths, batch, time, mask)
            count = jnp.full(batch, time) if valid is None else valid.sum(axis=1)
            return hs.astype(wide).sum(axis=1) / jnp.maximum(count, 1).astype(wide)[:, None]
        assert_never(self.readout)  # a type checker tells of a readout without a branch


FAMILIES: dict[str, type[SequenceModel]] = {"sequence": SequenceModel}
"""Model families by the name that configs use."""
