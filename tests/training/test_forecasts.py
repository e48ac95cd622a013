"""Networks that forecast, and runs of them: what is fed back, backtests, predictions of what is to come."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
from flax import nnx

from experiments import backtest, evaluate, predict, train
from gru_jax import cells, nn
from gru_jax.errors import UsageError
from gru_jax.runs.export import export_run
from gru_jax.runs.forecasts import NETWORK, _margin, block_interval, cell_errors
from gru_jax.unroll import Intervention
from tests.pictures import assert_shows_something
from tests.tasks.test_forecast import recording, write
from tests.training.small import small

pytestmark = pytest.mark.usefixtures("compiled_once")

HORIZON = 3
SECTIONS = {
    "train": {"steps": 4, "batch_size": 8, "eval_steps": 2, "eval_batch_size": 8, "log_steps": 2, "call_steps": 2},
    "flow": {"every": 0},
}


def forecaster(**settings):
    settings = {"columns": 2, "horizon": HORIZON, **settings}
    size = 2 if settings.get("recursive") else 2 * HORIZON
    return nn.Forecaster(cells.GRU(), 3, (4, 5), size, rngs=nnx.Rngs(0), **settings)


def inputs(width=3, seed=1):
    return jax.random.normal(jax.random.key(seed), (4, 6, width))


def test_a_recursive_network_is_one_step_after_the_other():
    """By the network that forecasts one step, run anew on all that it has read and said."""
    model, read = forecaster(recursive=True), inputs()
    known = inputs(1, seed=2)[:, : HORIZON - 1]
    outputs = model.trace(read, decoder_inputs=known).outputs.reshape(4, HORIZON, 2)
    one_step = nn.SequenceModel(cells.GRU(), 3, (4, 5), 2, rngs=nnx.Rngs(0))
    for step in range(HORIZON):
        said = one_step(read)
        np.testing.assert_allclose(outputs[:, step], said, rtol=1e-5, atol=1e-6)
        if step < HORIZON - 1:
            read = jnp.concatenate([read, jnp.concatenate([said, known[:, step]], axis=-1)[:, None]], axis=1)


def test_what_is_dropped_of_states_is_so_at_steps_that_are_fed_back():
    model, read, known = forecaster(recursive=True), inputs(), jnp.zeros((4, HORIZON - 1, 1))
    masks = tuple(2.0 * jax.random.bernoulli(jax.random.key(size), 0.5, (4, 1, size)).astype(float) for size in (4, 5))
    outputs = model.trace(read, decoder_inputs=known, recurrent_masks=masks).outputs.reshape(4, HORIZON, 2)
    one_step = nn.SequenceModel(cells.GRU(), 3, (4, 5), 2, rngs=nnx.Rngs(0))
    for step in range(HORIZON):
        said = one_step.trace(read, recurrent_masks=masks).outputs
        np.testing.assert_allclose(outputs[:, step], said, rtol=1e-5, atol=1e-6)
        read = jnp.concatenate([read, jnp.concatenate([said, known[:, 0]], axis=-1)[:, None]], axis=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gradient": {"truncate": 2}}, r"gradient\.truncate, detach and adjoint_clip: do not reach the steps that"),
        (
            {"regularization": {"recurrent_dropout": 0.5, "recurrent_dropout_per": "step"}},
            r"recurrent_dropout_per=step: does not reach the steps that task\.recursive feeds back; allowed is",
        ),
    ],
)
def test_what_would_act_on_the_context_alone_is_refused(changes, message, tmp_path):
    write(tmp_path / "x.csv", recording())
    task = {"name": "forecast", "file": "x.csv", "time_columns": ("when",), "data_dir": str(tmp_path), "context": 6}
    task |= {"targets": ("a", "b"), "horizon": HORIZON, "valid_part": 10.0, "test_part": 12.0, "recursive": True}
    with pytest.raises(UsageError, match=message):
        small(task=task, **SECTIONS, **changes)
    assert small(task=task, **SECTIONS, regularization={"recurrent_dropout": 0.5})


def test_gradients_go_through_what_is_fed_back():
    graph, params = nnx.split(forecaster(recursive=True, columns=2))
    read, known = inputs(), jnp.zeros((4, HORIZON - 1, 1))

    def loss(params):
        return jnp.square(nnx.merge(graph, params).trace(read, decoder_inputs=known).outputs).sum()

    slopes, step = jax.grad(loss)(params), 1e-2
    head = slopes["head"]["bias"][...]
    for unit in range(2):
        moved = [
            loss(jax.tree_util.tree_map_with_path(
                lambda path, leaf, s=sign, u=unit: leaf.at[u].add(s * step) if "head" in str(path) and leaf.ndim == 1
                else leaf, params))
            for sign in (1, -1)
        ]  # fmt: skip
        assert float(head[unit]) == pytest.approx(float(moved[0] - moved[1]) / (2 * step), rel=2e-2)


@pytest.mark.parametrize("recursive", [False, True])
def test_relative_to_the_last_value_a_level_makes_no_difference(recursive):
    model, read = forecaster(subtract_last=True, recursive=recursive), inputs()
    options = {"decoder_inputs": jnp.zeros((4, HORIZON - 1, 1))} if recursive else {}
    level = jnp.array([[[5.0, -7.0, 0.0]]])
    plain, raised = (model.trace(xs, **options).outputs.reshape(4, HORIZON, 2) for xs in (read, read + level))
    np.testing.assert_allclose(raised, plain + level[..., :2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", [{"subtract_last": True}, {"highway": 6}])
def test_a_context_of_fewer_steps_is_refused(how):
    with pytest.raises(UsageError, match="lengths, mask: with subtract_last or highway all steps of the context count"):
        forecaster(**how).trace(inputs(), lengths=jnp.array([3, 6, 6, 6]))
    with pytest.raises(UsageError, match="allowed is None"):
        forecaster(**how).trace(inputs(), mask=np.ones((4, 6), bool))


def test_the_highway_is_a_linear_map_of_the_context():
    model, read = forecaster(highway=6, subtract_last=True), inputs()
    before = model(read)
    weights = jax.random.normal(jax.random.key(3), (6, HORIZON))
    model.context_map.kernel[...] = weights
    past = read[..., :2] - read[:, -1:, :2]
    added = jnp.einsum("bco,ch->bho", past, weights).reshape(4, -1)
    np.testing.assert_allclose(model(read), before + added, rtol=1e-4, atol=1e-5)


def test_what_a_forecaster_would_ignore_is_refused():
    model, xs = forecaster(recursive=True), inputs()
    with pytest.raises(UsageError, match="interventions: do not reach the steps that recursive=True feeds back"):
        model.trace(xs, interventions=Intervention(clip=1e-3), decoder_inputs=jnp.zeros((xs.shape[0], HORIZON - 1, 1)))
    with pytest.raises(UsageError, match="decoder_inputs: without effect, no steps are fed back"):
        forecaster().trace(xs, decoder_inputs=jnp.zeros((xs.shape[0], HORIZON - 1, 1)))
    with pytest.raises(UsageError, match="xs has 6 steps: needed are 7, which the highway maps"):
        forecaster(highway=7).trace(xs)


def test_what_is_told_of_the_training_is_of_what_was_trained_on(tmp_path, undrawn):
    write(tmp_path / "x.csv", recording())
    task = {"name": "forecast", "file": "x.csv", "time_columns": ("when",), "data_dir": str(tmp_path), "context": 6,
            "targets": ("a",), "inputs": ("w",), "horizon": HORIZON, "train_share": 0.3}  # fmt: skip
    made = train.run(small(task=task, **SECTIONS), tmp_path / "run")
    metrics = evaluate.run(made, "train").metrics
    windows = backtest.run(made, "train")
    assert windows.by_origin.height == made.config.task.size("train")
    assert windows.by_origin["network"].mean() == pytest.approx(metrics["loss"], rel=1e-4)
    with pytest.raises(UsageError, match="resamples=0: allowed are whole numbers from 1"):
        backtest.run(made, resamples=0)


def test_where_the_share_is_of_single_columns_all_windows_are_told_of(tmp_path, undrawn):
    write(tmp_path / "x.csv", recording())
    task = {"name": "forecast", "file": "x.csv", "time_columns": ("when",), "data_dir": str(tmp_path), "context": 6,
            "targets": ("a", "b"), "separate": True, "horizon": HORIZON, "train_share": 0.5}  # fmt: skip
    made = train.run(small(task=task, **SECTIONS), tmp_path / "run")
    assert backtest.run(made, "train").by_origin.height == made.config.task.size("train")  # half of two columns


def test_segments_are_rows_side_by_side():
    model = nn.Forecaster(
        cells.GRU(), 6, (4,), 2 * HORIZON, columns=2, horizon=HORIZON, segment=2, subtract_last=True, rngs=nnx.Rngs(0)
    )
    read = inputs()
    relative = jnp.concatenate([read[..., :2] - read[:, -1:, :2], read[..., 2:]], axis=-1).reshape(4, 3, 6)
    plain = nn.SequenceModel(cells.GRU(), 6, (4,), 2 * HORIZON, rngs=nnx.Rngs(0))(relative)
    expected = plain.reshape(4, HORIZON, 2) + read[:, -1:, :2]
    np.testing.assert_allclose(model(read.reshape(4, 3, 6)), expected.reshape(4, -1), rtol=1e-5, atol=1e-6)
    with pytest.raises(UsageError, match="recursive=True: goes from step to step"):
        nn.Forecaster(cells.GRU(), 6, (4,), 2, columns=2, horizon=2, segment=2, recursive=True, rngs=nnx.Rngs(0))


# Runs

KINDS = {
    "direct": {"inputs": ("w",), "subtract_last": True},
    "quantiles": {"quantiles": (0.1, 0.5, 0.9), "separate": True, "calendar": ("hour",)},
    "recursive": {"recursive": True, "known": ("k",), "missing": "mask", "season": 4},
}


@pytest.fixture(scope="module", params=KINDS)
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    write(folder / "x.csv", recording())
    task = {"name": "forecast", "file": "x.csv", "time_columns": ("when",), "data_dir": str(folder), "context": 6}
    task |= {"targets": ("a", "b"), "horizon": HORIZON, "valid_part": 10.0, "test_part": 12.0, **KINDS[request.param]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gru_jax.runs.pictures.draw_pictures", lambda rundir, config: [])
        return train.run(small(task=task, **SECTIONS), folder / "run")


def test_a_backtest_says_what_an_evaluation_says(run, tmp_path, capsys):
    made, metrics = backtest.run(run), evaluate.run(run).metrics
    assert metrics == run.summary["best"]["test"]
    task = run.config.task
    key = "crps" if task.quantiles else "loss"
    network = made.by_column.filter(forecast="network")
    assert made.by_step["network"].mean() == pytest.approx(metrics[key], rel=1e-4)
    assert made.by_origin["network"].mean() == pytest.approx(metrics[key], rel=1e-4)
    for name in ("mae", "mse_units", "mae_units"):
        assert network[name].mean() == pytest.approx(metrics[name], rel=1e-4)
    for name, scores in task.baselines.items():
        assert made.by_step[name].mean() == pytest.approx(scores[key], rel=1e-4)
    best = min(scores[key] for scores in task.baselines.values())
    assert made.margin.difference == pytest.approx(best - metrics[key], rel=1e-3, abs=1e-6)
    assert made.margin.low <= made.margin.difference <= made.margin.high
    assert backtest.command(["--workdir", str(run.path), "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert made.margin.baseline in printed
    assert ("WORSE" in printed) == (made.margin.difference <= 0)
    assert pl.read_csv(tmp_path / "by_origin.csv").height == 10
    for name in made.figures():
        assert_shows_something(tmp_path / f"{name}.png")


def test_what_is_to_come_is_forecast_as_in_the_test(run, tmp_path):
    """Of a file that ends before the last rows of the test, without their targets."""
    task, columns = run.config.task, recording()
    end = len(columns["a"]) - HORIZON
    cut = {name: values.astype(float)[: None if task.known else end] for name, values in columns.items()}
    for name in ("a", "b"):
        cut[name][end:] = np.nan
    ahead = predict.run(run, write(tmp_path / "new.csv", cut))
    known = evaluate.run(run, predicts=True).predictions
    assert ahead.table["time"].to_list() == known.table["time"].to_list()[-HORIZON:]
    assert ahead.table["time"][-1] == "2020-02-29 11:00:00"
    names = [name for name in ahead.table.columns if name not in ("sequence", "step", "time")]
    assert len(names) == 2 * len(task.quantiles or (0.5,))
    for name in names:
        np.testing.assert_allclose(ahead.table[name], known.table[name][-HORIZON:], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(known.table["target a"][-HORIZON:], columns["a"][-HORIZON:], rtol=1e-6)
    assert not ahead.metrics
    assert known.metrics == pytest.approx(run.summary["best"]["test"], rel=1e-6)


def test_a_run_needs_no_data_to_forecast(run, tmp_path, monkeypatch):
    monkeypatch.setattr("gru_jax.tasks.forecasting.Forecasting.stamps", lambda task: 1 / 0)
    path = write(tmp_path / "new.csv", {name: values[:40].astype(float) for name, values in recording().items()})
    if run.config.task.known:
        with pytest.raises(UsageError, match="k must be known 3 rows ahead, where a, b are missing, and are 0"):
            predict.run(run, path)
    else:
        assert predict.run(run, path).table.height == HORIZON


def test_what_cannot_be_forecast(run, tmp_path):
    few = write(tmp_path / "few.csv", {name: values[:4].astype(float) for name, values in recording().items()})
    with pytest.raises(UsageError, match=r"has 4 rows with values; needed are the context=6"):
        predict.run(run, few)
    other = write(tmp_path / "other.csv", {"a": np.ones(9), "c": np.ones(9)})
    with pytest.raises(UsageError, match="is no column of it"):
        predict.run(run, other)
    with pytest.raises(UsageError, match="forecasts a table"):
        run.predict(np.zeros((1, 6, 2)))
    with pytest.raises(UsageError, match="reads windows of a table"):
        export_run(run)


def test_a_backtest_is_of_what_forecasts(tmp_path, undrawn):
    run = train.run(small(), tmp_path / "adding")
    with pytest.raises(UsageError, match="of the task Adding, which forecasts no recording"):
        backtest.run(run)


def test_going_on_gives_the_same(run, tmp_path, undrawn):
    """A run that is stopped and goes on, and one in one go."""
    config = run.config.to_dict()
    again = train.run(config, tmp_path / "again")
    assert again.summary["best"]["test"] == run.summary["best"]["test"]


# The interval


def test_the_interval_of_independent_origins_is_that_of_their_mean():
    rng = np.random.default_rng(0)
    values = rng.normal(size=4000)
    low, high = block_interval(values, np.ones(4000), 1, resamples=4000)
    assert (high - low) / 2 == pytest.approx(1.96 / np.sqrt(4000), rel=0.05)


def test_the_interval_of_dependent_origins_is_wider_by_their_correlation():
    """A moving average of 20: the mean has 20 times the variance of as many independent ones."""
    rng = np.random.default_rng(1)
    noise = rng.normal(size=20019)
    values = np.convolve(noise, np.ones(20) / np.sqrt(20), "valid")
    low, high = block_interval(values, np.ones(len(values)), 200)
    assert (high - low) / 2 == pytest.approx(1.96 * np.sqrt(20 / 20000), rel=0.15)
    assert block_interval(values[:30], np.ones(30), 20) == (None, None)


def test_a_margin_over_what_makes_no_error():
    cells_of = {NETWORK: np.ones((9, 2, 1)), "last value": np.zeros((9, 2, 1)), "mean": np.full((9, 2, 1), 3.0)}
    margin = _margin(cells_of, 2, 50, 0)
    assert (margin.baseline, margin.difference) == ("last value", -1.0)
    assert np.isnan(margin.share)
    assert _margin({**cells_of, "last value": np.full((9, 2, 1), 2.0)}, 2, 50, 0).share == 0.5


def test_errors_of_cells():
    targets, forecasts = np.array([[[1.0]], [[np.nan]]]), np.zeros((2, 1, 1, 1))
    np.testing.assert_array_equal(cell_errors(forecasts, targets, ()), np.array([[[1.0]], [[np.nan]]]))
    np.testing.assert_array_equal(cell_errors(forecasts, targets, (0.5,)), np.array([[[1.0]], [[np.nan]]]))
