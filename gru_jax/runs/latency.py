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
from gru_jax.runs.export import input_features, serve_network
from gru_jax.training.network import build_model

TURNS, SECONDS_OF_TURN = 9, 0.05


class ServiceCost(NamedTuple):
    """What a network costs in service, one sequence at a time.

    Attributes:
        step_us: microseconds for one step; None where there is none.
        sequence_ms: milliseconds for a sequence as long as the longest in training.
        memory_kb: kilobytes that the program of a sequence takes, with its weights.
    """

    step_us: float | None
    sequence_ms: float
    memory_kb: float


def measure_service(networks: Sequence[tuple[Config, Mapping[str, np.ndarray]]]) -> list[ServiceCost]:
    """What each of some networks costs: medians of turns in which each is measured after the other.

    Args:
        networks: their configs and their weights, as they are stored.
    """
    programs = [_compiled(config, weights) for config, weights in networks]
    times: list[dict[str, list[float]]] = [{name: [] for name in calls} for calls, _ in programs]
    for _ in range(TURNS):
        for (calls, _), seconds in zip(programs, times, strict=True):
            for name, call in calls.items():
                seconds[name].append(_seconds(call))
    return [
        ServiceCost(
            1e6 * float(np.median(seconds["step"])) if "step" in seconds else None,
            1e3 * float(np.median(seconds["sequence"])),
            memory / 1024,
        )
        for seconds, (_, memory) in zip(times, programs, strict=True)
    ]


def _compiled(config: Config, weights: Mapping[str, np.ndarray]) -> tuple[dict[str, Callable[[], Any]], int]:
    """Calls of a network's compiled programs by name, and the bytes of that of a sequence."""
    served: ServedNetwork = serve_network(config, build_model(config))
    dtype, features, arrays = carry_dtype(config.dtype), len(input_features(config.task)), jax.device_put(dict(weights))
    carry = {name: jnp.zeros((1, *shape), dtype) for name, shape in served.carry.items()}
    xs, lengths = jnp.zeros((1, config.task.time, features), dtype), jnp.full(1, config.task.time, jnp.int32)
    sequence = jax.jit(served.sequence).lower(arrays, carry, xs, lengths).compile()
    analysis: Any = sequence.memory_analysis()
    memory = analysis.temp_size_in_bytes + analysis.argument_size_in_bytes + analysis.output_size_in_bytes
    calls = {"sequence": lambda: sequence(arrays, carry, xs, lengths)}
    if not served.why_no_step:
        # The weights are constants of the program, as they do not change any more.
        step, x = jax.jit(lambda carry, x: served.step(arrays, carry, x)), xs[:, 0]
        calls["step"] = lambda: step(carry, x)
    for call in calls.values():
        jax.block_until_ready(call())
    return calls, memory


def _seconds(call: Callable[[], Any]) -> float:
    """The time of one of as many calls as fill a turn."""
    count, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < SECONDS_OF_TURN:
        jax.block_until_ready(call())
        count += 1
    return elapsed / count
