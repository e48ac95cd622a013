"""The section `transfer` of a config: what is taken of another run's network, and which parts learn, when, how fast."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from gru_jax.errors import UsageError
from gru_jax.settings import flatten, setting

MOST_STEPS = 2**24
"""Up to it, whole numbers of steps are exact where programs take them as float32."""
RATES = "rates"


@dataclasses.dataclass(frozen=True)
class TransferConfig:
    """What is taken of the network of `train.init_from`, and which parts of a network learn, when, and how fast.

    Parts are called embedding, layer_0, layer_1, … from the bottom up, attention and head; of two directions
    layer_0.forward and layer_0.backward, of an encoder and a decoder encoder.layer_0, decoder.layer_0,
    source_embedding, target_embedding and bridge. all, layers, embedding, encoder and decoder stand for several, and
    layer_0 for both directions. The parts form levels: what reads tokens, each layer, and at the top the head with the
    attention.

    Attributes:
        parts: parts that are taken, others are drawn; PART=OTHER takes a part from one of another name there, as
            encoder.layer_0=layer_0. Numbers for tokens, features and classes go by their names. None for all of a
            network that is the same.
        frozen: parts that stay as they are at first; None for none. Their gradients are not computed, and the
            optimiser keeps nothing for them.
        rates: factors on the learning rate of parts, by name; of several names for a part the narrowest counts.
        rate_decay: factor on the learning rate from each level to the one below it, Howard and Ruder 2018,
            arXiv:1801.06146, section 3.2, who take 1 / 2.6; None for the same rate in all.
        thaw_steps: gradual unfreezing, section 3.3 there: the steps after which each level below the top learns too,
            from the top down; None for all from the start, or where `thaw_epochs` gives them.
        thaw_epochs: the same in passes over the training data; None for all from the start, or where `thaw_steps`
            gives them.

    Examples:
        >>> from gru_jax.config import load
        >>> config = load({"train": {"steps": 10}, "transfer": {"frozen": ("layer_0",), "rates": {"head": 2.0}}})
        >>> config.transfer.frozen, config.transfer.rate_by_part
        (('layer_0',), {'head': 2.0})
    """

    parts: tuple[str, ...] | None = None
    frozen: tuple[str, ...] | None = None
    rates: Mapping[str, object] = dataclasses.field(default_factory=dict)
    rate_decay: float | None = setting(None, low=0.0, high=1e3)
    thaw_steps: tuple[int, ...] | None = setting(None, low=0, high=MOST_STEPS)
    thaw_epochs: tuple[float, ...] | None = setting(None, low=0.0, high=1e6)

    def __post_init__(self) -> None:
        for part, factor in flatten(self.rates).items():
            is_number = isinstance(factor, int | float) and not isinstance(factor, bool)
            if not is_number or not 0 <= factor < float("inf"):
                raise UsageError(f"{RATES}.{part}={factor!r}: allowed are numbers from 0")
        for key in ("thaw_steps", "thaw_epochs"):
            marks = getattr(self, key)
            if marks is not None and list(marks) != sorted(marks):
                raise UsageError(f"{key}={','.join(map(str, marks))}: allowed are numbers in rising order")

    @property
    def rate_by_part(self) -> dict[str, float]:
        """The factors on learning rates, by names of parts, in which dots stand for sections."""
        return {part: float(factor) for part, factor in flatten(self.rates).items()}

    @property
    def is_selective(self) -> bool:
        """Whether parts differ in whether, when or how fast they learn."""
        return self.frozen is not None or self.rate_decay is not None or bool(self.num_thaws or self.rates)

    @property
    def num_thaws(self) -> int:
        """How many levels learn only after some steps."""
        return len(self.thaw_steps or self.thaw_epochs or ())
