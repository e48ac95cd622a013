"""The grammar of axes, and the members they span."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import numpy as np
import optax
import pytest
from hypothesis import given

from gru_jax.cells import GRU, LSTM, Elman
from gru_jax.config import override
from gru_jax.errors import UsageError
from gru_jax.studies.axes import Axis, holds, parse_axis, span_axes, zip_axes
from gru_jax.studies.study import load_study
from gru_jax.tasks import Adding

LR = "optimizer.lr"
STEPS = {"train": {"steps": 10}}


def labels(axis: Axis) -> list[str]:
    return [value.label for value in axis.values]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("zeros,chrono", ["zeros", "chrono"]),
        ("0..4", ["0", "1", "2", "3", "4"]),
        ("0..10..5,12", ["0", "5", "10", "12"]),
        ("-1..1", ["-1", "0", "1"]),
        ("log(1e-4,1e-1,4)", ["0.0001", "0.001", "0.01", "0.1"]),
        ("lin(0.5,2.5,3)", ["0.5", "1.5", "2.5"]),
        ("0.5:2.5:3", ["0.5", "1.5", "2.5"]),
        ("32|64,64", ["32", "64,64"]),
        ("1e-3", ["1e-3"]),
        ([(32,), (64, 64)], ["32", "64,64"]),
        ((0.1, None), ["0.1", "None"]),
    ],
)
def test_grammar(text, wanted):
    assert labels(parse_axis("key", text)) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a,,b",
        "5..1",
        "0..9..0",
        "log(0,1,3)",
        "log(1,1,3)",
        "log(1,2,1)",
        "lin(a,b,3)",
        "log(1e-4,inf,3)",
        [],
        "a,a",
    ],
)
def test_bad_axes_are_refused_in_one_line(text):
    with pytest.raises(UsageError, match=r"axes\.key") as raised:
        parse_axis("key", text)
    assert "\n" not in str(raised.value)


@given(st.floats(1e-8, 1e3), st.floats(1.001, 1e6), st.integers(2, 50))
def test_spans_run_from_end_to_end(low, ratio, count):
    values = [float(label) for label in labels(parse_axis(LR, f"log({low!r},{low * ratio!r},{count})"))]
    assert len(values) == count
    np.testing.assert_allclose([values[0], values[-1]], [low, low * ratio], rtol=1e-5)
    np.testing.assert_allclose(np.diff(np.log(values)), math.log(ratio) / (count - 1), atol=2e-5)


@given(st.text(alphabet="0123456789.,:|()abelogin-+", max_size=20))
def test_any_text_is_an_axis_or_refused(text):
    try:
        axis = parse_axis("key", text)
    except UsageError:
        return
    assert axis.span or len(set(labels(axis))) == len(axis.values) > 0


def test_a_grid_with_names_and_conditions():
    axes = [
        parse_axis("initialisation", {"zeros": {"bias": "zeros"}, "long": {"bias": "chrono", "scale": 2}}),
        parse_axis("t_max", "50,200"),
        parse_axis("seed", "0..1"),
    ]
    found = span_axes(axes, {"bias": "same", "task.length": 100}, {"t_max": "bias == 'chrono' and task.length > 50"})
    assert len(found) == 2 + 4
    assert found[0].labels == {"initialisation": "zeros", "seed": "0"}
    assert found[-1].settings == {"bias": "chrono", "scale": "2", "t_max": "200", "seed": "1"}
    only = span_axes(axes, {}, {"*": "bias == zeros or t_max == 50"})
    assert {m.settings.get("t_max") for m in only if m.settings["bias"] == "chrono"} == {"50"}


def test_axes_side_by_side():
    axes = zip_axes([parse_axis("a", "1,2"), parse_axis("b", "x,y,z"), parse_axis("c", "3,4")], ("a", "c"))
    assert [axis.name for axis in axes] == ["a & c", "b"]
    assert axes[0].values[1].settings == {"a": "2", "c": "4"}
    with pytest.raises(UsageError, match="allowed are axes of one length"):
        zip_axes([parse_axis("a", "1,2"), parse_axis("b", "x,y,z")], ("a", "b"))
    with pytest.raises(UsageError, match="zip='d': allowed are a"):
        zip_axes([parse_axis("a", "1,2")], ("a", "d"))


@pytest.mark.parametrize("method", ["random", "sobol"])
def test_samples_are_repeated_over_seeds(method):
    axes = [parse_axis(LR, "log(1e-4,1e-1)"), parse_axis("cell", "gru,lstm"), parse_axis("seed", "0..2")]
    found = span_axes(axes, {}, {}, method, 50, seed=1)
    assert len(found) == 150
    assert found == span_axes(axes, {}, {}, method, 50, seed=1)
    rates = np.log10([float(m.settings[LR]) for m in found[::3]])
    assert -4 <= rates.min() < -3.7
    assert -1.3 < rates.max() <= -1
    assert {m.settings["cell"] for m in found} == {"gru", "lstm"}
    assert [m.settings["seed"] for m in found[:3]] == ["0", "1", "2"]


def test_samples_need_a_count_and_spans_need_samples():
    with pytest.raises(UsageError, match=r"sampling\.count=0: allowed are 1 to"):
        span_axes([parse_axis(LR, "log(1e-4,1e-1)")], {}, {}, "random")
    with pytest.raises(UsageError, match="without a count there is no grid"):
        span_axes([parse_axis(LR, "log(1e-4,1e-1)")], {}, {})


SETTINGS = {"a.b": "0.1", "name": "gru", "n": 3, "flag": "true", "none": "none", "hidden": [64]}


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        ("a.b < 0.2", True),
        ("a.b < 0.2 and name == lstm", False),
        ("not name == 'lstm'", True),
        ("name in ('gru', 'lstm')", True),
        ("0 < n <= 3", True),
        ("n == -3 or a.b >= 0.1", True),
        ("name not in [gru]", False),
        ("flag == True", True),
        ("none is None", True),
        ("hidden == 64", True),
    ],
)
def test_conditions(condition, wanted):
    assert holds(condition, SETTINGS) is wanted


@pytest.mark.parametrize(
    "condition",
    ["", "a.b <", "f(a.b)", "__import__('os')", "a.c == 1", "name < 3", "a.b == [x for x in n]", "nmae == gru"],
)
def test_bad_conditions_are_refused(condition):
    with pytest.raises(UsageError, match="where="):
        holds(condition, SETTINGS)


def test_sections_are_values_called_by_what_tells_them_apart():
    cells = [{"name": "gru", "reset": "after"}, {"name": "gru", "reset": "before"}, {"name": "lstm"}, "elman"]
    axis = parse_axis("model.cell", cells)
    assert [value.label for value in axis.values] == ["gru reset=after", "gru reset=before", "lstm", "elman"]
    base = {"train": {"steps": 1}, "model": {"cell": {"name": "gru", "update": "write"}}}
    made = [override(base, value.settings).model.cell for value in axis.values]
    assert made == [GRU("after"), GRU("before"), LSTM(), Elman()]
    with pytest.raises(UsageError, match=r"axes.model.cell: lstm is there twice"):
        parse_axis("model.cell", [{"name": "lstm"}, {"name": "lstm"}])


def test_sections_of_a_users_own_keys_are_values_too():
    gates = [{"n": {"recurrent": "identity"}}, {"z": {"recurrent": "identity"}}]
    members = load_study({"base": {"train": {"steps": 1}}, "axes": {"model.init.gates": gates}}).members()
    assert [list(member.config.model.init.gates) for member in members] == [["n"], ["z"]]
    config = override({"train": {"steps": 1}}, {"transfer.rates": "{'head': 2}"})
    assert config.transfer.rate_by_part == {"head": 2.0}
    with pytest.raises(UsageError, match=r"transfer\.rates=fast: a section is needed here"):
        override({"train": {"steps": 1}}, {"transfer.rates": "fast"})


@pytest.mark.parametrize("name", ["steps", "status", "init_scheme", "best_valid_loss", "censored/init_horizon/layer_0"])
def test_a_name_that_the_table_has_already_is_none_for_an_axis(name):
    axes = {name: {"short": {"train.steps": 1}, "long": {"train.steps": 2}}}
    with pytest.raises(UsageError, match=f"axes.{name}: a column of the table; allowed are all but member, study"):
        load_study({"base": {"train": {"steps": 1}}, "axes": axes})


def test_objects_are_axis_values():
    base = {"task": Adding(10), "model": {"hidden": 4}, "train": {"steps": 1}}
    axes = {"model.cell": [GRU(), LSTM], "optimizer.name": [optax.sgd, "adam"]}
    members = load_study({"base": base, "axes": axes}).members()
    cells = [type(member.config.model.cell) for member in members]
    assert cells == [GRU, GRU, LSTM, LSTM]
    assert [member.labels["optimizer.name"] for member in members][:2] == ["optax._src.alias:sgd", "adam"]


@pytest.mark.parametrize(
    "condition", ["a == 'none'", "a == none", "a == None", "not a != 'none'", "a in ('none', 'x')"]
)
def test_none_and_truth_are_one_however_they_are_written(condition):
    for value in ("none", None, "None"):
        assert holds(condition, {"a": value})
    assert not holds(condition, {"a": "chrono"})


@pytest.mark.parametrize("value", [(64, 64), [64, 64], "64,64"])
def test_lists_and_truth_values_in_conditions(value):
    assert holds("model.hidden == (64, 64)", {"model.hidden": value})
    assert holds("model.hidden == [64, 64]", {"model.hidden": value})
    for truth in (True, "true", "True"):
        assert holds("b == true", {"b": truth})
        assert holds("b == 'true'", {"b": truth})
        assert not holds("b == false", {"b": truth})


def test_sets_of_settings_may_be_nested():
    axis = parse_axis("i", {"chrono": {"model": {"init": {"gate_bias": "chrono"}}, "model.hidden": (4,)},
                            "minimal": {"model": {"cell": {"name": "lstm", "fused": "true"}}}})  # fmt: skip
    assert [dict(value.settings) for value in axis.values] == [
        {"model.init.gate_bias": "chrono", "model.hidden": "4"},
        {"model.cell": "{'name': 'lstm', 'fused': 'true'}"},
    ]
    base = {**STEPS, "model": {"hidden": (4,), "init": {"input": "fan_in_normal"}}}
    study = load_study({"base": base, "axes": {"i": {"chrono": {"model": {"init": {"gate_bias": "zeros"}}}}}})
    (member,) = study.members()
    assert (member.config.model.hidden, member.config.model.init.input) == ((4,), "fan_in_normal")


def test_what_is_no_section_is_set_as_a_whole():
    axis = parse_axis(
        "gates", {"none": {"model.init.gates": {}}, "z": {"model.init": {"gates": {"z": {"bias": "normal"}}}}}
    )
    base = {**STEPS, "model": {"init": {"gates": {"r": {"bias": "normal"}}}}}
    study = load_study({"base": base, "axes": {"gates": {v.label: v.settings for v in axis.values}}})
    assert [dict(member.config.model.init.gates) for member in study.members()] == [{}, {"z": {"bias": "normal"}}]


def test_axes_that_set_one_key_are_refused_where_they_meet():
    axes = {LR: "0.1,0.2", "i": {"a": {LR: 0.5}, "b": {"train.steps": 5}}}
    with pytest.raises(UsageError, match=r"axes\.i: sets optimizer\.lr, as an axis before it does; allowed is one"):
        load_study({"base": STEPS, "axes": axes}).members()
    where = {LR: "seed == 0", "i": "seed == 1"}
    members = load_study({"base": STEPS, "axes": {"seed": "0,1", **axes}, "where": where}).members()
    assert [member.config.optimizer.lr for member in members] == [0.1, 0.2, 0.5, 0.001]


def test_values_that_are_the_same_are_told(caplog):
    axes = {"decay": {"none": {"optimizer.weight_decay": "none"}, "also none": {"optimizer.weight_decay": None}}}
    assert len(load_study({"base": STEPS, "axes": axes}).members()) == 1
    assert "axes: decay=also none is the same as decay=none, which stands for both" in caplog.text


def test_repeats_are_not_zipped():
    with pytest.raises(UsageError, match=r"zip=seed,train.steps: seed is repeated, not varied; allowed are other axes"):
        zip_axes([parse_axis("seed", "0..1"), parse_axis("train.steps", "5,6")], ["seed", "train.steps"])
