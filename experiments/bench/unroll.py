"""Training steps of our GRU and of other libraries' on equal work: the same weights, inputs and loss."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gru_jax
from experiments.bench.measure import Compiled, Row, Shape, compile_step, interleaved, matmul_rate, matmul_step
from experiments.bench.peers import PEERS, Weights, quietly, torch_step
from gru_jax.cells import GRU
from gru_jax.unroll.options import Keep

OURS, BOUNDARIES, MATMUL = "gru_jax", "gru_jax boundaries", "matmul"
TABLE = (Shape(1024, 32, 64, 128), Shape(784, 100, 1, 128), Shape(4096, 16, 32, 64), Shape(256, 64, 256, 512))
BASE = Shape(1024, 16, 32, 64)
SWEEPS = {
    "time": [BASE._replace(time=n) for n in (64, 256, 1024, 4096, 16384)],
    "batch": [BASE._replace(batch=n) for n in (1, 4, 16, 64, 256)],
    "hidden": [BASE._replace(hidden=n) for n in (8, 32, 64, 128, 256, 512)],
}
AGREEMENT = 1e-4  # greatest difference of hidden states, which lie between -1 and 1
LOSSES = ("all", "last")


class UnequalWorkError(ValueError):
    """A peer computes something else than we do, so that its time says nothing; the message begins with its name."""


def grid_shapes(count: int = 40) -> list[Shape]:
    """Shapes between T 50-4096, B 1-256, D 1-256, H 8-512, evenly in the logarithm, of at most 30 GFLOP a step."""
    rng = np.random.default_rng(0)
    bounds = ((50, 4096), (1, 256), (1, 256), (8, 512))
    shapes: list[Shape] = []
    while len(shapes) < count:
        logarithms = [rng.uniform(np.log(low), np.log(high)) for low, high in bounds]
        shape = Shape(*(round(float(np.exp(logarithm))) for logarithm in logarithms))
        if shape.flops <= 30e9:
            shapes.append(shape)
    return sorted(shapes, key=lambda shape: shape.flops)


def mean_square(hs: jax.Array, last: bool, time_major: bool = False) -> jax.Array:
    """The loss: the mean of the squared hidden states, of all steps or of the last one alone."""
    if last:
        hs = hs[-1] if time_major else hs[:, -1]
    return (hs**2).mean()


def our_step(weights: Weights, xs: Any, last: bool, keep: Keep = "auto") -> Compiled:
    """Compile a training step of ours. The last state is the carry, so that `hs` need not be kept for it."""

    def loss(params: Any, xs: Any) -> jax.Array:
        unrolled = gru_jax.unroll(GRU(), params, xs, keep=keep)
        return mean_square(unrolled.carry[:, None] if last else unrolled.hs, last)

    return compile_step(jax.value_and_grad(loss), jax.tree.map(jnp.asarray, weights), xs)


def peer_step(name: str, weights: Weights, xs: Any, last: bool) -> Compiled:
    """Compile a peer's training step.

    Raises:
        UnequalWorkError: its hidden states are not ours.
    """
    peer = PEERS[name]
    weights = peer.matching_weights(weights)
    if peer.build is None:
        run, hs = torch_step(weights, np.asarray(xs), last)
        step = Compiled(run)
    else:
        params, apply = peer.build(weights)
        params = jax.tree.map(jnp.asarray, params)
        inputs = xs.swapaxes(0, 1) if peer.time_major else xs

        def loss(params: Any, inputs: Any) -> jax.Array:
            return mean_square(apply(params, inputs), last, peer.time_major)

        step = compile_step(jax.value_and_grad(loss), params, inputs)
        with jax.default_matmul_precision("highest"):
            hs = jax.jit(apply)(params, inputs)
        hs = np.asarray(hs.swapaxes(0, 1) if peer.time_major else hs)
    with jax.default_matmul_precision("highest"):  # products are timed as by default, in TF32 on a GPU
        our_hs = jax.jit(functools.partial(gru_jax.unroll, peer.cell))(jax.tree.map(jnp.asarray, weights), xs).hs
    difference = float(np.abs(np.asarray(our_hs) - hs).max(initial=0.0))
    if not difference <= AGREEMENT:
        raise UnequalWorkError(f"{name}: its hidden states differ from ours by {difference:.1e}; no equal work")
    return step


def contending_steps(shape: Shape, peers: Sequence[str], last: bool) -> dict[str, Compiled]:
    """Compile the steps of all contenders on one shape, ours first, with the same weights and inputs."""
    rng = np.random.default_rng(0)
    params = GRU().init(jax.random.key(0), shape.features, shape.hidden, gru_jax.Scheme(bias="normal", bias_scale=0.1))
    weights = jax.tree.map(np.asarray, params)
    xs = jnp.asarray(rng.standard_normal((shape.batch, shape.time, shape.features)), jnp.float32)
    steps = {OURS: our_step(weights, xs, last)}
    if last:
        steps[BOUNDARIES] = our_step(weights, xs, last, "boundaries")
    return steps | {name: quietly(peer_step, name, weights, xs, last) for name in peers}


def measure_shape(shape: Shape, peers: Sequence[str], repeats: int, last: bool) -> dict[str, Any]:
    """Times and memory of all contenders on one shape."""
    steps = contending_steps(shape, peers, last)
    seconds = interleaved({**steps, MATMUL: matmul_step()}, repeats)
    rate = matmul_rate(seconds.pop(MATMUL))
    medians = {name: float(np.median(times)) for name, times in seconds.items()}
    contenders = {
        name: {
            "median_ms": 1e3 * medians[name],
            "min_ms": 1e3 * min(seconds[name]),
            "ratio": medians[name] / medians[OURS],
            "temp_bytes": steps[name].temp_bytes,
            "compile_seconds": steps[name].compile_seconds,
            "matmul_share": shape.flops / medians[name] / rate,
        }
        for name in seconds
    }
    return {"shape": shape._asdict(), "matmul_flops_per_second": rate, "contenders": contenders}


def compare_shapes(
    shapes: Sequence[Shape], peers: Sequence[str], repeats: int, loss: str = LOSSES[0]
) -> Iterator[dict[str, Any]]:
    """Measure one shape after the other.

    Args:
        shapes: sizes of the unroll.
        peers: names of installed libraries.
        repeats: how many times each step is timed.
        loss: `"all"`, of all hidden states, or `"last"`, of the last one.

    Raises:
        UnequalWorkError: a peer's hidden states are not ours.
    """
    for shape in shapes:
        yield measure_shape(shape, peers, repeats, loss == "last")


def compare_sweeps(peers: Sequence[str], repeats: int) -> Iterator[dict[str, Any]]:
    """Measure shapes that differ from a common one in T, B or H alone; see `compare_shapes`."""
    return compare_shapes(list(dict.fromkeys(shape for sweep in SWEEPS.values() for shape in sweep)), peers, repeats)


def describe_comparison(row: Row) -> str:
    """The contenders on one shape as lines of a table, and how we stand against the best of them."""
    lines = [f"\nT,B,D,H = {Shape(**row['shape'])}   (matmul {row['matmul_flops_per_second'] / 1e9:.0f} GFLOP/s)"]
    lines.append(f"  {'':20}{'median':>11}{'over ours':>11}{'temp':>11}{'compile':>9}{'of matmul':>11}")
    for name, result in row["contenders"].items():
        temp = "-" if result["temp_bytes"] is None else f"{result['temp_bytes'] / 1e6:.1f} MB"
        compiling = "-" if result["compile_seconds"] is None else f"{result['compile_seconds']:.1f} s"
        lines.append(
            f"  {name:20}{result['median_ms']:8.1f} ms{result['ratio']:10.2f}x{temp:>11}{compiling:>9}"
            f"{result['matmul_share']:11.0%}"
        )
    return "\n".join([*lines, describe_best_peers(row)])


def describe_best_peers(row: Mapping[str, Any]) -> str:
    """How we stand against the best JAX peer in time and in memory; empty where there is none."""
    contenders = row["contenders"]
    jax_peers = [name for name in contenders if name in PEERS and PEERS[name].build is not None]
    if not jax_peers:
        return ""
    fastest = min(jax_peers, key=lambda name: contenders[name]["median_ms"])
    leanest = min(jax_peers, key=lambda name: contenders[name]["temp_bytes"])
    time = contenders[fastest]["ratio"]
    memory = contenders[OURS]["temp_bytes"] / max(contenders[leanest]["temp_bytes"], 1)
    return f"  best JAX peer: {time:.2f}x our time ({fastest}); our memory {memory:.2f}x {leanest}'s"
