"""Export a trained network into one file that runs without this project.

usage: python -m experiments.export --workdir RUN [--output FILE] [--checkpoint best] [--platforms cpu,cuda,tpu]
                                    [--onnx false]

  --workdir RUN        a directory that experiments.train made, wherever it is now; its data are not needed
  --output FILE        the file, a zip (default RUN/export.zip)
  --checkpoint WHICH   best (default) or latest
  --platforms LIST     where it can run, of cpu, cuda, rocm and tpu, whatever there is here (default cpu,cuda,tpu)
  --onnx true          with the programs in ONNX too, for onnxruntime: pip install 'gru_jax[onnx]'
  --code FILE.py       the file that defines classes or functions of your own, which the run was made with

The file holds a program of whole sequences and one of a single step, by jax.export, for any batch and any length; the
weights; and a description in JSON: names of classes and features, scaling, shapes. docs/serving.md says how to run it
with JAX alone, or with NumPy alone. It needs flatbuffers: pip install 'gru_jax[export]'.

exit codes: 0 done, 2 wrong use (one line says what)

example:
  python -m experiments.export --workdir runs/rows --output rows.zip
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from experiments import cli
from gru_jax.config.checkpoint_names import BEST
from gru_jax.errors import UsageError
from gru_jax.runs.export import PLATFORMS, export_run
from gru_jax.values import Text, scalar_of, split_list


def run(
    workdir: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    checkpoint: str = BEST,
    platforms: Sequence[str] = PLATFORMS,
    *,
    onnx: bool = False,
) -> Path:
    """Export a run's network; for notebooks. Arguments as of `gru_jax.runs.export.export_run`.

    Raises:
        UsageError: there is no such run or checkpoint, a platform is none, or a program cannot be written.
    """
    with cli.printed_messages():
        return export_run(workdir, output, checkpoint, platforms, onnx=onnx)


@cli.names_flags
def command(argv: Sequence[str]) -> int:
    """The command line."""
    flags, _ = cli.parse(argv, ("workdir", "output", "checkpoint", "platforms", "onnx"))
    cli.load_code(flags)
    if "workdir" not in flags:
        raise UsageError("--workdir: missing; allowed is the directory of a run")
    platforms = split_list(flags["platforms"]) if "platforms" in flags else PLATFORMS
    onnx = scalar_of("--onnx", Text(flags.get("onnx", "false")), bool)
    path = run(flags["workdir"], flags.get("output"), flags.get("checkpoint", BEST), platforms, onnx=onnx)
    print(f"exported for {', '.join(platforms)}: {path}, {path.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    cli.main(command, lambda: __doc__ or "")
