"""Steps that are not finite and are skipped: they change nothing but the number of steps, and are counted."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest

from experiments import train
from gru_jax.config import traced_hyperparameters, training_program
from gru_jax.errors import UsageError
from gru_jax.runs.diagnosis import NonFiniteError
from gru_jax.runs.directory import RunDir
from gru_jax.runs.early_stopping import EarlyStopping, EndReason, MetricWindow
from gru_jax.runs.growth import grown_keys
from gru_jax.runs.population import PopulationRun
from gru_jax.runs.single import SingleRun
from gru_jax.runtime.files import write_json
from gru_jax.tasks.loading import load_splits
from gru_jax.training.population import CompiledPopulation, Population
from gru_jax.training.skipping import skips_of
from gru_jax.training.step import Trainer
from tests.training.killing import struck
from tests.training.small import Faulty, small, timeless
from tests.training.test_population import same_files
from tests.training.test_resume import same_run

BAD_STEPS = (5, 6, 9)  # counted from 0, of batches of 8


def faulty(bad=BAD_STEPS, **changes):
    config = small(**changes)
    task = Faulty(8, bad=tuple(8 * step + 3 for step in bad), valid_size=20, test_size=30)
    return dataclasses.replace(config, task=task)


def take(trainer, steps, most=(9, 9), before=(0, 0)):
    """These steps of twelve; with limits, as many may be skipped, in all and in a row, and were before."""
    values, train = traced_hyperparameters(trainer.config), trainer.config.train
    indices = trainer.config.task.train_indices(8, 0)(0, 12)
    indices[: len(steps)] = indices[steps]
    limits = dataclasses.replace(train, **dict(zip(("skip_nonfinite", "skip_nonfinite_in_a_row"), most, strict=True)))
    skips = jax.tree.map(lambda a: a[0], skips_of([limits], np.array([before]))) if train.skip_nonfinite else None
    return trainer.run(trainer.init(0, values), 0, values, {}, indices, np.int32(len(steps)), skips)


@pytest.fixture(scope="module")
def trainer():
    optimizer = {"schedule": "cosine", "warmup_steps": 3, "noise": 0.01}
    return Trainer(faulty(train={"skip_nonfinite": 3}, optimizer=optimizer))


def test_a_skipped_step_changes_nothing_but_the_number_of_steps(trainer):
    """To the bit: what comes out is what the other batches alone make; the rate is that of the next update."""
    good = [step for step in range(12) if step not in BAD_STEPS]
    with_bad, without = take(trainer, np.arange(12)), take(trainer, np.array(good))
    assert with_bad.finite
    assert (int(with_bad.state.step), int(without.state.step)) == (12, 9)
    for ours, wanted in zip(with_bad.state[1:], without.state[1:], strict=True):
        jax.tree.map(np.testing.assert_array_equal, ours, wanted)
    for name in ("loss", "learning_rate", "grad_norm"):
        np.testing.assert_array_equal(with_bad.metrics[name][np.array(good)], without.metrics[name][:9])
    assert np.flatnonzero(with_bad.metrics["skipped"]).tolist() == list(BAD_STEPS)
    assert not np.isfinite(with_bad.metrics["loss"][np.array(BAD_STEPS)]).any()


@pytest.mark.parametrize(
    ("most", "before", "ends_at"),
    [((3, None), (0, 0), 12), ((2, None), (0, 0), 9), ((3, 2), (0, 0), 12), ((3, 1), (0, 0), 6),
     ((3, None), (1, 1), 9), ((9, 2), (4, 4), 12), ((1, None), (1, 0), 5)],
)  # fmt: skip
def test_more_than_may_be_end_the_training(most, before, ends_at, trainer):
    done = take(trainer, np.arange(12), most, before)
    assert int(done.state.step) == ends_at
    assert bool(done.finite) == (ends_at == 12)
    assert trainer.run._cache_size() == 1, "limits are values"


def test_what_was_skipped_right_before_is_in_a_row_with_the_first_step(trainer):
    ends = [int(take(trainer, np.array([5, 6, 7]), (9, 2), (4, before)).state.step) for before in (0, 1, 2)]
    assert ends == [3, 1, 0]


def test_without_it_the_program_knows_nothing_of_it():
    done = take(Trainer(faulty()), np.arange(12))
    assert (int(done.state.step), bool(done.finite)) == (5, False)
    assert "skipped" not in done.metrics
    off, *on = (training_program(small(train=limits)) for limits in (
        {}, {"skip_nonfinite": 1}, {"skip_nonfinite": 9, "skip_nonfinite_in_a_row": 2},
    ))  # fmt: skip
    assert len(set(on)) == 1
    assert off not in on


@pytest.fixture(scope="module")
def skipping():
    return faulty(train={"skip_nonfinite": 3}, flow={"live": 1})


@pytest.fixture(scope="module")
def whole(skipping, tmp_path_factory):
    path = tmp_path_factory.mktemp("skipping") / "whole"
    train.run(skipping, path)
    return path


def test_skipped_steps_are_counted_and_no_number_is_missing(whole):
    summary, lines = RunDir(whole).read_summary(), [line for line in timeless(whole) if line["split"] == "train"]
    assert (summary["skipped"], summary["steps"], summary["stopped"]) == (3, 12, None)
    assert [line["skipped"] for line in lines] == [0, 0, 1, 1, 1, 0]  # of two steps each
    assert all(np.isfinite(line["loss"]) for line in lines)
    assert json.dumps(lines, allow_nan=False)
    live = RunDir(whole).read_flow()
    is_known = np.isfinite(live["live/adjoint/layer_0"]).all(axis=1)
    assert np.flatnonzero(~is_known).tolist() == list(BAD_STEPS)
    assert np.array_equal(live["live/step"], np.arange(12))


def test_killed_between_skipped_steps_it_ends_with_the_same_bits(whole, skipping, tmp_path, monkeypatch, undrawn):
    with struck(monkeypatch, RunDir, "append_metrics", 8):
        train.run(skipping, tmp_path)
    train.run(skipping, tmp_path)
    same_run(whole, tmp_path)
    assert RunDir(tmp_path).read_summary()["skipped"] == 3


def test_one_too_many_ends_the_run_and_says_how_many_there_were(tmp_path, undrawn, capsys):
    config = faulty(train={"skip_nonfinite": 2})
    with pytest.raises(NonFiniteError, match=r"step 10 is not finite, after 2 that were skipped, 0 of them right"):
        train.run(config, tmp_path / "run")
    assert "not finite and skipped, 2 of 2 steps" in capsys.readouterr().out
    more = faulty(train={"skip_nonfinite": 3})
    with struck(pytest.MonkeyPatch(), SingleRun, "_finish", 1, "before"):
        train.run(more, tmp_path / "run")
    assert len([line for line in timeless(tmp_path / "run") if line["split"] == "train"]) == 6


@pytest.mark.slow
def test_members_skip_each_for_itself(skipping, whole, tmp_path, undrawn):
    """To the bits of a run alone; one that may skip fewer ends alone."""
    fewer = dataclasses.replace(skipping, seed=1, train=dataclasses.replace(skipping.train, skip_nonfinite=2))
    configs = [skipping, fewer]
    compiled = CompiledPopulation(configs[0], load_splits(configs[0].task, 1), jax.devices(), "map")
    run = PopulationRun(Population(compiled, configs), RunDir(tmp_path / "wave"))
    run.train()
    paths = [tmp_path / str(i) for i in range(2)]
    run.finish(paths, keep_networks=True)
    run.close()
    same_files(paths[0], whole)
    assert run.members[1].end_reason == EndReason.DIVERGED
    assert (run.members[1].steps, RunDir(paths[1]).read_summary()["skipped"]) == (9, 2)


def test_a_line_of_nothing_but_skipped_steps_has_their_number():
    window, nan = MetricWindow(2), np.float32("nan")
    skipped = {"loss": nan, "learning_rate": np.float32(0.5), "skipped": np.float32(1)}
    assert window.add(1, skipped, last=False) is None
    assert window.add(2, skipped, last=False) == {"learning_rate": 0.5, "skipped": 2.0}
    window.add(3, skipped, last=False)
    good = {"loss": np.float32(3), "learning_rate": np.float32(0.25), "skipped": np.float32(0)}
    assert MetricWindow(2, window.pending).add(4, good, last=False) == {
        "loss": 3.0, "learning_rate": 0.25, "skipped": 1.0,
    }  # fmt: skip


def test_steps_in_a_row_are_counted_anew():
    member = EarlyStopping()
    for is_skipped in (True, True, False, True):
        member.count_step(is_skipped=is_skipped)
    assert (member.steps, member.num_skipped, member.num_skipped_in_a_row) == (4, 3, 1)


@pytest.mark.parametrize(
    ("before", "after", "keys"),
    [
        ({}, {"skip_nonfinite": 3}, ["train.skip_nonfinite"]),
        ({"skip_nonfinite": 3}, {"skip_nonfinite": 2}, []),
        ({"skip_nonfinite": 3}, {"skip_nonfinite": 3, "skip_nonfinite_in_a_row": 2}, []),
        ({"skip_nonfinite": 3, "skip_nonfinite_in_a_row": 2}, {"skip_nonfinite": 3},
         ["train.skip_nonfinite_in_a_row"]),
    ],
)  # fmt: skip
def test_a_run_that_ended_may_skip_more(before, after, keys, tmp_path):
    write_json(tmp_path / "config.json", small(train=before).to_dict())
    assert grown_keys(RunDir(tmp_path), small(train=after)) == keys


def test_a_limit_of_nothing_is_one_line():
    with pytest.raises(UsageError, match=r"skip_nonfinite_in_a_row=2: without effect; train\.skip_nonfinite says"):
        small(train={"skip_nonfinite_in_a_row": 2})
