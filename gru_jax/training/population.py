"""Members trained side by side in one compiled program, on all devices; a run by itself is a population of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, PyTree

from gru_jax.config import Config, initial_program, traced_hyperparameters, training_program
from gru_jax.data.batching import StepIndices
from gru_jax.data.feed import Feed, ResidentFeed, StreamedFeed
from gru_jax.data.npy import Rows
from gru_jax.errors import UsageError, check_choice
from gru_jax.runtime.devices import Device
from gru_jax.runtime.processes import replicate
from gru_jax.tasks import SPLITS, split_key
from gru_jax.tasks.base import ORDER, FromFiles
from gru_jax.tasks.loading import Splits
from gru_jax.training.answers import ArrayAnswers, build_answers, split_scores
from gru_jax.training.distillation import Teacher
from gru_jax.training.evaluation import build_totals, means_of
from gru_jax.training.instruments import build_instruments
from gru_jax.training.skipping import skips_of
from gru_jax.training.splitting import BATCH_AXIS
from gru_jax.training.state import StepsResult, TrainState
from gru_jax.training.step import Data, Trainer

MemberMapping = Literal["auto", "map", "vmap"]
"""How the members of a device share it: one after the other, as one batch, or as suits the platform."""
MEMBER_MAPPINGS = get_args(MemberMapping)
MEMBERS_AXIS = "members"
TRAIN, MEASURE, ANSWERS = "train", "measure", "answers_"  # programs; the others are named by the split they evaluate


class MemberInputs(NamedTuple):
    """What each member has of its own, `[R, ...]`; each program reads what it needs.

    Attributes:
        seed: its seed.
        hyperparameters: its traced hyperparameters.
        orders: by split, which examples of the files it consists of; empty where all members share them.
        indices: of the examples of each training step, `[R, K, B]`.
        count: training steps to take, or examples to evaluate; none with 0.
        skips: how many steps it has skipped and may skip, as `gru_jax.training.skipping.Skips`, where it may any.
    """

    seed: Any
    hyperparameters: dict[str, dict[str, Any]]
    orders: dict[str, dict[str, Any]]
    indices: Any = None
    count: Any = None
    skips: Any = None


def choose_mapping(mapping: str, platform: str) -> str:
    """How the members of a device share it: on a CPU one after the other, elsewhere as one batch."""
    check_choice("mapping", mapping, MEMBER_MAPPINGS)
    if mapping != "auto":
        return mapping
    return "map" if platform == "cpu" else "vmap"


class CompiledPopulation:
    """What is compiled for members that share a program, whoever they are.

    A member's arithmetic is that of `Trainer`; no number goes from one member to another.

    Args:
        config: of any of them.
        splits: its data.
        devices: to be used.
        mapping: how the members of a device share it.
        teacher: the network that they learn from, if there is one.
        single: whether this is for one member alone, whose batches are split over the devices; else members are.
    """

    def __init__(
        self,
        config: Config,
        splits: Splits,
        devices: Sequence[Device],
        mapping: MemberMapping = "auto",
        *,
        single: bool = False,
        teacher: Teacher | None = None,
    ) -> None:
        self.config, self.devices, self.single = config, list(devices), single
        self.mapping = choose_mapping(mapping, devices[0].platform)
        shape = (1, len(devices)) if single else (len(devices), 1)
        self.mesh = Mesh(np.array(self.devices).reshape(shape), (MEMBERS_AXIS, BATCH_AXIS))
        self.replicated = NamedSharding(self.mesh, PartitionSpec())
        self.sharding = NamedSharding(self.mesh, PartitionSpec(MEMBERS_AXIS))
        self.trainer = Trainer(config, self.mesh if single and len(devices) > 1 else None, teacher)
        self.plan, self.model = self.trainer.plan, self.trainer.model
        self.splits = splits
        self.streamed = any(isinstance(array, Rows) for array in splits["train"].values())
        shared = {split: {k: v for k, v in splits[split].items() if single or k != ORDER} for split in SPLITS}
        scored = config.task.scored_splits
        resident = scored if self.streamed else (TRAIN, *scored)
        self.data = {split: replicate(shared[split], self.replicated) for split in resident}
        self.programs = {
            TRAIN: self._program(TRAIN, self._train, donate=True),
            MEASURE: self._program(MEASURE, self._measure()),
            **{split: self._program(split, self._totals(split)) for split in scored},
        }
        if config.train.metrics:
            self.programs |= {f"{ANSWERS}{split}": self._program(ANSWERS, self._answers(split)) for split in scored}
        self._compiled: dict[tuple[str, int], Any] = {}

    def rows(self, members: int) -> int:
        """Members and the copies that fill up the devices."""
        shards = self.mesh.shape[MEMBERS_AXIS]
        return -(-members // shards) * shards

    def states(self, rows: int) -> TrainState:
        """Shapes, types and shardings of so many states."""
        one = jax.eval_shape(self.trainer.init, self.config.seed, traced_hyperparameters(self.config))
        return jax.tree.map(lambda a: jax.ShapeDtypeStruct((rows, *a.shape), a.dtype, sharding=self.sharding), one)

    def compile(self, name: str, rows: int, *arguments: PyTree) -> jax.stages.Compiled:
        """The compiled program of that name, of so many rows: `"train"`, `"measure"`, `"valid"` or `"test"`."""
        if (name, rows) not in self._compiled:
            self._compiled[name, rows] = self.programs[name].lower(*arguments).compile()
        return self._compiled[name, rows]

    def compiled_rows(self) -> list[int]:
        """For how many rows the training is compiled."""
        return [rows for name, rows in self._compiled if name == TRAIN]

    def _program(self, name: str, function: Callable[..., PyTree], *, donate: bool = False) -> jax.stages.Wrapped:
        """`f(data, kept, inputs)`, where the latter two have an axis of members, out of `function` of one member."""

        def on_device(data: PyTree, kept: PyTree, inputs: PyTree) -> PyTree:
            if self.single:
                kept, inputs = jax.tree.map(lambda a: a[0], (kept, inputs))
                return jax.tree.map(lambda a: a[None], function(data, kept, inputs))
            if self.mapping == "vmap":
                return jax.vmap(lambda kept, inputs: function(data, kept, inputs))(kept, inputs)
            return jax.lax.map(lambda pair: function(data, *pair), (kept, inputs))

        specs = (PartitionSpec(), PartitionSpec(MEMBERS_AXIS), PartitionSpec(MEMBERS_AXIS))
        program = on_device
        if not self.single:
            program = jax.shard_map(on_device, mesh=self.mesh, in_specs=specs, out_specs=specs[1], check_vma=False)
        program.__name__ = name  # by which profiles know it
        return jax.jit(program, donate_argnums=(1,) if donate else (), out_shardings=self.sharding)

    def _train(self, data: Data, state: TrainState, inputs: MemberInputs) -> StepsResult:
        data = {**data, **inputs.orders.get("train", {})}
        return self.trainer.steps(
            state, inputs.seed, inputs.hyperparameters, data, inputs.indices, inputs.count, inputs.skips
        )

    def _measure(self) -> Callable[..., dict[str, Array]]:
        measure = build_instruments(self.config, self.model, split_key("valid", 0), self.trainer.mesh)
        return lambda data, params, inputs: measure(
            params, {**data, **inputs.orders.get("valid", {})}, inputs.hyperparameters
        )

    def _totals(self, split: str) -> Callable[..., dict[str, Array]]:
        totals = build_totals(self.config, self.model, self.trainer.mesh)
        return lambda data, params, inputs: totals(
            params,
            {**data, **inputs.orders.get(split, {})},
            split_key(split, 0),
            inputs.count,
            inputs.hyperparameters["task"],
        )

    def _answers(self, split: str) -> Callable[..., ArrayAnswers]:
        answers = build_answers(self.config, self.model, split)
        return lambda data, params, inputs: answers(
            params, {**data, **inputs.orders.get(split, {})}, inputs.hyperparameters["task"]
        )


class Population:
    """Members in training.

    Arrays on the devices have a leading axis of members, filled up with copies of the first member that do nothing.

    Args:
        compiled: what is compiled for them.
        configs: of the members, R of them.
        rows: members and copies, at least R; None for as few as the devices allow.

    Raises:
        UsageError: a config needs another program.
    """

    def __init__(self, compiled: CompiledPopulation, configs: Sequence[Config], rows: int | None = None) -> None:
        programs = {training_program(config) for config in (compiled.config, *configs)}
        if len(programs) > 1:
            raise UsageError(
                f"a population of {len(configs)} members: they need {len(programs)} programs; allowed is one"
            )
        self.compiled, self.configs, self.count = compiled, list(configs), len(configs)
        self.rows = compiled.rows(self.count if rows is None else rows)
        member_inputs = self._member_inputs()
        self._hyperparameters, self._inputs = member_inputs.hyperparameters, self._place(member_inputs)

    def _member_inputs(self) -> MemberInputs:
        of_each = [traced_hyperparameters(config) for config in self.configs]
        # The initialisation has done its part; its settings need not be the same in all members.
        hyperparameters = {
            section: {name: np.array([values[section][name] for values in of_each]) for name in of_section}
            for section, of_section in of_each[0].items()
            if section != "model.init"
        }
        splits, tasks = self.compiled.splits, [config.task for config in self.configs]
        orders = {
            split: {ORDER: np.stack([task.order(split) for task in tasks if isinstance(task, FromFiles)])}
            for split in SPLITS
            if ORDER in splits[split] and not self.compiled.single
        }
        return MemberInputs(np.array([config.seed for config in self.configs], np.int32), hyperparameters, orders)

    def scale_learning_rates(self, factors: Float[np.ndarray, " R"]) -> None:
        """From now on, train each member with its config's learning rate times a factor of its own."""
        optimizer = self._hyperparameters["optimizer"]
        rates = optimizer["lr"] * factors.astype(optimizer["lr"].dtype)
        placed = {**self._inputs.hyperparameters["optimizer"], "lr": self._place(rates)}
        self._inputs = self._inputs._replace(hyperparameters={**self._inputs.hyperparameters, "optimizer": placed})

    def hyperparameters_of(self, member: int) -> dict[str, dict[str, Any]]:
        """The values that one member is trained with."""
        return jax.tree.map(lambda values: values[member], self._inputs.hyperparameters)

    def feed(self) -> Feed:
        """The batches of their training."""
        train, compiled = self.configs[0].train, self.compiled
        made: dict[Any, StepIndices] = {}
        indices = []
        for config in self.configs:
            by_length = config.train.batch_by_length
            key = (config.seed, config.task if by_length else None)  # the lengths of a fold are its own
            if key not in made:
                made[key] = config.task.train_indices(train.batch_size, config.seed, by_length=by_length)
            indices.append(made[key])
        if compiled.streamed:
            rows, steps = compiled.splits["train"], compiled.plan.steps
            return StreamedFeed(rows, indices[0], steps, train.batch_size, train.call_steps, compiled.replicated)
        return ResidentFeed(compiled.data["train"], indices, train.batch_size, train.call_steps)

    def initial(self, weights: Sequence[Mapping[str, Any] | None] = ()) -> TrainState:
        """The states before the first step, each by the program of a run of its own; from weights of each, if any."""
        by_program: dict[str, Callable[..., TrainState]] = {}
        states = []
        for config, start in zip(self.configs, weights or [None] * len(self.configs), strict=True):
            program = initial_program(config)
            if program not in by_program:
                by_program[program] = Trainer(config).init
            states.append(jax.device_get(by_program[program](config.seed, traced_hyperparameters(config), start)))
        return self._place(jax.tree.map(lambda *leaves: np.stack(leaves), *states))

    def train(
        self,
        state: TrainState,
        data: Mapping[str, Array],
        indices: Int[np.ndarray, "R K B"],
        counts: Int[np.ndarray, " R"],
        skipped: Int[np.ndarray, "R 2"] | None = None,
    ) -> StepsResult:
        """Take so many steps with each member; the state's memory is given up to it.

        Args:
            state: of all members.
            data: of the training split, see `feed`.
            indices: of each member's examples in the data, for each step.
            counts: steps of each member, `[R]`.
            skipped: steps that each has skipped before, in all and in a row; None for none.

        Returns:
            The new state, and on the host `[R, ...]` what the steps reported.
        """
        call = {"indices": indices, "count": counts.astype(np.int32), **self._skips(skipped)}
        result = self._run(TRAIN, data, state, **call)
        return StepsResult(result.state, *self._read((result.metrics, result.live, result.finite)))

    def _skips(self, skipped: Int[np.ndarray, "R 2"] | None = None) -> dict[str, Any]:
        """The input of the training that counts what it skips, if it may skip anything."""
        trainings = [config.train for config in self.configs]
        counts = np.zeros((self.count, 2), np.int32) if skipped is None else skipped
        return {"skips": skips_of(trainings, counts)} if trainings[0].skip_nonfinite else {}

    def evaluate(self, params: PyTree, split: str, which: Bool[np.ndarray, " R"]) -> list[dict[str, float] | None]:
        """Metrics of a split of those members that are wanted, None of the others."""
        size = self.configs[0].task.size(split) or 0
        sizes = np.where(which, size, 0).astype(np.int32)
        sums = self._read(self._run(split, self.compiled.data[split], params, count=sizes))
        answers = None
        if self.configs[0].train.metrics:
            answers = self._read(self._run(f"{ANSWERS}{split}", self.compiled.data[split], params))
        evaluated: list[dict[str, float] | None] = []
        for i, wanted in enumerate(which):
            metrics = (
                means_of({name: values[i] for name, values in sums.items()}, size, self.configs[i].task)
                if wanted
                else None
            )
            if metrics is not None and answers is not None:
                is_finite = np.isfinite(list(metrics.values())).all()
                of_member = jax.tree.map(lambda a, i=i: a[i], answers)
                unscored = dict.fromkeys(self.configs[i].train.metrics or (), np.nan)
                metrics |= split_scores(self.configs[i], of_member) if is_finite else unscored
            evaluated.append(metrics)
        return evaluated

    def measure(self, params: PyTree) -> dict[str, np.ndarray]:
        """Readings of all members by the instruments on the validation set, `[R, ...]`."""
        return self._read(self._run(MEASURE, self.compiled.data["valid"], params))

    def bytes_needed(self) -> int:
        """Memory that they take on each device: data, the last and the best networks, the hungriest program."""
        compiled, states, working = self.compiled, self.compiled.states(self.rows), []
        answers = [f"{ANSWERS}{split}" for split in compiled.config.task.scored_splits if self.configs[0].train.metrics]
        for name in (TRAIN, "valid", *answers, *([MEASURE] if compiled.plan.flow_every else [])):
            memory: Any = compiled.compile(name, self.rows, *self.arguments(name)).memory_analysis()
            working.append(memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes)
        return int(_bytes(compiled.data) + 2 * _bytes(states) // len(compiled.devices) + max(working))

    def arguments(self, program: str) -> tuple[Any, Any, MemberInputs]:
        """What a program takes: data, shapes of states or parameters, and inputs that do nothing."""
        compiled, states, train = self.compiled, self.compiled.states(self.rows), self.configs[0].train
        counts = np.zeros(self.count, np.int32)
        indices = np.zeros((self.count, train.call_steps, train.batch_size), np.int32)
        if program == TRAIN:
            call = {"indices": indices, "count": counts, **self._skips()}
        else:
            call = {"count": counts} if program in SPLITS else {}
        data = compiled.data["valid" if program == MEASURE else program.removeprefix(ANSWERS)]
        return data, states if program == TRAIN else states.params, self._inputs._replace(**self._place(call))

    def _run(self, program: str, data: PyTree, kept: PyTree, **call: Any) -> PyTree:
        arguments = (dict(data), kept, self._inputs._replace(**self._place(call, idle=0)))
        return self.compiled.compile(program, self.rows, *arguments)(*arguments)

    def to_host(self, state: TrainState) -> dict[str, Any]:
        """States as nested dicts of NumPy arrays `[R, ...]`, as checkpoints have them; of a single run without R."""
        host = self._read(state.to_dict())
        return jax.tree.map(lambda a: a[0], host) if self.compiled.single else host

    def from_host(self, state: Mapping[str, Any]) -> TrainState:
        """The inverse of `to_host`."""
        if self.compiled.single:
            state = jax.tree.map(lambda a: np.asarray(a)[None], state)
        return self._place(TrainState(**state))

    def empty(self) -> dict[str, Any]:
        """What `to_host` gives, without its values."""
        leading = () if self.compiled.single else (self.count,)
        states = self.compiled.states(self.rows).to_dict()
        return jax.tree.map(lambda a: np.zeros((*leading, *a.shape[1:]), a.dtype), states)

    def _place(self, tree: PyTree, idle: Any = None) -> PyTree:
        """Arrays `[R, ...]` on the devices as `[rows, ...]`; copies are `idle`, or as the first member."""

        def filled(a: Any) -> np.ndarray:
            a = np.asarray(a)
            more = self.rows - len(a)
            rest = np.repeat(a[:1], more, axis=0) if idle is None else np.full((more, *a.shape[1:]), idle, a.dtype)
            return np.concatenate([a, rest])

        return replicate(jax.tree.map(filled, tree), self.compiled.sharding)

    def _read(self, tree: PyTree) -> PyTree:
        return jax.tree.map(lambda a: np.asarray(a)[: self.count], tree)


def _bytes(tree: PyTree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
