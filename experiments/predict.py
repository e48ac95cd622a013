"""Predict with a trained network from new inputs.

usage: python -m experiments.predict --workdir RUN --input FILE [--output FILE] [--checkpoint best]
                                     [--beam_size 1] [--length_penalty 1]

  --workdir RUN        a directory that experiments.train made, wherever it is now; its data are not needed
  --input FILE         new sequences in the format of the training data, with targets or without: an .npy or .npz file,
                       or what the run's task reads
  --output FILE        where predictions go: .csv, .tsv, .parquet, .jsonl or .npz; by default they are printed
  --checkpoint WHICH   best (default) or latest
  --beam_size N        where a decoder writes texts: hypotheses that it follows (default 1, or 5 with a penalty)
  --length_penalty A   by how much it prefers longer ones, from 0 (default 1); Wu et al. 2016
  --code FILE.py       the file that defines classes or functions of your own, which the run was made with

Classes come by name with the probability of each, numbers in their units. Where the file has targets, the metrics are
printed too: those of experiments.evaluate, to the last bit.

exit codes: 0 done, 2 wrong use (one line says what)

example:
  python -m experiments.predict --workdir runs/rows --input new.npy --output predictions.csv
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from experiments import cli
from gru_jax.config.checkpoint_names import BEST
from gru_jax.errors import UsageError
from gru_jax.runs.predictions import Predictions, check_suffix, predict_run
from gru_jax.training.decoding import Search


def run(
    workdir: str | os.PathLike[str],
    input: str | os.PathLike[str],  # noqa: A002
    checkpoint: str = BEST,
    search: Search | None = None,
) -> Predictions:
    """Predict with a run's network; for notebooks. Arguments as of `gru_jax.runs.predictions.predict_run`.

    Raises:
        UsageError: there is no such run, checkpoint or file, or inputs do not fit.
    """
    with cli.printed_messages():
        return predict_run(workdir, input, checkpoint, search)


@cli.names_flags
def command(argv: Sequence[str]) -> int:
    """The command line."""
    flags, _ = cli.parse(argv, ("workdir", "input", "output", "checkpoint", *cli.SEARCH_FLAGS))
    cli.load_code(flags)
    for name, what in {"workdir": "the directory of a run", "input": "a file of sequences"}.items():
        if name not in flags:
            raise UsageError(f"--{name}: missing; allowed is {what}")
    output = flags.get("output")
    if output is not None:
        check_suffix(Path(output))
    predictions = run(flags["workdir"], flags["input"], flags.get("checkpoint", BEST), cli.parse_search(flags))
    for name, value in predictions.metrics.items():
        print(f"{name} {value!r}")
    if output is None:
        print(predictions.table.write_csv(), end="")
    else:
        predictions.write(output)
        print(f"predictions of {len(predictions):,} sequences: {output}")
    return 0


if __name__ == "__main__":
    cli.main(command, lambda: __doc__ or "")
