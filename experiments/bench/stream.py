"""One step of one sequence, as a model in service takes it: how long our cell and those of other libraries take."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

import gru_jax
from experiments.bench.measure import Row
from experiments.bench.peers import AFTER, BEFORE, PEERS, Weights, equinox_cell, one_layer, quietly
from experiments.bench.unroll import AGREEMENT, OURS, UnequalWorkError
from gru_jax import interop
from gru_jax.cells import GRU

CALLS = 200  # in a turn
Step = Callable[[], Any]
"""Takes one step and waits for its result, the next hidden state."""


def measure_latency(widths: Sequence[tuple[int, int]], peers: Sequence[str], repeats: int) -> Iterator[Row]:
    """Measure a step at batch 1 for each pair of features and units.

    Args:
        widths: D and H.
        peers: names of installed libraries.
        repeats: turns, each of `CALLS` steps.

    Raises:
        UnequalWorkError: a peer's hidden state is not ours.
    """
    for features, hidden in widths:
        params = GRU().init(jax.random.key(0), features, hidden, gru_jax.Scheme(bias="normal", bias_scale=0.1))
        weights = jax.tree.map(np.asarray, params)
        rng = np.random.default_rng(0)
        h, x = (rng.standard_normal((1, size)).astype(np.float32) / 4 for size in (hidden, features))
        steps = {OURS: our_streaming_step(weights, h, x)}
        steps |= {name: quietly(peer_streaming_step, name, weights, h, x) for name in peers}
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(repeats):
            for name, step in steps.items():
                began = time.perf_counter()
                for _ in range(CALLS):
                    step()
                seconds[name].append((time.perf_counter() - began) / CALLS)
        microseconds = {name: 1e6 * float(np.median(times)) for name, times in seconds.items()}
        yield {"features": features, "hidden": hidden, "microseconds": microseconds}


def describe_latency(row: Row) -> str:
    """A step of every contender, and each over ours."""
    ours = row["microseconds"][OURS]
    lines = [f"\nD,H = {row['features']},{row['hidden']}"]
    lines += [f"  {name:12}{value:8.1f} us{value / ours:8.2f}x" for name, value in row["microseconds"].items()]
    return "\n".join(lines)


def our_streaming_step(weights: Weights, h: Any, x: Any) -> Step:
    """Our step."""
    program, (h, x) = gru_jax.streaming_step(GRU(), jax.tree.map(jnp.asarray, weights)), jax.device_put((h, x))
    return lambda: jax.block_until_ready(program(h, x))


def compiled_step(step: Callable[[Any, Any, Any], Any], params: PyTree, h: Any, x: Any) -> Step:
    """`step(params, h, x)` as a program that has its parameters inside, as they do not change any more."""
    params, h, x = jax.device_put((params, h, x))
    program = jax.jit(lambda h, x: step(params, h, x))
    return lambda: jax.block_until_ready(program(h, x))


def peer_streaming_step(name: str, weights: Weights, h: np.ndarray, x: np.ndarray) -> Step:
    """A peer's step.

    Raises:
        UnequalWorkError: its hidden state is not ours.
    """
    peer = PEERS[name]
    weights = peer.matching_weights(weights)
    step = STEPS[name](weights, h, x)
    ours = np.asarray(peer.cell.step(jax.tree.map(jnp.asarray, weights), jnp.asarray(h), jnp.asarray(x)))
    difference = float(np.abs(ours - np.asarray(step())).max())
    if not difference <= AGREEMENT:
        raise UnequalWorkError(f"{name}: its hidden state differs from ours by {difference:.1e}; no equal work")
    return step


def _linen(weights: Weights, h: Any, x: Any) -> Step:
    from flax import linen

    (variables,) = interop.to_linen(one_layer(AFTER, weights))
    (arrays,), cell = variables["params"].values(), linen.GRUCell(h.shape[-1])
    return compiled_step(lambda params, h, x: cell.apply({"params": params}, h, x)[0], arrays, h, x)


def _nnx(weights: Weights, h: Any, x: Any) -> Step:
    from flax import nnx

    graph, state, rest = nnx.split(nnx.GRUCell(x.shape[-1], h.shape[-1], rngs=nnx.Rngs(0)), nnx.Param, ...)
    (arrays,) = interop.to_nnx(one_layer(AFTER, weights))
    nnx.replace_by_pure_dict(state, jax.tree.map(jnp.asarray, arrays["cell"]))
    return compiled_step(lambda state, h, x: nnx.merge(graph, state, rest)(h, x)[0], state, h, x)


def _haiku(weights: Weights, h: Any, x: Any) -> Step:
    import haiku as hk  # pyright: ignore[reportMissingImports]

    transformed = hk.without_apply_rng(hk.transform(lambda h, x: hk.GRU(h.shape[-1])(x, h)[0]))
    return compiled_step(transformed.apply, interop.to_haiku(one_layer(BEFORE, weights)), h, x)


def _keras(weights: Weights, h: Any, x: Any) -> Step:
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import keras  # pyright: ignore[reportMissingImports]

    cell = keras.layers.GRUCell(h.shape[-1], reset_after=True)
    cell.build((None, x.shape[-1]))
    rest = [variable.value for variable in cell.non_trainable_variables]
    arrays = interop.to_keras(one_layer(AFTER, weights))
    return compiled_step(lambda params, h, x: cell.stateless_call(params, rest, x, [h])[0][0], arrays, h, x)


def _equinox(weights: Weights, h: Any, x: Any) -> Step:
    import equinox as eqx  # pyright: ignore[reportMissingImports]

    params, static = eqx.partition(equinox_cell(weights), eqx.is_array)
    return compiled_step(lambda params, h, x: eqx.combine(params, static)(x[0], h[0])[None], params, h, x)


def _torch(weights: Weights, h: Any, x: Any) -> Step:
    import torch  # pyright: ignore[reportMissingImports]

    cell = torch.nn.GRUCell(x.shape[-1], h.shape[-1])
    state = interop.to_torch(one_layer(AFTER, weights))
    cell.load_state_dict({name.removesuffix("_l0"): torch.from_numpy(a) for name, a in state.items()})
    h, x = torch.from_numpy(h), torch.from_numpy(x)

    def step() -> Any:
        with torch.inference_mode():
            return cell(x, h)

    return step


STEPS: dict[str, Callable[[Weights, Any, Any], Step]] = {
    "torch": _torch, "linen": _linen, "nnx": _nnx, "haiku": _haiku, "keras": _keras, "equinox": _equinox,
}  # fmt: skip
