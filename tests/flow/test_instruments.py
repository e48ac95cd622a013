"""The instruments as a run calls them, on batches with padding, a start and resets."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax
from gru_jax import flow
from gru_jax.cells import GRU, LSTM
from gru_jax.flow.instruments import INSTRUMENTS, Options, Pass
from tests.broken import broken
from tests.golden.peers import random_problem

TIME = 6
OPTIONS = Options(sequences=3, exponents=2, matrices=TIME)
LENGTHS = (0, 2, TIME)


def passes(cell, reverse):
    """A padded batch with NaN in the padding, and each sequence of it alone."""
    params, xs, carry, weight = jax.tree.map(jnp.asarray, random_problem(cell, 3, TIME, 2, 3, "float64", 0))
    lengths = jnp.array(LENGTHS)
    padding = jnp.arange(TIME)[None] >= lengths[:, None]
    adjoint = jnp.where(padding[..., None], 0.0, weight)
    adjoint = flow.to_carry(cell, jnp.concatenate([adjoint] * cell.carry_parts, axis=-1))
    xs = broken(xs, padding)
    batch = Pass(cell, params, flow.Trajectory(xs, carry, lengths, reverse=reverse), adjoint)
    alone = []
    for b, length in enumerate(LENGTHS):
        own, sent = jax.tree.map(lambda a, b=b: a[b : b + 1], (carry, adjoint))
        sent = jax.tree.map(lambda a, length=length: a[:, :length], sent)
        alone.append(Pass(cell, params, flow.Trajectory(xs[b : b + 1, :length], own, reverse=reverse), sent))
    return batch, alone


@pytest.mark.parametrize("cell", [GRU(), LSTM()], ids=str)
@pytest.mark.parametrize("reverse", [False, True])
def test_padding_does_not_count(cell, reverse, x64):
    batch, alone = passes(cell, reverse)

    @jax.jit
    def measure(params):
        spectra = [flow.lyapunov_spectrum(cell, params, of.along, k=2).exponents[0] for of in alone[1:]]
        matrices = [flow.dense_jacobians(cell, params, of.along)[0] for of in alone]
        padded = batch._replace(params=params)
        return INSTRUMENTS["lyapunov"](padded, OPTIONS), INSTRUMENTS["jacobian"](padded, OPTIONS), spectra, matrices

    measured, readings, own, matrices = measure(batch.params)
    np.testing.assert_allclose(measured["lyapunov",], np.mean(own, axis=0), rtol=1e-8)
    radii = [np.abs(np.linalg.eigvals(m)).max(axis=-1) if len(m) else np.zeros(0) for m in matrices]
    wanted = [np.mean([radius[t] for radius in radii if t < len(radius)]) for t in range(TIME)]
    np.testing.assert_allclose(readings["spectral_radius",], wanted, rtol=1e-4)
    singular = [np.linalg.svd(m, compute_uv=False) for m in matrices]
    wanted = [np.mean([s[t] for s in singular if t < len(s)], axis=0) for t in range(TIME)]
    np.testing.assert_allclose(readings["singular_values",], wanted, rtol=1e-10)


def test_states_are_those_of_the_trajectory(x64):
    params, xs, carry, weight = jax.tree.map(jnp.asarray, random_problem(GRU(), 2, TIME, 2, 3, "float64", 0))
    resets = jnp.zeros((2, TIME), bool).at[0, 3].set(True)
    of = Pass(GRU(), params, flow.Trajectory(xs, carry + 5.0, resets=resets), weight)
    hs = gru_jax.unroll(GRU(), params, xs, carry + 5.0, resets=resets).hs
    readings = INSTRUMENTS["states"](of, OPTIONS)
    np.testing.assert_allclose(readings["state_norm",], np.linalg.norm(hs, axis=-1).mean(axis=0), rtol=1e-10)


def test_states_know_of_a_mask_and_of_what_resets_set(x64):
    params, xs, carry, weight = jax.tree.map(jnp.asarray, random_problem(GRU(), 2, TIME, 2, 3, "float64", 0))
    mask, resets = jnp.ones((2, TIME), bool).at[:, 2].set(False), jnp.zeros((2, TIME), bool).at[0, 3].set(True)
    along = flow.Trajectory(broken(xs, ~mask), carry, mask=mask, resets=resets, reset_carry=jnp.full((2, 3), 2.0))
    readings = INSTRUMENTS["states"](Pass(GRU(), params, along, weight), OPTIONS)
    known = {"mask": mask, "resets": resets, "reset_carry": along.reset_carry}
    norms = np.linalg.norm(gru_jax.unroll(GRU(), params, xs, carry, **known).hs, axis=-1).mean(axis=0)
    np.testing.assert_allclose(np.delete(readings["state_norm",], 2), np.delete(norms, 2), rtol=1e-10)


def test_a_time_step_that_no_sequence_reaches_is_unknown(x64, without_alarms):
    batch, _ = passes(GRU(), False)
    short = batch._replace(along=batch.along.__class__(batch.along.xs, batch.along.carry0, jnp.array([0, 2, 3])))
    radius = INSTRUMENTS["jacobian"](short, OPTIONS)["spectral_radius",]
    assert np.isnan(radius).tolist() == [False] * 3 + [True] * 3
