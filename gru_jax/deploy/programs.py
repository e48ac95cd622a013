"""A network as two programs for service, of open sizes, that are exported for several platforms."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Array

from gru_jax.cells.base import carry_from_leaves, carry_leaves
from gru_jax.deploy.storage import unpack
from gru_jax.dtypes import carry_dtype
from gru_jax.errors import UsageError
from gru_jax.nn import CellPlace, Functional
from gru_jax.nn.models import Readout

ExportPlatform = Literal["cpu", "cuda", "rocm", "tpu"]
EXPORT_PLATFORMS: tuple[ExportPlatform, ...] = get_args(ExportPlatform)
MEAN_SUM, MEAN_COUNT = "mean.sum", "mean.count"
"""What a network that reads the mean over all steps carries beside its states: their sum, and how many they are."""
STEPWISE: tuple[str, ...] = ("last", "mean", "every")
"""Readouts that are known after every step from what is carried."""
PARTS = ("h", "c")  # of a carry


@dataclasses.dataclass(frozen=True)
class ServedNetwork:
    """A network as pure functions of arrays by name, for service.

    Attributes:
        model: the network.
        readout: what its head sees.
        dtype: in which products run.
        network_inputs: makes of inputs as people have them those of the network.
        is_standard: whether outputs are the readout of the layers' states; those of a model of one's own need not be.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from gru_jax import cells, nn
        >>> from gru_jax.deploy.programs import ServedNetwork
        >>> from gru_jax.deploy.storage import flatten_params
        >>> model = nn.functional(lambda rngs: nn.SequenceModel(cells.GRU(), 2, (3,), 4, rngs=rngs))
        >>> served = ServedNetwork(model, "last", "float32", lambda xs: xs)
        >>> weights, carry = flatten_params(model.init(jax.random.key(0))), {"layer_0.h": jnp.zeros((5, 3))}
        >>> carry, outputs = served.step(weights, carry, jnp.ones((5, 2)))
        >>> served.carry, outputs.shape
        ({'layer_0.h': (3,)}, (5, 4))
    """

    model: Functional
    readout: Readout
    dtype: str
    network_inputs: Callable[[Array], Array]
    is_standard: bool = True

    @property
    def why_no_step(self) -> str | None:
        """Why there can be no step by itself; None where there is one."""
        if not self.is_standard:
            return "the model is one of a user's own, which may look at all steps"
        if any(place.reverse for _, place in self.model.cells):
            return "the network reads in both directions, and so needs the whole sequence"
        if self.readout not in STEPWISE:
            return f"the readout {self.readout} needs the whole sequence"
        return None

    @property
    def carry(self) -> dict[str, tuple[int, ...]]:
        """The shape of every part of the carry by name, without the batch; none where there is no step.

        All are zero at the start of a sequence.
        """
        shapes = {name: (place.units,) for place in self._layers for name in carry_names(place)}
        return {**shapes, MEAN_SUM: (self._layers[-1].units,), MEAN_COUNT: ()} if self._keeps_mean else shapes

    def sequence(
        self, weights: Mapping[str, Array], carry: Mapping[str, Array], xs: Array, lengths: Array | None
    ) -> tuple[dict[str, Array], Array]:
        """The next carry, and the outputs for inputs `[B, T, D]` of lengths `[B]`.

        With a carry other than zeros, sequences go on where an earlier call left them.
        """
        params = unpack(weights, carry_dtype(self.dtype))
        inputs = self.network_inputs(xs)
        inputs = inputs.astype(self.dtype) if jnp.issubdtype(inputs.dtype, jnp.floating) else inputs
        carry0 = tuple(carry_from_leaves(place.cell, [carry[name] for name in carry_names(place)])
                       for place in self._layers)  # fmt: skip
        trace = self.model.apply(params, inputs, lengths=lengths, carry0=carry0 or None)
        after: dict[str, Array] = {}
        for place, state in zip(self._layers, trace.carry, strict=False):  # no layers where no carry is kept
            after |= zip(carry_names(place), carry_leaves(state), strict=True)
        if not self._keeps_mean:
            return after, trace.outputs
        hs, total, count = trace.layers[-1].unrolled.hs, carry[MEAN_SUM], carry[MEAN_COUNT]
        total = total + hs.astype(total.dtype).sum(axis=1)  # zero at steps that do not count
        count = count + (hs.shape[1] if lengths is None else lengths.astype(count.dtype))
        mean = total / jnp.maximum(count, 1.0)[:, None]
        outputs = self.model.module(params).read_out(mean.astype(trace.outputs.dtype))
        return {**after, MEAN_SUM: total, MEAN_COUNT: count}, outputs

    def step(
        self, weights: Mapping[str, Array], carry: Mapping[str, Array], x: Array
    ) -> tuple[dict[str, Array], Array]:
        """The next carry, and what the network says after inputs `[B, D]`."""
        carry, outputs = self.sequence(weights, carry, x[:, None], None)
        return carry, outputs[:, 0] if self.readout == "every" else outputs

    @property
    def _layers(self) -> list[CellPlace]:
        """The cells whose carries are kept."""
        return [] if self.why_no_step else [place for _, place in self.model.cells]

    @property
    def _keeps_mean(self) -> bool:
        return self.readout == "mean" and not self.why_no_step


def carry_names(place: CellPlace) -> tuple[str, ...]:
    """The names of the parts of a cell's carry."""
    return tuple(f"{place.name}.{PARTS[i] if i < len(PARTS) else i}" for i in range(place.cell.carry_parts))


def export_programs(
    served: ServedNetwork,
    weights: Mapping[str, np.ndarray],
    input_step: jax.ShapeDtypeStruct,
    platforms: Sequence[str],
) -> dict[str, bytes]:
    """The programs of a network, serialised by `jax.export`: `sequence` and, if there is one, `step`.

    Batch and time are left open.

    Args:
        served: the network.
        weights: its weights, as they are stored.
        input_step: what one sequence has at one step, as `[features]`.
        platforms: where the programs can run.

    Raises:
        UsageError: the package that writes them down is missing.
    """
    if importlib.util.find_spec("flatbuffers") is None:
        raise UsageError("jax.export needs flatbuffers to write programs: pip install 'gru_jax[export]' brings it")
    batch, time = export.symbolic_shape("batch, time")

    def shapes(arrays: Mapping[str, Any], *leading: Any) -> dict[str, jax.ShapeDtypeStruct]:
        return {name: jax.ShapeDtypeStruct((*leading, *shape), kind) for name, (shape, kind) in arrays.items()}

    stored = shapes({name: (array.shape, array.dtype) for name, array in weights.items()})
    carry = shapes({name: (shape, carry_dtype(served.dtype)) for name, shape in served.carry.items()}, batch)

    def exported(function: Callable[..., Any], *arguments: Any) -> bytes:
        program = export.export(jax.jit(function), platforms=tuple(platforms))(stored, carry, *arguments)
        return bytes(program.serialize())

    lengths = jax.ShapeDtypeStruct((batch,), jnp.int32)
    programs = {"sequence": exported(served.sequence, with_leading(input_step, batch, time), lengths)}
    if not served.why_no_step:
        programs["step"] = exported(served.step, with_leading(input_step, batch))
    return programs


def with_leading(array: jax.ShapeDtypeStruct, *leading: Any) -> jax.ShapeDtypeStruct:
    """The shape of an array with more axes in front."""
    return jax.ShapeDtypeStruct((*leading, *array.shape), array.dtype)
