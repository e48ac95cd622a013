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
from experiments.studies.execute import Execution, Means
from experiments.studies.progress import StudyProgress
from experiments.studies.study import Study, load
from gru_jax.errors import UsageError, check_choice
from gru_jax.training.population import MAPPINGS

ABLATIONS = Path(__file__).parent.parent / "configs" / "ablations"
FLAGS = (
    "config", "workdir", "zip", "networks", "mapping", "devices", "memory", "coordinator", "processes", "process",
)  # fmt: skip
PREFIXES = ("axis", "config", "sampling", "halving")


def run(study: Study, workdir: str | os.PathLike[str], means: Means = Means()) -> Path:  # noqa: B008
    """Run a study in a directory, resuming what is there, and write its table and report; for notebooks.

    Args:
        study: the study, see `experiments.studies.study.load`.
        workdir: its directory.
        means: with what; see `experiments.studies.execute.Means`.

    Returns:
        The report.

    Raises:
        UsageError: the study, the data or the directory is not usable.
    """
    path = Path(workdir).absolute()
    progress = StudyProgress()
    try:
        Execution(study, path, means, progress).run()
    finally:
        progress.close()
    return report.run([path]) if jax.process_index() == 0 else path


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
    path = run(study, workdir, means)
    if jax.process_index() == 0:
        print(report.conclusions(Path(workdir)))
        print(f"report: {path}")
    return 0


def prepare(flags: Mapping[str, str]) -> Means:
    """Set up processes and devices, which must come before JAX is used, and say with what a study is run."""
    devices = _whole(flags, "devices", os.cpu_count() or 1)
    if not devices:
        raise UsageError("--devices=0: allowed are whole numbers from 1")
    jax.config.update("jax_num_cpu_devices", devices)
    together = [name for name in ("coordinator", "processes", "process") if name in flags]
    if together:
        if len(together) < 3:
            raise UsageError(f"--{together[0]}: allowed together with --coordinator, --processes and --process")
        processes, process = _whole(flags, "processes", 1), _whole(flags, "process", 0)
        if process >= processes:
            raise UsageError(f"--process={process}: allowed are 0 to {processes - 1}, below --processes")
        jax.distributed.initialize(flags["coordinator"], processes, process)
    mapping = flags.get("mapping", MAPPINGS[0])
    check_choice("--mapping", mapping, MAPPINGS)
    return Means(mapping, _whole(flags, "memory", 0) or None)


def _whole(flags: Mapping[str, str], name: str, default: int) -> int:
    text = flags.get(name, str(default))
    if not text.isdecimal():
        raise UsageError(f"--{name}={text}: a whole number is needed here")
    return int(text)


def usage() -> str:
    """The text of --help."""
    return f"{__doc__}\nstudies:\n{cli.describe_configs(ABLATIONS)}"


if __name__ == "__main__":
    cli.main(command, usage)
