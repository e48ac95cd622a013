"""What can be concluded from the table of a study."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from scipy import stats

from gru_jax.runs.early_stopping import EndReason
from gru_jax.studies.axes import REPEATS
from gru_jax.studies.report.table import CENSORED, ID, INIT, STATUS

SEED, LOSS = "seed", "loss"
DIVERGED, HALVED = EndReason.DIVERGED.value, EndReason.HALVED.value
RESAMPLES = 2000
CONFIDENCE = 0.95
FEWEST = 3  # members of a combination from which luck is looked at
FEWEST_TO_RESAMPLE = 5  # of fewer, samples with replacement say more than there is to know
PERMUTATIONS = 9999
MOST_EXCHANGES = 50_000  # up to which all are looked at


class Effect(NamedTuple):
    """The score at one value of an axis, or of a combination of them.

    Attributes:
        value: the value, or those of a combination.
        median: of the score over members.
        low, high: interval of the median over repeats, see `median_interval`; NaN of one.
        members: how many; `seeds`: how many different seeds; `diverged`, `halved`: how many members were.
        coverage: probability with which the interval covers the true median, 0 of one repeat.
    """

    value: tuple[Any, ...]
    median: float
    low: float
    high: float
    members: int
    seeds: int
    diverged: int
    halved: int
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


class Lead(NamedTuple):
    """How sure it is that the best combination is before the second.

    Attributes:
        p: of no difference, two-sided, by exchanging members between the two; see `exchange_p`.
        least_p: the least that so many members can give.
        ahead: share of resamples of the members in which the best stays ahead; None where one of them has fewer than
            `FEWEST_TO_RESAMPLE`.
    """

    p: float
    least_p: float
    ahead: float | None


class Findings(NamedTuple):
    """What a study says.

    Attributes:
        score: the column that decides; `direction`: min or max of it.
        axes: those that are not repeats.
        combinations: of their values, best first; equal scores are told apart by the loss, and where most members
            diverged by the others.
        tied: how many other combinations have the score of the best.
        lead: how sure its place is; None where it or the second has fewer than `FEWEST` members.
        best: id of the best member of the best combination.
        tested: median of the test score over the best combination's members that did not diverge; NaN where there is
            none.
        effects: by axis, of each of its values.
        correlations: by column of the instruments at initialisation, with the score.
    """

    score: str
    direction: str
    axes: list[str]
    combinations: list[Effect]
    tied: int
    lead: Lead | None
    best: str
    tested: float
    effects: dict[str, list[Effect]]
    correlations: dict[str, Correlation]


def find_findings(frame: pl.DataFrame, axes: Sequence[str], goal: Sequence[str]) -> Findings:
    """Choose on validation data, look at test data once, and say how sure that is.

    A member that diverged counts as worse than all others. Members of a combination differ in seed and fold alone.
    """
    name, direction = goal
    score, loss = f"best_valid_{name}", f"best_valid_{LOSS}"
    tells_apart = loss in frame.columns and loss != score
    varied = [axis for axis in axes if axis not in REPEATS]
    parts = dict(_groups(frame, varied))
    ranked = sorted(
        (_effect(key, part, score, direction) for key, part in parts.items()),
        key=lambda effect: (
            _worse(effect.median, direction),
            _median_of_alive(parts[effect.value], score, direction) if math.isinf(effect.median) else 0.0,
            float(np.median(member_scores(parts[effect.value], loss, "min"))) if tells_apart else 0.0,
        ),
    )
    chosen = parts[ranked[0].value]
    scores = np.array([_worse(value, direction) for value in member_scores(chosen, score, direction)])
    order = np.lexsort([member_scores(chosen, loss, "min"), scores] if tells_apart else [scores])
    alive = chosen.filter(pl.col(STATUS) != DIVERGED)
    column = f"best_test_{name}"  # which there is none of where the test has no targets
    tested = [math.nan if v is None else v for v in (alive[column].to_list() if column in alive.columns else ())]
    effects = {axis: [_effect(key, part, score, direction) for key, part in _groups(frame, [axis])] for axis in axes}
    rivals = [member_scores(parts[effect.value], score, direction) for effect in ranked[:2]]
    return Findings(
        score=score,
        direction=direction,
        axes=varied,
        combinations=ranked,
        tied=sum(effect.median == ranked[0].median for effect in ranked[1:] if math.isfinite(effect.median)),
        lead=_lead(rivals, direction),
        best=chosen[ID][int(order[0])],
        tested=float(np.nanmedian(tested)) if np.isfinite(tested).any() else math.nan,
        effects=effects,
        correlations=correlations(frame, axes, score),
    )


def correlations(frame: pl.DataFrame, axes: Sequence[str], score: str) -> dict[str, Correlation]:
    """Rank correlation of every instrument's reading at initialisation with the score of members that did not diverge.

    Readings before training do not know of, say, the learning rate, which the score depends on all the more: members
    are ranked among those that share their values on all axes that leave the reading as it is. Spearman's correlation,
    pooled within these groups; readings that do not vary are left out. Of a censored reading, a gradient horizon beyond
    the sequence, it is known that it is larger than those below its limit, and no more: see `censored_ranks`.

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
    columns, starts, flag = [np.zeros((0, 2))], [], f"{CENSORED}{reading}"
    for _, part in _groups(frame, within):
        known = part.filter(pl.all_horizontal(pl.col(reading, score).is_not_null() & ~pl.col(reading, score).is_nan()))
        pairs = known.select(reading, score).to_numpy()
        if len(pairs) > 2 and len(np.unique(pairs[:, 0])) > 1:
            is_censored = (
                known[flag].fill_null(False).to_numpy() if flag in known.columns else np.zeros(len(pairs), bool)
            )
            ranks = np.stack([censored_ranks(pairs[:, 0], is_censored), stats.rankdata(pairs[:, 1])], axis=1)
            columns.append((ranks - ranks.mean(axis=0)) / len(pairs))
            starts += known.select(start_axes).rows() if start_axes else [()] * len(pairs)
    return np.concatenate(columns), starts


def censored_ranks(values: np.ndarray, is_censored: np.ndarray) -> np.ndarray:
    """Ranks of numbers of which some are only known to be as large as they stand, or larger.

    The rank of one is the middle one, plus a half for each that is known to be below it, minus a half for each that is
    known to be above; without censored ones these are the usual ranks. Gehan 1965, Biometrika 52, 203-223.

    Examples:
        >>> import numpy as np
        >>> from gru_jax.studies.report.findings import censored_ranks
        >>> censored_ranks(np.array([50.0, 200.0, 120.0]), np.array([True, True, False])).tolist()
        [2.0, 2.5, 1.5]
    """
    above = (values[:, None] > values[None, :]) | ((values[:, None] == values[None, :]) & is_censored[:, None])
    above &= ~is_censored[None, :]
    return (len(values) + 1 + above.sum(axis=1) - above.sum(axis=0)) / 2


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


def _groups(frame: pl.DataFrame, names: Sequence[str]) -> list[tuple[tuple[Any, ...], pl.DataFrame]]:
    if not names:
        return [((), frame)]
    return list(frame.group_by(names, maintain_order=True))  # type: ignore[arg-type]


def member_scores(part: pl.DataFrame, score: str, direction: str) -> np.ndarray:
    """The scores of members, infinitely bad of those that diverged or have none."""
    worst = math.inf if direction == "min" else -math.inf
    diverged = (part[STATUS] == DIVERGED).to_numpy()
    values = np.array([math.nan if value is None else value for value in part[score].to_list()], float)
    return np.where(diverged | np.isnan(values), worst, values)


def _median_of_alive(part: pl.DataFrame, score: str, direction: str) -> float:
    """The median over the members that have a score, the less the better; infinite where none has."""
    scores = member_scores(part, score, direction)
    alive = scores[np.isfinite(scores)]
    return _worse(float(np.median(alive)), direction) if len(alive) else math.inf


def _worse(value: float, direction: str) -> float:
    return value if direction == "min" else -value


def _effect(key: tuple[Any, ...], part: pl.DataFrame, score: str, direction: str) -> Effect:
    values = member_scores(part, score, direction)
    # What varies by design is no luck: of each repeat, the median over whatever else its members differ in.
    repeats = [axis for axis in REPEATS if axis in part.columns]
    medians = [np.median(member_scores(repeat, score, direction)) for _, repeat in _groups(part, repeats)]
    low, high, coverage = median_interval(np.array(medians))
    seeds = part[SEED].n_unique() if SEED in part.columns else 1
    diverged, halved = (int((part[STATUS] == status).sum()) for status in (DIVERGED, HALVED))
    return Effect(key, float(np.median(values)), low, high, len(values), seeds, diverged, halved, coverage)


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


def _lead(rivals: Sequence[np.ndarray], direction: str) -> Lead | None:
    if len(rivals) < 2 or min(map(len, rivals)) < FEWEST:
        return None
    one, two = rivals
    few = min(len(one), len(two)) < FEWEST_TO_RESAMPLE
    p, least_p = exchange_p(one, two)
    return Lead(p, least_p, None if few else _ahead(one, two, direction))


def exchange_p(one: np.ndarray, two: np.ndarray) -> tuple[float, float]:
    """The two-sided p of no difference between two groups of scores, and the least that groups of these sizes can have.

    Of all ways to divide the members into groups of these sizes, the share in which the mean ranks differ by as much as
    they do (Wilcoxon 1945 with ties as they are); of 9,999 random ones and this, where there are more than 50,000.
    Three against three can give no less than 0.1, four against four 0.029.

    Examples:
        >>> import numpy as np
        >>> from gru_jax.studies.report.findings import exchange_p
        >>> exchange_p(np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, np.inf]))
        (0.1, 0.1)
    """
    count, size = len(one) + len(two), len(one)
    ranks = stats.rankdata(np.concatenate([one, two])) - (count + 1) / 2
    ways = math.comb(count, size)
    if ways <= MOST_EXCHANGES:
        sums = np.array([ranks[list(chosen)].sum() for chosen in itertools.combinations(range(count), size)])
    else:
        draws = np.random.default_rng(0).permuted(np.tile(ranks, (PERMUTATIONS, 1)), axis=1)[:, :size].sum(axis=1)
        sums = np.append(draws, ranks[:size].sum())
    p = float(np.mean(np.abs(sums) >= abs(ranks[:size].sum()) - 1e-9))
    return p, max(min(1.0, 2 / ways), 1 / (1 + PERMUTATIONS) if ways > MOST_EXCHANGES else 0.0)


def _ahead(one: np.ndarray, two: np.ndarray, direction: str) -> float:
    first, second = map(_resampled, (one, two))
    second = np.random.default_rng(1).permutation(second)
    return float(np.mean(first < second if direction == "min" else first > second))
