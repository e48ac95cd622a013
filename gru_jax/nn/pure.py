"""A model's split into pure functions of a plain dict of parameters, and where its cells are in that dict."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, PRNGKeyArray, PyTree

from gru_jax.errors import UsageError
from gru_jax.nn.layers import CellPlace
from gru_jax.nn.models import SequenceModel, Trace
from gru_jax.nn.stack import DropoutKey, is_key_of_each


class Functional(NamedTuple):
    """A model as pure functions of a plain dict of parameters.

    Attributes:
        init: `init(key, **kwargs) -> params`, drawn anew; `kwargs` go to `build`.
        apply: `apply(params, xs, dropout_key=None, **kwargs) -> Trace`; nothing is random without a key, or keys `[B]`,
            one for each sequence.
        module: `module(params, dropout_key=None) -> SequenceModel`, the model with these parameters.
        layers: where the cells of each layer are, bottom to top.
        is_random: whether the model draws from random streams, for dropout or in a way of its own.

    Examples:
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
    is_random: bool

    @property
    def cells(self) -> Iterator[tuple[int, CellPlace]]:
        """Every cell, with the number of its layer."""
        return ((number, place) for number, places in enumerate(self.layers) for place in places)


def _seeded(random_state: PyTree, key: DropoutKey | None) -> PyTree:
    """The random streams of a model, drawn anew from a key (any key, where None), or from the first sequence's."""
    if key is None:
        key = jax.random.key(0)
    one_key = key[0] if is_key_of_each(key) else key
    base = jax.random.fold_in(one_key, 0)  # a stack of our own folds the number of each layer but the first into it
    leaves, structure = jax.tree.flatten(random_state)
    seeded = [
        jax.random.fold_in(base, i) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else jnp.zeros_like(leaf)
        for i, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, seeded)


def functional(build: Callable[..., SequenceModel]) -> Functional:
    """Split the model that `build(rngs, **kwargs)` makes into pure functions, once.

    `rngs` has the streams `params` and `dropout`.

    Raises:
        UsageError: the model has variables that are neither parameters nor random streams.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from gru_jax import cells, nn
        >>> build = lambda rngs: nn.SequenceModel(cells.GRU(), 2, (3,), 10, rngs=rngs)
        >>> model = nn.functional(build)
        >>> params = model.init(jax.random.key(0))
        >>> model.apply(params, jnp.ones((4, 5, 2))).outputs.shape
        (4, 10)
    """
    streams = {"params": jax.random.key(0), "dropout": jax.random.key(0)}

    def init(key: PRNGKeyArray, **kwargs: Any) -> dict[str, Any]:
        return nnx.to_pure_dict(nnx.state(build(nnx.Rngs(**{**streams, "params": key}), **kwargs), nnx.Param))

    shapes = nnx.eval_shape(lambda: build(nnx.Rngs(**streams)))
    graph, state, random_state, other = nnx.split(shapes, nnx.Param, nnx.RngState, ...)
    if jax.tree.leaves(other):
        kinds = sorted({type(variable).__name__ for _, variable in nnx.to_flat_state(other)})
        raise UsageError(f"{type(shapes).__name__}: has variables of kind {', '.join(kinds)}; allowed are Param alone")

    def module(params: dict[str, Any], dropout_key: DropoutKey | None = None) -> SequenceModel:
        filled = jax.tree.map(lambda leaf: leaf, state)  # a copy: the state itself stays abstract
        nnx.replace_by_pure_dict(filled, params)
        model = nnx.merge(graph, filled, _seeded(random_state, dropout_key))
        if dropout_key is None:
            model.eval()
        return model

    def apply(params: dict[str, Any], xs: Array, *, dropout_key: DropoutKey | None = None, **kwargs: Any) -> Trace:
        return module(params, dropout_key).trace(xs, dropout_key=dropout_key, **kwargs)

    return Functional(init, apply, module, shapes.cell_places(), bool(jax.tree.leaves(random_state)))
