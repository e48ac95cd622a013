"""Processes in which exported networks run without this project."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np

BLOCKED = "import sys\nfor name in {names!r}: sys.modules[name] = None\n"

JAX_ALONE = (
    BLOCKED.format(names=("gru_jax", "flax", "optax", "orbax", "ml_collections"))
    + """
import functools, json
import jax, numpy as np
from jax import export

def results(path, xs, lengths):
    with np.load(path) as opened:
        archive = dict(opened)
    description = json.loads(archive["description.json"])
    weights = {name[8:]: member for name, member in archive.items() if name.startswith("weights/")}
    dtype, shapes = description["carry_dtype"], description["carry"]
    start = {name: np.zeros((len(xs), *shape), dtype) for name, shape in shapes.items()}
    program = lambda name: jax.jit(export.deserialize(bytearray(archive[f"{name}.jax"])).call)
    sequence, step = program("sequence"), None
    if description["programs"]["step"]:
        step = jax.jit(functools.partial(program("step"), weights))
    return start, functools.partial(sequence, weights), step
"""
)

NUMPY_ALONE = (
    BLOCKED.format(names=("gru_jax", "jax", "flax", "ml_dtypes", "scipy"))
    + """
import numpy as np
from numpy_gru import NumpyNetwork

def results(path, xs, lengths):
    network = NumpyNetwork(path)
    return network.start(len(xs)), network.sequence, network.step if network.description["programs"]["step"] else None
"""
)

RUN = """
for path in sys.argv[1:]:
    with np.load(path + ".given.npz") as given: xs, lengths = given["xs"], given["lengths"]
    start, sequence, step = results(path, xs, lengths)
    carry, outputs = sequence(start, xs, lengths)
    made = {"sequence": outputs, **{"carry/" + name: part for name, part in carry.items()}}
    first, _ = sequence(start, xs[:, :2], np.minimum(lengths, 2))
    if carry:
        made["parts"] = sequence(first, xs[:, 2:], np.maximum(lengths - 2, 0))[1]
    if step:
        carry, steps = start, []
        for t in range(xs.shape[1]):
            carry, output = step(carry, xs[:, t])
            steps.append(np.asarray(output))
        made["steps"] = np.stack(steps, axis=1)
    np.savez(path + ".made.npz", **made)
"""


def run_apart(script, inputs, folder):
    """What a script of above makes of archives, by their paths: `{path: (xs, lengths)}` to arrays by name each.

    `folder` is where it starts.
    """
    for path, (xs, lengths) in inputs.items():
        np.savez(f"{path}.given.npz", xs=xs, lengths=np.asarray(lengths, np.int32))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([sys.executable, "-c", script + RUN, *map(str, inputs)], check=True, cwd=folder, env=environment)
    results = {}
    for path in inputs:
        with np.load(f"{path}.made.npz") as made:
            results[path] = dict(made)
    return results


def description_of(archive):
    with np.load(archive) as opened:
        return json.loads(opened["description.json"])
