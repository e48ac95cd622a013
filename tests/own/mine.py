"""What a user brings: a cell, a task with its own loss, an optimiser, a schedule, an initialiser, an instrument."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import optax

from gru_jax.cells import Cell
from gru_jax.nn import SequenceModel
from gru_jax.tasks import Batch, Generated


@dataclasses.dataclass(frozen=True)
class MinimalGatedUnit(Cell):
    """One gate for both: f = sigmoid(u_f + U_f h), h' = (1 - f) h + f tanh(u_n + g U_n (f h)). Zhou et al. 2016.

    The gain g of the state is learnt, a number for each unit.
    """

    shift: float = 0.0
    input_gates = ("f", "n")
    recurrent_gates = ("f", "n")
    vectors = ("gain",)

    def initial_vector(self, name, key, hidden_size):
        """As in the paper at first."""
        return jnp.ones(hidden_size)

    def equations(self, dense, carry, u):
        """See the class."""
        f = jax.nn.sigmoid(u["f"] + dense("f", carry) + self.shift)
        n = jnp.tanh(u["n"] + u["gain"] * dense("n", f * carry))
        return (1.0 - f) * carry + f * n, {"f": f}


@dataclasses.dataclass(frozen=True)
class Parity(Generated):
    """Whether the number of ones is odd."""

    length: int = 6
    sharpness: float = 1.0
    goal = ("accuracy", "max")
    input_size = output_size = 1
    baseline = {"accuracy": 0.5}  # noqa: RUF012

    @property
    def time(self):
        """T."""
        return self.length

    def example(self, key):
        """One sequence of bits."""
        bits = jax.random.bernoulli(key, 0.5, (self.length,))
        return Batch(bits[:, None].astype(jnp.float32), bits.sum() % 2)

    def metrics(self, outputs, batch):
        """The loss of a logit."""
        logits = outputs[:, 0] * self.sharpness
        odd = batch.targets.astype(logits.dtype)
        loss = optax.sigmoid_binary_cross_entropy(logits, odd)
        return {"loss": loss, "accuracy": ((logits > 0) == (odd > 0)).astype(jnp.float32)}


class Doubled(SequenceModel):
    """A model family: the stack as it is, and outputs of twice the size, or another factor."""

    def __init__(self, *args, rngs, factor=2.0, **kwargs):
        super().__init__(*args, rngs=rngs, **kwargs)
        self.factor = factor

    def trace(self, xs, **kwargs):
        """As `SequenceModel.trace`."""
        trace = super().trace(xs, **kwargs)
        return trace._replace(outputs=self.factor * trace.outputs)


def sign_descent(momentum: float = 0.9):
    """Steps of one size."""
    return optax.chain(optax.trace(momentum), optax.scale_by_sign())


def ramp(steps, floor=0.1):
    """Down to a tenth, or another floor."""
    return optax.linear_schedule(1.0, floor, steps)


def sparse(key, shape, dtype, density=0.2):
    """One number in five, or another share of them, from N(0, 1)."""
    draw, choose = jax.random.split(key)
    return jax.random.normal(draw, shape, dtype) * jax.random.bernoulli(choose, density, shape).astype(dtype)


def input_size_of(batch_pass, options, power=1):
    """An instrument: how large what a cell reads is, or a power of that."""
    return {"input": (jnp.abs(batch_pass.along.xs) ** power).mean()}


def get_config():
    """All of it."""
    return {
        "task": {"name": Parity, "valid_size": 20, "test_size": 30},
        "model": {"cell": MinimalGatedUnit(shift=0.5), "hidden": 4, "family": Doubled, "init": {"recurrent": sparse}},
        "optimizer": {"name": sign_descent, "momentum": 0.5, "schedule": ramp, "lr": 0.01},
        "train": {"batch_size": 8, "steps": 12, "eval_steps": 4, "log_steps": 2, "call_steps": 3},
        "flow": {"batch_size": 4, "instruments": ("adjoint", "gates", input_size_of)},
    }
