r"""Look inside a run's network: what its outputs hang on, what its units do, its fixed points, what its states hold.

usage: python -m experiments.inspect --workdir RUN [--checkpoint best] [--output FILE] [options]

  --workdir RUN        a directory that experiments.train made, finished or not
  --checkpoint WHICH   best (default) or latest
  --output FILE        where the page goes; by default inspect.html in the run's directory
  --input WHICH        the constant input under which fixed points are looked for: the median (default) or the mean of
                       what a cell reads, or zeros
  --explain NUMBER     the output that is attributed to the inputs, from 0; by default the class that the network says,
                       or the first value
  --against RUN[,RUN]  other runs on the same inputs, whose states are compared; a comma in a name is written \,
  --code FILE.py       the file that defines classes or functions of your own, which the run was made with

Writes one page that needs nothing else, and prints what was found.

exit codes: 0 done, 2 wrong use (one line says what)

examples:
  python -m experiments.inspect --workdir runs/flip_flop
  python -m experiments.inspect --workdir runs/integrator --input zeros --output integrator.html
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from experiments import cli
from gru_jax.config.checkpoint_names import BEST
from gru_jax.errors import UsageError
from gru_jax.runs.inspection.inspection import Inspection, inspect_run

PAGE = "inspect.html"


def run(
    workdir: str | os.PathLike[str],
    checkpoint: str = BEST,
    *,
    resting: str = "median",
    output: int | None = None,
    against: Sequence[str | os.PathLike[str]] = (),
) -> Inspection:
    """Open up a run's network; for notebooks. Arguments as of `gru_jax.runs.inspection.inspection.inspect_run`.

    Raises:
        UsageError: there is no such run, checkpoint or output, data are missing, or runs do not fit.
    """
    with cli.printed_messages():
        return inspect_run(workdir, checkpoint, resting=resting, output=output, against=against)


@cli.names_flags
def command(argv: Sequence[str]) -> int:
    """The command line."""
    flags, _ = cli.parse(argv, ("workdir", "checkpoint", "output", "input", "explain", "against"))
    cli.load_code(flags)
    if "workdir" not in flags:
        raise UsageError("--workdir: missing; allowed is the directory of a run")
    explained = cli.whole_number(flags, "explain", 0) if "explain" in flags else None
    against = cli.paths_of(flags["against"]) if "against" in flags else ()
    inspection = run(
        flags["workdir"], flags.get("checkpoint", BEST),
        resting=flags.get("input", "median"), output=explained, against=against,
    )  # fmt: skip
    print(*inspection.describe(), sep="\n")
    print(f"page: {inspection.write(flags.get('output') or Path(flags['workdir']) / PAGE)}")
    return 0


if __name__ == "__main__":
    cli.main(command, lambda: __doc__ or "")
