"""Many members trained side by side in one compiled program, on all devices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Int

from gru_jax.config import AUTO, Config, plan
from gru_jax.config.hyperparameters import initial_program, numbers_of, training_program
from gru_jax.data.feed import Splits, batch_indices
from gru_jax.errors import UsageError, check_choice
from gru_jax.runtime.devices import Device
from gru_jax.tasks import SPLITS, split_key
from gru_jax.tasks.base import ORDER
from gru_jax.training.evaluation import build_totals, means
from gru_jax.training.instruments import build_instruments
from gru_jax.training.model import build_model
from gru_jax.training.step import Data, Steps, Trainer, TrainState

MAP, VMAP = "map", "vmap"
MAPPINGS = (AUTO, MAP, VMAP)
AXIS = "members"
TRAIN, MEASURE = "train", "measure"  # programs; the others are named by the split that they evaluate


class Own(NamedTuple):
    """What each member has of its own, `[R, ...]`.

    Attributes:
        seed: its seed.
        numbers: its settings that are values, see `gru_jax.config.hyperparameters`.
        orders: by split, which examples of the files it consists of; empty where all members share them.
    """

    seed: Any
    numbers: dict[str, dict[str, Any]]
    orders: dict[str, dict[str, Any]]


def chosen_mapping(mapping: str, platform: str) -> str:
    """How the members of a device share it: on a CPU one after the other, elsewhere as one batch."""
    check_choice("mapping", mapping, MAPPINGS)
    if mapping != AUTO:
        return mapping
    return MAP if platform == "cpu" else VMAP


class Programs:
    """What is compiled for members that share a program, whoever they are.

    A member's arithmetic is that of `Trainer`, under `lax.map` or `vmap`; no number goes from one member to another.

    Args:
        lead: the config of any of them.
        splits: its arrays.
        devices: those of this process to be used.
        mapping: `"map"`, `"vmap"`, or `"auto"` for what suits the platform.
    """

    def __init__(self, lead: Config, splits: Splits, devices: Sequence[Device], mapping: str = AUTO) -> None:
        self.lead, self.plan, self.devices = lead, plan(lead), list(devices)
        self.mapping = chosen_mapping(mapping, devices[0].platform)
        self._mesh = Mesh(np.array(self.devices), (AXIS,))
        self.sharding = NamedSharding(self._mesh, PartitionSpec(AXIS))
        self.model = build_model(lead)
        self.trainer = Trainer(lead, self.plan, self.model)
        shared = {split: {k: v for k, v in splits[split].items() if k != ORDER} for split in SPLITS}
        self.data = {
            split: jax.device_put(a, NamedSharding(self._mesh, PartitionSpec())) for split, a in shared.items()
        }
        measure = build_instruments(lead, self.model, split_key("valid", 0))
        self._programs = {
            TRAIN: self._program(self._advance, donate=True),
            MEASURE: self._program(lambda data, params, own: measure(params, {**data, **own[0]}, own[1])),
            **{split: self._program(self._sums(split)) for split in SPLITS[1:]},
        }
        self._compiled: dict[tuple[str, int], Any] = {}
        self.keep = jax.jit(_chosen, donate_argnums=1, out_shardings=self.sharding)

    def rows(self, members: int) -> int:
        """Members and the copies that fill up the devices."""
        return -(-members // len(self.devices)) * len(self.devices)

    def states(self, rows: int) -> TrainState:
        """Shapes, types and shardings of so many states."""
        one = jax.eval_shape(self.trainer.init, self.lead.seed, numbers_of(self.lead))
        return self._abstract(one, rows)

    def run(self, name: str, rows: int, kept: Any, own: Own, *call: Any) -> Any:
        """Run a program of so many rows: `"train"` on states, `"measure"`, or `"valid"` or `"test"`, on parameters."""
        return self._of(name, rows)(self.data[_split(name)], kept, _arguments(name, own, *call))

    def compiled_rows(self) -> list[int]:
        """For how many rows the training is compiled."""
        return [rows for name, rows in self._compiled if name == TRAIN]

    def bytes_needed(self, rows: int) -> int:
        """Memory that so many rows take on each device: data, the last and the best networks, the hungriest program."""
        working = []
        for name in (TRAIN, SPLITS[1], *([MEASURE] if self.plan.flow_every else [])):
            memory = self._of(name, rows).memory_analysis()
            working.append(memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes)
        networks = 2 * _bytes(self.states(rows)) // len(self.devices)
        return int(_bytes(self.data) + networks + max(working))

    def jitted(self, name: str) -> Any:
        """The program of that name, of any number of rows, before it is compiled."""
        return self._programs[name]

    def shapes(self, name: str, rows: int) -> tuple[Any, Any, Any]:
        """What a program of so many rows takes."""
        own, state = own_of([self.lead]), self.states(rows)
        size, batch = self.lead.train.call_steps, self.lead.train.batch_size
        call = (np.zeros((1, size, batch), np.int32),) if name == TRAIN else ()
        arguments = _arguments(name, own, *call, np.zeros(1, np.int32))
        one = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), arguments)
        kept = state if name == TRAIN else state.params
        return self.data[_split(name)], kept, self._abstract(one, rows)

    def _of(self, name: str, rows: int) -> Any:
        """The compiled program of that name."""
        if (name, rows) not in self._compiled:
            self._compiled[name, rows] = self.jitted(name).lower(*self.shapes(name, rows)).compile()
        return self._compiled[name, rows]

    def place(self, tree: Any, rows: int, idle: Any = None) -> Any:
        """Arrays `[R, ...]` on the devices as `[rows, ...]`; copies are `idle`, or as the first member."""

        def filled(a: Any) -> np.ndarray:
            a = np.asarray(a)
            more = rows - len(a)
            rest = np.repeat(a[:1], more, axis=0) if idle is None else np.full((more, *a.shape[1:]), idle, a.dtype)
            return np.concatenate([a, rest])

        return jax.device_put(jax.tree.map(filled, tree), self.sharding)

    def _abstract(self, one: Any, rows: int) -> Any:
        return jax.tree.map(lambda a: jax.ShapeDtypeStruct((rows, *a.shape), a.dtype, sharding=self.sharding), one)

    def _program(self, function: Callable[..., Any], *, donate: bool = False) -> Any:
        """`f(common, kept, own)`, where the latter two have an axis of members, out of `function` of one member."""

        def of_device(common: Any, kept: Any, own: Any) -> Any:
            if self.mapping == VMAP:
                return jax.vmap(lambda kept, own: function(common, kept, own))(kept, own)
            return jax.lax.map(lambda pair: function(common, *pair), (kept, own))

        specs = (PartitionSpec(), PartitionSpec(AXIS), PartitionSpec(AXIS))
        sharded = jax.shard_map(of_device, mesh=self._mesh, in_specs=specs, out_specs=specs[1], check_vma=False)
        sharded.__name__ = function.__name__.strip("_<>")
        return jax.jit(sharded, donate_argnums=(1,) if donate else ())

    def _advance(self, data: Data, state: TrainState, own: Any) -> Steps:
        seed, numbers, order, indices, count = own
        return self.trainer.steps(state, seed, numbers, {**data, **order}, indices, count)

    def _sums(self, split: str) -> Callable[..., dict[str, Array]]:
        totals = build_totals(self.lead, self.model)

        def sums(data: Data, params: Any, own: Any) -> dict[str, Array]:
            order, size = own
            return totals(params, {**data, **order}, split_key(split, 0), size)

        return sums


class Population:
    """Members in training. Arrays have a leading axis of members, split over the devices, and filled up with copies
    of the first member that do nothing.

    Args:
        programs: what is compiled for them.
        configs: of the members, R of them.
        rows: members and copies, at least R; None for as few as the devices allow.

    Raises:
        UsageError: a config needs another program.
    """

    def __init__(self, programs: Programs, configs: Sequence[Config], rows: int | None = None) -> None:
        needed = {training_program(config) for config in (programs.lead, *configs)}
        if len(needed) > 1:
            raise UsageError(
                f"a population of {len(configs)} members: they need {len(needed)} programs; allowed is one"
            )
        self.programs, self.configs, self.count = programs, list(configs), len(configs)
        self.rows = programs.rows(self.count if rows is None else rows)
        self._own = self._place(own_of(configs))
        self._indices = {c.seed: batch_indices(c.task, c.train.batch_size, c.seed) for c in configs}

    def initial(self) -> TrainState:
        """The states before the first step, each by the program of a run of its own."""
        made: dict[str, Callable[..., TrainState]] = {}
        states = []
        for config in self.configs:
            program = initial_program(config)
            if program not in made:
                made[program] = Trainer(config, self.programs.plan, build_model(config)).init
            states.append(jax.device_get(made[program](config.seed, numbers_of(config))))
        return self._place(jax.tree.map(lambda *leaves: np.stack(leaves), *states))

    def run(self, state: TrainState, first: int, counts: Int[np.ndarray, " R"]) -> Steps:
        """Take so many steps with each member, from step `first` on; the states are given up to it."""
        train, most = self.programs.lead.train, int(counts.max(initial=0))
        made = {seed: of(first, most) for seed, of in self._indices.items()}
        indices = np.zeros((self.count, train.call_steps, train.batch_size), np.int32)
        for i, config in enumerate(self.configs):
            indices[i, :most] = made[config.seed]
        call = self._place((indices, counts.astype(np.int32)), idle=0)
        done = self.programs.run(TRAIN, self.rows, state, self._own, *call)
        return Steps(done.state, *self._read((done.metrics, done.live, done.finite)))

    def evaluate(self, params: Any, split: str, which: Bool[np.ndarray, " R"]) -> list[dict[str, float] | None]:
        """Metrics of a split of those members that are asked for, None of the others."""
        size = self.configs[0].task.size(split) or 0
        sizes = self._place(np.where(which, size, 0).astype(np.int32), idle=0)
        sums = self._read(self.programs.run(split, self.rows, params, self._own, sizes))
        return [
            means({name: values[i] for name, values in sums.items()}, size) if asked else None
            for i, asked in enumerate(which)
        ]

    def measure(self, params: Any, data: Any = None) -> dict[str, np.ndarray]:
        """Readings of all members by the instruments on the validation set, `[R, ...]`."""
        del data  # it is here already
        return self._read(self.programs.run(MEASURE, self.rows, params, self._own))

    def keep(self, which: Bool[np.ndarray, " R"], new: Any, old: Any) -> Any:
        """`new` of those members, `old`, which is given up, of the others."""
        return self.programs.keep(self._place(which, idle=False), old, new)

    def to_host(self, state: TrainState) -> dict[str, Any]:
        """States of the members as nested dicts of NumPy arrays, `[R, ...]`."""
        return self._read(state._asdict())

    def from_host(self, state: Mapping[str, Any]) -> TrainState:
        """The inverse of `to_host`."""
        return self._place(TrainState(**state))

    def empty(self) -> dict[str, Any]:
        """What `to_host` gives, without its values."""
        states = self.programs.states(self.rows)._asdict()
        return jax.tree.map(lambda a: np.zeros((self.count, *a.shape[1:]), a.dtype), states)

    def _place(self, tree: Any, idle: Any = None) -> Any:
        return self.programs.place(tree, self.rows, idle)

    def _read(self, tree: Any) -> Any:
        return jax.tree.map(lambda a: np.asarray(a)[: self.count], tree)


def own_of(configs: Sequence[Config]) -> Own:
    """What these members have of their own."""
    of_each = [numbers_of(config) for config in configs]
    # The initialisation has done its part; its settings need not be the same in all members.
    numbers = {
        section: {name: np.array([of[section][name] for of in of_each]) for name in values}
        for section, values in of_each[0].items()
        if section != "model.init"
    }
    orders = {}
    if getattr(configs[0].task, "folds", None) is not None:
        tasks: list[Any] = [config.task for config in configs]
        orders = {split: {ORDER: np.stack([task.order(split) for task in tasks])} for split in SPLITS[:2]}
    return Own(np.array([config.seed for config in configs], np.int32), numbers, orders)


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _split(program: str) -> str:
    """The split that a program reads."""
    return SPLITS[1] if program == MEASURE else program


def _arguments(program: str, own: Own, *call: Any) -> tuple[Any, ...]:
    """What a program takes of each member."""
    order = own.orders.get(_split(program), {})
    if program == MEASURE:
        return order, own.numbers["gradient"]
    return (own.seed, own.numbers, order, *call) if program == TRAIN else (order, *call)


def _chosen(which: Array, old: Any, new: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(which.reshape(-1, *[1] * (a.ndim - 1)), b, a), old, new)
