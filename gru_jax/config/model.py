"""The section `model` of a config: the network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from gru_jax.cells import GRU, Cell
from gru_jax.initializers import Scheme
from gru_jax.nn.attention import Attention
from gru_jax.nn.families import FAMILIES
from gru_jax.nn.layers import Recurrent
from gru_jax.nn.stack import Stack
from gru_jax.settings import setting
from gru_jax.unroll.options import Keep, Method
from gru_jax.user_code import Name, look_up
from gru_jax.with_arguments import WithArguments, parameters_of, without_arguments

AUTO = "auto"
FAMILY_ARGUMENTS = tuple(parameters_of(*FAMILIES.values(), Stack, Recurrent))
"""What models of the library take, which other keys and the task decide."""
SamplingSchedule = Literal["constant", "linear", "exponential", "inverse_sigmoid"]


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network.

    Attributes:
        family: what kind of network: sequence, encoder_decoder, or a subclass of `gru_jax.nn.SequenceModel` of a user's
            own, or a section with that as its `name` and values for arguments of its own; auto is what the task needs.
        cell: its `name` and settings; see `gru_jax.cells`.
        hidden: units of each layer, bottom to top.
        bidirectional: whether each layer runs in both directions, of an encoder and a decoder the encoder's.
        attention: what a decoder looks at its source through: none, luong or bahdanau, the general and the additive
            score (see `gru_jax.nn.attention`); auto is luong where there is a decoder.
        dropout: probability of dropping a unit between layers.
        input_dropout: probability of dropping a number that the first layer reads, of the embedding where there is one.
        output_dropout: probability of dropping a unit of the last layer that the head reads.
        scheduled_sampling: probability that a decoder reads in training, in place of the target's token before, the one
            that it finds likeliest itself; see `gru_jax.training.scheduled_sampling`.
        sampling_schedule: how that grows over the training: constant, it does not; linear, exponential and
            inverse_sigmoid as of Bengio et al. 2015.
        embedding: numbers for each token, where inputs are tokens; None for as many as the first layer has units, or
            with `tied` the last.
        embedding_scale: standard deviation of the embedding at first.
        tied: whether the head shares the embedding's weights.
        readout: what the head sees: the last state, the mean over states, the max of each unit, the mean by learnt
            weights (attention), or every state; auto is what the task needs.
        method: how to unroll: fast in blocks of time, reference step by step; auto is fast wherever a cell allows it.
        chunk: steps in a block of the fast method; None for as many as suit the size.
        keep: what the fast method keeps for the backward pass: every state; what enters the gates too; or the states at
            the boundaries of blocks alone. auto is states, or gates where these are measured to be faster.
        init: how parameters are drawn; see `gru_jax.Scheme`. A `t_max` of None becomes the task's length.
        weights: a safetensors file to start from, with PyTorch's names (see `gru_jax.interop.from_torch`), in place of
            what is drawn; without a head in it, the head is drawn. None for what is drawn.

    Examples:
        >>> from gru_jax.config import load
        >>> config = load({"train": {"steps": 10}, "model": {"cell": {"name": "lstm"}, "hidden": (64, 32)}})
        >>> config.model.cell, config.model.hidden
        (LSTM(), (64, 32))
    """

    family: Name = setting(AUTO, choices=(AUTO, *FAMILIES), is_open=True, filled=FAMILY_ARGUMENTS)
    cell: Cell = dataclasses.field(default_factory=GRU)
    hidden: tuple[int, ...] = setting((64,), low=1, high=32768)
    bidirectional: bool = False
    attention: Literal["auto", Attention] = "auto"
    dropout: float = setting(0.0, low=0.0, high=0.99)
    input_dropout: float = setting(0.0, low=0.0, high=0.99)
    output_dropout: float = setting(0.0, low=0.0, high=0.99)
    scheduled_sampling: float = setting(0.0, low=0.0, high=1.0)
    sampling_schedule: SamplingSchedule = "constant"
    embedding: int | None = setting(None, low=1, high=32768)
    embedding_scale: float = setting(0.1, low=0.0)
    tied: bool = False
    readout: Literal["auto", "last", "mean", "max", "attention", "every"] = "auto"
    method: Method = "auto"
    chunk: int | None = setting(None, low=1)
    keep: Keep = "auto"
    init: Scheme = dataclasses.field(default_factory=Scheme)
    weights: str | None = None

    @property
    def family_class(self) -> Any:
        """The class that `family` names."""
        return without_arguments(look_up(FAMILIES, self.family))

    @property
    def family_arguments(self) -> Mapping[str, Any]:
        """Arguments of a user's own of that class."""
        return self.family.arguments if isinstance(self.family, WithArguments) else {}
