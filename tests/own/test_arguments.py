"""Functions and classes of a user's own with arguments: in a config, on a command line, as axes."""

from __future__ import annotations

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

import gru_jax
from experiments import ablate, train
from gru_jax.config import (
    initial_program,
    load,
    load_config,
    override,
    traced_hyperparameters,
    training_program,
    with_values,
)
from gru_jax.errors import UsageError
from gru_jax.studies.directory import MEMBERS
from gru_jax.studies.study import load_study
from gru_jax.training.schedules import learning_rates
from gru_jax.values import Text
from gru_jax.with_arguments import WithArguments
from tests.own import mine
from tests.training.small import small
from tests.training.test_resume import same_run

NAME = "tests.own.mine:{}".format
STEPS = {"train": {"steps": 4}}


@pytest.fixture(autouse=True)
def sparse_is_given(without_own_code):
    """What a file defines that was given may be named, as most tests here do."""
    gru_jax.user_code.reference(mine.sparse)


def with_init(recurrent):
    """A config whose recurrent kernels are drawn so."""
    return {**STEPS, "model": {"init": {"recurrent": recurrent}}}


@pytest.mark.parametrize(
    "written",
    [
        {"name": mine.sparse, "density": 0.5},
        {"name": mine.sparse, "density": np.float64(0.5)},
        {"density": Text("0.5"), "name": NAME("sparse")},
        functools.partial(mine.sparse, density=0.5),
        Text(f"{{'name': '{NAME('sparse')}', 'density': 0.5}}"),
        WithArguments(NAME("sparse"), {"density": 0.5}),
    ],
)
def test_every_way_to_write_arguments_is_the_same(written):
    config = load(with_init(written))
    assert config.model.init.recurrent == WithArguments(NAME("sparse"), {"density": 0.5})
    plain = json.loads(json.dumps(config.to_dict()))
    assert plain["model"]["init"]["recurrent"] == {"name": NAME("sparse"), "density": 0.5}
    assert load(plain) == config
    assert NAME("sparse") in plain["sources"]


def test_what_is_not_said_has_its_default():
    config = load({**STEPS, "optimizer": {"schedule": {"name": mine.ramp, "floor": 0.3}}})
    assert repr(config.optimizer.schedule) == f"{NAME('ramp')}(floor=0.3)"
    alone = load({**STEPS, "optimizer": {"schedule": {"name": mine.ramp}}})
    assert alone.optimizer.schedule == NAME("ramp")
    np.testing.assert_allclose(learning_rates(config)[-1], 0.3 * config.optimizer.lr, rtol=1e-6)
    np.testing.assert_allclose(learning_rates(alone)[-1], 0.1 * alone.optimizer.lr, rtol=1e-6)


def test_a_command_line_gives_arguments_to_what_a_file_names():
    config = override(
        {**STEPS, "model": {"family": mine.Doubled}, "optimizer": {"name": "sgd", "schedule": mine.ramp}},
        {
            "model.family.factor": "3",
            "optimizer.schedule.floor": "0.2",
            "model.init.recurrent": NAME("sparse"),
            "model.init.recurrent.density": "0.4",
        },
    )
    assert config.model.family_arguments == {"factor": 3.0}
    assert config.model.family_class is mine.Doubled
    assert config.model.init.recurrent.arguments == {"density": 0.4}
    assert config.optimizer.schedule.arguments == {"floor": 0.2}


def test_keys_of_what_a_name_alone_stands_for():
    """A task, a cell or an optimiser that a file gives by its name alone has its keys on a command line."""
    config = override({**STEPS, "task": "copy_memory", "optimizer": "momentum"}, {"optimizer.momentum": "0.3"})
    assert config.optimizer.momentum == 0.3
    assert override({**STEPS, "task": "adding"}, {"task.length": "7"}).task.length == 7


def test_numbers_are_traced_but_for_those_that_a_network_is_built_with():
    def config(density=0.2, floor=0.1, factor=2.0, gate=0.5):
        return load({
            **STEPS,
            "model": {
                "family": {"name": mine.Doubled, "factor": factor},
                "init": {
                    "recurrent": {"name": mine.sparse, "density": density},
                    "gates": {"n": {"input": {"name": mine.sparse, "density": gate}}},
                },
            },
            "optimizer": {"schedule": {"name": mine.ramp, "floor": floor}},
        })  # fmt: skip

    one = config()
    values = traced_hyperparameters(one)
    assert values["model.init"]["recurrent.density"] == np.float32(0.2)
    assert values["model.init"]["gates.n.input.density"] == 0.5
    assert values["optimizer"]["schedule.floor"] == np.float32(0.1)
    for other in (config(density=0.4), config(floor=0.3), config(gate=0.9)):
        assert training_program(one) == training_program(other)
        assert initial_program(one) == initial_program(other)
        assert one != other
    assert training_program(one) != training_program(config(factor=3.0))


def test_of_a_gate_too_the_number_is_what_counts():
    scheme = load(with_init({"name": mine.sparse, "density": 1.0})).model.init
    cell, key = gru_jax.cells.GRU(), jax.random.key(0)
    of_gate = gru_jax.Scheme(gates={"n": {"recurrent": WithArguments(NAME("sparse"), {"density": 0.0})}})

    def shares(scheme, values):
        params = cell.init(key, 3, 40, with_values(scheme, values))
        return {gate: float((kernel != 0).mean()) for gate, kernel in params["U"].items()}

    assert min(shares(scheme, {}).values()) == 1.0
    drawn = jax.jit(lambda density: cell.init(key, 3, 4, with_values(scheme, {"recurrent.density": density})))(0.0)
    assert not drawn["U"]["n"].any()
    assert max(shares(scheme, {"recurrent.density": 0.3}).values()) < 0.4
    assert shares(of_gate, {})["n"] == 0.0
    assert 0.2 < shares(of_gate, {"gates.n.recurrent.density": 0.3})["n"] < 0.4


def test_a_section_comes_before_what_is_in_it():
    """In whatever order they are given, as a command line, and a study's changes before its axes, may give them."""
    config = override(STEPS, {"model.init.recurrent.density": "0.4", "model.init.recurrent": NAME("sparse")})
    assert config.model.init.recurrent.arguments == {"density": 0.4}
    assert override(STEPS, {"task.length": "7", "task": "adding"}).task.length == 7
    whole = override(with_init("orthogonal"), {"model.init.recurrent.name": NAME("sparse")})
    assert whole.model.init.recurrent == NAME("sparse")
    typed = {"model.init.recurrent": f"{{'name': '{NAME('sparse')}'}}", "model.init.recurrent.density": "0.3"}
    assert override(STEPS, typed).model.init.recurrent.arguments == {"density": 0.3}
    study = load_study({
        "base": with_init(mine.sparse), "config": {"model.init.recurrent.density": 0.7},
        "axes": {"model.init.recurrent": [mine.sparse, scaled]},
    })  # fmt: skip
    assert [member.config.model.init.recurrent.arguments["density"] for member in study.members()] == [0.7, 0.7]


def test_sections_and_partials_are_an_axis():
    recurrent = ["orthogonal", {"name": mine.sparse, "density": 0.3}, functools.partial(mine.sparse, density=0.6)]
    study = load_study({"base": STEPS, "axes": {"model.init.recurrent": recurrent}})
    drawn = [member.config.model.init.recurrent for member in study.members()]
    assert drawn == ["orthogonal", *(WithArguments(NAME("sparse"), {"density": d}) for d in (0.3, 0.6))]
    assert study.members()[1].labels == {"model.init.recurrent": "sparse density=0.3"}


def test_of_a_family_arguments_of_the_library_are_no_keys_and_inherited_ones_are():
    class_of = {"name": Inheriting, "factor": 3.0, "shift": 1.0}
    assert load({**STEPS, "model": {"family": class_of}}).model.family_arguments == {"factor": 3.0, "shift": 1.0}
    for name in ("dropout", "method", "embedding_scale", "bidirectional"):
        with pytest.raises(UsageError, match=rf"model.family.{name}: no such key; .*has factor, shift"):
            load({**STEPS, "model": {"family": {"name": Inheriting, name: 0.5}}})


class Inheriting(mine.Doubled):
    """A family whose own defaults are of arguments of the library too."""

    def __init__(self, *args, rngs, input_dropout=0.5, shift=0.0, **kwargs):
        super().__init__(*args, rngs=rngs, input_dropout=input_dropout, **kwargs)
        self.shift = shift


def scaled(key, shape, dtype, *, density=0.5, cutoff=float("inf"), flag=False, what=None):
    """An initialiser with defaults of all kinds."""
    return jnp.full(shape, density, dtype)


def test_values_are_of_the_types_of_the_defaults():
    gates = {"n": {"recurrent": {"name": scaled, "flag": "true", "what": "none"}}}
    of_gate = load({**STEPS, "model": {"init": {"gates": gates}}}).model.init.gates["n"]["recurrent"]
    assert of_gate.arguments == {"flag": True, "what": None}
    typed = {"model.init.gates.n.recurrent": NAME("sparse"), "model.init.gates.n.recurrent.density": "0.3"}
    gate = override({**STEPS}, typed).model.init.gates["n"]
    assert gate["recurrent"].arguments == {"density": 0.3}
    with pytest.raises(UsageError, match=r"cutoff: no such key; .*has density, flag, what$"):
        load(with_init({"name": scaled, "cutoff": 1.0}))


def test_a_config_dict_anywhere_is_a_section():
    config = load(with_init(ConfigDict({"name": NAME("sparse"), "density": 0.3})))
    assert config.model.init.recurrent.arguments == {"density": 0.3}


def called_name(key, shape, dtype, name="zeros"):
    """An initialiser with an argument that is called as the key that chooses it."""


def deciding_later(updates, floor=0.1):
    """A schedule that decides by its number when it is called."""
    return lambda count: jnp.ones_like(count, float) * (floor if floor > 0 else 1.0)


def deciding(key, shape, dtype, density=0.5):
    """An initialiser that needs its number as a number."""
    return jnp.ones(shape, dtype) if density > 0.2 else jnp.zeros(shape, dtype)


def required(key, shape, dtype, density):
    """An initialiser whose number has no default."""
    return jnp.full(shape, density, dtype)


@pytest.mark.parametrize(
    ("section", "error"),
    [
        (
            {"model": {"init": {"recurrent": {"name": mine.sparse, "densty": 1.0}}}},
            r"^model.init.recurrent.densty: no such key; .*mine:sparse has density; did you mean 'density'\?$",
        ),
        ({"model": {"init": {"recurrent": {"name": mine.sparse, "density": "many"}}}}, "density=many: a finite num"),
        ({"model": {"init": {"recurrent": {"density": 0.5}}}}, "recurrent.name: missing; it says whose arguments dens"),
        ({"model": {"init": {"recurrent": {"name": "orthogonal", "gain": 1}}}}, "gain: no such key; orthogonal has no"),
        ({"model": {"init": {"recurrent": {"name": "orthogonl", "gain": 1}}}}, "name='orthogonl': allowed are"),
        ({"model": {"init": {"recurrent": {"name": required, "density": 1}}}}, "required: its argument density needs"),
        ({"model": {"init": {"recurrent": {"name": called_name, "x": 1}}}}, "called_name: has an argument called name"),
        ({"model": {"init": {"recurrent": {"name": max, "x": 1}}}}, "max.*: does not say what it takes"),
        ({"model": {"init": {"recurrent": {}}}}, r"^model.init.recurrent.name: missing$"),
        ({"model": {"init": {"recurrent": functools.partial(mine.sparse, None)}}}, "its arguments need names, as in"),
        ({"model": {"init": {"recurrent": [{"name": mine.sparse}, "zeros"]}}}, "init.recurrent=.*: one is needed"),
        ({"model": {"family": {"name": mine.Doubled, "dropout": 0.5}}}, "family.dropout: no such key; .*has factor"),
        ({"optimizer": {"schedule": {"name": "theirs.py:ramp", "floor": 1}}}, "missing; optimizer.schedule.name="),
        ({"optimizer": {"schedule": {"name": "cosine", "floor": 1}}}, "floor: no such key; cosine has no argument"),
        ({"flow": {"instruments": ["adjoint", {"name": mine.input_size_of, "p": 2}]}}, "p: no such key; .*has power"),
        ({"dtype": {"name": "float32"}}, "dtype={'name': 'float32'}: a text is needed"),
    ],
)  # fmt: skip
def test_one_line_says_what_is_wrong(section, error):
    with pytest.raises(UsageError, match=error):
        load({**STEPS, **section})


@pytest.mark.parametrize(
    ("section", "name"),
    [
        ({"model": {"init": {"recurrent": {"name": deciding, "density": 0.1}}}}, r"deciding\(density\)"),
        ({"optimizer": {"schedule": {"name": deciding_later, "floor": 0.1}}}, r"deciding_later\(floor\)"),
    ],
)
def test_a_function_that_decides_by_its_number_is_told(section, name, tmp_path):
    with pytest.raises(UsageError, match=f"{name}: it decides by the value of a real number"):
        train.run(small(**section), tmp_path)


def test_what_a_config_does_not_say_is_no_traced_number(tmp_path):
    """It may be decided by."""
    train.run(small(model={"init": {"recurrent": deciding}}), tmp_path)


def test_an_instrument_has_arguments(tmp_path):
    instruments = ["adjoint", mine.input_size_of, {"name": mine.input_size_of, "power": 0}]
    run = train.run(small(flow={"instruments": instruments}), tmp_path / "run")
    inputs = run.flow.filter(reading="input/layer_0")["value"]
    assert (inputs == 1.0).all()  # the last of one name counts, with the power 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["flow"]["instruments"][-1]["power"] == 0


@pytest.mark.slow
def test_arguments_are_axes_and_members_equal_runs_alone(tmp_path, file_of_mine):
    axes = {
        "model.init.recurrent.density": "0.1,0.6",
        "optimizer.schedule.floor": "0.1,0.9",
        "model.family.factor": "1,3",
    }
    study = ablate.run(load_study(file_of_mine, {}, axes, {}), tmp_path / "study")
    assert study.table["status"].to_list() == ["done"] * 8
    assert study.table["final_valid_loss"].n_unique() == 8
    chosen = {"model.init.recurrent.density": "0.6", "optimizer.schedule.floor": "0.9", "model.family.factor": "3"}
    train.run(load_config(file_of_mine, chosen), tmp_path / "alone")
    for member in sorted((tmp_path / "study" / MEMBERS).iterdir()):
        config = json.loads((member / "config.json").read_text())
        numbers = (
            config["model"]["init"]["recurrent"]["density"],
            config["optimizer"]["schedule"]["floor"],
            config["model"]["family"]["factor"],
        )
        if numbers == (0.6, 0.9, 3.0):
            same_run(tmp_path / "alone", member)
            return
    raise AssertionError("no such member")


@pytest.fixture
def file_of_mine():
    """The file of the user's own classes, as a command line gives it."""
    return mine.__file__


def test_the_first_argument_of_a_schedule_is_no_key():
    """It is the number of updates."""
    one = {"name": optax.schedules.constant_schedule, "value": 1.0}
    with pytest.raises(UsageError, match=r"value: no such key; .*has no argument of its own"):
        load({**STEPS, "optimizer": {"schedule": one}})
