"""Which parts of a network a training changes, when, and how fast."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, PyTree

from gru_jax.config import Config, Values
from gru_jax.config.hyperparameters import THAWS
from gru_jax.config.transfer import RATES
from gru_jax.errors import UsageError, listing
from gru_jax.nn import Functional
from gru_jax.nn.parts import NetworkParts, Path, leaf_at, leaf_paths, nested, with_leaves


class PartlyTaken(NamedTuple):
    """A parameter of which some numbers replace those that are drawn.

    Attributes:
        values: in the shape of the parameter.
        is_taken: where they count, in a shape that goes beside it.
    """

    values: Array | np.ndarray
    is_taken: Array | np.ndarray


def with_weights(drawn: PyTree, weights: PyTree) -> PyTree:
    """Parameters as they are drawn, with those of nested dicts in their place; of some, see `PartlyTaken`, a part."""
    if isinstance(weights, PartlyTaken):
        return jnp.where(weights.is_taken, weights.values, drawn)
    if not isinstance(drawn, Mapping) or not isinstance(weights, Mapping):
        return weights
    return {name: with_weights(leaf, weights[name]) if name in weights else leaf for name, leaf in drawn.items()}


class TrainedParts:
    """The parts of a config's network: what stays as it is, what learns later than the rest, and what slower.

    Where a config asks for nothing of this, every method gives what it is given.

    Args:
        config: the config.
        model: its network.

    Attributes:
        levels: the paths of the parameters that are trained, for each level of which any are, from the bottom up.

    Raises:
        UsageError: a part that the network does not have, nothing left to train, or steps for other than the levels
            below the top.
    """

    def __init__(self, config: Config, model: Functional) -> None:
        transfer = config.transfer
        self.frozen = transfer.frozen is not None
        self._thaws = transfer.num_thaws
        self._decays = transfer.rate_decay is not None
        self._rates = dict[str, str]()
        self.levels: tuple[tuple[Path, ...], ...] = ()
        if not transfer.is_selective:
            return
        self._parts = NetworkParts.of(jax.eval_shape(model.init, jax.random.key(0)), model.layers)
        frozen = self._parts.select("transfer.frozen", transfer.frozen or ())
        self._rates = self._parts.narrowest("transfer.rates", transfer.rate_by_part)
        trained = {part: paths for part, paths in self._parts.paths.items() if part not in frozen}
        if not trained:
            raise UsageError(f"transfer.frozen={listing(transfer.frozen or ())}: nothing is left to train")
        numbers = sorted({self._parts.levels[part] for part in trained})
        self.names = [[part for part in trained if self._parts.levels[part] == number] for number in numbers]
        self.levels = tuple(tuple(path for part in names for path in trained[part]) for names in self.names)
        if self._thaws and self._thaws != len(numbers) - 1:
            key = "thaw_steps" if transfer.thaw_steps else "thaw_epochs"
            below = [" and ".join(names) for names in reversed(self.names[:-1])]
            raise UsageError(
                f"transfer.{key}={listing(getattr(transfer, key))}: needed are as many numbers as there are levels "
                f"below the top that learn, {len(below)}: of {listing(below) or 'none'}"
            )

    def trained(self, params: PyTree) -> PyTree:
        """Of the parameters, or of a tree like them, those that learn."""
        if not self.frozen:
            return params
        return nested({path: leaf_at(params, path) for paths in self.levels for path in paths})

    def whole(self, params: PyTree, trained: PyTree) -> PyTree:
        """The parameters with others for those that learn."""
        return with_leaves(params, trained) if self.frozen else trained

    def held_back(self, grads: PyTree, step: ArrayLike, values: Values) -> PyTree:
        """The gradients of a step, zero where a level does not learn yet."""
        if not self._thaws:
            return grads
        return self._by_level(grads, lambda level, g: jax.tree.map(lambda a: jnp.where(level, a, 0.0), g), step, values)

    def optimizer(
        self, build: Callable[..., optax.GradientTransformation], step: ArrayLike, values: Values
    ) -> optax.GradientTransformation:
        """The optimiser of a step; `build(around_rule)` makes that of all parameters alike, see `build_optimizer`.

        The state of a rule is that of each level by itself, which begins where the level does: a mean square that was
        zero for many steps would make the first update of Adam three times as long.
        """
        rule_of_levels = (lambda rule: self._of_levels(rule, step, values)) if self._thaws else lambda rule: rule
        inner = build(rule_of_levels)
        if not self.levels or not (self._thaws or self._decays or self._rates):
            return inner

        def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
            updates, state = inner.update(updates, state, params)
            if self._decays or self._rates:
                updates = with_leaves(updates, self._scaled(updates, values))
            if self._thaws:
                # Minus zero: added to any number, zeros of both signs among them, it leaves its bits as they are.
                updates = self._by_level(
                    updates, lambda level, u: jax.tree.map(lambda a: jnp.where(level, a, -0.0), u), step, values
                )
            return updates, state

        return optax.GradientTransformation(inner.init, update)

    def _scaled(self, updates: PyTree, values: Values) -> dict[str, Any]:
        """The updates with the learning rate of each part."""
        top, scaled = max(self._parts.levels.values()), dict[Path, Any]()
        for names in self.names:
            for part in names:
                factor = values["rate_decay"] ** (top - self._parts.levels[part]) if self._decays else 1.0
                if part in self._rates:
                    factor = factor * values[f"{RATES}.{self._rates[part]}"]
                for path in self._parts.paths[part]:
                    update = leaf_at(updates, path)
                    scaled[path] = update * jnp.asarray(factor, update.dtype)
        return nested(scaled)

    def _thawed(self, step: ArrayLike, values: Values) -> list[Bool[Array, ""] | None]:
        """Whether each level learns, from the bottom up; None of that which always does."""
        marks = [values[f"{THAWS}{i}"] for i in reversed(range(self._thaws))]
        return [*(jnp.asarray(step, jnp.result_type(mark)) >= mark for mark in marks), None]

    def _by_level(
        self, tree: PyTree, change: Callable[[PyTree, PyTree], PyTree], step: ArrayLike, values: Values
    ) -> PyTree:
        """A tree of the parameters that learn, with `change(level, subtree)` for those of levels that wait."""
        for level, paths in zip(self._thawed(step, values), self.levels, strict=True):
            if level is not None:
                tree = with_leaves(tree, change(level, _subtree(tree, paths)))
        return tree

    def _of_levels(self, rule: optax.GradientTransformation, step: ArrayLike, values: Values) -> PyTree:
        """A rule with a state for each level, which stays as it is until the level learns."""

        def init(params: PyTree) -> PyTree:
            return tuple(rule.init(_subtree(params, paths)) for paths in self.levels)

        def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
            after = []
            for level, paths, old in zip(self._thawed(step, values), self.levels, state, strict=True):
                of_level = None if params is None else _subtree(params, paths)
                made, new = rule.update(_subtree(updates, paths), old, of_level)
                if level is not None:
                    new = jax.tree.map(lambda a, b, level=level: jnp.where(level, a, b), new, old)
                updates = with_leaves(updates, made)
                after.append(new)
            return updates, tuple(after)

        return optax.GradientTransformation(init, update)


def _subtree(tree: PyTree, paths: Sequence[Path]) -> dict[str, Any]:
    return nested({path: leaf_at(tree, path) for path in paths})


def num_trained(parts: TrainedParts, params: PyTree) -> int:
    """How many numbers of parameters learn."""
    trained = parts.trained(params)
    return sum(leaf_at(trained, path).size for path in leaf_paths(trained))
