"""Parts of a network that stay as they are, learn later, or at a rate of their own."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import ablate, train
from gru_jax.config import load, plan, traced_hyperparameters, training_program
from gru_jax.errors import UsageError
from gru_jax.nn.parts import leaf_at, leaf_paths
from gru_jax.runs.single import SingleRun
from gru_jax.studies.study import load_study
from gru_jax.training.carrying import TrainedParts
from gru_jax.training.network import build_model
from gru_jax.training.step import Trainer
from tests.programs import operations
from tests.training.killing import struck
from tests.training.small import small
from tests.training.test_resume import same_run

pytestmark = pytest.mark.usefixtures("undrawn", "compiled_once")
TWO = {"hidden": (4, 3)}
LAYERS = ("layer_0", "layer_1", "head")


def deep(**changes):
    """A small run of two layers."""
    return small(**{"model": TWO, "train": {"steps": 6, "eval_steps": 3}, **changes})


def steps(config, count=3):
    """The trainer, and the states of the first steps, one by one."""
    trainer = Trainer(config)
    values = traced_hyperparameters(config)
    states = [trainer.init(0, values)]
    step = jax.jit(trainer.step)
    indices = config.task.train_indices(config.train.batch_size, 0)(0, count)
    for index in indices:
        states.append(step(states[-1], 0, values, {}, index)[0])
    return trainer, states


def of_part(params, part):
    return params["head"] if part == "head" else params["stack"][part]


def is_same(one, two):
    pairs = zip(*map(jax.tree.leaves, (one, two)), strict=True)
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)  # zeros have signs


def moved(states, part, first=0, last=-1):
    return not is_same(of_part(states[first].params, part), of_part(states[last].params, part))


@pytest.mark.parametrize(
    ("frozen", "stay"),
    [
        (("layer_0",), {"layer_0"}),
        (("layers",), {"layer_0", "layer_1"}),
        pytest.param(("head", "layer_1"), {"head", "layer_1"}, marks=pytest.mark.slow),
    ],
)
def test_frozen_parts_keep_their_bits_and_have_no_state(frozen, stay):
    trainer, states = steps(deep(transfer={"frozen": frozen}))
    assert {part for part in LAYERS if not moved(states, part)} == stay
    trained = leaf_paths(trainer.parts.trained(states[0].params))
    arrays = [leaf for leaf in jax.tree.leaves(states[0].opt_state) if leaf.ndim]
    assert len(arrays) == 2 * len(trained) < 2 * len(jax.tree.leaves(states[0].params))  # of Adam, two for each
    assert sum(a.size for a in arrays) == 2 * sum(leaf_at(states[0].params, path).size for path in trained)


def test_regularisers_leave_frozen_parts_alone():
    """Noise and masks are on all kernels that a step sees; what stays is nevertheless the same, in the average too."""
    regularization = {
        "weight_noise": 0.1, "dropconnect": 0.3, "orthogonality": 0.1, "max_norm": 0.1, "activation": 0.1, "ema": 0.5,
    }  # fmt: skip
    _, states = steps(deep(transfer={"frozen": ("layer_0",)}, regularization=regularization))
    assert {part for part in LAYERS if not moved(states, part)} == {"layer_0"}
    assert is_same(of_part(states[-1].training_params, "layer_0"), of_part(states[0].params, "layer_0"))


def test_nothing_is_sent_back_to_frozen_layers_at_the_bottom():
    def loops(**transfer):
        config = deep(transfer=transfer, flow={"every": 0})
        trainer = Trainer(config)
        arguments = (trainer.init(0, traced_hyperparameters(config)), 0, traced_hyperparameters(config), {})
        lowered = jax.jit(trainer.step).lower(*arguments, np.arange(config.train.batch_size, dtype=np.int32))
        return len(operations(lowered, "stablehlo.dot_general"))

    everything, but_the_head, but_the_top = loops(), loops(frozen=("layers",)), loops(frozen=("layer_1",))
    assert but_the_head < 0.5 * everything
    assert but_the_head < but_the_top < everything


def test_frozen_parts_are_those_of_optax_partition(x64):
    """The rest is trained as if their gradients were thrown away, clipped by what is left."""
    changes = {"dtype": "float64", "optimizer": {"lr": 0.1, "clip_norm": 0.05}}
    _, states = steps(deep(transfer={"frozen": ("layer_1",)}, **changes))
    plain = Trainer(deep(**changes))
    params, labels = states[0].params, jax.tree.map(lambda _: "train", states[0].params)
    labels["stack"]["layer_1"] = jax.tree.map(lambda _: "freeze", labels["stack"]["layer_1"])
    chain = optax.chain(optax.clip_by_global_norm(0.05), optax.adam(0.1))
    reference = optax.partition({"train": chain, "freeze": optax.set_to_zero()}, labels)
    state = reference.init(params)
    for index in plain.config.task.train_indices(8, 0)(0, 3):
        batch = plain.batch(0, {}, jnp.asarray(index))
        grads = jax.grad(lambda p, batch=batch: plain.loss(p, None, batch)[0])(params)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = reference.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), states[-1].params, params)


def test_without_any_of_it_everything_is_as_it_is_given():
    config = deep()
    parts, params = TrainedParts(config, build_model(config)), object()
    rule = optax.identity()
    assert parts.trained(params) is params
    assert parts.whole(None, params) is params
    assert parts.held_back(params, 0, {}) is params
    assert parts.optimizer(lambda around: around(rule), 0, {}) is rule
    assert traced_hyperparameters(config)["transfer"] == {}


def test_rates_of_parts(x64):
    """Of plain gradient descent each part goes so many times as far; what is not named goes as far as before."""
    descent = {"dtype": "float64", "optimizer": {"name": "sgd", "lr": 0.1, "clip_norm": None}}
    transfer = {"rates": {"layers": 0.5, "layer_1": 3}, "rate_decay": 0.25}
    (_, plain), (_, scaled) = steps(deep(**descent), 1), steps(deep(transfer=transfer, **descent), 1)
    for part, factor in {"layer_0": 0.5 * 0.25**2, "layer_1": 3 * 0.25, "head": 1.0}.items():
        far, wanted = (
            jax.tree.map(lambda a, b: b - a, *(of_part(state.params, part) for state in states))
            for states in (scaled, plain)
        )
        jax.tree.map(lambda a, b, factor=factor: np.testing.assert_allclose(a, factor * b, rtol=1e-9), far, wanted)


def test_levels_thaw_from_the_top_and_begin_as_if_it_were_the_first_step(x64):
    adam = {"dtype": "float64", "optimizer": {"lr": 0.1, "clip_norm": None, "eps": 0.0}}
    _, states = steps(deep(transfer={"thaw_steps": (1, 3)}, **adam), 5)
    for part, first in {"head": 0, "layer_1": 1, "layer_0": 3}.items():
        assert not moved(states, part, 0, first)
        before, after = (of_part(states[step].params, part) for step in (first, first + 1))
        # The first update of Adam is the learning rate, whatever the gradient.
        far = [np.abs(b - a) for a, b in zip(*map(jax.tree.leaves, (before, after)), strict=True)]
        np.testing.assert_allclose(np.concatenate([a.ravel() for a in far if a.any()]), 0.1, rtol=1e-6)


def test_what_waits_is_not_among_what_is_clipped(x64):
    """And weight decay, of parts that wait, does nothing to them either."""
    changes = {"dtype": "float64", "optimizer": {"name": "adamw", "lr": 0.1, "weight_decay": 0.5, "clip_norm": 1e-3}}
    (_, waiting), (_, frozen) = (
        steps(deep(transfer=transfer, **changes), 2) for transfer in ({"thaw_steps": (9, 9)}, {"frozen": ("layers",)})
    )
    assert not moved(waiting, "layer_0")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), waiting[-1].params, frozen[-1].params)


@pytest.mark.parametrize(
    ("transfer", "said"),
    [
        ({"frozen": ("layer_2",)}, r"frozen=layer_2: no such part; this network has layer_0, layer_1, head; did"),
        ({"rates": {"embedding": 1.0}}, r"transfer\.rates=embedding: no such part"),
        ({"frozen": ("all",)}, r"transfer\.frozen=all: nothing is left to train"),
        ({"thaw_steps": (1,)}, r"thaw_steps=1: needed are as many .*, 2: of layer_1, layer_0"),
        ({"thaw_steps": (1, 2), "frozen": ("layer_0",)}, r"thaw_steps=1, 2: needed are .*, 1: of layer_1"),
    ],
)  # fmt: skip
def test_what_the_network_does_not_have_is_said_before_anything_is_written(transfer, said, tmp_path):
    config = deep(transfer=transfer)
    with pytest.raises(UsageError, match=said):
        train.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("transfer", "said"),
    [
        ({"rates": {"head": -1.0}}, r"transfer\.rates\.head=-1\.0: allowed are numbers from 0"),
        ({"rates": {"head": "much"}}, r"transfer\.rates\.head='much': allowed are numbers from 0"),
        ({"thaw_steps": (3, 1)}, r"transfer\.thaw_steps=3,1: allowed are numbers in rising order"),
        ({"thaw_epochs": (1.0,)}, r"thaw_epochs=1: this task is generated without end"),
        ({"parts": ("head",)}, r"transfer\.parts=head: without effect; train\.init_from says of which run"),
    ],
)
def test_what_no_network_could_have_is_said(transfer, said):
    with pytest.raises(UsageError, match=said):
        load({"train": {"steps": 1}, "transfer": transfer})


def test_epochs_of_thawing_are_steps():
    config = load(
        {"task": {"name": "mnist"}, "train": {"epochs": 2, "batch_size": 100}, "transfer": {"thaw_epochs": (1,)}}
    )
    assert plan(config).thaws == (550,)


ALL_OF_IT = {"thaw_steps": (4,), "frozen": ("layer_0",), "rates": {"head": 0.5}, "rate_decay": 0.5}


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    config = small(model=TWO, transfer=ALL_OF_IT, flow={"every": 0})
    train.run(config, tmp_path / "whole")
    with struck(monkeypatch, SingleRun, "_save", 2):
        train.run(config, tmp_path / "killed")
    train.run(config, tmp_path / "killed")
    same_run(tmp_path / "whole", tmp_path / "killed")


AXES = {"transfer.rates.head": [0.25, 1], "transfer.thaw_steps": [(4,), (2,)], "transfer.rate_decay": [0.5, 0.1]}


def test_an_ablation_over_the_numbers_is_one_program():
    configs = [
        member.config for member in load_study({"base": deep(transfer=ALL_OF_IT).to_dict(), "axes": AXES}).members()
    ]
    assert len(configs) == 8
    assert len({training_program(config) for config in configs}) == 1
    others = [{**ALL_OF_IT, "frozen": None}, {**ALL_OF_IT, "rate_decay": None}, {**ALL_OF_IT, "thaw_steps": None}]
    programs = {training_program(deep(transfer=transfer)) for transfer in [ALL_OF_IT, {}, *others]}
    assert len(programs) == 5


@pytest.mark.slow
def test_members_are_the_runs_by_themselves(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.report.run", lambda path: None)
    changes = {"transfer": ALL_OF_IT, "flow": {"live": 1, "instruments": ("adjoint", "gates", "noise")}}
    study = load_study({"base": deep(**changes).to_dict(), "axes": AXES})
    ablate.run(study, tmp_path / "study")
    for member in study.members()[2:4]:
        alone = train.run(member.config, tmp_path / member.id)
        same_run(alone.path, tmp_path / "study" / "members" / member.id)


def test_flossing_before_the_training_leaves_frozen_parts_alone():
    flossing = {"floss": 1, "floss_before": 2, "floss_time": 4}
    (_, plain), (_, flossed) = (
        steps(deep(gradient=gradient, transfer={"frozen": ("layer_0",)}), 0) for gradient in ({}, flossing)
    )
    assert is_same(of_part(plain[0].params, "layer_0"), of_part(flossed[0].params, "layer_0"))
    assert not is_same(of_part(plain[0].params, "layer_1"), of_part(flossed[0].params, "layer_1"))


def test_penalties_are_of_what_learns():
    penalties = {"omega": 0.5, "floss": 1, "floss_every": 1, "floss_time": 5, "floss_sequences": 3}
    _, states = steps(deep(gradient=penalties, transfer={"frozen": ("layer_1",)}), 2)
    assert {part for part in LAYERS if moved(states, part)} == {"layer_0", "head"}
    assert jnp.isfinite(states[-1].params["head"]["bias"]).all()
