"""Two settings compared over seeds: differences between runs that share their seed and everything else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from scipy import stats

from gru_jax.errors import ArgumentError, check_argument
from gru_jax.studies.axes import REPEATS
from gru_jax.studies.report.findings import CONFIDENCE, FEWEST_TO_RESAMPLE, HALVED, member_scores
from gru_jax.studies.report.table import STATUS, value_of_label

FEWEST_PAIRS = FEWEST_TO_RESAMPLE  # of fewer there is no interval: their spread is a guess
POWER = 0.8
MOST_SEEDS = 1000  # that an estimate of how many are needed goes up to
SCORES = ("best_valid", "final_valid", "best_test", "final_test")

Repeats = dict[tuple[Any, ...], float | None]
"""Scores of one setting by seed and folds; None of a member that was halved, and so trained for less."""


class ComparisonRequest(NamedTuple):
    """What is to be compared.

    Attributes:
        axis: whose values.
        values: of it, as typed, the first of which the others are compared with; all, in their order, if empty.
        score: a column, `best_valid_<metric>` as a rule, or of the test; None for the one that decides.
    """

    axis: str
    values: Sequence[str] = ()
    score: str | None = None


class PairedDifference(NamedTuple):
    """Differences over seeds.

    Attributes:
        pairs: seeds of which there are both; `lost`: of these, in which one of the two diverged, or both.
        mean: of the differences, where neither diverged; NaN where there are none.
        low, high: interval of the true mean, see `mean_interval`; NaN of fewer than five.
        p: of no difference, two-sided, over all pairs, see `signed_rank_p`; `least_p`: the least that so many can give.
        needed: seeds that would settle it, see `seeds_needed`; None where more than 1000 or nobody can tell.
    """

    pairs: int
    lost: int
    mean: float
    low: float
    high: float
    p: float
    least_p: float
    needed: int | None

    @property
    def is_settled(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


def pair_up(one: np.ndarray, two: np.ndarray) -> PairedDifference:
    """The differences, second minus first, of two arrays of scores of the same seeds; infinite ones diverged.

    Examples:
        >>> import numpy as np
        >>> from gru_jax.studies.report.paired import pair_up
        >>> pairs = pair_up(np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([1.5, 2.4, 3.6, 4.5, 5.5]))
        >>> round(pairs.mean, 3), round(pairs.low, 3), round(pairs.high, 3), pairs.p
        (0.5, 0.412, 0.588, 0.0625)
    """
    with np.errstate(invalid="ignore"):
        differences = np.where(one == two, 0.0, two - one)  # both may have diverged
    known = differences[np.isfinite(one) & np.isfinite(two)]
    p, least_p = signed_rank_p(differences)
    mean = float(known.mean()) if len(known) else math.nan
    return PairedDifference(
        len(one), len(one) - len(known), mean, *mean_interval(known), p, least_p, seeds_needed(known)
    )


def mean_interval(differences: np.ndarray) -> tuple[float, float]:
    """The interval of a mean that covers the true one with 95 %, by Student's t; NaN of fewer than five differences.

    Exact where differences are normal, and with seeds near that. Student 1908, Biometrika 6, 1-25.
    """
    n = len(differences)
    if n < FEWEST_PAIRS:
        return math.nan, math.nan
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * differences.std(ddof=1) / math.sqrt(n))
    return float(differences.mean()) - half, float(differences.mean()) + half


def signed_rank_p(differences: np.ndarray) -> tuple[float, float]:
    """The two-sided p of no difference between pairs, and the least that so many can give; exact.

    Of all ways to exchange the two of each pair, the share in which the sum of signed ranks is as far from zero as it
    is. Differences may be infinite; zeros take ranks and no side (Wilcoxon 1945; Pratt 1959). Of four pairs no p is
    less than 0.125, of six 0.031.

    Examples:
        >>> import numpy as np
        >>> from gru_jax.studies.report.paired import signed_rank_p
        >>> signed_rank_p(np.array([0.1, 0.3, np.inf, 0.2]))
        (0.125, 0.125)
    """
    doubled = np.rint(2 * stats.rankdata(np.abs(differences))).astype(int)[differences != 0]  # ties have half ranks
    signs = np.sign(differences[differences != 0])
    chances = np.ones(1)  # of sums of the ranks on one side, in halves
    for rank in doubled:
        chances = (np.append(chances, np.zeros(rank)) + np.append(np.zeros(rank), chances)) / 2
    distance = np.abs(2 * np.arange(len(chances)) - doubled.sum())
    p = float(chances[distance >= abs(int((doubled * signs).sum()))].sum())
    return min(1.0, p), min(1.0, 2.0 ** (1 - len(doubled)))


def seeds_needed(differences: np.ndarray) -> int | None:
    """Of how many seeds the interval of the mean would exclude zero with 80 % power, if the true mean and spread were
    those observed; None where that is more than 1000, or there are fewer than two.

    By the noncentral t distribution. An estimate, and from few seeds a rough one: it is as uncertain as the mean is.
    Cohen 1988, Statistical Power Analysis, chapter 2.

    Examples:
        >>> import numpy as np
        >>> from gru_jax.studies.report.paired import seeds_needed
        >>> seeds_needed(np.array([0.0, 1.0]))  # mean and standard deviation are 0.5 and 0.71
        18
    """
    if len(differences) < 2:
        return None
    mean, spread = float(differences.mean()), float(differences.std(ddof=1))
    if spread <= 1e-12 * abs(mean) or mean == 0:
        return None if mean == 0 else FEWEST_PAIRS
    n = np.arange(FEWEST_PAIRS, MOST_SEEDS + 1)
    reached = np.flatnonzero(power_of(n, mean / spread) >= POWER)
    return int(n[reached[0]]) if len(reached) else None


def power_of(n: np.ndarray, effect: float) -> np.ndarray:
    """With which probability the interval of so many differences excludes zero.

    Args:
        n: how many differences, `[counts]`, two or more each.
        effect: their true mean in standard deviations.
    """
    noncentral, limit = abs(effect) * np.sqrt(n), stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)
    power = stats.nct.sf(limit, n - 1, noncentral) + stats.nct.cdf(-limit, n - 1, noncentral)
    return np.where(np.isnan(power), (noncentral > limit).astype(float), power)  # far out it has no value


def compare_settings(
    frame: pl.DataFrame, axes: Sequence[str], goal: Sequence[str], request: ComparisonRequest
) -> pl.DataFrame:
    """The values of an axis compared with the first of them, over seeds.

    A row for every combination of the other axes that both have: same seed, same everything else. Where a value has
    several such settings there is one row more, in which each is at its own best one, by the median validation score
    (`is_tuned`). Of a seed the folds that both have are averaged. Differences are value minus base.

    Args:
        frame: the table of a study, or of several.
        axes: its columns that vary by design.
        goal: the metric that decides, and its direction.
        request: what is compared.

    Returns:
        columns `axis`, `base`, `value`, `setting`, `is_tuned`, `score`, `pairs`, `unpaired` (seeds that only one has),
        `halved` (seeds that are left out, as a member of them was halved), `lost`, `difference`, `low`, `high`, `p`,
        `least_p`, `p_corrected` (Holm, over the rows that decide, see `decisive`, or over the others), `better` (of the
        two; empty where they are equal, or the mean is unknown) and `seeds_needed`.

    Raises:
        UsageError: there is no such axis, value or score, or no seed in common.
    """
    axis, score = request.axis, request.score or f"best_valid_{goal[0]}"
    check_argument("compare", axis, [name for name in axes if name not in REPEATS])
    check_argument("score", score, [name for which in SCORES if (name := f"{which}_{goal[0]}") in frame.columns])
    base, *others = _values(frame, axis, request.values)
    rows = [row for value in others for row in _rows(frame, axes, goal, axis, base, value, score)]
    if not rows:
        raise ArgumentError(
            f"compare={axis}: {base} shares no seed and fold with the others; allowed are members of equal "
            "ones, that were not halved"
        )
    decides = decisive(pl.DataFrame({name: [row[name] for row in rows] for name in ("value", "is_tuned")})).to_list()
    for kind in (True, False):
        of_kind = [row for row, does in zip(rows, decides, strict=True) if does == kind]
        for row, p in zip(of_kind, holm([row["p"] for row in of_kind]), strict=True):
            row["p_corrected"] = p
    named = [name for name in rows[0] if name not in ("p_corrected", "better", "seeds_needed")]
    columns = [*named, "p_corrected", "better", "seeds_needed"]
    types = {"seeds_needed": pl.Int64}
    return pl.DataFrame({name: [row[name] for row in rows] for name in columns}, schema_overrides=types)


def decisive(rows: pl.DataFrame) -> pl.Series:
    """Which rows of `compare_settings` decide about their value: where it is at its best, or all if it has one setting.

    Returns:
        true or false, `[rows]`.
    """
    tuned = rows.filter("is_tuned")["value"].to_list()
    return rows["is_tuned"] | ~rows["value"].is_in(tuned)


def holm(p: Sequence[float]) -> list[float]:
    """Values of p corrected for how many they are. Holm 1979, Scandinavian Journal of Statistics 6, 65-70.

    Examples:
        >>> from gru_jax.studies.report.paired import holm
        >>> holm([0.04, 0.01, 0.5])
        [0.08, 0.03, 0.5]
    """
    corrected, least = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        least = max(least, min(1.0, (len(p) - rank) * p[i]))
        corrected[i] = least
    return corrected


def _values(frame: pl.DataFrame, axis: str, typed: Sequence[str]) -> list[Any]:
    """The values of an axis that are meant, the base first."""
    present = frame[axis].unique(maintain_order=True).to_list()
    if not typed:
        chosen = present
    else:
        by_text = {str(value): value for value in present}
        chosen = []
        for text in typed:
            same = [value for value in present if value == value_of_label(text) and value is not None]
            if not same:
                check_argument(f"compare={axis}", text, by_text)
            chosen.append(same[0] if same else by_text[text])
        if len(chosen) == 1:
            chosen += [value for value in present if value != chosen[0]]
    if len(chosen) < 2 or len(set(chosen)) < len(chosen):
        raise ArgumentError(
            f"compare={axis}: two different values are needed; there are {', '.join(map(str, present))}"
        )
    return chosen


def _rows(
    frame: pl.DataFrame, axes: Sequence[str], goal: Sequence[str], axis: str, base: Any, value: object, score: str
) -> list[dict[str, Any]]:
    sides = [frame.filter(pl.col(axis).eq_missing(pl.lit(side))) for side in (base, value)]
    others = [name for name in axes if name != axis and name not in REPEATS]
    # A key that one side does not have at all, and the other at one value, tells no members of a side apart.
    shared = [name for name in others if not any(side[name].is_null().all() for side in sides)]
    is_comparable = all(side[name].n_unique() == 1 for side in sides for name in others if name not in shared)
    settings = [_by_setting(side, shared if is_comparable else others, score, goal[1]) for side in sides]
    rows = []

    def add(setting: str, one: Repeats, two: Repeats, is_tuned: bool) -> None:
        both = [repeat for repeat in one if repeat in two]
        by_seed = [_mean_by_seed({r: side[r] for r in both if None not in (one[r], two[r])}) for side in (one, two)]
        seeds = list(by_seed[0])
        if not seeds:
            return
        halved = {seed for seed, *_ in both} - set(seeds)
        pairs = pair_up(*(np.array([side[seed] for seed in seeds]) for side in by_seed))
        unpaired = len({seed for seed, *_ in (*one, *two)} - halved) - len(seeds)
        rows.append(
            {"axis": axis, "base": str(base), "value": str(value), "setting": setting, "is_tuned": is_tuned,
             "score": score, "pairs": pairs.pairs, "unpaired": unpaired, "halved": len(halved), "lost": pairs.lost,
             "difference": pairs.mean, "low": pairs.low, "high": pairs.high, "p": pairs.p, "least_p": pairs.least_p,
             "better": _better(pairs.mean, goal[1], str(base), str(value)), "seeds_needed": pairs.needed}
        )  # fmt: skip

    if is_comparable:
        for key, one in settings[0].items():
            if key in settings[1]:
                add(_named(shared, key), one, settings[1][key], False)
    if max(map(len, settings)) > 1:
        names = shared if is_comparable else others
        judged = [_by_setting(side, names, f"best_valid_{goal[0]}", goal[1]) for side in sides]
        best = [_best(side, goal[1]) for side in judged]
        described = " against ".join(_named(names, key) for key in reversed(best))
        add(f"each at its best: {described}", settings[0][best[0]], settings[1][best[1]], True)
    return rows


def _by_setting(part: pl.DataFrame, names: Sequence[str], score: str, direction: str) -> dict[Any, Repeats]:
    """By setting, the score of each seed and fold."""
    columns = {name: part[name].to_list() if name in part.columns else [None] * part.height for name in REPEATS}
    keys = part.select(names).rows() if names else [()] * part.height
    scores: dict[Any, Repeats] = {}
    values = member_scores(part, score, direction).tolist()
    for key, repeat, value, status in zip(keys, zip(*columns.values(), strict=True), values, part[STATUS], strict=True):
        scores.setdefault(key, {})[repeat] = None if status == HALVED else value
    return scores


def _mean_by_seed(scores: Repeats) -> dict[Any, float]:
    """The score of each seed: the mean over its folds that were not halved."""
    gathered: dict[Any, list[float]] = {}
    for (seed, *_), value in scores.items():
        if value is not None:
            gathered.setdefault(seed, []).append(value)
    return {seed: float(np.mean(values)) for seed, values in gathered.items()}


def _best(settings: dict[Any, Repeats], direction: str) -> Any:
    sign = 1 if direction == "min" else -1

    def median(key: Any) -> float:
        """Halving is of members: one that is left alone of its setting makes that no better."""
        return float(np.median([math.inf if score is None else sign * score for score in settings[key].values()]))

    return min(settings, key=median)


def _better(mean: float, direction: str, base: str, value: str) -> str:
    if math.isnan(mean) or mean == 0:
        return ""
    return value if (mean < 0) == (direction == "min") else base


def _named(names: Sequence[str], values: Sequence[Any]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in zip(names, values, strict=True) if value is not None)
