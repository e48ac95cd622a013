"""Runs that start from a file of weights."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from flax import nnx

import gru_jax
from experiments import ablate, train
from gru_jax import interop
from gru_jax.cells import GRU, LSTM
from gru_jax.errors import UsageError
from gru_jax.nn import SequenceModel, Stack
from gru_jax.runs.directory import RunDir
from gru_jax.runs.flow import params_of_run

pytestmark = pytest.mark.usefixtures("undrawn", "compiled_once")

CONFIG = {
    "task": {"name": "adding", "length": 10, "valid_size": 16, "test_size": 16},
    "model": {"hidden": (4, 4), "bidirectional": True},
    "train": {"steps": 4, "batch_size": 4, "eval_steps": 2},
    "optimizer": {"lr": 0.0},
    "flow": {"instruments": ("gates",)},
}


SMALL = {**CONFIG, "model": {"hidden": (4,)}}


def with_model(**changes):
    return {**CONFIG, "model": {**CONFIG["model"], **changes}}


@pytest.fixture
def model():
    return SequenceModel(GRU(), 2, (4, 4), 1, bidirectional=True, rngs=nnx.Rngs(3))


@pytest.fixture
def path(model, tmp_path):
    interop.save_safetensors(model, tmp_path / "weights.safetensors")
    return str(tmp_path / "weights.safetensors")


def assert_params(params, model):
    wanted = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    jax.tree.map(np.testing.assert_array_equal, params, wanted)


def test_a_run_starts_from_a_file(path, model, tmp_path):
    run = train.run(with_model(weights=path), tmp_path / "run")  # without learning
    assert_params(run.params, model)
    xs = jax.random.normal(jax.random.key(0), (3, 10, 2))
    np.testing.assert_allclose(run.predict(xs), model(xs), atol=1e-6)
    assert len(gru_jax.open(tmp_path / "run").config.to_dict()["sources"][path]) == 64
    _, start = params_of_run(RunDir(tmp_path / "run"), run.config, "init")
    assert_params(start, model)


def test_lengths_that_no_sequence_has_are_refused(tmp_path):
    run = train.run(SMALL, tmp_path / "run")
    xs = jax.random.normal(jax.random.key(0), (2, 10, 2))
    np.testing.assert_array_equal(run.predict(xs, [3, 4]), run.predict(xs, np.array([3, 4])))
    for lengths in ([-3, 4], [3, 99]):
        with pytest.raises(UsageError, match=r"lengths range from .* to .*: allowed are 0 to T=10"):
            run.predict(xs, np.array(lengths))


@pytest.mark.slow
def test_the_sign_of_the_update_gate_follows_the_cell(path, model, tmp_path):
    run = train.run(with_model(weights=path, cell={"name": "gru", "update": "write"}), tmp_path / "run")
    xs = jax.random.normal(jax.random.key(0), (3, 10, 2))
    np.testing.assert_allclose(run.predict(xs), model(xs), atol=1e-6)


@pytest.mark.slow
def test_without_a_head_it_is_drawn(model, tmp_path):
    file = tmp_path / "stack.safetensors"
    interop.save_safetensors(model.stack, file)
    run = train.run(with_model(weights=str(file)), tmp_path / "run")
    plain = train.run(CONFIG, tmp_path / "plain")
    np.testing.assert_array_equal(run.params["head"]["kernel"], plain.params["head"]["kernel"])
    assert_params({"stack": run.params["stack"]}, _Holder(model.stack))


class _Holder(nnx.Module):
    def __init__(self, stack):
        self.stack = stack


@pytest.mark.slow
def test_members_of_a_study_start_from_theirs(path, model, tmp_path):
    study = ablate.run({"base": with_model(weights=path), "axes": {"seed": [0, 1]}}, tmp_path / "study")
    for member in study.table["member"]:
        assert_params(study.run(member).params, model)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"hidden": (5, 5)}, r"stack\.layer_0\.backward\.weights\.U\.n is \[4, 4\], needed is \[5, 5\]"),
        ({"hidden": (4,)}, r"stack\.layer_1\.backward\.weights\.U\.n \[4, 4\] fits nowhere"),
        ({"hidden": (4, 4, 4)}, r"stack\.layer_2\.backward\.weights\.U\.n \[4, 4\] is missing"),
        ({"cell": {"name": "lstm"}}, r"cell=LSTM\(\): these weights are of the kind GRU in PyTorch"),
        ({"cell": {"name": "gru", "reset": "before"}}, r"PyTorch has no GRU\(reset='before'"),
    ],
)
def test_what_does_not_fit_is_listed_before_anything_begins(network, message, path, tmp_path):
    with pytest.raises(UsageError, match=message) as error:
        train.run(with_model(weights=path, **network), tmp_path / "run")
    assert str(error.value).startswith(f"model.weights={path}: ")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_double_precision_is_not_rounded(tmp_path):
    import safetensors.numpy

    state = interop.to_torch(Stack(LSTM(), 2, (4,), rngs=nnx.Rngs(0)))
    wanted = {name: a.astype("float64") / 3 for name, a in state.items()}
    path = tmp_path / "double.safetensors"
    safetensors.numpy.save_file(wanted, path)
    config = with_model(weights=str(path), hidden=(4,), bidirectional=False, cell={"name": "lstm"})
    with pytest.raises(UsageError, match="is float64, which float32 would round"):
        train.run(config, tmp_path / "run")
    run = train.run({**config, "dtype": "float64"}, tmp_path / "run")
    kernel = np.concatenate([run.params["stack"]["layer_0"]["weights"]["W"][gate] for gate in "ifno"], axis=1).T
    np.testing.assert_array_equal(kernel, wanted["weight_ih_l0"])  # the learning rate is zero


def test_a_missing_file_and_a_changed_one(tmp_path, capsys):
    path = str(tmp_path / "weights.safetensors")

    def save(seed):
        interop.save_safetensors(SequenceModel(GRU(), 2, (4,), 1, rngs=nnx.Rngs(seed)), path)

    with pytest.raises(UsageError, match=r"model.weights=nowhere: nowhere: no such file"):
        train.run(with_model(weights="nowhere"), tmp_path / "other")
    config = {**SMALL, "model": {"hidden": (4,), "weights": path}}
    save(3)
    train.run(config, tmp_path / "run")
    save(4)
    train.run(config, tmp_path / "run")
    assert f"code or weights of your own are others than this run was made with; results may differ: {path}" in (
        capsys.readouterr().out
    )
