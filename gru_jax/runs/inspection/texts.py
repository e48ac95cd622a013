"""Networks that read texts: which contexts drive their units, which units track what, and text coloured by numbers."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gru_jax.config import Config
from gru_jax.inspect import UnitScores, probe_units
from gru_jax.inspect.probes import FEWEST_SEQUENCES
from gru_jax.nn import Functional
from gru_jax.runs.inspection.measure import Attributions, steps_within
from gru_jax.tasks import Batch
from gru_jax.tasks.base import FromFiles
from gru_jax.tasks.text_facts import TextFacts
from gru_jax.tasks.text_variables import texts_of_tokens

CONTEXTS = 5  # that drive a unit most
SHOWN_CONTEXTS, CONTEXT_CHARACTERS = 3, 40
MOST_SHOWN = 600  # tokens of an example
ORANGE, BLUE = "213,94,0", "0,114,178"
STRONGEST = 0.75  # opacity of a colour
LINE_END = "\u21b5"


class Contexts(NamedTuple):
    """Where each unit of a cell is greatest, at most once in each sequence.

    Attributes:
        sequences: numbers of the sequences, `[H, N]`.
        steps: of the token after which it is so, `[H, N]`.
        values: of the unit there, `[H, N]`, the greatest first.
    """

    sequences: np.ndarray
    steps: np.ndarray
    values: np.ndarray


class TrackedVariables(NamedTuple):
    """Which units of a cell track what is known of a text.

    Attributes:
        names: of the variables.
        measured: see `gru_jax.inspect.probe_units`.
    """

    names: list[str]
    measured: UnitScores

    def describe(self) -> list[str]:
        """A line for each variable: what the best unit and all of them tell of it, and of that of other texts."""
        lines = []
        for k, (name, unit) in enumerate(zip(self.names, self.units, strict=True)):
            single, control = self.measured.scores[unit, k], self.measured.control[k]
            whole, luck = self.measured.together[k], self.measured.control_together[k]
            lines.append(
                f"{name}: unit {unit} by itself tells {single:.1%} of its variance, of that of other texts the best "
                f"one {control:.1%}; a linear probe of all units {whole:.1%}, and {luck:.1%}."
            )
        return lines

    @property
    def units(self) -> list[int]:
        """The unit that tells most of each variable."""
        return np.nan_to_num(self.measured.scores, nan=-np.inf).argmax(axis=0).tolist()


def token_texts(config: Config) -> list[str]:
    """What stands in a text for each token of a run; its number where the task has no vocabulary."""
    facts = config.task.facts if isinstance(config.task, FromFiles) else None
    if isinstance(facts, TextFacts):
        return texts_of_tokens(facts.vocabulary)
    return [f"{number} " for number in range(config.task.input_size)]


def reads_pieces(config: Config) -> bool:
    """Whether a network reads pieces of a text, no step of which is another than the others."""
    return config.task.is_stream and config.task.reads_tokens


def units_of_texts(
    config: Config, model: Functional, states: Mapping[str, np.ndarray], batch: Batch
) -> tuple[dict[str, Contexts], dict[str, TrackedVariables]]:
    """By cell what drives its units, where tokens are read, and what they track, where these are pieces of a text."""
    units = {place.name: place.units for _, place in model.cells}
    if not config.task.reads_tokens:
        return {}, {}
    contexts = {name: driving_contexts(array, units[name], batch) for name, array in states.items()}
    if not reads_pieces(config):
        return contexts, {}
    tracking = {name: tracked_variables(config, array, units[name], batch) for name, array in states.items()}
    return contexts, {name: values for name, values in tracking.items() if values is not None}


def driving_contexts(states: np.ndarray, units: int, batch: Batch) -> Contexts:
    """Where each of the first units of states `[B, T, S]` is greatest."""
    within = steps_within(batch)
    hidden = np.where(within[..., None], states[..., :units], -np.inf)
    steps, greatest = hidden.argmax(axis=1).T, hidden.max(axis=1).T
    order = np.argsort(-greatest, axis=1, kind="stable")[:, :CONTEXTS]
    return Contexts(order, np.take_along_axis(steps, order, axis=1), np.take_along_axis(greatest, order, axis=1))


def tracked_variables(config: Config, states: np.ndarray, units: int, batch: Batch) -> TrackedVariables | None:
    """Which units track the variables of the task; None where it knows of none, or there are too few sequences."""
    variables = config.task.variables(batch)
    if not variables or len(states) < FEWEST_SEQUENCES:
        return None
    targets = jnp.stack([jnp.asarray(value, jnp.float32) for value in variables.values()], axis=-1)
    hidden, valid = jnp.asarray(states[..., :units], jnp.float32), jnp.asarray(steps_within(batch))
    scores: UnitScores = jax.device_get(jax.jit(lambda h, t, v: probe_units(h, t, valid=v))(hidden, targets, valid))
    return TrackedVariables(list(variables), scores)


def coloured_text(texts: Sequence[str], values: Sequence[float] | np.ndarray, limit: float | None = None) -> str:
    """A text as HTML, each token coloured by its value, orange above zero and blue below, whose hover says it.

    Args:
        texts: of the tokens.
        values: of each.
        limit: the value of the strongest colour; the greatest of all if None.
    """
    values = np.asarray(values, np.float64)
    limit = limit or float(np.abs(values).max(initial=0.0)) or 1.0
    spans = []
    for text, value in zip(texts[:MOST_SHOWN], values, strict=False):
        colour, strength = ORANGE if value > 0 else BLUE, STRONGEST * min(1.0, abs(value) / limit)
        spans.append(
            f'<span style="background:rgba({colour},{strength:.2f})" title="{value:.3g}">{escaped_token(text)}</span>'
        )
    rest = f" \u2026 and {len(texts) - MOST_SHOWN} more" if len(texts) > MOST_SHOWN else ""
    return f'<div class="text">{"".join(spans)}{rest}</div>'


def escaped_token(text: str) -> str:
    """A token in HTML, with a sign for the end of a line."""
    return html.escape(text).replace("\n", f"{LINE_END}\n").replace("\r", "\u240d")


def attributions_as_text(batch: Batch, attributed: Attributions, titles: Sequence[str], texts: Sequence[str]) -> str:
    """The examples that are shown, coloured by integrated gradients, by occlusion and by saliency."""
    within, parts = steps_within(batch), list[str]()
    for i, title in enumerate(titles):
        steps = np.flatnonzero(within[i])
        tokens = [texts[int(number)] for number in np.asarray(batch.xs[i])[steps]]
        falls = np.repeat(attributed.falls[i], attributed.width)[steps]
        rows = {
            "integrated gradients": attributed.shares[i].sum(axis=1)[steps],
            "fall where it is hidden": falls,
            "length of the gradient": np.linalg.norm(attributed.saliency[i], axis=1)[steps],
        }
        parts.append(f"<h3>{html.escape(title)}</h3>")
        coloured = "".join(
            f'<div><p class="note">{name}</p>{coloured_text(tokens, values)}</div>' for name, values in rows.items()
        )
        parts.append(f'<div class="beside">{coloured}</div>')
    return "\n".join(parts)


def contexts_as_table(contexts: Contexts, batch: Batch, texts: Sequence[str]) -> str:
    """For each unit the ends of the texts after which it is greatest, the last token marked."""
    xs, rows = np.asarray(batch.xs), list[str]()
    for unit, (sequences, steps, values) in enumerate(zip(*contexts, strict=True)):
        shown = []
        for sequence, step, value in list(zip(sequences, steps, values, strict=True))[:SHOWN_CONTEXTS]:
            before = "".join(texts[int(number)] for number in xs[sequence][max(0, step - CONTEXT_CHARACTERS) : step])
            marked = escaped_token(texts[int(xs[sequence][step])])
            before = html.escape(before[-CONTEXT_CHARACTERS:]).replace("\n", LINE_END)
            shown.append(f'<td title="{value:.3g}"><code>{before}<mark>{marked.strip() or marked}</mark></code></td>')
        rows.append(f"<tr><td>{unit}</td><td>{values[0]:.3g}</td>{''.join(shown)}</tr>")
    head = "<tr><th>unit</th><th>greatest</th><th colspan=3>after</th></tr>"
    return f'<div class="scroll contexts"><table><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table></div>'


def tracked_as_text(tracked: TrackedVariables, states: np.ndarray, batch: Batch, texts: Sequence[str]) -> str:
    """The units that track each variable best, with the first example coloured by their states."""
    steps = np.flatnonzero(steps_within(batch)[0])
    tokens, parts = [texts[int(number)] for number in np.asarray(batch.xs[0])[steps]], list[str]()
    for unit, line in zip(tracked.units, tracked.describe(), strict=True):
        parts.append(f"<p>{html.escape(line)}</p>{coloured_text(tokens, states[0, steps, unit])}")
    return "\n".join(parts)


def text_sections(
    config: Config,
    batch: Batch,
    attributed: Attributions,
    titles: Sequence[str],
    contexts: Mapping[str, Contexts],
    tracked: Mapping[str, TrackedVariables],
    states: Mapping[str, np.ndarray],
) -> dict[str, str]:
    """The parts of the page that are text, by the names of its sections and the cell's behind `_`."""
    texts = token_texts(config)
    parts = {"attributions": attributions_as_text(batch, attributed, titles, texts)}
    parts |= {f"units_{name}": tracked_as_text(values, states[name], batch, texts) for name, values in tracked.items()}
    return parts | {f"contexts_{name}": contexts_as_table(best, batch, texts) for name, best in contexts.items()}
