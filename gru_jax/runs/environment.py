"""With what a run is made: versions, device, precision and commit; and whether it fits the device's memory."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path

import jax

from gru_jax.config import Config
from gru_jax.errors import UsageError
from gru_jax.runtime.devices import Device, total_memory
from gru_jax.runtime.files import Json

PACKAGES = ("gru_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "ml_collections", "numpy")


def describe_environment(config: Config, device: Device, used: int = 1) -> Json:
    """The content of `env.json`, of a run on so many devices like this one."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "device": {
            "platform": device.platform,
            "kind": device.device_kind,
            "count": jax.device_count(),
            "used": used,
            "processes": jax.process_count(),
        },
        "cpu_count": os.cpu_count(),
        "dtype": config.dtype,
        "matmul_precision": config.matmul_precision,
        "seed": config.seed,
        "git_commit": _git_commit(),
        "command": sys.argv,
    }


def check_memory(config: Config, device: Device, used: int) -> None:
    """Raise `UsageError` where the hidden states of one batch alone exceed the memory of so many devices like this."""
    width = sum(config.model.hidden) * (2 if config.model.bidirectional else 1) + config.input_width
    batch_size = max(config.train.part_size, config.train.eval_batch_size or 0)
    need = batch_size * config.task.time * width * (8 if config.dtype == "float64" else 4)
    limit = total_memory(device) * (1 if device.platform == "cpu" else used)  # the cores of a machine share its memory
    if need > limit:
        raise UsageError(
            f"train.batch_size={batch_size}: the states of one batch ({config.task.time} steps of {width} "
            f"numbers) take {need / 2**30:.1f} GiB and {device.platform} has {limit / 2**30:.1f}; "
            f"allowed here are up to {max(1, limit * batch_size // need)}, or more in parts by train.accumulate"
        )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """The commit of this source tree, with a mark if it was changed since; None where git does not track it."""
    file = Path(__file__)

    def git(*arguments: str) -> str | None:
        done = subprocess.run(["git", *arguments], cwd=file.parent, capture_output=True, text=True, timeout=10)
        return done.stdout.strip() if done.returncode == 0 else None

    try:
        if git("ls-files", "--error-unmatch", file.name) is None:  # e.g. installed into somebody else's repository
            return None
        commit, changes = git("rev-parse", "HEAD"), git("status", "--porcelain")
    except (OSError, subprocess.TimeoutExpired):
        return None
    return f"{commit}-dirty" if changes else commit
