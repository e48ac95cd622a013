"""A run's network opened up, as an object."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast, get_args

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from matplotlib.figure import Figure

from gru_jax.config import Config
from gru_jax.config.checkpoint_names import BEST
from gru_jax.errors import ArgumentError, UsageError, check_argument, check_choice
from gru_jax.flow.fixed_points import SADDLE, SLOW_POINT, STABLE, FixedPoints
from gru_jax.plotting import inspection as pictures
from gru_jax.runs.data_facts import check_same_data
from gru_jax.runs.export import check_is_served
from gru_jax.runs.flow import initial_params
from gru_jax.runs.inspection.measure import (
    Attributions,
    CellReport,
    Probes,
    RestingInput,
    Similarity,
    attribute,
    compare_states,
    probe_states,
    report_cell,
    states_of_cells,
    steps_within,
    titles_of,
)
from gru_jax.runs.inspection.page import render_inspection
from gru_jax.runs.inspection.texts import (
    Contexts,
    TrackedVariables,
    reads_pieces,
    text_sections,
    token_texts,
    units_of_texts,
)
from gru_jax.runs.stored import CHECKPOINT_KINDS, CheckpointKind, open_run, restore_state
from gru_jax.runtime.devices import choose_device, precision, without_alarms
from gru_jax.runtime.files import replace_file
from gru_jax.tasks import Batch, LanguageModel, split_key
from gru_jax.training.inspection import cells_inside, explained_output
from gru_jax.training.network import build_model, draw_batch

SHOWN = 4  # examples that are attributed and drawn
MOST_NUMBERS = 2**24  # in the states that are read
LEAST_SEQUENCES, MOST_SEQUENCES = 16, 1024
UNTRAINED = "untrained"


@dataclasses.dataclass(frozen=True)
class Inspection:
    """A run's network opened up, on validation data.

    Attributes:
        name: of the run.
        config: of the network.
        step: of its checkpoint.
        batch: the sequences, of which the first few are shown.
        outputs: of the network for these, `[B, O]` or `[B, T, O]`.
        attributions: what the outputs of those that are shown hang on.
        cells: what is known of every cell, by name.
        probes: what linear probes read off their states, by name; empty where the task knows of nothing to look for.
        contexts: of networks that read tokens, where each unit of a cell is greatest, by the cell's name; else empty.
        tracked: of these, how well single units track what the task knows at each step; empty where it knows nothing.
        similarity: how alike the cells, those of the untrained network and of other runs represent the same steps.
    """

    name: str
    config: Config
    step: int
    batch: Batch
    outputs: np.ndarray
    attributions: Attributions
    cells: dict[str, CellReport]
    probes: dict[str, Probes]
    contexts: dict[str, Contexts]
    tracked: dict[str, TrackedVariables]
    similarity: Similarity

    @property
    def points(self) -> pl.DataFrame:
        """A row for each fixed or slow point: its cell, kind, speed, directions of growth, longest time constants."""
        rows = [row for name, cell in self.cells.items() for row in _rows_of_points(name, cell.points, cell)]
        return pl.DataFrame(rows, infer_schema_length=None)

    def describe(self) -> list[str]:
        """It in words."""
        error = float(np.max(self.attributions.error / np.maximum(np.abs(self.attributions.difference), 1.0)))
        lines = [f"Integrated gradients add up to the outputs to within {error:.1e} of their difference."]
        for name, cell in self.cells.items():
            counted = {kind: cell.points.kinds.count(kind) for kind in (STABLE, SADDLE, SLOW_POINT)}
            kinds = ", ".join(f"{count} {kind}{' points' * (kind == SLOW_POINT)}" for kind, count in counted.items())
            lines.append(f"{name}: {kinds} under constant input.")
        for name, probes in self.probes.items():
            for variable, scores in probes.scores.items():
                if np.isfinite(scores).any():
                    best, luck = int(np.nanargmax(scores)), float(np.nanmean(probes.control[variable]))
                    lines.append(
                        f"{name}: of {variable} a linear probe reads up to {scores[best]:.1%} of the variance, at step "
                        f"{probes.steps[best]}; of it shuffled, {luck:.1%} on average."
                    )
        lines += [f"{name}: {line}" for name, tracked in self.tracked.items() for line in tracked.describe()]
        return lines

    def figures(self) -> dict[str, Figure]:
        """All pictures, by name."""
        within, drawn = steps_within(self.batch)[:SHOWN], dict[str, Figure]()
        reads_tokens, labels = self.config.task.reads_tokens, None
        steps = np.flatnonzero(within[0])
        if reads_tokens:
            steps, texts = steps[: pictures.MOST_LABELS], token_texts(self.config)
            labels = [texts[int(number)] for number in np.asarray(self.batch.xs[0])[steps]]
        else:
            xs, attributed = np.asarray(self.batch.xs[:SHOWN]), self.attributions
            drawn["attributions"] = pictures.plot_attributions(
                xs, attributed.shares, attributed.falls, attributed.width, within, self._titles()
            )
        for name, cell in self.cells.items():
            units = next(iter(cell.gates.values())).shape[-1]
            gates = {gate: value[0][steps] for gate, value in cell.gates.items()}
            states = cell.states
            drawn[f"traces_{name}"] = pictures.plot_traces(
                cell.inputs[0][steps], states[0][steps][:, :units], gates, labels
            )
            drawn[f"points_{name}"] = pictures.plot_fixed_points(
                cell.points, cell.ends, states, within, cell.axes, cell.axis_shares
            )
            if len(cell.points.states):
                drawn[f"eigenvalues_{name}"] = pictures.plot_eigenvalues(cell.points)
        for name, probes in self.probes.items():
            drawn[f"probes_{name}"] = pictures.plot_probes(*probes)
        drawn["similarity"] = pictures.plot_similarity(*self.similarity)
        return drawn

    def texts(self) -> dict[str, str]:
        """The parts of the page that are text, as HTML by name; of networks that read tokens, else none."""
        if not self.config.task.reads_tokens:
            return {}
        states = {name: cell.states for name, cell in self.cells.items()}
        return text_sections(
            self.config, self.batch, self.attributions, self._titles(), self.contexts, self.tracked, states
        )

    def _titles(self) -> list[str]:
        """What is said above each example that is shown."""
        names: Sequence[str] = self.config.task.class_names
        if not names and isinstance(self.config.task, LanguageModel):
            names = [f"next token {text!r}" for text in token_texts(self.config)]
        return titles_of(self.outputs[:SHOWN], self.attributions.explained, names)

    def plot(self, name: str = "attributions") -> Figure:
        """One of the pictures, which notebooks show: `attributions`, `points_layer_0`, ….

        Raises:
            UsageError: there is no picture of that name.
        """
        drawn = self.figures()
        check_choice("name", name, drawn)
        return drawn[name]

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write it as one HTML page that needs nothing else, and return its path.

        Raises:
            UsageError: it cannot be written there.
        """
        path = Path(path)
        title = f"Inside {self.name}"
        page = render_inspection(title, self.describe(), self.figures(), self.points, self.texts())
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, page.encode())
        except OSError as error:
            raise ArgumentError(f"output={path}: cannot be written ({error.strerror or error})") from error
        return path


def inspect_run(
    workdir: str | os.PathLike[str],
    checkpoint: str = BEST,
    *,
    resting: str = "median",
    output: int | None = None,
    against: Sequence[str | os.PathLike[str]] = (),
) -> Inspection:
    """Open up a run's network, on sequences of its validation data.

    Args:
        workdir: of the run.
        checkpoint: which of its networks.
        resting: the constant input under which fixed points are looked for: the median or the mean of what a cell
            reads, or zeros.
        output: the number of the output that is attributed to the inputs; None for the class that the network says, or
            the first value.
        against: other runs on the same inputs, whose states are compared.

    Raises:
        UsageError: there is no such run, checkpoint or output, data are missing, or runs do not fit.
    """
    check_argument("checkpoint", checkpoint, CHECKPOINT_KINDS)
    check_argument("input", resting, get_args(RestingInput))
    rundir, config = open_run(workdir)
    check_is_served(config, rundir)
    check_same_data(rundir, config)
    device = choose_device(config.platform)
    with precision(config.dtype, config.matmul_precision), jax.default_device(device), without_alarms():
        state = restore_state(rundir, config, device, cast("CheckpointKind", checkpoint))
        params, model = state.params, build_model(config)
        batch = _batch(config)
        shown = jax.tree.map(lambda a: a[:SHOWN], batch)
        outputs, inside = jax.device_get(jax.jit(lambda p, b: cells_inside(config, model, p, b))(params, batch))
        explained = explained_output(jnp.asarray(outputs[:SHOWN]), shown, output)
        attributions = attribute(config, params, shown, explained)
        cells = {
            place.name: report_cell(
                place, place.parameters(params), inside[place.name], batch, SHOWN, cast("RestingInput", resting)
            )
            for _, place in model.cells
        }
        states = {name: cell.states for name, cell in inside.items()}
        in_pieces = reads_pieces(config)
        probed = {name: probe_states(config, array, batch) for name, array in states.items() if not in_pieces}
        probes = {name: probe for name, probe in probed.items() if probe is not None}
        contexts, tracked = units_of_texts(config, model, states, batch)
        others = states_of_cells(config, model, initial_params(config), batch)
        compared = {**states, **{f"{UNTRAINED} {name}": array for name, array in others.items()}}
        for other in against:
            compared |= _states_of_run(other, config, batch, compared)
        similarity = compare_states(compared, batch)
    name = Path(os.path.abspath(workdir)).name
    return Inspection(
        name, config, int(state.step), batch, outputs, attributions, cells, probes, contexts, tracked, similarity
    )


def _batch(config: Config) -> Batch:
    """The first validation sequences, as many as are worth their memory."""
    numbers = config.task.time * sum(config.model.hidden) * config.model.cell.carry_parts
    count = int(np.clip(MOST_NUMBERS // numbers, LEAST_SEQUENCES, MOST_SEQUENCES))
    index = jnp.arange(min(count, config.task.size("valid") or count), dtype=jnp.int32)
    data = jax.device_put(config.task.load("valid"))
    return jax.jit(lambda data, i: draw_batch(config, data, split_key("valid", 0), i))(data, index)


def _states_of_run(
    workdir: str | os.PathLike[str], config: Config, batch: Batch, known: Mapping[str, object]
) -> dict[str, np.ndarray]:
    """The states of another run's cells on the same sequences, by its name and theirs; by its path, if one is known."""
    rundir, other = open_run(workdir)
    sizes = [(task.time, task.input_size, task.output_size) for task in (config.task, other.task)]
    if sizes[0] != sizes[1]:
        raise UsageError(
            f"against={workdir}: of T, D, O = {', '.join(map(str, sizes[1]))}; allowed are runs of "
            f"{', '.join(map(str, sizes[0]))}, as the one that is looked into"
        )
    if "float64" in (other.dtype, config.dtype) and other.dtype != config.dtype:
        raise UsageError(f"against={workdir}: of {other.dtype}; allowed are runs of {config.dtype}")
    params = restore_state(rundir, other, choose_device(other.platform), BEST).params
    same_data = dataclasses.replace(other, task=config.task)
    states = states_of_cells(same_data, build_model(other), params, batch)
    path = Path(os.path.abspath(workdir))
    is_known = any(f"{path.name} {name}" in known for name in states)
    return {f"{path if is_known else path.name} {name}": array for name, array in states.items()}


def _rows_of_points(name: str, points: FixedPoints, cell: CellReport) -> list[dict[str, Any]]:
    kinds, constants = points.kinds, np.sort(points.time_constants, axis=1)[:, ::-1]
    return [
        {
            "cell": name,
            "point": i,
            "kind": kinds[i],
            "speed": float(points.speeds[i]),
            "starts": int(points.counts[i]),
            "directions of growth": int(points.unstable[i]),
            "largest |eigenvalue|": float(np.abs(points.eigenvalues[i, 0])),
            "longest time constant (steps)": float(constants[i, 0]),
            "leads to": " and ".join(str(end) if end >= 0 else "?" for end in cell.ends.get(i, ())),
        }
        for i in range(len(kinds))
    ]
