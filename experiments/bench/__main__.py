"""Measure the unroll against other libraries' GRUs, on equal work in one run.

usage: python -m experiments.bench unroll  [--shapes table|grid|T,B,D,H:T,B,D,H:...] [--loss all|last]
                                           [--peers linen,haiku,...] [--repeats 9] [--out DIR]
       python -m experiments.bench scaling [--peers ...] [--repeats 5] [--out DIR]
       python -m experiments.bench long    [--steps 10000,1000000] [--repeats 3] [--out DIR]
       python -m experiments.bench flow    [--sizes T,B,H:T,B,H:...] [--repeats 9] [--out DIR]
       python -m experiments.bench spectrum [--steps 10000,100000] [--repeats 3] [--out DIR]
       python -m experiments.bench population [--members 1,4,16,64] [--repeats 9] [--runs 16] [--out DIR]
       python -m experiments.bench start   [--repeats 3] [--out DIR]

  unroll   one training step, value and gradient of mean(hs^2) in all parameters (--loss=last: of the last state
           alone), in float32 with the same weights: medians of runs in turn, each peer's time over ours, temporary
           memory, compile time, and the share of the rate that this machine reaches on a product of 2048^2 matrices;
           every peer's hidden states are checked against ours
  scaling  the same against T, B and H, each by itself, on log axes
  long     a step over very long sequences, B=1, H=64, last-state loss: time per step and peak memory of the process
  flow     what the gradient-flow instruments cost, in training steps: of the adding task, at T,B,H
  spectrum all 64 Lyapunov exponents along very long sequences, B=1, H=64: time per step and peak memory
  population  a member's training step inside a population against a run's alone, each in processes of its own; and an
           ablation of the largest size (500 steps of adding, T=200, B=32, H=32) against some of its members (--runs)
           as runs of experiments.train, scaled to all
  start    seconds to import gru_jax, and Flax NNX, beyond jax; and from the start of a process to the first training
           step of the quick start, without compiled programs and with those of the run before

Peers: torch, linen, nnx, haiku, keras, equinox; by default all, and what is not installed is named as skipped.
Results are printed and go to DIR (default bench-<time> under runs/): bench.json and bench.png.

exit codes: 0 done, 2 wrong use (one line says what)
"""

from __future__ import annotations

import datetime
import functools
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gru_jax
from experiments import cli
from experiments.bench import flow as bench_flow
from experiments.bench import measure
from experiments.bench import plots as bench_plots
from experiments.bench import population as bench_population
from experiments.bench import start as bench_start
from experiments.bench.measure import Compiled, Shape
from experiments.bench.peers import PEERS, Weights, quietly, torch_step
from gru_jax.cells import GRU
from gru_jax.errors import UsageError, check_choice
from gru_jax.runtime.devices import peak_memory

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


def grid(count: int = 40) -> list[Shape]:
    """Shapes between T 50-4096, B 1-256, D 1-256, H 8-512, evenly in the logarithm, of at most 30 GFLOP a step."""
    rng = np.random.default_rng(0)
    shapes: list[Shape] = []
    while len(shapes) < count:
        draw = [rng.uniform(np.log(low), np.log(high)) for low, high in ((50, 4096), (1, 256), (1, 256), (8, 512))]
        shape = Shape(*(round(float(np.exp(a))) for a in draw))
        if shape.flops <= 30e9:
            shapes.append(shape)
    return sorted(shapes, key=lambda shape: shape.flops)


def loss_of(hs: jax.Array, last: bool, time_major: bool = False) -> jax.Array:
    """mean(hs^2), or of the last state alone."""
    if last:
        hs = hs[-1] if time_major else hs[:, -1]
    return (hs**2).mean()


def ours(weights: Weights, xs: Any, last: bool, keep: str = "states") -> Compiled:
    """A step of ours. The last state is the carry, so that `hs` need not be kept for it."""

    def loss(params: Any, xs: Any) -> jax.Array:
        out = gru_jax.unroll(GRU(), params, xs, keep=keep)
        return loss_of(out.carry[:, None] if last else out.hs, last)

    return measure.compile_step(jax.value_and_grad(loss), jax.tree.map(jnp.asarray, weights), xs)


def theirs(name: str, weights: Weights, xs: Any, last: bool) -> Compiled:
    """A peer's step.

    Raises:
        UsageError: its hidden states are not ours.
    """
    peer = PEERS[name]
    weights = peer.weights_of(weights)
    if peer.build is None:
        run, hs = torch_step(weights, np.asarray(xs), last)
        step = Compiled(run)
    else:
        params, apply = peer.build(weights)
        params = jax.tree.map(jnp.asarray, params)
        inputs = xs.swapaxes(0, 1) if peer.time_major else xs

        def loss(params: Any, inputs: Any) -> jax.Array:
            return loss_of(apply(params, inputs), last, peer.time_major)

        step = measure.compile_step(jax.value_and_grad(loss), params, inputs)
        hs = jax.jit(apply)(params, inputs)
        hs = np.asarray(hs.swapaxes(0, 1) if peer.time_major else hs)
    own = jax.jit(functools.partial(gru_jax.unroll, peer.cell))(jax.tree.map(jnp.asarray, weights), xs).hs
    difference = float(np.abs(np.asarray(own) - hs).max(initial=0.0))
    if not difference <= AGREEMENT:
        raise UsageError(f"--peers={name}: its hidden states differ from ours by {difference:.1e}; no equal work")
    return step


def measure_shape(shape: Shape, peers: Sequence[str], repeats: int, last: bool) -> dict[str, Any]:
    """Times and memory of all contenders on one shape."""
    rng = np.random.default_rng(0)
    params = GRU().init(jax.random.key(0), shape.features, shape.hidden, gru_jax.Scheme(bias="normal", bias_scale=0.1))
    weights = jax.tree.map(np.asarray, params)
    xs = jnp.asarray(rng.standard_normal((shape.batch, shape.time, shape.features)), jnp.float32)
    steps = {OURS: ours(weights, xs, last)}
    if last:
        steps[BOUNDARIES] = ours(weights, xs, last, "boundaries")
    for name in peers:
        steps[name] = quietly(theirs, name, weights, xs, last)
    steps[MATMUL] = measure.matmul_step()
    seconds = measure.interleaved(steps, repeats)
    rate = measure.matmul_rate(seconds.pop(MATMUL))
    middle = {name: float(np.median(times)) for name, times in seconds.items()}
    contenders = {
        name: {
            "median_ms": 1e3 * middle[name],
            "min_ms": 1e3 * min(seconds[name]),
            "ratio": middle[name] / middle[OURS],
            "temp_bytes": steps[name].temp_bytes,
            "compile_seconds": steps[name].compile_seconds,
            "matmul_share": shape.flops / middle[name] / rate,
        }
        for name in seconds
    }
    return {"shape": shape._asdict(), "matmul_flops_per_second": rate, "contenders": contenders}


def describe(row: Mapping[str, Any]) -> str:
    """A row as lines of the printed table."""
    lines = [f"\nT,B,D,H = {Shape(**row['shape'])}   (matmul {row['matmul_flops_per_second'] / 1e9:.0f} GFLOP/s)"]
    lines.append(f"  {'':20}{'median':>11}{'over ours':>11}{'temp':>11}{'compile':>9}{'of matmul':>11}")
    for name, of in row["contenders"].items():
        temp = "-" if of["temp_bytes"] is None else f"{of['temp_bytes'] / 1e6:.1f} MB"
        compiling = "-" if of["compile_seconds"] is None else f"{of['compile_seconds']:.1f} s"
        lines.append(
            f"  {name:20}{of['median_ms']:8.1f} ms{of['ratio']:10.2f}x{temp:>11}{compiling:>9}"
            f"{of['matmul_share']:11.0%}"
        )
    return "\n".join(lines)


def best_peers(row: Mapping[str, Any]) -> str:
    """How we stand against the best JAX peer in time and in memory."""
    jax_peers = [name for name in row["contenders"] if name in PEERS and PEERS[name].build is not None]
    if not jax_peers:
        return ""
    of = row["contenders"]
    fastest = min(jax_peers, key=lambda name: of[name]["median_ms"])
    leanest = min(jax_peers, key=lambda name: of[name]["temp_bytes"])
    memory = of[OURS]["temp_bytes"] / max(of[leanest]["temp_bytes"], 1)
    return f"  best JAX peer: {of[fastest]['ratio']:.2f}x our time ({fastest}); our memory {memory:.2f}x {leanest}'s"


def installed(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The peers that can be measured, and the names of those that are not installed."""
    for name in names:
        check_choice("--peers", name, PEERS)
    there = [name for name in names if PEERS[name].version is not None]
    return there, [name for name in names if name not in there]


def parse_shapes(text: str) -> list[Shape]:
    """`table`, `grid`, or shapes `T,B,D,H` separated by colons.

    Raises:
        UsageError: anything else.
    """
    if text in ("table", "grid"):
        return list(TABLE) if text == "table" else grid()
    return [Shape(*sizes) for sizes in parse_sizes(text, "--shapes", ("T", "B", "D", "H"), "table, grid, or ")]


def parse_sizes(text: str, flag: str, names: Sequence[str], others: str = "") -> list[tuple[int, ...]]:
    """Whole numbers by comma, several such groups by colon.

    Raises:
        UsageError: anything else.
    """
    try:
        groups = [tuple(int(n) for n in part.split(",")) for part in text.split(":")]
    except ValueError:
        groups = []
    if not groups or any(len(group) != len(names) or min(group) < 1 for group in groups):
        wanted = ",".join(names)
        raise UsageError(f"{flag}={text}: allowed are {others}whole numbers from 1, {wanted}, several joined by ':'")
    return groups


def whole(flags: Mapping[str, str], name: str, default: int) -> int:
    """A flag's value as a positive whole number."""
    text = flags.get(name, str(default))
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--{name}={text}: allowed are whole numbers from 1")
    return int(text)


def surroundings(skipped: Sequence[str]) -> dict[str, Any]:
    """What a reader needs to compare the figures with others."""
    device = jax.devices()[0]
    versions = {peer.package: peer.version for peer in PEERS.values() if peer.version}
    return {
        "device": f"{device.platform}: {device.device_kind}",
        "cpu_count": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "versions": {"gru_jax": gru_jax.__version__, "jax": jax.__version__, **versions},
        "skipped": list(skipped),
    }


def compare(shapes: Sequence[Shape], peers: Sequence[str], repeats: int, last: bool = False) -> list[dict[str, Any]]:
    """Measure all shapes, printing each row as it comes; for notebooks."""
    rows = []
    for shape in shapes:
        rows.append(measure_shape(shape, peers, repeats, last))
        print(describe(rows[-1]), best_peers(rows[-1]), sep="\n", flush=True)
    return rows


def long_step(params: Any, xs: Any) -> Any:
    """Value and gradient of a last-state loss."""
    return jax.value_and_grad(lambda p, xs: (gru_jax.unroll(GRU(), p, xs).carry ** 2).mean())(params, xs)


def spectrum(params: Any, xs: Any) -> Any:
    """All Lyapunov exponents, a decomposition every ten steps."""
    return gru_jax.flow.lyapunov_spectrum(GRU(), params, xs, every=10).exponents


def long_sequences(function: Callable[[Any, Any], Any], steps: Sequence[int], repeats: int) -> list[dict[str, Any]]:
    """`function(params, xs)` with B=1, D=1, H=64 at each length."""
    rows = []
    params = GRU().init(jax.random.key(0), 1, 64)
    for time in steps:
        step = measure.compile_step(function, params, jax.random.normal(jax.random.key(1), (1, time, 1)))
        seconds = float(np.median(measure.interleaved({OURS: step}, repeats)[OURS]))
        rows.append({
            "time": time, "seconds": seconds, "microseconds_per_step": 1e6 * seconds / time,
            "temp_bytes": step.temp_bytes, **peak_memory(jax.devices()[0]),
        })  # fmt: skip
        pace, temp, peak = (rows[-1][key] for key in ("microseconds_per_step", "temp_bytes", "host_peak_bytes"))
        print(f"T={time}: {seconds:.3f} s, {pace:.2f} us a step, temp {(temp or 0) / 1e6:.1f} MB, "
              f"peak of the process {peak / 1e6:.1f} MB", flush=True)  # fmt: skip
    return rows


def command(argv: Sequence[str]) -> int:
    """The command line."""
    kinds: dict[str, tuple[str, ...]] = {
        "unroll": ("shapes", "loss", "peers", "repeats", "out"),
        "scaling": ("peers", "repeats", "out"),
        "long": ("steps", "repeats", "out"),
        "flow": ("sizes", "repeats", "out"),
        "spectrum": ("steps", "repeats", "out"),
        "population": ("members", "repeats", "runs", "out"),
        "start": ("repeats", "out"),
    }
    if not argv:
        raise UsageError(f"a command is missing; allowed are {', '.join(kinds)}")
    kind = argv[0]
    check_choice("command", kind, kinds)
    flags, _ = cli.parse(argv[1:], kinds[kind])
    peers, skipped = installed(flags["peers"].split(",") if "peers" in flags else list(PEERS))
    if skipped and "peers" in kinds[kind]:
        print(f"skipped, not installed: {', '.join(skipped)}")
    out = Path(flags.get("out") or Path("runs") / f"bench-{datetime.datetime.now():%Y%m%d-%H%M%S}")
    rows, draw = measured(kind, flags, peers)
    out.mkdir(parents=True, exist_ok=True)
    result = {"command": kind, **surroundings(skipped), "rows": rows}
    (out / "bench.json").write_text(json.dumps(result, indent=1) + "\n")
    draw(rows, out / "bench.png")
    print(f"\nresults: {out / 'bench.json'}, {out / 'bench.png'}")
    return 0


def measured(kind: str, flags: Mapping[str, str], peers: Sequence[str]) -> tuple[list[Any], Callable[..., Any]]:
    """What a command measured, and how to draw it."""
    if kind == "unroll":
        loss = flags.get("loss", LOSSES[0])
        check_choice("--loss", loss, LOSSES)
        shapes, repeats = parse_shapes(flags.get("shapes", "table")), whole(flags, "repeats", 9)
        return compare(shapes, peers, repeats, loss == "last"), bench_plots.ratios
    if kind == "scaling":
        shapes = list(dict.fromkeys(shape for sweep in SWEEPS.values() for shape in sweep))
        return compare(shapes, peers, whole(flags, "repeats", 5)), bench_plots.scaling
    if kind == "flow":
        sizes = parse_sizes(flags.get("sizes", "1000,32,64:1000,32,128"), "--sizes", ("T", "B", "H"))
        return bench_flow.costs(sizes, whole(flags, "repeats", 9)), bench_flow.draw
    if kind == "population":
        sizes = [whole({"members": text}, "members", 1) for text in flags.get("members", "1,4,16,64").split(",")]
        rows = bench_population.measure(sizes, whole(flags, "repeats", 9), whole(flags, "runs", 16))
        return rows, bench_population.draw
    if kind == "start":
        return bench_start.measure(whole(flags, "repeats", 3)), bench_start.draw
    function, default = (long_step, "10000,1000000") if kind == "long" else (spectrum, "10000,100000")
    lengths = [whole({"steps": text}, "steps", 1) for text in flags.get("steps", default).split(",")]
    return long_sequences(function, lengths, whole(flags, "repeats", 3)), bench_plots.long


if __name__ == "__main__":
    cli.main(command, lambda: __doc__ or "")
