"""Recurrent cells: pure step functions over plain dicts of parameters."""

from gru_jax.cells.base import Carry, Cell, Gates, Memory, Params
from gru_jax.cells.elman import Elman
from gru_jax.cells.gru import GRU, gru
from gru_jax.cells.lstm import LSTM
from gru_jax.cells.mingru import MinGRU

CELLS: dict[str, type[Cell]] = {"gru": GRU, "lstm": LSTM, "elman": Elman, "mingru": MinGRU}
"""Cells by the name that configs use."""

__all__ = [
    "CELLS",
    "GRU",
    "LSTM",
    "Carry",
    "Cell",
    "Elman",
    "Gates",
    "Memory",
    "MinGRU",
    "Params",
    "gru",
]
