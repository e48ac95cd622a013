"""Train a network from a config.

usage: python -m experiments.train --config FILE.py[:ARG] [--config.KEY=VALUE ...] [--workdir DIR]
                                   [--coordinator=HOST:PORT --processes=N --process=I]

  --config FILE.py[:ARG]   the study; ARG goes to the file's get_config
  --config.KEY=VALUE       change any key, e.g. --config.optimizer.lr=3e-3 --config.model.hidden=128,64
  --workdir DIR            where the run goes; by default runs/<config>-<time>
  --coordinator, --processes, --process   join several processes by jax.distributed, which split every batch; the
                           first alone, which the address is of, reads and writes the directory

The same command on a directory that is not done resumes it; on one that is done it says so. A run leaves
config.json, env.json, metrics.jsonl, flow.npz, checkpoints/, plots/*.png and, last, summary.json.

exit codes: 0 done, 2 wrong use (one line says what), 3 a step was not finite (one line says where)

examples:
  python -m experiments.train --config configs/quickstart.py
  python -m experiments.train --config configs/adding.py:750 --config.model.init.gate_bias=chrono
  GRU_JAX_DATA=~/data python -m experiments.train --config configs/mnist_rows.py --workdir runs/rows
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from experiments import cli
from gru_jax.config import Config, load
from gru_jax.data.feed import load_splits
from gru_jax.errors import UsageError
from gru_jax.runs.directory import RunDir
from gru_jax.runs.loop import NonFiniteError, Run
from gru_jax.runs.writers import check_installed
from gru_jax.runtime.devices import check_memory, choose_devices, describe, devices_here, precision
from gru_jax.runtime.preemption import PreemptedError, watched
from gru_jax.runtime.processes import by_lead, leads, say

CONFIGS = Path(__file__).parent.parent / "configs"


def run(config: Config | ConfigDict | Mapping[str, Any], workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """Train a config in a directory, resuming what is there; for notebooks.

    Args:
        config: a `Config`, or nested dicts or a ConfigDict with what differs from the defaults.
        workdir: the run's directory.

    Returns:
        The summary, as in `summary.json`.

    Raises:
        UsageError: the config, the data or the directory is not usable.
        NonFiniteError: a step gave an infinite or undefined number.
        PreemptedError: the process got SIGTERM; all that was done is saved, and the same call goes on.
    """
    config = load(config.to_dict() if isinstance(config, Config | ConfigDict) else config)
    rundir, as_dict = RunDir(workdir), config.to_dict()
    if by_lead(lambda: rundir.inspect(as_dict)) == "done":
        say(f"{rundir.path}: already done")
        return by_lead(rundir.read_summary)
    devices = choose_devices(config)
    device = devices_here(devices)[0]
    check_memory(config, device)
    check_installed(config.writers or ())
    splits = load_splits(config)
    env = describe(config, device, len(devices))
    with contextlib.ExitStack() as stack:
        by_lead(lambda: stack.enter_context(rundir.held()))
        asked = stack.enter_context(watched())
        if by_lead(lambda: rundir.inspect(as_dict)) == "done":  # by whoever held it until now
            return by_lead(rundir.read_summary)
        for change in by_lead(lambda: rundir.start(as_dict, env)):
            say(f"going on in another environment, results may differ in their last bits: {change}")
        stack.enter_context(precision(config))
        stack.enter_context(jax.default_device(device))
        return Run(config, rundir, splits, devices, asked).train()


def report(summary: Mapping[str, Any], rundir: RunDir) -> str:
    """The result of a run for people: test metrics beside what no memory reaches, and where the files are."""
    best = summary["best"]
    lines = []
    for name, value in best["test"].items():
        baseline = summary["baseline"].get(name)
        beside = "" if baseline is None else f"   (memoryless or chance: {baseline:.5g})"
        lines.append(f"test {name} {value:.5g}{beside}")
    lines[0] += f"   at step {best['step']} of {summary['steps']}"
    if summary["stopped"]:
        lines.append(f"stopped early: {summary['stopped']}")
    lines.append(f"{summary['seconds']:.1f} s, {summary['steps_per_second']:.1f} steps/s")
    lines.append(f"results: {rundir.summary}")
    lines += [f"picture: {path}" for path in sorted(rundir.plots.glob("*.png"))]
    return "\n".join(lines)


def command(argv: Sequence[str]) -> int:
    """The command line."""
    flags, overrides = cli.parse(argv, ("config", "workdir", *cli.PROCESSES))
    if "config" not in flags:
        raise UsageError("--config: missing; allowed is a config file, e.g. --config configs/quickstart.py")
    config = cli.load_config(flags["config"], overrides)
    stem = Path(flags["config"].partition(":")[0]).stem
    workdir = flags.get("workdir") or f"runs/{stem}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    rundir = RunDir(workdir)
    cli.join(flags)
    say(f"run directory: {rundir.path}")
    try:
        with watched():  # also while data are read
            summary = run(config, rundir.path)
    except NonFiniteError as error:
        return cli.fail(error, cli.EXIT_NON_FINITE)
    except PreemptedError as error:
        say(cli.goes_on(error, "train", argv, workdir))
        return 0
    if leads():
        print(report(summary, rundir))
    return 0


def usage() -> str:
    """The text of --help."""
    return f"{__doc__}\nconfigs:\n{cli.describe_configs(CONFIGS)}\n\nkeys and defaults:\n{cli.describe_keys()}"


if __name__ == "__main__":
    cli.main(command, usage)
