"""A cell and a task of one's own, in a config file: a minimal gated unit learns the parity of 8 bits.

    python -m experiments.train --config configs/minimal_gated_unit.py

Measured (2 CPU cores, seed 0): test accuracy 1 after 3,400 steps in 6 s (3,800 and 2,800 with seeds 1 and 2); guessing
gives 0.5.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray
from ml_collections import ConfigDict

from gru_jax.cells import Cell
from gru_jax.cells.base import Carry, Dense, Gates
from gru_jax.tasks import Batch, Generated


@dataclasses.dataclass(frozen=True)
class MinimalGatedUnit(Cell):
    """One gate forgets and resets: f = sigmoid(u_f + U_f h), h' = (1 - f) h + f tanh(u_n + U_n (f h)).

    Zhou et al. 2016, arXiv:1603.09420.

    Attributes:
        shift: added to the gate's logit.
    """

    shift: float = 0.0

    @property
    def input_gates(self) -> tuple[str, ...]:
        """Gates that read the input."""
        return ("f", "n")

    @property
    def recurrent_gates(self) -> tuple[str, ...]:
        """Gates that read the state."""
        return ("f", "n")

    def equations(self, dense: Dense, carry: Carry, u: Mapping[str, Array]) -> tuple[Carry, Gates]:
        """See the class."""
        f = jax.nn.sigmoid(u["f"] + dense("f", carry) + self.shift)
        n = jnp.tanh(u["n"] + dense("n", f * carry))
        return (1.0 - f) * carry + f * n, {"f": f}


@dataclasses.dataclass(frozen=True)
class Parity(Generated):
    """Whether the number of ones among random bits is odd.

    Attributes:
        length: T.
        sharpness: factor on the output before the loss.
    """

    length: int = 8
    sharpness: float = 1.0
    goal: ClassVar[tuple[str, str]] = ("accuracy", "max")

    @property
    def time(self) -> int:
        """T."""
        return self.length

    @property
    def input_size(self) -> int:
        """A bit."""
        return 1

    @property
    def output_size(self) -> int:
        """A logit."""
        return 1

    @property
    def baseline(self) -> Mapping[str, float]:
        """Chance."""
        return {"accuracy": 0.5}

    def example(self, key: PRNGKeyArray) -> Batch:
        """One sequence of bits `[T, 1]`, and 1 if its sum is odd."""
        bits = jax.random.bernoulli(key, 0.5, (self.length,))
        return Batch(bits[:, None].astype(jnp.float32), bits.sum() % 2)

    def metrics(self, outputs: Array, batch: Batch) -> dict[str, Float[Array, " B"]]:
        """Binary cross-entropy of a logit, and accuracy."""
        logits, odd = outputs[:, 0] * self.sharpness, batch.targets.astype(outputs.dtype)
        right = (logits > 0) == (odd > 0)
        return {"loss": optax.sigmoid_binary_cross_entropy(logits, odd), "accuracy": right.astype(logits.dtype)}


def get_config() -> ConfigDict:
    """The study."""
    return ConfigDict(
        {
            "task": {"name": Parity, "length": 8},
            "model": {"cell": {"name": MinimalGatedUnit}, "hidden": (32,)},
            "optimizer": {"name": optax.adabelief, "lr": 0.01},
            "train": {"batch_size": 128, "steps": 6000, "eval_steps": 200, "target": 0.99},
        }
    )
