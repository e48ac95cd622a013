"""Recurrent layers on top of each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray, PyTree

from gru_jax.cells import Cell
from gru_jax.errors import UsageError
from gru_jax.nn.layers import Bidirectional, Recurrent
from gru_jax.unroll import Intervention, Unrolled

DropoutKey = PRNGKeyArray | Key[Array, " B"]
"""Where dropout draws from: a key, or one for each sequence."""


class DropoutRates(NamedTuple):
    """The probabilities of dropping a number, numbers or traced values.

    Attributes:
        between: of what a layer gives to the next.
        input: of what the first layer reads.
        output: of what is read of the last layer.
    """

    between: Any = 0.0
    input: Any = 0.0
    output: Any = 0.0


INPUT_STREAM, OUTPUT_STREAM = 2**20, 2**20 + 1
"""Numbers beside those of the layers, by which what is dropped is drawn."""


def is_key_of_each(key: DropoutKey) -> bool:
    """Whether there is a key for each sequence."""
    return key.ndim == 1 and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)  # raw keys are arrays of numbers


class LayerInputs(NamedTuple):
    """What a layer read, of which all that it does follows.

    Attributes:
        xs: inputs `[B, T, D]`.
        carry0: the carry that it started from; None for zeros.
        lengths: of the sequences; None where all are T.

    Examples:
        >>> import jax.numpy as jnp
        >>> from gru_jax import nn
        >>> nn.LayerInputs(jnp.ones((4, 5, 2))).carry0 is None
        True
    """

    xs: Float[Array, "B T D"]
    carry0: PyTree = None
    lengths: Int[Array, " B"] | None = None


class LayerTrace(NamedTuple):
    """What one layer of a stack read and gave.

    Attributes:
        inputs: `[B, T, D]`.
        unrolled: what it gave.
        carry0: the carry that it started from; None for zeros.
        lengths: of the sequences; None where all are T.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> from gru_jax import cells, nn
        >>> stack = nn.Stack(cells.GRU(), 2, (3, 4), rngs=nnx.Rngs(0))
        >>> [(trace.inputs.shape, trace.unrolled.hs.shape) for trace in stack.trace(jnp.ones((4, 5, 2)))]
        [((4, 5, 2), (4, 5, 3)), ((4, 5, 3), (4, 5, 4))]
    """

    inputs: Float[Array, "B T D"]
    unrolled: Unrolled
    carry0: PyTree = None
    lengths: Int[Array, " B"] | None = None

    @property
    def read(self) -> LayerInputs:
        """What it read, without what it gave."""
        return LayerInputs(self.inputs, self.carry0, self.lengths)


@jax.tree_util.register_pytree_with_keys_class
class StackTrace(tuple[LayerTrace, ...]):
    """What every layer of a stack read and gave, bottom to top; in the paths of a pytree `layer_0`, `layer_1`, ….

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> from gru_jax import cells, nn
        >>> trace = nn.Stack(cells.GRU(), 2, (3, 4), rngs=nnx.Rngs(0)).trace(jnp.ones((6, 5, 2)))
        >>> [carry.shape for carry in trace.carry], trace[-1].unrolled.hs.shape
        ([(6, 3), (6, 4)], (6, 5, 4))
    """

    __slots__ = ()

    @property
    def carry(self) -> tuple[Any, ...]:
        """The carry of every layer after the last step, from which it goes on with what follows."""
        return tuple(layer.unrolled.carry for layer in self)

    def tree_flatten_with_keys(self) -> tuple[list[tuple[Any, LayerTrace]], None]:
        """The layers under their names."""
        return [(jax.tree_util.DictKey(f"layer_{i}"), layer) for i, layer in enumerate(self)], None

    @classmethod
    def tree_unflatten(cls, _: None, layers: Sequence[LayerTrace]) -> StackTrace:
        """The inverse of `tree_flatten_with_keys`."""
        return cls(layers)


class Stack(nnx.Module):
    """Recurrent layers on top of each other, with dropout between them, before the first and after the last.

    Dropout draws from the stream `dropout` of `rngs` (or its default stream) in every call, until `.eval()` switches it
    off; `.train()` switches it on again.

    Args:
        cell: the cell of every layer.
        input_size: D.
        hidden_sizes: H of each layer, bottom to top, e.g. `(128, 64)`.
        bidirectional: whether each layer runs in both directions (and is 2H wide to the next).
        dropout: probability of dropping a unit between layers, Zaremba et al. 2014, arXiv:1409.2329.
        input_dropout: probability of dropping a number that the first layer reads.
        output_dropout: probability of dropping a unit of the last layer where it is read.
        scheme, method, chunk, keep, param_dtype: as in `Recurrent`.
        rngs: streams `params` and, for dropout, `dropout`.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> from gru_jax import cells, nn
        >>> stack = nn.Stack(cells.GRU(), 2, (3, 4), dropout=0.5, rngs=nnx.Rngs(0))
        >>> stack(jnp.ones((6, 5, 2))).shape
        (6, 5, 4)
        >>> hs, carry = stack(jnp.ones((6, 5, 2)), return_state=True)
        >>> [part.shape for part in carry]
        [(6, 3), (6, 4)]
    """

    def __init__(
        self,
        cell: Cell,
        input_size: int,
        hidden_sizes: tuple[int, ...],
        *,
        bidirectional: bool = False,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        output_dropout: float = 0.0,
        rngs: nnx.Rngs,
        **kwargs: Any,
    ) -> None:
        if isinstance(hidden_sizes, str) or not isinstance(hidden_sizes, Sequence) or not hidden_sizes:
            raise UsageError(f"hidden_sizes={hidden_sizes!r}: the units of each layer are needed, as (128, 64)")
        layer = Bidirectional if bidirectional else Recurrent
        self.names: tuple[str, ...] = tuple(f"layer_{i}" for i in range(len(hidden_sizes)))
        for name, size in zip(self.names, hidden_sizes, strict=True):
            setattr(self, name, layer(cell, input_size, size, rngs=rngs, **kwargs))
            input_size = size * (2 if bidirectional else 1)
        self.output_size = input_size
        rates = DropoutRates(dropout, input_dropout, output_dropout)
        self.dropout: DropoutRates = _checked_rates(rates, len(hidden_sizes))
        self.deterministic = False  # the name that `nnx.Module.train` and `eval` set
        has_stream = "dropout" in rngs or "default" in rngs
        self.rngs: nnx.RngStream | None = nnx.data(rngs["dropout"].fork() if any(rates) and has_stream else None)

    @property
    def layers(self) -> tuple[Recurrent | Bidirectional, ...]:
        """The layers, bottom to top."""
        return tuple(getattr(self, name) for name in self.names)

    def __call__(
        self,
        xs: Float[Array, "B T D"],
        carry0: Sequence[Any] | None = None,
        *,
        return_state: bool = False,
        **kwargs: Any,
    ) -> Any:
        """The top layer's states `[B, T, H]`; with `return_state`, they and every layer's last carry. See `trace`."""
        rates, key = drawn_dropout(self, kwargs.pop("dropout", None), kwargs.pop("dropout_key", None))
        layers = self.trace(xs, carry0, dropout=rates, dropout_key=key, **kwargs)
        hs = drop_output(layers[-1].unrolled.hs, rates, key)
        return (hs, layers.carry) if return_state else hs

    def trace(
        self,
        xs: Float[Array, "B T D"],
        carry0: Sequence[Any] | None = None,
        *,
        lengths: Int[Array, " B"] | None = None,
        mask: Bool[Array, "B T"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
        reset_carry: Sequence[Any] | None = None,
        perturbations: tuple[Any, ...] | None = None,
        interventions: tuple[Intervention, ...] | None = None,
        recurrent_masks: tuple[Any, ...] | None = None,
        dropout_key: DropoutKey | None = None,
        dropout: Any = None,
    ) -> StackTrace:
        """Run all layers.

        Args:
            xs: inputs `[B, T, D]`.
            carry0: for each layer, the carry that it starts from, the `carry` of what came before; zeros if None.
            lengths, mask, resets: as in `gru_jax.unroll`; `resets` mark each packed sequence's first step.
            reset_carry: for each layer, the carry that a reset sets; zeros if None.
            perturbations: for each layer, added to its states; see `gru_jax.unroll`.
            interventions: for each layer, what is done to its gradient; see `gru_jax.unroll`.
            recurrent_masks: for each layer, multiplied with what its recurrent products read; see `gru_jax.unroll`.
            dropout_key: randomness of the dropout, in place of the stack's own stream and its `.eval()`: a key, or one
                for each sequence, `[B]`, so that what is dropped of one does not depend on the others.
            dropout: the probability between layers in place of the stack's own probabilities, or all `DropoutRates`;
                traced values if need be.

        Returns:
            Each layer's inputs and results, bottom to top; of the last before output dropout.

        Raises:
            UsageError: something that each layer has one of is not of as many as there are layers, a probability is
                out of range, or there is nothing to draw dropout from.
        """
        carries = self._for_each_layer("carry0", carry0)
        reset_carries = self._for_each_layer("reset_carry", reset_carry)
        all_perturbations = self._for_each_layer("perturbations", perturbations)
        all_interventions = self._for_each_layer("interventions", interventions)
        masks_of_reads = self._for_each_layer("recurrent_masks", recurrent_masks)
        rates, dropout_key = drawn_dropout(self, dropout, dropout_key)
        xs = _drop(xs, dropout_key, INPUT_STREAM, rates.input)
        traces: list[LayerTrace] = []
        for i, layer in enumerate(self.layers):
            if i:
                xs = _drop(xs, dropout_key, i, rates.between)
            with jax.named_scope(f"layer_{i}"):
                out = layer.trace(
                    xs, carries[i],
                    lengths=lengths, mask=mask, resets=resets, reset_carry=reset_carries[i],
                    perturbation=all_perturbations[i], intervention=all_interventions[i],
                    recurrent_mask=masks_of_reads[i],
                )  # fmt: skip
            traces.append(LayerTrace(xs, out, carries[i], lengths))
            xs = out.hs
        return StackTrace(traces)

    def _for_each_layer(self, name: str, values: Sequence[Any] | None) -> Sequence[Any]:
        """What there is one of for each layer: Nones where nothing is given."""
        count = len(self.names)
        if values is None:
            return (None,) * count
        if not isinstance(values, Sequence) or len(values) != count:
            amount = f"{len(values)} entries" if isinstance(values, Sequence) else f"the type {type(values).__name__}"
            raise UsageError(f"{name}: has {amount}; needed is a tuple of one for each layer, {count} in all")
        return values

    def draw_dropout_key(self, rates: DropoutRates) -> PRNGKeyArray | None:
        """A new key from the stack's own stream, or None where nothing is dropped."""
        if self.deterministic or (not _has_tracer(rates) and not any(rates)):
            return None
        if self.rngs is None:
            raise UsageError(
                f"dropout={max(rates)}: there is no stream dropout to draw from; give one with rngs, "
                "nnx.Rngs(params=0, dropout=1), or dropout_key, or call .eval()"
            )
        return self.rngs()


def drawn_dropout(stack: Stack, dropout: Any, dropout_key: DropoutKey | None) -> tuple[DropoutRates, DropoutKey | None]:
    """The probabilities and the randomness of a call with these arguments, see `trace`; no key for no dropout."""
    rates = stack.dropout
    if dropout is not None:
        rates = dropout if isinstance(dropout, DropoutRates) else DropoutRates(dropout)
        rates = _checked_rates(rates, len(stack.names))
        if stack.deterministic and dropout_key is None and not _has_tracer(rates) and any(rates):
            raise UsageError(f"dropout={dropout}: nothing is dropped after .eval(); give dropout_key too")
    key = stack.draw_dropout_key(rates) if dropout_key is None else dropout_key
    return (DropoutRates(), None) if key is None else (rates, key)


def drop_output(features: Float[Array, "B *T H"], rates: DropoutRates, key: DropoutKey | None) -> Array:
    """What is read of the last layer, with units dropped."""
    return _drop(features, key, OUTPUT_STREAM, rates.output)


def _drop(xs: Float[Array, "B *T D"], key: DropoutKey | None, stream: int, dropout: Any) -> Float[Array, "B *T D"]:
    """What a layer reads, with units dropped at random by a key or by one for each sequence."""
    if key is None or (not isinstance(dropout, Tracer) and not dropout):
        return xs

    # Not nnx.Dropout, whose probability cannot be a traced value.
    def kept(key: PRNGKeyArray, shape: tuple[int, ...]) -> Bool[Array, "..."]:
        return jax.random.bernoulli(jax.random.fold_in(key, stream), keep, shape)

    keep = 1.0 - jnp.asarray(dropout)
    mask = jax.vmap(lambda key: kept(key, xs.shape[1:]))(key) if is_key_of_each(key) else kept(key, xs.shape)
    return jnp.where(mask, xs / keep.astype(xs.dtype), 0)


def _has_tracer(rates: DropoutRates) -> bool:
    return any(isinstance(rate, Tracer) for rate in rates)


def _checked_rates(rates: DropoutRates, layers: int) -> DropoutRates:
    """Probabilities of dropout in a stack of so many layers, checked as far as their values are known."""
    for name, rate in zip(("dropout", "input_dropout", "output_dropout"), rates, strict=True):
        if isinstance(rate, Tracer):
            continue
        is_number = isinstance(rate, int | float | np.number | np.ndarray | jax.Array) and np.ndim(rate) == 0
        if not is_number or not 0 <= float(rate) < 1:
            raise UsageError(f"{name}={rate!r}: allowed are numbers from 0 to below 1")
        if name == "dropout" and float(rate) > 0 and layers == 1:
            raise UsageError(f"dropout={rate}: it acts between layers, and there is one; allowed is 0")
    return rates
