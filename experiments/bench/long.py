"""Time and memory over very long sequences: of a training step, and of all Lyapunov exponents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jaxtyping import PyTree

import gru_jax
from experiments.bench.measure import Row, compile_step, median_seconds
from gru_jax.cells import GRU
from gru_jax.runtime.devices import peak_memory

HIDDEN = 64


def last_state_gradient(params: PyTree, xs: Any) -> Any:
    """Value and gradient of a loss of the last state."""
    return jax.value_and_grad(lambda p, xs: (gru_jax.unroll(GRU(), p, xs).carry ** 2).mean())(params, xs)


def all_exponents(params: PyTree, xs: Any) -> Any:
    """All Lyapunov exponents, with a decomposition every ten steps."""
    return gru_jax.flow.lyapunov_spectrum(GRU(), params, xs, every=10).exponents


def measure_gradients(steps: Sequence[int], repeats: int) -> Iterator[Row]:
    """Measure a training step over sequences of each length."""
    return measure_lengths(last_state_gradient, steps, repeats)


def measure_spectra(steps: Sequence[int], repeats: int) -> Iterator[Row]:
    """Measure all Lyapunov exponents along sequences of each length."""
    return measure_lengths(all_exponents, steps, repeats)


def measure_lengths(function: Callable[[Any, Any], Any], lengths: Sequence[int], repeats: int) -> Iterator[Row]:
    """Measure `function(params, xs)` on one sequence of each length, with one input feature and 64 hidden units."""
    params = GRU().init(jax.random.key(0), 1, HIDDEN)
    for length in lengths:
        step = compile_step(function, params, jax.random.normal(jax.random.key(1), (1, length, 1)))
        seconds = median_seconds({"step": step}, repeats)["step"]
        yield {
            "time": length, "seconds": seconds, "microseconds_per_step": 1e6 * seconds / length,
            "temp_bytes": step.temp_bytes, **peak_memory(jax.devices()[0]),
        }  # fmt: skip


def describe_length(row: Row) -> str:
    """What one length took, in a line."""
    return (
        f"T={row['time']}: {row['seconds']:.3f} s, {row['microseconds_per_step']:.2f} us a step, "
        f"temp {(row['temp_bytes'] or 0) / 1e6:.1f} MB, peak of the process {row['host_peak_bytes'] / 1e6:.1f} MB"
    )
