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

SEED = "seed"
DIVERGED, HALVED = EndReason.DIVERGED.value, EndReason.HALVED.value
RESAMPLES = 2000
CONFIDENCE = 0.95
FEWEST = 3  # members of a combination from which luck is looked at
FEWEST_TO_EXCLUDE = 4  # of two times three without any difference, all of one lie before the other once in ten
PERMUTATIONS = 9999


class Effect(NamedTuple):
    """The score at one value of an axis, or of a combination of them.

    Attributes:
        value: the value, or those of a combination.
        median: of the score over members.
        low, high: interval of the median over repeats, see `median_interval`; NaN of one.
        members: how many; `seeds`: how many different seeds; `diverged`: how many of them diverged.
        coverage: probability with which the interval covers the true median, 0 of one repeat.
    """

    value: tuple[Any, ...]
    median: float
    low: float
    high: float
    members: int
    seeds: int
    diverged: int
    coverage: float


class Correlation(NamedTuple):
    """A rank correlation.

    Attributes:
        rho: its value.
        p: of no correlation, corrected for how many readings were looked at.
        members: how many.
        within: axes within whose values members are ranked.
        starts: distinct beginnings that `p` is about: initialisations, or initial networks of one; see `correlations`.
    """

    rho: float
    p: float
    members: int
    within: tuple[str, ...]
    starts: int


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

    One initial network under seven learning rates is one network, and seeds of one initialisation are its repeats.
    Hence `p` is of a permutation test (Fisher 1935; with 9,999 random permutations and the observed order) of the mean
    ranks of distinct starts: of initialisations, where settings that the reading depends on differ, else of initial
    networks, by seed. It is multiplied by the number of readings (Bonferroni): the best of several is looked at.
    """
    alive = frame.filter(pl.col(STATUS) != DIVERGED)
    by_reading = {}
    for name in (name for name in frame.columns if name.startswith(f"{INIT}_")):
        within = [axis for axis in axes if _inert(alive, axis, axes, name)]
        settings = [axis for axis in axes if axis not in (*within, *REPEATS)]
        # One setting has networks by seed; folds are other data for the same network.
        differ = bool(settings) and alive.select(settings).n_unique() > 1
        start_axes = settings if differ else [axis for axis in axes if axis == SEED]
        ranks, starts = _pooled_ranks(alive, name, score, within, start_axes)
        if not len(ranks) or not ranks[:, 0].any() or not ranks[:, 1].any():
            continue
        rho = float(np.clip(_cosine(*ranks.T), -1.0, 1.0))
        means = np.array([ranks[[s == start for s in starts]].mean(axis=0) for start in dict.fromkeys(starts)])
        by_reading[name] = Correlation(rho, _permutation_p(*means.T), len(ranks), tuple(within), len(means))
    count = len(by_reading)
    return {name: one._replace(p=min(1.0, count * one.p)) for name, one in by_reading.items()}


def _pooled_ranks(
    frame: pl.DataFrame, reading: str, score: str, within: Sequence[str], start_axes: Sequence[str]
) -> tuple[np.ndarray, list[tuple[Any, ...]]]:
    """Centred ranks of reading and score within each group, `[members, 2]`, and every member's values on some axes."""
    columns, starts = [np.zeros((0, 2))], []
    for _, part in _groups(frame, within):
        known = part.filter(pl.all_horizontal(pl.col(reading, score).is_not_null() & ~pl.col(reading, score).is_nan()))
        pairs = known.select(reading, score).to_numpy()
        if len(pairs) > 2 and len(np.unique(pairs[:, 0])) > 1:
            ranks = stats.rankdata(pairs, axis=0)
            columns.append((ranks - ranks.mean(axis=0)) / len(pairs))
            starts += known.select(start_axes).rows() if start_axes else [()] * len(pairs)
    return np.concatenate(columns), starts


def _permutation_p(x: np.ndarray, y: np.ndarray) -> float:
    """The two-sided p of no correlation, by random permutations; 1 where there is nothing to permute."""
    x, y = x - x.mean(), y - y.mean()
    draws = np.random.default_rng(0).permuted(np.tile(y, (PERMUTATIONS, 1)), axis=1)
    slack = 1e-9 * np.sqrt((x @ x) * (y @ y))  # equal ones differ in their rounding
    return float((1 + np.sum(np.abs(draws @ x) >= abs(x @ y) - slack)) / (1 + PERMUTATIONS))


def _cosine(x: np.ndarray, y: np.ndarray) -> float:
    return float((x @ y) / np.sqrt((x @ x) * (y @ y)))


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
        f"{best.median:.4g} ({_interval(best)}{best.members} member{'s' * (best.members > 1)}); "
        f"its median test score is {findings.tested:.4g}."
    )
    if findings.ahead is None and count > 1:
        sentences.append(
            f"With fewer than {FEWEST} members of a combination, luck cannot be judged: more seeds would tell."
        )
    if findings.ahead is not None:
        second = findings.combinations[1]
        # The better of two is put first, whichever it is: the level of a test on both sides.
        excluded = min(best.members, second.members) >= FEWEST_TO_EXCLUDE and findings.ahead >= (1 + CONFIDENCE) / 2
        luck = "which seeds do not explain" if excluded else "so seeds alone could have put it first"
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
        readings = f"{len(findings.correlations)} reading{'s' * (len(findings.correlations) > 1)}"
        sentences.append(
            f"Of the readings before training, {name} goes best with the score: rank correlation {correlation.rho:.2f}"
            f"{among} ({correlation.members} members, p = {correlation.p:.2g} over {correlation.starts} starts, "
            f"corrected for {readings}){chance}."
        )
    return sentences


def _interval(effect: Effect) -> str:
    if not effect.coverage:
        return ""
    return f"{effect.low:.4g} to {effect.high:.4g} covers the true median with {effect.coverage:.0%}, "


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
    # What varies by design is no luck: of each repeat, the median over whatever else its members differ in.
    repeats = [axis for axis in REPEATS if axis in part.columns]
    medians = [np.median(_scores(repeat, score, direction)) for _, repeat in _groups(part, repeats)]
    low, high, coverage = median_interval(np.array(medians if repeats else values))
    seeds = part[SEED].n_unique() if SEED in part.columns else 1
    diverged = int((part[STATUS] == DIVERGED).sum())
    return Effect(key, float(np.median(values)), low, high, len(values), seeds, diverged, coverage)


def median_interval(values: np.ndarray) -> tuple[float, float, float]:
    """An interval of the median, and the probability with which it covers the true one, whatever the distribution.

    From the k-th smallest to the k-th largest of n values, which covers with P(k <= Bin(n, 1/2) <= n - k): the largest
    k that reaches 95 %, or 1. The range of two covers 50 %, of three 75 %, of five 94 %; 95 % takes six. Of one there
    is none: NaN, NaN and 0. Conover 1999, Practical Nonparametric Statistics, section 3.2.

    Examples:
        >>> import numpy as np
        >>> from gru_jax.studies.report.findings import median_interval
        >>> median_interval(np.array([1.0, 5.0, 2.0]))
        (1.0, 5.0, 0.75)
    """
    n, ordered = len(values), np.sort(values)
    if n < 2:
        return math.nan, math.nan, 0.0
    coverage = {k: 1.0 - 2.0 * float(stats.binom.cdf(k - 1, n, 0.5)) for k in range(1, (n + 1) // 2 + 1)}
    k = max((k for k in coverage if coverage[k] >= CONFIDENCE), default=1)
    return float(ordered[k - 1]), float(ordered[n - k]), coverage[k]


def _resampled(values: np.ndarray) -> np.ndarray:
    """Medians of bootstrap samples."""
    # Not scipy.stats.bootstrap, which has no answer where members diverged to infinity.
    rows = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    return np.median(values[rows], axis=1)


def _ahead(one: np.ndarray, two: np.ndarray, direction: str) -> float:
    first, second = map(_resampled, (one, two))
    second = np.random.default_rng(1).permutation(second)
    return float(np.mean(first < second if direction == "min" else first > second))
