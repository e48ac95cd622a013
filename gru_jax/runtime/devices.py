"""Where and with what a run takes place: device, precision, versions, memory."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.experimental

from gru_jax.config import AUTO, Config
from gru_jax.errors import UsageError

Device = Any  # jax.Device, which a type checker takes for a variable
PACKAGES = ("gru_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "ml_collections", "numpy")


def choose_device(config: Config) -> Device:
    """The device of a run.

    Raises:
        UsageError: the configured platform is not there; nothing else is used instead.
    """
    try:
        return jax.devices(None if config.platform == AUTO else config.platform)[0]
    except (RuntimeError, AssertionError) as error:  # the latter where JAX_PLATFORMS names what is not installed
        asked = os.environ.get("JAX_PLATFORMS")
        beside = f" (JAX_PLATFORMS={asked})" if asked else ""
        reason = str(error).split("\n")[0] or "no backend"
        message = f"platform={config.platform!r}{beside}: JAX has no such device here, {reason}; cpu is always there"
        raise UsageError(message) from error


def choose_devices(config: Config) -> list[Device]:
    """The devices that a run splits its batches over.

    Raises:
        UsageError: there are fewer than the config says, or they cannot share a batch evenly.
    """
    everywhere = jax.devices(choose_device(config).platform)
    there = devices_here(everywhere)
    each = config.devices or len(there)
    if each > len(there):
        more = "; JAX_NUM_CPU_DEVICES makes more of a CPU" if there[0].platform == "cpu" else ""
        raise UsageError(f"devices={each}: allowed are up to {len(there)}, the {there[0].platform} devices here{more}")
    used = [d for index in range(jax.process_count()) for d in _of_process(everywhere, index)[:each]]
    if config.train.batch_size % len(used):
        raise UsageError(
            f"devices={each}: {len(used)} devices cannot share train.batch_size={config.train.batch_size} evenly"
        )
    return used


def devices_here(devices: Sequence[Device]) -> list[Device]:
    """Those of this process."""
    return _of_process(devices, jax.process_index())


def _of_process(devices: Sequence[Device], index: int) -> list[Device]:
    return [device for device in devices if device.process_index == index]


@contextlib.contextmanager
def precision(config: Config) -> Iterator[None]:
    """The configured precision while a run lasts, and what it was before afterwards."""
    enable_x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64  # type: ignore
    with enable_x64(config.dtype == "float64"), jax.default_matmul_precision(config.matmul_precision):
        yield


def describe(config: Config, device: Device, used: int = 1) -> dict[str, Any]:
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


def check_memory(config: Config, device: Device) -> None:
    """Raise `UsageError` where the hidden states of one batch alone exceed the device's memory."""
    width = sum(config.model.hidden) * (2 if config.model.bidirectional else 1) + config.task.input_size
    batch_size = max(config.train.batch_size, config.train.eval_batch_size or 0)
    need = batch_size * config.task.time * width * (8 if config.dtype == "float64" else 4)
    limit = (device.memory_stats() or {}).get("bytes_limit") if device.platform != "cpu" else None
    limit = limit or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if need > limit:
        raise UsageError(
            f"train.batch_size={batch_size}: the states of one batch ({config.task.time} steps of {width} "
            f"numbers) take {need / 2**30:.1f} GiB and {device.platform} has {limit / 2**30:.1f}; "
            f"allowed here are up to {max(1, limit * batch_size // need)}"
        )


def peak_memory(device: Device) -> dict[str, int]:
    """Peak memory so far, in bytes: of the process, and of the device where it tells."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"host_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    stats = device.memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        peak["device_peak_bytes"] = stats["peak_bytes_in_use"]
    return peak


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
