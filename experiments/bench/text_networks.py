"""Training steps of networks that read tokens by linen and by PyTorch: language models, labels for texts, translation.

Each network is that of a config: the same layers, dropout, attention and head, on the batches that ours sees.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from gru_jax.config import Config
from gru_jax.errors import UsageError
from gru_jax.tasks import Batch, split_key

BATCHES = 64  # that a peer goes through again and again


def token_batches(config: Config) -> list[Batch]:
    """The first batches of a run, as NumPy arrays.

    Raises:
        UsageError: the network has what those of the peers here do not.
    """
    model = config.model
    for name, value, needed in (
        ("model.cell.name", type(model.cell).__name__, "GRU"),
        ("model.dropout", model.dropout, 0.0),
        ("model.readout", model.readout if needs_a_readout(config) else "max", "max"),
        ("model.attention", model.attention if is_translation(config) else "luong", "luong"),
        ("model.tied", model.tied and is_translation(config), False),
    ):
        if value != needed:
            raise UsageError(f"{name}={value}: the networks of other libraries here have {needed}")
    task = config.task
    data = {name: jnp.asarray(array) for name, array in task.load("train").items()}
    indices = task.train_indices(config.train.batch_size, 0, by_length=config.train.batch_by_length)(0, BATCHES)
    make = jax.jit(task.batch)
    return [jax.tree.map(np.asarray, make(data, split_key("train", 0), index)) for index in indices]


def tokens_per_step(config: Config) -> float:
    """How many tokens a batch has on average, without those that only fill it up; sources and targets together."""
    batches = token_batches(config)
    counts = [batch.xs.size if batch.lengths is None else batch.lengths.sum() for batch in batches]
    counts += [batch.decoder_lengths.sum() for batch in batches if batch.decoder_lengths is not None]
    return float(sum(counts)) / len(batches)


def is_translation(config: Config) -> bool:
    """Whether the network is an encoder with a decoder."""
    return config.task.family == "encoder_decoder"


def needs_a_readout(config: Config) -> bool:
    """Whether there is one answer for each sequence."""
    return not config.task.is_stream and not is_translation(config)


def linen_text_training(config: Config, steps: int) -> Callable[[], Any]:
    """So many steps in a call of a linen network with optax."""
    import optax

    batches, network, stream = token_batches(config), _linen_network(config), config.task.is_stream
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))

    def loss(params: PyTree, batch: Batch, carry: PyTree, key: PRNGKeyArray) -> tuple[Any, Any]:
        scores, carry = network.apply(params, batch, carry, rngs={"dropout": key})  # pyright: ignore[reportGeneralTypeIssues, reportAssignmentType]
        losses = optax.softmax_cross_entropy_with_integer_labels(scores, batch.targets)
        counts = jnp.ones_like(losses) if batch.mask is None else batch.mask
        return (losses * counts).sum() / counts.sum(), carry

    @jax.jit
    def step(params: PyTree, opt_state: PyTree, batch: Batch, carry: PyTree, key: PRNGKeyArray) -> Any:
        grads, carry = jax.grad(loss, has_aux=True)(params, batch, carry, key)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, carry if stream else None

    carry = tuple(jnp.zeros((len(batches[0].xs), size)) for size in config.model.hidden) if stream else None
    params = network.init({"params": jax.random.key(0), "dropout": jax.random.key(1)}, batches[0], carry)
    state, turns = (params, optimizer.init(params), carry), enumerate(itertools.cycle(batches))

    def call() -> None:
        nonlocal state
        for number, batch in itertools.islice(turns, steps):
            params, opt_state, carry = state
            state = step(params, opt_state, batch, carry, jax.random.key(number))
        jax.block_until_ready(state)

    return call


def _linen_network(config: Config) -> Any:
    from flax import linen

    model, task, width = config.model, config.task, config.model.embedding or 0

    class Network(linen.Module):
        @linen.compact
        def __call__(self, batch: PyTree, carry: PyTree) -> tuple[Any, Any]:
            embed = linen.Embed(task.input_size, width)
            states, carry = self.read(embed(batch.xs), batch.lengths, carry)
            if is_translation(config):
                states = self.write(states, carry, batch)
            elif needs_a_readout(config):
                within = jnp.arange(states.shape[1])[None, :, None] < batch.lengths[:, None, None]
                states = jnp.where(within, states, -jnp.inf).max(axis=1)
            states = drop(model.output_dropout, states)
            if model.tied:
                return embed.attend(states) + self.param("bias", linen.initializers.zeros, (task.output_size,)), carry
            return linen.Dense(task.output_size)(states), carry

        def read(self, xs: Any, lengths: Any, carry: PyTree) -> tuple[Any, Any]:
            xs, carries = drop(model.input_dropout, xs), []
            for layer, size in enumerate(model.hidden):
                rnn = linen.RNN(linen.GRUCell(size), return_carry=True)
                if model.bidirectional:
                    back = linen.RNN(linen.GRUCell(size), return_carry=True)
                    last, xs = linen.Bidirectional(rnn, back, return_carry=True)(xs, seq_lengths=lengths)
                else:
                    start = None if carry is None else carry[layer]
                    last, xs = rnn(xs, initial_carry=start, seq_lengths=lengths)
                carries.append(last)
            return xs, tuple(carries)

        def write(self, memory: Any, carries: PyTree, batch: PyTree) -> Any:
            xs: Any = drop(model.input_dropout, linen.Embed(task.output_size, width)(batch.decoder_inputs))
            for carry, size in zip(carries, model.hidden, strict=True):
                start = linen.Dense(size)(jnp.concatenate(carry, axis=-1)) if model.bidirectional else carry
                xs = linen.RNN(linen.GRUCell(size))(xs, initial_carry=start, seq_lengths=batch.decoder_lengths)
            keys = linen.Dense(xs.shape[-1], use_bias=False)(memory)
            within = jnp.arange(memory.shape[1])[None, None] < batch.lengths[:, None, None]
            looks = linen.softmax(jnp.where(within, jnp.einsum("bnh,bth->bnt", xs, keys), -1e30))
            context = jnp.einsum("bnt,btw->bnw", looks, memory)
            return jnp.tanh(linen.Dense(xs.shape[-1], use_bias=False)(jnp.concatenate([context, xs], axis=-1)))

    def drop(rate: float, xs: Any) -> Any:
        return linen.Dropout(rate, deterministic=False)(xs)

    return Network()


def torch_text_training(config: Config, steps: int) -> Callable[[], Any]:
    """So many steps in a call of a PyTorch network; texts of several lengths are packed, as its GRU wants them."""
    import torch  # pyright: ignore[reportMissingImports]

    network = _torch_network(config)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    batches: Iterator[Any] = itertools.cycle([_to_torch(batch) for batch in token_batches(config)])
    carry = None

    def call() -> None:
        nonlocal carry
        for batch in itertools.islice(batches, steps):
            optimizer.zero_grad(set_to_none=True)
            scores, carry = network(batch, carry)
            carry = carry.detach() if config.task.is_stream else None
            losses = torch.nn.functional.cross_entropy(scores.flatten(0, -2), batch.targets.flatten(), reduction="none")
            counts = torch.ones_like(losses) if batch.mask is None else batch.mask.flatten()
            ((losses * counts).sum() / counts.sum()).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()

    return call


def _to_torch(batch: Batch) -> Batch:
    import torch  # pyright: ignore[reportMissingImports]

    def convert(array: np.ndarray) -> Any:
        return torch.from_numpy(np.array(array, np.int64 if array.dtype.kind == "i" else np.float32))

    return jax.tree.map(convert, batch)


def _torch_network(config: Config) -> Any:
    import torch  # pyright: ignore[reportMissingImports]
    from torch import nn as tnn  # pyright: ignore[reportMissingImports]

    model, task = config.model, config.task
    size, *more = model.hidden
    if any(other != size for other in more):
        raise UsageError(f"model.hidden={model.hidden}: torch.nn.GRU has layers of one size")
    directions = 1 + model.bidirectional

    class Network(tnn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = {"num_layers": len(model.hidden), "batch_first": True}
            self.embed = tnn.Embedding(task.input_size, model.embedding)
            self.reader = tnn.GRU(model.embedding, size, bidirectional=model.bidirectional, **layers)
            if is_translation(config):
                self.written = tnn.Embedding(task.output_size, model.embedding)
                self.writer = tnn.GRU(model.embedding, size, **layers)
                self.bridges = tnn.ModuleList(tnn.Linear(directions * size, size) for _ in model.hidden)
                self.score = tnn.Linear(directions * size, size, bias=False)
                self.combine = tnn.Linear((directions + 1) * size, size, bias=False)
            self.head = tnn.Linear(size if is_translation(config) else directions * size, task.output_size)
            if model.tied:
                self.head.weight = self.embed.weight
            self.drop_in, self.drop_out = tnn.Dropout(model.input_dropout), tnn.Dropout(model.output_dropout)

        def forward(self, batch: Batch, carry: PyTree) -> tuple[Any, Any]:
            xs, total = self.drop_in(self.embed(batch.xs)), batch.xs.shape[1]
            if batch.lengths is None:
                states, carry = self.reader(xs, carry)
            else:
                packed = tnn.utils.rnn.pack_padded_sequence(xs, batch.lengths, batch_first=True, enforce_sorted=False)
                packed, carry = self.reader(packed)
                states, _ = tnn.utils.rnn.pad_packed_sequence(packed, batch_first=True, total_length=total)
            if is_translation(config):
                states = self.write(states, carry, batch)
            elif needs_a_readout(config):
                states = states.masked_fill(~within(batch, total)[..., None], -torch.inf).amax(1)
            return self.head(self.drop_out(states)), carry

        def write(self, memory: Any, carry: PyTree, batch: Batch) -> Any:
            both = carry.unflatten(0, (len(model.hidden), directions)).transpose(1, 2).flatten(2)
            start = torch.stack([bridge(last) for bridge, last in zip(self.bridges, both, strict=True)])
            states, _ = self.writer(self.drop_in(self.written(batch.decoder_inputs)), start)
            scores = torch.einsum("bnh,bth->bnt", states, self.score(memory))
            looks = scores.masked_fill(~within(batch, memory.shape[1])[:, None], -1e30).softmax(-1)
            context = torch.einsum("bnt,btw->bnw", looks, memory)
            return self.combine(torch.cat([context, states], -1)).tanh()

    def within(batch: PyTree, total: int) -> Any:
        return torch.arange(total)[None] < batch.lengths[:, None]

    return Network()
