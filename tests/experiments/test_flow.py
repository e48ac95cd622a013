"""The command that looks at gradient flow: runs, fresh initialisations, sweeps, and its errors of use."""

from __future__ import annotations

import numpy as np
import pytest

from experiments import flow, train
from gru_jax.errors import UsageError
from gru_jax.flow import theory
from gru_jax.plotting.comparison import ComparedRun, group_by_seed, plot_histories
from gru_jax.runs.directory import RunDir
from gru_jax.runs.flow import describe_records
from gru_jax.studies import sweep
from tests.pictures import assert_shows_something
from tests.training.small import small

pytestmark = pytest.mark.usefixtures("compiled_once")

CONFIG = """
from ml_collections import ConfigDict

def get_config():
    return ConfigDict({
        "task": {"name": "adding", "length": 12, "valid_size": 20, "test_size": 20},
        "model": {"hidden": (4,)},
        "train": {"steps": 4, "batch_size": 4},
        "flow": {"batch_size": 4},
    })
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "one"
    train.run(small(), path)
    return path


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(CONFIG)
    return path


def test_a_run_reads_as_it_was_recorded(run, tmp_path, capsys):
    out = tmp_path / "out"
    assert flow.command(["--workdir", str(run), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "step 12" in printed
    assert "falls to 1/e at lag" in printed
    assert "Lyapunov exponents" in printed
    records, recorded = RunDir(out).read_flow(), RunDir(run).read_flow()
    assert records["step"].tolist() == [12]
    np.testing.assert_allclose(records["adjoint/layer_0"][0], recorded["adjoint/layer_0"][-1], rtol=1e-6)
    assert {"lyapunov/layer_0", "gradient_share/layer_0/z", "time_scales/layer_0"} <= set(records)
    names = {path.name for path in out.glob("*.png")}
    assert {"gradient_flow.png", "gates.png", "time_scales.png", "lyapunov.png", "gradient_shares.png"} <= names


def test_a_checkpoint_by_its_step(run, tmp_path):
    arguments = ["--workdir", str(run), "--instruments", "adjoint", "--format", "svg", "--out", str(tmp_path / "out")]
    assert flow.command([*arguments, "--step", "8"]) == 0
    records, recorded = RunDir(tmp_path / "out").read_flow(), RunDir(run).read_flow()
    assert records["step"].tolist() == [8]
    assert not any(name.startswith("gates/") for name in records)
    assert (tmp_path / "out" / "gradient_flow.svg").read_text().startswith("<?xml")
    assert records["adjoint/layer_0"].shape == recorded["adjoint/layer_0"][:1].shape


def test_the_parameters_a_run_started_from(run, tmp_path):
    arguments = ["--workdir", str(run), "--step", "init", "--instruments", "adjoint", "--out", str(tmp_path / "out")]
    assert flow.command(arguments) == 0
    records, recorded = RunDir(tmp_path / "out").read_flow(), RunDir(run).read_flow()
    assert records["step"].tolist() == recorded["step"].tolist()[:1] == [0]
    np.testing.assert_allclose(records["adjoint/layer_0"][0], recorded["adjoint/layer_0"][0], rtol=1e-6)


def test_several_runs_are_overlaid(run, tmp_path, capsys):
    both = f"{run},{run}"
    assert flow.command(["--workdir", both, "--instruments", "adjoint,lyapunov", "--out", str(tmp_path / "out")]) == 0
    for name in ("profiles", "spectra", "histories"):
        assert_shows_something(tmp_path / "out" / f"{name}.png")
    assert len(list((tmp_path / "out").glob("*/flow.npz"))) == 2


def test_runs_that_differ_in_their_seed_alone_are_a_group(run):
    rundir = RunDir(run)
    configs = {"a-0": small(), "b-0": small(optimizer={"lr": 0.1}), "a-1": small(seed=1)}
    members = [
        ComparedRun(name, 12, config, rundir.read_metrics(), rundir.read_flow(), rundir.read_flow())
        for name, config in configs.items()
    ]
    named = {name: [member.name for member in of] for name, of in group_by_seed(members).items()}
    assert named == {"a-0 … a-1": ["a-0", "a-1"], "b-0": ["b-0"]}
    loss, exponent_or_horizon = plot_histories(members).axes
    assert [len(line.get_xdata()) for line in loss.lines] == [4, 4, 4]
    assert [text.get_text() for text in exponent_or_horizon.get_legend().get_texts()] == ["a-0 … a-1", "b-0"]
    assert loss.lines[0].get_color() == loss.lines[1].get_color() != loss.lines[2].get_color()
    assert "gradient horizon, 1% (steps)" in exponent_or_horizon.get_ylabel()


def test_a_fresh_initialisation_is_where_a_run_starts(config, tmp_path, undrawn):
    arguments = ["--config", str(config), "--config.flow.instruments", "adjoint,gates"]
    train.command([*arguments, "--workdir", str(tmp_path / "run")])
    flow.command(["--config", str(config), "--instruments", "adjoint,gates", "--out", str(tmp_path / "out")])
    first, fresh = RunDir(tmp_path / "run").read_flow(), RunDir(tmp_path / "out").read_flow()
    assert fresh["step"].tolist() == [0]
    np.testing.assert_allclose(fresh["adjoint/layer_0"][0], first["adjoint/layer_0"][0], rtol=1e-6)


def test_sweep_on_the_task(config, tmp_path, capsys):
    out = tmp_path / "out"
    sweep = ["--sweep", "model.init.recurrent_scale=0.5:1.5:3"]
    assert flow.command(["--config", str(config), *sweep, "--out", str(out)]) == 0
    with np.load(out / "sweep.npz") as stored:
        assert stored["values"].tolist() == ["0.5", "1", "1.5"]
        assert stored["adjoint/layer_0"].shape == (3, 12)
        assert stored["lyapunov/layer_0"].shape == (3, 4)
        slopes = stored["slope/layer_0"]
    assert slopes[0] < slopes[2]
    assert_shows_something(out / "sweep.png")
    assert "model.init.recurrent_scale=1.5: " in capsys.readouterr().out


def test_sweep_over_names_recompiles_where_it_must(config, tmp_path):
    out = tmp_path / "out"
    assert flow.command(["--config", str(config), "--sweep", "model.cell.reset=after,before", "--out", str(out)]) == 0
    with np.load(out / "sweep.npz") as stored:
        assert not np.allclose(stored["lyapunov/layer_0"][0], stored["lyapunov/layer_0"][1])


def test_sweep_over_sizes(config, tmp_path):
    """Shorter rows end in NaN, so that states or sequences of several sizes fit one file and one picture."""
    out, sizes = tmp_path / "out", ["--sweep", "model.hidden=3,5", "--instruments", "lyapunov"]
    assert flow.command(["--config", str(config), *sizes, "--out", str(out)]) == 0
    with np.load(out / "sweep.npz") as stored:
        assert np.isnan(stored["lyapunov/layer_0"]).tolist() == [[False] * 3 + [True] * 2, [False] * 5]


@pytest.mark.parametrize(
    ("cell", "edge"),
    [({"name": "gru"}, 2.0), ({"name": "gru", "activation": "relu"}, None), ({"name": "layer_norm_gru"}, None)],
)
def test_the_edge_of_theory_is_that_of_the_cell(cell, edge):
    config = small(model={"cell": cell, "init": {"recurrent": "fan_in_normal"}})
    assert sweep.stability_edge(config, "model.init.recurrent_scale") == edge


def test_sweep_of_the_resting_cell_crosses_the_edge_of_theory(config, tmp_path):
    out = tmp_path / "out"
    flow.command([
        "--config", str(config), "--config.model.hidden=200", "--config.task.length=400",
        "--config.model.init.recurrent=fan_in_normal", "--config.flow.exponents=4", "--config.flow.interval=10",
        "--input", "zeros", "--sweep", "model.init.recurrent_scale=1.6:2.4:3", "--out", str(out),
    ])  # fmt: skip
    with np.load(out / "sweep.npz") as stored:
        largest = stored["lyapunov/layer_0"][:, 0]
    crossing = np.interp(0.0, largest, [1.6, 2.0, 2.4])
    np.testing.assert_allclose(crossing, theory.edge_of_stability(0.0), rtol=0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "one of --workdir, a run, and --config"),
        (["--workdir", "RUN", "--config", "CONFIG"], "one of --workdir, a run, and --config"),
        (["--workdir", "nowhere"], "--workdir=nowhere: not a run directory"),
        (["--workdir", "RUN", "--step", "7"], "--step=7: .* has checkpoints of steps 8, 12"),
        (["--workdir", "RUN", "--step", "last"], "--step=last: allowed are best, latest, init or a step"),
        (["--workdir", "RUN", "--sweep", "seed=1:3:3"], "--sweep=seed=1:3:3: allowed with --config"),
        (["--workdir", "RUN", "--config.optimizer.lr=1"], "--config.optimizer.lr: the run has its own config"),
        (["--workdir", "RUN", "--instruments", "lyapunow"], "flow.instruments='lyapunow': .* mean 'lyapunov'"),
        (["--workdir", "RUN", "--out", "RUN"], "--out=.*: a run's directory; allowed is another"),
        (["--workdir", "RUN", "--config.flow.every=0"], "--config.flow.every: for experiments.train"),
        (["--workdir", "RUN,nowhere"], "--workdir=nowhere: not a run directory"),
        (["--workdir", "RUN", "--format", "gif"], "--format='gif': allowed are png, svg, pdf"),
        (["--config", "CONFIG", "--step", "3"], "--step=3: allowed with --workdir"),
        (["--config", "CONFIG", "--input", "zeros"], "--input=zeros: allowed with --sweep"),
        (["--config", "CONFIG", "--sweep", "model.init.recurent_scale=1:2:3"], "mean 'model.init.recurrent_scale'"),
        (["--config", "CONFIG", "--sweep", "model.init.recurrent_scale=1:2"], "allowed are KEY=LOW:HIGH:COUNT"),
        (["--config", "CONFIG", "--sweep", "seed"], "allowed are KEY=LOW:HIGH:COUNT and KEY=a,b,c"),
        (["--config", "CONFIG", "--sweep", "seed=1,x"], "seed='?x'?: a whole number is needed"),
        (["--config", "CONFIG", "--sweep", "seed=1,2", "--input", "noise"], "--input='noise': allowed are task, zeros"),
    ],
)
def test_errors_of_use(arguments, message, run, config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = {"RUN": str(run), "CONFIG": str(config)}
    with pytest.raises(UsageError, match=message):
        flow.command([",".join(places.get(part, part) for part in argument.split(",")) for argument in arguments])
    assert not (tmp_path / "runs").exists()


def test_steps_that_no_sequence_has_are_left_out_in_words():
    radii = np.array([[0.5, 2.0, np.nan]])
    lines = describe_records({"spectral_radius/layer_0": radii, "spectral_radius/layer_1": radii * np.nan})
    assert lines == ["layer_0: spectral radius of a step 0.5000 to 2.0000"]
