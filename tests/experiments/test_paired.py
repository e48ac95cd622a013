"""Settings compared over seeds: intervals and p against other implementations, by enumeration and by simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import polars as pl
import pytest
from scipy import stats

from experiments import report
from gru_jax.errors import UsageError
from gru_jax.studies.report import paired
from gru_jax.studies.report.paired import ComparisonRequest, compare_settings
from gru_jax.studies.report.sentences import describe_compared
from gru_jax.studies.result import StudyResult

GOAL = ("loss", "min")


def frame_of(rows):
    """Rows of (axis x, axis lr, seed, score); a score of None diverged."""
    return pl.DataFrame(
        [
            {"member": f"{i}", "x": x, "lr": lr, "seed": seed, "status": "done" if score is not None else "diverged",
             "best_valid_loss": score, "best_test_loss": score}
            for i, (x, lr, seed, score) in enumerate(rows)
        ]
    )  # fmt: skip


def test_the_interval_is_that_of_a_paired_t_test():
    draw = np.random.default_rng(0)
    one, two = draw.normal(size=9), draw.normal(0.3, size=9)
    pairs = paired.pair_up(one, two)
    wanted = stats.ttest_rel(two, one).confidence_interval(0.95)
    assert (pairs.low, pairs.high) == pytest.approx((wanted.low, wanted.high))
    assert pairs.mean == pytest.approx(np.mean(two - one))
    assert (pairs.pairs, pairs.lost) == (9, 0)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_of_fewer_than_five_seeds_there_is_no_interval(n):
    pairs = paired.pair_up(np.arange(n, dtype=float), np.arange(n) + 1.0)
    assert math.isnan(pairs.low)
    assert math.isnan(pairs.high)
    assert pairs.p == pairs.least_p == 2.0 ** (1 - n)


def test_the_interval_covers_the_true_mean_as_often_as_it_says():
    draw = np.random.default_rng(1).normal(0.4, 1.3, (4000, 6))
    intervals = np.array([paired.mean_interval(row) for row in draw])
    covered = np.mean((intervals[:, 0] <= 0.4) & (intervals[:, 1] >= 0.4))
    assert abs(covered - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 4000)


@pytest.mark.parametrize("n", [5, 8, 12])
def test_p_is_that_of_wilcoxon(n):
    differences = np.random.default_rng(n).normal(0.3, size=n)
    assert paired.signed_rank_p(differences)[0] == pytest.approx(stats.wilcoxon(differences, method="exact").pvalue)


@pytest.mark.parametrize(
    "differences", [[1.0, 1.0, -1.0, 2.0, 3.0], [0.0, 0.0, 1.0, -2.0, 2.0, 5.0], [math.inf, 1.0, -1.0, math.inf], [0.0]]
)
def test_p_with_ties_zeros_and_members_that_diverged_by_enumeration(differences):
    array = np.array(differences)
    ranks = stats.rankdata(np.abs(array)) * (array != 0)
    seen = abs(np.sum(ranks * np.sign(array)))
    sums = [abs(np.dot(ranks, signs)) for signs in itertools.product((-1, 1), repeat=len(array))]
    assert paired.signed_rank_p(array)[0] == pytest.approx(np.mean(np.array(sums) >= seen - 1e-9))


def test_p_is_small_as_rarely_as_it_says():
    draw = np.random.default_rng(2).standard_t(3, (3000, 7))
    p = np.array([paired.signed_rank_p(row)[0] for row in draw])
    assert np.mean(p <= 0.05) <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / 3000)


def test_so_many_seeds_settle_it_as_often_as_it_says():
    """The estimate at a known mean and spread, and the power that it promises, simulated."""
    pattern = np.array([-1.0, 1.0, -1.0, 1.0, -1.0, 1.0])
    effect = 0.8
    needed = paired.seeds_needed(pattern / pattern.std(ddof=1) + effect)
    for n, is_enough in ((needed, True), (needed - 1, False)):
        draw = np.random.default_rng(n).normal(effect, 1.0, (20000, n))
        half = stats.t.ppf(0.975, n - 1) * draw.std(axis=1, ddof=1) / math.sqrt(n)
        power = np.mean(np.abs(draw.mean(axis=1)) > half)
        assert power == pytest.approx(float(paired.power_of(np.array([n]), effect)[0]), abs=0.012)
        assert (paired.power_of(np.array([n]), effect)[0] >= 0.8) == is_enough


def test_where_no_number_of_seeds_can_be_told():
    assert paired.seeds_needed(np.array([1.0])) is None
    assert paired.seeds_needed(np.array([1.0, -1.0])) is None  # the mean is zero
    assert paired.seeds_needed(np.array([1.001, -1.0] * 3)) is None  # more than 1000
    assert paired.seeds_needed(np.array([0.5, 0.5])) == 5  # no spread at all: the fewest of an interval
    assert paired.seeds_needed(np.array([50.0, 50.1, 49.9])) == 5  # where the noncentral t has no value


def test_pairs_share_their_seed_and_everything_else():
    """Seeds make all the spread: paired, it is gone."""
    seeds = [0.0, 5.0, 2.0, 9.0, 1.0, 4.0]
    rows = [("a", lr, s, luck + lr) for lr in (0, 1) for s, luck in enumerate(seeds)]
    rows += [("b", lr, s, luck + lr - 0.5 - 0.01 * s) for lr in (0, 1) for s, luck in reversed(list(enumerate(seeds)))]
    rows += [("a", 0, 17, 3.0)]
    compared = compare_settings(frame_of(rows), ["x", "lr", "seed"], GOAL, ComparisonRequest("x"))
    assert compared["setting"].to_list()[:2] == ["lr = 0", "lr = 1"]
    assert compared["pairs"].to_list() == [6, 6, 6]
    assert compared["unpaired"].to_list() == [1, 0, 1]
    assert compared["difference"].to_list() == pytest.approx([-0.525] * 3)
    assert (compared["high"] < 0).all()
    assert set(compared["better"]) == {"b"}
    assert compared["p_corrected"].to_list() == [0.0625, 0.0625, 0.03125]  # two settings, and each at its best
    assert compared["seeds_needed"].to_list() == [5, 5, 5]


def test_each_at_its_best_is_chosen_in_validation_and_may_be_compared_in_test():
    rows = [("a", 0, s, 1.0) for s in range(5)] + [("a", 1, s, 2.0) for s in range(5)]
    rows += [("b", 0, s, 5.0) for s in range(5)] + [("b", 1, s, 0.5 + 0.01 * s) for s in range(5)]
    frame = frame_of(rows).with_columns(best_test_loss=-pl.col("best_valid_loss"))
    request = ComparisonRequest("x", ["a", "b"], "best_test_loss")
    tuned = compare_settings(frame, ["x", "lr", "seed"], GOAL, request).filter(pl.col("is_tuned"))
    assert tuned["setting"].to_list() == ["each at its best: lr = 1 against lr = 0"]
    assert tuned["difference"][0] == pytest.approx(1.0 - 0.52)
    assert tuned["better"][0] == "a"


def test_members_that_diverged_count_as_worse_and_have_no_part_in_the_mean():
    rows = [("a", 0, s, None if s == 2 else 1.0 + 0.01 * s) for s in range(6)]
    rows += [("b", 0, s, None if s == 5 else 0.5) for s in range(6)]
    compared = compare_settings(frame_of(rows), ["x", "lr", "seed"], GOAL, ComparisonRequest("x", ["a"]))
    assert (compared["pairs"][0], compared["lost"][0]) == (6, 2)
    assert compared["difference"][0] == pytest.approx(0.5 - np.mean([1.0, 1.01, 1.03, 1.04]))
    assert math.isnan(compared["low"][0])  # four are left
    assert compared["p"][0] == pytest.approx(paired.signed_rank_p(np.array([-9.0, 9.0, -1.0, -2.0, -3.0, -4.0]))[0])
    said = describe_compared(compared)[0]
    assert "paired over 6 seeds, of which 2 diverged with either" in said
    assert "fewer than 5 give no interval" in said


def test_folds_of_a_seed_are_one_pair():
    rows = [("a", 0, s, float(s)) for s in (0, 1, 2)] * 2 + [
        ("b", 0, s, s + 1.0 + f) for s in (0, 1, 2) for f in (0, 1)
    ]
    frame = frame_of(rows).with_columns(pl.Series("task.fold", [0] * 3 + [1] * 3 + [0, 1] * 3))
    compared = compare_settings(frame, ["x", "lr", "seed", "task.fold"], GOAL, ComparisonRequest("x"))
    assert compared["pairs"].to_list() == [3]
    assert compared["difference"].to_list() == [1.5]


def test_folds_that_one_of_them_does_not_have_are_left_out():
    """Of seed 0 the second has the hard fold alone, of seed 2 no fold of the first's."""
    rows = [("a", 0, s, hard) for s in (0, 1, 2) for hard in (1.0, 9.0)]
    rows += [("b", 0, 0, 9.5), ("b", 0, 1, 1.5), ("b", 0, 1, 9.5), ("b", 0, 2, 0.0)]
    folds = pl.Series("task.fold", [0, 1] * 3 + [1, 0, 1, 2])
    axes = ["x", "lr", "seed", "task.fold"]
    compared = compare_settings(frame_of(rows).with_columns(folds), axes, GOAL, ComparisonRequest("x"))
    assert compared["difference"].to_list() == [0.5]
    assert (compared["pairs"][0], compared["unpaired"][0]) == (2, 1)


def test_values_of_one_setting_are_told_beside_those_at_their_best():
    """Only `c` has two settings: the comparison of `b` decides about it as it is, and both count in the correction."""
    rows = [(x, 0, s, score + 0.1 * s) for x, score in (("a", 2.0), ("b", 1.0), ("c", 3.0)) for s in range(6)]
    rows += [("c", 1, s, 0.5 + 0.1 * s) for s in range(6)]
    compared = compare_settings(frame_of(rows), ["x", "lr", "seed"], GOAL, ComparisonRequest("x"))
    assert list(zip(compared["value"], compared["is_tuned"], strict=True)) == [("b", False), ("c", False), ("c", True)]
    assert compared["p_corrected"].to_list() == [0.0625, 0.03125, 0.0625]
    assert [text.split(", by")[0] for text in describe_compared(compared)] == [
        "x, b against a (lr = 0)", "x, c against a (each at its best: lr = 1 against lr = 0)",
    ]  # fmt: skip


def test_members_that_were_halved_are_no_pairs():
    """They were trained for less, and so has nothing been learnt of the setting by comparing them."""
    rows = [("a", 0, s, 1.0) for s in range(6)] + [("b", 0, s, 2.0 + 0.1 * s) for s in range(6)]
    rows += [("b", 1, s, 0.0) for s in range(6)]  # of which the one that is left is the best of all
    halved = pl.Series("status", ["done"] * 6 + ["done"] * 4 + ["halved"] * 2 + ["done"] + ["halved"] * 5)
    axes = ["x", "lr", "seed"]
    compared = compare_settings(frame_of(rows).with_columns(halved), axes, GOAL, ComparisonRequest("x"))
    assert compared["setting"].to_list() == ["lr = 0", "each at its best: lr = 0 against lr = 0"]
    assert (compared["pairs"][0], compared["halved"][0], compared["unpaired"][0]) == (4, 2, 0)
    assert compared["difference"].to_list() == pytest.approx([1.15, 1.15])
    assert "paired over 4 seeds (2 more seeds left out, as a member was halved)" in describe_compared(compared)[0]


def test_an_axis_that_one_of_them_does_not_have():
    rows = [("plain", None, s, 1.0) for s in range(5)] + [
        ("decayed", lr, s, lr + 0.0) for lr in (2, 3) for s in range(5)
    ]
    compared = compare_settings(frame_of(rows), ["x", "lr", "seed"], GOAL, ComparisonRequest("x"))
    assert compared["is_tuned"].to_list() == [True]
    assert compared["difference"].to_list() == [1.0]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ComparisonRequest("seed"), "compare='seed': allowed are x, lr"),
        (ComparisonRequest("y"), "compare='y'"),
        (ComparisonRequest("x", ["a", "c"]), "compare=x='c': allowed are a, b"),
        (ComparisonRequest("x", ["a", "a"]), "two different values are needed; there are a, b"),
        (ComparisonRequest("x", (), "steps"), "score='steps'"),
        (ComparisonRequest("x"), "shares no seed"),
    ],
)
def test_what_cannot_be_compared_is_one_line(request_, message):
    frame = frame_of([("a", 0, 0, 1.0), ("b", 0, 1, 1.0)])
    with pytest.raises(UsageError, match=message):
        compare_settings(frame, ["x", "lr", "seed"], GOAL, request_)


def test_from_the_command_line_in_the_page_and_in_python(whole, tmp_path, capsys):
    out = tmp_path / "out"
    assert report.command([str(whole[0]), "--out", str(out), "--compare=initialisation=chrono,zeros"]) == 0
    said = capsys.readouterr().out
    assert "initialisation, zeros against chrono (each at its best: " in said
    table = StudyResult(whole[0]).compare("initialisation", ["chrono"])
    written = pl.read_csv(out / "comparison.csv", schema_overrides=table.schema)
    assert written.select("value", "pairs", "lost").equals(table.select("value", "pairs", "lost"))
    assert table["lost"].to_list() == [0, 2, 0]  # of one learning rate all diverged
    page = (out / "report.html").read_text()
    assert "Compared over seeds" in page
    assert "optimizer.lr = 0.01" in page


def test_two_studies(whole, tmp_path):
    study = StudyResult(whole[0])
    copy = tmp_path / "copy"
    copy.symlink_to(whole[0], target_is_directory=True)
    table = study.compare_with(copy)
    assert set(table["axis"]) == {"study"}
    assert table.filter(pl.col("lost") == 0)["difference"].abs().max() == 0.0
    said = " ".join(report.run([whole[0], copy], tmp_path / "out").sentences)
    assert "study, copy against whole" in said
