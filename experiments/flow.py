r"""Look at the gradient flow of a run, of several, or of a fresh initialisation.

usage: python -m experiments.flow --workdir RUN[,RUN...] [--step N|best|latest|init] [options]
       python -m experiments.flow --config FILE.py[:ARG] [--config.KEY=VALUE ...] [options]
       python -m experiments.flow --config FILE.py[:ARG] --sweep KEY=LOW:HIGH:COUNT [--input zeros] [options]

  --workdir RUN        a directory that experiments.train made, finished or not; several are drawn in one picture,
                       those that differ in their seed alone in one colour; a comma in a name is written \,
  --step WHICH         a checkpoint: best, latest (default) or a step; or init, the parameters that it started from
  --config FILE.py     the network as it is initialised, before any training
  --instruments NAMES  which, e.g. adjoint,lyapunov; by default all
  --sweep KEY=RANGE    measure adjoint and lyapunov at COUNT values of a key, or at a list KEY=a,b,c
  --input zeros        sweep the first layer's autonomous cell, at rest and without input, rather than on the task's
                       data; where a closed form is known it is drawn beside
  --config.flow.KEY=V  settings of the instruments, also with --workdir
  --format png|svg|pdf of the pictures (default png)
  --out DIR            where results go; by default runs/flow-<time>
  --code FILE.py       the file that defines classes or functions of your own, which the run was made with

Results are printed and go to DIR: flow.npz (for several runs in a folder each) and pictures.

exit codes: 0 done, 2 wrong use (one line says what)

examples:
  python -m experiments.flow --workdir runs/adding --step best
  python -m experiments.flow --config configs/adding.py:2000 --config.model.init.gate_bias=chrono
  python -m experiments.flow --config configs/adding.py --input zeros \
      --config.model.init.recurrent=fan_in_normal --sweep model.init.recurrent_scale=0.5:4:15
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import cli
from gru_jax.config import FLOW_INSTRUMENTS, Config, load_config, override
from gru_jax.config.checkpoint_names import LATEST
from gru_jax.errors import UsageError, check_argument
from gru_jax.plotting.comparison import ComparedRun, plot_comparison
from gru_jax.plotting.flow import plot_records
from gru_jax.plotting.style import save_figures
from gru_jax.runs.directory import RunDir
from gru_jax.runs.flow import NetworkFlow, fitting_instruments, measure_flow, measure_network
from gru_jax.runs.stored import open_run
from gru_jax.studies import sweep
from gru_jax.user_code import Name

FORMATS = ("png", "svg", "pdf")
FLAGS = ("workdir", "config", "step", "instruments", "sweep", "input", "format", "out")


def run(
    what: str | os.PathLike[str] | Config | Mapping[str, Any],
    step: str | int = LATEST,
    instruments: Sequence[Name] | None = None,
) -> NetworkFlow:
    """Measure the gradient flow of a network; for notebooks. As `gru_jax.runs.flow.measure_flow`."""
    with cli.printed_messages():
        return measure_flow(what, step, instruments)


def _with_all(config: Config, flags: Mapping[str, str], overrides: Mapping[str, str]) -> Config:
    """The config with the instruments that are wanted."""
    values = config.to_dict()
    every = sweep.SWEPT if "sweep" in flags else FLOW_INSTRUMENTS
    names = fitting_instruments(config, every)
    if len(names) < len(every) and "instruments" not in flags:
        print("left out: parameters, as this cell's products are not affine")
    values["flow"] |= {"instruments": names}
    if "instruments" in flags:
        overrides = {**overrides, "flow.instruments": flags["instruments"]}
    return override(values, {**overrides, "flow.every": "1"})


def _runs(flags: Mapping[str, str], overrides: Mapping[str, str], out: Path, form: str) -> list[Path]:
    """Look at one run, or compare several."""
    for key in overrides:
        if not key.startswith("flow."):
            raise UsageError(f"--config.{key}: the run has its own config; allowed are keys of --config.flow")
    workdirs = cli.paths_of(flags["workdir"])
    opened = [(workdir, *open_run(workdir)) for workdir in workdirs]
    configs = [_with_all(config, flags, overrides) for _, _, config in opened]
    compared: list[ComparedRun] = []
    for (workdir, rundir, _), config in zip(opened, configs, strict=True):
        name = Path(workdir).name
        place = out if len(opened) == 1 else out / f"{len(compared)}-{name}"
        measured = measure_network(config, rundir, flags.get("step", LATEST), place)
        print("\n".join([f"{workdir}, step {measured.step}", *measured.describe()]), flush=True)
        lines, records = rundir.read_metrics(), rundir.read_flow()
        compared.append(ComparedRun(name, measured.step, config, lines, records, measured.records))
    if len(compared) > 1:
        return save_figures(plot_comparison(compared), out, (form,))
    return save_figures(plot_records(compared[0].records, compared[0].config.model), out, (form,))


def _fresh(config: Config, out: Path, form: str) -> list[Path]:
    """Look at a network as it is initialised."""
    measured = measure_network(config, out=out)
    print("\n".join(measured.describe()), flush=True)
    return save_figures(plot_records(measured.records, config.model), out, (form,))


def _check(flags: Mapping[str, str], overrides: Mapping[str, str]) -> None:
    """Refuse flags that do not go together."""
    for key in ("flow.every", "flow.live"):
        if key in overrides:
            raise UsageError(f"--config.{key}: for experiments.train; this measures once")
    if ("workdir" in flags) == ("config" in flags):
        raise UsageError("one of --workdir, a run, and --config, a config file, is needed")
    for name in ("sweep", "input"):
        if name in flags and "config" not in flags:
            raise UsageError(f"--{name}={flags[name]}: allowed with --config, for a fresh initialisation")
    if "step" in flags and "workdir" not in flags:
        raise UsageError(f"--step={flags['step']}: allowed with --workdir")
    check_argument("format", flags.get("format", FORMATS[0]), FORMATS)


@cli.names_flags
def command(argv: Sequence[str]) -> int:
    """The command line."""
    flags, overrides = cli.parse(argv, FLAGS)
    cli.load_code(flags)
    _check(flags, overrides)
    form = flags.get("format", FORMATS[0])
    out = Path(flags.get("out") or Path("runs") / f"flow-{datetime.datetime.now():%Y%m%d-%H%M%S}")
    if RunDir(out).config.exists():
        raise UsageError(f"--out={out}: a run's directory; allowed is another, so that the run's records are kept")
    if "workdir" in flags:
        drawn = _runs(flags, overrides, out, form)
    else:
        config = _with_all(load_config(flags["config"], overrides), flags, overrides)
        if "sweep" in flags:
            source = flags.get("input", sweep.TASK)
            show = lambda line: print(line, flush=True)  # noqa: E731
            drawn = [sweep.sweep_setting(config, flags["sweep"], source, out, form, show)]
        elif "input" in flags:
            raise UsageError(f"--input={flags['input']}: allowed with --sweep")
        else:
            drawn = _fresh(config, out, form)
    print(f"results: {out}")
    print("\n".join(f"picture: {path}" for path in drawn))
    return 0


if __name__ == "__main__":
    cli.main(command, lambda: __doc__ or "")
