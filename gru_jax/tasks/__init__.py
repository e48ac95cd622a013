"""Tasks: generated and file data sets with their losses and metrics."""

from gru_jax.tasks.adding import Adding
from gru_jax.tasks.arrays import Arrays, Sequences
from gru_jax.tasks.base import SPLITS, Batch, FromFiles, Generated, Task, split_key
from gru_jax.tasks.bit_labels import DelayedXOR, Parity
from gru_jax.tasks.copy_memory import CopyMemory
from gru_jax.tasks.delayed_memory import DelayedMemory
from gru_jax.tasks.files import Files
from gru_jax.tasks.film_reviews import ReviewPolarity, RTPolarity
from gru_jax.tasks.flip_flop import FlipFlop
from gru_jax.tasks.forecast import Forecast
from gru_jax.tasks.forecast_sets import ETTh1, ExchangeRates, SmallSeries
from gru_jax.tasks.integrator import Integrator
from gru_jax.tasks.language_model import LanguageModel, TextFiles
from gru_jax.tasks.listops import ListOps
from gru_jax.tasks.mnist import MNIST
from gru_jax.tasks.music import Music
from gru_jax.tasks.penn_treebank import PennTreebank
from gru_jax.tasks.sequence_to_sequence import Copy, Reverse, SequenceToSequence, Sort, Symbols
from gru_jax.tasks.spoken_digits import SpokenDigits
from gru_jax.tasks.sst2 import SST2
from gru_jax.tasks.temporal_order import TemporalOrder
from gru_jax.tasks.text_classification import TextClassification, TextTable
from gru_jax.tasks.tiny_shakespeare import TinyShakespeare
from gru_jax.tasks.translation import Multi30k, Translation, TranslationTable

TASKS: dict[str, type[Task]] = {
    "adding": Adding,
    "copy_memory": CopyMemory,
    "delayed_memory": DelayedMemory,
    "temporal_order": TemporalOrder,
    "copy": Copy,
    "reverse": Reverse,
    "sort": Sort,
    "parity": Parity,
    "delayed_xor": DelayedXOR,
    "flip_flop": FlipFlop,
    "integrator": Integrator,
    "mnist": MNIST,
    "music": Music,
    "listops": ListOps,
    "spoken_digits": SpokenDigits,
    "arrays": Arrays,
    "files": Files,
    "forecast": Forecast,
    "etth1": ETTh1,
    "exchange_rates": ExchangeRates,
    "small_series": SmallSeries,
    "text": TextFiles,
    "tiny_shakespeare": TinyShakespeare,
    "penn_treebank": PennTreebank,
    "text_table": TextTable,
    "sst2": SST2,
    "rt_polarity": RTPolarity,
    "review_polarity": ReviewPolarity,
    "translation_table": TranslationTable,
    "multi30k": Multi30k,
}
"""Tasks by the name that configs use."""

__all__ = [
    "MNIST",
    "SPLITS",
    "SST2",
    "TASKS",
    "Adding",
    "Arrays",
    "Batch",
    "Copy",
    "CopyMemory",
    "DelayedMemory",
    "DelayedXOR",
    "ETTh1",
    "ExchangeRates",
    "Files",
    "FlipFlop",
    "Forecast",
    "FromFiles",
    "Generated",
    "Integrator",
    "LanguageModel",
    "ListOps",
    "Multi30k",
    "Music",
    "Parity",
    "PennTreebank",
    "RTPolarity",
    "Reverse",
    "ReviewPolarity",
    "SequenceToSequence",
    "Sequences",
    "SmallSeries",
    "Sort",
    "SpokenDigits",
    "Symbols",
    "Task",
    "TemporalOrder",
    "TextClassification",
    "TextFiles",
    "TextTable",
    "TinyShakespeare",
    "Translation",
    "TranslationTable",
    "split_key",
]
