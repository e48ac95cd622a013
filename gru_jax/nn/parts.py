"""The parts of a network by name, and the levels that they form: which of its parameters belong to what."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
from jaxtyping import PyTree

from gru_jax.cells import Params
from gru_jax.errors import UsageError, closest, listing
from gru_jax.nn.layers import CellPlace

Path = tuple[str, ...]
"""Where a parameter is in nested dicts."""
ALL, LAYERS, EMBEDDING = "all", "layers", "embedding"
SOURCE_EMBEDDING, TARGET_EMBEDDING, BRIDGE, ATTENTION, HEAD = (
    "source_embedding", "target_embedding", "bridge", "attention", "head",
)  # fmt: skip
NAMES = {
    "embed": EMBEDDING, "source_embed": SOURCE_EMBEDDING, "target_embed": TARGET_EMBEDDING,
    "attention": ATTENTION, "attention_scores": ATTENTION, "source_attention": ATTENTION, "head": HEAD,
}  # fmt: skip
"""The part that parameters outside of cells belong to, by the first name of their path."""
GROUPS = (ALL, LAYERS, EMBEDDING)


@dataclasses.dataclass(frozen=True)
class NetworkParts:
    """The parts of a network.

    Attributes:
        paths: of each part's parameters, by its name, from the bottom up.
        levels: the number of each part's level, from 0 at the bottom.
        cells: for each part that is a cell, where its parameters are.
        lowest: the cells of the layer that reads the inputs.

    Examples:
        >>> import jax
        >>> from flax import nnx
        >>> from gru_jax import cells, nn
        >>> build = lambda rngs: nn.SequenceModel(cells.GRU(), 50, (3, 4), 2, embedding=5, rngs=rngs)
        >>> model = nn.functional(build)
        >>> parts = nn.NetworkParts.of(model.init(jax.random.key(0)), model.layers)
        >>> parts.levels
        {'embedding': 0, 'layer_0': 1, 'layer_1': 2, 'head': 3}
        >>> parts.select("transfer.frozen", ("embedding", "layer_0"))
        ('embedding', 'layer_0')
    """

    paths: Mapping[str, tuple[Path, ...]]
    levels: Mapping[str, int]
    cells: Mapping[str, Path]
    lowest: tuple[str, ...]

    @classmethod
    def of(cls, params: Params, layers: Sequence[tuple[CellPlace, ...]]) -> NetworkParts:
        """Those of a network with these parameters and cells, see `gru_jax.nn.Functional.layers`."""
        cells = {place.name: place.path for places in layers for place in places}
        encoders = sum(places[0].encodes for places in layers)
        heights = {place.name: 2 * number + 1 for number, places in enumerate(layers) for place in places}
        between = {EMBEDDING: 0, SOURCE_EMBEDDING: 0, TARGET_EMBEDDING: 2 * encoders, BRIDGE: 2 * encoders}
        paths: dict[str, list[Path]] = {}
        for path in leaf_paths(params):
            paths.setdefault(_part_at(path, cells), []).append(path)
        heights = {name: heights.get(name, between.get(name, 2 * len(layers))) for name in paths}
        order = list(cells)
        names = sorted(paths, key=lambda name: (heights[name], order.index(name) if name in cells else 0))
        ranks = {height: level for level, height in enumerate(sorted(set(heights.values())))}
        return cls(
            {name: tuple(paths[name]) for name in names},
            {name: ranks[heights[name]] for name in names},
            cells,
            tuple(place.name for place in layers[0]),
        )

    def select(self, key: str, names: Iterable[str]) -> tuple[str, ...]:
        """The parts that names stand for, from the bottom up.

        Raises:
            UsageError: a name, which a key of the config has, stands for none.
        """
        chosen = {part for name in names for part in self._named(key, name)}
        return tuple(part for part in self.paths if part in chosen)

    def narrowest(self, key: str, values: Mapping[str, Any]) -> dict[str, str]:
        """For each part the name, among those of values, that stands for it and the fewest others.

        Raises:
            UsageError: a name, which a key of the config has, stands for none.
        """
        members = {name: self._named(key, name) for name in values}
        by_size = sorted(members, key=lambda name: (-len(members[name]), name not in GROUPS))
        return {part: name for name in by_size for part in members[name]}

    def root(self, part: str) -> Path:
        """Where all parameters of a part are, so that the rest of their paths is the same in other networks."""
        if part in self.cells:
            return self.cells[part]
        tops = {path[0] for path in self.paths[part]}
        return (tops.pop(),) if len(tops) == 1 else ()

    def _named(self, key: str, name: str) -> list[str]:
        chosen = [
            part
            for part in self.paths
            if part == name
            or part.startswith(f"{name}.")
            or name == ALL
            or (name == LAYERS and part in self.cells)
            or (name == EMBEDDING and part.endswith(f"_{EMBEDDING}"))
        ]
        if not chosen:
            present = [*self.paths, ALL, LAYERS]
            raise UsageError(
                f"{key}={name}: no such part; this network has {listing(self.paths)}{closest(name, present)}"
            )
        return chosen


def _part_at(path: Path, cells: Mapping[str, Path]) -> str:
    for name, root in cells.items():
        if path[: len(root)] == root:
            return name
    return BRIDGE if path[0].startswith(f"{BRIDGE}_") else NAMES.get(path[0], path[0])


def leaf_paths(params: Params) -> list[Path]:
    """The paths of all leaves of nested dicts."""
    return [tuple(str(key.key) for key in path) for path, _ in jax.tree.leaves_with_path(params)]


def leaf_at(params: Params, path: Path) -> PyTree:
    """The leaf of nested dicts at a path."""
    leaf: PyTree = params
    for name in path:
        leaf = leaf[name]
    return leaf


def nested(leaves: Mapping[Path, Any]) -> dict[str, Any]:
    """Leaves by path as nested dicts.

    Examples:
        >>> from gru_jax.nn.parts import nested
        >>> nested({("head", "bias"): 1, ("head", "kernel"): 2})
        {'head': {'bias': 1, 'kernel': 2}}
    """
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        section = tree
        for name in path[:-1]:
            section = section.setdefault(name, {})
        section[path[-1]] = leaf
    return tree


def with_leaves(params: PyTree, changes: PyTree) -> PyTree:
    """Nested dicts with those leaves in place of their own that others have.

    Examples:
        >>> from gru_jax.nn.parts import with_leaves
        >>> with_leaves({"head": {"bias": 1, "kernel": 2}}, {"head": {"bias": 3}})
        {'head': {'bias': 3, 'kernel': 2}}
    """
    if not isinstance(params, Mapping):
        return changes
    return {name: with_leaves(leaf, changes[name]) if name in changes else leaf for name, leaf in params.items()}
