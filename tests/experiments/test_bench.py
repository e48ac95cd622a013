"""The benchmark: equal work, what it writes, and its errors of use. No times are asserted."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.bench import long, plots, population, start, unroll
from experiments.bench.__main__ import KINDS, command
from experiments.bench.flags import PARSERS, parse_flag
from experiments.bench.measure import Compiled, Shape, interleaved
from experiments.bench.peers import PEERS, installed_peers
from gru_jax.cells import GRU
from gru_jax.errors import UsageError
from tests.pictures import assert_legends_fit, assert_shows_something

SMALL, ROOT = Shape(7, 3, 2, 4), Path(__file__).parent.parent.parent


@pytest.mark.parametrize("loss", ["all", *(pytest.param(loss, marks=pytest.mark.slow) for loss in ("last", "none"))])
def test_peers_that_are_there_agree_and_are_compared(loss, jax_as_users_have_it):
    peers, _ = installed_peers(["linen", "nnx", "haiku", "equinox"])
    assert "linen" in peers
    row = unroll.measure_shape(SMALL, peers, repeats=2, loss=loss)
    assert set(row["contenders"]) == {unroll.OURS, *peers, *([unroll.BOUNDARIES] if loss == "last" else [])}
    for result in row["contenders"].values():
        assert result["median_ms"] >= result["min_ms"] > 0
        assert result["temp_bytes"] > 0 or loss == "none"
    assert row["contenders"][unroll.OURS]["ratio"] == 1.0
    assert "best JAX peer" in unroll.describe_best_peers(row)


def test_short_steps_are_timed_more_often_than_asked_for():
    calls = []
    steps = {name: Compiled(functools.partial(calls.append, name)) for name in "ab"}
    assert [len(times) for times in interleaved(steps, 3).values()] == [3, 3]
    assert len(calls) == 3 * 2 * 2, "each turn runs every step twice"
    more = interleaved(steps, 3, least_seconds=0.05)
    assert len(more["a"]) == len(more["b"]) > 3


def test_the_legend_of_many_contenders_is_in_the_picture(tmp_path, monkeypatch):
    made, figure = [], plots.figure

    def noted(panels):
        made.append(figure(panels))
        return made[-1]

    monkeypatch.setattr(plots, "figure", noted)
    names = [f"{library}{several}" for library in PEERS for several in ("", " on 2")]
    contenders = {name: {"ratio": 1.0 + place} for place, name in enumerate(names)}
    plots.plot_ratios([{"shape": SMALL._asdict(), "contenders": contenders}], tmp_path / "bench.png")
    assert len(names) > 10
    assert_legends_fit(made[0][0])


def test_other_work_is_refused(monkeypatch, tmp_path, jax_as_users_have_it):
    """A peer whose states are not ours does not get a time."""
    params = jax.tree.map(np.asarray, GRU().init(jax.random.key(0), 2, 4))
    xs = jax.random.normal(jax.random.key(1), (3, 7, 2))
    wrong = PEERS["linen"]._replace(cell=GRU("after", "write"))
    monkeypatch.setitem(PEERS, "linen", wrong)
    with pytest.raises(unroll.UnequalWorkError, match=r"^linen: its hidden states differ from ours by"):
        unroll.peer_step("linen", params, xs, "all")
    with pytest.raises(UsageError, match=r"^--peers=linen: its hidden states differ from ours by"):
        command(["unroll", f"--shapes={SMALL}", "--peers=linen", "--repeats=1", f"--out={tmp_path / 'out'}"])
    assert not (tmp_path / "out").exists()


def test_command_writes_numbers_and_a_picture(tmp_path, capsys, jax_as_users_have_it):
    out = tmp_path / "out"
    shapes, once = "--shapes=5,2,1,3:6,2,2,4", ["--repeats=1", "--seconds=0"]
    assert command(["unroll", shapes, "--peers=linen", *once, f"--out={out}", "--loss=last"]) == 0
    result = json.loads((out / "bench.json").read_text())
    assert [row["shape"]["time"] for row in result["rows"]] == [5, 6]
    assert result["versions"]["jax"] == jax.__version__
    assert_shows_something(out / "bench.png", 7.0, 1.4 + 0.28 * 2)
    printed = capsys.readouterr().out
    assert "over ours" in printed
    assert "linen" in printed


@pytest.mark.slow
def test_two_devices_training_and_streaming_are_measured(tmp_path):
    """Each in a process of its own, as devices are made before JAX is used."""
    env = {name: value for name, value in os.environ.items() if name != "JAX_NUM_CPU_DEVICES"}
    for arguments, size in (
        (
            ["unroll", "--shapes=7,4,2,4:7,3,2,4", "--peers=linen,nnx", "--devices=2", "--seconds=0"],
            (7.0, 1.4 + 2 * 0.28),
        ),
        (["stream", "--widths=3,4", "--peers=linen,nnx,haiku,equinox"], (8.0, 4.5)),
        (["train", "--configs=quickstart", "--peers=linen", "--devices=2"], (8.0, 2.6)),
    ):
        out = tmp_path / arguments[0]
        command = [sys.executable, "-m", "experiments.bench", *arguments, "--repeats=1", f"--out={out}"]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        assert_shows_something(out / "bench.png", *size)
    shared, odd = json.loads((tmp_path / "unroll" / "bench.json").read_text())["rows"]
    assert {"gru_jax on 2", "gru_jax", "linen", "linen on 2"} < shared["contenders"].keys()
    assert "linen on 2" in unroll.describe_best_peers(shared) or "nnx on 2" in unroll.describe_best_peers(shared)
    assert odd["contenders"].keys() == {"gru_jax", "linen", "nnx"}, "three sequences are not two devices' to share"
    assert " on 2" not in unroll.describe_best_peers(odd)


@pytest.mark.slow
def test_scaling_and_long_draw_their_pictures(tmp_path, monkeypatch, jax_as_users_have_it):
    base = SMALL
    sweeps = {name: [base, base._replace(**{name: 9})] for name in ("time", "batch", "hidden")}
    monkeypatch.setattr(unroll, "SWEEPS", sweeps)
    assert command(["scaling", "--peers=linen", "--repeats=1", "--seconds=0", f"--out={tmp_path / 's'}"]) == 0
    assert len(json.loads((tmp_path / "s" / "bench.json").read_text())["rows"]) == 4
    assert_shows_something(tmp_path / "s" / "bench.png", 10.0, 6.0)
    assert command(["long", "--steps=20,50", "--repeats=1", f"--out={tmp_path / 'l'}"]) == 0
    rows = json.loads((tmp_path / "l" / "bench.json").read_text())["rows"]
    assert [row["time"] for row in rows] == [20, 50]
    assert_shows_something(tmp_path / "l" / "bench.png", 7.0, 3.0)


@pytest.mark.slow
def test_a_population_is_compared_with_runs(tmp_path):
    rows = [*population.measure_throughput([2], 1), population.measure_ablation(8, 1, steps=3)]
    assert (rows[0]["members"], rows[1]["members"], rows[1]["runs"]) == (2, 8, 1)
    assert all(row["ratio"] > 0 for row in rows)
    plots.plot_population(rows, tmp_path / "bench.png")
    assert_shows_something(tmp_path / "bench.png", 5.0, 3.4)


def test_missing_peers_are_named(monkeypatch):
    monkeypatch.setitem(PEERS, "haiku", PEERS["haiku"]._replace(module="no_such_module_here"))
    assert installed_peers(["linen", "haiku"]) == (["linen"], ["haiku"])


def test_the_grid_is_forty_shapes_within_the_bounds():
    shapes = unroll.grid_shapes()
    assert len(set(shapes)) == 40
    low, high = np.min(shapes, axis=0), np.max(shapes, axis=0)
    assert (low >= (50, 1, 1, 8)).all()
    assert (high <= (4096, 256, 256, 512)).all()
    assert shapes == unroll.grid_shapes()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], ("command", "unroll, train, stream, scaling, long")),
        (["unrol"], ("'unrol'", "did you mean 'unroll'")),
        (["unroll", "--shapes=1,2,3"], ("--shapes=1,2,3", "table, grid", "T,B,D,H")),
        (["unroll", "--shapes=0,2,3,4"], ("--shapes=0,2,3,4", "from 1")),
        (["unroll", "--peers=pytorch"], ("'pytorch'", "torch, linen", "did you mean 'torch'")),
        (["unroll", "--repeats=none"], ("--repeats=none", "from 1")),
        (["unroll", "--seconds=-1"], ("--seconds=-1", "from 0")),
        (["unroll", "--loss=first"], ("'first'", "all, last, none")),
        (["unroll", "--shapes=9,3,2,4", "--devices=64"], ("--devices=64", "the devices here")),
        (["train", "--configs=pixel"], ("'pixel'", "quickstart, rows", "did you mean 'pixels'")),
        (["scaling", "--shapes=table"], ("--shapes", "no such flag")),
        (["long", "--steps=1e6"], ("--steps=1e6", "from 1")),
    ],
)
def test_wrong_use(argv, words):
    jax.devices()  # there from now on; before, a command could have as many as it asks for
    with pytest.raises(UsageError) as raised:
        command(argv)
    assert all(word in str(raised.value) for word in words), str(raised.value)


def test_start_says_what_a_newcomer_waits_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(start, "first_step_seconds", lambda folder: 1.5)
    assert command(["start", "--repeats=1", f"--out={tmp_path / 'bench'}"]) == 0
    rows = {row["what"]: row["seconds"] for row in json.loads((tmp_path / "bench" / "bench.json").read_text())["rows"]}
    assert rows["first step, programs kept"] == 1.5
    assert rows["import jax"] > 0
    assert_shows_something(tmp_path / "bench" / "bench.png", 8.0, 3.0)
    assert "first step, programs kept" in capsys.readouterr().out


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_are_values_of_their_flags(kind):
    for flag, default in KINDS[kind].flags.items():
        assert flag in PARSERS
        assert parse_flag(flag, default)


@pytest.mark.slow
def test_instruments_and_spectra_are_measured(tmp_path, jax_as_users_have_it):
    (row,) = long.measure_spectra([20], 1)
    assert long.describe_length(row).startswith("T=20: ")
    assert command(["flow", "--sizes=9,2,3", "--repeats=1", f"--out={tmp_path}"]) == 0
    (row,) = json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert row["costs"]["training step"]["steps"] == 1.0
    assert_shows_something(tmp_path / "bench.png", 7.0, 1.4 + 0.4 * (len(row["costs"]) - 1))
