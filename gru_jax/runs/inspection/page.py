"""The inside of a network as one HTML page that needs nothing else, light or dark as its reader likes."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
from matplotlib.figure import Figure

from gru_jax.plotting.inspection import inline_svg

STYLE = Path(__file__).with_name("page.css")
DIGITS = 4
SECTIONS = {
    "attributions": (
        "What outputs hang on",
        "Each input is coloured by its integrated gradient: how much of the output, beyond what inputs of zeros (of "
        "texts, unknown tokens) give, it accounts for. Beside it, by how much the output falls where a stretch of "
        "steps is hidden.",
    ),
    "units": (
        "Units that track a text",
        "Of all units, the one whose state by itself tells most of a variable, on texts that no line was fitted to, "
        "and what the best unit tells where the variables are those of other texts. The first example is coloured by "
        "it.",
    ),
    "contexts": (
        "What drives units",
        "For each unit the texts of all that were read after whose last, marked token it is greatest.",
    ),
    "traces": ("What units do", "One example, step by step. Units are ordered by when they move most."),
    "points": (
        "Where the state stands still",
        "Fixed and slow points under constant input, among trajectories, on principal components of the states. Dotted "
        "lines lead from a saddle to the stable points that its two ways end in.",
    ),
    "eigenvalues": (
        "What a small change does there",
        "Eigenvalues of the step's Jacobian: outside the circle a change grows. Time constants are the steps in which "
        "it grows or decays by a factor of e.",
    ),
    "probes": (
        "What states hold",
        "How much of a variable's variance a linear probe reads off the states at a step, on sequences that it was not "
        "fitted to. Dashed: the variable shuffled among the sequences, which is what luck reads.",
    ),
    "similarity": (
        "How alike states are",
        "Of cells of this network, of the untrained one and of other runs, on the same steps: 1 is alike, whatever the "
        "rotation and scale.",
    ),
}


def render_inspection(
    title: str,
    sentences: Sequence[str],
    figures: Mapping[str, Figure],
    points: pl.DataFrame,
    texts: Mapping[str, str] | None = None,
) -> str:
    """The page.

    Args:
        title: of the page.
        sentences: what was found.
        figures: by a section's name, and the cell's behind `_`.
        points: the table of fixed points.
        texts: parts that are HTML, by names as of figures, of networks that read texts.
    """
    parts = [f"<h1>{html.escape(title)}</h1>", *(f"<p>{html.escape(sentence)}</p>" for sentence in sentences)]
    for section, (heading, note) in SECTIONS.items():
        drawn = {name: picture for name, picture in figures.items() if name.partition("_")[0] == section}
        written = {name: part for name, part in (texts or {}).items() if name.partition("_")[0] == section}
        if not drawn and not written:
            continue
        parts.append(f'<section id="{section}"><h2>{heading}</h2><p class="note">{note}</p>')
        for name, picture in drawn.items():
            caption = html.escape(name.partition("_")[2])
            parts.append(f"<figure>{inline_svg(picture, name)}<figcaption>{caption}</figcaption></figure>")
        for name, part in written.items():
            cell = html.escape(name.partition("_")[2])
            parts.append(f"<h3>{cell}</h3>{part}" if cell else part)
        if section == "eigenvalues" and drawn:
            parts.append(f'<div class="scroll">{_table(points)}</div>')
        parts.append("</section>")
    body = "\n".join(parts)
    return (
        "<!DOCTYPE html>\n"
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{STYLE.read_text()}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _table(frame: pl.DataFrame) -> str:
    def cell(value: object) -> str:
        return html.escape(f"{value:.{DIGITS}g}" if isinstance(value, float) else str(value))

    head = "".join(f"<th>{html.escape(name)}</th>" for name in frame.columns)
    rows = "".join(f"<tr>{''.join(f'<td>{cell(value)}</td>' for value in row)}</tr>" for row in frame.rows())
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
