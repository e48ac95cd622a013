"""What a decoder reads in training: the target, or here and there what it would have written itself.

Scheduled sampling: Bengio et al. 2015, arXiv:1506.03099. In two passes: Mihaylova and Martins 2019, arXiv:1906.07651.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key, PyTree

from gru_jax.config import Config, Values
from gru_jax.nn import Functional
from gru_jax.tasks import Batch
from gru_jax.tasks.likeliest import likeliest
from gru_jax.training.large_heads import over_outputs
from gru_jax.training.state import RandomStream, stream_key

SHARES: dict[str, Callable[[Array], Array]] = {
    "constant": jnp.ones_like,
    "linear": lambda way: way,
    "exponential": lambda way: 1 - jnp.power(0.01, way),
    "inverse_sigmoid": lambda way: jax.nn.sigmoid(12 * (way - 0.5)),
}
"""What share of its probability there is at a part of the way through the training, 0 at the first step, 1 at the last.

They are one less the paper's decays of the probability of the target's token, whose constants a training's length sets:
the exponential one comes to a hundredth, the inverse sigmoid is half-way through in the middle.
"""


class OwnTokens(NamedTuple):
    """Where a decoder reads what it would have written itself.

    Attributes:
        keys: what that is drawn by, for each sequence, `[B]`.
        probability: of each token, `[B]`.
    """

    keys: Key[Array, " B"]
    probability: Float[Array, " B"]


def draw_own_tokens(
    config: Config, seed: ArrayLike, step: ArrayLike, steps: int, batch_size: int, values: Values
) -> OwnTokens | None:
    """Where the decoder of a config reads its own tokens in a step; None where it never does.

    Args:
        config: of the training.
        seed: of the run.
        step: how many there were before.
        steps: of the training.
        batch_size: sequences.
        values: hyperparameters of the section `model`.
    """
    if not config.model.scheduled_sampling:
        return None
    probability = values["scheduled_sampling"]
    way = jnp.asarray(step, probability.dtype) / max(1, steps - 1)
    share = SHARES[config.model.sampling_schedule](way).astype(probability.dtype)
    key = stream_key(seed, RandomStream.SAMPLING, step)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(batch_size))
    return OwnTokens(keys, jnp.broadcast_to(probability * share, (batch_size,)))


def with_own_tokens(model: Functional, params: PyTree, batch: Batch, sampled: OwnTokens | None) -> Batch:
    """A batch whose decoder inputs are here and there what the decoder finds likeliest after those before.

    What that is follows from a pass over the target as it is, without dropout. The loss is then of a second pass, so
    that both are plain unrolls; its gradient does not go through the choice.
    """
    targets = batch.decoder_inputs
    if sampled is None or targets is None:
        return batch
    trace = model.apply(
        params, batch.xs, lengths=batch.lengths, decoder_inputs=targets, decoder_lengths=batch.decoder_lengths
    )
    written = over_outputs(lambda outputs, _: likeliest(outputs), model, params, trace)
    written = jnp.concatenate([targets[:, :1], written[:, :-1].astype(targets.dtype)], axis=1)
    is_own = jax.vmap(lambda key, p: jax.random.bernoulli(key, p, targets.shape[1:]))(sampled.keys, sampled.probability)
    return batch._replace(decoder_inputs=jnp.where(is_own, written, targets))
