"""Train a whole ablation side by side: every member of a grid, in one compiled program for each shape.

usage: python -m experiments.ablate --config FILE.py[:ARG] [--axis.KEY=VALUES ...] [--config.KEY=VALUE ...]
                                    [--workdir DIR] [--zip=KEY,KEY] [--sampling.KEY=VALUE] [--halving.KEY=VALUE]
                                    [--networks=true|false] [--mapping=auto|map|vmap] [--devices=N] [--memory=BYTES]
                                    [--sigterm-exit=CODE] [--coordinator=HOST:PORT --processes=N --process=I]

  --config FILE.py[:ARG]   a study (`base`, `axes`, …; see configs/ablations) or the config of a run
  --axis.KEY=VALUES        vary a key: a,b,c  a|b|c (where values have commas)  0..9  log(1e-4,1e-1,7)
                           lin(0.5,2.5,9) or 0.5:2.5:9;  log(LOW,HIGH) and lin(LOW,HIGH) for samples
  --config.KEY=VALUE       change a key for all members
  --workdir DIR            where the study goes; by default runs/<config>-<time>
  --code FILE.py           classes and functions of your own that keys may name, beside those of the config file
  --zip=KEY,KEY[;KEY,KEY]  axes that go through their values side by side
  --sampling.method        grid, random or sobol; --sampling.count, --sampling.seed; seeds and folds stay a grid;
                           tpe and cmaes search by Optuna: they ask for --sampling.batch (8) at a time, and learn
  --halving.first=STEPS    from this step on one of --halving.eta (3) members goes on at each rung (successive halving);
                           --halving.brackets=N: hyperband; --halving.rule=median: what is no worse than the median
  --networks=false         keep no networks, for large studies
  --mapping                how members share a device: one after the other (map, on a CPU) or as one batch (vmap)
  --devices=N              CPU devices that members are spread over; by default one for each core
  --memory=BYTES           that a population may take on each device; by default 80 % of what is free
  --sigterm-exit=CODE      the exit code after SIGTERM, in place of 75
  --coordinator, --processes, --process   join several processes by jax.distributed; they share the directory

The same command goes on where it was stopped, to the same bits; members that are done are never run again, and values
added to an axis run only what is new. A study leaves study.json, members/<id>/ (the files of a normal run each),
table.csv and table.parquet, report.html and plots/; a search its trials too, in optuna.journal.

exit codes: 0 done (members that diverged are marked), 2 wrong use (one line says what), 3 all members diverged,
75 SIGTERM came before the end (all is saved, the same command goes on), 130 Ctrl-C

examples:
  python -m experiments.ablate --config configs/adding.py:100 --axis.optimizer.lr='log(1e-4,1e-1,7)' --axis.seed=0..4
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from experiments import cli, report
from experiments.study_progress import StudyProgress
from gru_jax.errors import UsageError, check_argument
from gru_jax.runtime.preemption import PreemptedError, watch_for_sigterm
from gru_jax.runtime.processes import is_main_process
from gru_jax.studies.axes import GRAMMAR
from gru_jax.studies.result import StudyResult
from gru_jax.studies.runner import RunnerOptions
from gru_jax.studies.search import runner_of
from gru_jax.studies.study import NoAxesError, Study, load_study
from gru_jax.training.population import MEMBER_MAPPINGS

ABLATIONS = Path(__file__).parent.parent / "configs" / "ablations"
FLAGS = ("config", "workdir", "zip", "networks", "mapping", "devices", "memory", cli.SIGTERM_EXIT, *cli.PROCESSES)
MOST_DEVICES = 4096
PREFIXES = ("axis", "config", "sampling", "halving")


def run(
    study: Study | str | Mapping[str, Any],
    workdir: str | os.PathLike[str],
    options: RunnerOptions = RunnerOptions(),  # noqa: B008
) -> StudyResult:
    """Run a study in a directory, resuming what is there, and write its table and report; for notebooks.

    Args:
        study: a study, a study's file, or a dict as one returns; see `gru_jax.studies.study.load_study`.
        workdir: its directory.
        options: with what; see `gru_jax.studies.runner.RunnerOptions`.

    Returns:
        The study: its table, its best member, its pictures.

    Raises:
        UsageError: the study, the data or the directory is not usable.
        PreemptedError: the process got SIGTERM; all that was done is saved, and the same call goes on.
    """
    path = Path(workdir).absolute()
    study = study if isinstance(study, Study) else load_study(study)
    with watch_for_sigterm():  # the report too is finished
        run_members(study, path, options)
        if is_main_process():
            report.run(path)
    return StudyResult(path)


def run_members(study: Study, path: Path, options: RunnerOptions) -> None:
    """Run a study in a directory, with its progress shown."""
    progress = StudyProgress()
    with cli.printed_messages(), contextlib.closing(progress), watch_for_sigterm() as stop_requested:
        runner_of(study, path, options, progress, stop_requested).run()


@cli.names_flags
def command(argv: Sequence[str]) -> int:
    """The command line."""
    flags, keyed = cli.parse_all(argv, FLAGS, PREFIXES)
    preempted, options = cli.sigterm_exit(flags), prepare(flags)
    study = study_from_flags(flags, keyed)
    workdir = cli.workdir_of(flags)
    print(f"study directory: {Path(workdir).absolute()}", flush=True)
    with watch_for_sigterm():  # the report too is finished
        try:
            run_members(study, Path(workdir).absolute(), options)
        except PreemptedError as error:
            cli.print_once(cli.goes_on(error, "ablate", argv, workdir))
            return preempted
        return report.show(report.run(workdir)) if is_main_process() else 0


def study_from_flags(flags: Mapping[str, str], keyed: Mapping[str, dict[str, str]]) -> Study:
    """The study that the flags describe."""
    if "config" not in flags:
        raise UsageError("--config: missing; allowed is a study's file, e.g. --config configs/ablations/init_lr.py")
    extra = {f"{name}.{key}": value for name in ("sampling", "halving") for key, value in keyed[name].items()}
    extra |= {name: flags[name] for name in ("zip", "networks") if name in flags}
    try:
        return load_study(flags["config"], keyed["config"], keyed["axis"], extra)
    except NoAxesError as error:
        raise UsageError(f"--{error}; --axis.KEY=VALUES adds one, with {GRAMMAR}") from error


def prepare(flags: Mapping[str, str]) -> RunnerOptions:
    """Set up processes and devices, before code of a user's own uses JAX, and say with what a study is run."""
    devices = cli.whole_number(flags, "devices", os.cpu_count() or 1)
    if not 1 <= devices <= MOST_DEVICES:
        raise UsageError(f"--devices={devices}: allowed are whole numbers from 1 to {MOST_DEVICES}")
    jax.config.update("jax_num_cpu_devices", devices)
    cli.join(flags)
    cli.load_code(flags)
    mapping: Any = flags.get("mapping", MEMBER_MAPPINGS[0])
    check_argument("mapping", mapping, MEMBER_MAPPINGS)
    return RunnerOptions(mapping, cli.whole_number(flags, "memory", 0) or None)


def usage() -> str:
    """The text of --help."""
    return f"{__doc__}\nstudies:\n{cli.describe_configs(ABLATIONS)}"


if __name__ == "__main__":
    cli.main(command, usage)
