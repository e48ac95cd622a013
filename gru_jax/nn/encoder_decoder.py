"""Models from one sequence of tokens to another: an encoder reads the source, a decoder writes the target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Bool, Float, Int

from gru_jax.cells import Carry, Cell
from gru_jax.cells.base import carry_from_leaves, carry_leaves
from gru_jax.errors import UsageError, at_least_one, check_choice
from gru_jax.nn.attention import ATTENTIONS, KINDS, Attention, SourceAttention, SourceMemory
from gru_jax.nn.layers import CellPlace
from gru_jax.nn.models import Readout, SequenceModel, TiedHead, Trace, embedding_of
from gru_jax.nn.stack import DropoutKey, Stack, StackTrace, drawn_dropout, drop_output, is_key_of_each
from gru_jax.unroll import valid_steps

DECODER_STREAM = 2**20 + 2
"""Number by which the decoder's dropout is drawn, beside those of the layers."""


class Bridge(nnx.Module):
    """The first carry of a layer of the decoder, a linear map of both directions' last ones in the encoder.

    Args:
        cell: of the layers.
        units: H.
        param_dtype: type of the parameters.
        rngs: stream `params`.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> from gru_jax import cells
        >>> from gru_jax.nn.encoder_decoder import Bridge
        >>> bridge = Bridge(cells.LSTM(), 3, rngs=nnx.Rngs(0))
        >>> h, c = bridge((jnp.ones((2, 3)), jnp.ones((2, 3))), (jnp.ones((2, 3)), jnp.ones((2, 3))))
        >>> h.shape, c.shape
        ((2, 3), (2, 3))
    """

    def __init__(self, cell: Cell, units: int, *, param_dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs) -> None:
        self.cell = cell
        for part in range(cell.carry_parts):
            setattr(self, f"part_{part}", nnx.Linear(2 * units, units, param_dtype=param_dtype, rngs=rngs))

    def __call__(self, forward: Carry, backward: Carry) -> Carry:
        """The carry, of those of both directions."""
        pairs = zip(carry_leaves(forward), carry_leaves(backward), strict=True)
        both = [jnp.concatenate(pair, axis=-1) for pair in pairs]
        parts = [getattr(self, f"part_{i}")(part).astype(part.dtype) for i, part in enumerate(both)]
        return carry_from_leaves(self.cell, parts)


class EncoderDecoder(SequenceModel):
    """An encoder and a decoder of as many layers, with attention or without: Sutskever et al. 2014, arXiv:1409.3215.

    The decoder starts from the encoder's last carries, layer by layer, or from linear maps of those of both directions.
    In training it reads the target, one token late (teacher forcing).

    Args:
        cell: the cell of every layer.
        input_size: how many tokens there are in sources.
        hidden_sizes: H of each layer, bottom to top, of the encoder and of the decoder.
        output_size: how many tokens there are in targets.
        embedding: E, numbers for each token.
        embedding_scale: standard deviation of the normal distribution that both embeddings are drawn from.
        readout: `"every"`.
        bidirectional: whether each layer of the encoder runs in both directions.
        attention: none, luong or bahdanau.
        tied: whether the head's weights are those of the target's embedding.
        compute_dtype: type in which embedded tokens enter the stacks; None for that of the parameters.
        rngs: streams `params` and, for dropout, `dropout`.
        kwargs: of each `Stack`; output dropout is on what the head sees.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> from gru_jax import cells, nn
        >>> model = nn.EncoderDecoder(cells.GRU(), 20, (3,), 30, embedding=4, attention="luong", rngs=nnx.Rngs(0))
        >>> source, target = jnp.ones((2, 5), jnp.int32), jnp.ones((2, 6), jnp.int32)
        >>> trace = model.trace(source, decoder_inputs=target)
        >>> trace.outputs.shape, [place.name for (place,) in model.cell_places()]
        ((2, 6, 30), ['encoder.layer_0', 'decoder.layer_0'])
    """

    def __init__(
        self,
        cell: Cell,
        input_size: int,
        hidden_sizes: tuple[int, ...],
        output_size: int,
        *,
        embedding: int,
        embedding_scale: ArrayLike = 0.1,
        readout: Readout = "every",
        bidirectional: bool = False,
        attention: Attention = "none",
        tied: bool = False,
        compute_dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
        **kwargs: Any,
    ) -> None:
        check_choice("readout", readout, ("every",))
        check_choice("attention", attention, ATTENTIONS)
        self.readout = readout
        self.param_dtype, self.compute_dtype = param_dtype, compute_dtype or param_dtype
        outputs, typed = at_least_one("output_size", output_size), {"param_dtype": param_dtype, "rngs": rngs}
        self.encoder: Stack = Stack(
            cell, embedding, hidden_sizes, bidirectional=bidirectional, param_dtype=param_dtype, rngs=rngs, **kwargs
        )
        self.decoder: Stack = Stack(cell, embedding, hidden_sizes, param_dtype=param_dtype, rngs=rngs, **kwargs)
        width = self.decoder.output_size
        if tied and embedding != width:
            raise UsageError(f"tied=True: the head takes {width} numbers, and the embedding has {embedding}")
        self.source_embed: nnx.Embed = embedding_of(
            at_least_one("input_size", input_size), embedding, embedding_scale, **typed
        )
        self.target_embed: nnx.Embed = embedding_of(outputs, embedding, embedding_scale, **typed)
        self.bidirectional = bidirectional
        for i, units in enumerate(hidden_sizes if bidirectional else ()):
            setattr(self, f"bridge_{i}", Bridge(cell, units, **typed))
        self.has_attention = attention != "none"
        if self.has_attention:
            self.source_attention: SourceAttention = KINDS[attention](width, self.encoder.output_size, **typed)
        head: Any = TiedHead if tied else nnx.Linear
        self.head: Any = head(width, outputs, **typed)

    def trace(
        self,
        xs: Int[Array, "B T"],
        carry0: Sequence[Any] | None = None,
        *,
        lengths: Int[Array, " B"] | None = None,
        mask: Bool[Array, "B T"] | None = None,
        decoder_inputs: Int[Array, "B N"] | None = None,
        decoder_lengths: Int[Array, " B"] | None = None,
        on_read: Callable[[Array], Array] | None = None,
        perturbations: Sequence[Any] | None = None,
        interventions: Sequence[Any] | None = None,
        recurrent_masks: Sequence[Any] | None = None,
        dropout_key: DropoutKey | None = None,
        dropout: Any = None,
        **kwargs: Any,
    ) -> Trace:
        """A score for each token that may come after each of the decoder's inputs; every layer of both stacks.

        Args:
            xs: tokens of the sources.
            carry0, mask, kwargs: None; a source has nothing before it, and no holes.
            decoder_inputs: tokens of the targets, one late.
            lengths, decoder_lengths: of sources, and of the decoder's inputs.
            on_read: as of `SequenceModel.trace`, for what the head reads at each step.
            perturbations, interventions, recurrent_masks: for each layer of the encoder, then of the decoder.
            dropout_key, dropout: as of `Stack.trace`.

        Raises:
            UsageError: there is nothing for the decoder to read, or something of which it knows nothing.
        """
        for name, value in {"carry0": carry0, "mask": mask, **kwargs}.items():
            if value is not None:
                raise UsageError(f"{name}: an encoder and a decoder take none")
        if decoder_inputs is None:
            raise UsageError("decoder_inputs: missing; needed are the tokens that the decoder reads")
        count = len(self.encoder.names)
        (read_shifts, write_shifts), (read_acts, write_acts), (read_masks, write_masks) = (
            (None, None) if values is None else (tuple(values[:count]), tuple(values[count:]))
            for values in (perturbations, interventions, recurrent_masks)
        )
        rates, key = drawn_dropout(self.encoder, dropout, dropout_key)
        memory, layers = self.encode(
            xs, lengths, perturbations=read_shifts, interventions=read_acts, recurrent_masks=read_masks,
            dropout_key=key, dropout=rates,
        )  # fmt: skip
        written = self.decode(
            decoder_inputs, memory, memory.carries, on_read=on_read, lengths=decoder_lengths,
            perturbations=write_shifts, interventions=write_acts, recurrent_masks=write_masks,
            dropout_key=_of_decoder(key), dropout=rates,
        )  # fmt: skip
        return Trace(written.outputs, StackTrace((*layers, *written.layers)), written.features)

    def encode(
        self, xs: Int[Array, "B T"], lengths: Int[Array, " B"] | None = None, **kwargs: Any
    ) -> tuple[SourceMemory, StackTrace]:
        """What the decoder knows of the sources, and every layer of the encoder; `kwargs` of `Stack.trace`."""
        embedded = self.source_embed(xs).astype(self.compute_dtype)
        layers = self.encoder.trace(embedded, lengths=lengths, **kwargs)
        carries = layers.carry
        if self.bidirectional:
            carries = tuple(getattr(self, f"bridge_{i}")(*carry) for i, carry in enumerate(carries))
        if not self.has_attention:
            return SourceMemory(carries), layers
        states = layers[-1].unrolled.hs.astype(self.param_dtype)
        return SourceMemory(
            carries, states, self.source_attention.keys(states), valid_steps(lengths, xs.shape[0], xs.shape[1])
        ), layers

    def decode(
        self,
        tokens: Int[Array, "B N"],
        memory: SourceMemory,
        carries: Sequence[Carry],
        *,
        on_read: Callable[[Array], Array] | None = None,
        dropout_key: DropoutKey | None = None,
        dropout: Any = None,
        **kwargs: Any,
    ) -> Trace:
        """The scores after each of these tokens, on from the carries; `kwargs` of `Stack.trace`."""
        rates, key = drawn_dropout(self.decoder, dropout, dropout_key)
        embedded = self.target_embed(tokens).astype(self.compute_dtype)
        layers = self.decoder.trace(embedded, carries, dropout_key=key, dropout=rates, **kwargs)
        features = layers[-1].unrolled.hs.astype(self.param_dtype)
        if self.has_attention:
            features = self.source_attention(features, memory)
        features = drop_output((on_read or (lambda hs: hs))(features), rates, key)
        return Trace(self.read_out(features), layers, features)

    def read_out(self, features: Float[Array, "B *T H"]) -> Float[Array, "B *T O"]:
        shared: tuple[nnx.Embed, ...] = (self.target_embed,) if isinstance(self.head, TiedHead) else ()
        return self.head(features, *shared)

    def cell_places(self) -> tuple[tuple[CellPlace, ...], ...]:
        """Where every cell stands: the layers of the encoder from bottom to top, then those of the decoder."""
        return tuple(
            tuple(
                place.inside(part, name)._replace(encodes=part == "encoder")
                for place in layer.cell_places(f"{part}.{name}")
            )
            for part, stack in (("encoder", self.encoder), ("decoder", self.decoder))
            for name, layer in zip(stack.names, stack.layers, strict=True)
        )


def _of_decoder(key: DropoutKey | None) -> DropoutKey | None:
    """The key of the decoder's dropout, or one for each sequence."""
    if key is None:
        return None
    fold = jax.vmap(jax.random.fold_in, (0, None)) if is_key_of_each(key) else jax.random.fold_in
    return fold(key, DECODER_STREAM)
