"""A run's network made smaller, as a run of its own beside the original."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import polars as pl

from gru_jax.config import Config, DistillationConfig, load, plan
from gru_jax.config.checkpoint_names import BEST
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

CompressionMethod = Literal["units", "distil", "int8", "bfloat16"]
COMPRESSION_METHODS: tuple[CompressionMethod, ...] = get_args(CompressionMethod)
COMPRESSION_FILE = "compression.json"
TRAINED = ("units", "distil")
RETRAINED = 4  # one part in so many of the original's training


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
    data_dir: str | None = None,
    train: Callable[[Config, Path], Any] = train_run,
) -> Compression:
    """Make a run's best network smaller, as a run of its own with its own scores.

    Args:
        workdir: of the run, which is finished.
        output: the directory of the new run; that of the old one with the method behind it if None.
        method: units, which takes out those that matter least and trains what stays; distil, which trains a new,
            smaller network on the original's outputs; int8 or bfloat16, in which kernels are stored.
        hidden: for units and distil, units of each layer of the new network; half of them if None.
        steps: for these, of its training; for units a quarter of the original's if None and 0 for none, for distil as
            many as the original's if None.
        lr: for these, its learning rate; the original's if None.
        weight: for distil, of what the original says in the loss; that of `distillation.weight` if None.
        temperature: for distil; that of `distillation.temperature` if None.
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
    for name, value in {"hidden": hidden, "steps": steps, "lr": lr}.items():
        if method not in TRAINED and value is not None:
            raise ArgumentError(
                f"{name}={value}: without effect on {method}; allowed with method={' or '.join(TRAINED)}"
            )
    said = {name: value for name, value in (("weight", weight), ("temperature", temperature)) if value is not None}
    if said and method != "distil":
        name, value = next(iter(said.items()))
        raise ArgumentError(f"{name}={value}: without effect on {method}; allowed with method=distil")
    config = with_data_dir(config, data_dir)
    check_same_data(rundir, config)
    path = rundir.path.with_name(f"{rundir.path.name}-{method}") if output is None else Path(output)
    smaller = _config_of(config, rundir.path, method, hidden, steps, lr, said)
    train(smaller, path)
    return _compared(rundir, config, RunDir(path), smaller, method)


def _config_of(
    config: Config,
    path: Path,
    method: str,
    hidden: Sequence[int] | None,
    steps: int | None,
    lr: float | None,
    distilled: Mapping[str, float],
) -> Config:
    """The config of the new run."""
    planned, model, optimizer = plan(config), config.model, config.optimizer
    if method in TRAINED:
        half = tuple(max(1, size // 2) for size in model.hidden)
        model = dataclasses.replace(model, hidden=half if hidden is None else tuple(hidden))
        part = RETRAINED if method == "units" else 1
        steps = -(-planned.steps // part) if steps is None else steps
    else:
        steps = 0
    if lr is not None:
        optimizer = dataclasses.replace(optimizer, lr=lr)
    if steps != planned.steps:
        optimizer = dataclasses.replace(optimizer, warmup_steps=None, warmup_epochs=None)
    original, distillation = f"{path}:{BEST}", DistillationConfig()
    start: dict[str, Any] = {"init_from": original, "init_as": method}
    if method == "distil":
        distillation, start = DistillationConfig(original, **distilled), {"init_from": None, "init_as": "exact"}
        model = dataclasses.replace(model, embedding=None if model.tied else model.embedding)
    train = dataclasses.replace(
        config.train,
        steps=steps, epochs=None, eval_steps=None, eval_epochs=None, patience=None, target=None, **start,
    )  # fmt: skip
    return load(dataclasses.replace(
        config, model=dataclasses.replace(model, weights=None), optimizer=optimizer, train=train,
        distillation=distillation,
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
