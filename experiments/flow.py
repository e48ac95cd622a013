r"""Look at the gradient flow of a run, of several, or of a fresh initialisation.

usage: python -m experiments.flow --workdir RUN[,RUN...] [--step N|best|latest|init] [options]
       python -m experiments.flow --config FILE.py[:ARG] [--config.KEY=VALUE ...] [options]
       python -m experiments.flow --config FILE.py[:ARG] --sweep KEY=LOW:HIGH:COUNT [--input zeros] [options]

  --workdir RUN        a directory that experiments.train made, finished or not; several are drawn in one picture,
                       those that differ in their seed alone in one colour
  --step WHICH         a checkpoint: best, latest (default) or a step; or init, the parameters that it started from
  --config FILE.py     the network as it is initialised, before any training
  --instruments NAMES  which, e.g. adjoint,lyapunov; by default all
  --sweep KEY=RANGE    measure adjoint and lyapunov at COUNT values of a key, or at a list KEY=a,b,c
  --input zeros        sweep the first layer's autonomous cell, at rest and without input, rather than on the task's
                       data; where a closed form is known it is drawn beside
  --config.flow.KEY=V  settings of the instruments, also with --workdir
  --format png|svg|pdf of the pictures (default png)
  --out DIR            where results go; by default runs/flow-<time>

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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np

from experiments import cli
from gru_jax import flow
from gru_jax.config import FLOW_INSTRUMENTS, Config, plan
from gru_jax.config.hyperparameters import numbers_of
from gru_jax.errors import UsageError, check_choice
from gru_jax.plotting import comparison as compare
from gru_jax.plotting import flow as flow_plots
from gru_jax.plotting.comparison import Member
from gru_jax.plotting.style import STYLE
from gru_jax.runs import stored
from gru_jax.runs.checkpoints import BEST, LATEST
from gru_jax.runs.directory import RunDir
from gru_jax.runs.recorder import FlowRecorder
from gru_jax.runtime.devices import choose_device, precision
from gru_jax.studies import sweep
from gru_jax.tasks import split_key
from gru_jax.training.instruments import build_instruments
from gru_jax.training.model import build_model
from gru_jax.training.step import Trainer

INIT = "init"
FORMATS = ("png", "svg", "pdf")
FLAGS = ("workdir", "config", "step", "instruments", "sweep", "input", "format", "out")
Records = dict[str, np.ndarray]


def of_run(workdir: str | Path, step: str = LATEST, config: Config | None = None) -> tuple[int, Any]:
    """The step and the parameters of a run's checkpoint, or of its start."""
    rundir, own = stored.open_run(workdir)
    config = own if config is None else config
    if step == INIT:
        return of_init(config)
    if step not in (BEST, LATEST) and not (step.isdecimal() and len(step) <= cli.DIGITS):
        raise UsageError(f"--step={step}: allowed are {BEST}, {LATEST}, {INIT} or a step")
    number = int(step) if step.isdecimal() else None
    state = stored.restore(rundir, config, choose_device(config), LATEST if number is not None else step, number)
    return int(state.step), state.params


def of_init(config: Config) -> tuple[int, Any]:
    """Step 0 and freshly drawn parameters, those that a run of this config starts from."""
    trainer = Trainer(config, plan(config), build_model(config))
    return 0, trainer.init(config.seed, numbers_of(config)).params


def measure(config: Config, step: int, params: Any, out: Path) -> Records:
    """Measure all configured instruments on validation data; the records, as they are in `out/flow.npz`."""
    data = jax.device_put(config.task.load("valid"))
    rundir = RunDir(out)
    instruments = jax.jit(build_instruments(config, build_model(config), split_key("valid", 0)))
    recorder = FlowRecorder(config, plan(config), rundir, instruments)
    recorder.record(step, params, data, end=True)
    out.mkdir(parents=True, exist_ok=True)
    recorder.write()
    return rundir.read_flow()


def describe(records: Mapping[str, np.ndarray]) -> list[str]:
    """The last record in words, a few lines for each layer."""
    lines = []
    for name in (key for key in records if key.startswith("adjoint/")):
        layer, profile = name.split("/", 1)[1], jnp.asarray(records[name][-1])
        lines += [f"{layer}:", f"  adjoint: {_adjoint(profile)}"]
    for name in (key for key in records if key.startswith("lyapunov/")):
        values, time = records[name][-1], len(records["lag"])
        condition = (values[0] - values[-1]) * time / np.log(10)
        lines.append(
            f"{name.split('/', 1)[1]}: Lyapunov exponents {', '.join(f'{v:.4f}' for v in values[:4])} ... "
            f"{values[-1]:.4f} nats per step; condition over {time} steps 10^{condition:.1f} in these directions"
        )
    for name in (key for key in records if key.startswith("time_scales/")):
        low, middle, high = np.quantile(records[name][-1], [0.1, 0.5, 0.9])
        lines.append(f"{name.split('/', 1)[1]}: time scales of units {low:.3g}, {middle:.3g}, {high:.3g} steps "
                     "(quantiles 0.1, 0.5, 0.9)")  # fmt: skip
    for name in (key for key in records if key.startswith("spectral_radius/")):
        values = records[name][-1]
        lines.append(f"{name.split('/', 1)[1]}: spectral radius of a step {values.min():.4f} to {values.max():.4f}")
    return lines


def _adjoint(profile: jax.Array) -> str:
    def lag(value: jax.Array) -> str:
        return str(int(value)) if int(value) < len(profile) else f"beyond {len(profile) - 1}"

    exploded = int(flow.explosion(profile))
    explodes = "" if exploded == len(profile) else f"; exceeds 100x at lag {exploded}"
    return (
        f"falls to 1/e at lag {lag(flow.horizon(profile, float(np.exp(-1))))}, to 1% at lag "
        f"{lag(flow.horizon(profile, 0.01))}{explodes}; slope {float(flow.log_slope(profile)):.5f} nats per step"
    )


def draw(records: Mapping[str, np.ndarray], config: Config, out: Path, form: str) -> list[Path]:
    """Draw all pictures of some records."""
    with mpl.rc_context(STYLE):
        drawn = flow_plots.pictures(records, config)
        return [save(picture, out / f"{name}.{form}") for name, picture in drawn.items()]


def save(picture: Any, path: Path) -> Path:
    """Save a picture in the format that the path names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path, facecolor="white")
    return path


def _with_all(config: Config, flags: Mapping[str, str], overrides: Mapping[str, str]) -> Config:
    """The config with the instruments that are wanted."""
    values = config.to_dict()
    names = list(sweep.SWEPT if "sweep" in flags else FLOW_INSTRUMENTS)
    if "parameters" in names and not config.model.cell.affine and "instruments" not in flags:
        names.remove("parameters")
        print("left out: parameters, as this cell's products are not affine")
    values["flow"] |= {"instruments": names}
    if "instruments" in flags:
        overrides = {**overrides, "flow.instruments": flags["instruments"]}
    return cli.override(values, {**overrides, "flow.every": "1"})


def _runs(flags: Mapping[str, str], overrides: Mapping[str, str], out: Path, form: str) -> list[Path]:
    for key in overrides:
        if not key.startswith("flow."):
            raise UsageError(f"--config.{key}: the run has its own config; allowed are keys of --config.flow")
    workdirs = flags["workdir"].split(",")
    runs = [(workdir, *stored.open_run(workdir)) for workdir in workdirs]
    configs = [_with_all(own, flags, overrides) for _, _, own in runs]
    members: list[Member] = []
    for (workdir, rundir, _), config in zip(runs, configs, strict=True):
        with precision(config), jax.default_device(choose_device(config)):
            step, params = of_run(workdir, flags.get("step", LATEST), config)
            place = out if len(runs) == 1 else out / f"{len(members)}-{Path(workdir).name}"
            records = measure(config, step, params, place)
            print("\n".join([f"{workdir}, step {step}", *describe(records)]), flush=True)
        members.append(Member(Path(workdir).name, step, config, rundir, rundir.read_flow(), records))
    if len(members) > 1:
        return compare.draw(members, out, form)
    return draw(members[0].records, members[0].config, out, form)


def _fresh(config: Config, out: Path, form: str) -> list[Path]:
    with precision(config), jax.default_device(choose_device(config)):
        records = measure(config, *of_init(config), out)
        print("\n".join(describe(records)), flush=True)
    return draw(records, config, out, form)


def command(argv: Sequence[str]) -> int:
    """The command line."""
    flags, overrides = cli.parse(argv, FLAGS)
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
    form = flags.get("format", FORMATS[0])
    check_choice("--format", form, FORMATS)
    out = Path(flags.get("out") or Path("runs") / f"flow-{datetime.datetime.now():%Y%m%d-%H%M%S}")
    if RunDir(out).config.exists():
        raise UsageError(f"--out={out}: a run's directory; allowed is another, so that the run's records are kept")
    if "workdir" in flags:
        drawn = _runs(flags, overrides, out, form)
    else:
        config = _with_all(cli.load_config(flags["config"], overrides), flags, overrides)
        if "sweep" in flags:
            drawn = [sweep.run(config, flags["sweep"], flags.get("input", sweep.TASK), out, form)]
        elif "input" in flags:
            raise UsageError(f"--input={flags['input']}: allowed with --sweep")
        else:
            drawn = _fresh(config, out, form)
    print(f"results: {out}")
    print("\n".join(f"picture: {path}" for path in drawn))
    return 0


if __name__ == "__main__":
    cli.main(command, lambda: __doc__ or "")
