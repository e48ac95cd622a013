"""Searches by Optuna: the same study however often it is killed, what the samplers ask for, and who ends at a rung."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import polars as pl
import pytest

from experiments import ablate
from gru_jax.errors import UsageError
from gru_jax.runs.directory import RunDir
from gru_jax.runs.population import PopulationRun
from gru_jax.studies import directory, runner
from gru_jax.studies.axes import parse_axis
from gru_jax.studies.directory import MEMBERS
from gru_jax.studies.halving import Halving
from gru_jax.studies.report import table
from gru_jax.studies.runner import RunnerOptions
from gru_jax.studies.search import SearchRunner
from gru_jax.studies.search_space import distribution_of, even_numbers
from gru_jax.studies.study import load_study
from gru_jax.studies.trials import BATCH, JOURNAL, NAME, SearchTrials, TrialResult
from tests.training.killing import struck
from tests.training.small import small

optuna = pytest.importorskip("optuna")
pytest.importorskip("cmaes")
pytestmark = pytest.mark.usefixtures("compiled_once")

AXES = {"optimizer.lr": "log(1e-4,1e-0)", "initialisation": {"zeros": {"model.init.gate_bias": "zeros"},
                                                            "chrono": {"model.init.gate_bias": "chrono"}}}  # fmt: skip
RANGES = {"optimizer.lr": "log(1e-4,1e0)", "model.init.recurrent_scale": "lin(0.5,2)"}


def study_of(axes=RANGES, method="tpe", count=6, batch=3, **extra):
    """A search over a tiny run."""
    described = {
        "base": small().to_dict(),
        "axes": axes,
        "sampling": {"method": method, "count": count, "batch": batch},
        **extra,
    }
    return load_study(described)


def run(study, path):
    ablate.run_members(study, path, RunnerOptions())


def trials_of(path):
    """All that tells the trials of a journal apart, but for the time; read by Optuna itself."""
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path / JOURNAL)))
    trials = optuna.load_study(study_name=NAME, storage=storage).trials
    return [(t.number, t.params, t.state.name, t.value, t.intermediate_values, t.user_attrs) for t in trials]


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A search in one go."""
    from tests.programs import compiled_once

    path = tmp_path_factory.mktemp("searched") / "study"
    with compiled_once():
        run(study_of(AXES), path)
    return path


def test_optuna_reads_what_came_of_every_member(searched):
    frame, axes = table.read_table(searched)
    trials = trials_of(searched)
    assert axes == list(AXES)
    assert [number for number, *_ in trials] == list(range(6))
    for (_, params, state, value, scores, attrs), row in zip(trials, frame.iter_rows(named=True), strict=True):
        assert params["optimizer.lr"] == pytest.approx(row["optimizer.lr"], rel=1e-5)
        assert (params["initialisation"], state) == (row["initialisation"], "COMPLETE")
        assert (value, attrs[BATCH] % 3) == (row["best_valid_loss"], 0)
        lines = RunDir(searched / MEMBERS / row["member"]).read_metrics()
        assert scores == {line["step"]: line["loss"] for line in lines if line["split"] == "valid"}
    assert len({value for _, _, _, value, _, _ in trials}) == 6  # each batch trained networks of its own


def test_a_search_that_is_done_runs_nothing_again(searched, monkeypatch):
    before = (searched / JOURNAL).read_bytes()
    monkeypatch.setattr(runner, "PopulationRun", None)
    run(study_of(AXES), searched)
    assert (searched / JOURNAL).read_bytes() == before


KILLS = [  # in the order in which they meet the search: a function, which of its calls, and on which side of it
    (SearchTrials, "begin_batch", 1, "before"),
    (optuna.storages.JournalStorage, "create_new_trial", 2, "after"),  # two of three are in the journal
    (directory.StudyDir, "start", 1, "after"),
    (RunDir, "append_metrics", 2, "after"),  # in the middle of the first batch
    (PopulationRun, "finish", 1, "before"),
    (directory.shutil, "rmtree", 1, "before"),
    (SearchTrials, "tell", 1, "after"),  # between batches: one of three is told
    (SearchTrials, "begin_batch", 2, "before"),
    (optuna.storages.JournalStorage, "create_new_trial", 1, "after"),
    (RunDir, "append_metrics", 3, "before"),  # in the middle of the second
    (PopulationRun, "finish", 1, "after"),
    (SearchTrials, "tell", 2, "after"),
]


@pytest.mark.parametrize("kills", [[KILLS[i] for i in (1, 3, 6, 9)], pytest.param(KILLS, marks=pytest.mark.slow)])
def test_killed_again_and_again_it_ends_with_the_same_study(searched, tmp_path, monkeypatch, kills):
    study = study_of(AXES)
    for owner, name, call, when in kills:
        with struck(monkeypatch, owner, name, call, when) as calls:
            run(study, tmp_path / "study")
        assert len(calls) == call  # it was killed there
    run(study, tmp_path / "study")
    assert trials_of(tmp_path / "study") == trials_of(searched)
    assert table.read_table(tmp_path / "study")[0].equals(table.read_table(searched)[0])


def test_half_a_line_and_a_lock_that_a_kill_left(searched, tmp_path):
    study, path = study_of(AXES), tmp_path / "study"
    path.mkdir()
    whole = (searched / JOURNAL).read_bytes()
    (path / JOURNAL).write_bytes(whole + b'{"op_code":6,"worker')
    (path / f"{JOURNAL}.lock").symlink_to("gone")
    kept = SearchTrials(path, study, "min")
    assert len(kept.trials) == 6
    kept.begin_batch()
    assert (path / JOURNAL).read_bytes() == whole
    assert kept.is_whole()


def test_more_samples_go_on_from_those_there_are(searched, tmp_path):
    for count in (3, 6):
        run(study_of(AXES, count=count), tmp_path / "study")
        assert trials_of(tmp_path / "study") == trials_of(searched)[:count]


def test_members_of_all_seeds_are_one_trial(tmp_path):
    study = study_of({**RANGES, "seed": "0..2"}, count=1, batch=1)
    run(study, tmp_path / "study")
    frame = table.read_table(tmp_path / "study")[0]
    assert frame.height == 3
    medians = frame.group_by("optimizer.lr", maintain_order=True).agg(pl.col("best_valid_loss").median())
    assert [value for _, _, _, value, _, _ in trials_of(tmp_path / "study")] == medians["best_valid_loss"].to_list()


def test_one_that_diverged_is_worse_than_all(tmp_path):
    run(study_of({"optimizer.lr": "0.01,1e30"}, count=3), tmp_path / "study")
    trials = trials_of(tmp_path / "study")
    assert {(params["optimizer.lr"], np.isinf(value)) for _, params, _, value, _, _ in trials} == {
        ("0.01", False),
        ("1e30", True),
    }


def test_what_ended_at_a_rung_is_pruned(tmp_path):
    study = study_of({"optimizer.lr": "log(1e-4,1e-1)"}, halving={"first": 4, "eta": 3})
    run(study, tmp_path / "study")
    frame = table.read_table(tmp_path / "study")[0]
    states = [state for _, _, state, *_ in trials_of(tmp_path / "study")]
    assert [{"done": "COMPLETE", "halved": "PRUNED"}[status] for status in frame["status"]] == states
    assert states.count("COMPLETE") in (2, 3)  # one of the first batch, and the best two of all at the second
    for (_, _, state, _, scores, _), steps in zip(trials_of(tmp_path / "study"), frame["steps"], strict=True):
        assert max(scores) == steps == (4 if state == "PRUNED" else 12)


def simulated(path, score, method, count, batch, axes, seed=0):
    """A search whose scores are a function of its parameters; its trials."""
    path.mkdir(exist_ok=True)
    study = study_of(axes, method, count, batch)
    study = dataclasses.replace(study, sampling=dataclasses.replace(study.sampling, seed=seed))
    kept = SearchTrials(path, study, "min")
    while not kept.is_whole():
        kept.begin_batch()
        for trial in [trial for trial in kept.trials if not trial.state.is_finished()]:
            kept.tell(trial.number, TrialResult(score(trial.params), {}, is_pruned=False))
    return kept.trials


def bowl(params):
    return (np.log10(params["optimizer.lr"]) + 2.7) ** 2 + 4 * (params["model.init.recurrent_scale"] - 1.4) ** 2


@pytest.mark.parametrize("method", ["tpe", "cmaes"])
def test_searches_close_in_on_the_best(tmp_path, method):
    """On a bowl they come nearer than as many random samples, by the median over seeds."""
    bests = [
        min(t.value for t in simulated(tmp_path / str(seed), bowl, method, 48, 8, RANGES, seed)) for seed in range(5)
    ]
    draw = np.random.default_rng(0).random((2000, 48, 2))
    at_random = (4 * draw[..., 0] - 4 + 2.7) ** 2 + 4 * (0.5 + 1.5 * draw[..., 1] - 1.4) ** 2
    assert np.median(bests) < np.quantile(at_random.min(axis=1), 0.25)


@pytest.mark.parametrize("method", ["tpe", "cmaes"])
def test_what_is_asked_for_follows_from_the_seed_and_the_scores(tmp_path, method):
    trials = [simulated(tmp_path / name, bowl, method, 16, 8, RANGES, seed)
              for name, seed in (("a", 0), ("b", 0), ("c", 1))]  # fmt: skip
    params = [[trial.params for trial in of_search] for of_search in trials]
    assert params[0] == params[1]
    assert not any(one == two for one, two in zip(params[0], params[2], strict=True))
    other = simulated(tmp_path / "d", lambda p: -bowl(p), method, 16, 8, RANGES, 0)
    assert [trial.params for trial in other][:8] == params[0][:8]
    assert [trial.params for trial in other][8:] != params[0][8:]


def test_cmaes_is_that_of_its_library(tmp_path):
    """Every generation as the library itself goes on, told the same."""
    import cmaes

    trials = simulated(tmp_path / "a", bowl, "cmaes", 16, 8, RANGES)
    seed = int(np.random.SeedSequence([0, 8]).generate_state(1)[0])
    strategy = cmaes.CMA(np.full(2, 0.5), 0.25, np.tile([0.0, 1.0], (2, 1)), population_size=8, seed=seed)
    units = [
        np.array([(np.log10(t.params["optimizer.lr"]) + 4) / 4, (t.params["model.init.recurrent_scale"] - 0.5) / 1.5])
        for t in trials
    ]
    strategy.tell([(unit, trial.value) for unit, trial in zip(units[:8], trials[:8], strict=True)])
    np.testing.assert_allclose(units[8:], [strategy.ask() for _ in range(8)], rtol=1e-6, atol=1e-9)


def test_conditions_are_kept(tmp_path):
    axes = {"model.init.gate_bias": "zeros,chrono", "model.init.t_max": "lin(2,50)", "optimizer.lr": "log(1e-4,1e-1)"}
    where = {"model.init.t_max": "model.init.gate_bias == 'chrono'", "*": "optimizer.lr < 0.01"}
    kept = SearchTrials(tmp_path, study_of(axes, count=12, batch=12, where=where), "min")
    kept.begin_batch()
    params = [trial.params for trial in kept.trials]
    assert {("model.init.t_max" in p, p["model.init.gate_bias"]) for p in params} == {
        (True, "chrono"),
        (False, "zeros"),
    }
    assert all(p["optimizer.lr"] < 0.01 for p in params)
    assert len(kept.points()) == 12
    never = study_of(axes, count=2, where={"*": "optimizer.lr > 1"})
    (tmp_path / "never").mkdir()
    with pytest.raises(UsageError, match=r"where.\*=optimizer.lr > 1: none of 100 samples fulfils it"):
        SearchTrials(tmp_path / "never", never, "min").begin_batch()


def test_a_point_is_not_asked_for_twice_while_there_are_others(tmp_path):
    axes = {"model.hidden": "4|5|6|8|9|11|13|14", "optimizer.lr": "0.1,0.2"}
    trials = simulated(tmp_path, lambda p: float(p["model.hidden"]), "tpe", 12, 4, axes)
    assert len({tuple(sorted(trial.params.items())) for trial in trials}) == 12


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("log(1e-4,1)", optuna.distributions.FloatDistribution(1e-4, 1.0, log=True)),
        ("lin(0,2)", optuna.distributions.FloatDistribution(0.0, 2.0)),
        ("1..4", optuna.distributions.IntDistribution(1, 4)),
        ("16,32,48", optuna.distributions.IntDistribution(16, 48, step=16)),
        ("16,32,64", optuna.distributions.CategoricalDistribution(["16", "32", "64"])),
        ("8,4", optuna.distributions.CategoricalDistribution(["8", "4"])),
        ("zeros,chrono", optuna.distributions.CategoricalDistribution(["zeros", "chrono"])),
    ],
)
def test_axes_as_optuna_has_them(written, wanted):
    axis = parse_axis("a", written)
    assert distribution_of(axis) == wanted
    assert (even_numbers(axis) is not None) == isinstance(wanted, optuna.distributions.IntDistribution)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 0}, "sampling.count=0: allowed are whole numbers from 1"),
        ({"axes": {"seed": "0..1"}}, "an axis other than seed, task.fold, task.test_fold is needed"),
        ({"axes": {"task.test_fold": "0..9"}}, "an axis other than seed, task.fold, task.test_fold is needed"),
        ({"method": "cmaes", "axes": AXES, "batch": 4}, "axes.initialisation: cmaes takes ranges"),
        ({"method": "cmaes", "axes": {"optimizer.lr": "log(1e-4,1)"}, "batch": 4}, "two axes at least"),
        ({"method": "cmaes"}, "sampling.batch=3: a generation of cmaes has 4 samples at least"),
        ({"axes": {"optimizer.lr": "log(1e-4,1)", "optimizer.l": "1,2"}}, "optimizer.l"),
        ({"halving": {"first": 3}}, "there is no validation at the rung of step 3"),
        ({"halving": {"first": 4, "rule": "median", "brackets": 2}}, "halving.brackets=2"),
    ],
)
def test_wrong_use_is_one_line_and_writes_nothing(tmp_path, changes, message):
    with pytest.raises(UsageError, match=message):
        run(study_of(**changes), tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_without_optuna_it_is_said_which_extra_brings_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UsageError, match=r"sampling.method=tpe: optuna 4 or later is not installed; pip"):
        run(study_of(), tmp_path / "study")


def test_a_journal_of_other_axes_or_that_is_damaged_is_refused(searched, tmp_path):
    (tmp_path / JOURNAL).write_bytes((searched / JOURNAL).read_bytes())
    with pytest.raises(UsageError, match=r"axes.optimizer.lr: .* is of a search over"):
        SearchTrials(tmp_path, study_of({**AXES, "optimizer.lr": "log(1e-3,1e-1)"}), "min")
    with pytest.raises(UsageError, match="another score"):
        SearchTrials(tmp_path, study_of(AXES), "max")
    for text in ("{}\n", "nothing\nof it\n"):
        (tmp_path / JOURNAL).write_text(text)
        with pytest.raises(UsageError, match="damaged"):
            SearchTrials(tmp_path, study_of(AXES), "min")
    (tmp_path / JOURNAL).unlink()
    (tmp_path / "elsewhere").touch()
    (tmp_path / JOURNAL).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="a link"):
        SearchTrials(tmp_path, study_of(AXES), "min")


# Who ends at a rung


def test_brackets_have_the_shares_of_hyperband():
    halving, draw = Halving(first=1, eta=3, brackets=3), np.random.default_rng(0)
    ids = ["".join(draw.choice(list("0123456789abcdef"), 12)) for _ in range(6000)]
    counts = np.bincount([halving.bracket(name) for name in ids], minlength=3)
    wanted = np.array([9 / 3, 3 / 2, 1 / 1])  # eta^s / (s + 1)
    np.testing.assert_allclose(counts / 6000, wanted / wanted.sum(), atol=4 * np.sqrt(0.25 / 6000))


def test_hyperband_halves_each_bracket_from_its_own_rung_on():
    halving = Halving(first=2, eta=2, brackets=2)
    curves = {f"{i:02x}".ljust(12, "0"): {2: float(i), 4: float(i)} for i in range(0, 256, 8)}
    early = {name for name in curves if halving.bracket(name) == 0}
    at_two, at_four = (halving.decide(rung, curves) for rung in (2, 4))
    assert set(at_two) < early
    assert len(at_two) == len(early) // 2
    assert len(at_four) == len(early) // 2 + (32 - len(early)) // 2
    assert "in bracket 2" in next(why for name, why in at_four.items() if name not in early)


def test_the_median_rule_counts_the_best_so_far_and_those_that_ended():
    halving = Halving(first=10, rule="median")
    assert halving.rungs(35) == [10, 20, 30]
    curves = {"a": {10: 5.0, 20: 1.0}, "b": {10: 2.0, 20: 9.0}, "c": {10: 3.0, 20: 3.5}, "d": {10: 4.0}, "e": {10: 6.0}}
    assert set(halving.decide(10, curves)) == {"a", "e"}  # the median is 4
    assert set(halving.decide(20, curves)) == set()  # 1, 2, 3, 4, 6: d and e have ended, none of the others is worse
    assert set(halving.decide(20, {**curves, "f": {10: 0.5, 20: 0.5}, "g": {10: 0.5, 20: 0.5}})) == {"c"}


def test_the_direction_is_known_where_no_first_sample_fulfils_the_condition(tmp_path):
    study = study_of({"optimizer.lr": "lin(0.001,1)"}, where={"*": "optimizer.lr < 0.0011"})
    highest = {**small().to_dict(), "task": {"name": "temporal_order", "length": 20, "valid_size": 8, "test_size": 8}}
    searched = SearchRunner(dataclasses.replace(study, base=highest), tmp_path, RunnerOptions())
    searched._check()
    assert searched._direction == "max"


def test_the_size_of_generations_is_kept(tmp_path):
    simulated(tmp_path, bowl, "cmaes", 12, 4, RANGES)
    with pytest.raises(UsageError, match=r"sampling\.batch=5: the search was begun with 4, which it must keep"):
        simulated(tmp_path, bowl, "cmaes", 17, 5, RANGES)


def test_a_count_that_is_no_multiple_of_a_generation_can_grow(tmp_path):
    for count in (6, 16):
        assert len(simulated(tmp_path, bowl, "cmaes", count, 4, RANGES)) == count
