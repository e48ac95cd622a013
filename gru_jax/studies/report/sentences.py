"""What was found in a study, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from gru_jax.runs.summary import baselines_of, worse_than
from gru_jax.runtime.files import Json
from gru_jax.studies.report.findings import CONFIDENCE, DIVERGED, FEWEST, HALVED, LOSS, Effect, Findings
from gru_jax.studies.report.paired import FEWEST_PAIRS, MOST_SEEDS, POWER, decisive
from gru_jax.studies.report.table import STATUS

MOST_NAMED = 3  # combinations in a sentence
MOST_COMPARED = 8  # comparisons that have a sentence


def describe_findings(findings: Findings, frame: pl.DataFrame, reached_target: int) -> list[str]:
    """The findings in words, of a study of which so many members stopped at their target."""
    best, count = findings.combinations[0], len(findings.combinations)
    diverged = int((frame[STATUS] == DIVERGED).sum())
    halved = int((frame[STATUS] == HALVED).sum())
    sentences = [f"{counted(frame.height, 'member')}, {diverged} diverged" + f", {halved} halved" * bool(halved) + "."]
    what = _named(findings.axes, best.value)
    has_test = any(name.startswith("best_test_") for name in frame.columns)
    tested = f"its median test score is {findings.tested:.4g}" if has_test else "there is no test score"
    sentences.append(
        f"Best of {count} combination{'s' * (count > 1)} on validation data: {what}; median {findings.score} "
        f"{best.median:.4g} ({_interval(best)}{counted(best.members, 'member')}{_halved(best)}); {tested}."
    )
    sentences += _describe_ties(findings) + _describe_lead(findings)
    if reached_target:
        sentences.append(
            f"{counted(reached_target, 'member')} stopped at {'their' if reached_target > 1 else 'its'} target: among "
            "these, compare the steps rather than the score."
        )
    if findings.correlations:
        name, correlation = max(findings.correlations.items(), key=lambda item: abs(item[1].rho))
        among = f", within each {' and '.join(correlation.within)}" if correlation.within else ""
        chance = "" if correlation.p < 1 - CONFIDENCE else ", which may be chance"
        readings = counted(len(findings.correlations), "reading")
        sentences.append(
            f"Of the readings before training, {name} goes best with the score: rank correlation {correlation.rho:.2f}"
            f"{among} ({correlation.members} members, p = {correlation.p:.2g} over "
            f"{counted(correlation.starts, 'start')}, corrected for {readings}){chance}."
        )
    return sentences


def describe_baselines(summary: Json, tested: float) -> list[str]:
    """What answers without a network score in test, by the summary of a run, and which a test score is worse than."""
    goal = summary["goal"][0]
    scores = [f"{answer} {score:.4g}" for answer, score in baselines_of(summary, goal).items()]
    worse = worse_than(summary, goal, tested)
    said = [f"Without a network, by the test {goal}: {', '.join(scores)}."] if scores else []
    return said + [f"The best is worse than {' and '.join(worse)}."] * bool(worse)


def _describe_ties(findings: Findings) -> list[str]:
    """With which combinations the best is tied, and what put it first."""
    if not findings.tied:
        return []
    names = [_named(findings.axes, effect.value) for effect in findings.combinations[1 : 1 + findings.tied]]
    others = "; ".join(names[:MOST_NAMED]) + f"; and {len(names) - MOST_NAMED} more" * (len(names) > MOST_NAMED)
    told_apart = findings.score != f"best_valid_{LOSS}"
    why = "the median validation loss puts it first" if told_apart else "nothing tells them apart on validation data"
    return [f"It is tied with {others}: {why}."]


def _describe_lead(findings: Findings) -> list[str]:
    """How sure it is that the best combination is before the second."""
    lead, best = findings.lead, findings.combinations[0]
    if len(findings.combinations) < 2:
        return []
    if lead is None:
        return [f"With fewer than {FEWEST} members of a combination, luck cannot be judged: more seeds would tell."]
    second = findings.combinations[1]
    if lead.p < 1 - CONFIDENCE:
        luck = "which seeds do not explain"
    elif lead.least_p >= 1 - CONFIDENCE:
        luck = f"and {best.members} against {second.members} members cannot give less than {lead.least_p:.2g}"
        luck += ": more seeds would tell"
    else:
        luck = "so seeds alone could have put it first"
    ahead = "" if lead.ahead is None else f"the first stays ahead in {lead.ahead:.0%} of resamples of the members; "
    return [
        f"The second is {_named(findings.axes, second.value)}, {second.median:.4g}: {ahead}exchanging members between "
        f"the two gives p = {lead.p:.2g}, {luck}."
    ]


def describe_compared(rows: pl.DataFrame) -> list[str]:
    """The rows of `gru_jax.studies.report.paired.compare_settings` in words: those that decide."""
    chosen = rows.filter(decisive(rows))
    sentences = [_describe_pairs(row, len(chosen)) for row in chosen.head(MOST_COMPARED).iter_rows(named=True)]
    if chosen.height > MOST_COMPARED:
        sentences.append(f"Of {chosen.height} comparisons these are the first {MOST_COMPARED}; the table has all.")
    return sentences


def _describe_pairs(row: Mapping[str, Any], comparisons: int) -> str:
    setting = f" ({row['setting']})" * bool(row["setting"])
    halved = f" ({counted(row['halved'], 'more seed')} left out, as a member was halved)" * bool(row["halved"])
    lost = f", of which {row['lost']} diverged with either" * bool(row["lost"])
    said = f"{row['axis']}, {row['value']} against {row['base']}{setting}, by {row['score']}, paired over "
    said += f"{counted(row['pairs'], 'seed')}{halved}{lost}: "
    if math.isnan(row["difference"]):
        return f"{said}there is no difference to measure."
    favour = f" in favour of {row['better']}" * bool(row["better"])
    said += f"mean difference {row['difference']:+.3g}{favour}; "
    if math.isnan(row["low"]):
        said += f"fewer than {FEWEST_PAIRS} give no interval; "
    else:
        said += f"{row['low']:+.3g} to {row['high']:+.3g} covers the true one with {CONFIDENCE:.0%} (paired t); "
    said += f"exchanging the two of each seed gives p = {row['p']:.2g}"
    said += f", {row['p_corrected']:.2g} corrected for {comparisons} comparisons" * (comparisons > 1)
    if row["p"] == row["least_p"] >= 1 - CONFIDENCE:
        said += ", and so many seeds cannot give less"
    return f"{said}. {_describe_need(row)}"


def _describe_need(row: Mapping[str, Any]) -> str:
    if row["low"] > 0 or row["high"] < 0:
        return "The interval excludes zero."
    known = row["pairs"] - row["lost"]
    if known < 2:
        return "How many seeds would settle it, one pair cannot tell."
    needed = f"about {row['seeds_needed']} seeds" if row["seeds_needed"] else f"more than {MOST_SEEDS} seeds, or none,"
    power = f"an interval that excludes zero with {POWER:.0%} power"
    return f"An estimate from {known} seeds: {needed} would settle a difference of this size ({power})."


def counted(count: int, what: str) -> str:
    """A number of things in words: `1 member`, `2 members`."""
    return f"{count} {what}{'s' * (count != 1)}"


def _halved(effect: Effect) -> str:
    return f", {effect.halved} of them halved, by their scores until then" if effect.halved else ""


def _interval(effect: Effect) -> str:
    if not effect.coverage:
        return ""
    return f"{effect.low:.4g} to {effect.high:.4g} covers the true median with {effect.coverage:.0%}, "


def _named(axes: Sequence[str], values: Sequence[Any]) -> str:
    shown = (f"{axis} = {value}" for axis, value in zip(axes, values, strict=True) if value is not None)
    return ", ".join(shown) or "the only one"
