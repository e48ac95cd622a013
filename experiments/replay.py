"""Run the batch again that stopped a run.

usage: python -m experiments.replay --workdir RUN

  --workdir RUN    a run that met a number that is not finite, and saved its parameters and its batch
  --code FILE.py   the file that defines classes or functions of your own, which the run was made with

Says in which layer and at which time step the batch is first not finite here, and how large states grow up to there.
exit codes: 0 all is finite here (another device or precision may matter), 2 wrong use, 3 it is not finite again
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from experiments import cli
from gru_jax.errors import UsageError
from gru_jax.runs.replay import replay_failure


def run(workdir: str | os.PathLike[str]) -> tuple[str | None, list[str]]:
    """Run the batch again that stopped a run; for notebooks. As `gru_jax.runs.replay.replay_failure`."""
    with cli.printed_messages():
        return replay_failure(workdir)


@cli.names_flags
def command(argv: Sequence[str]) -> int:
    """The command line."""
    flags, _ = cli.parse(argv, ("workdir",))
    cli.load_code(flags)
    if "workdir" not in flags:
        raise UsageError("--workdir: missing; allowed is the directory of a run that met a number that is not finite")
    where, lines = run(flags["workdir"])
    print("\n".join(lines))
    return 0 if where is None else cli.EXIT_NON_FINITE


if __name__ == "__main__":
    cli.main(command, lambda: __doc__ or "")
