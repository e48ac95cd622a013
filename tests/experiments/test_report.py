"""The report: what it concludes, and that its page draws in a real browser without a network."""

from __future__ import annotations

import json
import math
import re
import shlex
import shutil
import subprocess

import numpy as np
import polars as pl
import pytest
from scipy import stats

from experiments import report, train
from gru_jax.errors import UsageError
from gru_jax.plotting.style import figure
from gru_jax.runs.directory import RunDir
from gru_jax.studies.report import findings, pictures, sentences, table
from gru_jax.studies.report.write import _best_member, describe_differences, gather
from tests.training.small import small

pytestmark = pytest.mark.usefixtures("compiled_once")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def frame_of(scores, diverged=()):
    """Two values of an axis, as many seeds as there are scores."""
    rows = [
        {"member": f"{x}{seed}", "x": x, "seed": seed, "status": "diverged" if (x, seed) in diverged else "done",
         "stopped": "",
         "best_valid_loss": score, "best_test_loss": score + 1, "init_horizon/layer_0": float(score)}
        for x, of in scores.items() for seed, score in enumerate(of)
    ]  # fmt: skip
    return pl.DataFrame(rows)


def test_a_clear_winner():
    frame = frame_of({"a": [1.0, 1.1, 0.9, 1.0, 1.2], "b": [2.0, 2.1, 1.9, 2.0, 2.2]})
    found = findings.find_findings(frame, ["x", "seed"], ("loss", "min"))
    assert found.combinations[0].value == ("a",)
    assert (found.best, found.lead.ahead, found.tested, found.tied) == ("a2", 1.0, 2.0, 0)
    assert found.lead.p == pytest.approx(2 / 252)  # ways to choose 5 of 10
    effect = found.combinations[0]
    assert effect.low <= effect.median == 1.0 <= effect.high
    assert (effect.members, effect.seeds, effect.diverged) == (5, 5, 0)
    assert found.correlations["init_horizon/layer_0"][0] == pytest.approx(1.0)
    assert findings.find_findings(frame, ["x", "seed"], ("loss", "max")).combinations[0].value == ("b",)


def test_where_most_diverged_those_that_did_not_come_first():
    frame = frame_of({"a": [1.0, 1.1, 0.9], "b": [3.0, 2.1, 1.9]}, {("a", 0), ("a", 1), ("a", 2), ("b", 1), ("b", 2)})
    found = findings.find_findings(frame, ["x", "seed"], ("loss", "min"))
    assert (found.best, found.combinations[0].value, found.tied, found.tested) == ("b0", ("b",), 0, 4.0)


def test_without_repeats_there_is_no_interval():
    """The spread of another axis is no luck."""
    rows = [
        {"member": f"{x}{lr}", "x": x, "lr": lr, "status": "done", "stopped": "", "best_valid_loss": x + lr,
         "best_test_loss": 0.0}
        for x in range(2) for lr in range(6)
    ]  # fmt: skip
    found = findings.find_findings(pl.DataFrame(rows), ["x", "lr"], ("loss", "min"))
    assert [(effect.coverage, math.isnan(effect.low)) for effect in found.effects["x"]] == [(0.0, True)] * 2


def test_one_member_each_says_nothing_about_luck():
    frame = frame_of({"a": [1.0], "b": [2.0]})
    found = findings.find_findings(frame, ["x", "seed"], ("loss", "min"))
    assert found.lead is None
    assert "luck cannot be judged" in " ".join(sentences.describe_findings(found, frame, 0))


def test_correlations_over_samples_have_nothing_to_hold_fixed():
    draw = np.random.default_rng(0)
    rows = [
        {"member": str(i), "gain": gain, "lr": lr, "seed": 0, "status": "done", "stopped": "", "best_valid_loss": -gain,
         "best_test_loss": 0.0, "init_horizon/layer_0": gain}
        for i, (gain, lr) in enumerate(draw.random((20, 2)).tolist())
    ]  # fmt: skip
    found = findings.correlations(pl.DataFrame(rows), ["gain", "lr", "seed"], "best_valid_loss")["init_horizon/layer_0"]
    assert found.within == ()
    assert found.rho == pytest.approx(-1.0)


def test_correlations_are_taken_where_all_else_is_equal():
    """The learning rate decides nearly all of the score, a reading the rest."""
    rows = [
        {"member": f"{x}{lr}{seed}", "x": x, "lr": lr, "seed": seed, "status": "done", "stopped": "",
         "best_valid_loss": 100.0 * lr + x + 0.1 * seed, "best_test_loss": 0.0, "init_horizon/layer_0": -float(x)}
        for x in range(3) for lr in (1, 2, 3) for seed in range(2)
    ]  # fmt: skip
    found = findings.correlations(pl.DataFrame(rows), ["x", "lr", "seed"], "best_valid_loss")["init_horizon/layer_0"]
    assert found.within == ("lr", "seed")
    assert found.rho == pytest.approx(-1.0)
    assert found.members == 18


def test_luck_is_called_luck():
    frame = frame_of({"a": [1.0, 3.0, 2.0, 4.0, 5.0], "b": [2.1, 1.1, 3.1, 4.1, 5.1]})
    found = findings.find_findings(frame, ["x", "seed"], ("loss", "min"))
    assert found.lead.ahead < 0.95
    assert "seeds alone could have put it first" in " ".join(sentences.describe_findings(found, frame, 0))


@pytest.mark.parametrize(("members", "p", "excluded"), [(3, 0.1, False), (4, 2 / 70, True), (5, 2 / 252, True)])
def test_no_more_is_said_than_so_few_members_can_tell(members, p, excluded):
    """Three against three: all of one lie before the other in every resample, and by chance once in ten."""
    frame = frame_of({"a": [1.0 + 0.1 * i for i in range(members)], "b": [2.0 + 0.1 * i for i in range(members)]})
    found = findings.find_findings(frame, ["x", "seed"], ("loss", "min"))
    said = " ".join(sentences.describe_findings(found, frame, 0))
    assert found.lead.p == pytest.approx(p)
    assert (found.lead.ahead is None) == (members < 5)
    assert ("which seeds do not explain" in said) == excluded
    assert ("3 against 3 members cannot give less than 0.1: more seeds would tell" in said) == (members == 3)


@pytest.mark.parametrize("sizes", [(5, 5), (4, 7), (12, 12)])
def test_the_exchange_test_is_that_of_wilcoxon(sizes):
    draw = np.random.default_rng(1)
    one, two = draw.normal(size=sizes[0]), draw.normal(0.5, size=sizes[1])
    wanted = stats.mannwhitneyu(one, two, method="exact").pvalue
    assert findings.exchange_p(one, two)[0] == pytest.approx(wanted, abs=1e-9 if sum(sizes) < 20 else 0.02)
    assert findings.exchange_p(one, np.full(sizes[1], np.inf))[0] < 0.05  # who diverged is worse than all


def test_ties_are_said_and_broken_by_the_loss():
    """Few validation examples: three combinations have the same accuracy, and a loss each."""
    losses = {"a": 0.5, "b": 0.3, "c": 0.4, "d": 0.1}
    rows = [
        {"member": f"{x}{seed}", "x": x, "seed": seed, "status": "done", "best_test_accuracy": 0.9,
         "best_valid_accuracy": 0.5 if x == "d" else 0.875, "best_valid_loss": loss - 0.01 * seed}
        for x, loss in losses.items() for seed in range(2)
    ]  # fmt: skip
    frame = pl.DataFrame(rows)
    found = findings.find_findings(frame, ["x", "seed"], ("accuracy", "max"))
    assert [effect.value for effect in found.combinations] == [("b",), ("c",), ("a",), ("d",)]
    assert (found.tied, found.best) == (2, "b1")
    said = sentences.describe_findings(found, frame, 0)
    assert "It is tied with x = c; x = a: the median validation loss puts it first." in said
    untied = findings.find_findings(frame.filter(pl.col("x").is_in(["a", "d"])), ["x", "seed"], ("accuracy", "max"))
    assert untied.tied == 0
    assert "tied" not in " ".join(sentences.describe_findings(untied, frame, 0))


def test_several_runs_begin_with_what_differs(tmp_path):
    configs = {"one": small(), "two": small(optimizer={"lr": 0.02}, model={"init": {"gate_bias": "chrono"}})}
    for name, config in configs.items():
        (tmp_path / name).mkdir()
        RunDir(tmp_path / name).config.write_text(json.dumps(config.to_dict()))
    one, two = (tmp_path / name for name in configs)
    differences = "model.init.gate_bias: same (one), chrono (two); optimizer.lr: 0.01 (one), 0.02 (two)"
    assert describe_differences([one, two]) == [f"The runs differ in {differences}."]
    assert describe_differences([one, one]) == ["The configs of the runs do not differ."]
    assert describe_differences([one]) == []


def test_censored_readings_are_larger_and_no_more():
    """Horizons beyond a short sequence may lie on either side of what a long one measures."""
    values, is_censored = np.array([10.0, 50.0, 120.0, 200.0, 30.0]), np.array([False, True, False, True, False])
    #   known to be below:  0,   2 (10, 30),  2,   3 (not 50),  1;  above: 4,  0,  1 (200),  0,  3
    assert findings.censored_ranks(values, is_censored).tolist() == [1.0, 4.0, 3.5, 4.5, 2.0]
    plain = np.array([3.0, 1.0, 2.0, 2.0])
    np.testing.assert_array_equal(findings.censored_ranks(plain, np.zeros(4, bool)), stats.rankdata(plain))
    np.testing.assert_array_equal(findings.censored_ranks(plain, np.ones(4, bool)), np.full(4, 2.5))
    tie = findings.censored_ranks(np.array([5.0, 5.0]), np.array([True, False]))
    assert tie.tolist() == [2.0, 1.0]  # measured at 5 is below a limit of 5


def test_correlations_know_of_censored_readings():
    """Beyond the sequence, of 50 steps and of 400: as numbers they would order what is not known to be ordered."""
    rows = [
        {"member": str(seed), "seed": seed, "status": "done", "best_valid_loss": float(loss),
         "best_test_loss": 0.0, "init_horizon/layer_0": float(lag), "censored/init_horizon/layer_0": censored}
        for seed, (lag, loss, censored) in enumerate(
            [(10, 9, False), (20, 8, False), (50, 1, True), (400, 2, True), (30, 7, False)]
        )
    ]  # fmt: skip
    frame = pl.DataFrame(rows)
    rho = findings.correlations(frame, ["seed"], "best_valid_loss")["init_horizon/layer_0"].rho
    as_numbers = findings.correlations(frame.drop("censored/init_horizon/layer_0"), ["seed"], "best_valid_loss")
    ranks = [[1, 2, 4.5, 4.5, 3], [5, 4, 1, 2, 3]]
    assert rho == pytest.approx(np.corrcoef(ranks)[0, 1])
    assert as_numbers["init_horizon/layer_0"].rho == pytest.approx(-0.9)
    only = frame.with_columns(pl.lit(True).alias("censored/init_horizon/layer_0"))
    assert findings.correlations(only, ["seed"], "best_valid_loss") == {}


def test_horizons_beyond_the_sequence_are_flagged_in_the_table():
    profiles = np.stack([0.5 ** np.arange(20), 0.99 ** np.arange(20)])
    records = {"step": np.arange(2), "adjoint/layer_0": profiles, "lag": np.arange(20), "source": np.asarray("last")}
    dying, lasting = (table.single_readings(records, which) for which in (0, 1))
    assert (dying["horizon/layer_0"], dying["censored/horizon/layer_0"]) == (7, False)
    assert (lasting["horizon/layer_0"], lasting["censored/horizon/layer_0"]) == (20, True)
    assert table._named("init", "censored/horizon/layer_0") == "censored/init_horizon/layer_0"


def test_pictures_have_numbers_in_cells_and_count_marks_that_coincide():
    frame = frame_of({"a": [1.0, 1.0, 1.0], "b": [2.0, 2.0, 3.0]}).with_columns(pl.lit(1).alias("y"))
    frame = pl.concat([frame, frame.with_columns(pl.lit(2).alias("y"), pl.col("best_valid_loss") * 10)])
    found = findings.find_findings(frame, ["x", "y", "seed"], ("loss", "min"))
    picture, axes = figure(2)
    pictures.draw_score_map(picture, axes[0], frame, ["x", "y"], found)
    assert sorted(text.get_text() for text in axes[0].texts) == ["1", "10", "2", "20"]
    light, dark = (axes[0].texts[i].get_color() for i in (0, -1))
    assert light != dark  # the least is on the darkest, the most on the lightest
    pictures.draw_scatter(axes[1], frame, "init_horizon/layer_0", ["x", "y"], found, {})
    assert sorted(text.get_text() for text in axes[1].texts) == ["2×", "2×", "3×", "3×"]


def test_a_value_has_one_colour_in_every_picture():
    """Learning curves come best first, the other pictures in the order of the values."""
    frame = frame_of({"a": [3.0, 3.1, 3.2], "b": [1.0, 1.1, 1.2], "c": [2.0, 2.1, 2.2]})
    frame = frame.with_columns(pl.col("x").replace("c", None))
    found = findings.find_findings(frame, ["x", "seed"], ("loss", "min"))
    colours = pictures.value_colours(frame, "x")
    assert list(colours) == ["a", "b", None]
    assert len(set(colours.values())) == 3
    _, (curves, scatter) = figure(2)
    of_members = {member: {"step": [1, 2], "score": [1.0, 2.0]} for member in frame["member"]}
    pictures.draw_learning_curves(curves, frame, found, of_members, {})
    pictures.draw_scatter(scatter, frame, "init_horizon/layer_0", ["x"], found, {})
    assert [(line.get_label(), line.get_color()) for line in curves.lines] == [
        ("b", colours["b"]), ("(none)", colours[None]), ("a", colours["a"])
    ]  # fmt: skip
    drawn = {line.get_label(): line.get_color() for line in scatter.lines if not line.get_label().startswith("_")}
    assert drawn == {"a": colours["a"], "b": colours["b"], "(none)": colours[None]}


@pytest.mark.parametrize(
    ("members", "title"), [(1, "1 member a value, no bars of one repeat"), (3, "3 members a value")]
)
def test_one_member_is_one(members, title):
    frame = frame_of({x: [float(i) for i in range(members)] for x in "ab"})
    found = findings.find_findings(frame, ["x", "seed"], ("loss", "min"))
    (axes,) = pictures.plot_effects(found, ["x"], {}).axes
    assert axes.get_title().startswith(title)


def test_members_that_diverged_are_worse_than_all():
    frame = frame_of({"a": [0.1, 0.1, 0.1], "b": [2.0, 2.1, 1.9]}, diverged={("a", 0), ("a", 1)})
    found = findings.find_findings(frame, ["x", "seed"], ("loss", "min"))
    assert found.combinations[0].value == ("b",)
    assert found.effects["x"][0].diverged == 2
    assert found.effects["x"][0].median == math.inf
    assert found.correlations["init_horizon/layer_0"].members == 4


def test_an_interval_that_is_open_to_members_that_diverged_is_an_arrow():
    frame = frame_of({"a": [1.0, 2.0, 3.0, 4.0, 5.0], "b": [2.0] * 5}, diverged={("a", 0), ("a", 1)})
    found = findings.find_findings(frame, ["x", "seed"], ("loss", "min"))
    assert [effect.high for effect in found.effects["x"]] == [np.inf, 2.0]
    (axes,) = pictures.plot_effects(found, ["x"], {}).axes
    assert [(arrow.xy, arrow.xyann) for arrow in axes.texts] == [((0, 1), (0, found.effects["x"][0].median))]
    assert "arrows are open to members that diverged" in axes.get_title().replace("\n", " ")


def test_the_interval_covers_the_median():
    """A 95 % interval misses the true median of a normal about one time in twenty."""
    draw = np.random.default_rng(0)
    missed = 0
    for _ in range(200):
        frame = frame_of({"a": draw.normal(size=25).tolist()})
        effect = findings.find_findings(frame, ["x", "seed"], ("loss", "min")).combinations[0]
        missed += not effect.low <= 0 <= effect.high
    assert 1 <= missed <= 25


@pytest.mark.parametrize(("members", "coverage"), [(2, 0.5), (3, 0.75), (5, 0.9375), (6, 0.96875), (25, 0.9567)])
def test_the_coverage_of_an_interval_is_the_true_one(members, coverage):
    """Of a skewed distribution, whose median is ln 2, and of as many draws as make the share exact to 2 %."""
    draw = np.random.default_rng(members).exponential(size=(4000, members))
    intervals = [findings.median_interval(values) for values in draw]
    covered = np.mean([low <= np.log(2) <= high for low, high, _ in intervals])
    assert intervals[0][2] == pytest.approx(coverage, abs=1e-4)
    assert covered == pytest.approx(coverage, abs=0.02)


def test_the_coverage_is_said():
    found = findings.find_findings(
        frame_of({"a": [1.0, 3.0, 2.0], "b": [4.0, 5.0, 6.0]}), ["x", "seed"], ("loss", "min")
    )
    said = " ".join(sentences.describe_findings(found, frame_of({"a": [1.0], "b": [2.0]}), 0))
    assert "median best_valid_loss 2 (1 to 3 covers the true median with 75%, 3 members)" in said
    assert "95%" not in said
    alone = findings.find_findings(frame_of({"a": [1.0], "b": [2.0]}), ["x", "seed"], ("loss", "min"))
    said = " ".join(sentences.describe_findings(alone, frame_of({"a": [1.0], "b": [2.0]}), 0))
    assert "median best_valid_loss 1 (1 member)" in said
    assert math.isnan(alone.combinations[0].low)


def test_the_interval_of_an_effect_is_over_seeds():
    """What the learning rate does by design is not luck: the range of the medians of each of three seeds."""
    rows = [
        {"member": f"{lr}{seed}", "lr": lr, "x": "a", "seed": seed, "status": "done", "stopped": "",
         "best_valid_loss": 100.0 * lr + seed, "best_test_loss": 0.0}
        for lr in range(5) for seed in range(3)
    ]  # fmt: skip
    effect = findings.find_findings(pl.DataFrame(rows), ["x", "lr", "seed"], ("loss", "min")).effects["x"][0]
    assert (effect.median, effect.low, effect.high, effect.coverage) == (201.0, 200.0, 202.0, 0.75)
    assert (effect.members, effect.seeds) == (15, 3)


STUDIES = {  # numbers of initialisations, learning rates, seeds, folds, readings
    "seeds and rates": (1, 7, 6, 1, 1),
    "initialisations too": (5, 7, 5, 1, 1),
    "many initialisations": (8, 3, 2, 1, 1),
    "folds": (1, 2, 8, 4, 1),
    "several readings": (1, 7, 8, 1, 6),
}


def study_without_effect(draw, inits, rates, seeds, folds, readings):
    """Scores and readings that both depend on the initialisation and on the initial network, but not on each other."""
    size = (inits, seeds)
    network, x_of = draw.normal(size=size) + draw.normal(size=(inits, 1)), draw.normal(size=(inits, 1, 1))
    reading = 2 * x_of + draw.normal(size=(*size, readings))
    return pl.DataFrame([
        {"member": f"{i}{lr}{seed}{fold}", "x": i, "lr": lr, "seed": seed, "task.fold": fold, "status": "done",
         "stopped": "", "best_valid_loss": float(10 * lr + network[i, seed] + 0.3 * draw.normal()),
         "best_test_loss": 0.0,
         **{f"init_horizon/layer_{r}": float(reading[i, seed, r] + 1e-3 * fold) for r in range(readings)}}
        for i in range(inits) for lr in range(rates) for seed in range(seeds) for fold in range(folds)
    ])  # fmt: skip


@pytest.mark.parametrize(
    "study", [name if name == "seeds and rates" else pytest.param(name, marks=pytest.mark.slow) for name in STUDIES]
)
def test_without_an_effect_p_is_below_a_twentieth_once_in_twenty(study):
    """Seven learning rates of one initial network are one network, and four folds, and the seeds of one setting."""
    draw, fewest, count = np.random.default_rng(0), [], 150
    for _ in range(count):
        frame = study_without_effect(draw, *STUDIES[study])
        found = findings.correlations(frame, ["x", "lr", "seed", "task.fold"], "best_valid_loss")
        assert len(found) == STUDIES[study][-1]
        fewest.append(min(correlation.p for correlation in found.values()))
    assert np.mean(np.array(fewest) < 0.05) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / count)


def test_an_effect_is_still_seen():
    draw = np.random.default_rng(0)
    rows = [
        {"member": f"{lr}{seed}", "lr": lr, "seed": seed, "status": "done", "stopped": "",
         "best_valid_loss": float(10 * lr + seed + 0.1 * draw.normal()), "best_test_loss": 0.0,
         "init_horizon/layer_0": float(seed), "init_slope/layer_0": float(draw.normal())}
        for lr in range(3) for seed in range(8)
    ]  # fmt: skip
    frame = pl.DataFrame(rows).with_columns(pl.col("init_slope/layer_0").first().over("seed"))
    found = findings.find_findings(frame, ["lr", "seed"], ("loss", "min"))
    correlation = found.correlations["init_horizon/layer_0"]
    assert correlation.rho > 0.95
    assert correlation.p < 0.01
    assert (correlation.members, correlation.starts, correlation.within) == (24, 8, ("lr",))
    said = " ".join(sentences.describe_findings(found, frame, 0))
    assert "over 8 starts, corrected for 2 readings)." in said


def test_two_equal_combinations_are_seldom_told_apart():
    """The better of two is put first, which makes differences look larger than those of two named beforehand."""
    draw, told_apart, count = np.random.default_rng(0), 0, 200
    for _ in range(count):
        frame = frame_of({x: draw.normal(size=4).tolist() for x in "ab"})
        found = findings.find_findings(frame, ["x", "seed"], ("loss", "min"))
        told_apart += "which seeds do not explain" in " ".join(sentences.describe_findings(found, frame, 0))
    assert told_apart / count <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / count)


def browser():
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser here: {', '.join(BROWSERS)}")
    return found


def drawn(path, script="", flags=()):
    """The page's document after its scripts ran, without a network."""
    if script:
        changed = path.with_name("changed.html")
        changed.write_text(path.read_text().replace("</body>", f"<script>{script}</script></body>"))
        path = changed
    flags = [*flags, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000",
             "--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom"]  # fmt: skip
    done = subprocess.run([browser(), *flags, path.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


ACROSS = "document.body.dataset.across = document.getElementById('heat').data[0].x.join();"


def test_the_page_draws_in_a_browser(whole, tmp_path):
    path = report.run([whole[0]], tmp_path).path
    page = path.read_text()
    assert not re.search(r'(src|href)="https?:', page.split("plotly.js", 1)[0])
    document = drawn(path, ACROSS)
    assert 'data-ready="ok"' in document
    assert 'data-across="0.01,1e+30"' in document
    for section in ("heat", "curves", "effects", "scatter", "correlations"):
        part = document.split(f'id="{section}"', 1)[1][:20000]
        assert "main-svg" in part, section
    assert "2/2 ×" in document  # marks of divergence in the heat map
    assert document.count("<tr>") == 9
    assert "python -m experiments.train --config" in document


def test_choosing_an_axis_redraws(whole, tmp_path):
    path = report.run([whole[0]], tmp_path).path
    script = ("const box = document.getElementById('heat-x'); box.value = 'seed'; "
              "box.dispatchEvent(new Event('change'));")  # fmt: skip
    assert 'data-across="0,1"' in drawn(path, script + ACROSS)


def test_the_best_member_can_be_run_alone(whole, tmp_path, undrawn):
    frame, axes, members = gather([whole[0]])
    best = findings.find_findings(frame, axes, ("loss", "min")).best
    words = shlex.split(report.commands_for(_best_member([whole[0]], members[best]))["The best member alone"])
    assert words[:3] == ["python", "-m", "experiments.train"]
    assert train.command([*words[3:], f"--workdir={tmp_path / 'run'}"]) == 0
    one, two = (RunDir(path).read_summary() for path in (members[best], tmp_path / "run"))
    assert [one[key] for key in ("best", "final", "steps")] == [two[key] for key in ("best", "final", "steps")]


def test_members_of_two_studies_that_share_their_ids(whole, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(whole[0], other)
    study = json.loads((other / "study.json").read_text())
    (other / "study.json").write_text(json.dumps({**study, "changes": {"train.log_steps": "3"}}))
    first = next(iter(study["members"]))
    summary = other / "members" / first / "summary.json"
    frame, _, members = gather([whole[0], other])
    assert frame["member"].n_unique() == len(members) == 2 * len(study["members"])
    assert members[f"other/{first}"] == summary.parent
    assert members[f"{whole[0].name}/{first}"] == whole[0] / "members" / first
    assert _best_member([whole[0], other], summary.parent).changes["train.log_steps"] == "3"
    assert "train.log_steps" not in _best_member([whole[0], other], members[f"{whole[0].name}/{first}"]).changes


def test_a_single_run(tmp_path):
    train.run(small(), tmp_path / "run")
    written = report.run([tmp_path / "run"])
    document = drawn(written.path)
    assert written.sentences[0] == "1 member, 0 diverged."
    assert 'data-ready="ok"' in document
    assert document.count("data:image/png;base64") >= 2
    row = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert pl.read_csv(tmp_path / "run" / "table.csv")["best_valid_loss"][0] == row["best"]["valid"]["loss"]


def test_wrong_directories(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="a directory is missing"):
        report.command([])
    with pytest.raises(UsageError, match="no such directory"):
        report.command([str(tmp_path / "absent")])
    with pytest.raises(UsageError, match=r"neither a study's directory nor a run's"):
        report.command([str(tmp_path)])
