"""How to unroll, and what `unroll` chooses where its caller does not: method, block length, layout, steps at a time.

The rules are measured (`python -m experiments.bench`), not tried out at every start, so that equal calls are equal
programs.
"""

from __future__ import annotations

from typing import Literal, get_args

import jax

from gru_jax.cells import Cell
from gru_jax.errors import UsageError, at_least_one, check_choice
from gru_jax.unroll.blocked.structure import is_pointwise

Method = Literal["auto", "fast", "reference"]
"""`"reference"` scans the cell's own step; `"fast"` runs in blocks, with a derived backward pass. Both support every
transformation. `"auto"` is `"fast"` for all cells that are pointwise between their products, else `"reference"`."""
Keep = Literal["auto", "states", "gates", "boundaries"]
"""What the fast method keeps for the backward pass: every state, what enters the gates as well, or only the states
between blocks. `"gates"` computes no product a second time, and spends as much memory again for every gate (of a GRU,
four times that of its states). `"boundaries"` runs the recurrence a second time, and spends `T / chunk + chunk` states
of memory rather than T: for a loss that needs the last carry alone, as every state that the loss reads is kept anyway.
`"auto"` is `"gates"` or `"states"`, see `choose_keep`."""
Layout = Literal["auto", "separate", "fused"]
"""Each gate's product by itself, or all that can be one as one; see `choose_layout` for `"auto"`."""
METHODS: tuple[Method, ...] = get_args(Method)
KEEPS: tuple[Keep, ...] = get_args(Keep)
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

BLOCK = {"cpu": 2**18}
"""Numbers in one array of a block, C * B * H, by platform: on a CPU a block's arrays should stay in cache."""
BLOCK_ELSEWHERE = 2**22
SHORTEST = 16
LONGEST = {"cpu": 128}
"""Steps of a block at most, by platform: longer ones save nothing, and leave cache."""
LONGEST_ELSEWHERE = 256
UNROLL = {"gpu": 8}
"""Steps in one iteration of the fast method's loops, by platform, 1 elsewhere: on a GPU starting an iteration costs
more than a small step does."""
SOME_UNITS, FEW_ROWS = 96, 2048
"""On a CPU, from how many units on keeping the gates pays for up to so many rows, T * B, which leave them in cache."""
MANY_UNITS, MANY_UNITS_OF_LARGE_BATCHES, MOST_KEPT = 512, 384, 2**25
"""From how many units on products take so long there that it pays for any number of steps, where a batch is larger than
`USUAL_BATCH` from fewer on; as long as not more numbers than these, T * B * H, are kept of each gate."""
VECTOR = 8
"""Numbers that a CPU adds or multiplies at a time; what a row has beyond whole vectors, it takes one by one."""
USUAL_BATCH = 32
"""What the rules take a batch of unknown size for: exported programs may leave it open."""


def choose_method(
    cell: Cell, method: Method, *, time: int | None = None, intervenes: bool = False
) -> Literal["fast", "reference"]:
    """Choose the method that a cell is unrolled by, `"fast"` or `"reference"`.

    An intervention in the gradient takes the reference, and so does a `time` T that is left open for export.

    Raises:
        UsageError: not one of `METHODS`, or fast where there are interventions or the number of steps is open.
    """
    check_choice("method", method, METHODS)
    if method == "fast" and intervenes:
        raise UsageError("method='fast': it knows no interventions in the gradient; allowed are auto, reference")
    is_open = time is not None and not _is_known(time)
    if method == "fast" and is_open:
        raise UsageError(f"method='fast': blocks need a known number of steps, not {time}; allowed are auto, reference")
    if method != "auto":
        return method
    return "fast" if is_pointwise(cell) and not intervenes and not is_open else "reference"


def _is_known(size: int) -> bool:
    """Whether a size is a number rather than a symbol of `jax.export.symbolic_shape`."""
    return isinstance(size, int)


def choose_chunk(chunk: int | None, time: int, batch: int, hidden_size: int) -> int:
    """Choose how many steps make a block: `chunk`, or by the rule if None.

    The rule fills a block up to `BLOCK` and then looks nearby for a divisor of T, as a shorter last block has to be
    compiled for itself. A batch of unknown size counts as `USUAL_BATCH`.

    Raises:
        UsageError: not a whole number from 1.
    """
    if chunk is not None:
        return min(at_least_one("chunk", chunk), max(time, 1))
    batch = batch if _is_known(batch) else USUAL_BATCH
    platform = jax.default_backend()
    room = BLOCK.get(platform, BLOCK_ELSEWHERE) // max(batch * hidden_size, 1)
    size = min(max(room, SHORTEST), LONGEST.get(platform, LONGEST_ELSEWHERE), max(time, 1))
    divisors = [c for c in range(max(size * 2 // 3, 1), min(size * 3 // 2, time) + 1) if time % c == 0]
    return min(divisors, key=lambda c: abs(c - size), default=size)


def choose_layout(layout: Layout, batch: int, hidden_size: int, time: int | None = None) -> bool:
    """Choose whether products that can be one are one.

    An accelerator is better off with few large products. On a CPU a fused product costs a copy to take it apart, which
    is worth it where a step is so small that the number of its products is what it costs, about 64 units, and where a
    gate has few units that do not fill vectors; and in a program of a single step that leaves the batch open, one for
    service. Eight units are one vector, and quicker by themselves unless the batch is small.

    Raises:
        UsageError: not one of `LAYOUTS`.
    """
    check_choice("layout", layout, LAYOUTS)
    if layout != "auto":
        return layout == "fused"
    if jax.default_backend() != "cpu" or (time == 1 and not _is_known(batch)):
        return True
    batch = batch if _is_known(batch) else USUAL_BATCH
    if hidden_size == VECTOR:
        return batch <= 16
    small = batch * hidden_size <= 1024 and hidden_size <= 128
    return small or 56 <= hidden_size <= 64 or (hidden_size < 56 and hidden_size % VECTOR != 0)


def choose_keep(
    keep: Keep, time: int, batch: int, hidden_size: int, *, recurrent: bool = True
) -> Literal["states", "gates", "boundaries"]:
    """Choose what is kept for the backward pass: `keep`, or where arithmetic is the limit the gates too.

    It is on a CPU, for cells with recurrent products: from some units on where all that is kept stays in cache, and
    with many units unless it would be very much.

    Raises:
        UsageError: not one of `KEEPS`.
    """
    check_choice("keep", keep, KEEPS)
    if keep != "auto":
        return keep
    batch = batch if _is_known(batch) else USUAL_BATCH
    stays_in_cache = hidden_size >= SOME_UNITS and time * batch <= FEW_ROWS
    many_units = MANY_UNITS_OF_LARGE_BATCHES if batch > USUAL_BATCH else MANY_UNITS
    is_arithmetic = hidden_size >= many_units and time * batch * hidden_size <= MOST_KEPT
    pays = jax.default_backend() == "cpu" and recurrent and (stays_in_cache or is_arithmetic)
    return "gates" if pays else "states"


def choose_units(units: int, time: int) -> int:
    """Choose how many units are computed: the cell's own, or so many twins beside them that rows are whole vectors.

    They are on a CPU, in programs of more than one step (see `blocked.twins`), between one vector and two, where a row
    is a loop too short for vectors, and wherever three or more are left over and twins are fewer than a fifth; unless
    there are so many units that products are what a step costs.
    """
    left_over, whole = units % VECTOR, -(-units // VECTOR) * VECTOR
    few_twins = left_over >= 3 and 5 * (whole - units) < units < MANY_UNITS_OF_LARGE_BATCHES
    pays = few_twins or VECTOR < units < 2 * VECTOR
    return whole if pays and time > 1 and jax.default_backend() == "cpu" else units


def choose_unroll(unroll: int | None, method: Literal["fast", "reference"]) -> int:
    """Choose how many steps one iteration of a compiled loop takes: `unroll`, or by method and platform if None.

    Raises:
        UsageError: not a whole number from 1.
    """
    if unroll is not None:
        return at_least_one("unroll", unroll)
    return UNROLL.get(jax.default_backend(), 1) if method == "fast" else 1
