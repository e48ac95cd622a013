"""A model's split into pure functions of a plain dict of parameters, and where its cells are in that dict."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
from flax import nnx
from jaxtyping import Array, PRNGKeyArray

from gru_jax.nn.layers import CellPlace
from gru_jax.nn.models import SequenceModel, Trace


class Functional(NamedTuple):
    """A model as pure functions of a plain dict of parameters.

    Attributes:
        init: `init(key, **kwargs) -> params`, drawn anew; `kwargs` go to `build`.
        apply: `apply(params, xs, **kwargs) -> Trace`.
        module: `module(params) -> SequenceModel`, the model with these parameters.
        layers: where the cells of each layer are, bottom to top.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from gru_jax import cells, nn
        >>> build = lambda rngs: nn.SequenceModel(cells.GRU(), 2, (3,), 10, rngs=rngs)
        >>> model = nn.functional(build)
        >>> params = model.init(jax.random.key(0))
        >>> model.layers[0][0].parameters(params)["U"]["n"].shape
        (3, 3)
    """

    init: Callable[..., dict[str, Any]]
    apply: Callable[..., Trace]
    module: Callable[[dict[str, Any]], SequenceModel]
    layers: tuple[tuple[CellPlace, ...], ...]

    @property
    def cells(self) -> Iterator[tuple[int, CellPlace]]:
        """Every cell, with the number of its layer."""
        return ((number, place) for number, places in enumerate(self.layers) for place in places)


def functional(build: Callable[..., SequenceModel]) -> Functional:
    """Split the model that `build(rngs, **kwargs)` makes into pure functions, once.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from gru_jax import cells, nn
        >>> build = lambda rngs: nn.SequenceModel(cells.GRU(), 2, (3,), 10, rngs=rngs)
        >>> model = nn.functional(build)
        >>> params = model.init(jax.random.key(0))
        >>> model.apply(params, jnp.ones((4, 5, 2))).outputs.shape
        (4, 10)
    """

    def init(key: PRNGKeyArray, **kwargs: Any) -> dict[str, Any]:
        return nnx.to_pure_dict(nnx.state(build(nnx.Rngs(params=key), **kwargs), nnx.Param))

    shapes = nnx.eval_shape(lambda: build(nnx.Rngs(params=jax.random.key(0))))
    graph, state = nnx.split(shapes, nnx.Param)

    def module(params: dict[str, Any]) -> SequenceModel:
        filled = jax.tree.map(lambda leaf: leaf, state)  # a copy: the state itself stays abstract
        nnx.replace_by_pure_dict(filled, params)
        return nnx.merge(graph, filled)

    def apply(params: dict[str, Any], xs: Array, **kwargs: Any) -> Trace:
        return module(params).trace(xs, **kwargs)

    return Functional(init, apply, module, shapes.cell_places())
