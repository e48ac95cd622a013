"""Whose gradient an adjoint profile follows, and how far it says that it reaches."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax import flow
from gru_jax.config import load, traced_hyperparameters
from gru_jax.errors import UsageError
from gru_jax.flow.sources import choose_steps
from gru_jax.nn import SequenceModel
from gru_jax.tasks import split_key
from gru_jax.training.instruments import build_instruments, cell_passes, loss_adjoints
from gru_jax.training.network import draw_batch, run_network, zero_perturbations
from gru_jax.training.sources import source_adjoints
from gru_jax.training.step import Trainer
from tests.training.small import small

DECAY, TIME = 0.9, 150
HORIZON = int(np.ceil(np.log(0.01) / np.log(DECAY)))  # of a norm that is DECAY^lag
REPEAT = {"name": "delayed_memory", "length": TIME, "delay": 3, "valid_size": 6}  # a loss at every step
ORDER = {"name": "temporal_order", "length": TIME, "valid_size": 6}  # sequences of unequal length, one loss each
LINEAR = {"cell": {"name": "elman", "activation": "identity"}, "init": {"recurrent_scale": DECAY}}  # times orthogonal


def linear(source, task=REPEAT, live=0, **model):
    """A recurrence that scales every adjoint by `DECAY` a step."""
    return small(task=task, model={**LINEAR, **model}, flow={"source": source, "live": live, "batch_size": 6})


def measured(config, *instruments):
    """What instruments say of the network as it is initialised."""
    names = instruments or ("adjoint",)
    config = load({**config.to_dict(), "flow": {**config.to_dict()["flow"], "instruments": names}})
    trainer = Trainer(config)
    params = trainer.init(0, traced_hyperparameters(config)).params
    return jax.jit(build_instruments(config, trainer.model, split_key("valid", 0)))(params, {})


def live(config):
    """What a training step says of its own batch."""
    trainer, hyperparameters = Trainer(config), traced_hyperparameters(config)
    state, index = trainer.init(0, hyperparameters), jnp.arange(config.train.batch_size)
    return jax.jit(trainer.step)(state, 0, hyperparameters, {}, index)[1].live


def horizon_of(profile, fraction=0.01):
    return int(flow.horizon(profile, fraction))


@pytest.mark.parametrize("source", ["last", "sampled"])
def test_the_horizon_of_a_linear_recurrence_with_a_loss_at_every_step(source):
    profile = measured(linear(source))["adjoint/layer_0"]
    assert horizon_of(profile) == HORIZON  # 44: a step more or less would be more than 2 %
    np.testing.assert_allclose(profile[:HORIZON] / profile[0], DECAY ** np.arange(HORIZON), rtol=1e-3)


def test_training_steps_say_the_same_of_their_own_batch():
    assert horizon_of(live(linear("sampled", live=1))["adjoint/layer_0"]) == HORIZON


def test_the_whole_loss_says_nothing_of_it():
    assert horizon_of(measured(linear("total"))["adjoint/layer_0"]) > 2 * HORIZON


@pytest.mark.parametrize("source", ["last", pytest.param("sampled", marks=pytest.mark.slow)])
def test_every_direction_has_steps_of_its_own(source):
    """Against time a pass ends at the first step: from the last one it would have a lag of 0 alone."""
    readings = measured(linear(source, bidirectional=True))
    for direction in ("forward", "backward"):
        profile = readings[f"adjoint/layer_0.{direction}"]
        assert horizon_of(profile) == HORIZON
        # The delayed task reads no state of its first steps, at which a pass against time would end.
        assert TIME - 3 <= np.isfinite(profile).sum() <= TIME


@pytest.mark.parametrize("readout", ["mean", "max", "attention"])
def test_steps_are_those_of_sequences_and_none_of_what_fills_them_up(readout):
    config = linear("sampled", ORDER, readout=readout)
    trainer, values = Trainer(config), traced_hyperparameters(config)
    lengths = jnp.array([20, 30, 150, 40, 10, 60], jnp.int32)
    batch = draw_batch(config, {}, split_key("valid", 0), jnp.arange(6))._replace(lengths=lengths)
    params = trainer.init(0, values).params
    sent = source_adjoints(config, trainer.model, params, batch, values["gradient"], jax.random.key(0))["layer_0"]
    steps = jnp.argmax(sent.chosen, axis=1)
    assert (sent.chosen.sum(axis=1) == 1).all()
    assert (steps < lengths).all()
    if readout == "mean":  # evenly spaced over each sequence
        np.testing.assert_array_equal(steps, -(-lengths * jnp.arange(1, 7) // 6) - 1)
    assert all((jnp.linalg.norm(sent.adjoint[i, step]) > 0).item() for i, step in enumerate(steps))


def test_a_mean_over_states_is_a_loss_at_every_step():
    config = linear("auto", ORDER, readout="mean")
    assert config.flow.source == "sampled"
    assert horizon_of(measured(config)["adjoint/layer_0"]) == HORIZON


@pytest.mark.parametrize(
    ("source", "task", "readout", "resolved"),
    [
        ("auto", REPEAT, "auto", "sampled"),
        ("total", REPEAT, "auto", "total"),
        ("auto", ORDER, "auto", "total"),
        ("last", ORDER, "last", "total"),
        ("last", ORDER, "mean", "last"),
    ],
)
def test_the_source_is_that_of_the_readout(source, task, readout, resolved):
    config = linear(source, task, readout=readout)
    assert config.flow.source == resolved
    assert load(config.to_dict()) == config


def test_a_loss_of_the_last_state_has_nothing_to_sample():
    with pytest.raises(UsageError, match=r"flow.source='sampled': the loss reads the last state alone; allowed"):
        linear("sampled", ORDER)


def test_the_adjoint_is_that_of_one_steps_loss():
    """Of two layers; each example's loss is the mean over its steps, of which one is kept."""
    config = small(task={**REPEAT, "length": 9}, model={"hidden": (4, 3)}, flow={"source": "sampled"})
    trainer = Trainer(config)
    params = trainer.init(0, traced_hyperparameters(config)).params
    batch = config.task.batch({}, split_key("valid", 0), jnp.arange(4))
    passes = dict(cell_passes(config, trainer.model, params, batch))
    chosen = np.asarray(passes["layer_0"].source.chosen)
    assert chosen.argmax(axis=1).tolist() == [4, 5, 7, 8]  # of the steps 3 to 8, which the loss reads
    assert (chosen.sum(axis=1) == 1).all()

    def of_one_step(perturbations):
        trace, _ = run_network(config, trainer.model, params, batch, perturbations=perturbations)
        logits, signs = trace.outputs[:, 3:, 0], jnp.where(batch.targets, 1.0, -1.0)
        return (jax.nn.softplus(-signs * logits) * chosen[:, 3:].astype(np.float32)).sum() / 6

    wanted = jax.jit(jax.grad(of_one_step))(zero_perturbations(config, trainer.model, batch))
    for (of_layer,), name in zip(wanted, ("layer_0", "layer_1"), strict=True):
        np.testing.assert_allclose(passes[name].source.adjoint, of_layer, rtol=1e-5, atol=1e-8)
    total, _ = loss_adjoints(config, trainer.model, params, batch)
    np.testing.assert_allclose(passes["layer_0"].adjoint, total[0][0], rtol=1e-6)


class ReadsByItself(SequenceModel):
    """A family that does not say what it reads."""

    def trace(self, xs, *, on_read=None, **kwargs):
        return super().trace(xs, **kwargs)


def test_a_family_that_does_not_tell_what_it_reads_is_named():
    with pytest.raises(UsageError, match=r"does not hand on_read on .* allowed is total"):
        measured(linear("sampled", family=ReadsByItself))


LONG_MEMORY = {
    "cell": {"name": "lstm"}, "hidden": (6,),
    "init": {"gate_bias": "constant", "gate_value": 4.0, "recurrent_scale": 1e-4, "input_scale": 0.003,
             "gates": {"o": {"bias": "constant", "bias_scale": 5.0}}},
}  # fmt: skip


def test_horizon_and_exponent_of_an_lstm_agree():
    """Its gradient travels in the cell state: of h alone hardly any is left after a step."""
    config = small(task={"length": 400}, model=LONG_MEMORY)
    readings = measured(config, "adjoint", "lyapunov")
    profile, rate = readings["adjoint/layer_0"], -float(readings["lyapunov/layer_0"][0])
    assert 0.01 < rate < 0.03
    assert horizon_of(profile, np.exp(-1)) == pytest.approx(1 / rate, rel=0.04)
    assert horizon_of(profile) == pytest.approx(np.log(100) / rate, rel=0.02)
    assert float(flow.log_slope(profile)) == pytest.approx(-rate, rel=0.02)
    told = live(small(task={"length": 400}, model=LONG_MEMORY, flow={"live": 1}))["adjoint/layer_0"]
    assert horizon_of(told) == pytest.approx(np.log(100) / rate, rel=0.02)


def test_sequences_that_end_do_not_bend_the_mean():
    """Two of them halve with each step; the larger one has its loss near the beginning."""
    norms, chosen = np.zeros((2, 6)), np.zeros((2, 6), bool)
    norms[0, :2], norms[1] = [50.0, 100.0], 0.5 ** np.arange(6)[::-1]
    chosen[0, 1] = chosen[1, 5] = True
    profile = flow.source_profile(jnp.asarray(norms, jnp.float32), jnp.asarray(chosen))
    np.testing.assert_allclose(profile.mean, 50.5 * 0.5 ** np.arange(6), rtol=1e-5)
    assert np.isfinite(profile.quantiles).all()
    backwards = flow.source_profile(
        jnp.asarray(norms[:, ::-1].copy(), jnp.float32), jnp.asarray(chosen[:, ::-1].copy()), reverse=True
    )
    np.testing.assert_allclose(backwards.mean, profile.mean, rtol=1e-6)


def test_profiles_of_sources_that_are_not_finite_or_zero():
    last = jnp.tile(jnp.arange(4) == 3, (2, 1))
    burst = jnp.array([[np.nan, 1.0, 2.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    np.testing.assert_allclose(flow.source_profile(burst, last).mean, [1, 1.5, 1, np.inf], rtol=1e-6)
    late = jnp.array([[1.0, 2.0, 4.0, 0.0]] * 2)  # what the head does not read reaches it a step later
    np.testing.assert_allclose(flow.source_profile(late, last).mean, [0, 4, 2, 1], rtol=1e-6)
    exploding = jnp.array([[3, np.inf, np.inf, 1, 0, 0, 0], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1]], jnp.float32)
    chosen = jnp.zeros((2, 7), bool).at[0, 3].set(True).at[1, 6].set(True)
    profile = flow.source_profile(exploding, chosen).mean
    assert np.isfinite(np.asarray(profile)[[0, 3, 4, 5, 6]]).all()
    assert np.isinf(np.asarray(profile)[[1, 2]]).all()
    none = flow.source_profile(late, jnp.zeros((2, 4), bool)).mean
    assert np.isnan(none).all()
    padded = flow.source_profile(late, jnp.tile(jnp.arange(4) == 0, (2, 1)), jnp.array([2, 1]), reverse=True)
    np.testing.assert_allclose(padded.mean, [1, 2, np.nan, np.nan], rtol=1e-6)


def test_steps_are_chosen_among_those_that_the_loss_reads():
    reads = jnp.array([[False] * 4, [True, False, True, True], [True, True, True, False]])
    assert choose_steps(reads, "last").astype(int).tolist() == [[0] * 4, [0, 0, 0, 1], [0, 0, 1, 0]]
    assert choose_steps(reads, "sampled").astype(int).tolist() == [[0] * 4, [0, 0, 1, 0], [0, 0, 1, 0]]
    assert choose_steps(reads, "last", reverse=True).astype(int).tolist() == [[0] * 4, [1, 0, 0, 0], [1, 0, 0, 0]]
