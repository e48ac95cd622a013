"""Measure the unroll against other libraries' GRUs, on equal work in one run.

usage: python -m experiments.bench unroll  [--shapes table|grid|T,B,D,H:T,B,D,H:...] [--loss all|last|none]
                                           [--devices 1] [--peers linen,haiku,...] [--repeats 9] [--seconds 10]
                                           [--out DIR]
       python -m experiments.bench train   [--configs quickstart,rows,pixels|words,sentiment,translation]
                                           [--devices CORES] [--peers ...] [--repeats 9] [--out DIR]
       python -m experiments.bench stream  [--widths D,H:D,H:...] [--peers ...] [--repeats 9] [--out DIR]
       python -m experiments.bench scaling [--peers ...] [--repeats 5] [--seconds 10] [--out DIR]
       python -m experiments.bench long    [--steps 10000,1000000] [--repeats 3] [--out DIR]
       python -m experiments.bench flow    [--sizes T,B,H:T,B,H:...] [--repeats 9] [--out DIR]
       python -m experiments.bench spectrum [--steps 10000,100000] [--repeats 3] [--out DIR]
       python -m experiments.bench population [--members 1,4,16,64] [--repeats 9] [--runs 16] [--out DIR]
       python -m experiments.bench start   [--repeats 3] [--out DIR]
       python -m experiments.bench search  [--trials 32] [--repeats 8] [--out DIR]

  unroll   one training step, value and gradient of mean(hs^2) in all parameters (--loss=last: of the last state
           alone), in float32 with the same weights: medians of runs in turn, each peer's time over ours, temporary
           memory, compile time, and the share of the rate that this machine reaches on a product of 2048^2 matrices;
           every peer's hidden states are checked against ours. --loss=none: the pass forwards alone. --devices=2:
           every JAX library on one device, as its users run it, and on two that share each batch, if it is even
  train    whole training steps a second of a config: batches, passes, update. Ours on one device and on several, linen
           with optax, Keras' fit, PyTorch with its data loader, each in a process of its own. Of networks that read
           tokens (words, sentiment, translation) tokens a second: linen's and PyTorch's on the batches of ours
  stream   one step of one sequence, its parameters inside the program: how long one waits for it
  scaling  the same against T, B and H, each by itself, on log axes
  long     a step over very long sequences, B=1, H=64, last-state loss: time per step and peak memory of the process
  flow     what the gradient-flow instruments cost, in training steps: of the adding task, at T,B,H
  spectrum all 64 Lyapunov exponents along very long sequences, B=1, H=64: time per step and peak memory
  population  a member's training step inside a population against a run's alone, each in processes of its own; and an
           ablation of the largest size (500 steps of adding, T=200, B=32, H=32) against some of its members (--runs)
           as runs of experiments.train, scaled to all
  start    seconds to import gru_jax, and Flax NNX, beyond jax; and from the start of a process to the first training
           step of the quick start, without compiled programs and with those of the run before
  search   what TPE and CMA-ES find against as many random samples, on three small tasks, over repeats in pairs

Repeats are how many times each is timed, at least; unroll and scaling time each shape for as many --seconds, at least.
Peers: torch, linen, nnx, haiku, keras, equinox; by default all, and what is not installed is named as skipped.
Results are printed and go to DIR (default bench-<time> under runs/): bench.json and bench.png.

exit codes: 0 done, 2 wrong use (one line says what)
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments import cli
from experiments.bench import flow, long, plots, population, search, start, stream, train, unroll
from experiments.bench.flags import parse_flag
from experiments.bench.measure import Row, surroundings
from experiments.bench.peers import PEERS, installed_peers, peer_versions
from gru_jax.errors import UsageError, check_choice
from gru_jax.runtime.devices import cpu_cores


class Kind(NamedTuple):
    """One kind of measurement.

    Attributes:
        flags: its flags, beside `--out`, with their defaults as text.
        measure: takes the flags' values by name and gives rows, each as soon as it is measured.
        describe: a row as text.
        plot: draws all rows into a file.
    """

    flags: Mapping[str, str]
    measure: Callable[..., Iterable[Row]]
    describe: Callable[[Row], str]
    plot: Callable[[Sequence[Row], Path], None]


ALL_PEERS = ",".join(PEERS)
KINDS = {
    "unroll": Kind(
        {"shapes": "table", "loss": "all", "peers": ALL_PEERS, "repeats": "9", "seconds": "10", "devices": "1"},
        unroll.compare_shapes, unroll.describe_comparison, plots.plot_ratios,
    ),
    "train": Kind(
        {"configs": "quickstart,rows", "peers": ALL_PEERS, "devices": str(cpu_cores()), "repeats": "9"},
        train.measure_training, train.describe_training, plots.plot_training,
    ),
    "stream": Kind(
        {"widths": "64,128:1,128:32,64:256,512", "peers": ALL_PEERS, "repeats": "9"},
        stream.measure_latency, stream.describe_latency, plots.plot_latency,
    ),
    "scaling": Kind(
        {"peers": ALL_PEERS, "repeats": "5", "seconds": "10"},
        unroll.compare_sweeps, unroll.describe_comparison, plots.plot_scaling,
    ),
    "long": Kind(
        {"steps": "10000,1000000", "repeats": "3"},
        long.measure_gradients, long.describe_length, plots.plot_lengths,
    ),
    "flow": Kind(
        {"sizes": "1000,32,64:1000,32,128", "repeats": "9"},
        flow.measure_costs, flow.describe_costs, plots.plot_costs,
    ),
    "spectrum": Kind(
        {"steps": "10000,100000", "repeats": "3"},
        long.measure_spectra, long.describe_length, plots.plot_lengths,
    ),
    "population": Kind(
        {"members": "1,4,16,64", "repeats": "9", "runs": "16"},
        population.measure_population, population.describe_population, plots.plot_population,
    ),
    "start": Kind({"repeats": "3"}, start.measure_start, start.describe_start, plots.plot_start),
    "search": Kind(
        {"trials": "32", "repeats": "8"}, search.compare_searches, search.describe_search, plots.plot_searches
    ),
}  # fmt: skip


def command(argv: Sequence[str]) -> int:
    """Measure what the arguments say, print each row as it comes, and write the numbers and the picture."""
    if not argv:
        raise UsageError(f"a command is missing; allowed are {', '.join(KINDS)}")
    check_choice("command", argv[0], KINDS)
    kind = KINDS[argv[0]]
    texts, _ = cli.parse(argv[1:], (*kind.flags, "out"))
    peers, skipped = installed_peers(parse_flag("peers", texts.get("peers", ALL_PEERS)))
    if skipped and "peers" in kind.flags:
        print(f"skipped, not installed: {', '.join(skipped)}")
    out = Path(texts.get("out") or Path("runs") / f"bench-{datetime.datetime.now():%Y%m%d-%H%M%S}")
    values: dict[str, Any] = {flag: parse_flag(flag, texts.get(flag, default)) for flag, default in kind.flags.items()}
    if "peers" in values:
        values["peers"] = peers
    rows = []
    try:
        for row in kind.measure(**values):
            rows.append(row)
            print(kind.describe(row), flush=True)
    except unroll.UnequalWorkError as error:
        raise UsageError(f"--peers={error}") from error
    out.mkdir(parents=True, exist_ok=True)
    result = {"command": argv[0], **surroundings(peer_versions(), skipped), "rows": rows}
    (out / "bench.json").write_text(json.dumps(result, indent=1) + "\n")
    kind.plot(rows, out / "bench.png")
    print(f"\nresults: {out / 'bench.json'}, {out / 'bench.png'}")
    return 0


if __name__ == "__main__":
    cli.main(command, lambda: __doc__ or "")
