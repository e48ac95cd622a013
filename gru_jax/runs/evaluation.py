"""The metrics of a run's network, computed anew."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any, cast

import jax
from jax.sharding import Mesh
from jaxtyping import PyTree

from gru_jax.config import Config
from gru_jax.config.checkpoint_names import BEST
from gru_jax.data.arrays import TARGETS
from gru_jax.errors import ArgumentError, check_argument
from gru_jax.runs.data_facts import check_same_data
from gru_jax.runs.directory import RunDir
from gru_jax.runs.predictions import Predictions, pairs_of_split, predict_split, write_texts
from gru_jax.runs.stored import CHECKPOINT_KINDS, CheckpointKind, devices_of_run, open_run, restore_state
from gru_jax.runtime.devices import choose_device, precision
from gru_jax.runtime.files import read_json, write_json
from gru_jax.tasks import SPLITS
from gru_jax.tasks.base import FromFiles
from gru_jax.tasks.scores import Answers, scores_of
from gru_jax.tasks.sequence_to_sequence import SequenceToSequence
from gru_jax.tasks.translation import Translation
from gru_jax.training.answers import evaluate_answers
from gru_jax.training.decoding import Search
from gru_jax.training.evaluation import build_evaluator
from gru_jax.training.splitting import batch_mesh, on_mesh
from gru_jax.training.step import Trainer


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Metrics of a run's network, computed anew.

    Attributes:
        split: of the data.
        step: of the checkpoint.
        metrics: by name; none of a split without targets.
        stored: those in the run's summary, if it has them.
        written: where a decoder writes the targets, scores of what it writes by itself, greedily and by a beam.
        predictions: of every sequence, where they are wanted.
    """

    split: str
    step: int
    metrics: dict[str, float]
    stored: dict[str, float] | None
    written: dict[str, float] = dataclasses.field(default_factory=dict)
    predictions: Predictions | None = None

    @property
    def equals_stored(self) -> bool:
        """Whether they equal the stored ones to the last bit."""
        return self.metrics == self.stored


def evaluate_run(
    workdir: str | os.PathLike[str],
    split: str = "test",
    checkpoint: str = BEST,
    data_dir: str | None = None,
    *,
    predicts: bool = False,
    search: Search | None = None,
) -> Evaluation:
    """Compute the metrics of a run's network anew.

    Args:
        workdir: of the run.
        split: train, valid or test.
        checkpoint: which of its networks.
        data_dir: where its data files are now, if not where the run found them.
        predicts: whether predictions are wanted.
        search: how a decoder looks for what it writes, beside greedily; None for a beam of 5.

    How good what the best network writes for the test sources is, by that beam, is kept in the run's directory.

    Raises:
        UsageError: there is no such run, checkpoint, split or data.
    """
    check_argument("split", split, SPLITS)
    check_argument("checkpoint", checkpoint, CHECKPOINT_KINDS)
    rundir, config = open_run(workdir)
    config = with_data_dir(config, data_dir)
    if config.task.size(split) is None:
        raise ArgumentError(f"split={split}: generated without end; allowed are valid, test")
    is_scored = split in (SPLITS[0], *config.task.scored_splits)
    if not (is_scored or predicts):
        raise ArgumentError(f"split={split}: has no targets, and no metrics; allowed are train, valid, or predictions")
    check_same_data(rundir, config)
    devices = devices_of_run(rundir, config)
    with precision(config.dtype, config.matmul_precision), jax.default_device(devices[0]):
        state, mesh = restore_state(rundir, config, devices[0], cast("CheckpointKind", checkpoint)), batch_mesh(devices)
        params, data = (on_mesh(tree, mesh) for tree in (state.params, config.task.load(split)))
        metrics: dict[str, float] = {}
        if is_scored:
            metrics |= build_evaluator(config, Trainer(config).model, mesh)(params, split, data)
        if is_scored and config.train.metrics:
            metrics |= scores_of(config.train.metrics, evaluate_answers(config, params, split, data))
        written = _scores_of_written(config, params, split, data, search, mesh)
        predictions = predict_split(config, params, split, data, mesh) if predicts else None
    recorded, is_done = None, rundir.summary.exists()
    is_result = is_done and search is None and (split, checkpoint) == ("test", BEST)
    if written and is_result and os.access(rundir.path, os.W_OK):
        write_json(rundir.written_scores, written)
    if is_done:
        recorded = rundir.read_summary()["best" if checkpoint == BEST else "final"].get(split)
    return Evaluation(split, int(state.step), metrics, recorded, written, predictions)


def _scores_of_written(
    config: Config, params: PyTree, split: str, data: Mapping[str, Any], search: Search | None, mesh: Mesh | None
) -> dict[str, float]:
    """By name, scores of what a decoder writes greedily, and by a beam; none where there is no decoder."""
    task = config.task
    if not isinstance(task, SequenceToSequence):
        if search is not None:
            raise ArgumentError(f"beam_size={search.beam_size}: this network has no decoder; allowed is none")
        return {}
    scores, pairs = dict[str, float](), pairs_of_split(config, split, data)
    wanted = _wanted_texts(task, split) if isinstance(task, Translation) else task.texts_of(pairs[TARGETS])
    for name, how in {"greedy": Search(), "beam": Search(5) if search is None else search}.items():
        texts = write_texts(config, params, pairs, how, mesh).columns["text"].tolist()
        scores |= {f"{score}_{name}": value for score, value in task.text_scores(texts, wanted).items()}
    return scores


def _wanted_texts(task: Translation, split: str) -> list[str]:
    """The targets of a split as they stand in its files, in the order of its examples."""
    if not task.is_chosen(split):
        return task.target_texts(split)
    texts = task.target_texts("train")
    return [texts[i] for i in task.order(split)]


def read_written_scores(rundir: RunDir) -> dict[str, float]:
    """What `evaluate_run` has kept of what the best network writes; empty if it has not been called."""
    return read_json(rundir.written_scores) if rundir.written_scores.is_file() else {}


def answers_of_run(rundir: RunDir, config: Config, split: str = "test") -> Answers:
    """What the network of a run that was best in validation answers to a split.

    Raises:
        UsageError: there is no such checkpoint, or data.
    """
    device = choose_device(config.platform)
    with precision(config.dtype, config.matmul_precision), jax.default_device(device):
        params = restore_state(rundir, config, device, BEST).params
        return evaluate_answers(config, params, split, jax.device_put(config.task.load(split)))


def with_data_dir(config: Config, data_dir: str | None) -> Config:
    """A config whose data are in another directory, if one is said.

    Raises:
        ArgumentError: its task reads no files.
    """
    if data_dir is None:
        return config
    if not isinstance(config.task, FromFiles):
        raise ArgumentError(f"data_dir={data_dir}: this run's task is generated and reads no files")
    return dataclasses.replace(config, task=dataclasses.replace(config.task, data_dir=data_dir))
