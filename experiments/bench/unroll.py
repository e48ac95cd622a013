"""Training steps of our GRU and of other libraries' on equal work: the same weights, inputs and loss."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

import gru_jax
from experiments.bench.measure import Compiled, Row, Shape, compile_step, interleaved, matmul_rate, matmul_step
from experiments.bench.peers import PEERS, Weights, quietly, torch_step
from gru_jax.cells import GRU
from gru_jax.errors import UsageError
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
LOSSES = ("all", "last", "none")


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


def compile_on(
    devices: int, function: Callable[..., Any], params: PyTree, xs: Any, *, batch_axis: int, sums: bool
) -> Compiled:
    """Compile `function(params, xs)` on so many devices, each with its part of the batch.

    Args:
        devices: how many.
        function: gives means over the batch, or arrays of its rows.
        params: what every device needs all of.
        xs: inputs.
        batch_axis: the batch in the inputs, and in what is given of its rows.
        sums: whether it gives means, which meet at the end.
    """
    if devices == 1:
        return compile_step(function, params, xs)
    mesh, rows = Mesh(np.array(jax.devices()[:devices]), ("batch",)), PartitionSpec(*(None,) * batch_axis, "batch")

    def of_device(params: PyTree, xs: Any) -> Any:
        result = function(params, xs)
        return jax.lax.pmean(result, "batch") if sums else result

    split = jax.shard_map(
        of_device, mesh=mesh, in_specs=(PartitionSpec(), rows), out_specs=PartitionSpec() if sums else rows,
        check_vma=False,
    )  # fmt: skip
    params, xs = (jax.device_put(a, NamedSharding(mesh, spec)) for a, spec in ((params, PartitionSpec()), (xs, rows)))
    return compile_step(split, params, xs)


def our_step(weights: Weights, xs: Any, loss: str, devices: int = 1, keep: Keep = "auto") -> Compiled:
    """Compile a training step of ours. The last state is the carry, so that `hs` need not be kept for it."""
    last = loss == "last"

    def states(params: PyTree, xs: Any) -> jax.Array:
        unrolled = gru_jax.unroll(GRU(), params, xs, keep=keep)
        return unrolled.carry[:, None] if last else unrolled.hs

    return _compile(states, jax.tree.map(jnp.asarray, weights), xs, loss, devices)


def peer_step(name: str, weights: Weights, xs: Any, loss: str, devices: int = 1) -> Compiled:
    """Compile a peer's training step, or for the loss `none` its pass forwards.

    Raises:
        UnequalWorkError: its hidden states are not ours.
    """
    peer = PEERS[name]
    weights = peer.matching_weights(weights)
    if peer.build is None:
        run, hs = torch_step(weights, np.asarray(xs), loss)
        step = Compiled(run)
    else:
        params, apply = peer.build(weights)
        params = jax.tree.map(jnp.asarray, params)
        inputs = xs.swapaxes(0, 1) if peer.time_major else xs
        step = _compile(apply, params, inputs, loss, devices, time_major=peer.time_major)
        with jax.default_matmul_precision("highest"):
            hs = jax.jit(apply)(params, inputs)
        hs = np.asarray(hs.swapaxes(0, 1) if peer.time_major else hs)
    with jax.default_matmul_precision("highest"):  # products are timed as by default, in TF32 on a GPU
        our_hs = jax.jit(functools.partial(gru_jax.unroll, peer.cell))(jax.tree.map(jnp.asarray, weights), xs).hs
    difference = float(np.abs(np.asarray(our_hs) - hs).max(initial=0.0))
    if not difference <= AGREEMENT:
        raise UnequalWorkError(f"{name}: its hidden states differ from ours by {difference:.1e}; no equal work")
    return step


def _compile(
    states: Callable[..., Any], params: PyTree, xs: Any, loss: str, devices: int, time_major: bool = False
) -> Compiled:
    """Compile value and gradient of a loss of hidden states, or for the loss `none` the states alone."""

    def value(params: PyTree, xs: Any) -> jax.Array:
        return mean_square(states(params, xs), loss == "last", time_major)

    forward = loss == "none"
    function = states if forward else jax.value_and_grad(value)
    return compile_on(devices, function, params, xs, batch_axis=int(time_major), sums=not forward)


def contending_steps(shape: Shape, peers: Sequence[str], loss: str, devices: int = 1) -> dict[str, Compiled]:
    """Compile the steps of all contenders on one shape, ours first, with the same weights and inputs.

    With several devices every JAX contender is there twice: on one, as its users run it, and on all of them.
    """
    rng = np.random.default_rng(0)
    params = GRU().init(jax.random.key(0), shape.features, shape.hidden, gru_jax.Scheme(bias="normal", bias_scale=0.1))
    weights = jax.tree.map(np.asarray, params)
    xs = jnp.asarray(rng.standard_normal((shape.batch, shape.time, shape.features)), jnp.float32)
    steps: dict[str, Compiled] = {}
    for count in dict.fromkeys((devices, 1)):
        steps[on_devices(OURS, count)] = our_step(weights, xs, loss, count)
        if loss == "last":
            steps[on_devices(BOUNDARIES, count)] = our_step(weights, xs, loss, count, "boundaries")
    for name in peers:
        steps[name] = quietly(peer_step, name, weights, xs, loss)
        if devices > 1 and PEERS[name].build is not None:
            steps[on_devices(name, devices)] = quietly(peer_step, name, weights, xs, loss, devices)
    return steps


def on_devices(name: str, devices: int) -> str:
    """The name of a contender on so many devices."""
    return name if devices == 1 else f"{name} on {devices}"


def measure_shape(
    shape: Shape, peers: Sequence[str], repeats: int, loss: str = LOSSES[0], devices: int = 1, seconds: float = 0.0
) -> Row:
    """Times and memory of all contenders on one shape; on one device alone if more cannot share its batch evenly."""
    if devices > len(jax.devices()):
        raise UsageError(f"--devices={devices}: allowed are up to {len(jax.devices())}, the devices here")
    if shape.batch % devices:
        devices = 1
    steps = contending_steps(shape, peers, loss, devices)
    times = interleaved({**steps, MATMUL: matmul_step()}, repeats, seconds)
    rate = matmul_rate(times.pop(MATMUL))
    medians = {name: float(np.median(of_step)) for name, of_step in times.items()}
    contenders = {
        name: {
            "median_ms": 1e3 * medians[name],
            "min_ms": 1e3 * min(times[name]),
            "repeats": len(times[name]),
            "ratio": medians[name] / medians[on_devices(OURS, devices)],
            "temp_bytes": steps[name].temp_bytes,
            "compile_seconds": steps[name].compile_seconds,
            "matmul_share": shape.flops / medians[name] / rate,
        }
        for name in times
    }
    return {"shape": shape._asdict(), "matmul_flops_per_second": rate, "devices": devices, "contenders": contenders}


def compare_shapes(
    shapes: Sequence[Shape],
    peers: Sequence[str],
    repeats: int,
    loss: str = LOSSES[0],
    devices: int = 1,
    seconds: float = 0.0,
) -> Iterator[Row]:
    """Measure one shape after the other.

    Args:
        shapes: sizes of the unroll.
        peers: names of installed libraries.
        repeats: how many times each step is timed, at least.
        loss: `"all"`, of all hidden states, `"last"`, of the last one, or `"none"`: the pass forwards alone.
        devices: over which batches are split, beside what one does.
        seconds: how long each shape is timed, at least: of a step of milliseconds a few runs say little.

    Raises:
        UnequalWorkError: a peer's hidden states are not ours.
    """
    if devices > 1:
        with contextlib.suppress(RuntimeError):  # JAX has been used, and has as many as it has
            jax.config.update("jax_num_cpu_devices", devices)
    for shape in shapes:
        yield measure_shape(shape, peers, repeats, loss, devices, seconds)


def compare_sweeps(peers: Sequence[str], repeats: int, seconds: float) -> Iterator[Row]:
    """Measure shapes that differ from a common one in T, B or H alone; see `compare_shapes`."""
    shapes = list(dict.fromkeys(shape for sweep in SWEEPS.values() for shape in sweep))
    return compare_shapes(shapes, peers, repeats, seconds=seconds)


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
    contenders, devices = row["contenders"], row["devices"]
    jax_peers = [name for name in contenders if name in PEERS and PEERS[name].build is not None]
    if not jax_peers:
        return ""
    lines = []
    for count in dict.fromkeys((1, devices)):
        names = [on_devices(name, count) for name in jax_peers]
        fastest = min(names, key=lambda name: contenders[name]["median_ms"])
        lines.append(f"{contenders[fastest]['ratio']:.2f}x our time ({fastest})")
    leanest = min(jax_peers, key=lambda name: contenders[name]["temp_bytes"])
    memory = contenders[OURS]["temp_bytes"] / max(contenders[leanest]["temp_bytes"], 1)
    return f"  best JAX peer: {', '.join(lines)}; our memory {memory:.2f}x {leanest}'s"
