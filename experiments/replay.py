"""Run the batch again that stopped a run.

usage: python -m experiments.replay --workdir RUN

  --workdir RUN    a run that met a number that is not finite, and saved its parameters and its batch; or a member of a
                   study that diverged, STUDY/members/ID, which is trained again first if the study keeps no networks
  --code FILE.py   the file that defines classes or functions of your own, which the run was made with

Says in which layer and at which time step the batch is first not finite here, and how large states grow up to there.
exit codes: 0 all is finite here (another device or precision may matter), 2 wrong use, 3 it is not finite again
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import polars as pl

from experiments import cli
from gru_jax.errors import UsageError, listing
from gru_jax.runs.early_stopping import EndReason
from gru_jax.runs.replay import replay_failure
from gru_jax.studies.directory import MEMBERS
from gru_jax.studies.report.table import ID, STATUS
from gru_jax.studies.result import StudyResult

SHOWN = 5  # members that are listed


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
    if StudyResult.is_at(flags["workdir"]):
        raise UsageError(f"--workdir={flags['workdir']}: a study; {_diverged_members(StudyResult(flags['workdir']))}")
    where, lines = run(flags["workdir"])
    print("\n".join(lines))
    return 0 if where is None else cli.EXIT_NON_FINITE


def _diverged_members(study: StudyResult) -> str:
    """Which members of a study diverged, for a message."""
    table = study.table
    names = table.filter(pl.col(STATUS) == EndReason.DIVERGED.value)[ID].to_list()
    if not names:
        return "none of its members diverged"
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"allowed are its members that diverged, {study.path / MEMBERS}/… {listing(names[:SHOWN])}{more}"


if __name__ == "__main__":
    cli.main(command, lambda: __doc__ or "")
