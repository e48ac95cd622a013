"""What is taken of the network of another run, part by part, and the listing of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import PyTree

from gru_jax.cells import Params
from gru_jax.config import Config
from gru_jax.config.schema import REGISTRIES
from gru_jax.errors import UsageError, closest, listing
from gru_jax.nn import CellPlace, NetworkParts
from gru_jax.nn.parts import EMBEDDING, HEAD, SOURCE_EMBEDDING, TARGET_EMBEDDING, Path, leaf_at, nested
from gru_jax.runtime.files import Json, read_json, write_json
from gru_jax.settings import to_dict
from gru_jax.tasks.naming import NumberNames, names_of_inputs, names_of_outputs
from gru_jax.training.carrying import PartlyTaken

TRANSFER_FILE = "transfer.json"


class NetworkView(NamedTuple):
    """A network, as something to take parts of or to put them into.

    Attributes:
        config: of its run.
        params: its parameters, or their shapes and types.
        parts: its parts.
    """

    config: Config
    params: Params
    parts: NetworkParts

    @classmethod
    def of(cls, config: Config, params: Params, layers: Sequence[tuple[CellPlace, ...]]) -> NetworkView:
        """Of a network with these parameters and cells."""
        return cls(config, params, NetworkParts.of(params, layers))

    def leaves(self, part: str) -> dict[Path, Path]:
        """The path of each parameter of a part, by what it is called within the part."""
        root = self.parts.root(part)
        return {path[len(root) :]: path for path in self.parts.paths[part]}

    def named_axis(self, part: str, within: Path) -> tuple[int, NumberNames | None] | None:
        """The axis of a parameter that stands for inputs or outputs, and their names; None where there is none."""
        if part in (EMBEDDING, SOURCE_EMBEDDING):
            return 0, names_of_inputs(self.config.task)
        if part == TARGET_EMBEDDING:
            return 0, names_of_outputs(self.config.task)
        if part == HEAD:
            return -1, names_of_outputs(self.config.task)
        if part in self.parts.lowest and within[0] == "W" and not self.config.task.reads_tokens:
            return 0, names_of_inputs(self.config.task)
        return None


@dataclasses.dataclass(frozen=True)
class TakenPart:
    """A part that was taken.

    Attributes:
        other: what it is called there.
        what: has names, by which numbers were taken, such as tokens (words); empty where all were taken as they stand.
        known: names that both networks know.
        new: those of this network alone, whose numbers are drawn.
        left: those of the other network alone.
    """

    other: str
    what: str = ""
    known: int = 0
    new: int = 0
    left: int = 0

    def describe(self, part: str) -> str:
        """The part in a few words."""
        called = part if self.other == part else f"{part} (there {self.other})"
        if not self.what:
            return called
        names = f"{self.known:,} of {self.known + self.new:,} {self.what} by name, {self.new:,} new, {self.left:,} left"
        return f"{called} ({names})"


@dataclasses.dataclass(frozen=True)
class TransferListing:
    """What was taken of the network of another run, what is new, and what was left.

    Attributes:
        source: the run's checkpoint, as the config has it.
        step: of the checkpoint.
        taken: parts that were taken, by name.
        new: parts that were drawn.
        left: parts of the other network that were not taken.
    """

    source: str
    step: int | None
    taken: Mapping[str, TakenPart]
    new: tuple[str, ...] = ()
    left: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """What is to be read of it."""
        taken = listing(part.describe(name) for name, part in self.taken.items())
        lines = [f"from {self.source}, step {self.step}: taken {taken}"]
        return [*lines, f"new: {listing(self.new) or 'none'}; left there: {listing(self.left) or 'none'}"]

    def to_json(self) -> Json:
        """The content of `transfer.json`."""
        return dataclasses.asdict(self)


def write_listings(folder: FilePath, listings: Sequence[TransferListing | None], *, single: bool) -> None:
    """Keep what the members of a population started from, or a single run, if any started from another run."""
    if any(one is not None for one in listings):
        plain = [{} if one is None else one.to_json() for one in listings]
        write_json(folder / TRANSFER_FILE, plain[0] if single else {"members": plain})


def write_listing_of_member(population: FilePath, member: int, folder: FilePath) -> None:
    """Keep what one member of a population started from, in the directory of its own."""
    path = population / TRANSFER_FILE
    content = read_json(path)["members"][member] if path.exists() else {}
    if content:
        write_json(folder / TRANSFER_FILE, content)


def check_same_network(source: NetworkView, target: NetworkView) -> None:
    """Refuse a network, all of which is to be taken, whose cells or the names of whose numbers are others.

    Raises:
        UsageError: they are.
    """
    _check_cells(source, target, "the layers")
    for read, side in ((names_of_inputs, "reads"), (names_of_outputs, "has outputs for")):
        theirs, ours = read(source.config.task), read(target.config.task)
        if theirs is not None and ours is not None and theirs != ours:
            known = len(ours.places_in(theirs)) if theirs.what == ours.what else 0
            raise UsageError(
                f"it {side} {len(theirs.names):,} {theirs.what}, and this network {len(ours.names):,} {ours.what}, of "
                f"which it knows {known:,}; transfer.parts says which parts are taken, those of the same name by name"
            )


def carry_over(source: NetworkView, target: NetworkView) -> tuple[dict[str, Any], dict[str, TakenPart]]:
    """The parameters of the parts that `transfer.parts` of the target's config names, and what was taken.

    Numbers of a named axis, tokens of an embedding or features of an input kernel, go by their names, others by place.

    Raises:
        UsageError: a part is not there, or does not fit.
    """
    weights, taken = dict[Path, Any](), dict[str, TakenPart]()
    for part, other in _pairs(source, target):
        if part in target.parts.cells:
            _check_cells(source, target, part)
        ours, theirs = target.leaves(part), source.leaves(other)
        if ours.keys() != theirs.keys():
            shown = [listing(".".join(within) for within in leaves) for leaves in (theirs, ours)]
            raise UsageError(f"{part}: it consists of {shown[0]} there and of {shown[1]} here; {_leave_out(part)}")
        taken[part] = TakenPart(other)
        for within in ours:
            value, named = _leaf(source, target, part, other, within)
            weights[ours[within]] = value
            taken[part] = named or taken[part]
    return nested(weights), taken


def _pairs(source: NetworkView, target: NetworkView) -> Iterator[tuple[str, str]]:
    """The parts that are taken, each with its name in the other network."""
    for item in target.config.transfer.parts or ():
        name, is_renamed, other_name = item.partition("=")
        for part in target.parts.select("transfer.parts", (name,)):
            if is_renamed and part != name and not part.startswith(f"{name}."):
                raise UsageError(f"transfer.parts={item}: {name} stands for several parts; name each, as {part}=…")
            other = other_name + part.removeprefix(name) if is_renamed else part
            if other not in source.parts.paths:
                has = listing(source.parts.paths)
                raise UsageError(
                    f"transfer.parts={item}: no part {other} there; that network has {has}; PART=OTHER takes one of "
                    f"another name{closest(other, source.parts.paths)}"
                )
            yield part, other


def _check_cells(source: NetworkView, target: NetworkView, what: str) -> None:
    theirs, ours = (to_dict(view.config.model.cell, REGISTRIES) for view in (source, target))
    for key in {**theirs, **ours}:
        pair = [cell.get(key, "without it") for cell in (theirs, ours)]
        if pair[0] != pair[1]:
            raise UsageError(
                f"{what}: model.cell.{key} is {pair[0]} there and {pair[1]} here; allowed is the same cell"
            )


def _leaf(
    source: NetworkView, target: NetworkView, part: str, other: str, within: Path
) -> tuple[Any, TakenPart | None]:
    """A parameter as it is taken, and how many of its numbers, where these go by name."""
    array = np.asarray(leaf_at(source.params, source.leaves(other)[within]))
    like = leaf_at(target.params, target.leaves(part)[within])
    axes = target.named_axis(part, within), source.named_axis(other, within)
    (axis, ours), (_, theirs) = (pair or (0, None) for pair in axes)
    names = None if ours is None or theirs is None or ours == theirs else (ours, theirs)
    shapes = [list(array.shape), list(like.shape)]
    if names is not None and [shape[axis] for shape in shapes] != [len(names[1].names), len(names[0].names)]:
        raise UsageError(
            f"{part}: its rows are not one for each of its {names[0].what}, and those there are others, so that none "
            f"is known by name; {_leave_out(part)}"
        )
    if names is not None and len(array.shape) == len(like.shape):
        for shape in shapes:
            shape[axis] = 0
    if shapes[0] != shapes[1]:
        name = ".".join((part, *within))
        raise UsageError(
            f"{name} is {list(array.shape)} there and {list(like.shape)} here; {_remedy(part, source, target)}"
        )
    if not np.can_cast(array.dtype, like.dtype, "safe"):
        raise UsageError(f"{part} is {array.dtype}, which {like.dtype} would round; dtype={array.dtype} is needed")
    if names is None:
        return np.asarray(array, like.dtype), None
    return _leaf_by_name(array, like, axis, part, other, *names)


def _leaf_by_name(
    array: np.ndarray, like: PyTree, axis: int, part: str, other: str, ours: NumberNames, theirs: NumberNames
) -> tuple[PartlyTaken, TakenPart]:
    """A parameter whose numbers go by their names along an axis."""
    places = ours.places_in(theirs) if ours.what == theirs.what else {}
    if not places:
        raise UsageError(
            f"{part}: its {len(theirs.names):,} {theirs.what} there are none of the {len(ours.names):,} {ours.what} "
            f"here; {_leave_out(part)}"
        )
    values = np.zeros(like.shape, like.dtype)
    is_taken = np.zeros([n if i == axis % like.ndim else 1 for i, n in enumerate(like.shape)], bool)
    rows, taken_rows = np.moveaxis(values, axis, 0), np.moveaxis(is_taken, axis, 0)
    rows[list(places)] = np.moveaxis(array, axis, 0)[list(places.values())]
    taken_rows[list(places)] = True
    new, left = len(ours.names) - len(places), len(theirs.names) - len(places)
    return PartlyTaken(values, is_taken), TakenPart(other, ours.what, len(places), new, left)


def _remedy(part: str, source: NetworkView, target: NetworkView) -> str:
    """What to do where shapes disagree."""
    theirs, ours = source.config.model, target.config.model
    keys = {"hidden": listing(theirs.hidden).replace(" ", "")} if theirs.hidden != ours.hidden else {}
    if theirs.embedding != ours.embedding and theirs.embedding is not None:
        keys["embedding"] = str(theirs.embedding)
    if part == HEAD or not keys:
        return _leave_out(part)
    return f"set {' '.join(f'model.{key}={value}' for key, value in keys.items())}, or {_leave_out(part)}"


def _leave_out(part: str) -> str:
    return f"name in transfer.parts those to take without {part}, which is then drawn"
