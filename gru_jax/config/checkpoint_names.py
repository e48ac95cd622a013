"""How a checkpoint of a run is called: by a user, as `RUN:best`, and on disk."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

CHECKPOINTS, CHECKSUMS = "checkpoints", "sha256"
LATEST, BEST = "latest", "best"
MISSING = "no such checkpoint"


class CheckpointName(NamedTuple):
    """A checkpoint of a run.

    Attributes:
        run: the run's directory.
        which: best, latest or a step.
    """

    run: Path
    which: str

    @classmethod
    def parse(cls, text: str) -> CheckpointName:
        """What a text says: `RUN`, whose best is meant, or `RUN:best`, `RUN:latest`, `RUN:100`.

        Examples:
            >>> from gru_jax.config.checkpoint_names import CheckpointName
            >>> CheckpointName.parse("runs/a:100")
            CheckpointName(run=PosixPath('runs/a'), which='100')
            >>> CheckpointName.parse("runs/lr:1e-3").which
            'best'
        """
        run, colon, which = text.rpartition(":")
        is_named = colon and (which in (BEST, LATEST) or which.isdecimal()) and not Path(text).is_dir()
        return cls(Path(run), which) if is_named else cls(Path(text), BEST)

    def digest(self) -> str:
        """The sha256 of the sums of its files, so of all that is in it; or that there is none."""
        folder = self.run / CHECKPOINTS / CHECKSUMS
        kinds = (self.which,) if self.which in (BEST, LATEST) else (LATEST, BEST)
        steps = "[0-9]*" if self.which in (BEST, LATEST) else self.which
        files = [file for kind in kinds for file in folder.glob(f"{kind}-{steps}")]
        newest = max(files, key=lambda file: int(file.name.rpartition("-")[2]), default=None)
        return MISSING if newest is None else hashlib.sha256(newest.read_bytes()).hexdigest()
