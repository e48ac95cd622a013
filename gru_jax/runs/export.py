"""A run's network in one file that runs without this project."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from gru_jax.cells import CELLS
from gru_jax.config import Config
from gru_jax.config.checkpoint_names import BEST
from gru_jax.data.vocabulary import Vocabulary
from gru_jax.deploy.archive import FORMAT, JAX_PROGRAM, ONNX_PROGRAM, VERSION, VOCABULARY, archive_bytes
from gru_jax.deploy.onnx import onnx_programs
from gru_jax.deploy.programs import EXPORT_PLATFORMS, ServedNetwork, carry_names, export_programs
from gru_jax.deploy.storage import StoredAs, flatten_params, pack_exactly
from gru_jax.dtypes import carry_dtype
from gru_jax.errors import ArgumentError, check_argument
from gru_jax.nn import CellPlace, Functional
from gru_jax.nn.families import ENCODER_DECODER, FAMILIES
from gru_jax.nn.models import Readout
from gru_jax.runs.directory import RunDir
from gru_jax.runs.stored import CHECKPOINT_KINDS, CheckpointKind, open_run, restore_state
from gru_jax.runtime.devices import choose_device, precision
from gru_jax.runtime.files import Json, replace_file
from gru_jax.tasks import Arrays, LanguageModel, SpokenDigits, Task
from gru_jax.tasks.base import FromFiles
from gru_jax.tasks.facts import DataFacts, FeatureScale
from gru_jax.tasks.forecasting import Forecasting
from gru_jax.tasks.text_classification import TextClassification
from gru_jax.tasks.text_facts import TextFacts
from gru_jax.training.network import build_model

KNOWN_INPUTS = (Task.network_inputs, Arrays.network_inputs, SpokenDigits.network_inputs)
"""What a reader without JAX does by itself."""

EXPORT_FILE = "export.zip"
PLATFORMS = ("cpu", "cuda", "tpu")
SIGNATURES = {
    "sequence": "sequence(weights, carry, xs [batch, time{each}], lengths [batch] int32) -> (carry, outputs)",
    "step": "step(weights, carry, x [batch{each}]) -> (carry, outputs)",
}
EACH_STEP = {True: ", features", False: ""}  # of inputs that are numbers, or tokens


def export_run(
    workdir: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    checkpoint: str = BEST,
    platforms: Sequence[str] = PLATFORMS,
    *,
    onnx: bool = False,
) -> Path:
    """Write a run's network, with all that is needed to use it, into one file that JAX alone can run.

    Args:
        workdir: of the run.
        output: the file; `export.zip` in the directory if None.
        checkpoint: which of its networks, best or latest.
        platforms: where its programs can run, of cpu, cuda, rocm and tpu, whatever there is here.
        onnx: whether they are wanted in ONNX too.

    Returns:
        The file.

    Raises:
        UsageError: there is no such run or checkpoint, a platform is none, or a program cannot be written.
    """
    check_argument("checkpoint", checkpoint, CHECKPOINT_KINDS)
    check_platforms(platforms)
    rundir, config = open_run(workdir)
    check_is_served(config, rundir)
    if getattr(config.task, "scale_each", False):
        raise ArgumentError(
            f"workdir={rundir.path}: its sequences are standardised each by itself while their files are read "
            "(task.scale_each), which a program that may read them step by step cannot do; experiments.predict does"
        )
    device = choose_device(config.platform)
    path = rundir.path / EXPORT_FILE if output is None else Path(output)
    if not path.absolute().parent.is_dir():
        raise ArgumentError(f"output={path}: its directory does not exist")
    with precision(config.dtype, config.matmul_precision), jax.default_device(device):
        state = restore_state(rundir, config, device, cast("CheckpointKind", checkpoint))
        made_of = {"checkpoint": checkpoint, "step": int(state.step), "test": _scores(rundir, checkpoint)}
        replace_file(path, export_network(config, state.params, platforms, made_of, onnx=onnx))
    return path


def check_is_served(config: Config, rundir: RunDir) -> None:
    """Refuse a network with a decoder, or that reads windows, for which there is no program for service yet.

    Raises:
        ArgumentError: it is one of them.
    """
    if config.task.family == ENCODER_DECODER:
        raise ArgumentError(f"workdir={rundir.path}: its network has a decoder; allowed are those without one")
    if isinstance(config.task, Forecasting):
        raise ArgumentError(
            f"workdir={rundir.path}: its network reads windows of a table, which experiments.predict does; allowed are "
            "those that read sequences as they stand in files"
        )


def check_platforms(platforms: Sequence[str]) -> None:
    """Refuse what is no platform.

    Raises:
        ArgumentError: one of them is none, or there is none.
    """
    if not platforms:
        raise ArgumentError(f"platforms=: none; allowed are {', '.join(EXPORT_PLATFORMS)}")
    for platform in platforms:
        check_argument("platforms", platform, EXPORT_PLATFORMS)


def export_network(
    config: Config,
    params: PyTree,
    platforms: Sequence[str],
    made_of: Mapping[str, object] | None = None,
    *,
    onnx: bool = False,
) -> bytes:
    """The content of the file of a network: its programs, its weights and their description."""
    # How a network is unrolled is no part of it, and blocks need a number of steps, which is left open.
    unrolled = dataclasses.replace(config.model, method="auto", chunk=None, keep="auto")
    model = build_model(dataclasses.replace(config, model=unrolled))
    served = serve_network(config, model)
    kept_as = stored_as(config)
    weights = pack_exactly(params, kept_as)
    read = input_step(config)
    programs = export_programs(served, weights, read, platforms)
    in_onnx = onnx_programs(served, flatten_params(params), read) if onnx else {}
    description = {
        "format": FORMAT,
        "version": VERSION,
        "jax": jax.__version__,
        "platforms": list(platforms),
        "programs": {
            name: text.format(each=EACH_STEP[bool(read.shape)]) if name in programs else None
            for name, text in SIGNATURES.items()
        },
        "onnx": list(in_onnx),
        "why_no_step": served.why_no_step,
        "inputs": {"dtype": read.dtype.name, **_describe_inputs(config.task)},
        "outputs": _describe_outputs(config),
        "carry": {name: list(shape) for name, shape in served.carry.items()},
        "carry_dtype": jnp.dtype(carry_dtype(config.dtype)).name,
        "model": {
            "readout": config.model.readout,
            "dtype": config.dtype,
            "weights": kept_as,
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
            "layers": [list(map(_describe_cell, places)) for places in model.layers],
        },
        "run": {"task": type(config.task).__name__, **(made_of or {})},
    }
    members = {name + JAX_PROGRAM: program for name, program in programs.items()}
    members |= {name + ONNX_PROGRAM: program for name, program in in_onnx.items()}
    if (vocabulary := _vocabulary(config.task)) is not None:
        members[VOCABULARY] = json.dumps(vocabulary.to_json(), indent=1).encode()
    return archive_bytes(description, members, weights)


def serve_network(config: Config, model: Functional) -> ServedNetwork:
    """The network of a config as programs for service, of inputs as they stand in files of its data."""
    readout = cast("Readout", config.model.readout)  # a checked config has no auto
    is_standard = config.model.family in FAMILIES
    return ServedNetwork(model, readout, config.dtype, config.task.network_inputs, is_standard)


def stored_as(config: Config) -> StoredAs:
    """In what type the kernels of a run are stored."""
    return "full" if config.train.init_as in ("exact", "units") else config.train.init_as


def input_features(task: Task) -> list[str]:
    """The names of the features of an input as it stands in files, or their numbers; of tokens none."""
    if task.reads_tokens:
        return []
    facts = _facts(task)
    return list(facts.features) if facts else [str(number) for number in range(task.input_size)]


def input_step(config: Config) -> jax.ShapeDtypeStruct:
    """What one sequence has at one step, as it stands in files, `[features]`; of tokens one number, `[]`."""
    if config.task.reads_tokens:
        return jax.ShapeDtypeStruct((), jnp.int32)
    return jax.ShapeDtypeStruct((len(input_features(config.task)),), jnp.dtype(carry_dtype(config.dtype)))


def _facts(task: Task) -> DataFacts | None:
    facts = task.facts if isinstance(task, FromFiles) else None
    return facts if isinstance(facts, DataFacts) else None


def _vocabulary(task: Task) -> Vocabulary | None:
    facts = task.facts if isinstance(task, FromFiles) else None
    return facts.vocabulary if isinstance(facts, TextFacts) else None


def _describe_inputs(task: Task) -> Json:
    """What inputs are, and what the programs or `text_codec.py` do before the network reads them."""
    facts = _facts(task)
    known_scale = facts.inputs_scale if facts else None
    return {
        "features": input_features(task),
        "are_of_library": type(task).network_inputs in KNOWN_INPUTS,
        "missing": getattr(task, "missing", "error"),
        "is_scaled": bool(getattr(task, "scale", known_scale is not None)),
        **dataclasses.asdict(known_scale or FeatureScale((0.0,), (1.0,))),
        "tokens": task.input_size if task.reads_tokens else None,
        "vocabulary": None if _vocabulary(task) is None else VOCABULARY,
        "lower": isinstance(task, TextClassification) and task.lower,
        "last": task.length if isinstance(task, TextClassification) else None,
    }


def _describe_outputs(config: Config) -> Json:
    """What a person has to know of outputs: classes whose logits they are, or numbers and their scale."""
    task, facts = config.task, _facts(config.task)
    scale = (facts and facts.targets_scale) or FeatureScale((0.0,), (1.0,))
    return {
        "size": task.output_size,
        "each_step": config.model.readout == "every",
        "classes": list(task.class_names),
        "are_tokens": isinstance(task, LanguageModel),
        "are_labels": not task.class_names and _are_labels(task),
        "names": list(facts.targets) if facts else [],
        **dataclasses.asdict(scale),
    }


def _are_labels(task: Task) -> bool:
    """Whether outputs are logits, each of a label that may hold: of those, a person reads probabilities."""
    read = task.read_outputs(np.zeros((1, task.output_size), np.float32))
    return any(name.startswith("p(") for name in read)


def _describe_cell(place: CellPlace) -> Json:
    """A cell, for readers that compute it themselves."""
    cell = place.cell
    return {
        "name": place.name,
        "cell": type(cell).__name__,
        "is_of_library": type(cell) in CELLS.values(),
        "settings": {field.name: getattr(cell, field.name) for field in dataclasses.fields(cell)},
        "gates": list(cell.input_gates),
        "units": place.units,
        "reverse": place.reverse,
        "weights": "/".join(place.path),
        "carry": list(carry_names(place)),
    }


def _scores(rundir: RunDir, checkpoint: str) -> dict[str, float] | None:
    """The test metrics of a checkpoint, once the run is finished."""
    if not rundir.summary.exists():
        return None
    return rundir.read_summary()["best" if checkpoint == BEST else "final"].get("test")
