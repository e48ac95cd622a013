"""What a task is: examples by index, a loss, and the score that no memory reaches."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Integer, PRNGKeyArray

from gru_jax.data.arrays import check_input, read_arrays
from gru_jax.data.batching import StepIndices, batch_indices, stream_indices
from gru_jax.data.division import HELD_OUT_SEED
from gru_jax.data.npy import Rows
from gru_jax.errors import UsageError, check_choice
from gru_jax.settings import check_values, setting
from gru_jax.tasks.facts import Facts, facts_in_use
from gru_jax.tasks.folds import Folded
from gru_jax.tasks.likeliest import is_likeliest
from gru_jax.tasks.reading import read_classes, read_numbers, read_target_classes
from gru_jax.tasks.variables import target_variables

SPLITS = ("train", "valid", "test")

MEMORYLESS = "memoryless or chance"
ORDER = "order"
"""Among the arrays of a task of files: which examples of the files a split consists of, if not all in their order."""


class Batch(NamedTuple):
    """Examples side by side.

    Attributes:
        xs: inputs, `[B, T, D]`, or the numbers of tokens, `[B, T]`.
        targets: what the loss compares outputs with; the task's own affair.
        lengths: true lengths `[B]`, or None where all are T.
        mask: how much each step counts in the loss, `[B, T]`, or None where that is not the task's affair.
        weights: how much each example counts in all means, `[B]`, or None where all count the same.
        decoder_inputs: where a decoder writes targets, these, one late, `[B, T]`; or what is known ahead, `[B, N, K]`.
        decoder_lengths: their true lengths `[B]`, or None where all are T; `lengths` are those of the sources.

    Examples:
        >>> import jax.numpy as jnp
        >>> from gru_jax.tasks import Batch
        >>> Batch(jnp.ones((4, 5, 2)), jnp.zeros(4)).lengths is None
        True
    """

    xs: Float[Array, "B T D"] | Int[Array, "B T"]
    targets: Array
    lengths: Int[Array, " B"] | None = None
    mask: Float[Array, "B T"] | None = None
    weights: Float[Array, " B"] | None = None
    decoder_inputs: Int[Array, "B T"] | Float[Array, "B N K"] | None = None
    decoder_lengths: Int[Array, " B"] | None = None


@dataclasses.dataclass(frozen=True)
class Task(abc.ABC):
    """A data set with its loss. The fields of a subclass are its settings, by the names that configs use.

    A batch is a pure function of the data, a key and example indices, and runs inside the compiled step.

    Examples:
        >>> from gru_jax.tasks import TASKS
        >>> task = TASKS["adding"](20)
        >>> task.time, task.input_size, task.output_size, task.goal
        (20, 2, 1, ('loss', 'min'))
    """

    goal: ClassVar[tuple[str, str]] = ("loss", "min")
    """The metric that decides which checkpoint is best, and whether the least or the greatest wins."""

    readout: ClassVar[Literal["last", "mean", "every"]] = "last"
    """What the loss needs of the model, one of `gru_jax.nn.READOUTS`."""

    predicts_inputs: ClassVar[bool] = False
    """Whether targets are the inputs of later steps, so that no network may read backwards."""

    held_out_may_be_longer: ClassVar[bool] = False
    """Whether validation and test sequences may have more steps than `time`; targets and mask stand at each step."""

    reads_tokens: ClassVar[bool] = False
    """Whether inputs are numbers of tokens, `[B, T]`, of which there are `input_size`."""

    family: ClassVar[Literal["sequence", "encoder_decoder", "forecaster"]] = "sequence"
    """The kind of network that can learn it, one of `gru_jax.nn.families`."""
    family_options: ClassVar[Mapping[str, Any]] = {}
    """What that kind of network has to know of the task, beside the sizes: arguments by name."""

    is_stream: ClassVar[bool] = False
    """Whether examples are the pieces of one long sequence, in their order.

    What a network carries then goes on from each piece to the one after it, in training and in evaluation.
    """

    traces_numbers: ClassVar[bool] = True
    """Whether its real numbers are traced where batches and metrics are made, so that all their values share a program.

    Not where it makes anything else of them: the data that it reads, sizes, shapes.
    """

    def __post_init__(self) -> None:
        check_values(self)

    @property
    @abc.abstractmethod
    def input_size(self) -> int:
        """D; where inputs are tokens, how many different ones there are."""

    @property
    @abc.abstractmethod
    def output_size(self) -> int:
        """O, classes or targets."""

    @property
    @abc.abstractmethod
    def time(self) -> int:
        """T, steps of the longest sequence, or of a piece."""

    @property
    @abc.abstractmethod
    def baseline(self) -> Mapping[str, float]:
        """Metrics of the best predictor without memory, or of chance; what it knows is from the training data."""

    @property
    def baselines(self) -> Mapping[str, Mapping[str, float]]:
        """Test metrics of answers that need no network, by name, `baseline` first."""
        return {MEMORYLESS: self.baseline}

    @abc.abstractmethod
    def size(self, split: str) -> int | None:
        """Examples in a split; None where they are generated without end."""

    @abc.abstractmethod
    def load(self, split: str) -> dict[str, np.ndarray]:
        """The arrays that `batch` indexes; empty for a generated task."""

    def rows(self, split: str) -> Mapping[str, Rows]:
        """What `load` gives, to be read row by row, where a task can; of these, `batch` takes those it is given."""
        return {}

    def check_rows(self, split: str) -> None:
        """Look at data that are to be read row by row, once, as `load` looks at those that it reads.

        Raises:
            UsageError: they are not usable.
        """
        del split

    @abc.abstractmethod
    def batch(self, data: Mapping[str, Array], key: PRNGKeyArray, index: Int[Array, " B"]) -> Batch:
        """The examples with these indices."""

    def train_lengths(self) -> Integer[np.ndarray, " N"] | None:
        """The length of each training example, where the files say it; None where they are of one length."""
        return None

    def train_indices(self, batch_size: int, seed: int, *, by_length: bool = False) -> StepIndices:
        """Which training examples each step of a run with this seed sees, in batches of similar length if asked.

        Raises:
            UsageError: the examples have no lengths to go by.
        """
        lengths = self.train_lengths() if by_length else None
        if by_length and lengths is None:
            raise UsageError(
                "train.batch_by_length=True: the training examples of this task have no lengths of their own; allowed "
                "is False"
            )
        if self.is_stream:
            return stream_indices(self.size("train") or 0, batch_size)
        return batch_indices(self.size("train"), batch_size, split_key("train", seed), lengths)

    @property
    def scored_splits(self) -> tuple[str, ...]:
        """The splits that networks have scores of: all but the training's that have targets."""
        return SPLITS[1:]

    @property
    def streams_in_evaluation(self) -> int:
        """Where examples are the pieces of one long sequence, into how many parts evaluations cut it."""
        return 1

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the outputs, where these are logits of classes; else none."""
        return ()

    def network_inputs(self, xs: Array) -> Array:
        """New inputs, as people have them, as the network sees them; inside the compiled program."""
        return xs

    def read_outputs(self, outputs: np.ndarray) -> Mapping[str, np.ndarray]:
        """What a person reads of outputs `[..., O]`, by name: a class and probabilities, or values in their units."""
        if self.class_names:
            return read_classes(outputs, self.class_names)
        names = ["prediction"] if outputs.shape[-1] == 1 else [f"prediction{i}" for i in range(outputs.shape[-1])]
        return read_numbers(outputs, names)

    def read_targets(self, targets: np.ndarray) -> Mapping[str, np.ndarray]:
        """What a person reads of targets, by name; empty where they do not stand beside outputs one to one."""
        return read_target_classes(targets, self.class_names) if self.class_names else {"target": targets}

    def read_input(self, path: Path) -> Mapping[str, np.ndarray]:
        """New inputs of a file: `xs` `[N, T, D]`, `lengths` `[N]`, and `targets` and `mask` where a task can use them.

        Raises:
            UsageError: it cannot be read, or does not fit the task.
        """
        return self.check_new(read_arrays(path), path)

    def check_new(
        self, arrays: Mapping[str, np.ndarray], path: Path, place: Callable[..., str] | None = None
    ) -> Mapping[str, np.ndarray]:
        """New inputs, of a file or called by a name, once they are known to fit the task; `place` says where one is.

        Raises:
            UsageError: they do not.
        """
        for name in arrays:
            check_choice(f"{path}: array", name, ("xs", "lengths"))
        return check_input(arrays, path, self.input_size, place=place)

    def describe_data(self) -> list[str]:
        """Lines on the data for people, as what labels occur."""
        return []

    @abc.abstractmethod
    def metrics(self, outputs: Array, batch: Batch) -> dict[str, Float[Array, " B"]]:
        """Each example's metrics by name; `loss` is the one that is trained on.

        Their means are reported, weighted by the batch's `weights` where it has them.
        """

    def of_means(self, means: Mapping[str, float]) -> Mapping[str, float]:
        """What else is said of a split beside the means of its metrics, as a perplexity; computed from them."""
        return {}

    def variables(self, batch: Batch) -> Mapping[str, Float[Array, "B T"]]:
        """What the states of a network may hold at every step, by name: probes look for it there.

        By default the targets, those of one step at all steps; of classes whether it is each, by its name.
        """
        return target_variables(batch.targets, self.time, self.class_names)

    def answers(self, outputs: Array, batch: Batch) -> tuple[Array, Array, Array]:
        """For scores of a whole set (`train.metrics`), outputs, targets and weights of each example or step.

        Logits `[B, (T,) K]` with classes `[B, (T)]`, or numbers `[B, (T,) O]` with numbers of that shape. Every
        sequence counts the same, or by its weight.

        Raises:
            UsageError: outputs and targets are neither.
        """
        targets, weights = batch.targets, jnp.ones(outputs.shape[:-1])
        if batch.mask is not None and batch.mask.shape == weights.shape:
            weights = batch.mask / batch.mask.sum(axis=1, keepdims=True)
        if batch.weights is not None:
            weights *= batch.weights.reshape(-1, *[1] * (weights.ndim - 1))
        if jnp.issubdtype(targets.dtype, jnp.floating) and targets.ndim == outputs.ndim - 1:
            targets = targets[..., None]
        classes = jnp.issubdtype(targets.dtype, jnp.integer) and targets.shape == outputs.shape[:-1]
        if not classes and not (jnp.issubdtype(targets.dtype, jnp.floating) and targets.shape == outputs.shape):
            raise UsageError(
                f"train.metrics: outputs of this task are {list(outputs.shape)} and targets {list(targets.shape)}; "
                "allowed are classes, one for each row of logits, or as many numbers"
            )
        return outputs.astype(jnp.float32), targets, weights


@dataclasses.dataclass(frozen=True)
class Generated(Task):
    """A task whose examples are drawn from (seed, index): endless in training, fixed sets for validation and test.

    Attributes:
        valid_size: examples in the validation set.
        test_size: examples in the test set.

    Examples:
        >>> from gru_jax.tasks import Adding  # one of its subclasses
        >>> task = Adding(20, valid_size=100)
        >>> task.size("train"), task.size("valid")
        (None, 100)
    """

    valid_size: int = setting(1024, low=1, high=10**7, kw_only=True)
    test_size: int = setting(4096, low=1, high=10**7, kw_only=True)

    def size(self, split: str) -> int | None:
        return {"train": None, "valid": self.valid_size, "test": self.test_size}[split]

    def load(self, split: str) -> dict[str, np.ndarray]:
        del split
        return {}

    @abc.abstractmethod
    def example(self, key: PRNGKeyArray) -> Batch:
        """One example, without the batch axis."""

    def batch(self, data: Mapping[str, Array], key: PRNGKeyArray, index: Int[Array, " B"]) -> Batch:
        del data
        return jax.vmap(lambda i: self.example(jax.random.fold_in(key, i)))(index)


@dataclasses.dataclass(frozen=True)
class FromFiles(Task, Folded):
    """A task whose examples are read from files.

    Attributes:
        data_dir: where the files are; None for `$GRU_JAX_DATA` or, where that is not set, `~/.cache/gru_jax`.

    Examples:
        >>> from gru_jax.tasks import MNIST  # one of its subclasses
        >>> MNIST().size("valid")
        5000
    """

    traces_numbers: ClassVar[bool] = False

    data_dir: str | None = setting(None, kw_only=True)

    stored_facts: ClassVar[Facts | None] = None
    """What a run has kept of its data, of a task that a run was opened with."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "stored_facts", facts_in_use())  # an attribute of this task, and none of its settings
        super().__post_init__()
        self.check_folds()

    @property
    def facts(self) -> Facts | None:
        """What a run keeps of its data, to use the network without them; None where the task knows it itself."""
        return None

    def data_files(self) -> Mapping[str, Path]:
        """The files by whose content a run knows its data, by their names; no need of those verified otherwise."""
        return {}

    @abc.abstractmethod
    def read(self, split: str) -> dict[str, np.ndarray]:
        """The arrays of the files of a split."""

    def open(self, split: str) -> Mapping[str, Rows]:
        """What `read` gives, to be read row by row, where a task can."""
        return {}

    @abc.abstractmethod
    def examples(self, data: Mapping[str, Array], index: Int[Array, " B"]) -> Batch:
        """The examples with these indices into the arrays."""

    def size(self, split: str) -> int:
        return self.chosen_size(split) if self.is_chosen(split) else self.count(split)

    def load(self, split: str) -> dict[str, np.ndarray]:
        if not self.is_chosen(split):
            return self.read(split)
        return {**self.read("train"), ORDER: self.order(split)}

    def rows(self, split: str) -> Mapping[str, Rows]:
        if not self.is_chosen(split):
            return self.open(split)
        order = self.order(split)
        return {name: rows.ordered(order) for name, rows in self.open("train").items()}

    def batch(self, data: Mapping[str, Array], key: PRNGKeyArray, index: Int[Array, " B"]) -> Batch:
        del key
        return self.examples(data, data[ORDER][index] if ORDER in data else index)


def split_key(split: str, seed: ArrayLike) -> PRNGKeyArray:
    """The key of a split's examples: of the run's seed in training, of a fixed seed otherwise.

    Examples:
        >>> from gru_jax.tasks import split_key
        >>> bool(split_key("valid", 0) == split_key("valid", 1))  # the same for all runs
        True
        >>> bool(split_key("train", 0) == split_key("train", 1))
        False
    """
    root = jax.random.key(seed if split == "train" else HELD_OUT_SEED)
    return jax.random.fold_in(root, SPLITS.index(split))


def classification(
    logits: Float[Array, "*batch O"], labels: Int[Array, " *batch"]
) -> dict[str, Float[Array, " *batch"]]:
    """Cross-entropy in nats, and accuracy, of each example or step."""
    return {
        "loss": optax.softmax_cross_entropy_with_integer_labels(logits, labels),
        "accuracy": is_likeliest(logits, labels).astype(jnp.float32),
    }
