"""Forecasts: windows, splits, scores, forecasts without a network, times, damaged files."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from gru_jax.config import load
from gru_jax.data.series import SeriesOptions, read_series
from gru_jax.data.times import TimeStep, calendar_features
from gru_jax.errors import UsageError
from gru_jax.tasks import ETTh1, ExchangeRates, Forecast, SmallSeries
from gru_jax.tasks.forecast_baselines import StandardColumns, fit_linear
from gru_jax.tasks.forecast_scores import forecast_metrics, level_weights, pinball_losses

ROWS = 60


def recording(seed=0, rows=ROWS):
    rng = np.random.default_rng(seed)
    return {"a": rng.normal(3, 2, rows), "b": rng.normal(-1, 5, rows), "w": rng.normal(size=rows), "k": np.arange(rows)}


def write(path, columns, times=None):
    if times is None:
        times = np.datetime64("2020-02-27T00", "s") + np.arange(len(columns["a"])) * np.timedelta64(1, "h")
    lines = ["when," + ",".join(columns)]
    for time, *numbers in zip(times, *columns.values(), strict=True):
        cells = ["" if np.isnan(number) else repr(float(number)) for number in numbers]
        lines.append(",".join([str(time).replace("T", " "), *cells]))
    path.write_text("\n".join(lines) + "\n")
    return path


def made(folder, columns=None, **settings):
    write(folder / "x.csv", recording() if columns is None else columns)
    options = {"context": 6, "horizon": 3, "valid_part": 10.0, "test_part": 12.0, "targets": ("a", "b")}
    return Forecast("x.csv", time_columns=("when",), data_dir=str(folder), **{**options, **settings})


def batch_of(task, split, index=None):
    index = jnp.arange(task.size(split), dtype=jnp.int32) if index is None else jnp.asarray(index, jnp.int32)
    return task.batch(jax.device_put(task.load(split)), jax.random.key(0), index)


# Windows


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_windows_are_those_of_the_split(split, tmp_path):
    task, columns = made(tmp_path, inputs=("w",)), recording()
    train = np.stack([columns[name][:38] for name in ("a", "b", "w")], axis=1)
    values = np.stack([columns[name] for name in ("a", "b", "w")], axis=1)
    values = (values - train.mean(axis=0)) / train.std(axis=0)
    first, end = {"train": (6, 38), "valid": (38, 48), "test": (48, 60)}[split]
    batch = batch_of(task, split)
    assert task.size(split) == end - first - 3 + 1 == len(batch.xs)
    for number, start in enumerate(range(first, end - 2)):
        np.testing.assert_allclose(batch.xs[number], values[start - 6 : start], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(batch.targets[number, 1:], values[start : start + 3, :2], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(batch.targets[:, 0], np.tile(train.std(axis=0)[:2], (len(batch.xs), 1)), rtol=1e-6)


def test_what_is_known_of_later_rows_does_not_change_the_training(tmp_path):
    facts = [made(tmp_path, {**recording(), "a": np.r_[recording()["a"][:38], later]}).facts
             for later in (np.zeros(22), np.full(22, 1e3))]  # fmt: skip
    assert facts[0] == facts[1]


def test_what_is_known_in_advance_is_of_the_rows_to_come(tmp_path):
    task = made(tmp_path, known=("k",), calendar=("hour",), scale=False)
    xs, first = np.asarray(batch_of(task, "test").xs), np.arange(task.size("test"))[:, None] + np.arange(42, 48)
    np.testing.assert_array_equal(xs[..., 2], first + 1)
    np.testing.assert_array_equal(xs[..., 3], first + 3)
    np.testing.assert_allclose(xs[..., 4], np.sin(2 * np.pi * (first + 1) / 24), atol=1e-6)
    assert task.facts.features == ("a", "b", "k in 1 step", "k in 3 steps", "hour (sine)", "hour (cosine)")


def test_columns_by_themselves_and_steps_side_by_side(tmp_path):
    whole = batch_of(made(tmp_path, inputs=("w",)), "test")
    task = made(tmp_path, inputs=("w",), separate=True, segment=2)
    apart = batch_of(task, "test")
    assert (task.size("test"), task.time, task.input_size, task.output_size) == (2 * len(whole.xs), 3, 4, 3)
    for column in (0, 1):
        rows = apart.xs[column::2].reshape(-1, 6, 2)
        np.testing.assert_array_equal(rows, whole.xs[..., np.array([column, 2])])
        np.testing.assert_array_equal(apart.targets[column::2], whole.targets[..., column : column + 1])


def test_training_windows_may_be_apart(tmp_path):
    every, apart = (batch_of(made(tmp_path, stride=stride), "train") for stride in (1, 4))
    np.testing.assert_array_equal(every.xs[::4], apart.xs)
    assert made(tmp_path, stride=4).size("test") == 10


def test_batches_are_the_same_one_by_one_and_under_vmap(tmp_path):
    task = made(tmp_path, recording() | {"b": np.where(np.arange(ROWS) % 7, 1.0, np.nan)}, missing="mask")
    data, whole = jax.device_put(task.load("test")), batch_of(task, "test")
    one = jax.vmap(lambda i: task.batch(data, jax.random.key(1), i[None]))(jnp.arange(task.size("test")))
    np.testing.assert_array_equal(one.xs[:, 0], whole.xs)
    np.testing.assert_array_equal(one.targets[:, 0], whole.targets)


# What is missing


def gaps_in(column, rows):
    columns = recording()
    columns[column][list(rows)] = np.nan
    return columns


@pytest.mark.parametrize("missing", ["zero", "mean", "mask"])
def test_missing_numbers(missing, tmp_path):
    task = made(tmp_path, gaps_in("a", (44, 45, 50)), missing=missing)
    batch, mean = batch_of(task, "test"), task.facts.inputs_scale.mean[0]
    first = np.asarray(batch.xs[0])  # of rows 42 to 47
    shown = -mean / task.facts.inputs_scale.deviation[0] if missing == "zero" else 0
    np.testing.assert_allclose(first[2:4, 0], shown, rtol=1e-5)
    if missing == "mask":
        np.testing.assert_array_equal(first[:, 2:], np.isin(np.arange(42, 48), (44, 45))[:, None] * np.array([1, 0]))
    np.testing.assert_allclose(batch.weights[:4], np.array([5, 5, 5, 6]) / 6, rtol=1e-6)  # row 50 is missing
    carried = np.asarray(
        batch_of(made(tmp_path, gaps_in("a", (44, 45)), missing=missing, subtract_last=True), "test").xs
    )
    np.testing.assert_allclose(carried[0, 2:4, 0], carried[0, 1, 0])


def test_missing_targets_count_nothing_and_give_no_gradient(tmp_path):
    task = made(tmp_path, gaps_in("a", (49,)), missing="mean")
    batch = batch_of(task, "test", [0, 5])

    def loss(outputs):
        return task.metrics(outputs, batch)["loss"].sum()

    value, slopes = jax.value_and_grad(loss)(jnp.zeros((2, 6)))
    assert np.isfinite(value)
    slopes = slopes.reshape(2, 3, 2)
    assert slopes[0, 1, 0] == 0  # row 49 is the second of the first window
    assert (np.isfinite(slopes) & (slopes != 0)).sum() == 11


def test_a_missing_number_is_refused_by_default(tmp_path):
    with pytest.raises(UsageError, match=r"x\.csv: line 22, column 'b': holds nan; .*task\.missing=zero"):
        made(tmp_path, gaps_in("b", (20,))).describe_data()


# Scores


def test_metrics_are_those_of_float64(tmp_path):
    rng, levels = np.random.default_rng(0), (0.1, 0.5, 0.8, 0.9)
    forecasts, targets, units = rng.normal(size=(5, 3, 2, 4)), rng.normal(size=(5, 3, 2)), np.array([[[2.0, 3.0]]])
    targets[0, 0, 0] = np.nan
    metrics = forecast_metrics(*(jnp.asarray(a, jnp.float32) for a in (forecasts, targets, units)), levels)
    errors, present = targets[..., None] - forecasts, np.isfinite(targets)
    pinball = np.maximum(np.array(levels) * errors, (np.array(levels) - 1) * errors)
    bounds = np.sort(forecasts, axis=-1)
    expected = {
        "loss": pinball.mean(axis=-1),
        "crps": 2 * pinball @ level_weights(levels),
        "mse": errors[..., 1] ** 2,
        "mae": abs(errors[..., 1]),
        "mse_units": (errors[..., 1] * units) ** 2,
        "mae_units": abs(errors[..., 1] * units),
        "coverage_80": ((targets >= bounds[..., 0]) & (targets <= bounds[..., 3])).astype(float),
    }
    assert metrics.keys() == expected.keys()
    for name, cells in expected.items():
        means = [cells[i][present[i]].mean() for i in range(5)]
        np.testing.assert_allclose(metrics[name], means, rtol=2e-5, err_msg=name)


def test_crps_of_many_quantiles_is_that_of_the_distribution():
    levels = tuple(np.arange(0.005, 1, 0.01))
    at = np.linspace(-2, 2, 9)
    errors = at[:, None] - norm.ppf(levels)
    crps = 2 * pinball_losses(errors, levels) @ level_weights(levels)
    exact = at * (2 * norm.cdf(at) - 1) + 2 * norm.pdf(at) - 1 / np.sqrt(np.pi)  # Gneiting and Raftery 2007
    np.testing.assert_allclose(crps, exact, atol=2e-3)


def test_the_pinball_loss_is_least_at_the_quantile():
    sample, tried = np.random.default_rng(0).normal(size=20000), np.linspace(-2, 2, 401)
    losses = [pinball_losses(sample[:, None] - guess, [0.8]).mean() for guess in tried]
    assert tried[np.argmin(losses)] == pytest.approx(np.quantile(sample, 0.8), abs=0.02)


def test_outputs_in_units(tmp_path):
    task = made(tmp_path, quantiles=(0.1, 0.5, 0.9))
    outputs = np.zeros((1, 18))
    outputs[0, :3] = [1.0, 0.0, -1.0]  # crossing: read in their order
    read, scale = task.read_forecasts(task.forecasts_of(outputs)), task.facts.targets_scale
    assert list(read) == ["a 0.1", "a 0.5", "a 0.9", "b 0.1", "b 0.5", "b 0.9"]
    np.testing.assert_allclose(read["a 0.1"][0], scale.mean[0] - np.array([1, 0, 0]) * scale.deviation[0])
    assert read["b 0.5"][0] == pytest.approx([scale.mean[1]] * 3)


# Forecasts without a network


def test_the_seasonal_forecast_of_what_recurs_is_right(tmp_path):
    wave = np.tile([0.0, 2.0, 5.0, 1.0], ROWS // 4)
    task = made(tmp_path, {**recording(), "a": wave}, targets=("a",), season=4, horizon=5)
    scores = task.baselines
    assert list(scores) == ["training mean", "naive, last value", "seasonal naive, 4 steps", "linear, ridge on 6 steps"]
    assert scores["seasonal naive, 4 steps"]["loss"] == 0
    windows, unit = task.windows("test"), np.std(wave[:38])
    targets = wave[windows.first + windows.rows_to_come()]
    last = wave[windows.first + windows.origins][:, None]
    assert scores["naive, last value"]["mse_units"] == pytest.approx(np.mean((targets - last) ** 2), rel=1e-5)
    assert scores["naive, last value"]["mae"] == pytest.approx(np.mean(abs(targets - last)) / unit, rel=1e-5)
    assert scores["training mean"]["mae_units"] == pytest.approx(np.mean(abs(targets - wave[:38].mean())), rel=1e-5)


def test_the_linear_forecast_is_least_squares_where_nothing_is_punished(tmp_path, monkeypatch):
    monkeypatch.setattr("gru_jax.tasks.forecast_baselines.PENALTIES", (1e-12,))
    task, rows = made(tmp_path), 38
    answer = fit_linear(task.windows("train"), task.windows("valid"), StandardColumns(task.facts), 6)
    for column, name in enumerate(("a", "b")):
        values = recording()[name]
        values = (values - values[:rows].mean()) / values[:rows].std()
        starts = np.arange(6, rows - 2)
        past = np.stack([values[i - 6 : i] - values[i - 1] for i in starts])
        future = np.stack([values[i : i + 3] - values[i - 1] for i in starts])
        weights = np.linalg.lstsq(np.c_[past, np.ones(len(past))], future, rcond=None)[0]
        tested = np.arange(48, 58)
        expected = np.stack([np.r_[values[i - 6 : i] - values[i - 1], 1] @ weights + values[i - 1] for i in tested])
        np.testing.assert_allclose(answer(task.windows("test"))[..., column], expected, rtol=1e-3, atol=1e-4)


def test_forecasts_with_quantiles_cover_as_often_as_they_say(tmp_path):
    task = made(tmp_path, recording(rows=900), valid_part=100.0, test_part=400.0, quantiles=(0.1, 0.5, 0.9))
    for name, scores in task.baselines.items():
        assert scores["coverage_80"] == pytest.approx(0.8, abs=0.06), name
        assert scores["crps"] < scores["mae"]


# Times


def series_of(folder, times, gaps="error"):
    path = write(folder / "t.csv", {"a": np.arange(len(times), dtype=float)}, times)
    return read_series(path, ["a"], SeriesOptions(("when",), gaps))


def test_steps_of_time(tmp_path):
    months = np.arange("1949-11", "1950-04", dtype="datetime64[M]")
    series = series_of(tmp_path, months)
    assert str(series.step) == "1 month"
    later = series.step.after(series.times[-1], np.array([1, 12]))
    assert [str(time)[:10] for time in later] == ["1950-04-01", "1951-03-01"]
    days = np.datetime64("1984-12-29", "D") + np.array([0, 1, 3, 4, 5])
    with pytest.raises(UsageError, match=r"line 4: 1985-01-01 follows 1984-12-30, where the step is 1 day; task\.gaps"):
        series_of(tmp_path, days)
    assert len(series_of(tmp_path, days, "skip")) == 5
    filled = series_of(tmp_path, days, "fill")
    np.testing.assert_array_equal(filled.values[:, 0], [0, 1, np.nan, 2, 3, 4])
    assert str(filled.times[2])[:10] == "1984-12-31"
    hours = np.datetime64("2020-01-01T00", "s") + np.array([0, 3600, 7200, 9000])
    with pytest.raises(UsageError, match=r"2020-01-01 02:30:00 follows .* where the step is 1 hour"):
        series_of(tmp_path, hours, "fill")
    assert str(TimeStep(0, 900)) == "15 minutes"


def test_the_calendar():
    times = np.array(["2016-07-02 18:00", "2020-12-31"], "datetime64[s]")  # a Saturday
    wanted = {"hour": [0.75, 0], "weekday": [5 / 7, 3 / 7], "day": [1 / 31, 30 / 31], "month": [0.5, 11 / 12]}
    wanted["yearday"] = [183 / 366, 365 / 366]
    for name, shares in wanted.items():
        angle = 2 * np.pi * np.array(shares)
        np.testing.assert_allclose(
            calendar_features(times, [name]), np.stack([np.sin(angle), np.cos(angle)], axis=1), atol=1e-12
        )


def test_times_in_several_columns(tmp_path):
    lines = ["year,month,day,hour,a", "2011,12,31,23,1", "2012,1,1,0,2", "2012,1,1,1,3"]
    path = tmp_path / "p.csv"
    path.write_text("\n".join(lines))
    options = SeriesOptions(("year", "month", "day", "hour"))
    assert str(read_series(path, ["a"], options).times[1]) == "2012-01-01T00:00:00"
    path.write_text("\n".join(["year,month,day,hour,a", "2011,2,30,23,1", "2012,1,1,0,2"]))
    with pytest.raises(UsageError, match=r"line 2, column 'day': holds 30, which that month has not"):
        read_series(path, ["a"], options)
    with pytest.raises(UsageError, match="allowed is a column, or several called year, month, day"):
        read_series(path, ["a"], SeriesOptions(("day", "year")))


# What is refused

LINES = [f"2020-01-{day:02},{day % 7},{day % 3}" for day in range(1, 31)]
BAD_FILES = {
    "not ascending": ([*LINES[:9], LINES[3], *LINES[10:]], r"line 11: 2020-01-04 follows 2020-01-09; .*ascend"),
    "twice": ([*LINES[:9], LINES[8], *LINES[10:]], r"line 11: 2020-01-09 follows 2020-01-09"),
    "gap": ([*LINES[:9], *LINES[12:]], r"line 11: 2020-01-13 follows 2020-01-09, where the step is 1 day"),
    "text": ([*LINES[:4], "2020-01-05,x,1", *LINES[5:]], r"line 6, column 'a': 'x' is no number"),
    "infinite": ([*LINES[:4], "2020-01-05,inf,1", *LINES[5:]], r"line 6, column 'a': holds inf"),
    "no time": ([*LINES[:4], "soon,1,1", *LINES[5:]], r"line 6, column 'when': 'soon' is no time"),
    "empty time": ([*LINES[:4], ",1,1", *LINES[5:]], r"line 6, column 'when': has no time"),
    "cut": ([*LINES[:4], "2020-01-05,1"], r"line 6: has 2 fields; there are 3 columns"),
    "few": (LINES[:9], r"of 9 rows 6 are for train; needed are 7 or more"),
    "one": (LINES[:1], r"has 1 rows; needed are two or more"),
    "empty": ([], r"has no rows"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_files_are_one_line(kind, tmp_path):
    lines, message = BAD_FILES[kind]
    path = tmp_path / "x.csv"
    path.write_text("\n".join(["when,a,b", *lines]) + "\n")
    with pytest.raises(UsageError, match=message) as raised:
        Forecast("x.csv", time_columns=("when",), data_dir=str(tmp_path), context=5, horizon=2).describe_data()
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)


SETTINGS = {
    "absent file": ({"file": "y.csv"}, r"y\.csv: cannot be read"),
    "outside": ({"file": "../y.csv"}, r"allowed is a file below"),
    "absent column": ({"targets": ("c",)}, r"'c' is no column"),
    "text column": (
        {"targets": ("when",), "time_columns": None},
        "'when' holds texts; columns of numbers are a, b",
    ),
    "named twice": ({"targets": ("a",), "inputs": ("a",)}, "column 'a' is named twice"),
    "all named": ({"inputs": ("a", "b")}, "no column of numbers is left"),
    "segment": ({"segment": 4}, r"segment=4: allowed are divisors of context=5"),
    "season": ({"season": 6}, r"season=6: allowed are up to context=5"),
    "levels": ({"quantiles": (0.1, 0.9)}, "0.5 among them"),
    "levels in disorder": ({"quantiles": (0.5, 0.1)}, "levels that ascend"),
    "recursive inputs": ({"recursive": True, "targets": ("a",), "inputs": ("b",)}, "nobody forecasts them"),
    "recursive quantiles": ({"recursive": True, "quantiles": (0.5,)}, "one number is fed back"),
    "calendar without times": ({"calendar": ("hour",), "time_columns": None}, "rows have no times"),
    "fill": ({"gaps": "fill"}, "task.missing says"),
    "folds": ({"folds": 3}, "windows overlap"),
    "parts": ({"valid_part": 20.0, "test_part": 10.0}, "nothing is left of 30 rows"),
    "half a row": ({"valid_part": 1.5}, "whole numbers of rows"),
    "rows": ({"first_rows": 31}, "has 30"),
    "known beyond the context": ({"known": ("b",), "horizon": 6}, "a context as long as the horizon"),
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_settings_that_do_not_fit(kind, tmp_path):
    (tmp_path / "x.csv").write_text("\n".join(["when,a,b", *LINES]) + "\n")
    settings, message = SETTINGS[kind]
    values = {"file": "x.csv", "time_columns": ("when",), "data_dir": str(tmp_path), "context": 5, "horizon": 2}
    with pytest.raises(UsageError, match=message) as raised:
        Forecast(**{**values, **settings}).describe_data()
    assert "\n" not in str(raised.value)


def test_no_network_reads_backwards_what_it_forecasts(tmp_path):
    made(tmp_path)
    task = {"name": "forecast", "file": "x.csv", "time_columns": ("when",), "data_dir": str(tmp_path), "context": 6}
    task |= {"targets": ("a",), "horizon": 3, "recursive": True}
    with pytest.raises(UsageError, match=r"model\.bidirectional=True: this task predicts its next input"):
        load({"task": task, "model": {"bidirectional": True}, "train": {"steps": 1, "batch_size": 4}})
    with pytest.raises(UsageError, match=r"model\.family=sequence: this task needs another kind"):
        load({"task": task, "model": {"family": "sequence"}, "train": {"steps": 1, "batch_size": 4}})


# The published files

SIZES = {"train": 8521, "valid": 2857, "test": 2857}


def present(folder, *names):
    if not all((folder / name).exists() for name in names):
        pytest.skip(f"no {', '.join(names)}")
    return str(folder)


def test_etth1(data_dir):
    task = ETTh1(horizon=24, separate=True, data_dir=present(data_dir, "ett/ETTh1.csv"))
    assert {split: task.size(split) for split in SIZES} == {split: 7 * size for split, size in SIZES.items()}
    assert task.facts.targets == ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
    # "Repeat" of Zeng et al. 2023, table 2: 1.295 and 0.713 at horizon 96
    naive = ETTh1(horizon=96, data_dir=str(data_dir)).baselines["naive, last value"]
    assert (naive["loss"], naive["mae"]) == (pytest.approx(1.295, abs=1e-3), pytest.approx(0.713, abs=1e-3))


def test_exchange_rates(data_dir):
    folder = present(data_dir, "exchange_rate/exchange_rate.txt.gz")
    naive = ExchangeRates(horizon=96, data_dir=folder).baselines["naive, last value"]
    assert (naive["loss"], naive["mae"]) == (pytest.approx(0.081, abs=1e-3), pytest.approx(0.196, abs=1e-3))


ROWS_OF = {"airline": 144, "sunspots": 2820, "temperatures": 3652, "pollution": 43824}


@pytest.mark.parametrize("collection", ROWS_OF)
def test_small_series(collection, data_dir):
    present(data_dir, "small_forecasting/airline-passengers.csv")
    task = SmallSeries(collection, data_dir=str(data_dir), context=24, horizon=2)
    assert len(task.series()) == ROWS_OF[collection]
    assert any("missing" in line for line in task.describe_data()) == (collection in ("temperatures", "pollution"))
    assert np.isfinite(batch_of(task, "test", range(9)).xs).all()


@pytest.mark.parametrize("kind", ["missing", "damaged"])
@pytest.mark.parametrize("make", [ETTh1, ExchangeRates, SmallSeries])
def test_a_file_that_is_not_the_published_one(make, kind, tmp_path, monkeypatch):
    monkeypatch.setattr("gru_jax.tasks.forecast_sets.ADDRESSES", "http://127.0.0.1:9/")
    for name in ("ett/ETTh1.csv", "exchange_rate/exchange_rate.txt.gz", "small_forecasting/airline-passengers.csv"):
        if kind == "damaged":
            (tmp_path / name).parent.mkdir(parents=True)
            (tmp_path / name).write_text("date,OT\n")
    with pytest.raises(UsageError, match=kind) as raised:
        make(data_dir=str(tmp_path)).describe_data()
    assert "\n" not in str(raised.value)
