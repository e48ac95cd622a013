"""Train a whole ablation side by side: every member of a grid, in one compiled program for each shape.

usage: python -m experiments.ablate --config FILE.py[:ARG] [--axis.KEY=VALUES ...] [--config.KEY=VALUE ...]
                                    [--workdir DIR] [--zip=KEY,KEY] [--sampling.KEY=VALUE] [--halving.KEY=VALUE]
                                    [--networks=true|false] [--mapping=auto|map|vmap] [--devices=N] [--memory=BYTES]
                                    [--coordinator=HOST:PORT --processes=N --process=I]

  --config FILE.py[:ARG]   a study (`base`, `axes`, …; see configs/ablations) or the config of a run
  --axis.KEY=VALUES        vary a key: a,b,c  a|b|c (where values have commas)  0..9  log(1e-4,1e-1,7)
                           lin(0.5,2.5,9) or 0.5:2.5:9;  log(LOW,HIGH) and lin(LOW,HIGH) for samples
  --config.KEY=VALUE       change a key for all members
  --workdir DIR            where the study goes; by default runs/<config>-<time>
  --zip=KEY,KEY[;KEY,KEY]  axes that go through their values side by side
  --sampling.method        grid, random or sobol; --sampling.count, --sampling.seed; seeds and folds stay a grid
  --halving.first=STEPS    successive halving: from this step on, one of --halving.eta (3) members goes on at each rung
  --networks=false         keep no networks, for large studies
  --mapping                how members share a device: one after the other (map, on a CPU) or as one batch (vmap)
  --devices=N              CPU devices that members are spread over; by default one for each core
  --memory=BYTES           that a population may take on each device; by default 80 % of what is free
  --coordinator, --processes, --process   join several processes by jax.distributed; they share the directory

The same command goes on where it was stopped, to the same bits; members that are done are never run again, and values
added to an axis run only what is new. A study leaves study.json, members/<id>/ (the files of a normal run each),
table.csv and table.parquet, report.html and plots/.

exit codes: 0 done (members that diverged are marked), 2 wrong use (one line says what)

examples:
  python -m experiments.ablate --config configs/ablations/init_lr.py
  python -m experiments.ablate --config configs/adding.py:100 --axis.optimizer.lr='log(1e-4,1e-1,7)' --axis.seed=0..4
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax

from experiments import cli, report
from experiments.study_progress import StudyProgress
from gru_jax.errors import UsageError, check_choice
from gru_jax.runtime.preemption import PreemptedError, watched
from gru_jax.runtime.processes import leads, say
from gru_jax.studies.runner import Execution, Means
from gru_jax.studies.study import Study, load
from gru_jax.training.population import MAPPINGS

ABLATIONS = Path(__file__).parent.parent / "configs" / "ablations"
FLAGS = (
    "config", "workdir", "zip", "networks", "mapping", "devices", "memory", *cli.PROCESSES,
)  # fmt: skip
MOST_DEVICES = 4096
PREFIXES = ("axis", "config", "sampling", "halving")


def run(study: Study, workdir: str | os.PathLike[str], means: Means = Means()) -> Path:  # noqa: B008
    """Run a study in a directory, resuming what is there, and write its table and report; for notebooks.

    Args:
        study: the study, see `gru_jax.studies.study.load`.
        workdir: its directory.
        means: with what; see `gru_jax.studies.runner.Means`.

    Returns:
        The report.

    Raises:
        UsageError: the study, the data or the directory is not usable.
        PreemptedError: the process got SIGTERM; all that was done is saved, and the same call goes on.
    """
    path = Path(workdir).absolute()
    with watched():  # the report too is finished
        execute(study, path, means)
        return report.run([path]) if leads() else path


def execute(study: Study, path: Path, means: Means) -> None:
    """Run a study in a directory, with its progress shown."""
    progress = StudyProgress()
    try:
        with watched() as asked:
            Execution(study, path, means, progress, asked).run()
    finally:
        progress.close()


def command(argv: Sequence[str]) -> int:
    """The command line."""
    flags, keyed = cli.parse_all(argv, FLAGS, PREFIXES)
    if "config" not in flags:
        raise UsageError("--config: missing; allowed is a study's file, e.g. --config configs/ablations/init_lr.py")
    extra = {f"{name}.{key}": value for name in ("sampling", "halving") for key, value in keyed[name].items()}
    extra |= {name: flags[name] for name in ("zip", "networks") if name in flags}
    study = load(flags["config"], keyed["config"], keyed["axis"], extra)
    stem = Path(flags["config"].partition(":")[0]).stem
    workdir = flags.get("workdir") or f"runs/{stem}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    print(f"study directory: {Path(workdir).absolute()}", flush=True)
    means = prepare(flags)
    with watched():  # the report too is finished
        try:
            execute(study, Path(workdir).absolute(), means)
        except PreemptedError as error:
            say(cli.goes_on(error, "ablate", argv, workdir))
            return 0
        if leads():
            path, told = report.write([Path(workdir)])
            print(*told, f"report: {path}", sep="\n")
    return 0


def prepare(flags: Mapping[str, str]) -> Means:
    """Set up processes and devices, which must come before JAX is used, and say with what a study is run."""
    devices = cli.whole(flags, "devices", os.cpu_count() or 1)
    if not 1 <= devices <= MOST_DEVICES:
        raise UsageError(f"--devices={devices}: allowed are whole numbers from 1 to {MOST_DEVICES}")
    jax.config.update("jax_num_cpu_devices", devices)
    cli.join(flags)
    mapping = flags.get("mapping", MAPPINGS[0])
    check_choice("--mapping", mapping, MAPPINGS)
    return Means(mapping, cli.whole(flags, "memory", 0) or None)


def usage() -> str:
    """The text of --help."""
    return f"{__doc__}\nstudies:\n{cli.describe_configs(ABLATIONS)}"


if __name__ == "__main__":
    cli.main(command, usage)
