"""Runs where JAX looks for NaN by itself: what is unknown is no alarm, and what is wrong is told as ever."""

from __future__ import annotations

import jax
import pytest

from experiments import ablate, flow, train
from gru_jax.runs.diagnosis import NonFiniteError
from tests.training.small import assert_same_losses, small

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(params=["jax_debug_nans", "jax_debug_infs"])
def alarm(request):
    jax.config.update(request.param, True)
    yield request.param
    jax.config.update(request.param, False)


def test_a_healthy_run_is_the_same_with_alarms(alarm, tmp_path):
    """The first step of a warm-up changes nothing, so that biases of zero have changed by 0/0 of themselves."""
    config = small(flow={"live": 1, "every": 2}, optimizer={"warmup_steps": 2})
    train.run(config, tmp_path / "with")
    assert getattr(jax.config, alarm), "the setting of who calls stays"
    jax.config.update(alarm, False)
    train.run(config, tmp_path / "without")
    assert_same_losses(tmp_path / "with", tmp_path / "without")


def test_a_run_that_diverges_says_where(alarm, tmp_path):
    with pytest.raises(NonFiniteError, match=r"layer_0|gradient|parameter|update"):
        train.run(small(optimizer={"lr": 1e38, "clip_norm": None}), tmp_path / "run")


@pytest.mark.slow
def test_a_network_and_a_study_are_looked_into(tmp_path):
    jax.config.update("jax_debug_nans", True)
    try:
        flow.run(small(), step="init")
        study = ablate.run({"base": small().to_dict(), "axes": {"seed": [0, 1]}}, tmp_path / "study")
    finally:
        jax.config.update("jax_debug_nans", False)
    assert study.table["status"].to_list() == ["done", "done"]
