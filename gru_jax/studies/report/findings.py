"""What can be concluded from the table of a study."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from scipy import stats

from gru_jax.runs.early_stopping import EndReason
from gru_jax.studies.axes import REPEATS
from gru_jax.studies.report.table import ID, INIT, STATUS

DIVERGED, HALVED = EndReason.DIVERGED.value, EndReason.HALVED.value
RESAMPLES = 2000
CONFIDENCE = 0.95
FEWEST = 3  # members of a combination from which luck can be judged


class Effect(NamedTuple):
    """The score at one value of an axis, or of a combination of them.

    Attributes:
        value: the value, or those of a combination.
        median: of the score over members.
        low, high: bootstrap interval of the median.
        members: how many; `seeds`: how many different seeds; `diverged`: how many of them diverged.
    """

    value: tuple[Any, ...]
    median: float
    low: float
    high: float
    members: int
    seeds: int
    diverged: int


class Correlation(NamedTuple):
    """A rank correlation.

    Attributes:
        rho: its value.
        p: of no correlation.
        members: how many.
        within: axes within whose values members are ranked.
    """

    rho: float
    p: float
    members: int
    within: tuple[str, ...]


class Findings(NamedTuple):
    """What a study says.

    Attributes:
        score: the column that decides; `direction`: min or max of it.
        axes: those that are not repeats.
        combinations: of their values, best first.
        ahead: share of resamples of the members in which the best combination stays ahead of the second; None where
            one of them has fewer than `FEWEST`.
        best: id of the best member of the best combination.
        tested: median of the test score over the best combination's members that did not diverge.
        effects: by axis, of each of its values.
        correlations: by column of the instruments at initialisation, with the score.
    """

    score: str
    direction: str
    axes: list[str]
    combinations: list[Effect]
    ahead: float | None
    best: str
    tested: float
    effects: dict[str, list[Effect]]
    correlations: dict[str, Correlation]


def find_findings(frame: pl.DataFrame, axes: Sequence[str], goal: Sequence[str]) -> Findings:
    """Choose on validation data, look at test data once, and say how sure that is.

    A member that diverged counts as worse than all others. Members of a combination differ in seed and fold alone.
    """
    name, direction = goal
    score = f"best_valid_{name}"
    varied = [axis for axis in axes if axis not in REPEATS]
    parts = dict(_groups(frame, varied))
    ranked = sorted(
        (_effect(key, part, score, direction) for key, part in parts.items()),
        key=lambda effect: _worse(effect.median, direction),
    )
    chosen = parts[ranked[0].value]
    order = [_worse(value, direction) for value in _scores(chosen, score, direction)]
    alive = chosen.filter(pl.col(STATUS) != DIVERGED)
    tested = [math.nan if v is None else v for v in alive[f"best_test_{name}"].to_list()]
    effects = {axis: [_effect(key, part, score, direction) for key, part in _groups(frame, [axis])] for axis in axes}
    rivals = [_scores(parts[effect.value], score, direction) for effect in ranked[:2]]
    judged = len(rivals) == 2 and min(map(len, rivals)) >= FEWEST
    ahead = _ahead(rivals[0], rivals[1], direction) if judged else None
    return Findings(
        score=score,
        direction=direction,
        axes=varied,
        combinations=ranked,
        ahead=ahead,
        best=chosen[ID][int(np.argmin(order))],
        tested=float(np.nanmedian(tested)) if np.isfinite(tested).any() else math.nan,
        effects=effects,
        correlations=correlations(frame, axes, score),
    )


def correlations(frame: pl.DataFrame, axes: Sequence[str], score: str) -> dict[str, Correlation]:
    """Rank correlation of every instrument's reading at initialisation with the score of members that did not diverge.

    Readings before training do not know of, say, the learning rate, which the score depends on all the more: members
    are ranked among those that share their values on all axes that leave the reading as it is. Spearman's correlation,
    pooled within these groups; readings that do not vary are left out.
    """
    alive = frame.filter(pl.col(STATUS) != DIVERGED)
    by_reading = {}
    for name in (name for name in frame.columns if name.startswith(f"{INIT}_")):
        within = [axis for axis in axes if _inert(alive, axis, axes, name)]
        columns, groups = [], 0
        for _, part in _groups(alive, within):
            pairs = part.select(name, score).drop_nulls().drop_nans().to_numpy()
            if len(pairs) > 2 and len(np.unique(pairs[:, 0])) > 1:
                ranks = stats.rankdata(pairs, axis=0)
                columns.append((ranks - ranks.mean(axis=0)) / len(pairs))
                groups += 1
        if not columns:
            continue
        x, y = np.concatenate(columns).T
        if not x.any() or not y.any():
            continue
        rho = float(np.clip((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum()), -1.0, 1.0))
        freedom = len(x) - groups - 1
        t = rho * math.sqrt(max(freedom, 0) / max(1.0 - rho**2, 1e-300))
        p = float(2 * stats.t.sf(abs(t), freedom)) if freedom > 0 else 1.0
        by_reading[name] = Correlation(rho, p, len(x), tuple(within))
    return by_reading


def _inert(frame: pl.DataFrame, axis: str, axes: Sequence[str], reading: str) -> bool:
    """Whether a reading is the same whatever the value on this axis, all else equal, as far as members show it."""
    others = [other for other in axes if other != axis]
    groups = [part for _, part in _groups(frame, others) if part[axis].n_unique() > 1]
    return bool(groups) and all(part[reading].drop_nulls().n_unique() <= 1 for part in groups)


def describe_findings(findings: Findings, frame: pl.DataFrame, reached_target: int) -> list[str]:
    """The findings in words, of a study of which so many members stopped at their target."""
    best, count = findings.combinations[0], len(findings.combinations)
    diverged = int((frame[STATUS] == DIVERGED).sum())
    halved = int((frame[STATUS] == HALVED).sum())
    sentences = [f"{frame.height} members, {diverged} diverged" + (f", {halved} halved" if halved else "") + "."]
    what = _named(findings.axes, best.value)
    sentences.append(
        f"Best of {count} combination{'s' * (count > 1)} on validation data: {what}; median {findings.score} "
        f"{best.median:.4g} ({CONFIDENCE:.0%} interval {best.low:.4g} to {best.high:.4g}, {best.members} members); "
        f"its median test score is {findings.tested:.4g}."
    )
    if findings.ahead is None and count > 1:
        sentences.append(
            f"With fewer than {FEWEST} members of a combination, luck cannot be judged: more seeds would tell."
        )
    if findings.ahead is not None:
        second = findings.combinations[1]
        luck = "so seeds alone could have put it first" if findings.ahead < CONFIDENCE else "which seeds do not explain"
        sentences.append(
            f"The second is {_named(findings.axes, second.value)}, {second.median:.4g}: the first stays ahead in "
            f"{findings.ahead:.0%} of resamples of the members, {luck}."
        )
    if reached_target:
        sentences.append(
            f"{reached_target} members stopped at their target: among these, compare the steps rather than the score."
        )
    if findings.correlations:
        name, correlation = max(findings.correlations.items(), key=lambda item: abs(item[1].rho))
        among = f", within each {' and '.join(correlation.within)}" if correlation.within else ""
        chance = "" if correlation.p < 1 - CONFIDENCE else ", which may be chance"
        sentences.append(
            f"Of the readings before training, {name} goes best with the score: rank correlation {correlation.rho:.2f}"
            f"{among} (p = {correlation.p:.2g}, {correlation.members} members){chance}."
        )
    return sentences


def _named(axes: Sequence[str], values: Sequence[Any]) -> str:
    shown = (f"{axis} = {value}" for axis, value in zip(axes, values, strict=True) if value is not None)
    return ", ".join(shown) or "the only one"


def _groups(frame: pl.DataFrame, names: Sequence[str]) -> list[tuple[tuple[Any, ...], pl.DataFrame]]:
    if not names:
        return [((), frame)]
    return list(frame.group_by(names, maintain_order=True))  # type: ignore[arg-type]


def _scores(part: pl.DataFrame, score: str, direction: str) -> np.ndarray:
    worst = math.inf if direction == "min" else -math.inf
    diverged = (part[STATUS] == DIVERGED).to_numpy()
    values = np.array([math.nan if value is None else value for value in part[score].to_list()], float)
    return np.where(diverged | np.isnan(values), worst, values)


def _worse(value: float, direction: str) -> float:
    return value if direction == "min" else -value


def _effect(key: tuple[Any, ...], part: pl.DataFrame, score: str, direction: str) -> Effect:
    values = _scores(part, score, direction)
    medians = _resampled(values)
    low, high = np.quantile(medians, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], method="inverted_cdf")
    seeds = part["seed"].n_unique() if "seed" in part.columns else 1
    diverged = int((part[STATUS] == DIVERGED).sum())
    return Effect(key, float(np.median(values)), float(low), float(high), len(values), seeds, diverged)


def _resampled(values: np.ndarray) -> np.ndarray:
    """Medians of bootstrap samples."""
    # Not scipy.stats.bootstrap, which has no answer where members diverged to infinity.
    rows = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    return np.median(values[rows], axis=1)


def _ahead(one: np.ndarray, two: np.ndarray, direction: str) -> float:
    first, second = map(_resampled, (one, two))
    second = np.random.default_rng(1).permutation(second)
    return float(np.mean(first < second if direction == "min" else first > second))
