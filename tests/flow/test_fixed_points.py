"""Fixed and slow points: where they are known in closed form, by bisection, and against the Jacobians of flow."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

import gru_jax
from gru_jax import flow
from gru_jax.cells import CELLS, GRU, LSTM, Elman
from gru_jax.errors import UsageError
from gru_jax.tasks import FlipFlop, split_key
from tests.golden.peers import random_problem
from tests.unroll.toys import Normalized

GOLDEN = Path(__file__).parent.parent / "golden"


def bistable(units, gain=2.0, bias=0.0, dtype=jnp.float64):
    """Elman cells of units that do not see each other: h' = tanh(gain h + bias)."""
    params = Elman().init(jax.random.key(0), 1, units, dtype=dtype)
    params["U"]["n"] = gain * jnp.eye(units)
    params["b"]["n"] = jnp.full(units, bias)
    return params


def grid(units, count, reach=1.0):
    axes = np.meshgrid(*[np.linspace(-reach, reach, count)] * units)
    return jnp.asarray(np.stack([axis.ravel() for axis in axes], axis=1))


def spectra_differ(one, other):
    """The greatest distance between two sets of eigenvalues, each from its nearest."""
    apart = np.abs(one[:, :, None] - other[:, None, :])
    return max(apart.min(axis=1).max(), apart.min(axis=2).max())


@pytest.mark.parametrize("cell", [Elman(), GRU(), GRU("before", "write")], ids=str)
def test_scalar_cells_against_bisection(cell, x64):
    params, _, _, _ = jax.tree.map(jnp.asarray, random_problem(cell, 1, 1, 1, 1, "float64", 3))
    params = {group: {**gates, "n": 0.1 * gates["n"]} for group, gates in params.items()}
    params["U"]["n"] = jnp.full((1, 1), 6.0)
    x, states = jnp.full(1, -0.1), np.linspace(-1.1, 1.1, 2001)

    def speed(h):
        return float(cell.step(params, jnp.full(1, h), x)[0]) - h

    after = np.asarray(cell.step(params, jnp.asarray(states)[:, None], jnp.full((2001, 1), -0.1)))[:, 0]
    crossings = np.flatnonzero(np.diff(np.sign(after - states)))
    roots = [brentq(speed, states[i], states[i + 1], xtol=1e-14) for i in crossings]
    points = flow.find_fixed_points(cell, params, x, grid(1, 40))
    assert len(roots) == 3
    assert points.is_fixed.all()
    np.testing.assert_allclose(np.sort(points.states[:, 0]), roots, atol=1e-11)
    slopes = [(speed(h + 1e-6) - speed(h - 1e-6)) / 2e-6 + 1.0 for h in points.states[:, 0]]
    np.testing.assert_allclose(points.eigenvalues[:, 0].real, slopes, atol=1e-8)
    assert sorted(points.kinds) == ["saddle", "stable", "stable"]


def test_a_gru_without_biases_rests_at_zero(x64):
    """There all gates are 1/2, and J = 1/2 + U_n^T / 4."""
    params = GRU().init(jax.random.key(0), 2, 12, dtype=jnp.float64)
    starts = flow.sample_states(GRU(), params, jax.random.normal(jax.random.key(1), (8, 30, 2)), 40, noise=0.5)
    points = flow.find_fixed_points(GRU(), params, jnp.zeros(2), starts)
    assert points.kinds == ("stable",)
    assert points.counts.tolist() == [40]
    np.testing.assert_allclose(points.states, 0.0, atol=1e-11)
    wanted = 0.5 + np.linalg.eigvals(np.asarray(params["U"]["n"])) / 4
    assert spectra_differ(points.eigenvalues, wanted[None]) < 1e-10
    np.testing.assert_allclose(np.exp(-1.0 / points.time_constants), np.abs(points.eigenvalues), rtol=1e-12)


@pytest.mark.parametrize("name", CELLS)
def test_every_cell_stands_still_there_and_spectra_are_those_of_flow(name, x64):
    cell = CELLS[name]()
    params, xs, carry, _ = jax.tree.map(jnp.asarray, random_problem(cell, 4, 20, 2, 5, "float64", 1))
    x = xs[0, 0]
    starts = flow.sample_states(cell, params, flow.Trajectory(xs, carry), 12)
    points = flow.find_fixed_points(cell, params, x, starts)
    assert points.is_fixed.any()
    assert points.counts.sum() == 12
    fixed = flow.FixedPoints(*(a[points.is_fixed] for a in points))
    np.testing.assert_array_less(fixed.speeds, 1e-12)

    @jax.jit
    def step(states):
        states = jnp.asarray(states)  # with jax_disable_jit they come as NumPy has them
        return flow.to_vector(cell.step(params, flow.to_carry(cell, states), jnp.broadcast_to(x, (len(states), 2))))

    np.testing.assert_allclose(step(fixed.states), fixed.states, atol=1e-12)
    carries = flow.to_carry(cell, jnp.asarray(fixed.states))
    along = flow.Trajectory(jnp.broadcast_to(x, (len(fixed.states), 1, 2)), carries)
    dense = flow.jacobians(cell, params, along).dense() if cell.affine else flow.dense_jacobians(cell, params, along)
    assert spectra_differ(fixed.eigenvalues, np.linalg.eigvals(dense[:, 0])) < 1e-6
    assert np.all(np.diff(np.abs(fixed.eigenvalues), axis=1) <= 1e-12)
    for state, jacobian in zip(fixed.states, fixed.jacobians, strict=True):
        nudges = 1e-6 * np.eye(len(state))
        differences = (step(state + nudges) - step(state - nudges)) / 2e-6
        np.testing.assert_allclose(jacobian, np.asarray(differences).T, atol=1e-7)


def test_exponents_at_a_stable_point_are_logarithms_of_its_eigenvalues(x64):
    params, xs, _, _ = jax.tree.map(jnp.asarray, random_problem(GRU(), 4, 20, 2, 4, "float64", 0))
    points = flow.find_fixed_points(GRU(), params, xs[0, 0], flow.sample_states(GRU(), params, xs, 12))
    stable = points.of_kind("stable")
    along = flow.Trajectory(jnp.broadcast_to(xs[0, 0], (1, 2000, 2)), jnp.asarray(stable.states[:1]))
    exponents = jax.jit(lambda p: flow.lyapunov_spectrum(GRU(), p, along, warmup=500).exponents[0])(params)
    np.testing.assert_allclose(exponents, np.log(np.abs(stable.eigenvalues[0])), atol=1e-3)


@pytest.mark.parametrize("units", [1, 3])
def test_memories_of_bits_and_the_saddles_between_them(units, x64):
    """Each unit has three places to be: 3^n points, 2^n of them stable."""
    params, place = bistable(units), brentq(lambda h: np.tanh(2 * h) - h, 0.1, 1.0, xtol=1e-15)
    points = flow.find_fixed_points(Elman(), params, jnp.zeros(1), grid(units, 6))
    wanted = np.asarray(grid(units, 3, place))
    assert len(points.states) == 3**units
    assert max(np.abs(points.states - state).max(axis=1).min() for state in wanted) < 1e-10
    zeros = (np.abs(points.states) < 0.1).sum(axis=1)
    np.testing.assert_array_equal(points.unstable, zeros)
    assert points.kinds.count("stable") == 2**units
    ends = flow.saddle_ends(Elman(), params, jnp.zeros(1), points)
    assert sorted(ends) == np.flatnonzero(zeros == 1).tolist()
    for saddle, (one, other) in ends.items():
        np.testing.assert_allclose(points.states[[one, other]].mean(axis=0), points.states[saddle], atol=1e-6)
        assert one != other


def test_a_line_of_fixed_points_and_a_line_of_slow_ones(x64):
    """h' = U h without bias: eigenvalue 1 is a line that stands still, one a little below a line of slow points."""
    cell = Elman("identity")
    params = cell.init(jax.random.key(0), 1, 3, dtype=jnp.float64)
    turn = jnp.linalg.qr(jax.random.normal(jax.random.key(1), (3, 3)))[0]
    starts = jax.random.normal(jax.random.key(2), (30, 3))

    def found(eigenvalue, **kwargs):
        kernel = turn @ jnp.diag(jnp.array([eigenvalue, 0.5, -0.3])) @ turn.T
        return flow.find_fixed_points(cell, {**params, "U": {"n": kernel}}, jnp.zeros(1), starts, **kwargs)

    line = found(1.0)
    assert set(line.kinds) == {"stable"} or line.unstable.max() == 1  # of an eigenvalue of 1 rounding decides
    assert len(line.states) > 20
    np.testing.assert_allclose(line.states @ turn[:, 1:], 0.0, atol=1e-9)
    assert line.time_constants[:, 0].min() > 1e9
    almost = found(0.9995)
    slow = almost.of_kind("slow")
    assert almost.is_fixed.sum() == 1
    np.testing.assert_allclose(almost.states[0], 0.0, atol=1e-8)
    assert len(slow.states) >= 5
    np.testing.assert_allclose(slow.states @ turn[:, 1:], 0.0, atol=0.01)
    np.testing.assert_allclose(slow.time_constants[:, 0], -1 / np.log(0.9995), rtol=1e-6)
    assert (
        np.linalg.norm(slow.states[:, None] - slow.states[None], axis=2)[~np.eye(len(slow.states), dtype=bool)].min()
        > 0.2
    )
    assert found(0.9995, slow=0.0).kinds == ("stable",)
    assert len(found(0.9995, farthest=0.01).states) == 0


def test_where_two_fixed_points_have_just_met_there_is_a_slow_one(x64):
    """h' = tanh(2 h + b): the saddle and one stable point meet at tanh = -1/sqrt 2, for b a little above."""
    touching = -(0.5**0.5)
    bias = np.arctanh(touching) - 2 * touching
    for shift, kinds in ((-1e-3, ["saddle", "stable", "stable"]), (1e-3, ["slow", "stable"])):
        points = flow.find_fixed_points(Elman(), bistable(1, bias=bias + shift), jnp.zeros(1), grid(1, 30))
        assert sorted(points.kinds) == kinds
    ghost = points.of_kind("slow")
    assert abs(ghost.states[0, 0] - touching) < 0.05
    assert 1e-4 < ghost.speeds[0] < 1e-3


@pytest.mark.usefixtures("single_precision")
def test_single_precision_finds_the_same():
    params = bistable(2, dtype=jnp.float32)
    points = flow.find_fixed_points(Elman(), params, jnp.zeros(1), grid(2, 6).astype(jnp.float32))
    assert points.states.dtype == np.float32
    assert len(points.states) == 9
    assert points.is_fixed.all()


def test_states_are_drawn_where_steps_count():
    cell = LSTM()
    params, xs, carry, _ = jax.tree.map(jnp.asarray, random_problem(cell, 3, 9, 2, 4, "float32", 0))
    along = flow.Trajectory(xs, carry, jnp.array([9, 1, 0]))
    drawn = np.asarray(flow.sample_states(cell, params, along, 60))
    out = gru_jax.unroll(cell, params, xs[:1], jax.tree.map(lambda a: a[:1], carry))
    visited = [np.concatenate([np.asarray(part)[b] for part in carry]) for b in (0, 1)]
    near = np.abs(drawn[:, None] - np.stack(visited)[None]).max(axis=2).min(axis=1) < 1e-5
    on_way = np.abs(drawn[:, None, :4] - np.asarray(out.hs)[0][None]).max(axis=2).min(axis=1) < 1e-5
    assert (near | on_way).all()
    assert near.any()
    assert on_way.any()
    noisy = np.asarray(flow.sample_states(cell, params, along, 60, noise=0.1))
    assert 0.0 < np.abs(noisy - drawn).max() < 1.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"starts": jnp.zeros((2, 3))}, r"starts has shape \(2, 3\): allowed are state vectors, \[N, 4\]"),
        ({"x": jnp.zeros((1, 2))}, r"x has shape \(1, 2\): allowed is one input, \[D\]"),
        ({"x": jnp.zeros(3)}, "x has 3 features: params were made for D=2"),
        ({"iterations": 0}, "iterations=0: allowed are whole numbers from 1"),
    ],
)
def test_bad_arguments_are_named(changes, message, unchecked_types):
    arguments = {"x": jnp.zeros(2), "starts": jnp.zeros((2, 4)), **changes}
    with pytest.raises(UsageError, match=message):
        flow.find_fixed_points(LSTM(), LSTM().init(jax.random.key(0), 2, 2), **arguments)


def test_a_cell_of_ones_own(x64):
    params, xs, _, _ = jax.tree.map(jnp.asarray, random_problem(Normalized(), 3, 9, 2, 4, "float64", 0))
    points = flow.find_fixed_points(Normalized(), params, xs[0, 0], flow.sample_states(Normalized(), params, xs, 6))
    fixed = points.states[points.is_fixed]
    assert len(fixed)
    np.testing.assert_allclose(np.linalg.norm(fixed, axis=1), 1.0, atol=1e-10)


def test_a_trained_flip_flop_is_a_cube(x64):
    """Of `configs/flip_flop.py`: 2^3 stable corners, saddles on edges, faces and in the middle; spectra as of flow."""
    with np.load(GOLDEN / "flip_flop_3bit.npz") as arrays:
        stored = {name: jnp.asarray(array.astype(np.float64)) for name, array in arrays.items()}
    cell, params = GRU(), {group: {} for group in GRU().groups}
    for name, array in stored.items():
        group, gate = name.split("/")
        if group != "head":
            params[group][gate] = array
    xs = jax.jit(lambda i: FlipFlop(3, 100).batch({}, split_key("valid", 0), i).xs)(jnp.arange(16))
    starts = [
        flow.sample_states(cell, params, xs.astype(jnp.float64), 256, noise=noise, key=jax.random.key(seed))
        for seed, noise in enumerate((0.0, 1.0))
    ]
    points = flow.find_fixed_points(cell, params, jnp.zeros(3), jnp.concatenate(starts), farthest=6.0)
    assert points.is_fixed.all()
    assert points.kinds.count("stable") == 8
    assert np.bincount(points.unstable).tolist() == [8, 12, 6, 1]  # corners, edges, faces, the middle
    bits = points.states @ np.asarray(stored["head/kernel"]) + np.asarray(stored["head/bias"])
    corners = bits[points.unstable == 0]
    np.testing.assert_allclose(np.abs(corners), 1.0, atol=0.05)
    assert len({tuple(np.sign(corner)) for corner in corners}) == 8
    ends = flow.saddle_ends(cell, params, jnp.zeros(3), points)
    assert len(ends) == 12
    for one, other in ends.values():
        assert (np.sign(bits[one]) != np.sign(bits[other])).sum() == 1  # neighbours: one bit apart
    along = flow.Trajectory(jnp.zeros((len(points.states), 1, 3)), jnp.asarray(points.states))
    dense = jax.jit(lambda p: flow.jacobians(cell, p, along).dense())(params)
    assert spectra_differ(points.eigenvalues, np.linalg.eigvals(dense[:, 0])) < 1e-6


def test_noise_is_of_the_states_that_count_alone():
    """Padding, in which one state stands for all others, made it less."""
    cell = GRU()
    params, xs = jax.tree.map(jnp.asarray, random_problem(cell, 64, 10, 2, 3, "float32", 0)[:2])
    padded = jnp.concatenate([xs, jnp.zeros((64, 90, xs.shape[2]), xs.dtype)], axis=1)
    along = flow.Trajectory(padded, lengths=jnp.full(64, 10))
    bare, noisy = (
        [flow.sample_states(cell, params, where, 4000, noise=noise, key=jax.random.key(0)) for where in (xs, along)]
        for noise in (0.0, 0.1)
    )
    added = [(one - two).std(axis=0) for one, two in zip(noisy, bare, strict=True)]
    np.testing.assert_allclose(added[0], added[1], rtol=0.1)
