"""Training a config in a directory, from what is there to the summary."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from typing import Any

import jax

from gru_jax.config import Config
from gru_jax.runs.data_facts import check_same_inputs, keep_facts
from gru_jax.runs.directory import RunDir
from gru_jax.runs.environment import check_memory, describe_environment
from gru_jax.runs.growth import grown_keys, prolong
from gru_jax.runs.single import SingleRun
from gru_jax.runs.teacher import teacher_of
from gru_jax.runs.weights import starting_point
from gru_jax.runs.writers import check_writers
from gru_jax.runtime.devices import choose_devices, devices_here, precision, use_all_cores, without_alarms
from gru_jax.runtime.preemption import watch_for_sigterm
from gru_jax.runtime.processes import log_once, on_main_process
from gru_jax.tasks.loading import load_splits
from gru_jax.training.answers import check_scores
from gru_jax.training.carrying import TrainedParts
from gru_jax.training.network import build_model, check_monitor
from gru_jax.training.regularization import check_label_smoothing

logger = logging.getLogger(__name__)


def train_run(
    config: Config, workdir: str | os.PathLike[str], on_progress: Callable[[SingleRun], None] = lambda run: None
) -> dict[str, Any]:
    """Train a config in a directory, resuming what is there.

    Args:
        config: the config.
        workdir: the run's directory.
        on_progress: called with the run after every call of the compiled program and every validation.

    Returns:
        The summary, as in `summary.json`.

    Raises:
        UsageError: the data or the directory is not usable.
        NonFiniteError: a step gave an infinite or undefined number.
        PreemptedError: the process got SIGTERM; all that was done is saved, and the same call goes on.
    """
    use_all_cores()
    rundir, as_dict = RunDir(workdir), config.to_dict()
    state = on_main_process(lambda: rundir.inspect(as_dict, grown_keys(rundir, config)))
    if (change := on_main_process(lambda: rundir.changed_sources(as_dict))) is not None:
        log_once(logger, change)
    if state == "done":
        log_once(logger, f"{rundir.path}: already done{'; other code takes another directory' if change else ''}")
        return on_main_process(rundir.read_summary)
    tokens = config.task.time if config.task.reads_tokens else None
    devices = choose_devices(config.platform, config.devices, config.train.batch_size, config.train.accumulate, tokens)
    device = devices_here(devices)[0]
    if state == "new":
        _check_start(config)
    else:
        check_same_inputs(rundir, config)
    check_memory(config, device, len(devices))
    check_writers(config.writers or ())
    splits = load_splits(config.task, config.resident_mb)
    for line in config.task.describe_data():
        log_once(logger, line)
    with precision(config.dtype, config.matmul_precision):
        check_monitor(config, splits["valid"])
        check_label_smoothing(config, splits["valid"])
        check_scores(config, splits)
    environment = describe_environment(config, device, len(devices))
    with contextlib.ExitStack() as stack:
        on_main_process(lambda: stack.enter_context(rundir.held()))
        stop_requested = stack.enter_context(watch_for_sigterm())
        # By whoever held it until now it may have been finished.
        if on_main_process(lambda: rundir.inspect(as_dict, grown_keys(rundir, config))) == "done":
            return on_main_process(rundir.read_summary)
        for line in on_main_process(lambda: prolong(rundir, config)):
            log_once(logger, line)
        for change in on_main_process(lambda: rundir.start(as_dict, environment)):
            log_once(logger, f"going on in another environment, results may differ in their last bits: {change}")
        on_main_process(lambda: keep_facts(rundir, config))
        stack.enter_context(precision(config.dtype, config.matmul_precision))
        stack.enter_context(without_alarms())
        stack.enter_context(jax.default_device(device))
        return SingleRun(config, rundir, splits, devices, stop_requested, on_progress).train_to_the_end()


def _check_start(config: Config) -> None:
    """Say what does not fit of other networks, or of parts, before anything is written.

    Raises:
        UsageError: something does not.
    """
    teacher_of(config)
    starting_point(config, tells=False)
    if config.transfer.is_selective:
        with precision(config.dtype, config.matmul_precision):
            TrainedParts(config, build_model(config))
