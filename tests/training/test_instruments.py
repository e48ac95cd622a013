"""The instruments on networks in training, and what a config does to gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import train
from gru_jax import flow
from gru_jax.config import FLOW_INSTRUMENTS, traced_hyperparameters
from gru_jax.errors import UsageError
from gru_jax.nn import LayerInputs
from gru_jax.runs.directory import RunDir
from gru_jax.tasks import split_key
from gru_jax.training.gradient import floss
from gru_jax.training.instruments import build_instruments, cell_passes, loss_adjoints
from gru_jax.training.network import build_model
from gru_jax.training.step import Trainer
from tests.training.small import small


def started(config):
    """The trainer of a config, its first state and its first batch."""
    trainer = Trainer(config)
    index = config.task.train_indices(config.train.batch_size, 0)(0, 1)[0]
    return trainer, trainer.init(0, traced_hyperparameters(config)), trainer.batch(0, {}, jnp.asarray(index))


def one_step(config):
    trainer, state, _ = started(config)
    index = config.task.train_indices(config.train.batch_size, 0)(0, 1)[0]
    return jax.jit(trainer.step)(state, 0, traced_hyperparameters(config), {}, jnp.asarray(index))


@pytest.mark.parametrize(
    ("model", "layers"),
    [({"cell": {"name": "lstm"}, "bidirectional": True}, ["layer_0.forward", "layer_0.backward"]),
     pytest.param({"cell": {"name": "gru"}, "hidden": (4, 3)}, ["layer_0", "layer_1"], marks=pytest.mark.slow)],
    ids=str,
)  # fmt: skip
def test_every_instrument_reads_every_layer(model, layers):
    config = small(model=model, flow={"instruments": FLOW_INSTRUMENTS, "exponents": 3})
    trainer, state, _ = started(config)
    measure = jax.jit(build_instruments(config, trainer.model, split_key("valid", 0)))
    readings = measure(state.params, {})
    cell = config.model.cell
    for layer in layers:
        units = 3 if layer.startswith("layer_1") else 4
        shapes = {
            "adjoint": (8,), "adjoint_quantiles": (3, 8), "state_norm": (8,), "state_variance": (8,),
            "lyapunov": (3,), "lyapunov_deviation": (3,), "spectral_radius": (8,), "time_scales": (units,),
            "singular_values": (8, units * cell.carry_parts),
        }  # fmt: skip
        for kind, shape in shapes.items():
            assert readings[f"{kind}/{layer}"].shape == shape
        for gate in cell.input_gates:
            assert readings[f"gradient_share/{layer}/{gate}"].shape == (8,)
            assert readings[f"saturation/{layer}/{gate}"].shape == (2,)
    assert {name for name in readings if name.startswith("noise/stack/layer_0")}
    for name, value in readings.items():
        assert np.isfinite(value).all(), name


def test_shares_add_up_to_the_gradient():
    config = small()
    trainer, state, batch = started(config)

    @jax.jit
    def shares_and_gradient(params, batch):
        _, of = next(cell_passes(config, trainer.model, params, batch))
        profile = flow.parameter_profile(of.cell, of.params, of.along, of.adjoint)
        return profile.shares, jax.grad(lambda p: 8.0 * trainer.loss(p, None, batch)[0])(params)

    shares, gradient = shares_and_gradient(state.params, batch)
    gradient = gradient["stack"]["layer_0"]["weights"]
    for gate, share in shares.items():
        norm = np.sqrt(sum(float(jnp.square(group[gate]).sum()) for group in gradient.values() if gate in group))
        np.testing.assert_allclose(share.sum(), norm, rtol=1e-5)


@pytest.mark.parametrize("cell", [pytest.param("gru", marks=pytest.mark.slow), "lstm"])
def test_live_readings_are_those_of_the_batch_and_change_nothing(cell):
    config, live = (small(model={"cell": {"name": cell}}, flow={"live": every}) for every in (0, 1))
    trainer, state, batch = started(live)
    new, (_, readings), _ = one_step(live)
    plain, (_, nothing), _ = one_step(config)
    assert nothing == {}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), new.params, plain.params)
    sent, _ = loss_adjoints(live, trainer.model, state.params, batch)
    wanted = flow.lag_profile(jnp.sqrt(sum(flow.adjoint_norms(part) ** 2 for part in sent[0]))).mean
    np.testing.assert_allclose(readings["adjoint/layer_0"], wanted, rtol=1e-5)
    kernel = ("stack", "layer_0", "weights", "U", "o" if cell == "lstm" else "r")
    old, moved = (_at(tree, kernel) for tree in (state.params, new.params))
    ratio = np.linalg.norm(moved - old) / np.linalg.norm(old)
    np.testing.assert_allclose(readings["update_ratio/" + "/".join(kernel)], ratio, rtol=1e-4)


def _at(tree, path):
    for name in path:
        tree = tree[name]
    return np.asarray(tree)


def test_recordings_at_the_start_the_middle_and_the_end(tmp_path, capsys, undrawn):
    train.run(small(flow={"live": 5}), tmp_path / "run")
    records = RunDir(tmp_path / "run").read_flow()
    assert records["step"].tolist() == [0, 6, 12]
    assert records["live/step"].tolist() == [0, 5, 10]
    assert records["live/adjoint/layer_0"].shape == (3, 8)
    assert "gradient flow: 3 recordings" in capsys.readouterr().out
    train.run(small(train={"target": 1e9}), tmp_path / "stopped")  # reached at once
    assert RunDir(tmp_path / "stopped").read_flow()["step"].tolist() == [0]
    train.run(small(flow={"every": 0}), tmp_path / "none")
    assert not RunDir(tmp_path / "none").flow.exists()


def test_truncation_and_detaching_reach_the_network():
    for gradient, gone in (({"truncate": 3}, range(6)), ({"detach": 1.0}, range(7))):
        config = small(gradient=gradient, flow={"live": 1})
        profile = one_step(config)[1].live["adjoint/layer_0"]  # by lag: the loss is of the last of 8 states
        lags = [7 - t for t in gone]
        np.testing.assert_array_equal(np.asarray(profile)[lags], 0)
        assert (np.delete(np.asarray(profile), lags) > 0).all()
    config = small(gradient={"truncate": 3})
    trainer, state, batch = started(config)
    sent, _ = loss_adjoints(config, trainer.model, state.params, batch)
    np.testing.assert_array_equal(sent[0][0][:, :6], 0)
    assert (np.abs(sent[0][0][:, 6:]).max(axis=-1) > 0).all()
    free = one_step(small(flow={"live": 1}))[1].live["adjoint/layer_0"]
    clipped = one_step(small(gradient={"adjoint_clip": 1e-4}, flow={"live": 1}))[1].live["adjoint/layer_0"]
    assert (np.asarray(free)[1:] > 1e-3).all()
    assert (np.asarray(clipped)[1:] < 1e-3).all()


def test_noise_has_the_variance_that_is_asked_for_and_hangs_on_the_seed():
    quiet, noisy = (small(optimizer={"name": "sgd", "lr": 1.0, "noise": v, "noise_decay": 0.0}) for v in (0.0, 0.25))
    a, b = (one_step(config)[0].params for config in (quiet, noisy))
    difference = np.concatenate([np.ravel(d) for d in jax.tree.leaves(jax.tree.map(jnp.subtract, a, b))])
    assert 0.35 < difference.std() < 0.65
    trainer, _, _ = started(noisy)
    keys = [trainer.init(seed, traced_hyperparameters(noisy)).opt_state for seed in (0, 1)]
    assert any(not np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, keys), strict=True))


OMEGA, FLOSS = {"omega": 0.5}, {"floss": 2, "floss_every": 1}


@pytest.mark.parametrize(
    ("model", "penalties"),
    [
        ({"hidden": (4, 3)}, [OMEGA | FLOSS]),
        pytest.param({"cell": {"name": "lstm"}, "bidirectional": True}, [OMEGA, FLOSS], marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_penalties_add_their_gradient(model, penalties):
    plain = one_step(small(model=model, optimizer={"name": "sgd", "lr": 1.0, "clip_norm": None}))[0].params
    for gradient in penalties:
        config = small(model=model, optimizer={"name": "sgd", "lr": 1.0, "clip_norm": None}, gradient=gradient)
        changed = one_step(config)[0].params
        moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), plain, changed)
        assert max(jax.tree.leaves(moved["stack"])) > 1e-4
        assert max(jax.tree.leaves(moved["head"])) < 1e-6
        assert np.isfinite(jax.tree.leaves(moved)).all()


def test_flossing_before_training_drives_exponents_to_zero():
    flossing = {"floss": 3, "floss_before": 60, "floss_lr": 1e-2, "floss_time": 40}
    plain, config = (
        small(task={"length": 40}, model={"hidden": (16,)}, gradient=gradient) for gradient in ({}, flossing)
    )
    before, after = (started(c)[1].params for c in (plain, config))
    xs = (jax.random.normal(jax.random.key(2), (8, 40, 2)),)
    model = build_model(config)
    penalty = jax.jit(lambda params: floss(config, model, params, (LayerInputs(xs[0]),)))
    assert float(penalty(after)) < 0.2 * float(penalty(before))


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"gradient": {"floss": 5, "floss_before": 1}}, "gradient.floss=5: allowed are up to 4"),
        ({"gradient": {"floss": 2}}, "gradient.floss=2: without effect"),
        ({"gradient": {"floss_every": 2}}, "gradient.floss=0: no exponents"),
        ({"gradient": {"truncate": 2}, "model": {"method": "fast"}}, "model.method='fast': it knows no interventions"),
        ({"flow": {"instruments": ("adjoin",)}}, "flow.instruments='adjoin': allowed are adjoint, .* mean 'adjoint'"),
        ({"flow": {"instruments": 3}}, "flow.instruments=3: names are needed here"),
    ],
)
def test_bad_settings_are_named(sections, message):
    with pytest.raises(UsageError, match=message):
        small(**sections)


@pytest.mark.slow
def test_instruments_of_half_precision_read_in_float32():
    names = tuple(name for name in FLOW_INSTRUMENTS)
    readings = {}
    for dtype in ("bfloat16", "float32"):
        config = small(dtype=dtype, flow={"instruments": names})
        model = build_model(config)
        measure = jax.jit(build_instruments(config, model, split_key("valid", 0)))
        readings[dtype] = measure(model.init(jax.random.key(0)), {})
    assert {value.dtype for value in readings["bfloat16"].values()} == {jnp.dtype("float32")}
    for kind in ("adjoint/layer_0", "state_norm/layer_0", "lyapunov/layer_0", "spectral_radius/layer_0"):
        np.testing.assert_allclose(readings["bfloat16"][kind], readings["float32"][kind], rtol=0.05, atol=1e-3)


@pytest.mark.parametrize("slopes", ["constant", "differentiated"])
def test_the_slopes_are_a_key(slopes):
    """The step adds the penalty's gradient, in W only where the slopes are differentiated."""
    plain = small(optimizer={"name": "sgd", "clip_norm": None})
    with_penalty = small(optimizer={"name": "sgd", "clip_norm": None}, gradient={"omega": 0.5, "omega_slopes": slopes})
    before, after = (one_step(config)[0].params for config in (plain, with_penalty))
    (place,) = build_model(plain).layers[0]
    moved = {
        g: float(jnp.abs(a - place.parameters(before)["W"][g]).max()) for g, a in place.parameters(after)["W"].items()
    }
    assert (max(moved.values()) > 1e-7) == (slopes == "differentiated")
    kernels = [place.parameters(params)["U"]["n"] for params in (before, after)]
    assert float(jnp.abs(kernels[0] - kernels[1]).max()) > 1e-7
