"""Train a network from a config.

usage: python -m experiments.train --config FILE.py[:ARG] [--config.KEY=VALUE ...] [--workdir DIR]
                                   [--sigterm-exit=CODE] [--coordinator=HOST:PORT --processes=N --process=I]

  --config FILE.py[:ARG]   the study; ARG goes to the file's get_config
  --config.KEY=VALUE       change any key, e.g. --config.optimizer.lr=3e-3 --config.model.hidden=128,64
  --workdir DIR            where the run goes; by default runs/<config>-<time>
  --code FILE.py           classes and functions of your own that keys may name, as --config.task.name=FILE.py:Parity;
                           those of the config file are known without
  --sigterm-exit=CODE      the exit code after SIGTERM, in place of 75
  --coordinator, --processes, --process   join several processes by jax.distributed, which split every batch; the
                           first alone, which the address is of, reads and writes the directory

The same command on a directory that is not done resumes it; on one that is done it says so. A run leaves
config.json, env.json, metrics.jsonl, flow.npz, checkpoints/, plots/*.png and, last, summary.json.

  --help SECTION           what a section of the config has, e.g. --help model.init

exit codes: 0 done, 2 wrong use (one line says what), 3 a step was not finite (one line says where), 75 SIGTERM came
before the end (all is saved, the same command goes on), 130 Ctrl-C

examples:
  python -m experiments.train --config configs/quickstart.py
  python -m experiments.train --config configs/adding.py:750 --config.model.init.gate_bias=chrono
  GRU_JAX_DATA=~/data python -m experiments.train --config configs/mnist_rows.py --workdir runs/rows
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments import cli
from experiments.progress import RunProgress
from gru_jax.config import REGISTRIES, Config, load, load_config
from gru_jax.errors import UsageError
from gru_jax.runs.diagnosis import NonFiniteError
from gru_jax.runs.directory import RunDir
from gru_jax.runs.run import Run
from gru_jax.runs.summary import baselines_of, worse_than
from gru_jax.runs.train import train_run
from gru_jax.runtime.files import Json
from gru_jax.runtime.preemption import PreemptedError, watch_for_sigterm
from gru_jax.runtime.processes import is_main_process
from gru_jax.settings import user_things
from gru_jax.user_code import files_of
from gru_jax.values import join_list

CONFIGS = Path(__file__).parent.parent / "configs"


def run(config: Config | ConfigDict | Mapping[str, Any], workdir: str | os.PathLike[str]) -> Run:
    """Train a config in a directory, resuming what is there, with its progress and its result shown; for notebooks.

    Args:
        config: a `Config`, or nested dicts or a ConfigDict with what differs from the defaults, which may hold objects.
        workdir: the run's directory.

    Returns:
        The finished run: its summary, its tables, its network.

    Raises:
        UsageError: the config, the data or the directory is not usable.
        NonFiniteError: a step gave an infinite or undefined number.
        PreemptedError: the process got SIGTERM; all that was done is saved, and the same call goes on.
    """
    checked = load(config)
    summary = train_shown(checked, workdir)
    cli.print_once(report(summary, RunDir(workdir)))
    return Run(workdir, checked)


def train_shown(config: Config, workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """Train a config in a directory with its progress shown, and return its summary. Raises as `run` does."""
    progress = RunProgress(shown=is_main_process())
    try:
        with cli.printed_messages(), contextlib.closing(progress):
            return train_run(config, workdir, progress)
    except NonFiniteError as error:
        if not error.batch_kept:
            raise
        words = ["python", "-m", "experiments.replay", "--workdir", str(Path(workdir).absolute())]
        code = files_of(user_things(config, REGISTRIES))
        replay = shlex.join([*words, *(["--code", join_list(code)] if code else [])])
        raise NonFiniteError(f"{error}; {replay} runs its batch again") from error


def report(summary: Json, rundir: RunDir) -> str:
    """The result of a run for people: test metrics beside what no memory reaches, and where the files are."""
    best = summary["best"]
    lines = []
    split = "test" if best["test"] else "valid"
    for name, value in best[split].items():
        baselines = [f"{answer}: {score:.5g}" for answer, score in baselines_of(summary, name).items()]
        worse = worse_than(summary, name, value)
        beside = f"   ({', '.join(baselines)})" if baselines else ""
        lines.append(f"{split} {name} {value:.5g}{beside}" + f"   worse than {' and '.join(worse)}" * bool(worse))
    lines[0] += f"   at step {best['step']} of {summary['steps']}"
    if split != "test":
        lines.append("no test score: the test set has no targets; experiments.evaluate --predictions says what it is")
    if summary["stopped"]:
        lines.append(f"stopped early: {summary['stopped']}")
    lines.append(f"{summary['seconds']:.1f} s, {summary['steps_per_second']:.1f} steps/s")
    lines.append(f"results: {rundir.summary}")
    lines += [f"picture: {path}" for path in sorted(rundir.plots.glob("*.png"))]
    return "\n".join(lines)


@cli.names_flags
def command(argv: Sequence[str]) -> int:
    """The command line."""
    flags, overrides = cli.parse(argv, ("config", "workdir", cli.SIGTERM_EXIT, *cli.PROCESSES))
    if "config" not in flags:
        raise UsageError("--config: missing; allowed is a config file, e.g. --config configs/quickstart.py")
    preempted = cli.sigterm_exit(flags)
    cli.join(flags)  # before files of a user's own, which may use JAX
    cli.load_code(flags)
    config = load_config(flags["config"], overrides)
    workdir = cli.workdir_of(flags)
    rundir = RunDir(workdir)
    cli.print_once(f"run directory: {rundir.path}")
    try:
        with watch_for_sigterm():  # also while data are read
            summary = train_shown(config, rundir.path)
    except NonFiniteError as error:
        return cli.fail(error, cli.EXIT_NON_FINITE)
    except PreemptedError as error:
        cli.print_once(cli.goes_on(error, "train", argv, workdir))
        return preempted
    cli.print_once(report(summary, rundir))
    return 0


def usage() -> str:
    """The text of --help."""
    return f"{__doc__}\nconfigs:\n{cli.describe_configs(CONFIGS)}\n\nkeys and defaults:\n{cli.describe_keys()}"


if __name__ == "__main__":
    cli.main(command, usage)
