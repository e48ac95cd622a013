"""What is measured of a network that is opened up."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from gru_jax import flow
from gru_jax.config import Config
from gru_jax.flow import FixedPoints
from gru_jax.flow.trajectory import Trajectory
from gru_jax.inspect import (
    integrated_gradients,
    linear_cka,
    occlusion,
    probe_over_time,
    representational_similarity,
    saliency,
    similarity_matrix,
)
from gru_jax.inspect.probes import FEWEST_SEQUENCES
from gru_jax.nn import CellPlace, Functional
from gru_jax.runtime.devices import choose_device, precision
from gru_jax.tasks import Batch
from gru_jax.tasks.base import FromFiles
from gru_jax.tasks.text_facts import TextFacts
from gru_jax.training.inspection import (
    CellInside,
    ExplainedOutput,
    cells_inside,
    first_layer_inputs,
    network_score,
)
from gru_jax.training.network import build_model
from gru_jax.unroll import valid_steps

RestingInput = Literal["median", "mean", "zeros"]
"""The constant input under which fixed points are looked for: that of a typical step, or none."""
DOUBLE = "float64"
STRETCHES, STRETCHES_OF_TOKENS = 50, 200  # of an example that are hidden one by one
STARTS, LEAST_STARTS = 512, 16  # states from which fixed points are looked for
START_NUMBERS = 2**28  # what S^3 of all starts may come to
NOISE = 1.0  # added to half of these, in standard deviations of each unit
FOLLOWED = 64  # sequences that they are drawn from
FARTHEST, RESOLUTION = 2.0, 0.1  # of points, in root mean square distances of the states from their mean
PROBED_STEPS = 64
ROWS, PAIRED_ROWS = 2000, 300  # states that are compared by CKA, and pair by pair
COMPONENTS = 3


class Attributions(NamedTuple):
    """What an output of each example hangs on, see `gru_jax.inspect`.

    Attributes:
        explained: which output.
        saliency: its gradient with respect to the first layer's inputs, `[N, T, D]`.
        shares: integrated gradients from a baseline of zeros, `[N, T, D]`; of texts, from the embedding of the unknown
            token where the vocabulary has one.
        difference: what they add up to, the output less that of the baseline, `[N]`.
        error: by how much they miss it, `[N]`.
        jumped: the height of the jumps on the way from the baseline, `[N]`.
        falls: by how much the output falls where a stretch of steps is hidden, `[N, M]`.
        width: steps of a stretch.
    """

    explained: ExplainedOutput
    saliency: np.ndarray
    shares: np.ndarray
    difference: np.ndarray
    error: np.ndarray
    jumped: np.ndarray
    falls: np.ndarray
    width: int


class CellReport(NamedTuple):
    """What is known of a cell.

    Attributes:
        inputs: what it read of the examples that are shown, `[N, T, D]`.
        states: its states after every step of them, `[N, T, S]`.
        gates: by name, `[N, T, H]`.
        x: the constant input under which its fixed points are looked for, `[D]`.
        points: its fixed and slow points, in double precision.
        ends: by the number of a saddle with one direction of growth, the stable points that it leads to.
        axes: principal components of its states, `[P, S]`.
        axis_shares: the part of their variance along each, `[P]`.
    """

    inputs: np.ndarray
    states: np.ndarray
    gates: dict[str, np.ndarray]
    x: np.ndarray
    points: FixedPoints
    ends: Mapping[int, tuple[int, int]]
    axes: np.ndarray
    axis_shares: np.ndarray


class Probes(NamedTuple):
    """What linear probes read off a cell's states.

    Attributes:
        steps: at which.
        scores: R^2 on other sequences, by the name of what is read, one for each of these steps.
        control: the same where it was shuffled among the sequences.
    """

    steps: list[int]
    scores: dict[str, np.ndarray]
    control: dict[str, np.ndarray]


class Similarity(NamedTuple):
    """How alike cells represent the same steps.

    Attributes:
        names: of the cells.
        matrices: by the name of a measure, `[M, M]`.
    """

    names: list[str]
    matrices: dict[str, np.ndarray]


def attribute(config: Config, params: PyTree, batch: Batch, explained: ExplainedOutput) -> Attributions:
    """Say what an output of each example hangs on.

    On a CPU in double precision, whatever the network is trained on: networks that decide jump between their memories.
    """
    width = max(1, batch.xs.shape[1] // (STRETCHES_OF_TOKENS if config.task.reads_tokens else STRETCHES))
    blank = unknown_token(config)
    batch, explained, params = jax.device_get((batch, explained, params))
    with precision(DOUBLE, "float32"), jax.default_device(choose_device("cpu")):
        exact = dataclasses.replace(config, dtype=DOUBLE)
        model = build_model(exact)

        @jax.jit
        def measure(params: PyTree, batch: Batch, explained: ExplainedOutput) -> PyTree:
            score, xs = (
                network_score(exact, model, params, batch, explained),
                first_layer_inputs(exact, model, params, batch.xs),
            )
            start = None if blank is None else first_layer_inputs(exact, model, params, jnp.full((1, 1), blank))
            shares, falls = integrated_gradients(score, xs, start), occlusion(score, xs, start, width=width)
            return saliency(score, xs), shares, falls

        slopes, shares, falls = jax.device_get(measure(in_double(params), in_double(batch), explained))
    return Attributions(explained, slopes, shares.values, shares.difference, shares.error, shares.jumped, falls, width)


def unknown_token(config: Config) -> int | None:
    """The token that stands for one that says nothing; None where there is none, or inputs are numbers."""
    facts = config.task.facts if isinstance(config.task, FromFiles) else None
    return facts.vocabulary.unknown if isinstance(facts, TextFacts) else None


def in_double(tree: PyTree) -> PyTree:
    """Arrays of a tree whose floats are in double precision."""

    def widened(array: Any) -> jax.Array:
        is_float = jnp.issubdtype(jnp.result_type(array), jnp.floating)
        return jnp.asarray(np.asarray(array, np.float64) if is_float else np.asarray(array))

    return jax.tree.map(widened, tree)


def states_of_cells(config: Config, model: Functional, params: PyTree, batch: Batch) -> dict[str, np.ndarray]:
    """The states of every cell after every step, by name, `[B, T, S]`."""

    def states(params: PyTree, batch: Batch) -> dict[str, jax.Array]:
        return {name: inside.states for name, inside in cells_inside(config, model, params, batch)[1].items()}

    return jax.device_get(jax.jit(states)(params, batch))


def steps_within(batch: Batch) -> np.ndarray:
    """True at the steps of each sequence, `[B, T]`."""
    size, time = batch.xs.shape[:2]
    valid = valid_steps(batch.lengths, size, time)
    return np.ones((size, time), bool) if valid is None else np.asarray(valid)


def report_cell(
    place: CellPlace, weights: PyTree, inside: CellInside, batch: Batch, shown: int, resting: RestingInput
) -> CellReport:
    """What is known of a cell, by what it did on a batch, of which the first examples are shown.

    Fixed points are looked for on a CPU in double precision, whatever the network is trained on.
    """
    within = steps_within(batch)
    inputs, states = np.asarray(inside.inputs, np.float64), np.asarray(inside.states, np.float64)
    visited = states[within]
    centred = visited - visited.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    axes = vectors[:, ::-1].T[:COMPONENTS]
    spread = float(np.sqrt(max(values.sum(), 0.0) / len(visited)))
    count = int(np.clip(START_NUMBERS // visited.shape[1] ** 3, LEAST_STARTS, STARTS))
    x = resting_input(inputs[within], resting)
    with precision(DOUBLE, "float32"), jax.default_device(choose_device("cpu")):
        params = in_double(weights)
        lengths = None if batch.lengths is None else jnp.asarray(np.asarray(batch.lengths)[:FOLLOWED])
        along = Trajectory(jnp.asarray(inputs[:FOLLOWED]), lengths=lengths, reverse=place.reverse)
        near, beside = (
            flow.sample_states(place.cell, params, along, count // 2, noise=noise, key=jax.random.key(seed))
            for seed, noise in enumerate((0.0, NOISE))
        )
        constant = jnp.asarray(x)
        points = flow.find_fixed_points(
            place.cell, params, constant, jnp.concatenate([near, beside]),
            farthest=FARTHEST * max(spread, 1e-3), resolution=RESOLUTION * max(spread, 1e-3),
        )  # fmt: skip
        ends = flow.saddle_ends(place.cell, params, constant, points)
    gates = {name: np.asarray(gate[:shown]) for name, gate in inside.gates.items()}
    axis_shares = values[::-1][:COMPONENTS] / max(values.sum(), 1e-300)
    return CellReport(inputs[:shown], states[:shown], gates, x, points, ends, axes, axis_shares)


def resting_input(inputs: np.ndarray, resting: RestingInput) -> np.ndarray:
    """The constant input of a cell, `[D]`, by what it reads at all steps, `[N, D]`."""
    if resting == "zeros":
        return np.zeros(inputs.shape[1])
    middle = np.median if resting == "median" else np.mean
    return middle(inputs, axis=0)


def probe_states(config: Config, states: np.ndarray, batch: Batch) -> Probes | None:
    """What linear probes read off states; None where the task knows of nothing that they may hold, or of too few
    sequences to look for it.
    """
    variables = config.task.variables(batch)
    if not variables or len(states) < FEWEST_SEQUENCES:
        return None
    time = states.shape[1]
    steps = np.unique(np.linspace(0, time - 1, PROBED_STEPS).round().astype(int))
    targets = jnp.stack([jnp.asarray(value, states.dtype) for value in variables.values()], axis=-1)[:, steps]
    valid = jnp.asarray(steps_within(batch)[:, steps])
    profile = jax.jit(lambda s, t, v: probe_over_time(s, t, valid=v))(jnp.asarray(states[:, steps]), targets, valid)
    scores, control = (dict(zip(variables, np.asarray(part).T, strict=True)) for part in profile)
    return Probes(steps.tolist(), scores, control)


def compare_states(states: Mapping[str, np.ndarray], batch: Batch) -> Similarity:
    """How alike cells represent the same steps, which are drawn from all of the batch."""
    rows = np.flatnonzero(steps_within(batch).ravel())
    rows = np.random.default_rng(0).permutation(rows)[:ROWS]
    drawn = [jnp.asarray(array.reshape(-1, array.shape[-1])[rows]) for array in states.values()]
    measures = {
        "linear CKA": similarity_matrix(drawn, jax.jit(linear_cka)),
        "representational similarity": similarity_matrix(
            [array[:PAIRED_ROWS] for array in drawn], jax.jit(representational_similarity)
        ),
    }
    return Similarity(list(states), {name: np.asarray(matrix) for name, matrix in measures.items()})


def titles_of(outputs: np.ndarray, explained: ExplainedOutput, names: Sequence[str]) -> list[str]:
    """What is said above each example: the output that is explained, and its value."""
    titles = []
    for i, number in enumerate(np.asarray(explained.output)):
        name = names[number] if names else f"output {number}"
        where = i if explained.step is None else (i, int(explained.step[i]))
        step = "" if explained.step is None else f" at step {int(explained.step[i])}"
        titles.append(f"example {i}: {name}{step} = {float(outputs[where][..., number]):.4g}")
    return titles
