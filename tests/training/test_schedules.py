"""The n-th of N updates has the n-th value of its schedule; the rates that a run reports are those it trains with."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import train
from gru_jax.config import load, plan, traced_hyperparameters
from gru_jax.errors import UsageError
from gru_jax.runs.early_stopping import EarlyStopping, MetricWindow
from gru_jax.runs.single import SingleRun
from gru_jax.training.optimizer import build_optimizer
from gru_jax.training.schedules import learning_rates
from gru_jax.training.step import Trainer
from tests import lenient
from tests.training.killing import struck
from tests.training.small import small, timeless

pytestmark = pytest.mark.usefixtures("compiled_once")

N = 40
DOWN = np.arange(N) / (N - 1)  # how far the n-th of N updates is
REFERENCES = {
    "constant": np.ones(N),
    "linear": 1 - 0.9 * DOWN,
    "cosine": 0.1 + 0.9 * (1 + np.cos(np.pi * DOWN)) / 2,
    "exponential": 0.1**DOWN,
}


def optax_linear(updates):
    """A schedule of a user's own, of an integer count."""
    return optax.linear_schedule(1.0, 0.1, updates)


def config_of(schedule, steps=N, **optimizer):
    optimizer = {"lr": 0.05, "final": 0.1, "schedule": schedule, **optimizer}
    return load({"train": {"steps": steps}, "optimizer": optimizer, "dtype": "float64"})


def fractions(schedule, steps=N, **optimizer):
    with lenient.jax_as_users_have_it():
        return learning_rates(config_of(schedule, steps, **optimizer)) / 0.05


@pytest.mark.usefixtures("x64")
class TestRates:
    @pytest.mark.parametrize("schedule", [*REFERENCES, optax_linear])
    def test_the_nth_update_has_the_nth_value(self, schedule):
        wanted = REFERENCES["linear" if callable(schedule) else schedule]
        np.testing.assert_allclose(fractions(schedule), wanted, rtol=1e-14)

    @pytest.mark.parametrize("schedule", [*REFERENCES, optax_linear])
    def test_after_a_warm_up(self, schedule):
        """The last update of the warm-up is the first of the schedule."""
        rates, after = fractions(schedule, N + 6, warmup_steps=7), fractions(schedule, N)
        np.testing.assert_allclose(rates[:7], np.arange(1, 8) / 7, rtol=1e-14)
        np.testing.assert_allclose(rates[6:], after, rtol=1e-14)

    @pytest.mark.parametrize("schedule", ["linear", "cosine", "exponential", "one_cycle", optax_linear])
    @pytest.mark.parametrize("warmup", [0, 1, 5, N - 1])
    def test_the_last_update_is_at_the_end(self, schedule, warmup):
        assert fractions(schedule, warmup_steps=warmup)[-1] == pytest.approx(0.1, rel=1e-15)

    @pytest.mark.parametrize("schedule", ["constant", "cosine", "step", "one_cycle", "plateau"])
    def test_a_warm_up_as_long_as_the_training_arrives(self, schedule):
        drops = {"drop_steps": (N,)} if schedule == "step" else {}
        assert fractions(schedule, warmup_steps=N, **drops)[-1] == 1.0
        assert fractions(schedule, steps=1, **drops).tolist() == [1.0]

    def test_drops(self):
        rates = fractions("step", steps=9, drop=0.5, drop_steps=(2, 3, 8, 20))
        assert rates.tolist() == [1.0, 1.0, 0.5, 0.25, 0.25, 0.25, 0.25, 0.25, 0.125]
        epochs = {"task": {"name": "mnist"}, "train": {"epochs": 2, "batch_size": 100}}
        assert plan(load({**epochs, "optimizer": {"schedule": "step", "drop_epochs": (0.5, 1)}})).drops == (275, 550)

    def test_one_cycle(self):
        """Twelve updates up, by default three tenths of them, then down; as PyTorch has it."""
        up, down = np.arange(12) / 11, np.arange(1, N - 11) / (N - 12)
        rise, fall = (1 - np.cos(np.pi * up)) / 2, (1 + np.cos(np.pi * down)) / 2
        wanted = np.concatenate([0.04 + 0.96 * rise, 0.01 + 0.99 * fall])
        np.testing.assert_allclose(fractions("one_cycle", final=0.01, start=0.04), wanted, rtol=1e-12)
        torch = pytest.importorskip("torch")
        rule = torch.optim.SGD([torch.nn.Parameter(torch.zeros((), dtype=torch.float64))], lr=1.0)
        cycle = torch.optim.lr_scheduler.OneCycleLR(
            rule, max_lr=0.05, total_steps=N, pct_start=12 / N, div_factor=25, final_div_factor=4
        )
        for fraction in wanted:
            assert cycle.get_last_lr()[0] / 0.05 == pytest.approx(fraction, rel=1e-12)
            rule.step()
            cycle.step() if cycle.last_epoch < N - 1 else None

    @pytest.mark.parametrize("schedule", [*REFERENCES, "one_cycle", "step", optax_linear])
    def test_the_optimiser_has_them(self, schedule):
        """From the updates of a gradient of 1, by a count of 32 bits as optax keeps it."""
        drops = {"drop_steps": (5, 9)} if schedule == "step" else {}
        options = {"name": "sgd", "clip_norm": None, "weight_decay": 0.0, "warmup_steps": 3, **drops}
        config = config_of(schedule, 12, **options)
        optimizer = build_optimizer(config.optimizer, plan(config), traced_hyperparameters(config)["optimizer"])
        state, rates = optimizer.init({"w": jnp.zeros(())}), []
        update = jax.jit(optimizer.update)
        for _ in range(12):
            updates, state = update({"w": jnp.ones(())}, state, {"w": jnp.zeros(())})
            rates.append(-float(updates["w"]))
        np.testing.assert_allclose(rates, 0.05 * fractions(schedule, 12, **options), rtol=1e-14)


@pytest.mark.parametrize(
    ("optimizer", "said"),
    [
        ({"schedule": "step"}, "needed is when the rate drops"),
        ({"schedule": "step", "drop_steps": (1,), "drop_epochs": (1.0,)}, "given are drop_steps, drop_epochs"),
        ({"drop_steps": (3, 4)}, "optimizer.drop_steps=3, 4: without effect on this schedule; allowed with step"),
        ({"schedule": "step", "drop_epochs": (1.0,)}, "optimizer.drop_epochs=1: this task is generated without end"),
        ({"schedule": "step", "drop_steps": (0,)}, "optimizer.drop_steps=0: allowed are numbers from 1"),
        ({"schedule": "one-cycle"}, "did you mean 'one_cycle'"),
        ({"schedule": "exponential", "final": 0.0}, "never gets there"),
    ],
)
def test_refusals(optimizer, said):
    with pytest.raises(UsageError, match=said):
        load({"train": {"steps": 10}, "optimizer": optimizer})


def test_a_first_update_under_warm_up_changes_parameters():
    trainer = Trainer(small(optimizer={"warmup_steps": 3}))
    values = traced_hyperparameters(trainer.config)
    state = trainer.init(0, values)
    new, report, _ = jax.jit(trainer.step)(state, 0, values, {}, np.arange(8, dtype=np.int32))
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (state.params, new.params)), strict=True))
    assert float(report.metrics["learning_rate"]) == pytest.approx(0.01 / 3)


def test_a_line_has_the_rate_of_its_own_step():
    window = MetricWindow(2)
    window.add(1, {"loss": np.float64(1.0), "learning_rate": np.float64(0.1)}, last=False)
    assert window.add(2, {"loss": np.float64(3.0), "learning_rate": np.float64(0.3)}, last=False) == {
        "loss": 2.0, "learning_rate": 0.3,
    }  # fmt: skip


PLATEAU = {"schedule": "plateau", "plateau_patience": 2, "drop": 0.5, "final": 0.3, "lr": 0.1}


def test_what_a_plateau_is():
    config, member, factors = small(optimizer=PLATEAU), EarlyStopping(), []
    for loss in (1.0, 2.0, 3.0, 0.5, 0.6, 0.5, 0.4, 0.5, 0.6, 0.7, 0.8):
        member.update(config, {"loss": loss})
        factors.append(member.rate_factor(config))
    assert factors == [1, 1, 0.5, 0.5, 0.5, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3]
    assert (member.num_bad_evals, member.num_plateau_evals, member.num_drops) == (4, 0, 4)


def test_rates_fall_on_a_plateau_and_after_a_kill(tmp_path, undrawn):
    """By as much, from the same step on."""
    config = small(optimizer={**PLATEAU, "plateau_patience": 1, "lr": 3.0}, train={"eval_steps": 2, "log_steps": 1})
    train.run(config, tmp_path / "whole")
    rates = [line["learning_rate"] for line in timeless(tmp_path / "whole") if line["split"] == "train"]
    valid = [line["loss"] for line in timeless(tmp_path / "whole") if line["split"] == "valid"]
    bad = np.cumsum([loss >= min(valid[:i], default=np.inf) for i, loss in enumerate(valid)])
    wanted = [3.0 * max(0.5 ** bad[(step - 1) // 2], 0.3) for step in range(1, 13)]
    np.testing.assert_allclose(rates, wanted, rtol=1e-6)
    assert len(set(rates)) == 3
    with struck(pytest.MonkeyPatch(), SingleRun, "_save", 5):
        train.run(config, tmp_path / "killed")
    train.run(config, tmp_path / "killed")
    assert timeless(tmp_path / "killed") == timeless(tmp_path / "whole")
