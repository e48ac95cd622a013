"""Recurrent layers as Flax NNX modules: thin holders of parameters around `unroll`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from gru_jax.cells import Carry, Cell
from gru_jax.errors import UsageError
from gru_jax.initializers import Scheme
from gru_jax.unroll import Intervention, Unrolled, unroll
from gru_jax.unroll.interventions import NONE
from gru_jax.unroll.options import Keep, Method


class CellPlace(NamedTuple):
    """Where one cell of a network is: its parameters in a plain dict, and its states among those of its layer.

    Attributes:
        name: of the cell, `layer_0`, or `layer_0.forward` and `layer_0.backward` of two directions.
        cell: the cell.
        units: H.
        path: of its parameters in the dict.
        reverse: whether it begins at the last step.
        part, parts: its states are this part of so many equal ones, side by side.

    Example:
        >>> from flax import nnx
        >>> from gru_jax import cells, nn
        >>> layer = nn.Bidirectional(cells.GRU(), 2, 3, rngs=nnx.Rngs(0))
        >>> [(place.name, place.path, place.reverse) for place in layer.cell_places("layer_0")]
        [('layer_0.forward', ('forward', 'weights'), False), ('layer_0.backward', ('backward', 'weights'), True)]
    """

    name: str
    cell: Cell
    units: int
    path: tuple[str, ...]
    reverse: bool
    part: int = 0
    parts: int = 1

    def inside(self, *path: str) -> CellPlace:
        """The same cell as a part of something larger."""
        return self._replace(path=(*path, *self.path))

    def parameters(self, params: Mapping[str, Any]) -> Any:
        """The cell's parameters among those of the network."""
        for name in self.path:
            params = params[name]
        return params

    def states(self, of_layer: Any) -> Any:
        """The cell's share of its layer's states, `[..., parts * H]`, or of a pytree of anything of their shape."""
        if self.parts == 1:
            return of_layer
        return jax.tree.map(lambda a: jnp.split(jnp.asarray(a), self.parts, axis=-1)[self.part], of_layer)


class _Group(nnx.Module):
    """A dict of parameters, nested, as a module: attributes keep string keys in every Flax release we support."""

    def __init__(self, tree: Mapping[str, Any]) -> None:
        for name, value in tree.items():
            setattr(self, name, _Group(value) if isinstance(value, Mapping) else nnx.Param(value))


class Recurrent(nnx.Module):
    """A cell with its parameters, run over `[B, T, D]`.

    Args:
        cell: the cell.
        input_size: D.
        hidden_size: H.
        scheme: initialisation; `Scheme()` if None.
        reverse: run from the last step to the first.
        method, chunk, keep: how to unroll; see `gru_jax.unroll`.
        param_dtype: type of the parameters.
        rngs: the stream `params` is drawn from.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> from gru_jax import cells, nn
        >>> layer = nn.Recurrent(cells.GRU(), 2, 3, rngs=nnx.Rngs(0))
        >>> layer(jnp.ones((4, 5, 2))).hs.shape
        (4, 5, 3)
    """

    def __init__(
        self,
        cell: Cell,
        input_size: int,
        hidden_size: int,
        *,
        scheme: Scheme | None = None,
        reverse: bool = False,
        method: Method = "auto",
        chunk: int | None = None,
        keep: Keep = "states",
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        self.cell = cell
        self.hidden_size = hidden_size
        self.reverse = reverse
        self.method: Method = method
        self.chunk: int | None = chunk
        self.keep: Keep = keep
        self.weights: nnx.Module = _Group(cell.init(rngs.params(), input_size, hidden_size, scheme, param_dtype))

    @property
    def params(self) -> dict[str, dict[str, Array]]:
        """The cell's parameters as a plain dict."""
        return nnx.to_pure_dict(nnx.state(self.weights))

    def cell_places(self, name: str) -> tuple[CellPlace, ...]:
        """Where the cell is, with a name for the layer."""
        return (CellPlace(name, self.cell, self.hidden_size, ("weights",), self.reverse),)

    def final_state(self, unrolled: Unrolled) -> Float[Array, "B H"]:
        """The hidden state after the last step that was processed: the first in time, if the layer runs backwards."""
        return self.cell.hidden(unrolled.carry)

    def __call__(
        self,
        xs: Float[Array, "B T D"],
        carry0: Carry | None = None,
        *,
        lengths: Int[Array, " B"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
        perturbation: Float[Array, "B T H"] | tuple[Float[Array, "B T H"], ...] | None = None,
        intervention: Intervention = NONE,
    ) -> Unrolled:
        """See `gru_jax.unroll`, except that `resets` mark the first step of each packed sequence in both directions."""
        if self.reverse and resets is not None:
            # Backwards, a sequence begins with the step before the next one's first.
            resets = jnp.concatenate([resets[:, 1:], jnp.zeros_like(resets[:, :1])], axis=1)
        return unroll(
            self.cell,
            self.params,
            xs,
            carry0,
            lengths=lengths,
            resets=resets,
            reverse=self.reverse,
            method=self.method,
            chunk=self.chunk,
            keep=self.keep,
            perturbation=perturbation,
            intervention=intervention,
        )


class Bidirectional(nnx.Module):
    """Two layers over the same input, one in each direction, their states side by side: `[B, T, 2H]`.

    The carry is the pair of both layers' carries. Arguments as in `Recurrent`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> from gru_jax import cells, nn
        >>> layer = nn.Bidirectional(cells.GRU(), 2, 3, rngs=nnx.Rngs(0))
        >>> layer(jnp.ones((4, 5, 2))).hs.shape
        (4, 5, 6)
    """

    def __init__(self, cell: Cell, input_size: int, hidden_size: int, *, rngs: nnx.Rngs, **kwargs: Any) -> None:
        self.forward: Recurrent = Recurrent(cell, input_size, hidden_size, rngs=rngs, **kwargs)
        self.backward: Recurrent = Recurrent(cell, input_size, hidden_size, reverse=True, rngs=rngs, **kwargs)

    def cell_places(self, name: str) -> tuple[CellPlace, ...]:
        """Where both cells are, with a name for the layer."""
        directions = {"forward": self.forward, "backward": self.backward}
        return tuple(
            place.inside(direction)._replace(part=part, parts=len(directions))
            for part, (direction, layer) in enumerate(directions.items())
            for place in layer.cell_places(f"{name}.{direction}")
        )

    def final_state(self, unrolled: Unrolled) -> Float[Array, "B W"]:
        """The final hidden states of both directions, side by side."""
        forward, backward = unrolled.carry
        return jnp.concatenate([self.forward.cell.hidden(forward), self.backward.cell.hidden(backward)], axis=-1)

    def __call__(
        self,
        xs: Float[Array, "B T D"],
        carry0: tuple[Carry, Carry] | None = None,
        *,
        perturbation: Float[Array, "B T W"] | tuple[Float[Array, "B T W"], ...] | None = None,
        **kwargs: Any,
    ) -> Unrolled:
        carries = (None, None) if carry0 is None else carry0
        halves = (jax.tree.map(lambda a, i=i: jnp.split(a, 2, axis=-1)[i], perturbation) for i in (0, 1))
        forward, backward = (
            layer(xs, carry, perturbation=half, **kwargs)
            for layer, carry, half in zip((self.forward, self.backward), carries, halves, strict=True)
        )
        hs = jnp.concatenate([forward.hs, backward.hs], axis=-1)
        return Unrolled(hs, (forward.carry, backward.carry), forward.finite & backward.finite)


class LayerTrace(NamedTuple):
    """What one layer of a stack read and gave.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> from gru_jax import cells, nn
        >>> stack = nn.Stack(cells.GRU(), 2, (3, 4), rngs=nnx.Rngs(0))
        >>> [(trace.inputs.shape, trace.unrolled.hs.shape) for trace in stack(jnp.ones((4, 5, 2)))]
        [((4, 5, 2), (4, 5, 3)), ((4, 5, 3), (4, 5, 4))]
    """

    inputs: Float[Array, "B T D"]
    unrolled: Unrolled


class Stack(nnx.Module):
    """Recurrent layers on top of each other, with dropout between them (not before the first or after the last).

    Args:
        cell: the cell of every layer.
        input_size: D.
        hidden_sizes: H of each layer, bottom to top, e.g. `(128, 64)`.
        bidirectional: whether each layer runs in both directions (and is 2H wide to the next).
        dropout: probability of dropping a unit between layers, Zaremba et al. 2014, arXiv:1409.2329.
        scheme, method, chunk, keep, param_dtype: as in `Recurrent`.
        rngs: the stream `params` is drawn from.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> from gru_jax import cells, nn
        >>> stack = nn.Stack(cells.GRU(), 2, (3, 4), rngs=nnx.Rngs(0))
        >>> stack(jnp.ones((4, 5, 2)))[-1].unrolled.hs.shape
        (4, 5, 4)
    """

    def __init__(
        self,
        cell: Cell,
        input_size: int,
        hidden_sizes: tuple[int, ...],
        *,
        bidirectional: bool = False,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
        **kwargs: Any,
    ) -> None:
        if not hidden_sizes:
            raise UsageError("hidden_sizes=(): at least one layer is needed")
        layer = Bidirectional if bidirectional else Recurrent
        self.names: tuple[str, ...] = tuple(f"layer_{i}" for i in range(len(hidden_sizes)))
        for name, size in zip(self.names, hidden_sizes, strict=True):
            setattr(self, name, layer(cell, input_size, size, rngs=rngs, **kwargs))
            input_size = size * (2 if bidirectional else 1)
        self.output_size = input_size
        self.dropout = dropout

    @property
    def layers(self) -> tuple[Recurrent | Bidirectional, ...]:
        """The layers, bottom to top."""
        return tuple(getattr(self, name) for name in self.names)

    def __call__(
        self,
        xs: Float[Array, "B T D"],
        carry0: Sequence[Any] | None = None,
        *,
        lengths: Int[Array, " B"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
        perturbations: tuple[Any, ...] | None = None,
        interventions: tuple[Intervention, ...] | None = None,
        dropout_key: Array | None = None,
        dropout: Any = None,
    ) -> tuple[LayerTrace, ...]:
        """Run all layers.

        Args:
            xs: inputs `[B, T, D]`.
            carry0: for each layer, the carry that it starts from, as `[trace.unrolled.carry for trace in traces]` of
                what came before; zeros if None.
            lengths, resets: as in `Recurrent`.
            perturbations: for each layer, added to its states; see `gru_jax.unroll`.
            interventions: for each layer, what is done to its gradient; see `gru_jax.unroll`.
            dropout_key: randomness of the dropout; None switches it off.
            dropout: its probability in place of the stack's own, a traced value if need be.

        Returns:
            Each layer's inputs and results, bottom to top.

        Raises:
            UsageError: there are not as many carries as layers.
        """
        if carry0 is not None and len(carry0) != len(self.names):
            raise UsageError(f"carry0: has {len(carry0)} carries; needed is one for each of {len(self.names)} layers")
        traces: list[LayerTrace] = []
        for i, layer in enumerate(self.layers):
            if i and dropout_key is not None:
                # Not nnx.Dropout, whose probability cannot be a traced value.
                keep = 1.0 - jnp.asarray(self.dropout if dropout is None else dropout)
                kept = jax.random.bernoulli(jax.random.fold_in(dropout_key, i), keep, xs.shape)
                xs = jnp.where(kept, xs / keep.astype(xs.dtype), 0)
            perturbation = None if perturbations is None else perturbations[i]
            intervention = NONE if interventions is None else interventions[i]
            carry = None if carry0 is None else carry0[i]
            sequences: dict[str, Any] = {"lengths": lengths, "resets": resets}
            with jax.named_scope(f"layer_{i}"):
                out = layer(xs, carry, perturbation=perturbation, intervention=intervention, **sequences)
            traces.append(LayerTrace(xs, out))
            xs = out.hs
        return tuple(traces)
