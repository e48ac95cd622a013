"""What the states of a network may hold, at every step: what probes look for."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

MOST_VARIABLES = 10  # of one kind


def target_variables(targets: Array, time: int, class_names: Sequence[str] = ()) -> dict[str, Float[Array, "B T"]]:
    """Targets at every step, by name; none where they stand beside steps in another way.

    Args:
        targets: a number or class for each sequence `[B]` or step `[B, T]`, or several numbers, `[..., O]`.
        time: T.
        class_names: of the classes, where they have names; up to ten are looked for.

    Examples:
        >>> import jax.numpy as jnp
        >>> from gru_jax.tasks.variables import target_variables
        >>> target_variables(jnp.array([0, 1]), 2, ["no", "yes"])["yes"].tolist()
        [[0.0, 0.0], [1.0, 1.0]]
    """
    dtype = jnp.result_type(float)
    if jnp.issubdtype(targets.dtype, jnp.integer):
        names = list(class_names)[:MOST_VARIABLES]
        columns = {name: (targets == number).astype(dtype) for number, name in enumerate(names)}
    elif targets.ndim > 1 and targets.shape[1:] != (time,):
        several = min(targets.shape[-1], MOST_VARIABLES)
        columns = {f"target {number}": targets[..., number].astype(dtype) for number in range(several)}
    else:
        columns = {"target": targets.astype(dtype)}
    spread = {}
    for name, column in columns.items():
        if column.ndim == 1:
            spread[name] = jnp.broadcast_to(column[:, None], (len(column), time))
        elif column.shape == (len(column), time):
            spread[name] = column
    return spread
