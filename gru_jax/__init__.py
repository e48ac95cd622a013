"""gru_jax: a laboratory for gated recurrent networks on long sequences.

This top level needs JAX alone; Flax, optax and Orbax come in with `gru_jax.nn` and `gru_jax.training`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gru_jax import cells, flow, initializers
from gru_jax.cells import gru
from gru_jax.initializers import Scheme
from gru_jax.unroll import Intervention, Unrolled, streaming_step, unroll

if TYPE_CHECKING:
    from gru_jax.runs.run import Run
    from gru_jax.studies.result import StudyResult

__version__ = "0.1.0"


def open(  # noqa: A001 (as numpy.load)
    path: str | os.PathLike[str], code: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = ()
) -> Run | StudyResult:
    """The run or the study of a directory; see `gru_jax.runs.run.Run` and `gru_jax.studies.result.StudyResult`.

    Args:
        path: of the directory.
        code: a file, or files, that define the classes and functions of your own that it was made with, if this process
            does not have them yet.

    Raises:
        UsageError: it is neither's, or code of your own is missing.

    Examples:
        >>> import gru_jax
        >>> gru_jax.open("nowhere")
        Traceback (most recent call last):
        gru_jax.errors.ArgumentError: workdir=nowhere: not a run directory, it has no config.json
    """
    from gru_jax.runs.run import Run
    from gru_jax.studies.result import StudyResult
    from gru_jax.user_code import import_file

    for file in [code] if isinstance(code, str | os.PathLike) else code:
        import_file(Path(file))
    return StudyResult(path) if StudyResult.is_at(path) else Run(path)


__all__ = [
    "Intervention",
    "Scheme",
    "Unrolled",
    "__version__",
    "cells",
    "flow",
    "gru",
    "initializers",
    "open",
    "streaming_step",
    "unroll",
]
