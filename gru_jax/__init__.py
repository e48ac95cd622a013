"""gru_jax: a laboratory for gated recurrent networks on long sequences.

This top level needs JAX alone; Flax, optax and Orbax come in with `gru_jax.nn` and `gru_jax.training`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from gru_jax import cells, flow, initializers
from gru_jax.cells import gru
from gru_jax.initializers import Scheme
from gru_jax.unroll import Intervention, Unrolled, unroll

if TYPE_CHECKING:
    from gru_jax.runs.run import Run
    from gru_jax.studies.result import StudyResult

__version__ = "0.1.0"


def open(path: str | os.PathLike[str]) -> Run | StudyResult:  # noqa: A001 (gru_jax.open, as numpy.load)
    """The run or the study of a directory; see `gru_jax.runs.run.Run` and `gru_jax.studies.result.StudyResult`.

    Raises:
        UsageError: it is neither's.

    Example:
        >>> import gru_jax
        >>> gru_jax.open("nowhere")
        Traceback (most recent call last):
        gru_jax.errors.ArgumentError: workdir=nowhere: not a run directory, it has no config.json
    """
    from gru_jax.runs.run import Run
    from gru_jax.studies.result import StudyResult

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
    "unroll",
]
