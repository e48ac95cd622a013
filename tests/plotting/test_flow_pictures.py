"""Pictures of the gradient flow show what was recorded."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from gru_jax.config import ModelConfig, load
from gru_jax.plotting.comparison import Line, draw_line
from gru_jax.plotting.flow import (
    EVERY_STEP,
    FAINTEST,
    HOW_TO_READ,
    OF_SOURCES,
    PROFILE_TEXTS,
    draw_profiles,
    horizons,
    plot_records,
)
from gru_jax.plotting.style import figure, logarithmic_y
from gru_jax.runs.flow import describe_records

TIME = 20
DYING = 0.5 ** np.arange(TIME)
LASTING = 0.95 ** np.arange(TIME)


def records_of(*profiles):
    return {
        "adjoint/layer_0": np.stack(profiles), "step": 10 * np.arange(len(profiles)), "lag": np.arange(TIME),
    }  # fmt: skip


def heat_map(*profiles, **model):
    return plot_records(records_of(*profiles), ModelConfig(**model))["gradient_flow"]


def test_rows_of_the_heat_map_are_relative_to_their_peaks():
    axes = heat_map(DYING, 1e3 * DYING, LASTING, 1e-3 * LASTING, DYING).axes[0]
    (mesh,) = axes.collections
    colours = mesh.get_array().reshape(5, TIME)
    np.testing.assert_allclose(colours[0], np.maximum(DYING, FAINTEST), rtol=1e-6)
    np.testing.assert_allclose(colours[0], colours[1], rtol=1e-6)
    np.testing.assert_allclose(colours[2], colours[3], rtol=1e-6)
    assert mesh.norm.vmin == FAINTEST
    assert mesh.norm.vmax == 1.0


def test_horizons_are_drawn_and_those_beyond_the_sequence_are_marked_at_its_end():
    axes = heat_map(DYING, DYING, LASTING, LASTING, LASTING).axes[0]
    _, horizon, beyond = axes.lines
    assert horizon.get_xdata()[:2].tolist() == [7, 7]  # 0.5^7 is the first below 1 %
    assert np.isnan(horizon.get_xdata()[2:]).all()
    assert beyond.get_xdata().tolist() == [TIME - 1] * 3
    assert beyond.get_ydata().tolist() == [2, 3, 4]
    assert axes.get_title() == "layer_0\norange: horizon, 1% of the peak; ▶ ≥ 20"
    alone = heat_map(*[LASTING] * 5).axes[0]
    (only,) = alone.lines
    assert only.get_marker() == ">"
    assert alone.get_title() == "layer_0\n▶ horizon ≥ 20"


def test_a_profile_that_reaches_fewer_lags_is_censored_there():
    """Sampled steps reach no further than the latest of them; what is not known is not above the threshold."""
    short = np.where(np.arange(TIME) < 15, LASTING, np.nan)
    lags, is_censored = horizons(np.stack([DYING, LASTING, short]))
    assert lags.tolist() == [7, TIME, 15]
    assert is_censored.tolist() == [False, True, True]
    beyond = heat_map(LASTING, LASTING, LASTING, LASTING, short).axes[0].lines[-1]
    assert beyond.get_xdata().tolist() == [TIME - 1] * 4 + [14]


def test_a_profile_that_is_not_finite_has_no_horizon():
    axes = heat_map(*[np.full(TIME, np.nan)] * 5).axes[0]
    assert not axes.lines
    assert axes.get_title() == "layer_0"


@pytest.mark.parametrize("readout", ["last", "mean", "every"])
def test_what_there_is_to_see_is_said(readout):
    picture = heat_map(*[DYING] * 5, readout=readout)
    assert picture.get_suptitle() == HOW_TO_READ
    assert (picture.get_supxlabel() == EVERY_STEP) == (readout != "last")


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("source", ["last", "sampled"])
def test_whose_gradient_it_is_is_said(source, count):
    records = {**records_of(*[DYING] * count), "source": np.asarray(source)}
    picture = plot_records(records, ModelConfig(readout="every"))["gradient_flow"]
    assert picture.get_supxlabel() == PROFILE_TEXTS[source].note != ""
    assert picture.axes[0].get_xlabel() == "lag $k$ from the step whose loss it is (steps)"


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize(("attention", "of_source"), [("none", "none"), ("bahdanau", "attention")])
def test_where_the_gradient_comes_into_an_encoder_is_said(count, attention, of_source):
    records = {**records_of(*[DYING] * count), "source": np.asarray("sampled")}
    decoder = records.pop("adjoint/layer_0")
    records |= {"adjoint/decoder.layer_0": decoder, "adjoint/encoder.layer_0.forward": decoder}
    picture = plot_records(records, ModelConfig(readout="every", attention=attention))["gradient_flow"]
    assert picture.get_supxlabel() == f"{PROFILE_TEXTS['sampled'].note}\n{OF_SOURCES[of_source]}"
    assert [ax.get_xlabel() for ax in picture.axes[:2]] == [
        "lag $k$ from the step whose loss it is (steps)",
        "lag $k$ from the end $S$ of the pass over the source (steps)",
    ]
    lines = describe_records(records)
    assert lines[1].startswith("  adjoint (losses of sampled steps): falls")
    assert lines[3].startswith("  adjoint (losses of sampled steps, from the end of the pass over the source): falls")


def test_a_spectrum_of_one_recording_is_over_its_index():
    records = {"lyapunov/layer_0": np.array([[-0.1, -0.2, -0.3]]), "lyapunov_deviation/layer_0": np.full((1, 3), 0.01)}
    one = plot_records({**records, "step": np.array([7])}, ModelConfig())["lyapunov"].axes[0]
    assert (one.get_xlabel(), one.lines[0].get_xdata().tolist()) == ("index $i$", [1, 2, 3])
    twice = {name: np.repeat(values, 2, axis=0) for name, values in records.items()}
    two = plot_records({**twice, "step": np.array([0, 7])}, ModelConfig())["lyapunov"].axes[0]
    assert two.get_xlabel() == "training step"


def test_legends_hide_nothing_and_are_whole():
    picture = plot_records(records_of(DYING, LASTING), ModelConfig())["gradient_flow"]
    picture.draw_without_rendering()
    (axes,) = picture.axes
    legend, within = axes.get_legend().get_window_extent(), axes.get_window_extent()
    assert within.x1 <= legend.x0 < legend.x1 <= picture.bbox.x1


def test_no_legend_of_what_is_not_there():
    for profile, title in ((DYING, "● horizon (1% of the peak)"), (LASTING, "▶ horizon ≥ 20")):
        axes = Figure().subplots()
        draw_profiles(axes, {"a": [profile]})
        assert axes.get_legend().get_title().get_text() == title


def test_censored_points_are_marked():
    axes = Figure().subplots()
    draw_line(axes, Line(np.arange(3), np.array([1.0, 5.0, 5.0]), np.array([False, True, True])), "C0")
    draw_line(axes, Line(np.arange(3), np.ones(3)), "C1")
    drawn, marks, plain = axes.lines
    assert marks.get_marker() == "^"
    assert marks.get_xdata().tolist() == [1, 2]
    assert marks.get_color() == drawn.get_color() != plain.get_color()


@pytest.mark.parametrize(("values", "fewest"), [((0.11, 0.17), 1), ((1.0, 50.0), 4), ((1e-9, 1.0), 3)])
def test_logarithmic_axes_have_labels_and_few(values, fewest):
    picture = Figure()
    axes = picture.subplots()
    axes.plot(values)
    logarithmic_y(axes)
    picture.draw_without_rendering()
    low, high = axes.get_ylim()
    labels = [label.get_text() for tick, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
              if low <= tick <= high and label.get_text()]  # fmt: skip
    assert fewest <= len(labels) <= 8


def test_notebooks_show_pictures_without_pyplot():
    """IPython asks an object for its picture where nobody told it how a `Figure` is shown."""
    made, _ = figure(2)
    assert made._repr_png_().startswith(b"\x89PNG")


def test_time_scales_of_all_cells_beside_theory():
    """However many a network has for each size of `hidden`, as an encoder and a decoder; counts are of a cell's own."""
    names = ("decoder.layer_0", "encoder.layer_0.backward", "encoder.layer_0.forward")
    scales = {f"time_scales/{name}": np.linspace(1, 9, 4)[None].repeat(2, axis=0) for name in names}
    model = load({"train": {"steps": 2}, "model": {"hidden": (4,), "init": {"gate_bias": "chrono"}}}).model
    picture = plot_records({**scales, "step": np.arange(2), "lag": np.arange(TIME)}, model)["time_scales"]
    for ax in picture.axes:
        theory = next(patch for patch in ax.patches if "theory" in patch.get_label())
        assert 0 < theory.get_data().values.sum() <= 4
    assert len(picture.axes) == 3
