"""A run whose config has changed in what may change: it goes on, and may become longer than it was to be."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from gru_jax.config import GROWING_KEYS, SOURCES, Config, Plan, flat_differences, plan
from gru_jax.config.checkpoint_names import BEST, LATEST
from gru_jax.errors import UsageError
from gru_jax.runs.checkpoints import remove_checkpoint
from gru_jax.runs.directory import RunDir
from gru_jax.runs.stored import open_run
from gru_jax.runtime.files import read_json, write_json
from gru_jax.training.instruments import LIVE, LIVE_STEP, RECORD_AXES
from gru_jax.training.schedules import learning_rates

COMPARED = 1000  # updates whose learning rates are compared


def grown_keys(rundir: RunDir, config: Config) -> list[str]:
    """Of `GROWING_KEYS`, those by which a config lets the run of a directory last longer than its own config does."""
    before = _config_of(rundir)
    if before is None:
        return []
    keys = [name for name in GROWING_KEYS if name in flat_differences(before.to_dict(), config.to_dict())]
    old, new = before.train, config.train
    grows = {"train.steps": plan(config).steps >= plan(before).steps}
    grows["train.epochs"] = grows["train.steps"]
    grows["train.patience"] = new.patience is None or (old.patience is not None and new.patience >= old.patience)
    grows["train.skip_nonfinite"] = new.skip_nonfinite >= old.skip_nonfinite
    limits = [train.skip_nonfinite_in_a_row or train.skip_nonfinite for train in (old, new)]
    grows["train.skip_nonfinite_in_a_row"] = limits[1] >= limits[0]
    harder = -1 if config.goal[1] == "min" else 1
    grows["train.target"] = new.target is None or (old.target is not None and harder * (new.target - old.target) >= 0)
    return [name for name in keys if grows[name]]


def prolong(rundir: RunDir, config: Config) -> list[str]:
    """Make the directory of a run one of this config, which differs in nothing but what may change.

    A run that was at its end is none any more: what belongs to the end alone is forgotten. A kill at any moment leaves
    a directory with which both configs go on.

    Returns:
        Lines on what that does to its results.

    Raises:
        UsageError: a file cannot be written.
    """
    before, keys, lines = _config_of(rundir), grown_keys(rundir, config), []
    if before is None:
        return []
    if keys:
        old, new = plan(before), plan(config)
        rundir.written_scores.unlink(missing_ok=True)
        rundir.summary.unlink(missing_ok=True)
        lines = [_outlook(before, config, keys)]
        if new.steps > old.steps and _forget_last_step(rundir, old):
            lines.append(
                f"its only network is of step {old.steps}, behind which no validation was due: the training begins anew"
            )
        _forget_last_recording(rundir, old)
    stored, content = read_json(rundir.config), config.to_dict()
    content = {**content, SOURCES: stored[SOURCES]} if SOURCES in stored else content
    if content != stored:
        write_json(rundir.config, content)
    return lines


def _config_of(rundir: RunDir) -> Config | None:
    """The config of a directory; None where there is none that can be read."""
    try:
        return open_run(rundir.path, compares_source=False)[1] if rundir.config.is_file() else None
    except UsageError:  # of another version; that it differs is said elsewhere
        return None


def _forget_last_step(rundir: RunDir, old: Plan) -> bool:
    """Forget the network and the validation of the last step, if there was one for no other reason than that.

    Returns:
        Whether nothing is left from which the training could go on.
    """
    if not old.steps % old.eval_every:
        return False
    kept = [folder.name for folder in (rundir.checkpoints / LATEST).glob("[0-9]*")]
    for kind in (LATEST, BEST):
        remove_checkpoint(rundir.checkpoints, kind, old.steps)
    return kept == [str(old.steps)]


def _forget_last_recording(rundir: RunDir, old: Plan) -> None:
    """Forget recordings that were made for no other reason than the end."""
    records = rundir.read_flow()
    if "step" not in records or not old.flow_every:
        return
    due = records["step"] % old.flow_every == 0
    is_kept_whole = {name: name in RECORD_AXES or name == LIVE_STEP or name.startswith(LIVE) for name in records}
    rundir.write_flow({name: v if is_kept_whole[name] else v[due] for name, v in records.items()})


def _outlook(before: Config, config: Config, keys: Collection[str]) -> str:
    """What changed, and whether it comes to what it would have been from the start, and if not, why."""
    old, new = plan(before), plan(config)
    changes = flat_differences(before.to_dict(), config.to_dict())
    start = f"going on, as {', '.join(f'{key} was {changes[key][0]}, is {changes[key][1]}' for key in keys)}"
    counts = np.unique(np.linspace(0, old.steps - 1, COMPARED).astype(np.int32))
    reasons = []
    if (learning_rates(before, counts) != learning_rates(config, counts)).any():
        reasons.append("the learning rates of its schedule follow train.steps")
    if config.model.sampling_schedule != "constant" and old.steps != new.steps:
        reasons.append("model.sampling_schedule follows train.steps")
    if old.eval_every != new.eval_every:
        reasons.append(
            f"validations were {old.eval_every} steps apart and are {new.eval_every} now, which train.eval_steps sets"
        )
    if old.flow_every != new.flow_every:
        reasons.append(
            f"recordings of the instruments were {old.flow_every} steps apart and are {new.flow_every} now, which "
            "flow.every sets"
        )
    if not reasons:
        return f"{start}: to the bits of a run that began so"
    return f"{start}: to other bits than those of a run that began so, since {'; and '.join(reasons)}"
