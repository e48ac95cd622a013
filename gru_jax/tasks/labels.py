"""Labels of which several may hold at once, each a yes or no with a probability of its own."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Shaped
from scipy.special import expit


def label_metrics(logits: Float[Array, "*N O"], targets: Shaped[Array, "*N O"]) -> dict[str, Float[Array, "*N"]]:
    """Binary cross-entropy of a sigmoid in nats, and the share of labels that are right; means over the O labels.

    Args:
        logits: of each label.
        targets: which labels hold: booleans, or numbers 0 and 1.

    Examples:
        >>> import jax.numpy as jnp
        >>> from gru_jax.tasks.labels import label_metrics
        >>> metrics = label_metrics(jnp.zeros((1, 2)), jnp.array([[True, False]]))
        >>> round(float(metrics["loss"][0]), 4), float(metrics["accuracy"][0])
        (0.6931, 0.5)
    """
    losses = optax.sigmoid_binary_cross_entropy(logits, targets.astype(logits.dtype))
    right = (logits > 0) == targets.astype(bool)
    return {"loss": losses.mean(axis=-1), "accuracy": right.mean(axis=-1, dtype=jnp.float32)}


def answers_of_labels(
    logits: Float[Array, "*N O"], targets: Shaped[Array, "*N O"], weights: Float[Array, "*N"]
) -> tuple[Array, Array, Array]:
    """What scores of whole sets take: each label is an example of its own, with the two classes no and yes.

    Args:
        logits: of each label.
        targets: which labels hold.
        weights: how much the O labels of an example or a step count together.

    Returns:
        Logits `[*N, O, 2]`, classes `[*N, O]` and weights `[*N, O]`.
    """
    logits = logits.astype(jnp.float32)
    shares = jnp.broadcast_to(weights[..., None] / logits.shape[-1], logits.shape)
    return jnp.stack([jnp.zeros_like(logits), logits], axis=-1), targets.astype(jnp.int32), shares


def read_labels(logits: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Whether each label holds, by name, and its probability.

    Args:
        logits: `[..., O]`.
        names: of the O labels.

    Examples:
        >>> import numpy as np
        >>> from gru_jax.tasks.labels import read_labels
        >>> read_labels(np.array([[-9.0, 0.0]]), ["rain", "wind"])["p(wind)"].tolist()
        [0.5]
    """
    logits = np.asarray(logits, np.float64)
    held = {name: logits[..., i] > 0 for i, name in enumerate(names)}
    return {**held, **{f"p({name})": expit(logits[..., i]) for i, name in enumerate(names)}}


def best_constant(shares: np.ndarray, count: int, test: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    """The metrics in test of always giving each label the probability that it has in training.

    A label that training always or never shows is given that of half an example, of so many, that is otherwise.

    Args:
        shares: of the training targets that hold, for each label, `[O]`.
        count: training targets.
        test: which labels hold in test, `[K, O]` of 0 and 1.
        weights: how much each of these counts, `[K]`, 1 in all.
    """
    probability = np.clip(shares, 0.5 / count, 1 - 0.5 / count)
    in_test = (test * weights[:, None]).sum(axis=0)
    losses = -(in_test * np.log(probability) + (1 - in_test) * np.log1p(-probability))
    right = np.where(probability > 0.5, in_test, 1 - in_test)
    return {"loss": float(losses.mean()), "accuracy": float(right.mean())}
