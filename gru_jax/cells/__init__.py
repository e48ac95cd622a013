"""Recurrent cells: pure step functions over plain dicts of parameters."""

from gru_jax.cells.base import Carry, Cell, Gates, Memory, Params
from gru_jax.cells.elman import Elman
from gru_jax.cells.gru import GRU, gru
from gru_jax.cells.layer_norm import LayerNormGRU
from gru_jax.cells.lstm import LSTM
from gru_jax.cells.mingru import MinGRU
from gru_jax.cells.refine import RefineGRU

CELLS: dict[str, type[Cell]] = {
    "gru": GRU, "refine_gru": RefineGRU, "layer_norm_gru": LayerNormGRU, "lstm": LSTM, "elman": Elman, "mingru": MinGRU,
}  # fmt: skip
"""Cells by the name that configs use."""

__all__ = [
    "CELLS",
    "GRU",
    "LSTM",
    "Carry",
    "Cell",
    "Elman",
    "Gates",
    "LayerNormGRU",
    "Memory",
    "MinGRU",
    "Params",
    "RefineGRU",
    "gru",
]
