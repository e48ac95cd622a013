"""Evaluate a trained network on a split, and compare with what its run recorded.

usage: python -m experiments.evaluate --workdir RUN [--split test] [--checkpoint best] [--data_dir DIR]
                                      [--predictions FILE] [--beam_size 5] [--length_penalty 1]
                                      [--code FILE.py]

  --workdir RUN        a directory that experiments.train made, finished or not
  --split NAME         train, valid or test (default test); generated tasks have no finite train split
  --checkpoint WHICH   best (default) or latest
  --data_dir DIR       where the data files are now, if not where the run found them
  --predictions FILE   write what the network says of every sequence: .csv, .tsv, .parquet, .jsonl or .npz; needed for
                       a split that has no targets
  --beam_size N        where a decoder writes the targets: hypotheses of the beam beside greedy decoding (default 5)
  --length_penalty A   by how much it prefers longer ones, from 0 (default 1); Wu et al. 2016
  --code FILE.py       the file that defines classes or functions of your own, which the run was made with

On the machine of the run the stored metrics come out again to the last bit; the command says whether they do.

exit codes: 0 done, 2 wrong use (one line says what)

example:
  python -m experiments.evaluate --workdir runs/rows --split valid
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from experiments import cli
from gru_jax.config.checkpoint_names import BEST
from gru_jax.errors import UsageError
from gru_jax.runs.directory import RunDir
from gru_jax.runs.evaluation import Evaluation, evaluate_run
from gru_jax.runs.predictions import check_suffix
from gru_jax.runs.summary import worse_than
from gru_jax.training.decoding import Search


def run(
    workdir: str | os.PathLike[str],
    split: str = "test",
    checkpoint: str = BEST,
    data_dir: str | None = None,
    *,
    predicts: bool = False,
    search: Search | None = None,
) -> Evaluation:
    """Evaluate a checkpoint of a run; for notebooks. Arguments as of `gru_jax.runs.evaluation.evaluate_run`.

    Raises:
        UsageError: there is no such run, checkpoint, split or data.
    """
    with cli.printed_messages():
        return evaluate_run(workdir, split, checkpoint, data_dir, predicts=predicts, search=search)


@cli.names_flags
def command(argv: Sequence[str]) -> int:
    """The command line."""
    flags, _ = cli.parse(argv, ("workdir", "split", "checkpoint", "data_dir", "predictions", *cli.SEARCH_FLAGS))
    cli.load_code(flags)
    if "workdir" not in flags:
        raise UsageError("--workdir: missing; allowed is the directory of a run")
    split = flags.get("split", "test")
    path = flags.get("predictions")
    if path is not None:
        check_suffix(Path(path), "predictions")
    result = run(
        flags["workdir"], split, flags.get("checkpoint", BEST), flags.get("data_dir"), predicts=path is not None,
        search=cli.parse_search(flags),
    )  # fmt: skip
    recorded = result.stored or {}
    summary = RunDir(flags["workdir"]).read_summary() if result.stored is not None and split == "test" else None
    for name, value in result.metrics.items():
        beside = ""
        if name in recorded:
            beside = "  (equal to the stored one)" if recorded[name] == value else f"  (stored: {recorded[name]!r})"
        worse = [] if summary is None else worse_than(summary, name, value)
        print(f"{split} {name} {value!r}{beside}" + f"  worse than {' and '.join(worse)}" * bool(worse))
    for name, value in result.written.items():
        print(f"{split} {name} {value!r}")
    if not result.metrics:
        print(f"{split} has no targets: predictions, and no metrics")
    print(f"checkpoint of step {result.step}")
    if path is not None and result.predictions is not None:
        result.predictions.write(path)
        print(f"predictions: {path}")
    return 0


if __name__ == "__main__":
    cli.main(command, lambda: __doc__ or "")
