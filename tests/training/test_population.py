"""A member of a population is the same run as one alone."""

from __future__ import annotations

import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import train
from gru_jax.config import initial_program, traced_hyperparameters, training_program
from gru_jax.errors import UsageError
from gru_jax.runs.directory import RunDir
from gru_jax.runs.early_stopping import EndReason
from gru_jax.runs.population import PopulationRun
from gru_jax.runtime.devices import precision
from gru_jax.tasks import MNIST, TASKS
from gru_jax.tasks.loading import load_splits
from gru_jax.training.population import CompiledPopulation, Population, choose_mapping
from gru_jax.training.step import Trainer
from tests.training.small import small, timeless

STEPS = 200
INSTRUMENTS = {"instruments": ("adjoint", "gates", "lyapunov"), "every": 4, "batch_size": 4}


def members(**changes):
    """Members that differ in all that may differ without a program of their own."""
    return [
        small(
            **{
                k: {**changes.get(k, {}), **own.get(k, {})}
                if isinstance(changes.get(k, own.get(k)), dict)
                else own.get(k, changes.get(k))
                for k in {**changes, **own}
            }
        )
        for own in (
            {"seed": 0, "model": {"init": {"gate_bias": "zeros"}}},
            {"seed": 1, "optimizer": {"lr": 0.03, "clip_norm": 0.1, "b1": 0.8}, "train": {"patience": 1}},
            {"seed": 2, "optimizer": {"lr": 0.1}, "model": {"init": {"recurrent": "identity", "recurrent_scale": 0.5}}},
        )
    ]


def population(configs, mapping="map"):
    return Population(
        CompiledPopulation(configs[0], load_splits(configs[0].task, configs[0].resident_mb), jax.devices(), mapping),
        configs,
    )


def take(together, state, first, counts):
    """Some steps from step `first` on."""
    return together.train(state, *together.feed().next(first, int(counts.max())), counts)


def solo_losses(config):
    trainer = Trainer(config)
    indices = config.task.train_indices(config.train.batch_size, config.seed)
    state = trainer.init(config.seed, traced_hyperparameters(config))
    done = trainer.run(state, config.seed, traced_hyperparameters(config), {}, indices(0, STEPS), np.int32(STEPS))
    return np.asarray(done.metrics["loss"])


AS_USERS_COMPILE = pytest.mark.skipif(
    "optimization_level=0" in os.environ["XLA_FLAGS"], reason="equal bits are promised of programs that XLA optimises"
)


@pytest.mark.parametrize(
    ("mapping", "dtype", "tolerance"),
    [
        ("vmap", "float32", 1e-6),
        pytest.param("vmap", "float64", 1e-12, marks=pytest.mark.slow),
        pytest.param("map", "float32", 0, marks=AS_USERS_COMPILE),
        pytest.param("map", "float64", 0, marks=pytest.mark.slow),
    ],
)
def test_losses_are_those_of_the_run_alone(mapping, dtype, tolerance, x64):
    """To the bit one after the other; as one batch products round differently, which steep training magnifies."""
    rates = (1e-4, 1e-3, 3e-3) if mapping == "vmap" else (0.01, 0.03, 0.1)
    train = {"steps": STEPS, "call_steps": STEPS}
    configs = [
        dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, lr=lr, clip_norm=1.0))
        for config, lr in zip(members(dtype=dtype, train=train), rates, strict=True)
    ]
    with precision(configs[0].dtype, configs[0].matmul_precision):
        together = population(configs, mapping)
        done = take(together, together.initial(), 0, np.full(len(configs), STEPS))
        assert done.finite.all()
        for config, losses in zip(configs, done.metrics["loss"], strict=True):
            np.testing.assert_allclose(losses, solo_losses(config), rtol=tolerance)


def trained(configs, root):
    """The run directories of members that were trained together, and how far they came."""
    (root / "members").mkdir()
    with precision(configs[0].dtype, configs[0].matmul_precision):
        run = PopulationRun(population(configs), RunDir(root / "wave"))
        run.train()
        paths = [root / "members" / str(i) for i in range(len(configs))]
        run.finish(paths, keep_networks=True)
        run.close()
    return paths, run.members


@pytest.fixture(scope="module")
def wave(tmp_path_factory):
    """A wave with a member that stops early and one that diverges, its run directories, and how far each came."""
    configs = [*members(flow=INSTRUMENTS), small(seed=3, optimizer={"lr": 1e30}, flow=INSTRUMENTS)]
    return configs, *trained(configs, tmp_path_factory.mktemp("wave"))


def same_files(one, two):
    """The same run but for its clocks, to the bit; readings of the instruments to the last bit or two.

    XLA fuses what the instruments compute otherwise inside a loop; what is trained with comes out the same.
    """
    assert timeless(one) == timeless(two)
    ours, theirs = RunDir(one).read_flow(), RunDir(two).read_flow()
    assert ours.keys() == theirs.keys()
    for name in ours:
        if ours[name].dtype.kind == "U":  # whose gradient it is
            assert ours[name] == theirs[name]
        else:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=2.5e-7)
    clocks = {"seconds", "steps_per_second", "host_peak_bytes", "population"}
    told = [{k: v for k, v in RunDir(p).read_summary().items() if k not in clocks} for p in (one, two)]
    assert told[0] == told[1]


@pytest.mark.parametrize("member", [0, 1])
def test_files_are_those_of_the_run_alone(member, wave, tmp_path, undrawn):
    configs, paths, _ = wave
    train.run(configs[member], tmp_path)
    same_files(paths[member], tmp_path)


def everything(i):
    """A member that differs in every number that is trained with, in bfloat16, in two directions, with lengths."""
    model = {"hidden": (4, 3), "bidirectional": True, "dropout": 0.2 + 0.1 * i}
    optimizer = {"lr": 0.01 * (i + 1), "l1": 1e-3 * (i + 1), "l2": 1e-3, "noise": 0.01 * (i + 1), "clip_value": 0.5}
    gradient = {"omega": 0.1 * (i + 1), "floss": 1, "floss_before": 2, "floss_every": 3,
                "floss_weight": 0.1 * (i + 1), "floss_lr": 1e-3 * (i + 1), "floss_time": 10}  # fmt: skip
    flow = {"every": 5, "live": 2, "batch_size": 4, "instruments": ("adjoint", "gates", "lyapunov", "noise")}
    return {
        "seed": i, "dtype": "bfloat16", "task": {"name": "temporal_order", "length": 20}, "model": model,
        "optimizer": optimizer, "gradient": gradient, "flow": flow,
        "train": {"steps": 11, "eval_steps": 4, "patience": 1 + i},
    }  # fmt: skip


def intervened(i):
    """A member whose gradients are clipped and cut on their way back."""
    gradient = {"adjoint_clip": 10.0 ** (-4 * i), "detach": 0.1 + 0.8 * i}
    return {"seed": i, "gradient": gradient, "flow": {"every": 4, "live": 1, "batch_size": 4}}


@pytest.mark.slow
@pytest.mark.parametrize("of", [everything, intervened])
def test_files_are_those_of_the_run_alone_with_everything_on(of, tmp_path, undrawn):
    configs = [small(**of(i)) for i in range(2)]
    for i, path in enumerate(trained(configs, tmp_path)[0]):
        train.run(configs[i], tmp_path / f"alone-{i}")
        same_files(path, tmp_path / f"alone-{i}")


def test_a_member_is_a_run_directory_for_all_commands(wave):
    from experiments import evaluate

    _, paths, _ = wave
    for which in ("best", "latest"):
        computed = evaluate.run(paths[0], checkpoint=which)
        stored = RunDir(paths[0]).read_summary()["final" if which == "latest" else "best"]
        assert computed.metrics == stored["test"]


def test_divergence_is_marked_and_touches_nobody(wave):
    _, paths, members = wave
    assert [m.end_reason == EndReason.DIVERGED for m in members] == [False, False, False, True]
    assert members[3].end_message == f"diverged: step {members[3].steps + 1} is not finite"
    assert RunDir(paths[3]).read_summary()["stopped"] == members[3].end_message
    assert members[1].end_message == "no improvement in 1 validations" or members[1].steps == 12


def test_training_goes_on_after_a_member_diverged():
    """Not only before: every later bit of the others is that of a population without it."""
    good = members(train={"steps": STEPS, "call_steps": 20})
    bad = small(seed=9, optimizer={"lr": 1e30}, train={"steps": STEPS, "call_steps": 20})
    losses = []
    for configs in ([good[0], bad, good[2]], [good[0], good[1], good[2]]):
        together = population(configs)
        state, history = together.initial(), []
        for first in range(0, 60, 20):
            done = take(together, state, first, np.full(3, 20))
            state = done.state
            history.append(done.metrics["loss"])
        losses.append(np.concatenate(history, axis=1))
    np.testing.assert_array_equal(losses[0][[0, 2]], losses[1][[0, 2]])
    assert not np.isfinite(losses[0][1]).all() or (losses[0][1] == 0).any()


def test_rates_that_are_lowered_are_those_of_a_config():
    """Of one member alone, in the middle of the training."""
    configs = [small(seed=i, optimizer={"lr": 0.02, "schedule": "plateau"}) for i in range(2)]
    halved = small(seed=1, optimizer={"lr": 0.01, "schedule": "plateau"})
    both, alone = population(configs), population([halved])
    both.scale_learning_rates(np.array([1.0, 0.5]))
    done, wanted = (take(p, p.initial(), 0, np.full(len(p.configs), 3)) for p in (both, alone))
    for name in ("loss", "learning_rate"):
        np.testing.assert_array_equal(done.metrics[name][1], wanted.metrics[name][0])
    assert both.hyperparameters_of(0)["optimizer"]["lr"] == np.float32(0.02)
    assert both.hyperparameters_of(1)["optimizer"]["lr"] == np.float32(0.01)


def test_members_have_their_own_numbers_everywhere(x64):
    """In the instruments' backward pass, and where a number meets Python's own in a schedule."""
    flow = {"instruments": ("adjoint",), "batch_size": 4}
    train = {"steps": 12, "call_steps": 12}
    schedule = {"schedule": "exponential", "warmup_steps": 3}
    configs = [
        small(seed=i, dtype="float64", train=train, flow=flow, optimizer={**schedule, "lr": 0.01 * (i + 1)},
              gradient={"adjoint_clip": clip})
        for i, clip in enumerate((1e-4, 10.0))
    ]  # fmt: skip
    with precision(configs[0].dtype, configs[0].matmul_precision):
        both = population(configs)
        start = both.initial()
        readings = both.measure(start.params)
        done = take(both, start, 0, np.array([12, 12]))
        for i, config in enumerate(configs):
            alone = population([config])
            start = alone.initial()
            for name, value in alone.measure(start.params).items():
                np.testing.assert_array_equal(readings[name][i], value[0])
            trainer, indices = alone.compiled.trainer, config.task.train_indices(8, config.seed)
            numbers = traced_hyperparameters(config)
            state = trainer.init(config.seed, numbers)
            losses = trainer.run(state, config.seed, numbers, {}, indices(0, 12), np.int32(12)).metrics["loss"]
            np.testing.assert_array_equal(done.metrics["loss"][i], losses)
    assert not np.array_equal(readings["adjoint/layer_0"][0], readings["adjoint/layer_0"][1])


def test_programs():
    base = small()
    same = [small(seed=4), small(optimizer={"lr": 0.5, "b2": 0.9}), small(model={"init": {"gate_bias": "chrono"}}),
            small(train={"target": 0.1, "patience": 3})]  # fmt: skip
    other = [small(optimizer={"l1": 1e-3}), small(optimizer={"clip_norm": None}), small(model={"hidden": (5,)}),
             small(train={"batch_size": 4}), small(optimizer={"name": "sgd"}), small(dtype="bfloat16")]  # fmt: skip
    assert {training_program(config) for config in same} == {training_program(base)}
    assert len({training_program(config) for config in [base, *other]}) == len(other) + 1
    assert initial_program(small(seed=4)) == initial_program(base)
    assert initial_program(small(model={"init": {"recurrent_scale": 2.0}})) == initial_program(base)
    assert initial_program(same[2]) != initial_program(base)
    with pytest.raises(UsageError, match="they need 2 programs; allowed is one"):
        population([base, other[0]])


def test_mapping_by_platform():
    assert [choose_mapping("auto", p) for p in ("cpu", "gpu", "tpu")] == ["map", "vmap", "vmap"]
    assert choose_mapping("vmap", "cpu") == "vmap"
    with pytest.raises(UsageError, match="mapping='vamp': allowed are auto, map, vmap; did you mean 'vmap'"):
        choose_mapping("vamp", "cpu")


@dataclasses.dataclass(frozen=True)
class Digits(MNIST):
    """Files without files."""

    def count(self, split):
        return 23 if split == "train" else 5

    def read(self, split):
        draw = np.random.default_rng(len(split))
        count = self.count(split)
        return {
            "images": draw.integers(0, 255, (count, 784), np.uint8),
            "labels": np.arange(count, dtype=np.int32) % 10,
        }


def test_folds_part_the_training_examples():
    tasks = [Digits(folds=4, fold=fold) for fold in range(4)]
    held_out = [set(task.order("valid").tolist()) for task in tasks]
    assert [len(of) for of in held_out] == [5] * 4
    assert len(set.union(*held_out)) == 20
    for task, of in zip(tasks, held_out, strict=True):
        assert set(task.order("train").tolist()) == set(range(23)) - of
        assert (task.size("train"), task.size("valid"), task.size("test")) == (18, 5, 5)
        valid = task.load("valid")
        batch = task.batch(jax.device_put(valid), jax.random.key(0), jnp.arange(5))
        np.testing.assert_array_equal(batch.targets, task.read("train")["labels"][task.order("valid")])
    with pytest.raises(UsageError, match=r"fold=4: allowed are 0 to 3"):
        Digits(folds=4, fold=4)
    with pytest.raises(UsageError, match=r"fold=1: without effect"):
        Digits(fold=1)


def test_folds_are_replicas(monkeypatch):
    monkeypatch.setitem(TASKS, "digits", Digits)
    base = small(train={"steps": 6, "eval_steps": 3, "batch_size": 6})
    configs = [dataclasses.replace(base, seed=fold, task=Digits(folds=4, fold=fold)) for fold in range(2)]
    configs = [dataclasses.replace(c, model=dataclasses.replace(c.model, readout="last")) for c in configs]
    together = population(configs)
    done = take(together, together.initial(), 0, np.array([3, 3]))
    for i, config in enumerate(configs):
        alone = population([config])
        one = take(alone, alone.initial(), 0, np.array([3]))
        np.testing.assert_array_equal(done.metrics["loss"][i], one.metrics["loss"][0])
        ours = together.evaluate(done.state.params, "valid", np.ones(2, bool))[i]
        assert ours == alone.evaluate(one.state.params, "valid", np.ones(1, bool))[0]
