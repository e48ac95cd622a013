"""Where a run takes place: devices, precision, memory."""

from __future__ import annotations

import contextlib
import math
import os
import resource
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.experimental

from gru_jax.errors import UsageError

Device = Any  # jax.Device, which a type checker takes for a variable
ANY_PLATFORM = ANY_NUMBER = "auto"
Platform = Literal["auto", "cpu", "gpu", "tpu"]
Precision = Literal["float32", "tensorfloat32", "bfloat16"]


def choose_device(platform: Platform) -> Device:
    """The first device of a platform, or of JAX's default platform for `"auto"`.

    Raises:
        UsageError: the platform is not there; nothing else is used instead.

    Examples:
        >>> from gru_jax.runtime.devices import choose_device
        >>> choose_device("cpu").platform
        'cpu'
    """
    try:
        return jax.devices(None if platform == ANY_PLATFORM else platform)[0]
    except (RuntimeError, AssertionError) as error:  # the latter where JAX_PLATFORMS names what is not installed
        variable = os.environ.get("JAX_PLATFORMS")
        beside = f" (JAX_PLATFORMS={variable})" if variable else ""
        reason = str(error).split("\n")[0] or "no backend"
        message = f"platform={platform!r}{beside}: JAX has no such device here, {reason}; cpu is always there"
        raise UsageError(message) from error


LEAST_ROWS = 4
"""Rows of a batch from which on a CPU device of their own pays, as measured: with two they gain nothing."""
LEAST_TOKENS = 2000
"""The same in tokens, of sequences of them: with the 1,400 of the sentences of SST-2, or fewer,
two devices are slower than one, since gradients of whole tables of symbols have to meet."""


def cpu_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def use_all_cores() -> None:
    """Let JAX take every core of the CPU for a device, over which runs can split their batches.

    Nothing is changed where somebody has said how many devices a CPU has (`JAX_NUM_CPU_DEVICES`, the config's
    `jax_num_cpu_devices`, or XLA's flag), and none can be made once JAX has been used.

    Examples:
        >>> import gru_jax.runtime.devices
        >>> gru_jax.runtime.devices.use_all_cores()  # before anything else of JAX
    """
    config: Any = jax.config
    said = config.jax_num_cpu_devices != -1 or "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if not said:
        with contextlib.suppress(RuntimeError):  # JAX has been used
            config.update("jax_num_cpu_devices", cpu_cores())


def choose_devices(
    platform: Platform, devices: int | Literal["auto"], batch_size: int, parts: int = 1, tokens: int | None = None
) -> list[Device]:
    """The devices that a run splits its batches over.

    Args:
        platform: of the devices.
        devices: how many of each process; 0 for all there are; auto for as many as share a batch evenly, each with at
            least `LEAST_ROWS` rows, and of tokens `LEAST_TOKENS`, on a CPU.
        batch_size: of a training step.
        parts: into which each batch is divided, one after the other; devices share each of them.
        tokens: steps of a row, where they are tokens; None where they are not.

    Raises:
        UsageError: there are fewer, or they cannot share a batch evenly.
    """
    everywhere = jax.devices(choose_device(platform).platform)
    here, processes = devices_here(everywhere), jax.process_count()
    if devices == ANY_NUMBER:
        least = 1
        if here[0].platform == "cpu":
            least = max(LEAST_ROWS, math.ceil(LEAST_TOKENS / tokens) if tokens else 1)
        share = batch_size // parts // processes
        pays = [n for n in range(1, len(here) + 1) if share % n == 0 and share // n >= least]
        each = max(pays, default=1)
    else:
        each = devices or len(here)
    if each > len(here):
        more = "; JAX_NUM_CPU_DEVICES makes more of a CPU" if here[0].platform == "cpu" else ""
        raise UsageError(f"devices={each}: allowed are up to {len(here)}, the {here[0].platform} devices here{more}")
    used = [d for index in range(processes) for d in _devices_of_process(everywhere, index)[:each]]
    if batch_size % (parts * len(used)):
        what = f"train.batch_size={batch_size}" + f" in train.accumulate={parts} parts" * (parts > 1)
        raise UsageError(f"devices={each}: {len(used)} devices cannot share {what} evenly")
    return used


def devices_here(devices: Sequence[Device]) -> list[Device]:
    """Those of some devices that belong to this process."""
    return _devices_of_process(devices, jax.process_index())


def _devices_of_process(devices: Sequence[Device], index: int) -> list[Device]:
    return [device for device in devices if device.process_index == index]


@contextlib.contextmanager
def precision(dtype: str, matmul_precision: Precision) -> Iterator[None]:
    """Compute in a precision while this lasts, and as before afterwards.

    Args:
        dtype: the type that products run in; float64 switches double precision on.
        matmul_precision: of float32 products on accelerators.
    """
    enable_x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64  # type: ignore
    with enable_x64(dtype == "float64"), jax.default_matmul_precision(matmul_precision):
        yield


@contextlib.contextmanager
def without_alarms() -> Iterator[None]:
    """Compute without JAX's own alarms for NaN and inf, `jax_debug_nans` and `jax_debug_infs`, while this lasts.

    For whole runs, which see to it themselves: each step says whether it is finite, and the first that is not is looked
    into. In what they measure NaN is no fault, it stands for what is unknown: a lag that no sequence reaches.
    """
    with jax.debug_nans(False), jax.debug_infs(False):
        yield


def peak_memory(device: Device) -> dict[str, int]:
    """Peak memory so far, in bytes: of the process, and of the device where it tells."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"host_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    stats = device.memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        peak["device_peak_bytes"] = stats["peak_bytes_in_use"]
    return peak


def total_memory(device: Device) -> int:
    """Bytes of memory that a device has; of a CPU those of the machine."""
    limit = (device.memory_stats() or {}).get("bytes_limit") if device.platform != "cpu" else None
    return limit or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def free_memory(devices: Sequence[Device]) -> float:
    """Bytes that each of some devices of one kind has to give."""
    stats = devices[0].memory_stats() if devices[0].platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = meminfo.read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    else:
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return free / len(devices)
