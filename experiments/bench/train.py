"""Whole training steps a second: of `experiments.train`, and of the same network trained by other libraries' means."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from experiments.bench import text_networks
from experiments.bench.measure import AskedProcess, Row, answer_when_asked
from experiments.bench.population import training_calls
from gru_jax.config import Config, load_config
from gru_jax.runtime.devices import choose_devices, use_all_cores
from gru_jax.tasks import split_key
from gru_jax.tasks.loading import load_splits
from gru_jax.training.population import CompiledPopulation, Population

CONFIGS = {
    "quickstart": "configs/quickstart.py",
    "rows": "configs/mnist_rows.py",
    "pixels": "configs/mnist_pixels.py",
    "words": "configs/penn_treebank.py",
    "sentiment": "configs/sst2.py",
    "translation": "configs/multi30k.py",
}
OURS, FLAX, KERAS, TORCH = "gru_jax", "flax", "keras", "torch"
TRAINERS = {"linen": FLAX, KERAS: KERAS, TORCH: TORCH}
"""Which library trains for a peer."""
STEPS = 10  # in one call
EXAMPLES = 8192
"""Examples that a peer trains on, as arrays: of a task that is generated without end, so many."""


def measure_training(configs: Sequence[str], peers: Sequence[str], devices: int, repeats: int) -> Iterator[Row]:
    """Measure training steps of each config, by ours on one device and on several and by others, in turn.

    Every contender is a process of its own. Batches, forward and backward pass and update count; validations and files
    do not. The network, the optimiser and its clipping are those of the config.

    Args:
        configs: names in `CONFIGS`.
        peers: installed libraries; those of `TRAINERS` are measured, Keras not on tokens.
        devices: CPU devices of ours, beside one.
        repeats: turns.
    """
    for name in configs:
        config = load_config(CONFIGS[name])
        who_and_count = {f"{OURS}, devices={count}": (OURS, count) for count in dict.fromkeys((devices, 1))}
        trainers = [TRAINERS[peer] for peer in peers if peer in TRAINERS]
        who_and_count |= {who: (who, 1) for who in trainers if who != KERAS or not config.task.reads_tokens}
        with contextlib.ExitStack() as stack:
            contenders = {
                who: stack.enter_context(contextlib.closing(_process(trainer, CONFIGS[name], count)))
                for who, (trainer, count) in who_and_count.items()
            }
            turns = [{who: process.seconds() for who, process in contenders.items()} for _ in range(repeats)]
        seconds = {who: float(np.median([turn[who] for turn in turns])) for who in contenders}
        row = {"config": name, "devices": devices, "steps_per_second": {who: 1 / s for who, s in seconds.items()}}
        if config.task.reads_tokens:
            row["tokens_per_step"] = text_networks.tokens_per_step(config)
        yield row


def _process(trainer: str, config: str, devices: int) -> AskedProcess:
    arguments, variables = (trainer, config, str(devices)), {"JAX_NUM_CPU_DEVICES": str(devices)}
    return AskedProcess("experiments.bench.train", *arguments, environment=variables)


def describe_training(row: Row) -> str:
    """The rate of every contender, and ours over it."""
    rates = row["steps_per_second"]
    ours = rates[f"{OURS}, devices={row['devices']}"]
    lines = [f"\n{row['config']}: {CONFIGS[row['config']]}"]
    tokens = row.get("tokens_per_step")
    for who, rate in rates.items():
        said = f"{rate * tokens:9,.0f} tokens/s" if tokens else f"{rate:9.2f} steps/s"
        lines.append(f"  {who:20}{said}   ours {ours / rate:.2f}x")
    return "\n".join(lines)


def our_training(config: Config, devices: int) -> Callable[[], Any]:
    """`STEPS` steps of a run of ours, on so many devices."""
    use_all_cores()
    chosen = choose_devices("auto", devices, config.train.batch_size)
    compiled = CompiledPopulation(config, load_splits(config.task, config.resident_mb), chosen, single=True)
    return training_calls(Population(compiled, [config]), STEPS)


def examples(config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets of a config's training as arrays of whole batches; values are `[N, O]`, classes `[N]`."""
    task, batch_size = config.task, config.train.batch_size
    data = {name: jnp.asarray(array) for name, array in task.load("train").items()}
    count = min(task.size("train") or EXAMPLES, EXAMPLES) // batch_size * batch_size
    batch = task.batch(data, split_key("train", 0), jnp.arange(count, dtype=jnp.int32))
    targets = np.asarray(batch.targets)
    return np.asarray(batch.xs), targets if is_classification(targets) else targets.reshape(count, -1)


def is_classification(targets: np.ndarray) -> bool:
    """Whether targets are classes; else they are values."""
    return np.issubdtype(targets.dtype, np.integer)


def flax_training(config: Config) -> Callable[[], Any]:
    """Steps of a linen network with optax, on batches of shuffled arrays."""
    import optax
    from flax import linen

    xs, targets = examples(config)
    classes = is_classification(targets)

    class Network(linen.Module):
        @linen.compact
        def __call__(self, xs: Any) -> Any:
            for size in config.model.hidden:
                xs = linen.RNN(linen.GRUCell(size))(xs)
            return linen.Dense(config.task.output_size)(xs[:, -1])

    network = Network()
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))

    def loss(params: PyTree, xs: Any, targets: Any) -> Any:
        outputs: Any = network.apply(params, xs)
        if classes:
            return optax.softmax_cross_entropy_with_integer_labels(outputs, targets).mean()
        return jnp.square(outputs - targets).mean()

    @jax.jit
    def step(params: PyTree, opt_state: PyTree, xs: Any, targets: Any) -> Any:
        grads = jax.grad(loss)(params, xs, targets)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    params = network.init(jax.random.key(0), xs[: config.train.batch_size])
    state = (params, optimizer.init(params))
    batches = _shuffled(len(xs), config.train.batch_size)

    def call() -> None:
        nonlocal state
        for rows in itertools.islice(batches, STEPS):
            state = step(*state, xs[rows], targets[rows])
        jax.block_until_ready(state)

    return call


def _shuffled(count: int, batch_size: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    while True:
        yield from rng.permutation(count).reshape(-1, batch_size)


def keras_training(config: Config) -> Callable[[], Any]:
    """Steps of Keras' `fit` on JAX."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras  # pyright: ignore[reportMissingImports]

    xs, targets = examples(config)
    *lower, top = config.model.hidden
    layers = [keras.layers.GRU(size, return_sequences=True) for size in lower]
    model = keras.Sequential([*layers, keras.layers.GRU(top), keras.layers.Dense(config.task.output_size)])
    classes = is_classification(targets)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True) if classes else "mse"
    model.compile(keras.optimizers.Adam(1e-3, global_clipnorm=1.0), loss)
    count, starts = STEPS * config.train.batch_size, itertools.count()

    def call() -> None:
        first = next(starts) * count % (len(xs) - count)
        rows = slice(first, first + count)
        model.fit(xs[rows], targets[rows], batch_size=config.train.batch_size, epochs=1, verbose=0)

    return call


def torch_training(config: Config) -> Callable[[], Any]:
    """Steps of a PyTorch network with its data loader."""
    import torch  # pyright: ignore[reportMissingImports]

    xs, targets = examples(config)
    classes = is_classification(targets)

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            size, *more = config.model.hidden
            if any(other != size for other in more):
                raise ValueError("torch.nn.GRU has layers of one size")
            self.gru = torch.nn.GRU(xs.shape[-1], size, num_layers=1 + len(more), batch_first=True)
            self.head = torch.nn.Linear(size, config.task.output_size)

        def forward(self, xs: Any) -> Any:
            return self.head(self.gru(xs)[0][:, -1])

    network = Network()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    loss = torch.nn.functional.cross_entropy if classes else torch.nn.functional.mse_loss
    targets = targets.astype(np.int64) if classes else targets
    pairs = torch.utils.data.TensorDataset(torch.from_numpy(xs.copy()), torch.from_numpy(targets.copy()))
    loader = torch.utils.data.DataLoader(pairs, batch_size=config.train.batch_size, shuffle=True)
    batches = itertools.chain.from_iterable(itertools.repeat(loader))

    def call() -> None:
        for batch, wanted in itertools.islice(batches, STEPS):
            optimizer.zero_grad(set_to_none=True)
            loss(network(batch), wanted).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()

    return call


if __name__ == "__main__":
    trainer, config_file, count = sys.argv[1:]
    config = load_config(config_file)
    others = {FLAX: flax_training, KERAS: keras_training, TORCH: torch_training}
    if config.task.reads_tokens:
        readers = {FLAX: text_networks.linen_text_training, TORCH: text_networks.torch_text_training}
        others |= {who: functools.partial(training, steps=STEPS) for who, training in readers.items()}
    answer_when_asked(others[trainer](config) if trainer in others else our_training(config, int(count)), STEPS)
