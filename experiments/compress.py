"""Make a trained network smaller and faster, as a run of its own beside the original.

usage: python -m experiments.compress --workdir RUN --method units|magnitude|distil|int8|bfloat16 [--output DIR]
                                      [--hidden 64,64] [--steps N] [--lr X] [--sparsity S] [--weight W]
                                      [--temperature T] [--data_dir DIR]

  --workdir RUN    a finished run, whose best network is taken
  --method NAME    units: takes out the units that matter least, and trains what stays; magnitude: makes the least
                   weights of each kernel zero, more and more of them while the others are trained; distil: trains a
                   new, smaller network on the outputs of this one; int8: kernels as whole numbers of a byte, with a
                   scale for each unit; bfloat16: kernels of two bytes
  --output DIR     the directory of the new run (default RUN-METHOD); the same command goes on with one that was stopped
  --hidden LIST    with units and distil: units of each layer of the new network (default half of them)
  --steps N        with units, magnitude and distil: of its training (default all of the original's with distil, a
                   quarter with the others; with units 0 is none)
  --lr X           with these: its learning rate (default the original's)
  --sparsity S     with magnitude: the share of weights that is zero from the middle of the training on (default 0.8)
  --weight W       with distil: what the original's outputs count in the loss, from 0 to 1 (default 0.5)
  --temperature T  with distil: of the probabilities of classes (default 2)
  --data_dir DIR   where the data files are now, if not where the run found them
  --code FILE.py   the file that defines classes or functions of your own, which the run was made with

It prints both networks side by side: parameters, how many of them are not zero, kilobytes of their weights as they are
stored, microseconds of a step and milliseconds of a sequence, one at a time, on this machine, kilobytes of memory of
the latter, and test metrics. The new directory is a run like any other, which experiments.evaluate, predict, flow and
export take; its compression.json has that table.

exit codes: as of experiments.train

example:
  python -m experiments.compress --workdir runs/rows --method units --hidden 64,64
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from experiments import cli
from experiments.train import train_shown
from gru_jax.errors import UsageError
from gru_jax.runs.compression import COMPRESSION_METHODS, Compression, compress_run
from gru_jax.runs.diagnosis import NonFiniteError
from gru_jax.runtime.preemption import PreemptedError
from gru_jax.values import Text, scalar_of, split_list

NUMBERS = {"steps": int, "lr": float, "weight": float, "temperature": float, "sparsity": float}


def run(
    workdir: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    method: str = "units",
    **kwargs: Any,
) -> Compression:
    """Make a run's network smaller; for notebooks. Arguments as of `gru_jax.runs.compression.compress_run`.

    Raises:
        UsageError: there is no such finished run, or an argument does not go with the method.
    """
    with cli.printed_messages():
        return compress_run(workdir, output, method, **{"train": train_shown, **kwargs})


@cli.names_flags
def command(argv: Sequence[str]) -> int:
    """The command line."""
    flags, _ = cli.parse(argv, ("workdir", "method", "output", "hidden", "data_dir", *NUMBERS))
    cli.load_code(flags)
    for name, what in {"workdir": "the directory of a run", "method": ", ".join(COMPRESSION_METHODS)}.items():
        if name not in flags:
            raise UsageError(f"--{name}: missing; allowed is {what}")
    options: dict[str, Any] = {
        name: scalar_of(f"--{name}", Text(flags[name]), kind) for name, kind in NUMBERS.items() if name in flags
    }
    if "hidden" in flags:
        options["hidden"] = [scalar_of("--hidden", Text(size), int) for size in split_list(flags["hidden"])]
    try:
        compression = run(
            flags["workdir"], flags.get("output"), flags["method"], data_dir=flags.get("data_dir"), **options
        )
    except NonFiniteError as error:
        return cli.fail(error, cli.EXIT_NON_FINITE)
    except PreemptedError as error:
        cli.print_once(f"{error}; the same command goes on from there")
        return cli.EXIT_PREEMPTED
    print(lines_of(compression))
    return 0


def lines_of(compression: Compression) -> str:
    """Both networks side by side, a line for each number, and where the new run is."""
    (_, original), (method, smaller) = compression.networks.items()
    lines = [f"{'':16}{'original':>12}{method:>12}{'ratio':>8}"]
    for name, before in original.items():
        after = smaller[name]
        if before is not None and after is not None:
            ratio = f"{after / before:8.2f}" if before else ""
            lines.append(f"{name:16}{before:>12,.6g}{after:>12,.6g}{ratio}")
    return "\n".join([*lines, f"results: {compression.workdir}"])


if __name__ == "__main__":
    cli.main(command, lambda: __doc__ or "")
