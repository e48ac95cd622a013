"""The config: round trips, durations, and what `load` fills in."""

from __future__ import annotations

import json
import re

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict, config_dict

from experiments import cli
from gru_jax.cells import CELLS, GRU, LSTM
from gru_jax.config import REGISTRIES, Config, differences, load, load_config, override, plan
from gru_jax.errors import UsageError
from gru_jax.settings import flatten, resolve
from gru_jax.studies.study import load_study
from gru_jax.tasks import MNIST, TASKS, Adding, Generated
from gru_jax.values import Text, join_list, split_list
from tests.training.small import small

STEPS = {"train": {"steps": 100}}


@pytest.mark.parametrize("task", [name for name, task in TASKS.items() if issubclass(task, Generated | MNIST)])
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


ONE = {"train": {"steps": 1}}


@pytest.mark.parametrize(
    ("key", "text", "wanted"),
    [
        ("train.steps", "1e3", 1000),
        ("train.steps", "1000.0", 1000),
        ("train.steps", "1_000", 1000),
        ("train.steps", "2.5e1", 25),
        ("train.patience", "null", None),
        ("train.patience", "NULL", None),
        ("optimizer.clip_norm", "null", None),
        ("model.bidirectional", "1", True),
        ("model.bidirectional", "0", False),
        ("model.bidirectional", "yes", True),
        ("model.bidirectional", "Off", False),
        ("model.hidden", "1e2", (100,)),
        ("model.hidden", "64.0,32", (64, 32)),
        ("optimizer.lr", "1_000", 1000.0),
    ],
)
def test_what_is_typed_is_what_it_stands_for(key, text, wanted):
    section, name = key.split(".")
    value = getattr(getattr(override(ONE, {key: text}), section), name)
    assert value == wanted
    assert type(value) is type(wanted)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("train.steps", "1.5"), ("train.steps", "1e-3"), ("train.steps", "1e999999999"), ("train.steps", "true"),
        ("train.steps", "inf"), ("train.steps", "nan"), ("train.keep", "null"), ("model.bidirectional", "2"),
        ("model.bidirectional", "1.0"), ("model.hidden", "1.5"), ("model.hidden", "null"), ("optimizer.lr", "null"),
    ],
)  # fmt: skip
def test_what_stands_for_nothing_is_refused(key, text):
    with pytest.raises(UsageError, match=re.escape(f"{key}={text}: ")):
        override(ONE, {key: text})


@pytest.mark.parametrize(
    "array", [np.float32(8), np.int64(8), np.array(8.0), np.array([8]), jnp.int32(8), jnp.array([8.0])]
)
def test_arrays_are_the_numbers_in_them(array):
    config = load({"train": {"steps": array}, "model": {"hidden": array, "dropout": 0.0}, "optimizer": {"lr": array}})
    assert (config.train.steps, config.model.hidden, config.optimizer.lr) == (8, (8,), 8.0)
    assert config.to_dict() == load(json.loads(json.dumps(config.to_dict()))).to_dict()


@pytest.mark.parametrize("truth", [np.bool_(True), jnp.array(True), np.array([True]), 1, np.int64(1)])
def test_truth_values_of_other_libraries(truth):
    assert load({**ONE, "model": {"bidirectional": truth}}).model.bidirectional is True


def test_names_and_free_sections_of_numpy():
    gates = {"z": {"recurrent_scale": jnp.float32(2.0)}}
    model = {"cell": {"name": np.str_("gru")}, "hidden": [np.int32(8), jnp.int32(4)], "init": {"gates": gates}}
    flow = {"instruments": np.array(["adjoint", "gates"])}
    config = load({**ONE, "model": model, "flow": flow, "optimizer": {"name": np.array("sgd")}})
    assert (config.model.hidden, config.flow.instruments) == ((8, 4), ("adjoint", "gates"))
    assert config.model.init.gates == {"z": {"recurrent_scale": 2.0}}
    assert config.optimizer.name == "sgd"
    with pytest.raises(UsageError, match=r"train\.steps=\[1, 2\]: a whole number"):
        load({"train": {"steps": np.array([1, 2])}})


# References of ml_collections


def test_a_required_placeholder_may_be_given_by_the_command_line():
    config = ConfigDict({"train": {"steps": config_dict.required_placeholder(int)}})
    assert override(config, {"train.steps": "1e1"}).train.steps == 10
    for loading in (load, lambda values: override(values, {})):
        with pytest.raises(UsageError, match=r"^train\.steps: missing; the config requires a value of type int$"):
            loading(config)
    study = {"base": config, "axes": {"train.steps": [10, 20]}, "config": {"train.eval_steps": 5}}
    with pytest.raises(UsageError, match=r"train\.steps: missing"):
        load_study(study).members()


def test_values_follow_what_they_refer_to():
    """A key that is typed on the command line changes those that the file makes of it, there and nowhere else."""
    config = ConfigDict({"train": {"steps": 10}, "optimizer": {"lr": 0.5}})
    config.train.eval_steps = config.train.get_ref("steps") // 5
    config.train.log_steps = config.train.get_ref("eval_steps")
    train = override(config, {"train.steps": "1e2"}).train
    assert (train.steps, train.eval_steps, train.log_steps) == (100, 20, 20)
    assert load(config).train.eval_steps == override(config, {}).train.eval_steps == 2
    study = load_study({"base": config, "axes": {"train.steps": [20, 30]}})
    assert [member.config.train.eval_steps for member in study.members()] == [4, 6]
    assert json.loads(json.dumps(study.to_dict()))["base"]["train"]["eval_steps"] == 2


def test_references_in_a_file(tmp_path):
    path = tmp_path / "required.py"
    path.write_text(
        "from ml_collections import ConfigDict, config_dict\n"
        "def get_config():\n"
        "    config = ConfigDict({'train': {'steps': config_dict.required_placeholder(int)}})\n"
        "    return config\n"
    )
    assert load_config(str(path), {"train.steps": "7"}).train.steps == 7
    with pytest.raises(UsageError, match=r"train\.steps: missing; the config requires"):
        load_config(str(path))


def test_lists_with_commas():
    assert split_list(r"a,b\,c,\,,d e") == ["a", "b,c", ",", "d e"]
    for items in (["a"], ["a,b", "c"], ["lr=0,1", "x"]):
        assert split_list(join_list(items)) == items


def test_a_directory_with_a_comma_in_its_name_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=0,1").mkdir()
    assert cli.paths_of("lr=0,1") == ["lr=0,1"]
    assert cli.paths_of("lr=0,2") == ["lr=0", "2"]
    assert cli.paths_of(r"lr=0\,1,seed=0\,1") == ["lr=0,1", "seed=0,1"]


@pytest.mark.parametrize(("text", "number"), [("1e9", 10**9), ("2.0", 2), ("0", 0)])
def test_flags_that_are_whole_numbers(text, number):
    assert cli.whole_number({"memory": text}, "memory", 1) == number
    for wrong in ("-1", "1.5", "1e18", "x"):
        with pytest.raises(UsageError, match=f"--memory={wrong}: a whole number is needed here"):
            cli.whole_number({"memory": wrong}, "memory", 1)


def test_folders_of_config_files_may_have_a_colon_in_their_name(tmp_path):
    folder = tmp_path / "at 10:30"
    folder.mkdir()
    (folder / "base.py").write_text("def get_config(steps='7'):\n    return {'train': {'steps': int(steps)}}\n")
    (folder / "study.py").write_text(
        "def get_config():\n    return {'base': 'base.py:9', 'axes': {'optimizer.lr': [0.1]}}\n"
    )
    for spec, steps in (("base.py", 7), ("base.py:8", 8)):
        assert load_config(str(folder / spec)).train.steps == steps
    (member,) = load_study(str(folder / "study.py")).members()
    assert member.config.train.steps == 9
