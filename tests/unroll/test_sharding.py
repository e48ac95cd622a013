"""Batches that are split over devices: explicit meshes, and `jax.shard_map` with its check."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
DEVICES = 4


def script(cell):
    """Every check for one cell, in a process that has several devices."""
    return f"""
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
import gru_jax
from gru_jax import cells, flow
from gru_jax.errors import UsageError
from tests.programs import collectives

jax.config.update("jax_numpy_rank_promotion", "raise")
cell, mesh = cells.{cell}(), jax.make_mesh(({DEVICES},), ("data",), axis_types=(AxisType.Explicit,))
params = cell.init(jax.random.key(0), 3, 4, gru_jax.Scheme(bias="normal"))
xs, lengths = jax.random.normal(jax.random.key(1), (8, 5, 3)), jnp.arange(8, dtype=jnp.int32) % 6
resets = (jnp.arange(5) == 3)[None] & (jnp.arange(8) % 2 == 0)[:, None]
state = jax.tree.map(lambda part: part[0], cell.initial_carry((1,), 4, jnp.float32))
state = jax.tree.map(lambda part: part + 0.5, state)


def loss(params, xs, lengths, resets, state, method="auto"):
    # Blocks of two steps, of which devices with short sequences skip some.
    chunk = 2 if method == "auto" and cell.affine else None
    out = gru_jax.unroll(
        cell, params, xs, lengths=lengths, resets=resets, reset_carry=state, method=method, chunk=chunk)
    return (jnp.square(out.hs).sum((1, 2)) + jnp.sin(cell.hidden(out.carry)).sum(1)).sum()


def close(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(jax.device_get(a), jax.device_get(b), rtol=2e-5, atol=2e-5)


wanted = jax.value_and_grad(loss, (0, 1, 4))(params, xs, lengths, resets, state)
norms = flow.adjoint_norms(flow.gate_values(cell, params, flow.Trajectory(xs, lengths=lengths))[
    cell.input_gates[0]])
exponents = flow.lyapunov_spectrum(cell, params, flow.Trajectory(xs, lengths=lengths), k=2).exponents
carry0 = jax.tree.map(lambda part: jnp.broadcast_to(part, (8, 4)), state)
tangent = jax.jvp(lambda p: loss(p, xs, lengths, resets, state), (params,), (params,))[1]
carried = gru_jax.unroll(cell, params, xs, carry0).hs
with jax.set_mesh(mesh):
    split, everywhere = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
    whole = jax.device_put((params, state), everywhere)
    parts = jax.device_put((xs, lengths, resets), split)
    args = (whole[0], *parts, whole[1])
    for method in ("auto", "reference"):
        step = jax.value_and_grad(lambda *args: loss(*args, method=method), (0, 1, 4))
        found = jax.jit(step)(*args)
        close(found, wanted)
        assert set(collectives(jax.jit(step).lower(*args).compile())) == {{0}}, "no device waits within a loop"
        close(step(*args), wanted)
        assert found[1][1].sharding.spec[0] == "data", "the gradient of what is split is split alike"
        close(jax.jvp(lambda p: loss(p, *args[1:], method=method), args[:1], args[:1])[1], tangent)

        specs = (P(), P("data"), P("data"), P("data"), P())

        def of_device(*args):
            # A gradient within the map, of what all devices share: JAX sums it over them.
            return jax.grad(lambda *args: loss(*args, method=method), (0, 4))(*args)

        close(jax.jit(jax.shard_map(of_device, mesh=mesh, in_specs=specs, out_specs=(P(), P())))(*args),
              (wanted[1][0], wanted[1][2]))
        total = jax.shard_map(
            lambda *args: jax.lax.psum(loss(*args, method=method), "data"),
            mesh=mesh, in_specs=specs, out_specs=P())
        close(jax.jit(jax.value_and_grad(total, (0, 1, 4)))(*args), wanted)

        def varying_carry(params, xs, carry0):
            return gru_jax.unroll(cell, params, xs, carry0, method=method).hs

        mapped = jax.shard_map(varying_carry, mesh=mesh, in_specs=(P(), P("data"), P("data")), out_specs=P("data"))
        close(jax.jit(mapped)(whole[0], parts[0], jax.device_put(carry0, split)), carried)

    along = flow.Trajectory(parts[0], lengths=parts[1])
    gates = jax.jit(lambda params, along: flow.gate_values(cell, params, along))(whole[0], along)
    close(flow.adjoint_norms(gates[cell.input_gates[0]]), norms)

    def spectrum(params, xs, lengths):
        return flow.lyapunov_spectrum(cell, params, flow.Trajectory(xs, lengths=lengths), k=2).exponents

    mapped = jax.shard_map(spectrum, mesh=mesh, in_specs=(P(), P("data"), P("data")), out_specs=P("data"))
    close(jax.jit(mapped)(whole[0], *parts[:2]), exponents)
    try:
        jax.jit(lambda xs: gru_jax.unroll(cell, whole[0], xs).hs)(jax.device_put(jnp.ones((8, 4, 3)), NamedSharding(
            mesh, P(None, "data"))))
    except UsageError as error:
        assert "allowed is a split of its first dimension, the batch" in str(error), error
    else:
        raise AssertionError("time was split")

# A mesh whose axes are XLA's affair, batches that it can share evenly or not, and some that are not split at all.
mesh = jax.make_mesh((2, {DEVICES} // 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
for spec in (P("data"), P(("data", "model")), P()):
    rows, everywhere = NamedSharding(mesh, spec), NamedSharding(mesh, P())
    args = (jax.device_put(params, everywhere), *jax.device_put((xs, lengths, resets), rows),
            jax.device_put(state, everywhere))
    for method in ("auto", "reference"):
        step = jax.jit(jax.value_and_grad(lambda *args: loss(*args, method=method), (0, 1, 4)))
        close(step(*args), wanted)
        assert set(collectives(step.lower(*args).compile())) <= {{0}}, "no device waits within a loop"
        close(jax.jvp(lambda p: loss(p, *args[1:], method=method), args[:1], args[:1])[1], tangent)
odd = jax.device_put((xs[:6], lengths[:6], resets[:6]), NamedSharding(mesh, P("data")))
close(jax.jit(jax.grad(loss))(args[0], *odd, state), jax.grad(loss)(params, xs[:6], lengths[:6], resets[:6], state))
print("all held")
"""


@pytest.mark.parametrize(
    "cell", ["GRU", *(pytest.param(name, marks=pytest.mark.slow) for name in ("LSTM", "LayerNormGRU"))]
)
def test_split_batches(cell):
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(DEVICES)}
    env |= {"JAX_DEBUG_NANS": "0", "JAX_DEBUG_INFS": "0"}  # a sequence of no steps has no exponents
    env |= {"JAX_DISABLE_JIT": "0"}  # it looks into compiled programs
    env |= {"JAX_CHECK_TRACER_LEAKS": "0"}  # JAX itself leaks tracers of any `jit(grad(shard_map(...)))`
    done = subprocess.run([sys.executable, "-c", script(cell)], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("all held\n")
