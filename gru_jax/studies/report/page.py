"""The report as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
from plotly.offline import get_plotlyjs

from gru_jax.runtime.files import Json
from gru_jax.studies.report.findings import Findings
from gru_jax.studies.report.table import ID

SCRIPT, STYLE = (Path(__file__).with_name(f"page.{kind}") for kind in ("js", "css"))
SHOWN = ("steps", "best_step", "best_valid_", "final_valid_", "init_", "final_horizon", "final_lambda", "final_slope",
         "final_time_scale")  # fmt: skip


class PageContent(NamedTuple):
    """What the page of a report shows.

    Attributes:
        title: of the page.
        sentences: the findings in words.
        commands: by what they do, commands to copy.
        frame: the table.
        axes: its columns that vary by design.
        findings: what was found, for studies.
        curves: by member, the steps and scores of its validations.
        pictures: by caption, PNG files to be shown.
        compared: settings compared over seeds, see `gru_jax.studies.report.paired.compare_settings`; None where none.
    """

    title: str
    sentences: list[str]
    commands: dict[str, str]
    frame: pl.DataFrame
    axes: list[str]
    findings: Findings
    curves: dict[str, dict[str, list[Any]]]
    pictures: dict[str, Path]
    compared: pl.DataFrame | None = None


def render_page(content: PageContent) -> str:
    """The page."""
    parts = [f"<h1>{html.escape(content.title)}</h1>"]
    parts += [f"<p>{html.escape(sentence)}</p>" for sentence in content.sentences]
    for what, text in content.commands.items():
        parts.append(f"<p>{html.escape(what)}:</p><pre>{html.escape(text)}</pre>")
    if content.compared is not None:
        parts.append(_comparison_table(content.compared))
    varied = [axis for axis in content.axes if content.frame[axis].n_unique() > 1]
    if varied:
        parts += _interactive(len(varied) > 1)
    for caption, path in content.pictures.items():
        encoded = base64.b64encode(path.read_bytes()).decode()
        parts.append(f'<h2>{html.escape(caption)}</h2><img alt="{html.escape(caption)}" '
                     f'src="data:image/png;base64,{encoded}">')  # fmt: skip
    if content.findings.correlations:
        note = "Readings of the instruments before training, against the score; members that diverged are left out."
        parts.append(_section("What was known before training", "correlations", note))
    parts.append('<h2>Members</h2><div class="scroll"><table id="members"></table></div>')
    body = "\n".join(parts)
    return (
        "<!DOCTYPE html>\n"
        f'<html lang="en"><head><meta charset="utf-8"><title>{html.escape(content.title)}</title>'
        f"<style>{STYLE.read_text()}</style><script>{get_plotlyjs()}</script></head>\n<body>\n{body}\n"
        f'<script type="application/json" id="data">{_json(_data(content, varied))}</script>\n'
        f"<script>{SCRIPT.read_text()}</script>\n</body></html>\n"
    )


def _interactive(several: bool) -> list[str]:
    parts = []
    note = "Orange: members that diverged; the colour is of the others. Click a choice to change it."
    choices = {"heat-x": "across", "heat-y": "up", "heat-metric": "colour", "heat-how": "of several members"}
    parts.append(_section("Any two axes", "heat", note, choices, hidden=not several))
    parts.append(
        _section("Learning curves", "curves", "Median and quartiles over members.", {"curves-by": "a line for each"})
    )
    note = "Median over members, and the interval of the median over seeds, which covers the true one as often as said."
    parts.append(_section("Effect of an axis", "effects", note, {"effects-axis": "axis"}))
    choices = {"scatter-x": "across", "scatter-y": "up", "scatter-by": "colour"}
    parts.append(
        _section("Instruments and scores", "scatter", "A mark for each member, a cross if it diverged.", choices)
    )
    return parts


def _comparison_table(compared: pl.DataFrame) -> str:
    """The table of settings compared over seeds."""
    shown = [name for name in compared.columns if name not in ("is_tuned", "least_p")]
    head = "".join(f"<th>{html.escape(name.replace('_', ' '))}</th>" for name in shown)
    rows = [
        "".join(f"<td>{html.escape(_cell(value))}</td>" for value in row) for row in compared.select(shown).iter_rows()
    ]
    note = (
        "Differences are value minus base, of members of one seed; folds of a seed are averaged. The interval, low to "
        "high, is a paired t of 95 %; p is of exchanging the two of each seed, corrected by Holm for the rows. How "
        "many seeds are needed is an estimate."
    )
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f'<section><h2>Compared over seeds</h2><p class="note">{note}</p><div class="scroll"><table id="compared">'
        f"<tr>{head}</tr>{body}</table></div></section>"
    )


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _section(
    title: str, name: str, note: str, choices: Mapping[str, str] | None = None, *, hidden: bool = False
) -> str:
    labels = "".join(f'<label>{text} <select id="{id_}"></select></label>' for id_, text in (choices or {}).items())
    style = ' style="display: none"' if hidden else ""
    return (
        f'<section{style}><h2>{title}</h2><p class="note">{note}</p><p>{labels}</p><div id="{name}"></div>'
        f'<p class="note" id="{name}-note"></p></section>'
    )


def _data(content: PageContent, varied: Sequence[str]) -> Json:
    frame, findings = content.frame, content.findings
    shown = [axis for axis in content.axes if axis in varied]
    effects = {
        axis: [{**effect._asdict(), "value": effect.value[0]} for effect in of_axis]
        for axis, of_axis in findings.effects.items()
        if axis in varied
    }
    return {
        "rows": frame.to_dicts(),
        "columns": frame.columns,
        "axes": shown,
        "metrics": [name for name in frame.columns if name.startswith(SHOWN) and frame[name].dtype.is_numeric()],
        "score": findings.score,
        "goal": findings.score.removeprefix("best_valid_"),
        "direction": findings.direction,
        "effects": effects,
        "correlations": findings.correlations,
        "curves": content.curves,
        "id": ID,
    }


def _json(data: object) -> str:
    """JSON fit for a script element, with null for numbers that it does not have."""

    def plain(value: object) -> Any:
        if isinstance(value, Mapping):
            return {str(key): plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(plain(data)).replace("</", "<\\/")
