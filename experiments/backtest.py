"""Backtest a network that forecasts: from every origin of a split, beside forecasts that need no network.

usage: python -m experiments.backtest --workdir RUN [--split test] [--checkpoint best] [--data_dir DIR]
                                      [--output DIR] [--resamples 2000] [--seed 0]

  --workdir RUN        a directory that experiments.train made of a task that forecasts, finished or not
  --split NAME         train, valid or test (default test)
  --checkpoint WHICH   best (default) or latest
  --data_dir DIR       where the data file is now, if not where the run found it
  --output DIR         where tables go, by_step.csv, by_origin.csv and by_column.csv, and pictures; without it
                       pictures go to the run's plots
  --resamples N        draws of the interval of the margin (default 2000)
  --seed N             of these draws
  --code FILE.py       the file that defines classes or functions of your own, which the run was made with

Errors are of standardised numbers, in units by column. The margin over the best of the forecasts without a network has
a 95 % interval by the moving-block bootstrap, in which blocks of origins are as long as the horizon, or longer.

exit codes: 0 done, 2 wrong use (one line says what)

example:
  python -m experiments.backtest --workdir runs/etth1
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments import cli
from gru_jax.config.checkpoint_names import BEST
from gru_jax.errors import UsageError
from gru_jax.plotting.style import save_figures
from gru_jax.runs.forecasts import Backtest
from gru_jax.runs.forecasts import backtest_run as run

__all__ = ["command", "run"]

FLAGS = ("workdir", "split", "checkpoint", "data_dir", "output", "resamples", "seed")
SHOWN_STEPS = 6


@cli.names_flags
def command(argv: Sequence[str]) -> int:
    """The command line."""
    flags, _ = cli.parse(argv, FLAGS)
    cli.load_code(flags)
    if "workdir" not in flags:
        raise UsageError("--workdir: missing; allowed is the directory of a run")
    with cli.printed_messages():
        made = run(
            flags["workdir"], flags.get("split", "test"), flags.get("checkpoint", BEST), flags.get("data_dir"),
            resamples=cli.whole_number(flags, "resamples", 2000), seed=cli.whole_number(flags, "seed", 0),
        )  # fmt: skip
    show_backtest(made)
    folder = Path(flags["output"]) if "output" in flags else Path(flags["workdir"]) / "plots"
    for path in save_figures(made.figures(), folder):
        print(f"picture: {path}")
    if "output" in flags:
        for name in ("by_step", "by_origin", "by_column"):
            getattr(made, name).write_csv(folder / f"{name}.csv")
            print(f"table: {folder / name}.csv")
    return 0


def show_backtest(made: Backtest) -> None:
    """Print what a backtest came to."""
    print(f"{made.split}: forecasts from {len(made.by_origin):,} origins, network of step {made.step}")
    for row in made.by_column.iter_rows(named=True):
        print(
            f"{row['column']}, {row['forecast']}: mse {row['mse']:.4f}, mae {row['mae']:.4f}; in units mse "
            f"{row['mse_units']:.5g}, mae {row['mae_units']:.5g}"
        )
    count = len(made.by_step)
    for row in np.unique(np.linspace(0, count - 1, min(SHOWN_STEPS, count)).astype(int)):
        step, *errors = made.by_step.row(int(row))
        named = zip(made.by_step.columns[1:], errors, strict=True)
        print(f"{made.metric} at step {step}: " + ", ".join(f"{name} {error:.4f}" for name, error in named))
    margin = made.margin
    verdict = "better" if margin.difference > 0 else "WORSE"
    interval = "no interval, of fewer origins than two blocks"
    if margin.low is not None and margin.high is not None:
        interval = f"95 % interval {margin.low:.4f} to {margin.high:.4f}"
        if margin.low <= 0 <= margin.high:
            interval += ", within which there is no difference"
    share = f"{abs(margin.share):.1%}" if math.isfinite(margin.share) else "which makes no error"
    print(
        f"{made.metric}: {verdict} than {margin.baseline} by {abs(margin.difference):.4f} ({share}); "
        f"{interval}; blocks of {margin.block} origins"
    )


if __name__ == "__main__":
    cli.main(command, lambda: __doc__ or "")
