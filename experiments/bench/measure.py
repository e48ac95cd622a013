"""Times, memory and rates of compiled steps, side by side, and on what machine."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import gru_jax

Row = Mapping[str, Any]
"""What was measured of one thing, as it is written to `bench.json`."""


class Shape(NamedTuple):
    """The size of an unroll: steps, batch, input features, hidden units."""

    time: int
    batch: int
    features: int
    hidden: int

    def __str__(self) -> str:
        """`T,B,D,H`, as on the command line."""
        return ",".join(map(str, self))

    @property
    def flops(self) -> int:
        """Operations of the products in a GRU's value and parameter gradients, without recomputation: 2 F_x + 3 F_h."""
        per_gate = 2 * self.time * self.batch * self.hidden
        return 3 * per_gate * (2 * self.features + 3 * self.hidden)


class Compiled(NamedTuple):
    """A step that is ready to run.

    Attributes:
        run: does it once, to the end.
        temp_bytes: temporary memory, where the compiler tells.
        compile_seconds: tracing and compiling, where there is such a thing.
    """

    run: Callable[[], Any]
    temp_bytes: int | None = None
    compile_seconds: float | None = None


def compile_step(function: Callable[..., Any], *args: Any) -> Compiled:
    """Compile a JAX function for these arguments."""
    start = time.perf_counter()
    program = jax.jit(function).lower(*args).compile()
    seconds = time.perf_counter() - start
    analysis = program.memory_analysis()
    temp = None if analysis is None else analysis.temp_size_in_bytes
    return Compiled(lambda: jax.block_until_ready(program(*args)), temp, seconds)


def interleaved(steps: Mapping[str, Compiled], repeats: int, least_seconds: float = 0.0) -> dict[str, list[float]]:
    """Seconds of each step, `repeats` times in turn, and more turns until they have taken `least_seconds` together.

    A few runs of a step of milliseconds are over so soon that whatever else the machine does meanwhile decides their
    median. Each turn runs the step twice and times the second, as in a training loop: threads of the one before
    (PyTorch's spin for a while after their work) and its data in the caches would slow down the first.
    """
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    began = time.perf_counter()
    turns = 0
    while turns < repeats or time.perf_counter() - began < least_seconds:
        turns += 1
        for name, step in steps.items():
            step.run()
            start = time.perf_counter()
            step.run()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def median_seconds(steps: Mapping[str, Compiled], repeats: int) -> dict[str, float]:
    """The median of each step's seconds; see `interleaved`."""
    return {name: float(np.median(times)) for name, times in interleaved(steps, repeats).items()}


def matmul_step(size: int = 2048) -> Compiled:
    """A float32 product of two square matrices: what this machine can do at best."""
    a = jnp.asarray(np.random.default_rng(0).standard_normal((size, size)), jnp.float32)
    return compile_step(lambda a: a @ a, a)


def matmul_rate(seconds: list[float], size: int = 2048) -> float:
    """Floating-point operations per second of `matmul_step`."""
    return 2 * size**3 / float(np.median(seconds))


def surroundings(peer_versions: Mapping[str, str], skipped: Sequence[str]) -> dict[str, Any]:
    """What a reader needs to compare the figures with others: machine, versions, and which peers were not there."""
    device = jax.devices()[0]
    return {
        "device": f"{device.platform}: {device.device_kind}",
        "cpu_count": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "versions": {"gru_jax": gru_jax.__version__, "jax": jax.__version__, **peer_versions},
        "skipped": list(skipped),
    }


class AskedProcess:
    """A process of its own that works for a while whenever it is asked, and says how long a step took.

    It says so of steps that ran when it was warm: whoever else worked before has had the caches.

    Args:
        module: what it runs, which calls `answer_when_asked`.
        arguments: for the module.
        environment: what its environment has beside this one's.
    """

    def __init__(self, module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        command = [sys.executable, "-m", module, *arguments]
        pipe, variables = subprocess.PIPE, {**os.environ, **(environment or {})}
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=variables)
        self.seconds()  # compiles

    def seconds(self) -> float:
        """Have it work for a while; seconds of one step."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{' '.join(map(str, self._process.args))}: it ended without an answer")  # pyright: ignore
        return float(answer)

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=60)


def answer_when_asked(call: Callable[[], Any], steps: int) -> None:
    """For each line that comes in, call for a second and write how long each of a call's steps took, in the median."""
    answers, sys.stdout = sys.stdout, sys.stderr  # where libraries may print
    for _ in sys.stdin:
        seconds: list[float] = []
        while len(seconds) < 2 or sum(seconds) < 1.0:
            began = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - began)
        answers.write(f"{float(np.median(seconds[1:])) / steps}\n")
        answers.flush()
