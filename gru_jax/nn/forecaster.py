"""Networks that forecast: relative to the last value they read, all steps at once or one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from gru_jax.cells import Cell
from gru_jax.errors import UsageError, at_least_one
from gru_jax.nn.models import SequenceModel, Trace
from gru_jax.nn.stack import drawn_dropout


class Forecaster(SequenceModel):
    """A recurrent stack that goes on with the first numbers of its inputs.

    Directly, its head gives all steps of the horizon at once, `[B, H O Q]`. Recursively, it gives the next step, which
    is fed back as an input, until there are all, `[B, H O]`: a scan of the same network, through which gradients go.

    Args:
        cell, input_size, hidden_sizes, output_size, rngs, kwargs: as of `SequenceModel`.
        columns: O, the numbers that are forecast, which stand first among the inputs of each step.
        segment: how many steps of the recording stand side by side in a step of the network.
        horizon: H; the head gives as many steps, or with `recursive` one.
        subtract_last: whether inputs and outputs are relative to the last value of each of these numbers, Zeng et al.
            2023 (NLinear), arXiv:2205.13504.
        recursive: whether steps are forecast one after the other.
        highway: C, steps of the context of each number of which a linear map is added to the head's outputs, Lai et al.
            2018 (LSTNet), arXiv:1703.07015; it starts at zero. 0 for none.

    Raises:
        UsageError: a recursive network has segments, or a readout of several states.

    Examples:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from gru_jax import cells, nn
        >>> model = nn.Forecaster(
        ...     cells.GRU(), 1, (3,), 1, columns=1, horizon=5, recursive=True, subtract_last=True, rngs=nnx.Rngs(0)
        ... )
        >>> model(jnp.ones((4, 6, 1))).shape
        (4, 5)
    """

    def __init__(
        self,
        cell: Cell,
        input_size: int,
        hidden_sizes: tuple[int, ...],
        output_size: int,
        *,
        columns: int,
        horizon: int,
        segment: int = 1,
        subtract_last: bool = False,
        recursive: bool = False,
        highway: int = 0,
        rngs: nnx.Rngs,
        **kwargs: Any,
    ) -> None:
        super().__init__(cell, input_size, hidden_sizes, output_size, rngs=rngs, **kwargs)
        self.columns, self.horizon = at_least_one("columns", columns), at_least_one("horizon", horizon)
        self.segment = at_least_one("segment", segment)
        self.subtract_last, self.recursive = subtract_last, recursive
        if recursive and (self.segment > 1 or self.readout != "last"):
            raise UsageError(
                f"recursive=True: goes from step to step of the recording; readout={self.readout!r} and "
                f"segment={segment} do not; allowed are last and 1"
            )
        self.highway = highway
        if highway:
            zeros, dtype = nnx.initializers.zeros_init(), self.param_dtype
            self.context_map: nnx.Linear = nnx.Linear(
                highway, horizon, kernel_init=zeros, use_bias=False, param_dtype=dtype, rngs=rngs
            )

    def trace(  # type: ignore[override]
        self,
        xs: Float[Array, "B T D"],
        carry0: Sequence[Any] | None = None,
        *,
        decoder_inputs: Float[Array, "B N K"] | None = None,
        decoder_lengths: None = None,
        dropout_key: Any = None,
        dropout: Any = None,
        **kwargs: Any,
    ) -> Trace:
        """The forecasts, with every layer's inputs and results over the context; arguments as of `SequenceModel`.

        `decoder_inputs` are what is known in advance of the steps that are fed back, N = H - 1; the inputs beside the
        numbers that are forecast. With `recursive` all steps have the same `recurrent_masks`, `[B, 1, H]`.
        """
        del decoder_lengths
        is_partial = any(kwargs.get(name) is not None for name in ("lengths", "mask"))
        if is_partial and (self.subtract_last or self.highway):
            raise UsageError(
                "lengths, mask: with subtract_last or highway all steps of the context count; allowed is None"
            )
        if self.recursive and self.horizon > 1 and kwargs.get("interventions") is not None:
            raise UsageError("interventions: do not reach the steps that recursive=True feeds back; allowed is None")
        if decoder_inputs is not None and not self.recursive:
            raise UsageError("decoder_inputs: without effect, no steps are fed back; allowed with recursive=True")
        batch, steps, width = xs.shape
        rows = xs.reshape(batch, steps * self.segment, width // self.segment)[..., : self.columns]
        level = rows[:, -1:] if self.subtract_last else jnp.zeros_like(rows[:, -1:])
        if self.subtract_last:
            xs = _with_columns(xs, rows - level, self.segment)
        rates, key = drawn_dropout(self.stack, dropout, dropout_key)
        trace = super().trace(xs, carry0, dropout_key=key, dropout=rates, **kwargs)
        outputs = trace.outputs
        if self.recursive and self.horizon > 1:
            outputs = self._go_on(
                trace, xs.dtype, decoder_inputs,
                {"dropout_key": key, "dropout": rates, "recurrent_masks": kwargs.get("recurrent_masks")},
            )  # fmt: skip
        added = level.astype(outputs.dtype)
        if self.highway:
            if rows.shape[1] != self.highway:
                raise UsageError(f"xs has {rows.shape[1]} steps: needed are {self.highway}, which the highway maps")
            past = jnp.swapaxes(rows - level, 1, 2).astype(outputs.dtype)
            added = added + jnp.swapaxes(self.context_map(past), 1, 2)
        if self.highway or self.subtract_last:
            of_steps = outputs.reshape(batch, self.horizon, self.columns, -1)
            outputs = (of_steps + added[..., None]).reshape(outputs.shape)
        return Trace(outputs, trace.layers)

    def _go_on(self, trace: Trace, dtype: DTypeLike, known: Array | None, options: dict[str, Any]) -> Array:
        """All steps of the horizon, `[B, H O]`, from the first and the carries behind it."""

        def step(state: tuple[Any, Array], known_here: Array) -> tuple[tuple[Any, Array], Array]:
            carry, last = state
            inputs = jnp.concatenate([last.astype(dtype), known_here.astype(dtype)], axis=-1)
            one = SequenceModel.trace(self, inputs[:, None], carry, **options)
            return (one.carry, one.outputs), one.outputs

        batch, rest = len(trace.outputs), self.horizon - 1
        if known is None:
            known = jnp.zeros((batch, rest, 0), dtype)
        _, later = jax.lax.scan(step, (trace.carry, trace.outputs), jnp.swapaxes(known, 0, 1), length=rest)
        forecasts = jnp.concatenate([trace.outputs[None], later])
        return jnp.swapaxes(forecasts, 0, 1).reshape(batch, -1)


def _with_columns(xs: Float[Array, "B T D"], columns: Float[Array, "B C O"], segment: int) -> Float[Array, "B T D"]:
    """Inputs with other numbers in place of the first of each step of the recording."""
    rows = xs.reshape(len(xs), columns.shape[1], xs.shape[2] // segment)
    return jnp.concatenate([columns, rows[..., columns.shape[2] :]], axis=-1).reshape(xs.shape)
