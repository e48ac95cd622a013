"""How long networks take in service, and how much memory, measured side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gru_jax.config import Config
from gru_jax.deploy.programs import ServedNetwork
from gru_jax.dtypes import carry_dtype
from gru_jax.runs.export import input_step, serve_network
from gru_jax.training.network import build_model

TURNS, SECONDS_OF_TURN = 25, 0.02


class ServiceCost(NamedTuple):
    """What a network costs in service, one sequence at a time.

    Attributes:
        step_us: microseconds for one step; None where there is none.
        sequence_ms: milliseconds for a sequence as long as the longest in training.
        memory_kb: kilobytes that the program of a sequence takes, with its weights as arguments.
    """

    step_us: float | None
    sequence_ms: float
    memory_kb: float


def measure_service(networks: Sequence[tuple[Config, Mapping[str, np.ndarray]]]) -> list[ServiceCost]:
    """What each of some networks costs.

    Times are the least of many calls, in turns in which each network is measured after the other, so that what else the
    machine does matters little.

    Args:
        networks: their configs and their weights, as they are stored.
    """
    programs = [_compiled(config, weights) for config, weights in networks]
    times: list[dict[str, list[float]]] = [{name: [] for name in calls} for calls, _ in programs]
    for _ in range(TURNS):
        for (calls, _), seconds in zip(programs, times, strict=True):
            for name, call in calls.items():
                seconds[name].append(_least_seconds(call))
    return [
        ServiceCost(
            1e6 * min(seconds["step"]) if "step" in seconds else None,
            1e3 * min(seconds["sequence"]),
            memory / 1024,
        )
        for seconds, (_, memory) in zip(times, programs, strict=True)
    ]


def _compiled(config: Config, weights: Mapping[str, np.ndarray]) -> tuple[dict[str, Callable[[], Any]], int]:
    """Calls of a network's compiled programs by name, and the bytes of that of a sequence."""
    served: ServedNetwork = serve_network(config, build_model(config))
    arrays, time_steps, read = jax.device_put(dict(weights)), config.task.time, input_step(config)
    carry = {name: jnp.zeros((1, *shape), carry_dtype(config.dtype)) for name, shape in served.carry.items()}
    xs, lengths = jnp.zeros((1, time_steps, *read.shape), read.dtype), jnp.full(1, time_steps, jnp.int32)
    analysis: Any = jax.jit(served.sequence).lower(arrays, carry, xs, lengths).compile().memory_analysis()
    memory = analysis.temp_size_in_bytes + analysis.argument_size_in_bytes + analysis.output_size_in_bytes
    # The weights are constants of the programs that are timed, as they do not change any more.
    sequence = jax.jit(lambda carry, xs, lengths: served.sequence(arrays, carry, xs, lengths))
    calls: dict[str, Callable[[], Any]] = {"sequence": lambda: sequence(carry, xs, lengths)}
    if not served.why_no_step:
        step, x = jax.jit(lambda carry, x: served.step(arrays, carry, x)), xs[:, 0]
        calls["step"] = lambda: step(carry, x)
    for call in calls.values():
        jax.block_until_ready(call())
    return calls, memory


def _least_seconds(call: Callable[[], Any]) -> float:
    """The least time of the calls that fill a turn."""
    times, end = [], time.perf_counter() + SECONDS_OF_TURN
    while not times or time.perf_counter() < end:
        began = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - began)
    return min(times)
