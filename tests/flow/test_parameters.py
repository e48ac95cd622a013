"""The profile of the parameters' gradient against parameters of their own at every step."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax
from gru_jax import flow
from gru_jax.cells import GRU, LSTM, Elman, MinGRU
from tests.golden.peers import random_problem
from tests.unroll.toys import Toy

CELLS = [GRU(), GRU("before", output_gate=True), LSTM(), Elman(), MinGRU(), Toy()]


@pytest.mark.parametrize(("cell", "reverse"), [(cell, bool(i % 2)) for i, cell in enumerate(CELLS)], ids=str)
def test_profile_is_the_gradient_of_each_steps_parameters(cell, reverse, x64):
    time, lengths, resets = 6, (4, 6), np.zeros((2, 6), bool)
    resets[1, 2] = True
    params, xs, carry0, weight = jax.tree.map(jnp.asarray, random_problem(cell, 2, time, 2, 3, "float64", 0))
    masks = {"lengths": jnp.array(lengths), "resets": jnp.asarray(resets), "reverse": reverse}

    def loss(perturbation):
        out = gru_jax.unroll(cell, params, xs, carry0, **masks, perturbation=perturbation)
        return (jnp.sin(out.hs) * weight).sum()

    zeros = tuple(jnp.zeros((2, time, 3)) for _ in range(cell.carry_parts))
    adjoint = flow.to_carry(cell, flow.to_vector(jax.jit(jax.grad(loss))(zeros)))
    profile = jax.jit(lambda p: flow.parameter_profile(cell, p, flow.Trajectory(xs, carry0, **masks), adjoint))(params)

    step = jax.jit(cell.step)

    def of_steps(steps, b):
        """The loss of sequence b, with parameters of its own for every step."""
        carry, total = jax.tree.map(lambda a: a[b], carry0), 0.0
        for t in sorted(range(lengths[b]), reverse=reverse):
            carry = cell.initial_carry((), 3, jnp.float64) if resets[b, t] else carry
            carry = step(steps[t], carry, xs[b, t])
            total += (jnp.sin(cell.hidden(carry)) * weight[b, t]).sum()
        return total

    each = [jax.grad(of_steps)([params] * time, b) for b in range(2)]
    for gate in {*cell.input_gates, *cell.recurrent_gates}:

        def own(tree, gate=gate):
            return np.concatenate([np.ravel(tree[g][gate]) for g in sorted(tree) if gate in tree[g]])

        steps = np.array([[own(each[b][t]) for t in range(time)] for b in range(2)])
        np.testing.assert_allclose(profile.norms[gate], np.linalg.norm(steps, axis=-1), rtol=1e-10, atol=1e-12)
        total = steps.sum(axis=(0, 1))
        wanted = steps.sum(axis=0) @ total / np.linalg.norm(total)
        np.testing.assert_allclose(profile.shares[gate], wanted, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(profile.shares[gate].sum(), np.linalg.norm(total), rtol=1e-10)


@pytest.mark.parametrize("size", [1e-25, 1e25])
@pytest.mark.usefixtures("single_precision")
def test_adjoints_of_any_size(size):
    params, xs, carry, weight = jax.tree.map(jnp.asarray, random_problem(GRU(), 2, 4, 2, 3, "float32", 0))
    along = flow.Trajectory(xs, carry)
    decades = jnp.array([1e-8, 1e-4, 1e-2, 1.0])[None, :, None]
    plain = flow.parameter_profile(GRU(), params, along, weight * decades)
    scaled = flow.parameter_profile(GRU(), params, along, weight * decades * size)
    for gate in ("z", "r", "n"):
        np.testing.assert_allclose(scaled.norms[gate], plain.norms[gate] * size, rtol=1e-5)
        np.testing.assert_allclose(scaled.shares[gate], plain.shares[gate] * size, rtol=1e-5)
        assert np.all(plain.norms[gate] > 0)
