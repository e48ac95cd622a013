"""The config: round trips, durations, and what `load` fills in."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gru_jax.cells import CELLS, GRU, LSTM
from gru_jax.config import REGISTRIES, Config, differences, load, plan
from gru_jax.errors import UsageError
from gru_jax.settings import Text, flatten, resolve
from gru_jax.tasks import TASKS, Adding
from tests.training.small import small

STEPS = {"train": {"steps": 100}}


@pytest.mark.parametrize("task", sorted(TASKS.keys() - {"arrays", "files"}))  # which need files
@pytest.mark.parametrize("cell", CELLS)
def test_round_trip_through_json(task, cell):
    config = load({**STEPS, "task": {"name": task}, "model": {"cell": {"name": cell}, "hidden": (8, 4)}})
    plain = json.loads(json.dumps(config.to_dict()))
    assert load(plain) == config
    assert plain["task"]["name"] == task
    assert plain["model"]["cell"]["name"] == cell
    assert differences(plain, config.to_dict()) == []


@settings(max_examples=15)
@given(st.floats(0, 1e3), st.integers(1, 10**6), st.booleans(), st.lists(st.integers(1, 999), min_size=1, max_size=4))
def test_typed_values_equal_plain_ones(lr, steps, bidirectional, hidden):
    plain = {
        "optimizer": {"name": "momentum", "lr": lr, "nesterov": bidirectional, "clip_norm": None},
        "train": {"steps": steps},
        "model": {"bidirectional": bidirectional, "hidden": tuple(hidden)},
    }
    shapes = (str(tuple(hidden)), str(hidden), ",".join(map(str, hidden)))
    for shape in shapes:
        typed = {
            "optimizer": {
                "name": Text("momentum"),
                "lr": Text(repr(lr)),
                "nesterov": Text(str(bidirectional)),
                "clip_norm": Text("none"),
            },
            "train": {"steps": Text(str(steps))},
            "model": {"bidirectional": Text(str(bidirectional).lower()), "hidden": Text(shape)},
        }
        assert load(typed) == load(plain)


def test_what_load_fills_in():
    config = load({**STEPS, "task": {"name": "copy_memory", "length": 40}, "optimizer": {"name": "adamw"}})
    assert config.model.readout == "every"
    assert config.model.init.t_max == 60.0
    assert config.optimizer.weight_decay == 0.01
    assert load(STEPS).optimizer.weight_decay == 0.0
    assert load({**STEPS, "model": {"init": {"t_max": 5}}}).model.init.t_max == 5.0


def test_durations():
    mnist = {"task": {"name": "mnist"}, "train": {"batch_size": 128, "epochs": 10, "eval_epochs": 0.5}}
    durations = plan(load({**mnist, "optimizer": {"warmup_epochs": 1.0}}))
    assert (durations.steps_per_epoch, durations.steps) == (429, 4290)
    assert (durations.eval_every, durations.warmup) == (214, 429)
    defaults = plan(load({"train": {"steps": 1000}}))
    assert (defaults.eval_every, defaults.log_every, defaults.flow_every, defaults.warmup) == (50, 5, 500, 0)
    assert plan(load({"train": {"steps": 1000}, "flow": {"every": 0}})).flow_every == 0
    assert plan(load({"train": {"steps": 1}})).eval_every == 1


def test_overrides_of_single_gates_are_typed():
    init = {"gates": {"n": {"recurrent": "identity", "recurrent_scale": Text("0.5")}}}
    config = load({**STEPS, "model": {"init": init}})
    assert config.model.init.gate("n").recurrent_scale == 0.5
    assert config.model.init.gate("z").recurrent == "orthogonal"


def test_every_key_has_a_type_and_a_default():
    flat = flatten(Config().to_dict())
    assert len(flat) > 50
    assert resolve(Config, {}, REGISTRIES) == Config()
    assert (Config().task, Config().model.cell) == (Adding(), GRU())


def test_differences_ignore_where_the_data_lie():
    old, new = ({**small().to_dict(), "task": {"name": "mnist", "data_dir": place}} for place in ("a", "b"))
    assert differences(old, new) == []
    assert differences({"a": {"b": 1}}, {"a": {"c": 1}}) == ["a.b was 1, is absent", "a.c was absent, is 1"]


def test_settings_of_a_config_are_frozen():
    with pytest.raises(AttributeError):
        load(STEPS).seed = 3


def test_contradictions():
    with pytest.raises(UsageError, match=r"train\.eval_steps=5 and train\.eval_epochs=1"):
        load({"train": {"steps": 10, "eval_steps": 5, "eval_epochs": 1.0}})


@pytest.mark.parametrize("cell", ["lstm", LSTM, LSTM(), {"name": "lstm"}, Text("lstm"), Text("{'name': 'lstm'}")])
def test_a_section_may_be_its_name_alone(cell):
    assert load({"task": "adding", "model": {"cell": cell}, "train": {"steps": 1}}).model.cell == LSTM()


@pytest.mark.parametrize("name", ["float16", "fp16", "half"])
def test_float16_is_refused_with_its_reason(name):
    """As typed, and in the exported config of a run."""
    for plain in ({**STEPS, "dtype": Text(name)}, {**load(STEPS).to_dict(), "dtype": name}):
        with pytest.raises(UsageError, match=rf"dtype='{name}': without a loss scale.*vanish.*bfloat16.*allowed are"):
            load(plain)
