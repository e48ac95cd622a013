"""Report on studies and runs: what can be concluded, in one page that opens anywhere.

usage: python -m experiments.report DIR [DIR ...] [--out DIR] [--compare=AXIS[=BASE,VALUE,...]] [--score=COLUMN]

  DIR ...      directories of studies (experiments.ablate) or of runs; several are compared
  --out DIR    where the report goes; by default the first DIR
  --compare=AXIS[=BASE,VALUE,...]   compare values of an axis with the first over seeds: differences between members of
               one seed and one setting of all else, intervals, how many seeds would settle it; values with commas as
               BASE|VALUE. Of several studies the axis is `study`, which are compared without being asked
  --score=COLUMN   what is compared, e.g. best_test_loss; by default the validation score that decides
  --code FILE.py   the file that defines classes or functions of your own, which they were made with

Writes report.html (self-contained), table.csv and table.parquet (a row for each member), and, of studies,
plots/overview and plots/effects as PNG and SVG; comparison.csv where something is compared.

examples:
  python -m experiments.report runs/init_lr
  python -m experiments.report runs/zeros runs/chrono --out runs/compared
  python -m experiments.report runs/init_lr --compare=initialisation --score=best_test_loss
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments import cli
from gru_jax.config import SOURCES, split_spec
from gru_jax.errors import UsageError
from gru_jax.runs.directory import RunDir
from gru_jax.runs.early_stopping import EndReason
from gru_jax.runtime.files import read_json
from gru_jax.studies.report.paired import ComparisonRequest
from gru_jax.studies.report.write import BestMember, Report, write_report


def run(
    studies: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str] | None = None,
    request: ComparisonRequest | None = None,
) -> Report:
    """Write the report of a study or a run, or of several; for notebooks.

    Args:
        studies: directories, or what `ablate.run` and `train.run` gave.
        out: the directory it goes to; that of the first of them if None.
        request: what is compared over seeds; None for the studies, if there are several.

    Raises:
        UsageError: a directory is neither a study's nor a run's, or they have different goals.
    """
    paths = [studies] if isinstance(studies, str | os.PathLike) else studies
    with cli.printed_messages():
        return write_report([Path(path) for path in paths], None if out is None else Path(out), commands_for, request)


def commands_for(best: BestMember) -> dict[str, str]:
    """Commands to copy: the best member alone, and its gradient flow."""
    commands = {}
    if RunDir(best.path).read_summary()["end_reason"] == EndReason.DIVERGED:
        return {"Where it diverged": replay(best.path)}
    if best.base is not None:
        commands["The best member alone"] = train_alone(best.base, best.changes)
    if RunDir(best.path).checkpoints.is_dir():
        words = ["python", "-m", "experiments.flow", "--workdir", str(best.path)]
        if best.base is not None and SOURCES in read_json(RunDir(best.path).config):
            words += ["--code", split_spec(best.base)[0]]
        commands["What its gradients do"] = shlex.join(words)
    return commands


def replay(member: Path) -> str:
    """The command that looks at where a member diverged."""
    return shlex.join(["python", "-m", "experiments.replay", "--workdir", str(member)])


def show(report: Report) -> int:
    """Print what a report says; the exit code of the study that it is of."""
    if report.diverged is None:
        print(*report.sentences, f"report: {report.path}", sep="\n")
        return 0
    print(f"report: {report.path}", flush=True)
    return cli.fail(f"{report.sentences[0]}; {replay(report.diverged)} looks at the last", cli.EXIT_NON_FINITE)


def train_alone(base: str, changes: Mapping[str, str]) -> str:
    """The command that trains a member by itself, on one device as in its study: there the bits are the same."""
    words = [f"--config.{key}={value}" for key, value in {"devices": "1", **changes}.items()]
    return shlex.join(["python", "-m", "experiments.train", "--config", base, *words])


@cli.names_flags
def command(argv: Sequence[str]) -> int:
    """The command line."""
    names, flags = cli.parse_directories(argv, ("out", "compare", "score"))
    cli.load_code(flags)
    if not names:
        raise UsageError("a directory is missing; allowed are those of studies and runs, e.g. runs/init_lr")
    request = parse_comparison(flags)
    report = run(names, flags.get("out"), request)
    if request is not None:
        print(*report.sentences, sep="\n")
    print(f"report: {report.path}")
    return 0


def parse_comparison(flags: Mapping[str, str]) -> ComparisonRequest | None:
    """What the flags ask to compare; None where they do not."""
    if "compare" not in flags:
        if "score" in flags:
            raise UsageError("--score: it is for a comparison; --compare=AXIS asks for one")
        return None
    axis, _, listed = flags["compare"].partition("=")
    values = listed.split("|" if "|" in listed else ",") if listed else []
    return ComparisonRequest(axis, values, flags.get("score"))


def usage() -> str:
    """The text of --help."""
    return __doc__ or ""


if __name__ == "__main__":
    cli.main(command, usage)
