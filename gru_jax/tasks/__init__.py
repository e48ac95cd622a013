"""Tasks: generated and file data sets with their losses and metrics."""

from gru_jax.tasks.adding import Adding
from gru_jax.tasks.arrays import Arrays, Sequences
from gru_jax.tasks.base import SPLITS, Batch, FromFiles, Generated, Task, split_key
from gru_jax.tasks.copy_memory import CopyMemory
from gru_jax.tasks.delayed_memory import DelayedMemory
from gru_jax.tasks.files import Files
from gru_jax.tasks.flip_flop import FlipFlop
from gru_jax.tasks.integrator import Integrator
from gru_jax.tasks.mnist import MNIST
from gru_jax.tasks.temporal_order import TemporalOrder

TASKS: dict[str, type[Task]] = {
    "adding": Adding,
    "copy_memory": CopyMemory,
    "delayed_memory": DelayedMemory,
    "temporal_order": TemporalOrder,
    "flip_flop": FlipFlop,
    "integrator": Integrator,
    "mnist": MNIST,
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
    "Files",
    "FlipFlop",
    "FromFiles",
    "Generated",
    "Integrator",
    "Sequences",
    "Task",
    "TemporalOrder",
    "split_key",
]
