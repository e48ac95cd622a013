"""Recurrent layers as Flax NNX modules: thin holders of parameters around `unroll`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, PyTree

from gru_jax.cells import Carry, Cell, Params
from gru_jax.initializers import Scheme
from gru_jax.unroll import Intervention, Unrolled, unroll, valid_steps
from gru_jax.unroll.arguments import checked_mask
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
        encodes: whether its steps are those of a source, whose encoder it is part of, and not those that a loss reads.

    Examples:
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
    encodes: bool = False

    def inside(self, *path: str) -> CellPlace:
        """The same cell as a part of something larger."""
        return self._replace(path=(*path, *self.path))

    def parameters(self, params: Params) -> Any:
        """The cell's parameters among those of the network."""
        for name in self.path:
            params = params[name]
        return params

    def states(self, of_layer: PyTree) -> PyTree:
        """The cell's share of its layer's states, `[..., parts * H]`, or of a pytree of anything of their shape."""
        if self.parts == 1:
            return of_layer
        return jax.tree.map(lambda a: jnp.split(jnp.asarray(a), self.parts, axis=-1)[self.part], of_layer)

    def carry(self, of_layer: PyTree) -> PyTree:
        """The cell's share of its layer's carry, if there is one."""
        return of_layer if self.parts == 1 or of_layer is None else of_layer[self.part]


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

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> from gru_jax import cells, nn
        >>> layer = nn.Recurrent(cells.GRU(), 2, 3, rngs=nnx.Rngs(0))
        >>> layer(jnp.ones((4, 5, 2))).shape
        (4, 5, 3)
        >>> hs, carry = layer(jnp.ones((4, 5, 2)), return_state=True)
        >>> hs, carry = layer(jnp.ones((4, 7, 2)), carry, return_state=True)  # what follows
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
        keep: Keep = "auto",
        param_dtype: DTypeLike = jnp.float32,
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
        self, xs: Float[Array, "B T D"], carry0: Carry | None = None, *, return_state: bool = False, **kwargs: Any
    ) -> Any:
        """The hidden states `[B, T, H]`; with `return_state`, they and the carry after the last step, as a pair.

        `carry0` is the carry to start from, zeros if None. The other arguments are those of `trace`.
        """
        out = self.trace(xs, carry0, **kwargs)
        return (out.hs, out.carry) if return_state else out.hs

    def trace(
        self,
        xs: Float[Array, "B T D"],
        carry0: Carry | None = None,
        *,
        lengths: Int[Array, " B"] | None = None,
        mask: Bool[Array, "B T"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
        reset_carry: Carry | None = None,
        recurrent_mask: Float[Array, "B T H"] | Float[Array, "B 1 H"] | None = None,
        perturbation: Float[Array, "B T H"] | tuple[Float[Array, "B T H"], ...] | None = None,
        intervention: Intervention | None = None,
    ) -> Unrolled:
        """All that `gru_jax.unroll` gives; `resets` mark each packed sequence's first step in both directions."""
        if self.reverse and jnp.ndim(xs) == 3:  # of another rank they are refused below
            batch, time = jnp.shape(xs)[:2]
            marks = checked_mask("resets", resets, batch, time)
            if marks is not None:
                resets = _marks_backwards(marks, valid_steps(lengths, batch, time, mask))
        return unroll(
            self.cell,
            self.params,
            xs,
            carry0,
            lengths=lengths,
            mask=mask,
            resets=resets,
            reset_carry=reset_carry,
            recurrent_mask=recurrent_mask,
            reverse=self.reverse,
            method=self.method,
            chunk=self.chunk,
            keep=self.keep,
            perturbation=perturbation,
            intervention=NONE if intervention is None else intervention,
        )


def _marks_backwards(resets: Bool[Array, "B T"], valid: Bool[Array, "B T"] | None) -> Bool[Array, "B T"]:
    """Marks of first steps as the marks of a pass against time: of each step before a marked one, of those that count.

    Backwards, a sequence begins with the last step that counts before the next one's first.
    """
    if valid is None:
        return jnp.concatenate([resets[:, 1:], jnp.zeros_like(resets[:, :1])], axis=1)
    time = resets.shape[1]
    numbers = jnp.where(valid, jnp.arange(time)[None, :], time)
    following = jax.lax.cummin(numbers, axis=1, reverse=True)  # at each step the first from it on that counts
    after = jnp.concatenate([following[:, 1:], jnp.full_like(following[:, :1], time)], axis=1)
    with_end = jnp.concatenate([resets, jnp.zeros_like(resets[:, :1])], axis=1)
    return jnp.take_along_axis(with_end, after, axis=1)


class BothCarries(NamedTuple):
    """The carries of the two layers of a `Bidirectional`.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> from gru_jax import cells, nn
        >>> layer = nn.Bidirectional(cells.GRU(), 2, 3, rngs=nnx.Rngs(0))
        >>> hs, carry = layer(jnp.ones((4, 5, 2)), return_state=True)
        >>> carry.forward.shape, carry.backward.shape
        ((4, 3), (4, 3))
    """

    forward: Carry
    backward: Carry


class Bidirectional(nnx.Module):
    """Two layers over the same input, one in each direction, their states side by side: `[B, T, 2H]`.

    Arguments as in `Recurrent`.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> from gru_jax import cells, nn
        >>> layer = nn.Bidirectional(cells.GRU(), 2, 3, rngs=nnx.Rngs(0))
        >>> layer(jnp.ones((4, 5, 2))).shape
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
        return_state: bool = False,
        **kwargs: Any,
    ) -> Any:
        """The hidden states `[B, T, 2H]`; with `return_state`, they and both last carries. See `trace`."""
        out = self.trace(xs, carry0, **kwargs)
        return (out.hs, out.carry) if return_state else out.hs

    def trace(
        self,
        xs: Float[Array, "B T D"],
        carry0: tuple[Carry, Carry] | None = None,
        *,
        perturbation: Float[Array, "B T W"] | tuple[Float[Array, "B T W"], ...] | None = None,
        recurrent_mask: Float[Array, "B T W"] | Float[Array, "B 1 W"] | None = None,
        reset_carry: BothCarries | Carry | None = None,
        **kwargs: Any,
    ) -> Unrolled:
        """What both directions give, side by side; arguments as in `Recurrent.trace`.

        A `reset_carry` is that of both directions, or has one of each.
        """
        carries = (None, None) if carry0 is None else carry0
        resets = reset_carry if isinstance(reset_carry, BothCarries) else (reset_carry, reset_carry)
        of_both = {"perturbation": perturbation, "recurrent_mask": recurrent_mask}
        halves = (jax.tree.map(lambda a, i=i: jnp.split(a, 2, axis=-1)[i], of_both) for i in (0, 1))
        forward, backward = (
            layer.trace(xs, carry, reset_carry=reset, **half, **kwargs)
            for layer, carry, reset, half in zip((self.forward, self.backward), carries, resets, halves, strict=True)
        )
        hs = jnp.concatenate([forward.hs, backward.hs], axis=-1)
        return Unrolled(hs, BothCarries(forward.carry, backward.carry), forward.finite & backward.finite)
