"""A network opened up: the score that its outputs are attributed by, and what its cells read and hold."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from gru_jax.cells import Carry, Cell, Gates, Params
from gru_jax.config import Config
from gru_jax.errors import UsageError
from gru_jax.flow.trajectory import Trajectory, prepare_trajectory, to_vector
from gru_jax.inspect.attribution import Score
from gru_jax.nn import Functional
from gru_jax.tasks import Batch
from gru_jax.training.network import cell_trajectories, run_network
from gru_jax.unroll.reference import scan_steps

Place = Int[Array, " B"]


class ExplainedOutput(NamedTuple):
    """Which of a network's outputs is attributed to the inputs, of each sequence.

    Attributes:
        output: its number, `[B]`: of the class that the network says, or of a value.
        step: where each step has an output, the one; else None.
    """

    output: Place
    step: Place | None


class CellInside(NamedTuple):
    """What a cell of a network did on a batch.

    Attributes:
        inputs: what it read, `[B, T, D]`.
        states: its state after every step, all parts of the carry side by side, `[B, T, S]`.
        gates: by name, `[B, T, H]`.
    """

    inputs: Float[Array, "B T D"]
    states: Float[Array, "B T S"]
    gates: Gates


def explained_output(outputs: Array, batch: Batch, number: int | None = None) -> ExplainedOutput:
    """The output that is looked at: at the last step of each sequence, where each step has one.

    Args:
        outputs: `[B, O]` or `[B, T, O]`.
        batch: whose outputs they are.
        number: of the output; None for the likeliest class where targets are classes, else for the first.

    Raises:
        UsageError: there is no such output.
    """
    size, count = len(outputs), outputs.shape[-1]
    if number is not None and not 0 <= number < count:
        raise UsageError(f"output number {number}: the network has {count}; allowed are 0 to {count - 1}")
    step = None
    if outputs.ndim == 3:
        lengths = jnp.full(size, outputs.shape[1]) if batch.lengths is None else batch.lengths
        step = jnp.maximum(lengths - 1, 0)
        outputs = outputs[jnp.arange(size), step]
    are_classes = jnp.issubdtype(batch.targets.dtype, jnp.integer) and count > 1
    if number is None and are_classes:
        return ExplainedOutput(outputs.argmax(axis=-1), step)
    return ExplainedOutput(jnp.full(size, number or 0), step)


def first_layer_inputs(config: Config, model: Functional, params: PyTree, tokens_or_xs: Array) -> Float[Array, "B T D"]:
    """What the first layer reads: inputs as they are, or what the embedding makes of tokens.

    Raises:
        UsageError: a model of a user's own reads tokens without the embedding `embed`.
    """
    if not config.task.reads_tokens:
        return tokens_or_xs
    embed = getattr(model.module(params), "embed", None)
    if embed is None:
        raise UsageError(
            f"model.family={config.model.family}: its network has no embedding `embed`, to whose numbers is attributed"
        )
    return embed(tokens_or_xs)


def network_score(config: Config, model: Functional, params: PyTree, batch: Batch, explained: ExplainedOutput) -> Score:
    """A network's output as a function of what its first layer reads, see `gru_jax.inspect`."""

    def score(xs: Float[Array, "B T D"]) -> Float[Array, " B"]:
        outputs = model.apply(params, xs.astype(config.dtype), lengths=batch.lengths).outputs
        sequence = jnp.arange(len(outputs))
        if explained.step is None:
            return outputs[sequence, explained.output]
        return outputs[sequence, explained.step, explained.output]

    return score


def cells_inside(
    config: Config, model: Functional, params: PyTree, batch: Batch
) -> tuple[Array, dict[str, CellInside]]:
    """The outputs for a batch, and every cell by name with what it did."""
    trace, _ = run_network(config, model, params, batch)
    inputs = [layer.read for layer in trace.layers]
    inside = {}
    for place, weights, along, _ in cell_trajectories(model, params, inputs, [None] * len(inputs)):
        inside[place.name] = CellInside(along.xs, *states_and_gates(place.cell, weights, along))
    return trace.outputs, inside


def states_and_gates(
    cell: Cell, params: Params, along: Trajectory
) -> tuple[Float[Array, "B T S"], dict[str, Float[Array, "B T H"]]]:
    """The state vector after every step of a trajectory, and every gate there; in the padding it stands still."""
    steps, carry0, reset_carry, reverse = prepare_trajectory(cell, params, along)

    def observe(carry: Carry, gates: Gates, valid: Bool[Array, " B"] | None) -> tuple[Array, Gates]:
        del valid
        return to_vector(carry), gates

    _, seen = scan_steps(cell, params, steps, carry0, observe, reset_carry=reset_carry, reverse=reverse)
    states, gates = jax.tree.map(lambda a: a.swapaxes(0, 1), seen)
    return states, gates
