"""A run's network made smaller, as a run of its own beside the original."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import numpy as np
import polars as pl

from gru_jax.config import Config, DistillationConfig, load, plan
from gru_jax.config.checkpoint_names import BEST
from gru_jax.config.transfer import TransferConfig
from gru_jax.deploy.storage import bytes_of, pack_exactly
from gru_jax.errors import ArgumentError, check_argument
from gru_jax.runs.data_facts import check_same_data
from gru_jax.runs.directory import RunDir
from gru_jax.runs.evaluation import with_data_dir
from gru_jax.runs.export import check_is_served, stored_as
from gru_jax.runs.latency import measure_service
from gru_jax.runs.stored import open_run, restore_state
from gru_jax.runs.train import train_run
from gru_jax.runtime.devices import choose_device, precision
from gru_jax.runtime.files import write_json

CompressionMethod = Literal["units", "magnitude", "distil", "int8", "bfloat16"]
COMPRESSION_METHODS: tuple[CompressionMethod, ...] = get_args(CompressionMethod)
COMPRESSION_FILE = "compression.json"
RESIZED, TRAINED = ("units", "distil"), ("units", "magnitude", "distil")
TAKEN_BY: Mapping[str, Sequence[str]] = {
    "hidden": RESIZED, "steps": TRAINED, "lr": TRAINED, "weight": ("distil",), "temperature": ("distil",),
    "sparsity": ("magnitude",),
}  # fmt: skip
"""The methods that each argument goes with."""
RETRAINED = 4  # one part in so many of the original's training
SPARSITY = 0.8


@dataclasses.dataclass(frozen=True)
class Compression:
    """A run and what was made of it, side by side.

    Attributes:
        workdir: the directory of the new run.
        networks: by name, original and the method: its sizes, costs and test metrics.

    Examples:
        >>> from gru_jax.runs.compression import Compression
        >>> Compression("runs/small", {"original": {"kb": 40.0}, "int8": {"kb": 10.0}}).table.rows()
        [('original', 40.0), ('int8', 10.0)]
    """

    workdir: str
    networks: Mapping[str, Mapping[str, int | float | None]]

    @property
    def table(self) -> pl.DataFrame:
        """A row for each network."""
        rows = [{"network": name, **numbers} for name, numbers in self.networks.items()]
        return pl.DataFrame(rows, infer_schema_length=None)


def compress_run(
    workdir: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    method: str = "units",
    *,
    hidden: Sequence[int] | None = None,
    steps: int | None = None,
    lr: float | None = None,
    weight: float | None = None,
    temperature: float | None = None,
    sparsity: float | None = None,
    data_dir: str | None = None,
    train: Callable[[Config, Path], Any] = train_run,
) -> Compression:
    """Make a run's best network smaller, as a run of its own with its own scores.

    Args:
        workdir: of the run, which is finished.
        output: the directory of the new run; that of the old one with the method behind it if None.
        method: units, which takes out those that matter least and trains what stays; magnitude, which makes the
            least weights of each kernel zero, more and more of them while the others are trained; distil, which trains
            a new, smaller network on the original's outputs; int8 or bfloat16, in which kernels are stored.
        hidden: for units and distil, units of each layer of the new network; half of them if None.
        steps: for units, magnitude and distil, of its training; a quarter of the original's if None, and for units 0
            for none; for distil as many as the original's if None.
        lr: for these, its learning rate; the original's if None.
        weight: for distil, of what the original says in the loss; that of `distillation.weight` if None.
        temperature: for distil; that of `distillation.temperature` if None.
        sparsity: for magnitude, the share of each kernel's weights that is zero in the end; 0.8 if None.
        data_dir: where the data files are now, if not where the run found them.
        train: trains a config in a directory.

    Raises:
        UsageError: there is no such finished run, or an argument does not go with the method.
    """
    check_argument("method", method, COMPRESSION_METHODS)
    rundir, config = open_run(workdir)
    if not rundir.summary.exists():
        raise ArgumentError(f"workdir={workdir}: not finished, it has no summary; the same training goes on with it")
    check_is_served(config, rundir)
    arguments = {
        "hidden": hidden, "steps": steps, "lr": lr, "weight": weight, "temperature": temperature, "sparsity": sparsity,
    }  # fmt: skip
    options = {name: value for name, value in arguments.items() if value is not None}
    for name, value in options.items():
        if method not in TAKEN_BY[name]:
            needed = " or ".join(TAKEN_BY[name])
            raise ArgumentError(f"{name}={value}: without effect on {method}; allowed with method={needed}")
    config = with_data_dir(config, data_dir)
    check_same_data(rundir, config)
    path = rundir.path.with_name(f"{rundir.path.name}-{method}") if output is None else Path(output)
    smaller = _config_of(config, rundir.path, method, options)
    train(smaller, path)
    return _compared(rundir, config, RunDir(path), smaller, method)


def _config_of(config: Config, path: Path, method: str, options: Mapping[str, Any]) -> Config:
    """The config of the new run; what belongs to the steps of the original's training is not in it."""
    planned, model, optimizer = plan(config), dataclasses.replace(config.model, weights=None), config.optimizer
    usual_steps = planned.steps if method == "distil" else -(-planned.steps // RETRAINED)
    steps = options.get("steps", usual_steps) if method in TRAINED else 0
    if method in RESIZED:
        half = tuple(max(1, size // 2) for size in model.hidden)
        model = dataclasses.replace(model, hidden=tuple(options.get("hidden", half)))
    if "lr" in options:
        optimizer = dataclasses.replace(optimizer, lr=options["lr"])
    if steps != planned.steps:
        optimizer = dataclasses.replace(optimizer, warmup_steps=None, warmup_epochs=None)
    original, distillation = f"{path}:{BEST}", DistillationConfig()
    start: dict[str, Any] = {"init_from": original, "init_as": "exact" if method == "magnitude" else method}
    regularization = dataclasses.replace(config.regularization, swa_from=None, sparsity=0.0, sparsity_until=1)
    if method == "distil":
        weights = {name: options[name] for name in ("weight", "temperature") if name in options}
        distillation, start = DistillationConfig(original, **weights), {"init_from": None, "init_as": "exact"}
        model = dataclasses.replace(model, embedding=None if model.tied else model.embedding)
    if method == "magnitude":
        sparse = {"sparsity": options.get("sparsity", SPARSITY), "sparsity_until": max(1, steps // 2), "ema": None}
        regularization = dataclasses.replace(regularization, **sparse)
    # Where the original began, and when its parts began to learn, is of its training alone.
    transfer = dataclasses.replace(config.transfer, parts=None, thaw_steps=None, thaw_epochs=None)
    gradient = config.gradient
    if method != "distil":
        floss = gradient.floss if gradient.floss_every is not None else 0
        gradient = dataclasses.replace(gradient, floss=floss, floss_before=0)
    train = dataclasses.replace(
        config.train,
        steps=steps, epochs=None, eval_steps=None, eval_epochs=None, patience=None, target=None, **start,
    )  # fmt: skip
    return load(dataclasses.replace(
        config, model=model, optimizer=optimizer, train=train, distillation=distillation, regularization=regularization,
        transfer=transfer if method != "distil" else TransferConfig(), gradient=gradient,
    ))  # fmt: skip


def _compared(rundir: RunDir, config: Config, new_rundir: RunDir, new_config: Config, method: str) -> Compression:
    """Both networks side by side, which is kept beside the new one too."""
    sides, numbers = {"original": (rundir, config), method: (new_rundir, new_config)}, {}
    with precision(config.dtype, config.matmul_precision), jax.default_device(choose_device(config.platform)):
        weights = [_stored_weights(*side) for side in sides.values()]
        costs = measure_service([(side[1], arrays) for side, arrays in zip(sides.values(), weights, strict=True)])
    for (name, (directory, _)), arrays, cost in zip(sides.items(), weights, costs, strict=True):
        summary = directory.read_summary()
        numbers[name] = {
            "parameters": summary["parameters"],
            "not_zero": sum(int(np.count_nonzero(array)) for array in arrays.values()),
            "weights_kb": bytes_of(arrays) / 1024,
            **cost._asdict(),
            **{f"test_{metric}": value for metric, value in summary["best"]["test"].items()},
        }
    write_json(new_rundir.path / COMPRESSION_FILE, {"method": method, "networks": numbers})
    return Compression(str(new_rundir.path), numbers)


def _stored_weights(rundir: RunDir, config: Config) -> dict[str, Any]:
    """The weights of a run's best network as they are stored."""
    device = choose_device(config.platform)
    return pack_exactly(restore_state(rundir, config, device, BEST).params, stored_as(config))
