"""The section `distillation` of a config: another run's network that this one learns from."""

from __future__ import annotations

import dataclasses

from gru_jax.settings import setting


@dataclasses.dataclass(frozen=True)
class DistillationConfig:
    """Training on the outputs of another run's network beside the task's own targets.

    Attributes:
        teacher: a run whose network is learnt from, None for none: its directory, or with a checkpoint `RUN:best`,
            `RUN:latest` or `RUN:100`. It needs the task's inputs, outputs and vocabulary.
        weight: of what the teacher says in the loss that is trained on; the task's own loss has the rest. With 0 the
            teacher is left out.
        temperature: what the scores of classes are divided by on both sides, so that more is seen of unlikely ones;
            without effect on outputs that are numbers.

    Examples:
        >>> from gru_jax.config import load
        >>> load({"train": {"steps": 10}}).distillation.is_on
        False
    """

    teacher: str | None = None
    weight: float = setting(0.5, low=0.0, high=1.0)
    temperature: float = setting(2.0, low=0.01, high=1000.0)

    @property
    def is_on(self) -> bool:
        """Whether a teacher is listened to."""
        return self.teacher is not None and self.weight > 0
