"""Models: networks from a sequence of inputs to outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, assert_never, get_args

import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Bool, Float, Int

from gru_jax.cells import Cell
from gru_jax.dtypes import carry_dtype
from gru_jax.errors import UsageError, at_least_one, check_choice
from gru_jax.initializers import Initializer, normal
from gru_jax.nn.layers import CellPlace
from gru_jax.nn.stack import DropoutKey, LayerTrace, Stack, StackTrace, drawn_dropout, drop_output
from gru_jax.unroll import valid_steps

Readout = Literal["last", "mean", "max", "attention", "every"]
READOUTS = get_args(Readout)


class Trace(NamedTuple):
    """A forward pass: the outputs, what every layer read and gave, and what the head made the outputs of.

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
    features: Array | None = None

    @property
    def carry(self) -> tuple[Any, ...]:
        """The last carry of every layer, from which a model goes on with what follows (`carry0`)."""
        return self.layers.carry


class TiedHead(nnx.Module):
    """A head whose weights are those of an embedding.

    Args:
        input_size: E.
        output_size: O, tokens.
        param_dtype: type of its biases.
        rngs: of which it needs none.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> from gru_jax.nn.models import TiedHead
        >>> TiedHead(3, 50, rngs=nnx.Rngs(0))(jnp.ones((4, 3)), nnx.Embed(50, 3, rngs=nnx.Rngs(0))).shape
        (4, 50)
    """

    def __init__(
        self, input_size: int, output_size: int, *, param_dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs | None = None
    ) -> None:
        del input_size, rngs
        self.bias: nnx.Param = nnx.Param(jnp.zeros(output_size, param_dtype))

    def __call__(self, features: Float[Array, "... E"], embed: nnx.Embed) -> Float[Array, "... O"]:
        """A score for each token."""
        scores = features @ embed.embedding[...].T
        return scores + jnp.broadcast_to(self.bias[...], scores.shape)


class SequenceModel(nnx.Module):
    """A recurrent stack with a linear head; a model family of a user's own is a subclass.

    With an embedding, inputs are the numbers of tokens; floats are taken for what it makes of them.

    Args:
        cell: the cell of every layer.
        input_size: D, or how many tokens there are.
        hidden_sizes: H of each layer, bottom to top.
        output_size: O, classes or targets.
        readout: what the head sees: the `"last"` valid state, the `"mean"` over valid states, the `"max"` of each unit
            over them, their mean by learnt weights (`"attention"`, Yang et al. 2016, NAACL: softmax over time of
            `v tanh(W h + b)`), or `"every"` state.
        embedding: E, numbers for each token; None where inputs are numbers themselves.
        embedding_scale: standard deviation of the normal distribution that it is drawn from, a traced value if need be.
        tied: whether the head's weights are the embedding's, Press and Wolf 2017, arXiv:1608.05859.
        compute_dtype: type in which embedded tokens enter the stack; None for that of the parameters.
        rngs: streams `params` and, for dropout, `dropout`.
        kwargs: of `Stack`; its output dropout is on what the head sees.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> from gru_jax import cells, nn
        >>> model = nn.SequenceModel(cells.GRU(), 2, (3,), 10, readout="mean", rngs=nnx.Rngs(0))
        >>> model(jnp.ones((4, 5, 2))).shape
        (4, 10)
        >>> outputs, carry = model(jnp.ones((4, 5, 2)), return_state=True)
        >>> reader = nn.SequenceModel(cells.GRU(), 50, (3,), 50, embedding=3, tied=True, rngs=nnx.Rngs(0))
        >>> reader(jnp.ones((4, 5), jnp.int32)).shape
        (4, 50)
    """

    def __init__(
        self,
        cell: Cell,
        input_size: int,
        hidden_sizes: tuple[int, ...],
        output_size: int,
        *,
        readout: Readout = "last",
        embedding: int | None = None,
        embedding_scale: ArrayLike = 0.1,
        tied: bool = False,
        compute_dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
        **kwargs: Any,
    ) -> None:
        check_choice("readout", readout, READOUTS)
        self.readout: Readout = readout
        self.param_dtype, self.compute_dtype = param_dtype, compute_dtype or param_dtype
        width, outputs = embedding or input_size, at_least_one("output_size", output_size)
        self.stack: Stack = Stack(cell, width, hidden_sizes, param_dtype=param_dtype, rngs=rngs, **kwargs)
        self.embed: nnx.Embed | None = (
            None
            if embedding is None
            else embedding_of(input_size, width, embedding_scale, param_dtype=param_dtype, rngs=rngs)
        )
        if tied and (input_size, embedding) != (outputs, self.stack.output_size):
            raise UsageError(
                f"tied=True: the head takes {self.stack.output_size} numbers to {outputs}; needed is an embedding of "
                f"{outputs} tokens by {self.stack.output_size}, and it is of {input_size} by {embedding}"
            )
        if readout == "attention":
            width = self.stack.output_size
            self.attention: nnx.Linear = nnx.Linear(width, width, param_dtype=param_dtype, rngs=rngs)
            self.attention_scores: nnx.Linear = nnx.Linear(width, 1, use_bias=False, param_dtype=param_dtype, rngs=rngs)
        head: Any = TiedHead if tied else nnx.Linear
        self.head: Any = head(self.stack.output_size, outputs, param_dtype=param_dtype, rngs=rngs)

    def __call__(
        self,
        xs: Float[Array, "B T D"] | Int[Array, "B T"],
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
        xs: Float[Array, "B T D"] | Int[Array, "B T"],
        carry0: Sequence[Any] | None = None,
        *,
        lengths: Int[Array, " B"] | None = None,
        mask: Bool[Array, "B T"] | None = None,
        on_read: Callable[[Array], Array] | None = None,
        dropout_key: DropoutKey | None = None,
        dropout: Any = None,
        **kwargs: Any,
    ) -> Trace:
        """The outputs with every layer's inputs and results; arguments as in `Stack`.

        `on_read` is applied to the top states `[B, T, H]` before a readout of several of them: what it does to their
        gradient is done to each step's share alone, before it enters the recurrence.
        """
        if self.embed is not None and jnp.issubdtype(xs.dtype, jnp.integer):
            xs = self.embed(xs).astype(self.compute_dtype)
        rates, key = drawn_dropout(self.stack, dropout, dropout_key)
        layers = self.stack.trace(xs, carry0, lengths=lengths, mask=mask, dropout_key=key, dropout=rates, **kwargs)
        features = self._read(layers[-1], lengths, mask, on_read or (lambda hs: hs))
        features = drop_output(features, rates, key).astype(self.param_dtype)
        return Trace(self.read_out(features), layers, features)

    def read_out(self, features: Float[Array, "B *T H"]) -> Float[Array, "B *T O"]:
        """What the head makes of features, as a `Trace` has them."""
        shared: Any = (self.embed,) if isinstance(self.head, TiedHead) else ()
        return self.head(features, *shared)

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
        (batch, time, _), wide = hs.shape, carry_dtype(hs.dtype)
        valid = valid_steps(lengths, batch, time, mask)
        if self.readout == "mean":
            count = jnp.full(batch, time) if valid is None else valid.sum(axis=1)
            # In the padding states are zeros; that no gradient comes from there tells which steps a loss reads.
            hs = hs if valid is None else jnp.where(valid[..., None], hs, 0)
            return hs.astype(wide).sum(axis=1) / jnp.maximum(count, 1).astype(wide)[:, None]
        if self.readout == "max":
            if valid is None:
                return hs.max(axis=1)
            greatest = jnp.where(valid[..., None], hs, -jnp.inf).max(axis=1)
            return jnp.where(valid.any(axis=1)[:, None], greatest, 0)
        if self.readout == "attention":
            wide_states = hs.astype(self.param_dtype)
            scores = self.attention_scores(jnp.tanh(self.attention(wide_states)))[..., 0]
            weights = nnx.softmax(scores if valid is None else jnp.where(valid, scores, -1e30), axis=1)
            return jnp.einsum("bt,bth->bh", weights, wide_states)
        assert_never(self.readout)  # a type checker tells of a readout without a branch


def embedding_of(tokens: int, width: int, scale: ArrayLike, *, param_dtype: DTypeLike, rngs: nnx.Rngs) -> nnx.Embed:
    """An embedding, drawn from a normal distribution with this standard deviation, a traced value if need be."""
    return nnx.Embed(tokens, width, embedding_init=_scaled_normal(scale), param_dtype=param_dtype, rngs=rngs)


def _scaled_normal(scale: ArrayLike) -> Initializer:
    return lambda key, shape, dtype: jnp.asarray(scale, dtype) * normal(key, shape, dtype)
