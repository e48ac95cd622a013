"""The programs of a network in ONNX, by jax2onnx."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import export
from jax.extend.core import jaxpr_as_fun
from jaxtyping import Array

from gru_jax.deploy.programs import ServedNetwork, with_leading
from gru_jax.errors import UsageError, in_one_line

NEXT = "next."
"""What the names of the carry's parts begin with where they come out."""


def onnx_programs(
    served: ServedNetwork, weights: Mapping[str, Array], input_step: jax.ShapeDtypeStruct
) -> dict[str, bytes]:
    """The programs `sequence` and, if there is one, `step`, with the weights in them and batch and time left open.

    Inputs are `xs` `[batch, time, features]` with `lengths` `[batch]`, or `x` `[batch, features]`, and every part of
    the carry by its name; what comes out is `outputs`, and every part by its name behind `next.`.

    Args:
        served: the network, in float32.
        weights: its weights, whole.
        input_step: what one sequence has at one step, as `[features]`.

    Raises:
        UsageError: jax2onnx is missing, or cannot write this network, as of one that reads in both directions.
    """
    if served.dtype != "float32":
        raise UsageError(f"ONNX: the network computes in {served.dtype}; allowed is float32")
    batch, time = export.symbolic_shape("batch, time")
    carry = {name: jax.ShapeDtypeStruct((batch, *shape), jnp.float32) for name, shape in served.carry.items()}

    def sequence(xs: Array, lengths: Array, *parts: Array) -> tuple[Array, ...]:
        after, outputs = served.sequence(weights, dict(zip(carry, parts, strict=True)), xs, lengths)
        return (outputs, *(after[name] for name in carry))

    def step(x: Array, *parts: Array) -> tuple[Array, ...]:
        after, outputs = served.step(weights, dict(zip(carry, parts, strict=True)), x)
        return (outputs, *(after[name] for name in carry))

    xs = with_leading(input_step, batch, time)
    lengths = jax.ShapeDtypeStruct((batch,), jnp.int32)
    programs = {"sequence": _in_onnx(sequence, {"xs": xs, "lengths": lengths, **carry})}
    if not served.why_no_step:
        programs["step"] = _in_onnx(step, {"x": with_leading(input_step, batch), **carry})
    return programs


def _in_onnx(function: Callable[..., tuple[Array, ...]], inputs: Mapping[str, jax.ShapeDtypeStruct]) -> bytes:
    try:
        from jax2onnx import to_onnx  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UsageError("ONNX is written by jax2onnx: pip install 'gru_jax[onnx]' brings it") from error
    # It traces with functions of JAX replaced, which checks of shapes do not survive: it gets what is traced already.
    traced = jax.make_jaxpr(function)(*inputs.values())
    carry = [name for name in inputs if name not in ("x", "xs", "lengths")]
    try:
        model: Any = to_onnx(
            lambda *arguments: tuple(jaxpr_as_fun(traced)(*arguments)),
            list(inputs.values()),
            input_names=list(inputs),
            output_names=["outputs", *(NEXT + name for name in carry)],
        )
    except NotImplementedError as error:
        raise UsageError(f"ONNX: jax2onnx cannot write this network: {in_one_line(error)}") from error
    return model.SerializeToString()
