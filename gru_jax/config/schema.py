"""What the config of a run may hold: frozen dataclasses, with the default, the range and the choices of every key.

Config files return an `ml_collections.ConfigDict` with what differs from these defaults, the command line may change
any key of it, and `gru_jax.config.load` turns that into a checked `Config`.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from gru_jax.cells import CELLS, GRU, Cell
from gru_jax.config.checkpoint_names import CheckpointName
from gru_jax.config.optimizers import OPTIMIZERS, OptimizerBase, OptimizerConfig
from gru_jax.data.fingerprint import fingerprint_of_file
from gru_jax.errors import UsageError
from gru_jax.flow.instruments import INSTRUMENTS, Options
from gru_jax.flow.regularizers import Slopes
from gru_jax.flow.sources import GradientSource
from gru_jax.initializers import Scheme
from gru_jax.nn.encoder_decoder import Attention
from gru_jax.nn.families import FAMILIES
from gru_jax.runtime.devices import Platform, Precision
from gru_jax.runtime.files import FileStamp, sha256_of, stamp_of
from gru_jax.settings import setting, to_dict, user_things
from gru_jax.tasks import TASKS, Adding, Task
from gru_jax.tasks.base import FromFiles
from gru_jax.tasks.scores import DIRECTIONS, Score
from gru_jax.unroll.options import Keep, Method
from gru_jax.user_code import Name, reference, source_digest

Dtype = Literal["float32", "bfloat16", "float64"]
NO_FLOAT16: dict[str, str] = dict.fromkeys(
    ("float16", "fp16", "f16", "half"),
    "without a loss scale, which training has not, gradients below 6e-8 vanish; bfloat16 has the range of float32",
)
InitAs = Literal["exact", "units", "int8", "bfloat16"]
WriterName = Literal["tensorboard", "wandb"]
WRITERS = get_args(WriterName)
AUTO = "auto"
NOISE = "noise"
FLOW_INSTRUMENTS = (*INSTRUMENTS, NOISE)
PROCESS_KEYS = ("devices", "resident_mb", "profile", "writers")
"""Keys that belong to the process rather than to the run."""
SOURCES = "sources"
"""Key of a config as a dict, under which is what defines the classes and functions of a user's own."""
DATA = "data"
"""Key of a config as a dict, under which are the files of its data, by name, and what their content is known by."""
NEUTRAL_KEYS = (
    "task.data_dir", *PROCESS_KEYS, "train.keep", "train.log_steps", "train.call_steps", "train.eval_batch_size",
    "train.accumulate",
)  # fmt: skip
"""Keys on which no result depends, beyond its last bits: they may change when a run goes on."""
GROWING_KEYS = (
    "train.steps", "train.epochs", "train.patience", "train.target", "train.skip_nonfinite",
    "train.skip_nonfinite_in_a_row",
)  # fmt: skip
"""Keys that say when a run ends: with others it goes on, if that is later."""
_PROFILE = re.compile(r"steps:(\d{1,10})-(\d{1,10})")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network.

    Attributes:
        family: what kind of network: sequence, encoder_decoder, or a subclass of `gru_jax.nn.SequenceModel` of a user's
            own; auto is what the task needs.
        cell: its `name` and settings; see `gru_jax.cells`.
        hidden: units of each layer, bottom to top.
        bidirectional: whether each layer runs in both directions, of an encoder and a decoder the encoder's.
        attention: what a decoder looks at its source through: none, or luong (see `gru_jax.nn.EncoderDecoder`); auto is
            luong where there is a decoder.
        dropout: probability of dropping a unit between layers.
        input_dropout: probability of dropping a number that the first layer reads, of the embedding where there is one.
        output_dropout: probability of dropping a unit of the last layer that the head reads.
        embedding: numbers for each token, where inputs are tokens; None for as many as the first layer has units, or
            with `tied` the last.
        embedding_scale: standard deviation of the embedding at first.
        tied: whether the head shares the embedding's weights.
        readout: what the head sees: the last state, the mean over states, the max of each unit, the mean by learnt
            weights (attention), or every state; auto is what the task needs.
        method: how to unroll: fast in blocks of time, reference step by step; auto is fast wherever a cell allows it.
        chunk: steps in a block of the fast method; None for as many as suit the size.
        keep: what the fast method keeps for the backward pass: every state, or those at the boundaries of blocks.
        init: how parameters are drawn; see `gru_jax.Scheme`. A `t_max` of None becomes the task's length.
        weights: a safetensors file to start from, with PyTorch's names (see `gru_jax.interop.from_torch`), in place of
            what is drawn; without a head in it, the head is drawn. None for what is drawn.

    Examples:
        >>> from gru_jax.config import load
        >>> config = load({"train": {"steps": 10}, "model": {"cell": {"name": "lstm"}, "hidden": (64, 32)}})
        >>> config.model.cell, config.model.hidden
        (LSTM(), (64, 32))
    """

    family: Name = setting(AUTO, choices=(AUTO, *FAMILIES), is_open=True)
    cell: Cell = dataclasses.field(default_factory=GRU)
    hidden: tuple[int, ...] = setting((64,), low=1, high=32768)
    bidirectional: bool = False
    attention: Literal["auto", Attention] = "auto"
    dropout: float = setting(0.0, low=0.0, high=0.99)
    input_dropout: float = setting(0.0, low=0.0, high=0.99)
    output_dropout: float = setting(0.0, low=0.0, high=0.99)
    embedding: int | None = setting(None, low=1, high=32768)
    embedding_scale: float = setting(0.1, low=0.0)
    tied: bool = False
    readout: Literal["auto", "last", "mean", "max", "attention", "every"] = "auto"
    method: Method = "auto"
    chunk: int | None = setting(None, low=1)
    keep: Keep = "auto"
    init: Scheme = dataclasses.field(default_factory=Scheme)
    weights: str | None = None


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
        steps: length of the training in steps; None where `epochs` gives it; 0 with `init_from` alone, for a network
            that is to be as it is.
        epochs: length of the training in passes over the training data; None where `steps` gives it.
        batch_by_length: whether the sequences of a batch are of similar length, so that little of it is padding, in
            which nothing is computed; for tasks of files with lengths. Each epoch is still in a random order, in which
            those of 50 batches at a time are sorted and the batches then shuffled.
        eval_steps: steps between validations, each of which saves a checkpoint too; None, without `eval_epochs`, for a
            twentieth of the training.
        eval_epochs: passes over the training data between validations; None where `eval_steps` decides.
        log_steps: steps between lines of training metrics; None for a tenth of the steps between validations.
        monitor: the validation metric that decides which network is best, of equal ones that with the lower loss; None
            for that of the task's goal.
        metrics: scores of all examples of a set together, in validation and test, None for none: balanced_accuracy, f1
            and roc_auc of classes, mae and r2 of numbers; see `gru_jax.tasks.scores`.
        direction: whether its least or its greatest value is best; None for what the task's goal says, min for loss.
        min_delta: by how much it must be better than at the last improvement to be one, for `patience` and for the
            schedule plateau; the network that is kept is the best, by however little.
        patience: validations, not steps, without improvement after which training stops; None for never.
        target: validation score at which training stops; None for never.
        keep: latest checkpoints kept (the best is kept besides).
        eval_batch_size: sequences at a time in evaluations; None for those of a part of a batch, `batch_size` over
            `accumulate`.
        call_steps: greatest number of steps per call of the compiled program.
        accumulate: parts of a batch whose gradients are computed one after the other and added up, in the memory of a
            part; its loss, gradient and metrics are those of the whole batch.
        skip_nonfinite: training steps in all that may be skipped because their loss, gradient, parameters or optimiser
            state are not finite; one more ends the run, as the first does with 0. A skipped step changes nothing but
            the number of steps.
        skip_nonfinite_in_a_row: of these, how many may come right after one another; None for all.
        init_from: a run whose network this one starts from, None for one that is drawn: its directory, or with a
            checkpoint `RUN:best`, `RUN:latest` or `RUN:100`. The optimiser starts anew.
        init_as: what is made of that network first: nothing (exact); units, which takes out those that matter least,
            until its layers have the sizes of `model.hidden`; int8 or bfloat16, which round its kernels to numbers that
            are stored so, for a run of 0 steps.

    Examples:
        >>> from gru_jax.config import load
        >>> config = load({"train": {"steps": 100, "batch_size": 32, "patience": 3}})
        >>> config.train.batch_size, config.train.patience
        (32, 3)
    """

    batch_size: int = setting(64, low=1, high=10**6)
    steps: int | None = setting(None, low=0, high=10**9)
    epochs: float | None = setting(None, low=1e-6, high=1e6)
    batch_by_length: bool = False
    eval_steps: int | None = setting(None, low=1, high=10**9)
    eval_epochs: float | None = setting(None, low=1e-6, high=1e6)
    log_steps: int | None = setting(None, low=1, high=10**9)
    monitor: str | None = None
    direction: Literal["min", "max"] | None = None
    metrics: tuple[Score, ...] | None = None
    min_delta: float = setting(0.0, low=0.0)
    patience: int | None = setting(None, low=1)
    target: float | None = None
    keep: int = setting(2, low=1, high=1000)
    eval_batch_size: int | None = setting(None, low=1, high=10**6)
    call_steps: int = setting(50, low=1, high=10**5)
    accumulate: int = setting(1, low=1, high=10**6)
    skip_nonfinite: int = setting(0, low=0, high=10**9)
    skip_nonfinite_in_a_row: int | None = setting(None, low=1, high=10**9)
    init_from: str | None = None
    init_as: InitAs = "exact"

    @property
    def part_size(self) -> int:
        """Sequences whose gradient is computed at a time."""
        return self.batch_size // self.accumulate


@dataclasses.dataclass(frozen=True)
class FlowConfig:
    """What the gradient-flow instruments record.

    Attributes:
        every: steps between recordings, 0 for none; None for one at the start, the middle and the end.
        instruments: which instruments are recorded, see `gru_jax.flow.instruments`; noise is the gradient's
            signal-to-noise ratio.
        source: whose gradient the adjoint profile follows: that of the whole loss (total), of single steps' losses, one
            of each sequence, evenly spaced (sampled), or of the last step's loss (last). Of a loss that reads many
            steps, the total says how many losses lie behind a step, not how far each reaches. auto is sampled where the
            loss reads many steps, else total.
        batch_size: held-out validation sequences that the instruments see.
        sequences: of these, how many are followed with Jacobians, by the instruments jacobian and lyapunov.
        exponents: Lyapunov exponents, largest first; at most as many as a state has numbers.
        interval: steps between the QR decompositions that Lyapunov exponents are made of.
        matrices: time steps at which Jacobians are formed, evenly over the sequence.
        live: training steps between recordings of the adjoint profile on the step's own batch, and of the size of
            updates; 0 for none. With source total the profile comes out of the step's own backward pass, else out of
            one more, of two sequences of the batch, without dropout.

    Examples:
        >>> from gru_jax.config import load
        >>> config = load({"train": {"steps": 10}, "flow": {"every": 5, "instruments": ("adjoint", "lyapunov")}})
        >>> config.flow.every, config.flow.instruments
        (5, ('adjoint', 'lyapunov'))
    """

    every: int | None = setting(None, low=0, high=10**9)
    instruments: tuple[Name, ...] = setting(("adjoint", "gates"), choices=FLOW_INSTRUMENTS, is_open=True)
    source: Literal["auto", GradientSource] = "auto"
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
            every layer; see `gru_jax.Intervention`. None for no clipping.
        truncate: steps after which gradients stop there; None for never.
        detach: probability with which each step's gradient to the hidden state before it is stopped.
        omega: factor of Pascanu's regulariser; see `gru_jax.flow.vanishing_penalty`.
        omega_slopes: whether the slopes in the Jacobians are constant to its gradient, as in the paper, or
            differentiated.
        floss: Lyapunov exponents that gradient flossing drives to zero, by the sum of their squares; see
            `gru_jax.flow.flossing_penalty`.
        floss_before: steps of Adam on that penalty before the training, on Gaussian inputs.
        floss_every: steps of the training between those that add the penalty's gradient; None for no flossing while it
            lasts.
        floss_weight: factor of the penalty during the training.
        floss_lr: learning rate of flossing before the training.
        floss_time: steps of the sequences that flossing follows.
        floss_sequences: how many sequences flossing follows.
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
        seed: what the initial parameters, the batches and the dropout are drawn from.
        platform: where the run must take place, on cpu, gpu or tpu; auto for JAX's default.
        dtype: type that products run in; parameters are float32, or float64 for float64. float16 is refused: its range
            ends where gradients are small, and there is no loss scale.
        matmul_precision: precision of float32 products on accelerators; recorded, since it changes gradients.
        devices: how many of each process' devices a batch is split over: auto for as many as pay, on a CPU its cores; 0
            for all there are.
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
    devices: int | Literal["auto"] = setting("auto", low=0, high=10**6)
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
    def goal(self) -> tuple[str, str]:
        """The validation metric that decides which network is best, and whether its least or greatest value is."""
        name, direction = self.task.goal
        if self.train.monitor is not None and self.train.monitor != name:
            name = self.train.monitor
            direction = DIRECTIONS.get(name, "min")  # of the loss; others say, see `gru_jax.config.loading`
        return name, self.train.direction or direction

    @property
    def input_width(self) -> int:
        """Numbers that the first layer reads at each step: the features of inputs, or the embedding of a token."""
        return self.model.embedding or self.task.input_size

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
        that of the file of weights, or of the checkpoint, that the run starts from. Under `data` is, for every file of
        its data, the fingerprint of its content.
        """
        plain = to_dict(self, REGISTRIES)
        sources = {reference(thing): source_digest(thing) for thing in user_things(self, REGISTRIES)}
        if self.model.weights is not None:
            path = Path(self.model.weights)
            sources[self.model.weights] = _digest(path, stamp_of(path)) if path.is_file() else "no such file"
        if self.train.init_from is not None:
            sources[self.train.init_from] = CheckpointName.parse(self.train.init_from).digest()
        files = self.task.data_files() if isinstance(self.task, FromFiles) else {}
        data = {name: fingerprint_of_file(path) for name, path in files.items()}
        return {**plain, **({SOURCES: sources} if sources else {}), **({DATA: data} if data else {})}


@functools.lru_cache(maxsize=64)
def _digest(path: Path, stamp: FileStamp) -> str:  # configs become dicts many times in a run
    del stamp
    return sha256_of(path)
