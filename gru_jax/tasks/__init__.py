"""Tasks: generated and file data sets with their losses and metrics."""

from gru_jax.tasks.adding import Adding
from gru_jax.tasks.arrays import Arrays, Sequences
from gru_jax.tasks.base import SPLITS, Batch, FromFiles, Generated, Task, split_key
from gru_jax.tasks.bit_labels import DelayedXOR, Parity
from gru_jax.tasks.copy_memory import CopyMemory
from gru_jax.tasks.delayed_memory import DelayedMemory
from gru_jax.tasks.files import Files
from gru_jax.tasks.mnist import MNIST
from gru_jax.tasks.music import Music
from gru_jax.tasks.spoken_digits import SpokenDigits
from gru_jax.tasks.temporal_order import TemporalOrder

TASKS: dict[str, type[Task]] = {
    "adding": Adding,
    "copy_memory": CopyMemory,
    "delayed_memory": DelayedMemory,
    "temporal_order": TemporalOrder,
    "parity": Parity,
    "delayed_xor": DelayedXOR,
    "mnist": MNIST,
    "music": Music,
    "spoken_digits": SpokenDigits,
    "arrays": Arrays,
    "files": Files,
}
"""Tasks by the name that configs use."""

__all__ = [
    "MNIST",
    "SPLITS",
    "TASKS",
    "Adding",
    "Arrays",
    "Batch",
    "CopyMemory",
    "DelayedMemory",
    "DelayedXOR",
    "Files",
    "FromFiles",
    "Generated",
    "Music",
    "Parity",
    "Sequences",
    "SpokenDigits",
    "Task",
    "TemporalOrder",
    "split_key",
]
