"""The benchmark: equal work, what it writes, and its errors of use. No times are asserted."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from experiments.bench import __main__ as bench
from experiments.bench import population as bench_population
from experiments.bench import start as bench_start
from experiments.bench.measure import Shape
from experiments.bench.peers import PEERS
from gru_jax.cells import GRU
from gru_jax.errors import UsageError

SMALL = Shape(7, 3, 2, 4)


@pytest.mark.parametrize("last", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_peers_that_are_there_agree_and_are_compared(last, jax_as_users_have_it):
    peers, _ = bench.installed(["linen", "nnx", "haiku", "equinox"])
    assert "linen" in peers
    row = bench.measure_shape(SMALL, peers, repeats=2, last=last)
    assert set(row["contenders"]) == {bench.OURS, *peers, *([bench.BOUNDARIES] if last else [])}
    for of in row["contenders"].values():
        assert of["median_ms"] >= of["min_ms"] > 0
        assert of["temp_bytes"] > 0
    assert row["contenders"][bench.OURS]["ratio"] == 1.0
    assert "best JAX peer" in bench.best_peers(row)


def test_other_work_is_refused(monkeypatch, jax_as_users_have_it):
    """A peer whose states are not ours does not get a time."""
    params = jax.tree.map(np.asarray, GRU().init(jax.random.key(0), 2, 4))
    xs = jax.random.normal(jax.random.key(1), (3, 7, 2))
    wrong = PEERS["linen"]._replace(cell=GRU("after", "write"))
    monkeypatch.setitem(PEERS, "linen", wrong)
    with pytest.raises(UsageError, match=r"--peers=linen: its hidden states differ from ours by"):
        bench.theirs("linen", params, xs, False)


def test_command_writes_numbers_and_a_picture(tmp_path, capsys, jax_as_users_have_it):
    out = tmp_path / "out"
    code = bench.command(
        ["unroll", "--shapes=5,2,1,3:6,2,2,4", "--peers=linen", "--repeats=1", f"--out={out}", "--loss=last"]
    )
    assert code == 0
    result = json.loads((out / "bench.json").read_text())
    assert [row["shape"]["time"] for row in result["rows"]] == [5, 6]
    assert result["versions"]["jax"] == jax.__version__
    assert (out / "bench.png").stat().st_size > 5000
    printed = capsys.readouterr().out
    assert "over ours" in printed
    assert "linen" in printed


@pytest.mark.slow
def test_scaling_and_long_draw_their_pictures(tmp_path, monkeypatch, jax_as_users_have_it):
    base = SMALL
    sweeps = {name: [base, base._replace(**{name: 9})] for name in ("time", "batch", "hidden")}
    monkeypatch.setattr(bench, "SWEEPS", sweeps)
    assert bench.command(["scaling", "--peers=linen", "--repeats=1", f"--out={tmp_path / 's'}"]) == 0
    assert len(json.loads((tmp_path / "s" / "bench.json").read_text())["rows"]) == 4
    assert (tmp_path / "s" / "bench.png").exists()
    assert bench.command(["long", "--steps=20,50", "--repeats=1", f"--out={tmp_path / 'l'}"]) == 0
    rows = json.loads((tmp_path / "l" / "bench.json").read_text())["rows"]
    assert [row["time"] for row in rows] == [20, 50]
    assert (tmp_path / "l" / "bench.png").exists()


@pytest.mark.slow
def test_a_population_is_compared_with_runs(tmp_path):
    rows = [*bench_population.throughput([2], 1), bench_population.ablation(8, 1, steps=3)]
    assert (rows[0]["members"], rows[1]["members"], rows[1]["runs"]) == (2, 8, 1)
    assert all(row["ratio"] > 0 for row in rows)
    bench_population.draw(rows, tmp_path / "bench.png")
    assert (tmp_path / "bench.png").stat().st_size > 1000


def test_missing_peers_are_named(monkeypatch):
    monkeypatch.setitem(PEERS, "haiku", PEERS["haiku"]._replace(module="no_such_module_here"))
    assert bench.installed(["linen", "haiku"]) == (["linen"], ["haiku"])


def test_the_grid_is_forty_shapes_within_the_bounds():
    shapes = bench.grid()
    assert len(set(shapes)) == 40
    low, high = np.min(shapes, axis=0), np.max(shapes, axis=0)
    assert (low >= (50, 1, 1, 8)).all()
    assert (high <= (4096, 256, 256, 512)).all()
    assert shapes == bench.grid()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], ("command", "unroll, scaling, long")),
        (["unrol"], ("'unrol'", "did you mean 'unroll'")),
        (["unroll", "--shapes=1,2,3"], ("--shapes=1,2,3", "table, grid", "T,B,D,H")),
        (["unroll", "--shapes=0,2,3,4"], ("--shapes=0,2,3,4", "from 1")),
        (["unroll", "--peers=pytorch"], ("'pytorch'", "torch, linen", "did you mean 'torch'")),
        (["unroll", "--repeats=none"], ("--repeats=none", "from 1")),
        (["unroll", "--loss=first"], ("'first'", "all, last")),
        (["scaling", "--shapes=table"], ("--shapes", "no such flag")),
        (["long", "--steps=1e6"], ("--steps=1e6", "from 1")),
    ],
)
def test_wrong_use(argv, words):
    with pytest.raises(UsageError) as raised:
        bench.command(argv)
    assert all(word in str(raised.value) for word in words), str(raised.value)


def test_start_says_what_a_newcomer_waits_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench_start, "first_step", lambda folder: 1.5)
    assert bench.command(["start", "--repeats=1", f"--out={tmp_path / 'bench'}"]) == 0
    rows = {row["what"]: row["seconds"] for row in json.loads((tmp_path / "bench" / "bench.json").read_text())["rows"]}
    assert rows["first step, programs kept"] == 1.5
    assert rows["import jax"] > 0
    assert (tmp_path / "bench" / "bench.png").stat().st_size > 0
