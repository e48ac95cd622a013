"""Predictions of a run's network: on a split of its data, and on new inputs."""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import PyTree

from gru_jax.config import Config
from gru_jax.config.checkpoint_names import BEST
from gru_jax.data.arrays import LENGTHS, MASK, TARGETS, XS
from gru_jax.data.checks import as_float32
from gru_jax.data.times import shown_time
from gru_jax.errors import ArgumentError, UsageError, check_argument, closest, listing
from gru_jax.runs.forecasts import network_forecasts, windows_of_split
from gru_jax.runs.stored import CHECKPOINT_KINDS, CheckpointKind, devices_of_run, open_run, restore_state
from gru_jax.runtime.devices import precision
from gru_jax.runtime.files import replace_file
from gru_jax.tasks.base import SPLITS, FromFiles, Task, split_key
from gru_jax.tasks.facts import DataFacts, stored_facts
from gru_jax.tasks.forecast_windows import SplitWindows
from gru_jax.tasks.forecasting import Forecasting
from gru_jax.tasks.reading import read_numbers
from gru_jax.tasks.sequence_to_sequence import SequenceToSequence
from gru_jax.training.decoding import Search, checked_search, write_all
from gru_jax.training.network import build_model, draw_batch
from gru_jax.training.prediction import Outputs, outputs_of_data, outputs_of_inputs
from gru_jax.training.splitting import batch_mesh

RESERVED = ("sequence", "step", "outputs", LENGTHS, "file", "time", "row")
"""Names that tables and archives have for themselves."""


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What a network says of some sequences; as a NumPy array, its outputs.

    Attributes:
        outputs: what the task's loss reads, `[N, O]`, or `[N, T, O]` where each step has one; beyond a length they mean
            nothing. Of a decoder the tokens that it wrote, `[N, T]`.
        columns: what a person reads of them, by name, `[N]` or `[N, T]`: a class by name and the probability of each,
            or values in their units; and the targets, where they are known.
        lengths: `[N]`, None where all are T.
        metrics: means over all sequences, where targets are known.

    Examples:
        >>> import numpy as np
        >>> from gru_jax.runs.predictions import Predictions
        >>> Predictions(np.ones((2, 1)), {"price": np.array([3.0, 4.0])}, None, {}).table.rows()
        [(0, 3.0), (1, 4.0)]
    """

    outputs: np.ndarray
    columns: Mapping[str, np.ndarray]
    lengths: np.ndarray | None
    metrics: Mapping[str, float]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.outputs, dtype, copy=copy)

    def __len__(self) -> int:
        return len(self.outputs)

    @property
    def table(self) -> pl.DataFrame:
        """A row for each sequence, or for each of its steps where each has an output; beside its number the columns."""
        count = len(self.outputs)
        if self.outputs.ndim == 2:
            return pl.DataFrame({"sequence": np.arange(count), **self.columns})
        time = self.outputs.shape[1]
        within = np.arange(time) < (np.full(count, time) if self.lengths is None else self.lengths)[:, None]
        sequence, step = np.nonzero(within)
        return pl.DataFrame({"sequence": sequence, "step": step, **{k: v[within] for k, v in self.columns.items()}})

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the table to a file, `.csv`, `.tsv`, `.parquet` or `.jsonl`; or the arrays by name, `.npz`.

        Raises:
            UsageError: the file is of another kind, or cannot be written.
        """
        path = Path(path)
        check_suffix(path)
        replace_file(path, WRITERS[path.suffix](self))


def _as_bytes(write: Callable[[pl.DataFrame, Any], Any]) -> Callable[[Predictions], bytes]:
    def made(predictions: Predictions) -> bytes:
        stream = io.BytesIO()
        write(predictions.table, stream)
        return stream.getvalue()

    return made


def _as_archive(predictions: Predictions) -> bytes:
    stream, lengths = io.BytesIO(), {} if predictions.lengths is None else {LENGTHS: predictions.lengths}
    np.savez_compressed(stream, outputs=predictions.outputs, **lengths, **predictions.columns)  # type: ignore[arg-type]
    return stream.getvalue()


WRITERS: Mapping[str, Callable[[Predictions], bytes]] = {
    ".csv": _as_bytes(lambda table, stream: table.write_csv(stream)),
    ".tsv": _as_bytes(lambda table, stream: table.write_csv(stream, separator="\t")),
    ".parquet": _as_bytes(lambda table, stream: table.write_parquet(stream)),
    ".jsonl": _as_bytes(lambda table, stream: table.write_ndjson(stream)),
    ".npz": _as_archive,
}
"""By the ending of a file."""


def check_suffix(path: Path, argument: str = "output") -> None:
    """Refuse a file of predictions of a kind that is not written.

    Raises:
        ArgumentError: it is one.
    """
    if path.suffix not in WRITERS:
        hint = closest(path.suffix, WRITERS)
        raise ArgumentError(f"{argument}={path}: allowed are files that end in {listing(WRITERS)}{hint}")


def predict_run(
    workdir: str | os.PathLike[str],
    input: str | os.PathLike[str],  # noqa: A002 (as the command calls it)
    checkpoint: str = BEST,
    search: Search | None = None,
) -> Predictions:
    """Predictions of a run's network for new inputs in a file, which may have targets too. No training data are needed.

    Args:
        workdir: of the run, wherever it is now.
        input: the file, of a format that the run's task reads.
        checkpoint: which of its networks.
        search: how a decoder looks for what it writes; None for the likeliest token at each step, and for networks that
            have no decoder.

    Raises:
        UsageError: there is no such run, checkpoint or file, or inputs do not fit.
    """
    check_argument("checkpoint", checkpoint, CHECKPOINT_KINDS)
    rundir, config = open_run(workdir)
    if search is not None and not isinstance(config.task, SequenceToSequence):
        raise ArgumentError(f"beam_size={search.beam_size}: this network has no decoder; allowed is none")
    path = Path(input)
    if not path.exists():
        raise ArgumentError(f"input={path}: no such file")
    windows = config.task.new_windows(path) if isinstance(config.task, Forecasting) else None
    arrays = config.task.read_input(path) if windows is None else {}
    devices = devices_of_run(rundir, config)
    with precision(config.dtype, config.matmul_precision), jax.default_device(devices[0]):
        params = restore_state(rundir, config, devices[0], cast("CheckpointKind", checkpoint)).params
        if windows is not None:
            return predict_windows(config, params, windows, batch_mesh(devices))
        return predict(config, params, arrays, batch_mesh(devices), search)


def predict(
    config: Config,
    params: PyTree,
    arrays: Mapping[str, np.ndarray],
    mesh: Mesh | None = None,
    search: Search | None = None,
) -> Predictions:
    """Predictions of a network for checked inputs, `xs` and, if they have them, `lengths`, `targets` and `mask`.

    The devices of a mesh share each batch.
    """
    if isinstance(config.task, SequenceToSequence):
        return write_texts(config, params, arrays, search or Search(), mesh)
    facts = config.task.facts if isinstance(config.task, FromFiles) else None
    arrays = _padded(arrays, config.task.time, per_step=not isinstance(facts, DataFacts) or facts.per_step)
    count, time = arrays[XS].shape[:2]
    if TARGETS not in arrays:
        outputs = outputs_of_inputs(config, build_model(config), params, arrays[XS], arrays.get(LENGTHS), mesh)
        return _readable(config.task, outputs)
    if time > config.task.time:
        config = _with_time(config, time)
    return _readable(config.task, outputs_of_data(config, build_model(config), params, "test", arrays, count, mesh))


def predict_split(
    config: Config, params: PyTree, split: str, data: Mapping[str, Any], mesh: Mesh | None = None
) -> Predictions:
    """Predictions of a network for a split of its data, with targets or without; the devices of a mesh share each
    batch.
    """
    if isinstance(config.task, SequenceToSequence):
        return write_texts(config, params, pairs_of_split(config, split, data), Search(), mesh)
    if isinstance(config.task, Forecasting):
        return predict_windows(config, params, windows_of_split(config.task, split), mesh, split)
    model = build_model(config)
    if split != SPLITS[0] and split not in config.task.scored_splits:
        xs, lengths = as_float32(np.asarray(data[XS])), np.asarray(data[LENGTHS]) if LENGTHS in data else None
        return _readable(config.task, outputs_of_inputs(config, model, params, xs, lengths, mesh))
    size = config.task.size(split) or 0
    return _readable(config.task, outputs_of_data(config, model, params, split, data, size, mesh))


def predict_windows(
    config: Config, params: PyTree, windows: SplitWindows, mesh: Mesh | None = None, split: str | None = None
) -> Predictions:
    """Forecasts of windows in their units, with the times or rows that they are of: those of a split beside what came
    of them; of what is yet to come alone.
    """
    task = cast("Forecasting", config.task)
    forecasts, metrics = network_forecasts(config, params, split or "test", windows, mesh)
    rows, count = windows.rows_to_come(), len(task.facts.targets)
    made = dict(task.read_forecasts(forecasts))
    if split is not None:
        targets = windows.values[rows, :count].astype(np.float64)
        made = {**read_numbers(targets, task.facts.targets, "target "), **made}
    made = {f"predicted {name}" if name in RESERVED else name: column for name, column in made.items()}
    when = {"row": windows.first + rows}
    if windows.times is not None:
        times = windows.times[rows]
        when = {"time": np.array([[shown_time(time) for time in of_window] for of_window in times])}
    outputs = forecasts.reshape(*forecasts.shape[:2], -1)
    return Predictions(outputs, {**when, **made}, None, {} if split is None else metrics)


def pairs_of_split(config: Config, split: str, data: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The sources and the targets of a split whose targets a decoder writes."""
    index = jnp.arange(config.task.size(split) or 0, dtype=jnp.int32)
    batch = jax.jit(lambda data, index: draw_batch(config, data, split_key(split, 0), index))(dict(data), index)
    return {XS: np.asarray(batch.xs), LENGTHS: np.asarray(batch.lengths), TARGETS: np.asarray(batch.targets)}


def write_texts(
    config: Config, params: PyTree, arrays: Mapping[str, np.ndarray], search: Search, mesh: Mesh | None = None
) -> Predictions:
    """What a network writes of sources, as texts, beside the targets where these are known."""
    task, model = config.task, build_model(config)
    assert isinstance(task, SequenceToSequence)
    written = write_all(config, model, params, arrays[XS], arrays[LENGTHS], checked_search(search), mesh)
    columns = {"text": np.array(task.texts_of(written.tokens)), "log_probability": written.log_probability}
    if TARGETS in arrays:
        columns = {"target": np.array(task.texts_of(arrays[TARGETS])), **columns}
    return Predictions(written.tokens, columns, None, {})


def _readable(task: Task, made: Outputs) -> Predictions:
    columns = dict(task.read_outputs(made.outputs))
    if made.targets is not None:
        columns = {**task.read_targets(made.targets), **columns}
    columns = {f"predicted {name}" if name in RESERVED else name: column for name, column in columns.items()}
    return Predictions(made.outputs, columns, made.lengths, made.metrics)


def _padded(arrays: Mapping[str, np.ndarray], time: int, *, per_step: bool) -> Mapping[str, np.ndarray]:
    """Shorter sequences filled up to the steps of those in training, so that the program is that of an evaluation."""
    count, short = arrays[XS].shape[:2]
    if short >= time:
        return arrays
    lengths = arrays.get(LENGTHS, np.full(count, short, np.int32))
    of_steps = {XS, MASK, *((TARGETS,) if per_step else ())}
    filled = {
        name: np.pad(array, [(0, 0), (0, time - short), *[(0, 0)] * (array.ndim - 2)]) if name in of_steps else array
        for name, array in arrays.items()
    }
    return {**filled, LENGTHS: lengths}


def _with_time(config: Config, time: int) -> Config:
    """A config whose task has sequences of more steps."""
    facts = config.task.facts if isinstance(config.task, FromFiles) else None
    if not isinstance(facts, DataFacts):
        raise UsageError(f"xs has {time} steps; this task's have {config.task.time}")
    with stored_facts(dataclasses.replace(facts, time=time)):
        return dataclasses.replace(config, task=dataclasses.replace(config.task))
