"""What the config of a run may hold: frozen dataclasses, with the default, the range and the choices of every key.

Config files return an `ml_collections.ConfigDict` with what differs from these defaults, the command line may change
any key of it, and `gru_jax.config.load` turns that into a checked `Config`.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from gru_jax.cells import CELLS, GRU, Cell
from gru_jax.data.fingerprint import fingerprint_of_file
from gru_jax.errors import UsageError
from gru_jax.flow.instruments import INSTRUMENTS, Options
from gru_jax.flow.regularizers import Slopes
from gru_jax.initializers import Scheme
from gru_jax.nn.models import FAMILIES
from gru_jax.runtime.devices import Platform, Precision
from gru_jax.runtime.files import FileStamp, sha256_of, stamp_of
from gru_jax.settings import setting, to_dict, user_things
from gru_jax.tasks import TASKS, Adding, Task
from gru_jax.tasks.base import FromFiles
from gru_jax.unroll.options import Keep, Method
from gru_jax.user_code import Name, reference, source_digest

OptimizerName = Literal["adam", "adamw", "sgd", "momentum", "rmsprop", "adagrad", "lion"]
OPTIMIZERS = get_args(OptimizerName)
Schedule = Literal["constant", "cosine", "exponential"]
SCHEDULES = get_args(Schedule)
Dtype = Literal["float32", "bfloat16", "float64"]
NO_FLOAT16: dict[str, str] = dict.fromkeys(
    ("float16", "fp16", "f16", "half"),
    "without a loss scale, which training has not, gradients below 6e-8 vanish; bfloat16 has the range of float32",
)
WriterName = Literal["tensorboard", "wandb"]
WRITERS = get_args(WriterName)
AUTO = "auto"
LEARNING_RATE = "learning_rate"
"""The argument of an optimiser of a user's own that the schedule is given to."""
NOISE = "noise"
FLOW_INSTRUMENTS = (*INSTRUMENTS, NOISE)
PROCESS_KEYS = ("devices", "resident_mb", "profile", "writers")
"""Keys that belong to the process rather than to the run."""
SOURCES = "sources"
"""Key of a config as a dict, under which is what defines the classes and functions of a user's own."""
DATA = "data"
"""Key of a config as a dict, under which are the files of its data, by name, and what their content is known by."""
NEUTRAL_KEYS = ("task.data_dir", *PROCESS_KEYS)
"""Keys on which no result depends, beyond its last bits."""
_PROFILE = re.compile(r"steps:(\d{1,10})-(\d{1,10})")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network.

    Attributes:
        family: sequence, or a subclass of `gru_jax.nn.SequenceModel` of a user's own.
        cell: its `name` and settings; see `gru_jax.cells`.
        hidden: units of each layer, bottom to top.
        bidirectional: whether each layer runs in both directions.
        dropout: probability of dropping a unit between layers.
        readout: what the head sees: last, mean or every state; auto is what the task needs.
        method, chunk, keep: how to unroll; see `gru_jax.unroll`.
        init: how parameters are drawn; see `gru_jax.Scheme`. A `t_max` of None becomes the task's length.
        weights: a safetensors file to start from, with PyTorch's names (see `gru_jax.interop.from_torch`), in place of
            what is drawn; without a head in it, the head is drawn.

    Examples:
        >>> from gru_jax.config import load
        >>> config = load({"train": {"steps": 10}, "model": {"cell": {"name": "lstm"}, "hidden": (64, 32)}})
        >>> config.model.cell, config.model.hidden
        (LSTM(), (64, 32))
    """

    family: Name = setting("sequence", choices=tuple(FAMILIES), is_open=True)
    cell: Cell = dataclasses.field(default_factory=GRU)
    hidden: tuple[int, ...] = setting((64,), low=1, high=32768)
    bidirectional: bool = False
    dropout: float = setting(0.0, low=0.0, high=0.99)
    readout: Literal["auto", "last", "mean", "every"] = "auto"
    method: Method = "auto"
    chunk: int | None = setting(None, low=1)
    keep: Keep = "states"
    init: Scheme = dataclasses.field(default_factory=Scheme)
    weights: str | None = None


@dataclasses.dataclass(frozen=True)
class OptimizerBase:
    """What is done to gradients before an optimiser, in this order: clip by value, clip by norm, noise, L1 and L2; and
    the learning rate.

    Attributes:
        lr: learning rate, the peak of the schedule.
        schedule: constant, cosine or exponential, from `lr` to `lr * final` over the steps after the warm-up; or a
            function of their number that gives an `optax.Schedule`, the fraction of `lr` at each of them.
        final: fraction of `lr` at the end.
        warmup_steps, warmup_epochs: linear warm-up from 0; at most one of them.
        clip_norm: greatest global norm of the gradient; None for no clipping.
        clip_value: greatest absolute value of each entry; None for no clipping.
        l1, l2: factors of sum |w| and of sum w^2 / 2 over the kernels in the loss's gradient.
        weight_decay: decoupled decay of the kernels, times the learning rate, with any optimiser; None is 0.01 for
            adamw and 0 for the others.
        noise, noise_decay: Gaussian noise of variance `noise / (1 + t)^noise_decay` on every entry of the clipped
            gradient of step t; Neelakantan et al. 2015, arXiv:1511.06807.

    Examples:
        >>> from gru_jax.config import load
        >>> config = load({"train": {"steps": 10}, "optimizer": {"lr": 0.1, "schedule": "cosine", "warmup_steps": 5}})
        >>> config.optimizer.schedule, config.optimizer.final
        ('cosine', 0.01)
    """

    function: ClassVar[Callable[..., Any] | None] = None
    """Of a user's own, that makes the optimiser of this section."""
    section_hint: ClassVar[str] = "; an optimiser of optax is its function, e.g. {'name': optax.adam, 'lr': 0.001}"
    own_arguments: ClassVar[tuple[str, ...]] = ()
    """Those that `function` is given."""

    lr: float = setting(1e-3, low=0.0)
    schedule: Name = setting("constant", choices=SCHEDULES, is_open=True)
    final: float = setting(0.01, low=0.0, high=1.0)
    warmup_steps: int | None = setting(None, low=0)
    warmup_epochs: float | None = setting(None, low=0.0)
    clip_norm: float | None = setting(1.0, low=1e-30)
    clip_value: float | None = setting(None, low=1e-30)
    l1: float = setting(0.0, low=0.0)
    l2: float = setting(0.0, low=0.0)
    weight_decay: float | None = setting(None, low=0.0)
    noise: float = setting(0.0, low=0.0)
    noise_decay: float = setting(0.55, low=0.0)

    @classmethod
    def section_for(cls, function: Any) -> type[OptimizerBase] | None:
        """The section of an optimiser of a user's own, with a key for each of its arguments that has a plain value."""
        return _section_of_function(function) if callable(function) else None


@dataclasses.dataclass(frozen=True)
class OptimizerConfig(OptimizerBase):
    """A built-in optimiser; in its place may stand a function that gives an `optax.GradientTransformation`.

    Arguments of such a function that have a default are the keys of its section, beside those of `OptimizerBase`. If it
    takes a `learning_rate`, that is the schedule, and its updates are used as they are; else they are directions, as
    those of `optax.scale_by_adam`, which are scaled by minus the learning rate.

    Attributes:
        name: adam, adamw, sgd, momentum, rmsprop, adagrad, lion.
        momentum, nesterov: of momentum.
        b1, b2, eps: of adam, adamw and lion (`eps` also of rmsprop and adagrad).
        decay: of rmsprop's mean square.

    Examples:
        >>> from gru_jax.config import load
        >>> config = load({"train": {"steps": 10}, "optimizer": {"name": "adamw", "lr": 0.003}})
        >>> config.optimizer.name, config.optimizer.weight_decay
        ('adamw', 0.01)
        >>> import optax
        >>> config = load({"train": {"steps": 10}, "optimizer": {"name": optax.adabelief, "eps_root": 1e-8}})
        >>> config.optimizer.name, config.optimizer.b1, config.optimizer.eps_root
        ('optax._src.alias:adabelief', 0.9, 1e-08)
    """

    name: OptimizerName = "adam"
    momentum: float = setting(0.9, low=0.0, high=1.0)
    nesterov: bool = False
    b1: float = setting(0.9, low=0.0, high=1.0)
    b2: float = setting(0.999, low=0.0, high=1.0)
    eps: float = setting(1e-8, low=0.0)
    decay: float = setting(0.9, low=0.0, high=1.0)


@functools.cache
def _section_of_function(function: Callable[..., Any]) -> type[OptimizerBase]:
    name, fields, own_arguments = reference(function), [], []
    common = {field.name for field in dataclasses.fields(OptimizerBase)} - {"weight_decay"} | {"name"}
    for argument in inspect.signature(function).parameters.values():
        start = f"optimizer.name={name}: its argument {argument.name}"
        if argument.name in common:
            raise UsageError(f"{start} is called like a key that every optimiser has; allowed is another name")
        if argument.name == LEARNING_RATE:
            own_arguments.append(LEARNING_RATE)
        elif type(argument.default) in (bool, int, float, str, type(None)):
            kind = float | None if argument.default is None else type(argument.default)
            fields.append((argument.name, kind, argument.default))
            own_arguments.append(argument.name)
        elif argument.default is argument.empty and argument.kind not in (
            argument.VAR_POSITIONAL,
            argument.VAR_KEYWORD,
        ):
            raise UsageError(f"{start} needs a default, as all but {LEARNING_RATE} do")
    return dataclasses.make_dataclass(
        f"OptimizerConfig({name})",
        [("name", str, name), *fields],
        bases=(OptimizerBase,),
        frozen=True,
        namespace={"function": staticmethod(function), "own_arguments": tuple(own_arguments)},
    )


REGISTRIES: dict[type, Mapping[str, type]] = {
    Cell: CELLS,
    Task: TASKS,
    OptimizerBase: dict.fromkeys(OPTIMIZERS, OptimizerConfig),
}


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long and how often. Of each pair of `_steps` and `_epochs`, one at a time.

    Attributes:
        batch_size: sequences a step.
        steps, epochs: length of the training.
        eval_steps, eval_epochs: between validations; by default a twentieth of the training. Each validation also
            saves a checkpoint.
        log_steps: between lines of training metrics; by default a tenth of the steps between validations.
        patience: validations without improvement after which training stops; None for never.
        target: validation score, of the task's goal, at which training stops; None for never.
        keep: latest checkpoints kept (the best is kept besides).
        eval_batch_size: sequences at a time in evaluations; None for `batch_size`.
        call_steps: greatest number of steps per call of the compiled program.

    Examples:
        >>> from gru_jax.config import load
        >>> config = load({"train": {"steps": 100, "batch_size": 32, "patience": 3}})
        >>> config.train.batch_size, config.train.patience
        (32, 3)
    """

    batch_size: int = setting(64, low=1, high=10**6)
    steps: int | None = setting(None, low=1, high=10**9)
    epochs: float | None = setting(None, low=1e-6, high=1e6)
    eval_steps: int | None = setting(None, low=1, high=10**9)
    eval_epochs: float | None = setting(None, low=1e-6, high=1e6)
    log_steps: int | None = setting(None, low=1, high=10**9)
    patience: int | None = setting(None, low=1)
    target: float | None = None
    keep: int = setting(2, low=1, high=1000)
    eval_batch_size: int | None = setting(None, low=1, high=10**6)
    call_steps: int = setting(50, low=1, high=10**5)


@dataclasses.dataclass(frozen=True)
class FlowConfig:
    """What the gradient-flow instruments record.

    Attributes:
        every: steps between recordings, 0 for none; by default one at the start, the middle and the end.
        instruments: which, see `gru_jax.flow.instruments`; and noise, the gradient's signal-to-noise ratio.
        batch_size: held-out validation sequences that the instruments see.
        sequences, exponents, interval, matrices: see `gru_jax.flow.instruments.Options`.
        live: steps between recordings of the adjoint profile and of the size of updates out of the training step's
            own backward pass, on its own batch; 0 for none.

    Examples:
        >>> from gru_jax.config import load
        >>> config = load({"train": {"steps": 10}, "flow": {"every": 5, "instruments": ("adjoint", "lyapunov")}})
        >>> config.flow.every, config.flow.instruments
        (5, ('adjoint', 'lyapunov'))
    """

    every: int | None = setting(None, low=0, high=10**9)
    instruments: tuple[Name, ...] = setting(("adjoint", "gates"), choices=FLOW_INSTRUMENTS, is_open=True)
    batch_size: int = setting(32, low=1, high=10**5)
    sequences: int = setting(Options().sequences, low=1, high=10**5)
    exponents: int = setting(Options().exponents, low=1, high=10**5)
    interval: int = setting(Options().interval, low=1, high=10**6)
    matrices: int = setting(Options().matrices, low=1, high=10**6)
    live: int = setting(0, low=0, high=10**9)


@dataclasses.dataclass(frozen=True)
class GradientConfig:
    """What is done to gradients on their way back through time, and penalties on how they flow.

    Attributes:
        adjoint_clip: greatest norm of what a step sends back to the state before it, for each sequence's own loss, in
            every layer; see `gru_jax.Intervention`.
        truncate: steps after which gradients stop there.
        detach: probability with which each step's gradient to the hidden state before it is stopped.
        omega, omega_slopes: factor of Pascanu's regulariser, and whether the slopes in the Jacobians are constant to
            its gradient, as in the paper, or differentiated; see `gru_jax.flow.vanishing_penalty`.
        floss: Lyapunov exponents that gradient flossing drives to zero, by the sum of their squares; see
            `gru_jax.flow.flossing_penalty`.
        floss_before: steps of Adam on that penalty before the training, at learning rate `floss_lr`, on Gaussian
            inputs.
        floss_every: steps of the training between those that add `floss_weight` times the penalty's gradient; None
            for no flossing during the training.
        floss_time, floss_sequences: steps and number of the sequences that flossing follows.
        floss_transient: of these steps, how many at the beginning the exponents leave out.

    Examples:
        >>> from gru_jax.config import load
        >>> config = load({"train": {"steps": 10}, "gradient": {"adjoint_clip": 1.0}})
        >>> config.gradient.intervenes
        True
    """

    adjoint_clip: float | None = setting(None, low=1e-30)
    truncate: int | None = setting(None, low=1, high=10**9)
    detach: float = setting(0.0, low=0.0, high=1.0)
    omega: float = setting(0.0, low=0.0)
    omega_slopes: Slopes = "constant"
    floss: int = setting(0, low=0, high=10**5)
    floss_before: int = setting(0, low=0, high=10**6)
    floss_every: int | None = setting(None, low=1, high=10**9)
    floss_weight: float = setting(1.0, low=0.0)
    floss_lr: float = setting(1e-3, low=0.0)
    floss_time: int = setting(100, low=2, high=10**6)
    floss_sequences: int = setting(4, low=1, high=10**5)
    floss_transient: int = setting(0, low=0, high=10**6)

    @property
    def intervenes(self) -> bool:
        """Whether anything is done in the backward recursion itself."""
        return self.adjoint_clip is not None or self.truncate is not None or self.detach > 0


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that determines a run.

    Attributes:
        seed: of the initial parameters, the batches and the dropout.
        platform: cpu, gpu or tpu: where the run must take place; auto for JAX's default.
        dtype: type that products run in; parameters are float32, or float64 for float64. float16 is refused: its range
            ends where gradients are small, and there is no loss scale.
        matmul_precision: of float32 products on accelerators; recorded, since it changes gradients.
        devices: of each process, over which each batch is split; 0 for all there are.
        resident_mb: training data of up to so many megabytes stay on the device; larger ones are streamed by Grain.
        profile: training steps to trace, as `steps:10-20`; None for none.
        writers: where metrics go beside `metrics.jsonl`; None for nowhere.

    Examples:
        >>> from gru_jax.config import load
        >>> config = load({"seed": 3, "train": {"steps": 10}})
        >>> config.seed, config.train.steps, load(config.to_dict()) == config
        (3, 10, True)
    """

    seed: int = setting(0, low=0, high=2**31 - 1)
    platform: Platform = "auto"
    dtype: Dtype = setting("float32", refused=NO_FLOAT16)
    matmul_precision: Precision = "float32"
    devices: int = setting(1, low=0, high=10**6)
    resident_mb: int = setting(2048, low=0, high=10**9)
    profile: str | None = None
    writers: tuple[WriterName, ...] | None = None
    task: Task = dataclasses.field(default_factory=Adding)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    optimizer: OptimizerBase = dataclasses.field(default_factory=OptimizerConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    gradient: GradientConfig = dataclasses.field(default_factory=GradientConfig)
    flow: FlowConfig = dataclasses.field(default_factory=FlowConfig)

    @property
    def profile_steps(self) -> tuple[int, int] | None:
        """The first and the last training step that are traced.

        Raises:
            UsageError: `profile` says something else.
        """
        if self.profile is None:
            return None
        match = _PROFILE.fullmatch(self.profile)
        first, last = (int(number) for number in match.groups()) if match else (0, 0)
        if not 1 <= first <= last:
            raise UsageError(f"profile={self.profile}: allowed are such as steps:10-20, counted from 1")
        return first, last

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dicts, fit for JSON; `load` reads them.

        Under `sources` is, for every class or function of a user's own, the sha256 of the source that defines it, and
        that of the file of weights that the run starts from. Under `data` is, for every file of its data, the
        fingerprint of its content.
        """
        plain = to_dict(self, REGISTRIES)
        sources = {reference(thing): source_digest(thing) for thing in user_things(self, REGISTRIES)}
        if self.model.weights is not None:
            path = Path(self.model.weights)
            sources[self.model.weights] = _digest(path, stamp_of(path)) if path.is_file() else "no such file"
        files = self.task.data_files() if isinstance(self.task, FromFiles) else {}
        data = {name: fingerprint_of_file(path) for name, path in files.items()}
        return {**plain, **({SOURCES: sources} if sources else {}), **({DATA: data} if data else {})}


@functools.lru_cache(maxsize=64)
def _digest(path: Path, stamp: FileStamp) -> str:  # configs become dicts many times in a run
    del stamp
    return sha256_of(path)
