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

from gru_jax.cells import CELLS, Cell
from gru_jax.config.checkpoint_names import CheckpointName
from gru_jax.config.distillation import DistillationConfig
from gru_jax.config.flow import FlowConfig
from gru_jax.config.gradient import GradientConfig
from gru_jax.config.model import ModelConfig
from gru_jax.config.optimizers import OPTIMIZERS, OptimizerBase, OptimizerConfig
from gru_jax.config.regularization import RegularizationConfig
from gru_jax.config.train import TrainConfig
from gru_jax.config.transfer import TransferConfig
from gru_jax.data.fingerprint import fingerprint_of_file
from gru_jax.errors import UsageError
from gru_jax.runtime.devices import Platform, Precision
from gru_jax.runtime.files import FileStamp, sha256_of, stamp_of
from gru_jax.settings import setting, to_dict, user_things
from gru_jax.tasks import TASKS, Adding, Task
from gru_jax.tasks.base import FromFiles
from gru_jax.tasks.scores import DIRECTIONS
from gru_jax.user_code import reference, source_digest

Dtype = Literal["float32", "bfloat16", "float64"]
NO_FLOAT16: dict[str, str] = dict.fromkeys(
    ("float16", "fp16", "f16", "half"),
    "without a loss scale, which training has not, gradients below 6e-8 vanish; bfloat16 has the range of float32",
)
WriterName = Literal["tensorboard", "wandb"]
WRITERS = get_args(WriterName)
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


REGISTRIES: dict[type, Mapping[str, type]] = {
    Cell: CELLS,
    Task: TASKS,
    OptimizerBase: dict.fromkeys(OPTIMIZERS, OptimizerConfig),
}


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
    transfer: TransferConfig = dataclasses.field(default_factory=TransferConfig)
    gradient: GradientConfig = dataclasses.field(default_factory=GradientConfig)
    regularization: RegularizationConfig = dataclasses.field(default_factory=RegularizationConfig)
    distillation: DistillationConfig = dataclasses.field(default_factory=DistillationConfig)
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
        that of the file of weights, or of the checkpoints, that the run starts and learns from. Under `data` is, for
        every file of its data, the fingerprint of its content.
        """
        plain = to_dict(self, REGISTRIES)
        sources = {reference(thing): source_digest(thing) for thing in user_things(self, REGISTRIES)}
        if self.model.weights is not None:
            path = Path(self.model.weights)
            sources[self.model.weights] = _digest(path, stamp_of(path)) if path.is_file() else "no such file"
        if self.train.init_from is not None:
            sources[self.train.init_from] = CheckpointName.parse(self.train.init_from).digest()
        if self.distillation.is_on and self.distillation.teacher is not None:
            sources[self.distillation.teacher] = CheckpointName.parse(self.distillation.teacher).digest()
        files = self.task.data_files() if isinstance(self.task, FromFiles) else {}
        data = {name: fingerprint_of_file(path) for name, path in files.items()}
        return {**plain, **({SOURCES: sources} if sources else {}), **({DATA: data} if data else {})}


@functools.lru_cache(maxsize=64)
def _digest(path: Path, stamp: FileStamp) -> str:  # configs become dicts many times in a run
    del stamp
    return sha256_of(path)
